"""Keras' `compile`, `fit` and `evaluate` for a detector."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet._keras import explain_foreign, keras
from ssd_centernet.layers.normalization import warm_up_averages
from ssd_centernet.models.first_batch import check_values, look_at, prepared, told
from ssd_centernet.models.moving_statistics import settled
from ssd_centernet.models.weight_decay import NORMS, add_weight_decay, decay_mask

_OBJECTS = ("boxes", "classes")


class FittedModel(keras.Model):
    """A Keras model with its own loss, in named parts, for batches that are dictionaries.

    Subclasses give `num_classes`, `compute_losses`, `total_loss`, `loss_weights` and
    `variables_to_train`.
    """

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        *,
        weight_decay: float = 0.0,
        decay_exclude: str | Sequence[str] = NORMS,
        freeze: str | Sequence[str] = (),
        clip_norm: float | None = None,
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
            optimizer=optimizer,
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
                "run_eagerly": run_eagerly,
                "steps_per_execution": steps_per_execution,
                "jit_compile": jit_compile,
            },
            [keras.metrics.Mean(name=name) for name in ("loss", *self.loss_weights)],
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
        _refuse_ground_truth(y, "fit")
        x = self._looked_at(x, "x")
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = self._looked_at(
                kwargs["validation_data"], "validation_data"
            )
        _check_callbacks(kwargs.get("callbacks"))
        with _without_graph(), self._fitting.training_on(x):
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
        _refuse_ground_truth(y, "evaluate")
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
            lambda: (_checked(batch, self.input_shape) for batch in batches),
            lambda sentence: warnings.warn(sentence, stacklevel=2),
            "this validation",
        )

    def _looked_at(self, batches: Any, name: str) -> Any:
        """Check batches as far as it can be done before Keras makes a graph of the step."""
        _check_batches(batches, self.input_shape, name)

        def check(batch: Any) -> None:
            checked = _checked(batch, self.input_shape)
            preprocessing = getattr(self, "preprocessing", None)
            check_values(checked, num_classes=self.num_classes, preprocessing=preprocessing)

        return look_at(batches, check)

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Update the weights once; called by `fit`."""
        batch = self._prepared(data)
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
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._fitting.record({"loss": total, **parts}, batch["image"])

    def _prepared(self, data: Any) -> dict[str, Any]:
        """Check a batch in the graph, and say the shapes that batches of a generator lack."""
        batch = _checked(data, self.input_shape)
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

    def __init__(self, options: dict[str, Any], means: list[keras.metrics.Mean]):
        self.options = options
        self.means = means
        self.batches: Any = None

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
        known = "optimizer, weight_decay, decay_exclude, freeze, clip_norm, run_eagerly"
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


def _refuse_ground_truth(y: Any, method: str) -> None:
    if y is not None:
        raise ValueError(
            f"{method}(x, y) got a y, but a detector's ground truth is part of its batches, "
            "dictionaries with 'image', 'boxes' and 'classes'; ssd_centernet.training_data makes "
            "them from converted data."
        )


def _check_batches(batches: Any, input_shape: Sequence[int | None], name: str) -> None:
    """Check the batches before Keras does; `_checked` checks the rest in the step."""
    if isinstance(batches, tf.data.Dataset):
        _checked(batches.element_spec, input_shape)
    elif isinstance(batches, list | tuple) or not hasattr(batches, "__iter__"):
        raise ValueError(
            f"{name} is a {type(batches).__name__}; expected a tf.data.Dataset whose batches are "
            "dictionaries with 'image', 'boxes' and 'classes', such as training_data makes."
        )


def _checked(batch: Any, input_shape: Sequence[int | None]) -> dict[str, Any]:
    """Return a batch, or its specification, that a step can use.

    Raises:
        ValueError: says what is missing, or which image is expected.
    """
    if isinstance(batch, tuple) and len(batch) == 1:
        (batch,) = batch  # As Keras hands on arrays, and a batch of train_on_batch.
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"a batch is a {type(batch).__name__}, as fit gets it from (image, label) pairs; "
            "expected a dictionary with 'image', 'boxes' and 'classes'. Convert pairs with "
            "dataset.map(lambda image, label: {'image': image, **label})."
        )
    needed = ("image",) if batch.get("targets") is not None else ("image", *_OBJECTS)
    missing = [name for name in needed if name not in batch]
    if missing:
        raise ValueError(
            f"a batch has no {' and no '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, sorted(batch)))}. docs/architecture.md lists the fields, and "
            "ssd_centernet.training_data makes such batches from converted data."
        )
    image = batch["image"]
    dtype = tf.as_dtype(image.dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"'image' of a batch is {dtype.name}; expected the network's input, "
            "float32 images that are resized and normalised: make them with "
            "detector.preprocessing(image). Only detect() takes uint8."
        )
    if not tf.TensorShape(input_shape).is_compatible_with(image.shape):
        raise ValueError(
            f"'image' of a batch has shape {tuple(image.shape)}, but the network takes "
            f"{tuple(input_shape)}: resize the images with "
            "detector.preprocessing(image) or in the augmentation."
        )
    return dict(batch)
