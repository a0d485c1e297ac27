"""The train step: from a batch to updated weights, readable from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.detector import Detector
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import add_weight_decay, decay_mask
from ssd_centernet.training.schedules import RunLength


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient is not finite; the weights before that step are kept."""


class Trainer(tf.Module):
    """Owns what a step changes: weights, slots, counters and the sums that logs report.

    Attributes:
      step: int64 variable, updates done.
      examples_seen: int64 variable, images consumed by all processes: the input's position.
      metric_names: what `window_metrics` reports.
    """

    def __init__(
        self,
        detector: Detector,
        optimizer: keras.optimizers.Optimizer,
        *,
        schedule,
        run: RunLength,
        batch_size: int,
        weight_decay: float = 0.0,
        decay_exclude: Sequence[str] = ("_norm/",),
        freeze: Sequence[str] = (),
        clip_norm: float | None = None,
        loss_scale: LossScale | None = None,
        communicator: Communicator | None = None,
    ):
        """Joins the parts of a run.

        Args:
          detector: the model with its criterion.
          optimizer: a Keras optimizer; its rate is set from `schedule` every step.
          schedule: callable (step, RunLength) -> float32 rate.
          run: the run's length.
          batch_size: images a step of this process.
          weight_decay: coefficient of the L2 objective `0.5 |v|^2`, not part of reported losses.
          decay_exclude: regular expressions of variable names that do not decay.
          freeze: regular expressions of variable names that are not updated; their batch norms
            still run on batch statistics and keep their moving averages.
          clip_norm: largest global norm of the gradients, None for no clipping.
          loss_scale: for float16; None for float32 and bfloat16.
          communicator: of the processes that train together.
        """
        super().__init__(name="trainer")
        self.detector = detector
        self.optimizer = optimizer
        self.schedule = schedule
        self.run = run
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.loss_scale = loss_scale or LossScale(initial=1.0, dynamic=False)
        self.communicator = communicator or SingleProcess()
        self.train_variables = detector.variables_to_train(freeze)
        self._decays = decay_mask(self.train_variables, decay_exclude)
        optimizer.build(self.train_variables)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.examples_seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="examples_seen")
        self.metric_names = (*detector.loss_weights, "total", "gradient_norm")
        self._sums = tf.Variable(tf.zeros([len(self.metric_names)]), trainable=False)
        self._count = tf.Variable(0.0, trainable=False)
        self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._failed_step = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._failed_sources = tf.Variable(tf.zeros([batch_size], tf.int64), trainable=False)
        self._failed_metrics = tf.Variable(tf.zeros([len(self.metric_names)]), trainable=False)

    def next_batch(self, iterator) -> dict[str, tf.Tensor]:
        """Takes a batch from the input pipeline and adds up the time it had to wait for it."""
        begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch)):
            self._waited.assign_add(tf.timestamp() - begin)
        return batch

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Updates the weights once.

        Args:
          batch: see docs/architecture.md; static shapes.

        Returns:
          `metric_names` of this step, float32 scalars.
        """
        self.optimizer.learning_rate.assign(self.schedule(self.step, self.run))
        with tf.GradientTape() as tape:
            outputs = self.detector(batch["image"], training=True)
            parts = self.detector.compute_losses(outputs, batch)
            total = self.detector.total_loss(parts)
            scaled = self.loss_scale.scale(total)
        gradients = tape.gradient(scaled, self.train_variables)
        gradients = self.communicator.mean_gradients(gradients)
        gradients = self.loss_scale.unscale(gradients)
        norm = tf.linalg.global_norm(gradients)
        gradients = add_weight_decay(
            gradients, self.train_variables, self._decays, self.weight_decay
        )
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        metrics = {**parts, "total": total, "gradient_norm": norm}
        finite = tf.math.is_finite(norm) & tf.math.is_finite(total)
        tf.cond(finite, lambda: self._apply(gradients), lambda: self._skip(batch, metrics))
        self._record(metrics, finite, batch)
        return metrics

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        self.optimizer.apply_gradients(zip(gradients, self.train_variables, strict=True))
        self.loss_scale.succeeded()

    def _skip(self, batch: dict, metrics: dict[str, tf.Tensor]) -> None:
        """Keeps the weights; a scaled loss may overflow, everything else is a failure to report."""
        excused = self.loss_scale.overflowed() & tf.math.is_finite(metrics["total"])
        first = (self._failed_step < 0) & ~excused
        values = tf.stack([metrics[name] for name in self.metric_names])
        self._failed_sources.assign(tf.where(first, batch["source_id"], self._failed_sources))
        self._failed_metrics.assign(tf.where(first, values, self._failed_metrics))
        self._failed_step.assign(tf.where(first, self.step, self._failed_step))

    def _record(self, metrics: dict[str, tf.Tensor], finite: tf.Tensor, batch: dict) -> None:
        values = tf.stack([metrics[name] for name in self.metric_names])
        self._sums.assign_add(tf.where(finite, values, tf.zeros_like(values)))
        self._count.assign_add(tf.cast(finite, tf.float32))
        self.step.assign_add(1)
        images = batch["image"].shape[0] * self.communicator.size
        self.examples_seen.assign_add(images)

    def window_metrics(self) -> dict[str, float]:
        """Returns the means since the last call, with `learning_rate` and `data_wait_seconds`."""
        count = max(float(self._count), 1.0)
        metrics = dict(zip(self.metric_names, (self._sums / count).numpy().tolist(), strict=True))
        metrics = dict(self.communicator.mean(metrics))
        metrics["learning_rate"] = float(self.optimizer.learning_rate)
        metrics["data_wait_seconds"] = float(self._waited)
        if self.loss_scale.dynamic:
            metrics["loss_scale"] = float(self.loss_scale.value)
            metrics["skipped_steps"] = int(self.loss_scale.skipped)
        for variable in (self._sums, self._count, self._waited):
            variable.assign(tf.zeros_like(variable))
        return metrics

    def raise_if_failed(self) -> None:
        """Checks the steps so far.

        Raises:
          NonFiniteLossError: one was not finite; names the step, the loss parts and the source
            ids of its batch.
        """
        if int(self._failed_step) >= 0:
            raise NonFiniteLossError(self._failure_message())

    def _failure_message(self) -> str:
        values = dict(zip(self.metric_names, self._failed_metrics.numpy().tolist(), strict=True))
        parts = ", ".join(f"{name}={value:g}" for name, value in values.items())
        sources = ", ".join(str(source) for source in self._failed_sources.numpy())
        return (
            f"step {int(self._failed_step)} is not finite: {parts}, "
            f"learning_rate={float(self.optimizer.learning_rate):g}. Images (source ids): "
            f"{sources}. Likely causes: a learning rate that is too high for this batch size, a "
            "broken annotation in one of these images (`ssd_centernet show_inputs` draws them), "
            "or float16 without loss scaling. The weights before that step are kept; the last "
            "checkpoint is intact."
        )
