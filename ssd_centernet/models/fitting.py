"""Keras' `compile`, `fit` and `evaluate` for a detector."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet._keras import check_keras_file, explain_foreign, keras
from ssd_centernet.layers.normalization import warm_up_averages
from ssd_centernet.models.first_batch import check_values, look_at, prepared, told
from ssd_centernet.models.fit_batches import check_batches, checked, refuse_ground_truth
from ssd_centernet.models.fit_progress import FitProgress
from ssd_centernet.models.moving_statistics import settled
from ssd_centernet.models.weight_average import WeightAverage
from ssd_centernet.models.weight_decay import NORMS, add_weight_decay, decay_mask


class FittedModel(keras.Model):
    """A Keras model with its own loss, in named parts, for batches that are dictionaries.

    Subclasses give `num_classes`, `compute_losses`, `total_loss`, `loss_weights`,
    `variables_to_train` and `needs_progress`.
    """

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        *,
        weight_decay: float = 0.0,
        decay_exclude: str | Sequence[str] = NORMS,
        freeze: str | Sequence[str] = (),
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        run_eagerly: bool | None = None,
        steps_per_execution: int | str | None = None,
        jit_compile: bool | None = None,
        **refused: Any,
    ) -> None:
        """Prepare `fit` and `evaluate`; the loss comes from the detector's criterion.

        A step is that of `ssd_centernet train`: take the gradients of the weighted sum of the loss
        parts, add weight decay, clip, apply. In float16 Keras wraps the optimizer to scale the
        loss. The momentum of the batch norms' averages grows with the steps, as in short runs.

        Args:
            optimizer: an optimizer of `ssd_centernet.keras` with its learning rate, or its name.
            weight_decay: coefficient of the L2 objective `0.5 |v|^2`, not part of the loss shown; 0
                for none. An optimizer's own `weight_decay` is something else: it is decoupled.
            decay_exclude: regular expressions of names of variables that do not decay.
            freeze: regular expressions, matched at the start of names of variables that are not
                updated. Their batch norms still use the statistics of the batch; to freeze these
                too, set `trainable = False` on a layer before `compile`, as usual in Keras.
            clip_norm: largest global norm of the gradients; None for no clipping.
            ema_decay: decay of an average of the weights, as `train.ema_decay`; None for none. The
                average is what each validation, what callbacks at the end of an epoch, and what you
                have after `fit` look at; a further `fit` goes on with it.
            run_eagerly: as in Keras.
            steps_per_execution: as in Keras.
            jit_compile: as in Keras.
            **refused: must be empty; Keras' `loss` and `metrics` raise an error that says what to
                do.

        Raises:
            ValueError: an argument is out of range, or a pattern matches nothing.
            TypeError: the optimizer is of another Keras, or a detector does not have the argument.
        """
        _refuse_arguments(refused)
        _check_optimizer(optimizer)
        for name, value in (("weight_decay", weight_decay), ("clip_norm", clip_norm)):
            if value is not None and value < 0:
                raise ValueError(f"compile({name}={value}): expected 0 or more.")
        decay_mask(self.variables_to_train(freeze), decay_exclude)  # Raises if a pattern is wrong.
        super().compile(
            # Keras 2.10 itself would make its legacy optimizer of a name.
            optimizer=keras.optimizers.get(optimizer),
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        self._fitting = _Fitting(
            {
                "weight_decay": weight_decay,
                "decay_exclude": _as_list(decay_exclude),
                "freeze": _as_list(freeze),
                "clip_norm": clip_norm,
                "ema_decay": ema_decay,
                "run_eagerly": run_eagerly,
                "steps_per_execution": steps_per_execution,
                "jit_compile": jit_compile,
            },
            [keras.metrics.Mean(name=name) for name in ("loss", *self.loss_weights)],
            None if ema_decay is None else WeightAverage(self.variables, ema_decay),
        )
        # How long the run will be is not known here, and this suits all lengths.
        warm_up_averages(self, lambda: self.optimizer.iterations)
        _warn_without_rate(self.optimizer)

    def fit(self, x=None, y=None, **kwargs):
        """Train on batches: see `keras.Model.fit`; give its arguments by name.

        Args:
            x: batches such as those of `ssd_centernet.training_data` (docs/architecture.md has the
                fields): a `tf.data.Dataset` of dictionaries with `image` float32 [B, h, w, 3],
                normalised, and either `targets`, or `boxes` float32 [B, M, 4] (yxyx, fractions of
                `image`) and `classes` int32 [B, M] in 0..C-1, with `valid` bool [B, M] if some rows
                are padding and `is_crowd` bool [B, M] if some are crowd regions.
            y: None; the ground truth is part of a batch.
            **kwargs: arguments of Keras: `epochs`, `steps_per_epoch`, `validation_data`,
                `callbacks`...

        In the first steps the batch norms have no averages yet that a validation could use: where
        `x` is a `tf.data.Dataset`, they are estimated on batches of it for each such validation, as
        in `ssd_centernet train`, and a warning says so.

        Returns:
            Keras' History: `loss` (the weighted sum) and each loss part; `val_` marks those of the
            validation.

        Raises:
            ValueError: `x` does not hold such batches.
            TypeError: a callback is of another Keras.
        """
        if not hasattr(self, "_fitting"):
            raise RuntimeError(
                "the detector is not compiled, so fit has no optimizer: call "
                "detector.compile(ssd_centernet.keras.optimizers.Adam(1e-3)) first."
            )
        refuse_ground_truth(y, "fit")
        x = self._looked_at(x, "x")
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = self._looked_at(
                kwargs["validation_data"], "validation_data"
            )
        _check_callbacks(kwargs.get("callbacks"))
        if self.needs_progress:
            self._fitting.progress.begin(self.optimizer.iterations, x, kwargs)
        average = self._fitting.average
        if average is not None:
            kwargs["callbacks"] = _with_average(average, kwargs.get("callbacks"))
        with _without_graph(), self._fitting.training_on(x), _left_in_use(average):
            return super().fit(x, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """Compute the loss and its parts, not AP: see `keras.Model.evaluate`.

        Args:
            x: batches as for `fit`.
            y: None; the ground truth is part of a batch.
            **kwargs: arguments of Keras, such as `return_dict=True`.

        Returns:
            Means over the images, in the order of `metrics_names`.
        """
        refuse_ground_truth(y, "evaluate")
        # For the validation of `fit`, which has looked, Keras hands over batches of its own.
        validates = bool(kwargs.get("_use_cached_eval_dataset"))
        x = x if validates else self._looked_at(x, "x")
        _check_callbacks(kwargs.get("callbacks"))
        with _without_graph(), self._settled() if validates else contextlib.nullcontext():
            return super().evaluate(x, **kwargs)

    def _settled(self) -> contextlib.AbstractContextManager:
        """Open the state that the validation of `fit` looks at, as that of a run is."""
        batches = self._fitting.batches
        if not isinstance(batches, tf.data.Dataset):  # What a generator gave is gone.
            return contextlib.nullcontext()
        return settled(
            self,
            int(self.optimizer.iterations),
            lambda: (checked(batch, self.input_shape) for batch in batches),
            lambda sentence: warnings.warn(sentence, stacklevel=2),
            "this validation",
        )

    def _looked_at(self, batches: Any, name: str) -> Any:
        """Check batches as far as it can be done before Keras makes a graph of the step."""
        check_batches(batches, self.input_shape, name)

        def check(batch: Any) -> None:
            fields = checked(batch, self.input_shape)
            preprocessing = getattr(self, "preprocessing", None)
            check_values(fields, num_classes=self.num_classes, preprocessing=preprocessing)

        return look_at(batches, check)

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Update the weights once; called by `fit`."""
        batch = self._prepared(data)
        batch["progress"] = self._fitting.progress.at(self.optimizer.iterations)
        options = self._fitting.options
        variables = self.variables_to_train(options["freeze"])
        # In float16 small gradients become 0, so Keras' wrapper multiplies the loss beforehand.
        scaler = self.optimizer if hasattr(self.optimizer, "get_scaled_loss") else None
        with tf.GradientTape() as tape:
            outputs = self(batch["image"], training=True)
            parts = self.compute_losses(outputs, batch)
            total = self.total_loss(parts)
            scaled = total if scaler is None else scaler.get_scaled_loss(total)
        gradients = tape.gradient(scaled, variables)
        if scaler is not None:
            gradients = scaler.get_unscaled_gradients(gradients)
        mask = decay_mask(variables, options["decay_exclude"])
        gradients = add_weight_decay(gradients, variables, mask, options["weight_decay"])
        if options["clip_norm"] is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, options["clip_norm"])
        step = tf.identity(self.optimizer.iterations)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        if (average := self._fitting.average) is not None:
            # A step that the loss scale skips does not count, though Keras counts it.
            finite = [tf.reduce_all(tf.math.is_finite(g)) for g in gradients if scaler is not None]
            tf.cond(tf.reduce_all(finite), lambda: average.update(step), lambda: None)
        return self._fitting.record({"loss": total, **parts}, batch["image"])

    def _prepared(self, data: Any) -> dict[str, Any]:
        """Check a batch in the graph, and say the shapes that batches of a generator lack."""
        batch = checked(data, self.input_shape)
        batch["image"] = tf.ensure_shape(batch["image"], [None, *self.input_shape[1:]])
        if "boxes" in batch:
            batch["boxes"] = tf.ensure_shape(batch["boxes"], [None, None, 4])
        return prepared(batch, self.num_classes)

    def test_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Compute the loss of a batch; called by `evaluate` and for `validation_data`."""
        batch = self._prepared(data)
        parts = self.compute_losses(self(batch["image"], training=False), batch)
        return self._fitting.record({"loss": self.total_loss(parts), **parts}, batch["image"])

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Return the means that `fit` shows: the loss and its parts; empty before `compile`."""
        fitting = getattr(self, "_fitting", None)
        return [] if fitting is None else list(fitting.means)

    def save(self, filepath, *args, **kwargs):
        """Write the model, see Keras' method; ValueError where TensorFlow has no `.keras` files."""
        check_keras_file(filepath)
        return super().save(filepath, *args, **kwargs)

    def get_compile_config(self) -> dict | None:
        """Return the arguments of `compile`, for a `.keras` file."""
        fitting = getattr(self, "_fitting", None)
        if fitting is None:
            return None
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        if getattr(self.optimizer, "dynamic", False):
            # Keras saves the state of the optimizer, but not the scale of the loss around it.
            optimizer["config"]["initial_scale"] = float(self.optimizer.loss_scale)
        return {"optimizer": optimizer, **fitting.options}

    def compile_from_config(self, config: dict) -> None:
        """Compile as the model of a `.keras` file, with slots for the optimizer's state."""
        config = dict(config)
        optimizer = keras.saving.deserialize_keras_object(config.pop("optimizer"))
        self.compile(optimizer, **config)
        if hasattr(self.optimizer, "build"):  # The optimizers of Keras' past make slots later.
            self.optimizer.build(self.variables_to_train(config["freeze"]))


