"""What the rooms around training ask a detector, with answers that hold for any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.models.fitting import FittedModel
from ssd_centernet.models.matches import Matches, explain_by_omission


class ExplainedModel(FittedModel):
    """A model that explains its targets, its class predictions and the cost of its decoding.

    The preview, the restoration of weights and the benchmark know these answers alone. Subclasses
    better them where they know more; they give `image_size` and `make_targets`.

    Attributes:
        PREDICTS_BACKGROUND: whether class predictions have a row of background before the classes.
    """

    PREDICTS_BACKGROUND: bool = False

    def explain_targets(
        self,
        targets: Mapping[str, tf.Tensor],
        boxes: np.ndarray,
        classes: np.ndarray,
        is_crowd: np.ndarray,
        extent: tf.Tensor | None = None,
    ) -> Matches:
        """Say what the targets of one image match with its objects, for pictures and tables.

        Here, without knowledge of what the targets are, they are made anew without each object in
        turn. Subclasses read it out of `targets`.

        Args:
            targets: of `make_targets`, for one image.
            boxes: float32 [N, 4], the objects without padding, as in `make_targets`.
            classes: int32 [N].
            is_crowd: bool [N].
            extent: float32 [2], as in `make_targets`.

        Returns:
            What became of each object, and the words for it.
        """
        del targets
        objects = (tf.constant(boxes), tf.constant(classes, tf.int32), tf.constant(is_crowd))
        return explain_by_omission(
            lambda *fields: self.make_targets(*fields, extent=extent), *objects
        )

    def realistic_outputs(self, boxes: np.ndarray, classes: np.ndarray, *, seed: int = 0) -> Any:
        """Make raw outputs that give `decode` about as much work as a trained detector's do.

        Here the network, with the weights that it has, looks at noise.

        Args:
            boxes: float32 [B, M, 4], objects to be found, yxyx fractions of the network's input.
            classes: int32 [B, M].
            seed: of everything random.

        Returns:
            Raw outputs of B images.
        """
        del classes
        shape = (len(boxes), *self.image_size, 3)
        return self(tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32))

    def bare_decoding(self, outputs: Any) -> tuple[Callable, tuple] | None:
        """Prepare the least that decoding can be, to compare the speed of `decode` with.

        Args:
            outputs: raw outputs.

        Returns:
            A function, such as TensorFlow's own suppression, and its arguments, ready made of the
            outputs; None, as here, where there is nothing to compare with.
        """
        del outputs

    def class_variables(self) -> set[str]:
        """Name the variables whose last axis is [n, K]: n times a row for each class.

        K counts the background where `PREDICTS_BACKGROUND` says so. Here they are those of the
        layers that the head, if there is one, lists as `class_layers`.
        """
        return self._in_head("class_layers")

    def box_variables(self) -> set[str]:
        """Name the variables whose last axis is [n, 4]: n box codes (ty, tx, th, tw); here none."""
        return set()

    def _in_head(self, layers: str) -> set[str]:
        found = getattr(getattr(self, "head", None), layers, ())
        return {v.name.removesuffix(":0") for layer in found for v in layer.variables}
