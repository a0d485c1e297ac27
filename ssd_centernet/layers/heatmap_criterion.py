"""The base of criteria over heatmaps of centres."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.layers.class_factors import ClassFactors
from ssd_centernet.ops import imitation


class HeatmapCriterion(ClassFactors):
    """The base of criteria over heatmaps: how far a network is from its teacher.

    Subclasses have `imitation_errors`.
    """

    def imitation_errors(
        self, output: dict[str, tf.Tensor], taught: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Compare the maps beside the centres' with a teacher's.

        Args:
            output: maps of a stack, float32 [B, h, w, ...] by name.
            taught: those of the teacher.

        Returns:
            Errors by the name of a loss part, float32 [B, h, w].
        """
        raise NotImplementedError

    def imitate(
        self,
        outputs: list[dict[str, tf.Tensor]],
        teacher: list[dict[str, tf.Tensor]],
        temperature: float,
    ) -> dict[str, tf.Tensor]:
        """Compare what the network says with what its teacher says of the same images.

        Args:
            outputs: as in `call`.
            teacher: the same of the teacher, whose last stack teaches all; a constant for the
                gradient.
            temperature: divides the logits, see `ops/imitation.py`.

        Returns:
            `center` and the names of `imitation_errors`, whose errors count at the teacher's peaks:
            float32 scalars.
        """
        return imitation.heatmap_divergence(
            outputs, teacher[-1], self.imitation_errors, temperature
        )
