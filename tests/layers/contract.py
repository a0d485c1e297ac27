"""What every layer and backbone must hold; a part's test class derives from `LayerContract`."""

from __future__ import annotations

import inspect
import json

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.runtime.precision import policy_scope

# Arguments that no layer writes of itself.
_GIVEN = {"self", "name", "trainable", "dtype", "dynamic", "kwargs"}


def random_maps(*sides: int, channels: int = 4) -> list[tf.Tensor]:
    """Make a map [2, side, side, channels] of random values for each side."""
    rng = np.random.default_rng(0)
    shapes = [(2, side, side, channels) for side in sides]
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]


def _written(config: dict) -> str:
    """Return a config as a file has it: with lists instead of tuples."""
    return json.dumps(config, sort_keys=True, default=dict)


def _assert_same(found, wanted) -> None:
    tf.nest.assert_same_structure(found, wanted)
    found, wanted = map(tf.nest.flatten, (found, wanted))
    assert found
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def _assert_same_variables(found, wanted) -> None:
    assert [v.name for v in found.variables] == [v.name for v in wanted.variables]
    assert [v.trainable for v in found.variables] == [v.trainable for v in wanted.variables]
    for one, other in zip(found.variables, wanted.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.name)


class LayerContract:
    """Tests that know nothing of what a part computes.

    Derived classes give the attributes, and `call` where a layer is not called with `inputs` alone.

    Attributes:
        part: the class of the layer or backbone.
        settings: a value for each of its arguments, none of them the default.
        inputs: of a call, float32.
        float32: whether outputs are float32 in half precision too.
    """

    part: type
    settings: dict
    inputs: object = None
    float32: bool | None = None

    def call(self, layer):
        """Call a layer and return all that it gives."""
        return layer(self.inputs)

    def build(self, **more):
        """Make the layer; what it draws when it is called depends on nothing before."""
        keras.utils.set_random_seed(1)
        return self.part(**self.settings, **more)

    def test_every_setting_is_tried_with_another_value_than_its_default(self):
        parameters = inspect.signature(self.part.__init__).parameters
        assert set(self.settings) == set(parameters) - _GIVEN
        for name, value in self.settings.items():
            assert value != parameters[name].default, name

    def test_config_gives_the_same_layer_initial_weights_and_outputs(self):
        layer = self.build(name="ours")
        outputs = self.call(layer)
        config = layer.get_config()
        written = _written(config)
        settings = {
            name: keras.saving.serialize_keras_object(value)
            if isinstance(value, keras.layers.Layer)
            else value
            for name, value in self.settings.items()
        }
        assert {**settings, "name": "ours"}.items() <= config.items()
        for settings in (config, json.loads(written)):
            keras.utils.set_random_seed(1)
            again = self.part.from_config(settings)
            assert _written(again.get_config()) == written
            _assert_same(self.call(again), outputs)
            _assert_same_variables(again, layer)

    def test_a_layer_read_back_with_its_weights_is_the_same(self, tmp_path):
        layer = self.build()
        first = self.call(layer)
        for variable in layer.trainable_variables:
            variable.assign_add(tf.ones_like(variable))
        if isinstance(layer, keras.Model):
            layer.save(tmp_path / "part.keras")
            again = keras.models.load_model(tmp_path / "part.keras")
        else:
            text = _written(keras.saving.serialize_keras_object(layer))
            again = keras.saving.deserialize_keras_object(json.loads(text))
            self.call(again)
            again.set_weights(layer.get_weights())
        assert type(again) is self.part
        outputs = self.call(layer)
        _assert_same(self.call(again), outputs)
        if layer.trainable_variables:
            pairs = zip(tf.nest.flatten(first), tf.nest.flatten(outputs), strict=True)
            assert not all(np.array_equal(*pair) for pair in pairs)

    def test_half_precision_keeps_what_is_promised(self):
        with policy_scope("bf16"):
            layer = self.build()
        outputs = [np.asarray(one) for one in tf.nest.flatten(self.call(layer))]
        exact = issubclass(self.part, Float32Layer)
        assert layer.compute_dtype == ("float32" if exact else "bfloat16")
        kept = exact if self.float32 is None else self.float32
        dtypes = {tf.as_dtype(one.dtype) for one in outputs}
        floating = {one for one in dtypes if one.is_floating}
        # Some parts, such as assigners, give whole numbers alone.
        assert floating in ({tf.float32 if kept else tf.bfloat16}, set())
        assert all(v.dtype == tf.float32 for v in layer.variables)
        if exact:
            assert self.build(dtype="float16").compute_dtype == "float32"
