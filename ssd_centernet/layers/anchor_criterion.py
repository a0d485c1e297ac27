"""The base of criteria over anchors: what each anchor is to learn, and losses of its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.assigners import Assigner
from ssd_centernet.layers.class_factors import ClassFactors
from ssd_centernet.ops import box_losses, imitation, matching
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import losses as loss_ops

HUBER = "huber"
BOX_LOSSES = (HUBER, *box_losses.KINDS)
# Of an anchor's size; a wild code could overflow, and its gradient would not be finite.
_MAX_LOG_SIZE = 4.135166556742356  # ln(1000 / 16), as in other libraries.
CROWD_MODES = ("object", "drop", "ignore")


class AnchorCriterion(ClassFactors):
    """The base of criteria that match objects with anchors, which learn their class and box."""

    def __init__(
        self,
        matched_threshold: float,
        *,
        crowd: str,
        scale_factors: tuple[float, float, float, float],
        class_loss_weight: float,
        box_loss_weight: float,
        box_loss: str,
        assigner: Assigner | None,
        label_smoothing: float,
        class_weights: Mapping[str, float] | None,
        **kwargs,
    ):
        """Note the settings, which `MultiBoxLoss` explains.

        Raises:
            ValueError: `crowd` or `box_loss` is not one of its choices, a number is out of range,
                or `assigner` is none.
        """
        super().__init__(class_weights=class_weights, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"{type(self).__name__}.label_smoothing must be at least 0 and below 1, got "
                f"{label_smoothing!r}."
            )
        self.label_smoothing = label_smoothing
        self.check_choice("crowd", crowd, CROWD_MODES)
        self.check_choice("box_loss", box_loss, BOX_LOSSES)
        self.check_loss_weights(
            class_loss_weight=class_loss_weight, box_loss_weight=box_loss_weight
        )
        if not all(factor > 0 for factor in scale_factors):
            raise ValueError(
                f"{type(self).__name__}.scale_factors must be four numbers above 0, got "
                f"{tuple(scale_factors)}."
            )
        if assigner is not None and not isinstance(assigner, Assigner):
            raise ValueError(
                f"{type(self).__name__}.assigner is {assigner!r}; expected an assigner with "
                "brackets after its name, such as @ATSS() or @TaskAligned(), or None."
            )
        self.matched_threshold = matched_threshold
        self.crowd = crowd
        self.scale_factors = tuple(scale_factors)
        self.class_loss_weight = class_loss_weight
        self.box_loss_weight = box_loss_weight
        self.box_loss = box_loss
        self.assigner = assigner

    @property
    def needs_outputs(self) -> bool:
        """Whether the targets depend on the network's outputs, and so are made in the step."""
        return self.assigner is not None and self.assigner.needs_outputs

    @property
    def needs_progress(self) -> bool:
        """Whether the targets depend on how much of the run is over."""
        return self.needs_outputs and getattr(self.assigner, "needs_progress", False)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Return the factor of each loss part in the total."""
        return {"class": self.class_loss_weight, "box": self.box_loss_weight}

    def get_config(self) -> dict:
        """Return the constructor's arguments, with the assigner serialised."""
        given = keras.saving.serialize_keras_object(self.assigner) if self.assigner else None
        return {**super().get_config(), "assigner": given}

    @classmethod
    def from_config(cls, config: dict):
        """Build the criterion from `get_config`."""
        assigner = config.get("assigner")
        if isinstance(assigner, dict):
            assigner = keras.saving.deserialize_keras_object(assigner)
        return cls(**{**config, "assigner": assigner})

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """Turn logits float32 [B, A, C + 1] into the scores [B, A, C] of the classes."""
        raise NotImplementedError

    def divergence(self, logits: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
        """Compute how far the classes [B, A] are from a teacher's; see `ops/imitation.py`."""
        raise NotImplementedError

    def imitate(
        self, outputs: dict[str, tf.Tensor], teacher: dict[str, tf.Tensor], temperature: float
    ) -> dict[str, tf.Tensor]:
        """Compare what the network says with what its teacher says of the same images.

        An anchor's classes count with the larger of both best scores, so that what only one of the
        two takes for an object counts too; its box counts with the teacher's best score.

        Args:
            outputs: as in `call`.
            teacher: the same of the teacher, a constant for the gradient.
            temperature: divides the logits, see `ops/imitation.py`.

        Returns:
            `class` and `box`, float32 scalars: means over the anchors by these weights.
        """
        teacher = {name: tf.stop_gradient(value) for name, value in teacher.items()}
        told, said = (
            tf.reduce_max(self.scores(one["class_logits"]), axis=-1) for one in (teacher, outputs)
        )
        divergences = self.divergence(outputs["class_logits"], teacher["class_logits"], temperature)
        if self.box_loss == HUBER:
            errors = outputs["box_codes"] - teacher["box_codes"]
            distances = tf.reduce_sum(loss_ops.huber(errors), axis=-1)
        else:
            boxes = self._boxes(outputs, outputs["box_codes"], _MAX_LOG_SIZE)
            taught = self._boxes(outputs, teacher["box_codes"], _MAX_LOG_SIZE)
            distances = box_losses.overlap_loss(boxes, taught, self.box_loss)
        return {
            "class": imitation.weighted_mean(divergences, tf.maximum(told, said)),
            "box": imitation.weighted_mean(distances, told),
        }

    def make_targets(
        self,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        is_crowd: tf.Tensor,
        anchors: tf.Tensor,
        valid: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
        *,
        levels: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Find the anchors that learn each object, for one image or (with leading B) a batch.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input or its pixels;
                pixels with an `assigner`.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            anchors: float32 [A, 4], yxyx, same frame; a NumPy array is fastest.
            valid: bool [..., M], False for padding; None counts all rows.
            weights: float32 [..., M], at least 0, weights of the objects where the criterion takes
                them; None means 1.
            levels: for each level the number of its anchors, and how many of them share a cell;
                some assigners need it.

        Returns:
            A dict of tensors for `call`: targets of each anchor, [..., A, ...], or, with an
            assigner that `needs_outputs`, the objects, [..., M, ...].
        """
        objects, regions = self._parts(is_crowd, valid)
        if self.needs_outputs:
            every = tf.ones_like(classes, tf.bool)
            given = {
                "object_boxes": boxes,
                "object_classes": classes,
                "objects": every if objects is None else objects,
                "regions": ~every if regions is None else regions,
            }
            return given if weights is None else {**given, "object_weights": weights}
        if self.assigner is None:
            found = matching.find_targets(
                boxes,
                classes,
                anchors,
                objects=objects,
                regions=regions,
                matched_threshold=self.matched_threshold,
                scale_factors=self.scale_factors,
                **self._matching_options(weights),
            )
        else:
            counted = tf.ones_like(classes, tf.bool) if objects is None else objects
            matches = self.assigner(boxes, counted, anchors, levels)
            found = self._coded(matches, boxes, classes, anchors, regions)
        return self._finished(*found, weights)

    def assigned(self, outputs: dict, targets: dict) -> dict[str, tf.Tensor]:
        """Turn objects into the targets of each anchor, by what the network says of them.

        Args:
            outputs: as in `call`, with `anchors`; for a criterion that `needs_progress` also
                `levels` int32 [L, 2], a constant, as in `make_targets`, and, in a training,
                `progress` float32, the share of the run that is over.
            targets: result of `make_targets`, with leading B.

        Returns:
            What `make_targets` gives without an assigner, and `quality` float32 [B, A]; the same as
            `targets` if the assigner does not look at outputs.
        """
        if not self.needs_outputs:
            return targets
        boxes, classes = targets["object_boxes"], targets["object_classes"]
        position = {}
        if self.needs_progress and "progress" in outputs:
            levels = [tuple(level) for level in tf.get_static_value(outputs["levels"]).tolist()]
            position = {"levels": levels, "progress": outputs["progress"]}
        matches, quality = self.assigner(
            boxes,
            classes,
            targets["objects"],
            self._anchors(outputs),
            self.scores(outputs["class_logits"]),
            self._boxes(outputs, outputs["box_codes"], _MAX_LOG_SIZE),
            **position,
        )
        found = self._coded(matches, boxes, classes, outputs["anchors"], targets["regions"])
        return {**self._finished(*found, targets.get("object_weights")), "quality": quality}

    def _finished(self, matches, class_targets, box_targets, weights) -> dict[str, tf.Tensor]:
        """Name the targets of each anchor, and add what the loss needs beside them."""
        raise NotImplementedError

    def _matching_options(self, weights: tf.Tensor | None) -> dict:
        """Return what the matching by a threshold is told beside the settings of all criteria."""
        raise NotImplementedError

    def _parts(self, is_crowd, valid) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Return which rows are objects, and which are regions to ignore; None: all, and none."""
        objects, regions = valid, None
        if self.crowd != "object":
            objects = ~is_crowd if valid is None else valid & ~is_crowd
        if self.crowd == "ignore":
            regions = is_crowd if valid is None else valid & is_crowd
        return objects, regions

    def _coded(self, matches, boxes, classes, anchors, regions) -> tuple:
        """Return the matches with the classes and codes that they mean."""
        class_targets, box_targets = matching.assign_targets(
            boxes, classes, anchors, matches, scale_factors=self.scale_factors
        )
        if regions is not None:
            unmatched = tf.cast(matches, tf.float32) < 0.0
            ignored = matching.inside_regions(anchors, boxes, regions) & unmatched
            class_targets = tf.where(ignored, -1, class_targets)
        return matches, class_targets, box_targets

    def _overlap_losses(self, outputs: dict, targets: dict, kind: str) -> tf.Tensor:
        """Return the loss of each anchor's box by its overlap, [B, A], 0 without an object."""
        positives = (tf.cast(targets["classes"], tf.float32) > 0.0)[..., tf.newaxis]
        # Before anything is computed: what an anchor without an object says may not be finite.
        codes = tf.where(positives, outputs["box_codes"], 0.0)
        boxes = self._boxes(outputs, codes, _MAX_LOG_SIZE)
        return box_losses.overlap_loss(boxes, self._boxes(outputs, targets["boxes"]), kind)

    def _boxes(self, outputs: dict, codes, max_log_size: float | None = None) -> tf.Tensor:
        return box_ops.decode(codes, self._anchors(outputs), self.scale_factors, max_log_size)

    def _anchors(self, outputs: dict) -> tf.Tensor:
        if "anchors" not in outputs:
            raise ValueError(
                f"{type(self).__name__} compares boxes with box_loss={self.box_loss!r} and "
                f"assigner={self.assigner and self.assigner.name!r}, so outputs must hold "
                "'anchors', float32 [A, 4], yxyx in pixels, as those of SSD do; it holds "
                f"{sorted(outputs)}."
            )
        return outputs["anchors"]
