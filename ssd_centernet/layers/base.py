"""The bases of our layers."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Sequence

from ssd_centernet._keras import keras


class ConfiguredLayer(keras.layers.Layer):
    """A layer that keeps its constructor's arguments as attributes of the same names."""

    def get_config(self) -> dict:
        """Return the constructor's arguments, those of the classes that it derives from too."""
        config = super().get_config()
        for kind in reversed(type(self).__mro__):
            if issubclass(kind, ConfiguredLayer) and "__init__" in vars(kind):
                names = [*inspect.signature(kind.__init__).parameters][1:]  # Without `self`.
                kept = [name for name in names if name not in config and hasattr(self, name)]
                config |= {name: getattr(self, name) for name in kept}
        return config

    def check_choice(self, name: str, value: object, choices: Sequence[str]) -> None:
        """Refuse a setting that is not one of its choices.

        Args:
            name: of the setting.
            value: what was given.
            choices: what it can be.

        Raises:
            ValueError: names the setting as recipes do, the value and the choices.
        """
        if value not in choices:
            raise ValueError(
                f"{type(self).__name__}.{name} must be one of {tuple(choices)}, got {value!r}."
            )

    def check_factors(self, **factors: float) -> None:
        """Refuse a factor that is not a finite number of 0 or more.

        Args:
            **factors: settings by name.

        Raises:
            ValueError: names the setting as recipes do, and the value.
        """
        for name, value in factors.items():
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not (is_number and 0 <= value < math.inf):
                raise ValueError(
                    f"{type(self).__name__}.{name} must be a number of 0 or more, got {value!r}."
                )

    def check_loss_weights(self, **weights: float) -> None:
        """Refuse weights of the parts of a loss that are no factors, or all 0.

        Args:
            **weights: settings by name, those of all parts.

        Raises:
            ValueError: names the settings as recipes do.
        """
        self.check_factors(**weights)
        if not any(weights.values()):
            raise ValueError(
                f"{' and '.join(f'{type(self).__name__}.{name}' for name in weights)} are 0: "
                "nothing would be learnt. One must be above 0."
            )


class Float32Layer(ConfiguredLayer):
    """A layer that computes in float32 under every precision policy.

    Targets, losses, decoding and preprocessing lose accuracy in half precision and save no time: a
    published port lost 5 AP that way.
    """

    def __init__(self, *, name: str, **kwargs):
        """Set the name; a `dtype` among the Keras arguments is overridden."""
        super().__init__(name=name, **{**kwargs, "dtype": "float32"})
