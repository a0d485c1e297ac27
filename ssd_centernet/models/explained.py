"""A detector's explanations for other rooms of the library, with defaults for any detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.models.fitting import FittedModel
from ssd_centernet.models.matches import Matches, explain_by_omission

# What a layer's configuration holds beside what it does.
_OF_A_LAYER = ("name", "dtype", "trainable", "resize")


class ExplainedModel(FittedModel):
    """A model that explains its targets, its class predictions and the cost of its decoding.

    Preview, restoration of weights, benchmark and teachers use only these methods. Subclasses
    override them with better answers; they have `image_size` and `make_targets`.

    Attributes:
        matches_by_force: whether each object is given its best unit where none fits it.
        targets_need_outputs: whether the losses turn objects into targets by what the network says.
        PREDICTS_BACKGROUND: whether class predictions have a row of background before the classes.
    """

    matches_by_force: bool = False
    targets_need_outputs: bool = False
    needs_progress: bool = False
    PREDICTS_BACKGROUND: bool = False

    def pipeline_targets(self, wanted: bool = True) -> Callable[..., dict] | None:
        """Return `make_targets` for the input pipeline; None where the step has to call it.

        Args:
            wanted: whether the pipeline shall make the targets if it can.
        """
        return self.make_targets if wanted and not self.targets_need_outputs else None

    def fit_to_objects(self, boxes: np.ndarray) -> dict[str, Any] | None:
        """Compute settings with which the targets match as many objects as possible.

        Args:
            boxes: float [N, 4], the objects, yxyx fractions of the network's input; at least one.

        Returns:
            Setting, such as "DefaultBoxes.scales" -> value; None, as here, where the targets have
            no such settings, and no object is matched by force.
        """
        del boxes

    def explain_targets(
        self,
        targets: Mapping[str, tf.Tensor],
        boxes: np.ndarray,
        classes: np.ndarray,
        is_crowd: np.ndarray,
        extent: tf.Tensor | None = None,
    ) -> Matches:
        """Explain how the targets of one image match its objects, for pictures and tables.

        This default knows nothing of the targets: it makes them again without each object in turn.
        Subclasses read the answer from `targets`.

        Args:
            targets: result of `make_targets` for one image.
            boxes: float32 [N, 4], the objects without padding, as in `make_targets`.
            classes: int32 [N].
            is_crowd: bool [N].
            extent: float32 [2], as in `make_targets`.

        Returns:
            The match of each object, and the names of the states.
        """
        del targets
        objects = (tf.constant(boxes), tf.constant(classes, tf.int32), tf.constant(is_crowd))
        return explain_by_omission(
            lambda *fields: self.targets_to_explain(self.make_targets(*fields, extent=extent)),
            *objects,
        )

    def targets_to_explain(self, targets: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """Return the targets of one image in the form that `explain_targets` reads.

        Args:
            targets: result of `make_targets` for one image.

        Returns:
            The same, as here, unless they need outputs of the network: then those for outputs of a
            network that has learned nothing.
        """
        return targets

    def object_limit(self) -> tuple[int, str] | None:
        """Return how many objects of an image the targets hold, and the setting that says so.

        Returns:
            None if they hold all, as here unless the criterion has `max_boxes`.
        """
        criterion = getattr(self, "criterion", None)
        limit = getattr(criterion, "max_boxes", None)
        return None if limit is None else (limit, f"{type(criterion).__name__}.max_boxes")

    def imitation_of(self, outputs, teacher, temperature: float) -> dict[str, tf.Tensor]:
        """Compare outputs with a teacher's: named as the loss parts, unweighted float32 scalars."""
        return self.criterion.imitate(outputs, teacher, temperature)

    def check_imitates(self) -> None:
        """Make sure that the criterion can compare with a teacher.

        Raises:
            ValueError: it is one of the user's own, without the method.
        """
        if not hasattr(self.criterion, "imitate"):
            raise ValueError(
                f"train.teacher needs a criterion that can compare with a teacher, but "
                f"{type(self.criterion).__name__} has no method `imitate`: give it one like that "
                "of MultiBoxLoss, or leave the teacher out."
            )

    def output_facts(self) -> dict[str, Any]:
        """Return by name what the outputs mean; a teacher's must mean the same."""
        given = self.preprocessing.get_config()
        ways = {name: given[name] for name in given if name not in _OF_A_LAYER}
        # Of several stacks the last one is what a detector detects with.
        last = self.output[-1] if isinstance(self.output, list | tuple) else self.output
        return {
            "classes": self.class_names or self.num_classes,
            "sizes of the input": self.image_size,
            "preprocessing": ways,
            "outputs": {name: tuple(last[name].shape[1:]) for name in sorted(last)},
        }

    def realistic_outputs(self, boxes: np.ndarray, classes: np.ndarray, *, seed: int = 0) -> Any:
        """Make raw outputs that give `decode` about as much work as those of a trained detector.

        This default runs the network, with its current weights, on noise.

        Args:
            boxes: float32 [B, M, 4], objects to find, yxyx fractions of the network's input.
            classes: int32 [B, M].
            seed: seed of all randomness.

        Returns:
            Raw outputs of B images.
        """
        del classes
        shape = (len(boxes), *self.image_size, 3)
        return self(tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32))

    def bare_decoding(self, outputs: Any) -> tuple[Callable, tuple] | None:
        """Prepare a minimal decoding, to compare the speed of `decode` with.

        Args:
            outputs: raw outputs.

        Returns:
            A function, such as TensorFlow's own suppression, and its arguments, made from the
            outputs; None, as here, if there is nothing to compare with.
        """
        del outputs

    def class_variables(self) -> set[str]:
        """Name the variables whose last axis is [n, K]: n times a row per class.

        K counts the background if `PREDICTS_BACKGROUND` is True. By default they are the variables
        of the layers that the head, if any, lists as `class_layers`.
        """
        return self._in_head("class_layers")

    def box_variables(self) -> set[str]:
        """Name the variables whose last axis is [n, 4]: n box codes (ty, tx, th, tw); here none."""
        return set()

    def _in_head(self, layers: str) -> set[str]:
        found = getattr(getattr(self, "head", None), layers, ())
        return {v.name.removesuffix(":0") for layer in found for v in layer.variables}
