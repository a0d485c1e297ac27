"""The base of our backbones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tensorflow as tf

from ssd_centernet._keras import keras


class Backbone(keras.Model):
    """A functional model that is built anew from its constructor's arguments, `_config`.

    Attributes:
        block_names: names of its blocks, which have one input and one output each; the layers of a
            block `NAME` are called `NAME_...`.
        in_blocks: calls the model in training, see `models/rematerialized.py`; None for Keras' way.
    """

    block_names: tuple[str, ...] = ()
    in_blocks: Callable | None = None

    def _name_blocks(self, names: Iterable[str]) -> None:
        # What Keras sees to be set becomes a part of checkpoints.
        object.__setattr__(self, "block_names", tuple(names))

    def call(self, inputs, training=None, mask=None):
        """Compute feature maps from images [B, h, w, 3]."""
        # A tensor says nothing while the graph is traced.
        if self.in_blocks is not None and training is True:
            return self.in_blocks(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _infer_output_signature(self, inputs, args, kwargs, input_masks):
        """Describe the maps that the model makes of symbolic images, for the detector around it.

        Keras would call each layer again to find it out, which takes a large network seconds; its
        layers know their shapes. A Keras without this method does as it did.
        """
        layers = [one for one in self.layers if not isinstance(one, keras.layers.InputLayer)]
        default = keras.layers.Layer.compute_output_shape
        if any(type(one).compute_output_shape is default for one in layers):
            return super()._infer_output_signature(inputs, args, kwargs, input_masks)
        # It has no batch size, and no layer of ours mixes images.
        shapes = self.compute_output_shape(inputs.shape)
        shapes = [shapes[name] for name in sorted(self._nested_outputs)]  # As `outputs`.
        known = [
            type(one)(tf.TensorSpec(shape, one.dtype))
            for one, shape in zip(self.outputs, shapes, strict=True)
        ]
        return tf.nest.pack_sequence_as(self._nested_outputs, known)

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        return {"name": self.name, **self._config}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        """Build the network from `get_config`."""
        return cls(**config)
