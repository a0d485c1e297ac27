"""The train step: from a batch to updated weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.rematerialized import rematerialize as compute_again
from ssd_centernet.models.weight_average import WeightAverage
from ssd_centernet.models.weight_decay import add_weight_decay, decay_mask
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.runtime.replicas import copies
from ssd_centernet.training import waiting
from ssd_centernet.training.agreement import check_agreement
from ssd_centernet.training.failures import FirstFailure, NonFiniteLossError
from ssd_centernet.training.image_sizes import Form, at_its_size
from ssd_centernet.training.layer_rates import LayerRates
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.schedules import RunLength
from ssd_centernet.training.teacher import Lessons


class Trainer(tf.Module):
    """Hold what a step changes: weights, slots, counters and the sums for the log.

    Attributes:
        step: int64 variable, number of updates done.
        examples_seen: int64 variable, images used by all processes: the position in the input.
        metric_names: names of the metrics of `window_metrics`.
        average: the average of the weights, None without one.
        rate_factor: float32 variable, 1 and less after a recovery: the schedule's rate is
            multiplied by it.
        compiled_step: `train_step`, compiled by XLA where that is asked for.
    """

    def __init__(
        self,
        detector: Detector,
        optimizer: keras.optimizers.Optimizer,
        *,
        schedule,
        length: RunLength,
        batch_size: int,
        weight_decay: float = 0.0,
        decay_exclude: Sequence[str] = ("_norm/",),
        freeze: Sequence[str] = (),
        layer_rates: Mapping[str, float] | None = None,
        clip_norm: float | None = None,
        loss_scale: LossScale | None = None,
        accumulate_steps: int = 1,
        ema_decay: float | None = None,
        jit_compile: bool = False,
        rematerialize: bool | str | Sequence[str] = False,
        render: Callable[[dict], dict] | None = None,
        lessons: Lessons | None = None,
        forms: Sequence[Form] = (),
        communicator: Communicator | None = None,
    ):
        """Join the parts of a run.

        Args:
            detector: the model with its criterion.
            optimizer: a Keras optimizer; its rate is set from `schedule` every step.
            schedule: callable (step, RunLength) -> float32 rate.
            length: length of the run, for the schedule.
            batch_size: images per step of this process, over its devices.
            weight_decay: coefficient of the L2 objective `0.5 |v|^2`, not part of reported losses.
            decay_exclude: regular expressions of variable names that do not decay.
            freeze: regular expressions of variable names that are not updated; their batch norms
                still use batch statistics and update their moving averages.
            layer_rates: shares of the rate by pattern of variable names, see `LayerRates`.
            clip_norm: largest global norm of the gradients, None for no clipping.
            loss_scale: scale for float16; None for float32 and bfloat16, which need none.
            accumulate_steps: number of batches whose gradients are averaged for one update.
            ema_decay: decay of the weights' average, see `WeightAverage`; None for none.
            jit_compile: whether XLA compiles the step as a whole.
            rematerialize: blocks that are computed again, see `models/rematerialized.py`.
            render: makes the images of a batch that holds pixels and views instead, see
                `DeviceRendering`; None where the batches hold images.
            lessons: of a teacher, whose losses are added; None for none.
            forms: what is trained at each of several sizes of images, which share the detector's
                variables; batches then have `image_size`. () trains the detector at its own.
            communicator: connects the processes that train together.

        Raises:
            ValueError: `jit_compile` with several processes or devices, whose messages XLA does
                not know; a batch that the devices cannot share evenly.
        """
        super().__init__(name="trainer")
        compute_again(detector, rematerialize)
        self.detector = detector
        self.optimizer = optimizer
        self.schedule = schedule
        self.length = length
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.loss_scale = loss_scale or LossScale(initial=1.0, dynamic=False)
        self.accumulate_steps = accumulate_steps
        self._form, self._forms = Form(detector, render, lessons), tuple(forms)
        self.communicator = communicator or SingleProcess()
        self._replicas = self.communicator.replicas
        # What takes part in a step: the devices of all processes.
        self._parts = self.communicator.size * self._replicas
        if jit_compile and self._parts > 1:
            raise ValueError(
                f"train.jit_compile is True for {self._parts} processes or devices, but XLA cannot "
                "compile the messages between them: set it to False, or train with one."
            )
        if batch_size % self._replicas:
            raise ValueError(
                f"train.batch_size is {batch_size}, which {self._replicas} devices cannot share "
                f"evenly: choose a multiple of {self._replicas}, or other --devices."
            )
        batch_size //= self._replicas
        self.compiled_step, self._compiled_accumulate = self.train_step, self._accumulate
        if jit_compile:
            # The batch is taken outside of it: XLA knows no input pipeline.
            compiled = functools.partial(tf.function, autograph=False, jit_compile=True)
            self.compiled_step = compiled(self.train_step)
            self._compiled_accumulate = compiled(self._accumulate)
        self.train_variables = detector.variables_to_train(freeze)
        self._rates = LayerRates(self.train_variables, layer_rates or {})
        self._decays = decay_mask(self.train_variables, decay_exclude)
        self.average = None
        if ema_decay is not None:
            self.average = WeightAverage(detector.variables, ema_decay)
        optimizer.build(self.train_variables)  # Slots, which a checkpoint is restored into.
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.examples_seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="examples_seen")
        self.rate_factor = tf.Variable(1.0, trainable=False, name="rate_factor")
        parts = (*detector.loss_weights, *(lessons.names if lessons else ()))
        self.metric_names = (*parts, "total", "gradient_norm")
        self._sums = tf.Variable(tf.zeros([len(self.metric_names)]), trainable=False)
        self._counts = tf.Variable(tf.zeros([len(self.metric_names)]), trainable=False)
        self._has_clock = waiting.has_clock()
        self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        sources = tf.zeros([batch_size * accumulate_steps], tf.int64)
        self._failure = FirstFailure(sources, self.metric_names)
        if accumulate_steps > 1:
            # Sums over the batches before the last; the mean is taken once, with that one.
            self._accumulated = [
                tf.Variable(tf.zeros_like(variable), trainable=False)
                for variable in self.train_variables
            ]
            parts = tf.zeros([len(self.metric_names) - 1])
            self._accumulated_parts = tf.Variable(parts, trainable=False)
            sources = tf.reshape(sources, [accumulate_steps, batch_size])
            # One row per batch: a failure names the images of the whole update.
            self._sources = tf.Variable(sources, trainable=False)

    def next_batch(self, iterator) -> dict[str, tf.Tensor]:
        """Take a batch from the input pipeline and add up the waiting time."""
        return waiting.next_batch(iterator, self._waited if self._has_clock else None)

    def run_step(self, iterator, run: Callable) -> None:
        """Take as many batches as an update needs, and update the weights once.

        Args:
            iterator: iterator over batches.
            run: calls a function with a tuple of arguments on the device, like `strategy.run`.
        """
        if self.accumulate_steps > 1:
            # A loop of the graph: unrolled, the batches' activations would lie in memory at once.
            tf.while_loop(
                lambda index: index < self.accumulate_steps - 1,
                lambda index: [self.accumulate_next(index, iterator, run)],
                [tf.constant(0)],
                parallel_iterations=1,
            )
        self.finish_step(iterator, run)

    def finish_step(self, iterator, run: Callable) -> None:
        """Take the last batch of an update, whose step takes in what the others have added up.

        Args:
            iterator: as for `run_step`.
            run: as for `run_step`.
        """
        self._run(run, self.compiled_step, self.next_batch(iterator))

    def _run(self, run: Callable, function: Callable, batch: dict, *others: tf.Tensor) -> None:
        """Call a function of a batch on the device, in the form of the batch's size."""
        if not self._forms:
            run(function, args=(batch, *others))
            return
        # Around the devices, so that their messages are no part of a branch.
        at_its_size(batch, self._forms, lambda one, form: run(function, args=(one, *others, form)))

    @tf.autograph.experimental.do_not_convert
    def train_step(
        self, batch: dict[str, tf.Tensor], form: int | None = None
    ) -> dict[str, tf.Tensor]:
        """Update the weights once.

        Args:
            batch: see docs/architecture.md; static shapes.
            form: number of its size among the forms; None is the detector's own size.

        Returns:
            `metric_names` of this step, float32 scalars: of this process's images.
        """
        rate = self.schedule(self.step, self.length) * self.rate_factor
        self.optimizer.learning_rate.assign(rate)
        gradients, parts = self._gradients(batch, form)
        gradients, parts, sources = self._with_accumulated(gradients, parts, batch["source_id"])
        elsewhere = self._is_fault_elsewhere(gradients, parts["total"])
        # The loss goes along, so that all processes agree on whether this step is finite.
        told = [parts["total"], *self.loss_scale.saturation(gradients)]
        averaged = self.communicator.mean_gradients([*gradients, *told])
        gradients, (total, *saturated) = averaged[: -len(told)], averaged[-len(told) :]
        # After the exchange between processes, in which they may be float16.
        gradients = self.loss_scale.unscale(gradients)
        # Of the loss's gradients, as the reported loss has no decay in it either. The clip below
        # sees both, for decay belongs to the objective.
        norm = tf.linalg.global_norm(gradients)
        gradients = add_weight_decay(
            gradients, self.train_variables, self._decays, self.weight_decay
        )
        if self.clip_norm is not None:
            known = None if self.weight_decay else norm
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, use_norm=known)
        metrics = {**parts, "gradient_norm": norm}
        # Both are of all processes, so that all of them take the same branch.
        finite = tf.math.is_finite(norm) & tf.math.is_finite(total)
        for flag in saturated:
            finite &= tf.equal(flag, 0.0)
        skip = functools.partial(self._skip, total, elsewhere, sources, metrics)
        tf.cond(finite, lambda: self._apply(gradients), skip)
        self._record(metrics, sources)
        return metrics

    def _gradients(
        self, batch: dict, number: int | None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Return the gradients of the scaled loss of a batch, and the loss parts with `total`."""
        form = self._form if number is None else self._forms[number]
        if form.render is not None and "image" not in batch:
            batch = form.render(batch)
        with tf.GradientTape() as tape:
            progress = tf.cast(self.step, tf.float32) / float(self.length.total_steps)
            total, parts = form.losses(batch, tape, progress)
            scaled = self.loss_scale.scale(total)
        return tape.gradient(scaled, self.train_variables), {**parts, "total": total}

    def accumulate_next(self, index: tf.Tensor, iterator, run: Callable) -> tf.Tensor:
        """Take a batch before the last one of an update.

        Args:
            index: number of the batch in the update, int32 scalar.
            iterator: as for `run_step`.
            run: as for `run_step`.

        Returns:
            The number of the next batch.
        """
        self._run(run, self._compiled_accumulate, self.next_batch(iterator), index)
        return index + 1

    def _accumulate(self, batch: dict, index: tf.Tensor, form: int | None = None) -> None:
        """Add up the contribution of a batch before the last one of an update."""
        gradients, parts = self._gradients(batch, form)
        for total, gradient in zip(self._accumulated, gradients, strict=True):
            if gradient is not None:
                total.assign_add(gradient)
        # Without the last name: the gradients' norm is that of their mean.
        self._accumulated_parts.assign_add(tf.stack([parts[n] for n in self.metric_names[:-1]]))
        rows = tf.tensor_scatter_nd_update(self._sources, [[index]], [batch["source_id"]])
        self._sources.assign(rows)  # As a whole: a TPU has no assignment to a slice.

    def _with_accumulated(self, gradients: list, parts: dict, sources: tf.Tensor) -> tuple:
        """Average the last batch of an update with those before it, and empty the sums."""
        if self.accumulate_steps == 1:
            return gradients, parts, sources
        share, names = 1.0 / self.accumulate_steps, self.metric_names[:-1]
        gradients = [
            None if gradient is None else (total + gradient) * share
            for total, gradient in zip(self._accumulated, gradients, strict=True)
        ]
        values = (self._accumulated_parts + tf.stack([parts[name] for name in names])) * share
        sources = tf.concat([tf.reshape(self._sources[:-1], [-1]), sources], axis=0)
        # The sums are read before they are emptied, which the graph would not know by itself.
        with tf.control_dependencies([*(g for g in gradients if g is not None), values]):
            for variable in (*self._accumulated, self._accumulated_parts):
                variable.assign(tf.zeros_like(variable))
        return gradients, dict(zip(names, tf.unstack(values), strict=True)), sources

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        self._rates.apply(self.optimizer, gradients)
        self.loss_scale.succeeded()
        if self.average is not None:
            self.average.update(self.step)

    def _is_fault_elsewhere(self, gradients: Sequence, total: tf.Tensor) -> tf.Tensor:
        """Tell whether only another process can be the reason why a step is not finite."""
        if self._parts == 1:
            return tf.constant(False)
        # Not the loss alone: an activation may swallow what its gradient then shows.
        norm = tf.linalg.global_norm([one for one in gradients if one is not None])
        return tf.math.is_finite(norm) & tf.math.is_finite(total)

    def _skip(
        self, total: tf.Tensor, elsewhere: tf.Tensor, sources: tf.Tensor, metrics: dict
    ) -> None:
        """Keep the weights; a scaled loss may overflow, everything else is a failure to report."""
        excused = self.loss_scale.overflowed() & tf.math.is_finite(total)
        self._failure.note(self.step, sources, metrics, elsewhere=elsewhere, excused=excused)

    def _record(self, metrics: dict[str, tf.Tensor], sources: tf.Tensor) -> None:
        """Add up what is finite: of a step that overflowed the loss, not the gradient's norm."""
        values = tf.stack([metrics[name] for name in self.metric_names])
        finite = tf.math.is_finite(values)
        self._sums.assign_add(tf.where(finite, values, tf.zeros_like(values)))
        # By metric: a step that is left out of one mean may count in another.
        self._counts.assign_add(tf.cast(finite, tf.float32))
        with tf.control_dependencies([values]):  # Not before the batch, which may never come.
            self.step.assign_add(1)
            self.examples_seen.assign_add(sources.shape[0] * self._parts)

    @property
    def position(self) -> int:
        """Return the number of images that this process has consumed."""
        return int(self.examples_seen) // self.communicator.size

    @property
    def state(self) -> list[tf.Variable]:
        """Return all variables that must be equal on all processes: those of a checkpoint."""
        counters = [self.step, self.examples_seen, self.rate_factor, *self.loss_scale.variables]
        averages = [] if self.average is None else self.average.averages
        return [*self.detector.variables, *averages, *self.optimizer.variables, *counters]

    def share_statistics(self) -> None:
        """Average the moving statistics, which each process computes from its own images.

        The average of the averages is that of all images, so it does not matter how often this is
        done; updates do not depend on it.
        """
        moving = [v for v in self.detector.non_trainable_variables if v.dtype.is_floating]
        if self.average is not None:
            moving += self.average.averages_of(moving)
        self.communicator.mean_variables(moving)

    def check_agreement(self) -> None:
        """Make sure that all processes and devices have the same state, bit for bit.

        Raises:
            RuntimeError: their states differ; further steps would train different models.
        """
        check_agreement(self.state, int(self.step), self.communicator)

    def window_metrics(self) -> dict[str, float]:
        """Return the means since the last call, with `learning_rate` and `data_wait_seconds`.

        The latter is missing where `train.deterministic` leaves no clock.
        """
        # A metric that was not finite in any step has no sum and no count.
        parts = zip(copies(self._sums), copies(self._counts), strict=True)
        means = [sums / tf.maximum(counts, 1.0) for sums, counts in parts]
        means = means[0] if len(means) == 1 else tf.add_n(means) / len(means)
        metrics = dict(zip(self.metric_names, means.numpy().tolist(), strict=True))
        metrics = self.communicator.mean(metrics)
        # Of the last step, not a mean.
        metrics["learning_rate"] = float(self.optimizer.learning_rate)
        if self._has_clock:
            metrics["data_wait_seconds"] = float(self._waited)
        if self.loss_scale.dynamic:
            metrics["loss_scale"] = float(self.loss_scale.value)
            metrics["skipped_steps"] = int(self.loss_scale.skipped)
        for variable in (self._sums, self._counts, self._waited):
            variable.assign(tf.zeros_like(variable))
        return metrics

    def raise_if_failed(self) -> None:
        """Check the steps so far.

        Raises:
            NonFiniteLossError: a step was not finite; names the step, its loss parts and the source
                ids of its batch.
        """
        message = self._failure.message(self.communicator, self.optimizer.learning_rate)
        if message:
            raise NonFiniteLossError(message)

    def forget_failure(self) -> None:
        """Begin again after `NonFiniteLossError`: without its sums, and as if no step had failed.

        The state is for the caller to restore.
        """
        self._failure.forget()
        sums = [self._sums, self._counts, self._waited]
        if self.accumulate_steps > 1:
            sums += [*self._accumulated, self._accumulated_parts]
        for variable in sums:
            variable.assign(tf.zeros_like(variable))
