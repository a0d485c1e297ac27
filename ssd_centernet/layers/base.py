"""The bases of our layers."""

from __future__ import annotations

import inspect

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


class Float32Layer(ConfiguredLayer):
    """A layer that computes in float32 under every precision policy.

    Targets, losses, decoding and preprocessing lose accuracy in half precision and save no time: a
    published port lost 5 AP that way.
    """

    def __init__(self, *, name: str, **kwargs):
        """Set the name; a `dtype` among the Keras arguments is overridden."""
        super().__init__(name=name, **{**kwargs, "dtype": "float32"})
