"""The base of layers that must stay exact."""

from __future__ import annotations

from ssd_centernet._keras import keras


class Float32Layer(keras.layers.Layer):
    """A layer that computes in float32 under every precision policy.

    Targets, losses, decoding and preprocessing lose accuracy in half precision and save no time: a
    published port lost 5 AP that way.
    """

    def __init__(self, *, name: str, **kwargs):
        """Set the name; a `dtype` among the Keras arguments is overridden."""
        super().__init__(name=name, **{**kwargs, "dtype": "float32"})
