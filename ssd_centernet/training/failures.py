"""What is said of a step whose loss or gradients are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.replicas import copies


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient is not finite; the weights before that step are kept."""


class FirstFailure(tf.Module):
    """What is to be told of the first step that failed: later ones may follow from it.

    It stays on the device until somebody asks: a step never waits for the host.
    """

    def __init__(self, sources: tf.Tensor, metric_names: Sequence[str]):
        """Begin without a failure.

        Args:
            sources: int64 tensor of the shape of the source ids of a step.
            metric_names: metrics of a step.
        """
        super().__init__(name="first_failure")
        self._names = tuple(metric_names)
        self._step = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._elsewhere = tf.Variable(False, trainable=False)
        self._sources = tf.Variable(sources, trainable=False)
        self._metrics = tf.Variable(tf.zeros([len(self._names)]), trainable=False)

    def note(
        self,
        step: tf.Tensor,
        sources: tf.Tensor,
        metrics: Mapping[str, tf.Tensor],
        *,
        elsewhere: tf.Tensor,
        excused: tf.Tensor,
    ) -> None:
        """Keep what a step that is not finite needs to be told, if it is the first.

        Args:
            step: number of the step, int64 scalar.
            sources: source ids of its images.
            metrics: float32 scalars by name.
            elsewhere: bool scalar, whether only another process can be the reason.
            excused: bool scalar, whether it is no failure.
        """
        first = (self._step < 0) & ~excused
        values = tf.stack([metrics[name] for name in self._names])
        self._sources.assign(tf.where(first, sources, self._sources))
        self._metrics.assign(tf.where(first, values, self._metrics))
        self._elsewhere.assign(tf.where(first, elsewhere, self._elsewhere))
        self._step.assign(tf.where(first, step, self._step))

    def message(self, communicator: Communicator, learning_rate: tf.Variable) -> str | None:
        """Return what is to be told of it, None where no step has failed.

        Args:
            communicator: says which process and device this is.
            learning_rate: of the last step, float scalar.
        """
        if int(self._step) < 0:
            return None
        # All replicas skip the same step; one that saw why tells of it.
        elsewhere = [bool(copy.numpy()) for copy in copies(self._elsewhere)]
        seen = elsewhere.index(False) if False in elsewhere else 0
        metrics, sources = (copies(v)[seen].numpy() for v in (self._metrics, self._sources))
        place = f" on process {communicator.rank}" if communicator.size > 1 else ""
        place += f" on device {seen}" if communicator.replicas > 1 else ""
        return describe_failure(
            int(self._step),
            dict(zip(self._names, metrics.tolist(), strict=True)),
            sources,
            place=place,
            elsewhere=elsewhere[seen],
            learning_rate=float(learning_rate),
        )

    def forget(self) -> None:
        """Begin again as if no step had failed."""
        self._step.assign(-1)
        self._elsewhere.assign(False)


def describe_failure(
    step: int,
    values: Mapping[str, float],
    sources: Sequence[int],
    *,
    place: str,
    elsewhere: bool,
    learning_rate: float,
) -> str:
    """Tell of a step that was not finite.

    Args:
        step: number of the step.
        values: its metrics by name.
        sources: source ids of its images.
        place: the process and device, such as " on process 1", or nothing.
        elsewhere: whether only another process can be the reason.
        learning_rate: of the step.
    """
    parts = ", ".join(f"{name}={value:g}" for name, value in values.items())
    if elsewhere:
        return (
            f"step {step} is finite{place} ({parts}), but not on another "
            "process, whose message names the images; or gradients overflowed between "
            "processes: set train.gradient_compression = 'none'."
        )
    if all(map(math.isfinite, values.values())):  # What an NPU noted, see `LossScale.saturation`.
        return (
            f"step {step} overflowed{place}: the device cut a value off to the largest number of "
            f"its type ({parts}). Likely cause: a fixed loss scale that is too high; set "
            "LossScale.dynamic = True, or a lower LossScale.initial. The weights before that step "
            "are kept; the last checkpoint is intact."
        )
    return (
        f"step {step} is not finite{place}: {parts}, "
        f"learning_rate={learning_rate:g}. Images (source ids): "
        f"{', '.join(map(str, sources))}. Likely causes: a learning rate that is too high for this "
        "batch size, a "
        "broken annotation in one of these images (`ssd_centernet show_inputs` draws them), "
        "or float16 without loss scaling. The weights before that step are kept; the last "
        "checkpoint is intact."
    )
