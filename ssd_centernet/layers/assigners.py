"""Assigners: which anchors learn which object, in place of a criterion's matching threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import assignment, box_losses
from ssd_centernet.ops import boxes as box_ops

# Numbers of objects of an image for which there are graphs; most images have few, and the work
# grows with the rows.
_FEW = (8, 32)


class Assigner(Float32Layer):
    """The base of assigners, of which each has a `call` of one of two kinds.

    Attributes:
        needs_outputs: whether `call` takes what the network says, as that of `TaskAligned`, and so
            runs in the step; else it takes the anchors' levels, as that of `ATSS`.
    """

    needs_outputs: bool = False

    @property
    def needs_progress(self) -> bool:
        """Whether `call` also takes how much of the run is over, and the anchors' levels."""
        return False


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class ATSS(Assigner):
    """Adaptive training sample selection: each object has its own threshold.

    Of the anchors near an object's centre, on all levels, those with an unusually large IoU learn
    it. It depends on the anchors alone, so the input pipeline can make the targets.

    Source: Bridging the Gap Between Anchor-based and Anchor-free Detection (arXiv:1912.02424)
    """

    def __init__(self, cells: int = 9, *, name: str = "atss", **kwargs):
        """Configure the assigner.

        Args:
            cells: candidates of an object on each level, in cells: all anchors of a cell are one.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `cells` is not a number of 1 or more.
        """
        super().__init__(name=name, **kwargs)
        _check_count("ATSS.cells", cells)
        self.cells = cells

    def call(
        self,
        boxes: tf.Tensor,
        valid: tf.Tensor,
        anchors: np.ndarray,
        levels: Sequence[tuple[int, int]],
    ) -> tf.Tensor:
        """Assign the anchors; see `ops.assignment.adaptive`.

        Args:
            boxes: float32 [..., M, 4], yxyx, pixels of the network's input.
            valid: bool [..., M], which rows are objects.
            anchors: float32 [A, 4], yxyx, same frame.
            levels: for each level the number of its anchors, and how many of them share a cell.

        Returns:
            int32 [..., A]: the row of each anchor's object, -1 without one.
        """
        return assignment.adaptive(boxes, valid, anchors, levels, cells=self.cells)


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class TaskAligned(Assigner):
    """Task-aligned assignment: the anchors that already score and locate an object best learn it.

    It depends on what the network says, so it runs in the step, on the device. An object takes
    anchors whose centre lies in it; one that is so small that it holds none takes the nearest.

    What a network says means little when its training begins: another assigner can do the first
    part of the run, as in PP-YOLOE.

    Source:
        TOOD: Task-aligned One-stage Object Detection (arXiv:2108.07755)
        PP-YOLOE: An evolved version of YOLO (arXiv:2203.16250)
    """

    needs_outputs = True

    def __init__(
        self,
        top: int = 13,
        *,
        alpha: float = 1.0,
        beta: float = 6.0,
        anchor_share: float = 0.0,
        begin_with: Assigner | None = None,
        begin_share: float = 0.35,
        name: str = "task_aligned",
        **kwargs,
    ):
        """Configure the assigner.

        Args:
            top: anchors an object takes at most.
            alpha: exponent of the score of the object's class, at least 0.
            beta: exponent of the IoU of object and predicted box, above 0.
            anchor_share: weight of the anchor's own IoU beside that of its predicted box, in
                [0, 1); with 0, as published, an anchor of any size may learn any object. Some
                weight helps where a network begins with random weights and few pictures.
            begin_with: assigner of the first part of a run, such as `ATSS`, which looks at the
                anchors alone; None for none.
            begin_share: that part, as a share of the run's steps, above 0 and below 1; without
                effect if `begin_with` is None.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: a setting is out of range, or `begin_with` is no such assigner.
        """
        super().__init__(name=name, **kwargs)
        _check_count("TaskAligned.top", top)
        first = begin_with
        if first is not None and (not isinstance(first, Assigner) or first.needs_outputs):
            raise ValueError(
                f"TaskAligned.begin_with is {begin_with!r}; expected an assigner that looks at "
                "anchors alone, with brackets after its name, such as @ATSS(), or None."
            )
        if not 0 < begin_share < 1:
            raise ValueError(
                f"TaskAligned.begin_share is {begin_share}; expected a share of the run, more than "
                "0 and less than 1. To begin with no other assigner, set begin_with = None."
            )
        if alpha < 0 or beta <= 0:
            raise ValueError(
                f"TaskAligned.alpha is {alpha} and TaskAligned.beta is {beta}; expected 0 or more, "
                "and more than 0."
            )
        if not 0 <= anchor_share < 1:
            raise ValueError(
                f"TaskAligned.anchor_share is {anchor_share}; expected 0 or more, and less than 1."
            )
        self.top = top
        self.alpha = alpha
        self.beta = beta
        self.anchor_share = anchor_share
        self.begin_with = begin_with
        self.begin_share = begin_share

    @property
    def needs_progress(self) -> bool:
        """Whether another assigner does the first part of the run."""
        return self.begin_with is not None

    def get_config(self) -> dict:
        """Return the constructor's arguments, with the other assigner serialised."""
        other = self.begin_with and keras.saving.serialize_keras_object(self.begin_with)
        return {**super().get_config(), "begin_with": other}

    @classmethod
    def from_config(cls, config: dict):
        """Build the assigner from `get_config`."""
        other = config.get("begin_with")
        if isinstance(other, dict):
            other = keras.saving.deserialize_keras_object(other)
        return cls(**{**config, "begin_with": other})

    def call(
        self,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        valid: tf.Tensor,
        anchors: np.ndarray,
        scores: tf.Tensor,
        predicted: tf.Tensor,
        levels: Sequence[tuple[int, int]] | None = None,
        progress: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Assign the anchors of a batch; see `ops.assignment.task_aligned`.

        Args:
            boxes: float32 [B, M, 4], yxyx, pixels of the network's input; padding comes last.
            classes: int32 [B, M], 0..C-1.
            valid: bool [B, M], which rows are objects.
            anchors: float32 [A, 4], yxyx, same frame.
            scores: float32 [B, A, C], in [0, 1].
            predicted: float32 [B, A, 4], yxyx, same frame.
            levels: as for `ATSS`; only `begin_with` needs them.
            progress: float32 scalar, the share of the run that is over; None outside a training,
                where nothing but the main part of the run counts.

        Returns:
            `(matches, quality)`: int32 [B, A], the row of each anchor's object, -1 without one;
            float32 [B, A] in [0, 1], how well each matched anchor does, 0 without an object. In the
            first part that is the IoU of its predicted box.
        """
        scores, predicted = tf.stop_gradient(scores), tf.stop_gradient(predicted)
        if self.begin_with is None or progress is None:
            return self._aligned(boxes, classes, valid, anchors, scores, predicted)
        return tf.cond(
            progress < self.begin_share,
            lambda: self._begun(boxes, valid, anchors, predicted, levels),
            lambda: self._aligned(boxes, classes, valid, anchors, scores, predicted),
        )

    def _begun(self, boxes, valid, anchors, predicted, levels) -> tuple[tf.Tensor, tf.Tensor]:
        def assign(rows: int) -> tf.Tensor:
            return self.begin_with(boxes[:, :rows], valid[:, :rows], anchors, levels)

        matches = _of_used_rows(valid, assign)
        rows = tf.cast(matches, tf.float32)  # GPUs compare int32 in the memory of the host.
        # Of an anchor without an object, row 0 stands in for it.
        own = tf.gather(boxes, tf.cast(tf.maximum(rows, 0.0), tf.int32), batch_dims=1)
        overlaps = 1.0 - box_losses.overlap_loss(predicted, own, "iou")
        return matches, tf.where(rows >= 0.0, overlaps, 0.0)

    def _aligned(
        self, boxes, classes, valid, anchors, scores, predicted
    ) -> tuple[tf.Tensor, tf.Tensor]:
        by_class = tf.transpose(scores, [0, 2, 1])
        # As float32 on the way: a GPU cuts arrays of int32 in the memory of the host.
        numbers = tf.cast(classes, tf.float32)

        def assign(rows: int):
            kept, kinds = boxes[:, :rows], tf.cast(numbers[:, :rows], tf.int32)
            candidates = assignment.centers_inside(kept, anchors) & valid[:, :rows, tf.newaxis]
            return assignment.task_aligned(
                tf.gather(by_class, kinds, batch_dims=1),
                box_ops.iou(kept, predicted),
                candidates,
                top=self.top,
                alpha=self.alpha,
                beta=self.beta,
                anchor_overlaps=box_ops.iou(kept, anchors) if self.anchor_share else None,
                anchor_share=self.anchor_share,
            )

        return _of_used_rows(valid, assign)


def _of_used_rows(valid: tf.Tensor, assign: Callable[[int | tf.Tensor], Any]):
    """Call `assign` with a number of rows that holds all objects of a batch, [B, M]."""
    most = valid.shape[1]
    if most is None:
        return assign(tf.shape(valid)[1])
    # The last row that is an object: rows between may be taken out, such as crowd regions.
    used = tf.reduce_max(tf.where(valid, tf.range(1.0, most + 1.0), 0.0))
    return _with_enough_rows(used, [n for n in _FEW if n < most] + [most], assign)


def _with_enough_rows(used: tf.Tensor, sizes: Sequence[int], assign):
    """Call `assign` with the first size that holds the rows: a branch of static shape for each."""
    if len(sizes) == 1:
        return assign(sizes[0])
    return tf.cond(
        used <= sizes[0],
        lambda: assign(sizes[0]),
        lambda: _with_enough_rows(used, sizes[1:], assign),
    )


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number of 1 or more.")