@contextlib.contextmanager
def _without_graph() -> Iterator[None]:
    """Tell what a later batch is refused for in one sentence, without the trace of the graph."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        sentence = told(error)
        if sentence is None:
            raise
        raise ValueError(sentence) from None


class _Fitting:
    """Hold what `compile` set, hidden from Keras: these are not weights of the model."""

    def __init__(
        self,
        options: dict[str, Any],
        means: list[keras.metrics.Mean],
        average: WeightAverage | None,
    ):
        self.options = options
        self.means = means
        self.average = average
        self.batches: Any = None
        self.progress = FitProgress()

    @contextlib.contextmanager
    def training_on(self, batches: Any) -> Iterator[None]:
        """Hold what `fit` trains on while it does."""
        self.batches = batches
        try:
            yield
        finally:
            self.batches = None

    def record(self, values: dict[str, tf.Tensor], images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Add up the values of a batch, and return the means over all images so far."""
        size = tf.shape(images)[0]
        for mean in self.means:
            mean.update_state(values[mean.name], sample_weight=size)
        return {mean.name: mean.result() for mean in self.means}


class _InUse(keras.callbacks.Callback):
    """Have the average in use from an epoch's validation to the next epoch's first step."""

    def __init__(self, average: WeightAverage):
        super().__init__()
        self._average = average

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Go on with the weights that are trained."""
        self._average.set_in_use(False)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Validate the average."""
        self._average.set_in_use(True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Let other callbacks see the average, such as one that saves the model."""
        self._average.set_in_use(True)


def _with_average(average: WeightAverage, callbacks: Any) -> list:
    """Put the exchange of weights and averages before all other callbacks."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise TypeError("with ema_decay, give fit a list of callbacks instead of a CallbackList.")
    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    return [_InUse(average), *(one for one in given if one is not None)]


@contextlib.contextmanager
def _left_in_use(average: WeightAverage | None) -> Iterator[None]:
    """Begin an average, and leave it as the weights, however training ends."""
    if average is None:
        yield
        return
    average.restart()
    try:
        yield
    finally:
        average.set_in_use(True)
        average.is_in_use = False  # They are the weights now.


def _as_list(patterns: str | Sequence[str]) -> list[str]:
    # In the form of a file, so that what is read back is equal.
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _refuse_arguments(names: Mapping[str, Any]) -> None:
    given = {name: value for name, value in names.items() if value is not None}
    advice = {
        "loss": "the loss is the detector's own; choose it with SSD(criterion=MultiBoxLoss(...))",
        "metrics": "fit shows the loss and its parts; ssd_centernet.evaluate computes AP",
        "loss_weights": "the weights of the parts are settings of the criterion",
    }
    for name in given:
        known = "optimizer, weight_decay, decay_exclude, freeze, clip_norm, ema_decay, run_eagerly"
        hint = advice.get(name, f"its arguments are {known}, steps_per_execution, jit_compile")
        raise TypeError(f"a detector's compile() takes no {name!r}: {hint}.")


def _check_optimizer(optimizer: Any) -> None:
    kinds = (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)
    if isinstance(optimizer, (str, *kinds)):
        return
    foreign = explain_foreign(optimizer, "optimizers.Adam(1e-3)")
    got = f"{optimizer.__name__}, a class" if isinstance(optimizer, type) else repr(optimizer)
    raise TypeError(
        foreign
        or f"compile() got the optimizer {got}; expected an object such as "
        "keras.optimizers.Adam(1e-3) with keras from ssd_centernet, or a name such as 'adam'."
    )


def _warn_without_rate(optimizer: Any) -> None:
    rate = getattr(optimizer, "learning_rate", None)
    if isinstance(rate, tf.Variable) and not float(rate):
        warnings.warn(
            f"{type(optimizer).__name__} has the learning rate 0, so fit would change nothing: "
            "set one, such as Momentum(0.9, learning_rate=1e-3), or a callback that sets it.",
            stacklevel=3,
        )


def _check_callbacks(callbacks: Any) -> None:
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return
    for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        if not isinstance(callback, keras.callbacks.Callback):
            foreign = explain_foreign(callback, f"callbacks.{type(callback).__name__}")
            raise TypeError(foreign or f"{callback!r} among the callbacks is not a Keras callback.")
