"""Factors of classes by name, for criteria whose classes are not equally frequent or important."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import tensorflow as tf

from ssd_centernet.layers.base import Float32Layer


class ClassFactors(Float32Layer):
    """The base of criteria with `class_weights`; a detector tells them the names of its classes."""

    def __init__(self, *, class_weights: Mapping[str, float] | None, **kwargs):
        """Note the weights.

        Args:
            class_weights: factor of the class loss by name of a class; others have 1.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: a factor is not a finite number of 0 or more, or these are no names.
        """
        super().__init__(**kwargs)
        if class_weights is not None:
            if not isinstance(class_weights, Mapping):
                raise ValueError(
                    f"{type(self).__name__}.class_weights must map names of classes to factors, "
                    f"such as {{'person': 2.0}}, got {class_weights!r}."
                )
            for name, factor in class_weights.items():
                self.check_factors(**{f"class_weights[{name!r}]": factor})
        self.class_weights = None if class_weights is None else dict(class_weights)
        self._factors: list[float] | None = None

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        # Keras wraps what is set as an attribute.
        given = self.class_weights and dict(self.class_weights)
        return {**super().get_config(), "class_weights": given}

    def name_classes(self, names: Sequence[str] | None) -> None:
        """Find the classes that `class_weights` names; the detector calls it when it is built.

        Args:
            names: of the C classes; None if the detector does not know them.

        Raises:
            ValueError: a name is not among them, or there are no names for the weights.
        """
        if not self.class_weights:
            return
        setting = f"{type(self).__name__}.class_weights"
        if names is None:
            raise ValueError(
                f"{setting} names {', '.join(self.class_weights)}, but the detector has no "
                "names of classes: give it class_names, as a label map does."
            )
        unknown = [name for name in self.class_weights if name not in names]
        if unknown:
            near = difflib.get_close_matches(unknown[0], names, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{setting} names {', '.join(map(repr, unknown))}, which the label map does not "
                f"have{hint} It has {', '.join(names)}."
            )
        self._factors = [float(self.class_weights.get(name, 1.0)) for name in names]

    def factors_of(self, classes: tf.Tensor) -> tf.Tensor | None:
        """Return the factor of each anchor's class.

        Args:
            classes: int32 [...], class + 1 for objects, 0 and less for others, which have 1.

        Returns:
            float32 [...]; None if all are 1.
        """
        if self._factors is None:
            return None
        # As float32 in between: on GPUs TensorFlow compares int32 on the host.
        rows = tf.cast(tf.maximum(tf.cast(classes, tf.float32), 0.0), tf.int32)
        return tf.gather(tf.constant([1.0, *self._factors]), rows)

    def weigh_peaks(self, losses: tf.Tensor, heatmap: tf.Tensor) -> tf.Tensor:
        """Multiply the losses at peaks with the factors of their classes.

        Args:
            losses: float32 [B, h, w, C].
            heatmap: float32 [B, h, w, C], exactly 1 at peaks.

        Returns:
            float32 [B, h, w, C].
        """
        if self._factors is None:
            return losses
        return tf.where(heatmap == 1.0, losses * tf.constant(self._factors), losses)
