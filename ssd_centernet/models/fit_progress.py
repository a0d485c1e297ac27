"""How much of a `fit` is over, for what changes in the course of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


class FitProgress:
    """The share of the steps of one `fit` that are done, in its graph."""

    def __init__(self):
        """Make the variables, which the graph of the step reads."""
        self._first = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._steps = tf.Variable(1, dtype=tf.int64, trainable=False)

    def begin(self, iterations: tf.Variable, batches: Any, given: Mapping[str, Any]) -> None:
        """Note where a `fit` begins and how long it is.

        Args:
            iterations: steps that the optimizer has done.
            batches: what is trained on.
            given: arguments of `fit`: `epochs`, `initial_epoch`, `steps_per_epoch`.

        Raises:
            ValueError: nothing tells the number of batches of an epoch.
        """
        steps = given.get("steps_per_epoch") or _count(batches)
        if steps is None:
            raise ValueError(
                "TaskAligned.begin_with is for the first part of a training, but fit cannot tell "
                "how many batches an epoch has: give fit(steps_per_epoch=...), or set "
                "TaskAligned.begin_with = None."
            )
        done = steps * (given.get("initial_epoch") or 0)
        self._first.assign(int(iterations) - done)
        self._steps.assign(steps * (given.get("epochs") or 1))

    def at(self, iterations: tf.Tensor) -> tf.Tensor:
        """Return the share that is over after so many steps of the optimizer, float32."""
        done = tf.cast(iterations, tf.int64) - self._first
        return tf.cast(done, tf.float32) / tf.cast(self._steps, tf.float32)


def _count(batches: Any) -> int | None:
    """Return the number of batches, None where it is not known or endless."""
    if isinstance(batches, tf.data.Dataset):
        count = int(batches.cardinality())
        return count if count > 0 else None
    return len(batches) if hasattr(batches, "__len__") else None
