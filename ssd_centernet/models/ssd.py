"""SSD: anchors on several feature levels, a softmax over classes and a box code for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.layers.heads import SSDHead
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.detector import Detector, size_in_words
from ssd_centernet.models.matches import (
    MATCHED,
    UNMATCHED,
    WEAK,
    Matches,
    Terms,
    at_best,
    best_units,
    find_owners,
    states_of,
)
from ssd_centernet.models.parts import build_head, check_method, check_parts, features_of
from ssd_centernet.ops import boxes as box_ops

# What a trained SSD300 leaves of an image of COCO at the threshold 0.05.
_CANDIDATES = 195


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSD(Detector):
    """Single Shot MultiBox Detector.

    The defaults of its parts make the published SSD300 ResNet-34; see
    `gin_configs/ssd300_resnet34.gin`.

    Source:
        docs/reference/ssd_resnet34.md, sections 2 to 6 and 13
        SSD: Single Shot MultiBox Detector (arXiv:1512.02325)
    """

    PARTS = ("backbone", "neck", "head", "anchors", "criterion", "decoder", "preprocessing")
    PREDICTS_BACKGROUND = True

    def __init__(
        self,
        backbone: keras.Model,
        *,
        num_classes: int,
        image_size: tuple[int, int] = (300, 300),
        neck: keras.layers.Layer | None = None,
        head: Callable[..., keras.layers.Layer] | keras.layers.Layer = SSDHead,
        anchors: keras.layers.Layer | None = None,
        criterion: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        match_in_pixels: bool = False,
        name: str = "ssd",
    ):
        """Build the detector.

        Args:
            backbone: Keras model from images [B, h, w, 3] to a dict of feature maps by level: "3"
                has stride 8. docs/python.md makes one of any model of `keras.applications`.
            num_classes: C, without background.
            image_size: (height, width) of the network's input in pixels.
            neck: layer from the backbone's levels, finest first, to the head's levels; None means
                `SSDExtraLevels`.
            head: constructor of the head, called with the number of logits (C + 1) and
                `boxes_per_cell`, such as `SSDHead`; or a head that is built.
            anchors: layer that makes the anchors of the levels; None means `DefaultBoxes`.
            criterion: layer with the loss; None means `MultiBoxLoss`.
            decoder: layer from raw outputs to detections; None means `SSDDecoder`.
            preprocessing: layer that prepares images for the network.
            class_names: names of the C classes.
            match_in_pixels: whether to match objects in pixels of the input instead of fractions;
                only ties differ (see `ops.anchors.pixel_boxes`). The layer of anchors must have
                `generate_in_pixels`.
            name: name of the model.

        Raises:
            ValueError: a part is not a layer, or belongs to another kind of detector.
        """
        check_parts(
            "SSD",
            backbone=(backbone, "ResNet"),
            neck=(neck, "SSDExtraLevels"),
            anchors=(anchors, "DefaultBoxes"),
            criterion=(criterion, "MultiBoxLoss"),
            decoder=(decoder, "SSDDecoder"),
            preprocessing=(preprocessing, "Preprocessing"),
        )
        neck = neck or SSDExtraLevels()
        anchors = anchors or DefaultBoxes()
        images = keras.Input((*image_size, 3), name="image")
        features = features_of("SSD", backbone, images)
        levels = neck([features[key] for key in sorted(features, key=int)])
        criterion, decoder = criterion or MultiBoxLoss(), decoder or SSDDecoder()
        check_method("SSD.criterion", criterion, "make_targets", "MultiBoxLoss", *range(5))
        check_method("SSD.decoder", decoder, "call", "SSDDecoder", *range(2))
        cells = anchors.boxes_per_cell
        head = build_head("SSD.head", head, "SSDHead", num_classes + 1, boxes_per_cell=cells)
        super().__init__(
            inputs=images,
            outputs=head(levels),
            num_classes=num_classes,
            image_size=image_size,
            preprocessing=preprocessing or Preprocessing(image_size),
            class_names=class_names,
            name=name,
        )
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.anchors = anchors
        self._name_classes(criterion)
        self.criterion = criterion
        self.decoder = decoder
        self.feature_sizes = tuple(tuple(level.shape[1:3]) for level in levels)
        self._anchor_boxes = anchors.generate(self.image_size, self.feature_sizes)
        self.match_in_pixels = match_in_pixels
        if match_in_pixels:
            self._pixel_anchors = anchors.generate_in_pixels(self.image_size, self.feature_sizes)

    @property
    def anchor_boxes(self) -> tf.Tensor:
        """Return the anchors, float32 [A, 4], yxyx as fractions of the image."""
        return tf.constant(self._anchor_boxes)

    def make_targets(
        self, boxes, classes, is_crowd, valid=None, extent=None
    ) -> dict[str, tf.Tensor]:
        """Match ground truth to the anchors; see `layers/criteria.py`."""
        del extent  # Anchors on padding are background like others.
        if getattr(self.criterion, "assigner", None) is not None:
            boxes = boxes * tf.constant([*self.image_size, *self.image_size], tf.float32)
            return self.criterion.make_targets(
                boxes, classes, is_crowd, self._anchors_in_pixels(), valid, levels=self._levels
            )
        anchors = self._anchor_boxes
        if self.match_in_pixels:
            anchors = self._pixel_anchors
            boxes = boxes * tf.constant([*self.image_size, *self.image_size], tf.float32)
        return self.criterion.make_targets(boxes, classes, is_crowd, anchors, valid)

    def losses_of(self, outputs, targets, progress=None) -> dict[str, tf.Tensor]:
        """Compute the loss parts; the criterion is told the anchors in pixels too."""
        told = {"anchors": tf.constant(self._anchors_in_pixels())}
        if self.needs_progress and progress is not None:
            told |= {"levels": tf.constant(self._levels), "progress": progress}
        return self.criterion({**outputs, **told}, targets)

    def imitation_of(self, outputs, teacher, temperature: float) -> dict[str, tf.Tensor]:
        """Compare outputs with a teacher's; the criterion is told the anchors in pixels too."""
        anchors = {"anchors": tf.constant(self._anchors_in_pixels())}
        return self.criterion.imitate({**outputs, **anchors}, {**teacher, **anchors}, temperature)

    def output_facts(self) -> dict[str, Any]:
        """Return what the outputs mean, with anchors, the code of boxes and the kind of scores."""
        divergence = getattr(type(self.criterion), "divergence", None)
        return {
            **super().output_facts(),
            "anchors": self._anchor_boxes,
            "factors of the box code": tuple(self.criterion.scale_factors),
            "kinds of scores": None if divergence is None else divergence.__qualname__,
        }

    def _anchors_in_pixels(self) -> np.ndarray:
        return self._anchor_boxes * np.array([*self.image_size, *self.image_size], np.float32)

    @property
    def _levels(self) -> list[tuple[int, int]]:
        """Return, for each level, the number of its anchors, and of those that share a cell."""
        pairs = zip(self.feature_sizes, self.anchors.boxes_per_cell, strict=True)
        return [(rows * columns * cells, cells) for (rows, columns), cells in pairs]

    @property
    def targets_need_outputs(self) -> bool:
        """Whether the criterion's assigner looks at what the network says."""
        return getattr(self.criterion, "needs_outputs", False)

    @property
    def needs_progress(self) -> bool:
        """Whether the criterion's assigner has another one for the first part of a run."""
        return getattr(self.criterion, "needs_progress", False)

    @property
    def matches_by_force(self) -> bool:
        """Whether each object is given its best anchor where none fits: not by an assigner."""
        return getattr(self.criterion, "assigner", None) is None

    def fit_to_objects(self, boxes: np.ndarray) -> dict[str, Any] | None:
        """Compute scales and ratios of the anchors for these objects."""
        if not hasattr(self.anchors, "fitted"):
            return None
        sizes = (self.image_size, self.feature_sizes)
        settings = self.anchors.fitted(boxes, *sizes, self.criterion.matched_threshold)
        return {f"{type(self.anchors).__name__}.{name}": value for name, value in settings.items()}

    def explain_targets(self, targets: Mapping, boxes, classes, is_crowd, extent=None) -> Matches:
        """Read out of the targets which anchors learn which object.

        The box codes are decoded as the network's outputs would be, so that a wrong code shows as
        an anchor without an object.
        """
        del is_crowd, extent
        targets = self.targets_to_explain(targets)
        labels = targets["classes"].numpy()
        positive = np.flatnonzero(labels > 0)
        anchors, codes = self._anchor_boxes[positive], tf.gather(targets["boxes"], positive)
        coded = box_ops.decode(codes, anchors, self.criterion.scale_factors).numpy()
        owners = find_owners(coded, boxes, labels[positive, np.newaxis] == classes + 1)
        overlaps = box_ops.iou(anchors, coded).numpy().diagonal()
        best = best_units(owners, overlaps, len(boxes))
        # The codes round: a threshold met exactly is met. An assigner has none.
        least = self.criterion.matched_threshold if self.matches_by_force else 0.0
        reached = overlaps >= least - 1e-4
        per_level = np.prod(self.feature_sizes, axis=1) * self.anchors.boxes_per_cell
        levels = np.repeat(np.arange(len(per_level)), per_level)[positive]
        return Matches(
            terms=self._terms,
            states=states_of(best, reached),
            owners=owners,
            boxes=anchors,
            quality=box_ops.iou(boxes, self._anchor_boxes).numpy().max(axis=1),
            groups=at_best(levels, best, -1),
        )

    def targets_to_explain(self, targets: Mapping) -> Mapping:
        """Return the targets of one image by a network that says its anchors, and no class."""
        if not self.targets_need_outputs:
            return targets
        count = len(self._anchor_boxes)
        outputs = {
            "class_logits": tf.zeros([1, count, self.num_classes + 1]),
            "box_codes": tf.zeros([1, count, 4]),
            "anchors": tf.constant(self._anchors_in_pixels()),
        }
        made = self.criterion.assigned(outputs, {key: v[tf.newaxis] for key, v in targets.items()})
        return {key: value[0] for key, value in made.items()}

    @property
    def _terms(self) -> Terms:
        groups = tuple(f"level of {size_in_words(size)}" for size in self.feature_sizes)
        if not self.matches_by_force:
            name = type(self.criterion.assigner).__name__
            start = " of a network that predicts its anchors" if self.targets_need_outputs else ""
            return Terms(
                unit="anchor",
                states={
                    MATCHED: ("assigned", f"{name} gives the object anchors"),
                    UNMATCHED: ("never", "no anchor"),
                },
                quality="best IoU",
                groups=groups,
                notes=(
                    f"assigned: {name} gives the object anchors{start}. never: other objects took "
                    "every anchor it could have.",
                    "A level counts the objects whose best matched anchor lies on it.",
                ),
            )
        threshold = self.criterion.matched_threshold
        return Terms(
            unit="anchor",
            states={
                MATCHED: ("reached", "anchors reach the matching threshold"),
                WEAK: ("forced", "only the anchor that each object is given"),
                UNMATCHED: ("never", "no anchor"),
            },
            quality="best IoU",
            groups=groups,
            notes=(
                f"reached: an anchor has IoU {threshold:g} or more. forced: none has; it learns "
                "from the best one alone.",
                "never: other objects took every anchor it could have.",
                "A level counts the objects whose best matched anchor lies on it.",
            ),
        )

    def box_variables(self) -> set[str]:
        """Name the variables of the head's `box_layers`."""
        return self._in_head("box_layers")

    def realistic_outputs(self, boxes, classes, *, candidates: int = _CANDIDATES, seed: int = 0):
        """Make outputs in which so many anchors of each image score above 0.05 for a class.

        They are the anchors that overlap the objects most, with boxes near them. All others are
        background.
        """
        rng, anchors = np.random.default_rng(seed), self._anchor_boxes
        shape = (len(boxes), len(anchors))
        # Background against a class is as 0 against -10.
        logits = rng.normal(-10.0, 1.0, (*shape, self.num_classes + 1)).astype(np.float32)
        logits[..., 0] = 0.0
        codes = rng.normal(0.0, 0.3, (*shape, 4)).astype(np.float32)
        for image, (objects, labels) in enumerate(zip(boxes, classes, strict=True)):
            overlaps = box_ops.iou(objects, anchors).numpy()
            nearest = np.argsort(-overlaps.max(axis=0), kind="stable")[:candidates]
            owners = overlaps[:, nearest].argmax(axis=0)
            # e^-2.5 / (1 + e^-2.5) is 0.076: each of them is a candidate.
            scores = rng.uniform(-2.5, 4.0, len(nearest))
            logits[image, nearest, 1 + labels[owners]] = scores
            codes[image, nearest] += box_ops.encode(objects[owners], anchors[nearest]).numpy()
        return {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}

    def bare_decoding(self, outputs) -> tuple[Callable, tuple]:
        """Prepare TensorFlow's suppression with the decoder's limits on boxes and scores."""
        decoder = self.decoder
        boxes = box_ops.decode(outputs["box_codes"], self._anchor_boxes, decoder.scale_factors)

        def suppress(boxes: tf.Tensor, scores: tf.Tensor):
            return tf.image.combined_non_max_suppression(
                boxes[:, :, tf.newaxis],
                scores,
                max_output_size_per_class=decoder.max_per_class or decoder.max_detections,
                max_total_size=decoder.max_detections,
                iou_threshold=decoder.iou_threshold,
                score_threshold=decoder.score_threshold,
                clip_boxes=False,
            )

        return suppress, (boxes, decoder.scores(outputs["class_logits"]))

    def decode(self, outputs, extent=None, **limits) -> dict[str, tf.Tensor]:
        """Decode raw outputs; see `layers/decoders.py`."""
        return self.to_image_frame(self.decoder(outputs, self.anchor_boxes, **limits), extent)

    def describe_outputs(self) -> str:
        """Describe the number of anchors and their levels."""
        levels = ", ".join(map(size_in_words, self.feature_sizes))
        return f"a class and a box for each of {len(self._anchor_boxes)} anchors, on {levels} cells"

    def get_config(self) -> dict:
        """Return the constructor's arguments, with parts serialised."""
        return {**super().get_config(), "match_in_pixels": self.match_in_pixels}
