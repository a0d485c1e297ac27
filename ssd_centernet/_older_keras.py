"""Names that Keras got after TensorFlow 2.10, for the Keras inside it and the next ones.

`adapt` returns that Keras with what the rest of the package uses: `keras.saving`, which was
`keras.utils` before 2.12, and part of it still in 2.12; and as `keras.optimizers` those that have a
`build` and an `update_step`, which 2.10 keeps in `keras.optimizers.experimental`, and 2.11 some of
them. Keras itself is not changed.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import tensorflow as tf

_SERIALIZATION = (
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "register_keras_serializable",
    "serialize_keras_object",
)


class _Adapted(ModuleType):
    """A module with some other names; the rest is looked up in the original."""

    def __init__(self, original: ModuleType, **names: Any):
        super().__init__(original.__name__, original.__doc__)
        self.__dict__.update(names, _original=original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._original), *self.__dict__})


class _Variables(list):
    """A list that Keras 2.10 may call, and that later ones read."""

    def __call__(self) -> list[tf.Variable]:
        return self


class _Listed:
    """Optimizers of TensorFlow 2.11, with `variables` as an attribute."""

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the number of updates, the rate and the slots."""
        return _Variables(self._variables)


class _Optimizer:
    """What the optimizers of TensorFlow 2.12 have beyond those of 2.10."""

    def __init__(self, *args: Any, weight_decay: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weight_decay = weight_decay

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the number of updates and the slots."""
        return _Variables([self._iterations, *self._variables])

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        """Name the variables that do not decay; call it before `build`."""
        self._not_decayed = {variable.ref() for variable in var_list or ()}
        self._not_decayed_names = tuple(var_names or ())

    def _decays(self, variable: tf.Variable) -> bool:
        names = getattr(self, "_not_decayed_names", ())
        return variable.ref() not in getattr(self, "_not_decayed", ()) and not any(
            re.search(name, variable.name) for name in names
        )

    def _update_step(self, gradient: Any, variable: tf.Variable) -> None:
        if self.weight_decay is not None and self._decays(variable):
            rate = tf.cast(self.learning_rate, variable.dtype)
            decay = tf.cast(self.weight_decay, variable.dtype)
            variable.assign_sub(variable * decay * rate)
        super()._update_step(gradient, variable)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "weight_decay": self.weight_decay}


def _optimizers(original: ModuleType, utils: ModuleType) -> ModuleType:
    """Return the module of optimizers as of TensorFlow 2.12, made of that of 2.10 or 2.11."""
    known = original.experimental
    # Those of 2.11 are known by both names, but for some.
    decays = known.Optimizer is original.Optimizer
    added = _Listed if decays else _Optimizer
    base = type("Optimizer", (added, known.Optimizer), {"__module__": __name__})
    kinds = {
        name: type(name, (base, kind), {"__doc__": kind.__doc__, "__module__": __name__})
        for name, kind in vars(known).items()
        if isinstance(kind, type) and name != "Optimizer"
    }
    kinds["Optimizer"] = base
    if not decays:
        # Adam decays weights itself by now; that of 2.10 would let them decay twice.
        kinds["AdamW"] = type("AdamW", (kinds["Adam"],), {"__module__": __name__})
    by_name = {name.lower(): kind for name, kind in kinds.items()}

    def deserialize(config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        """Make the optimizer that `serialize` described."""
        name = config["class_name"]
        config = {**config, "class_name": name.lower() if name.lower() in by_name else name}
        return utils.deserialize_keras_object(config, by_name, custom_objects, "optimizer")

    def get(identifier: Any) -> Any:
        """Return an optimizer of its name or description; an optimizer as it is."""
        if isinstance(identifier, str):
            identifier = {"class_name": identifier, "config": {}}
        if isinstance(identifier, dict):
            return deserialize(identifier)
        return original.get(identifier)

    return _Adapted(original, **kinds, deserialize=deserialize, get=get)


def _leave_to_python(package: str) -> None:
    """Let AutoGraph not convert a package: its `zip` has no `strict` in TensorFlow 2.10.

    Keras 2 converts what the layers of a model call. Ours have no Python condition on a tensor.
    """
    from tensorflow.python.autograph.core import config

    rule = config.DoNotConvert(package)
    config.CONVERSION_RULES = (rule, *config.CONVERSION_RULES)


def adapt(original: ModuleType) -> ModuleType:
    """Return the Keras inside an older TensorFlow with the names of later ones.

    Args:
        original: `tf.keras` of TensorFlow 2.10 or later, older than 2.14.

    Returns:
        A module that finds all other names in `original`.
    """
    _leave_to_python(__name__.partition(".")[0])
    names, saving = {}, getattr(original, "saving", original.utils)
    known = {name: getattr(original.utils, name) for name in _SERIALIZATION}
    missing = {name: value for name, value in known.items() if not hasattr(saving, name)}
    if missing or not hasattr(original, "saving"):
        names["saving"] = _Adapted(saving, **missing)
    optimizer = original.optimizers.Optimizer
    if not isinstance(getattr(optimizer, "variables", None), property):
        names["optimizers"] = _optimizers(original.optimizers, original.utils)
    return _Adapted(original, **names) if names else original
