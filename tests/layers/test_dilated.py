import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.dilated import DilatedConv2D
from tests.layers.contract import random_maps


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_it_computes_what_keras_layer_does(policy):
    settings = {"padding": "same", "dilation_rate": 2, "activation": "relu", "name": "conv"}
    (features,) = random_maps(7)
    one, other = (
        kind(5, 3, dtype=policy, **settings) for kind in (DilatedConv2D, keras.layers.Conv2D)
    )
    one.build(features.shape)
    other.build(features.shape)
    assert [v.name for v in one.variables] == [v.name for v in other.variables]
    one.bias.assign(np.linspace(-1.0, 1.0, 5))
    other.set_weights(one.get_weights())
    limit = 1e-5 if policy == "float32" else 0.02
    np.testing.assert_allclose(
        tf.cast(one(features), tf.float32), tf.cast(other(features), tf.float32), limit, limit
    )


def test_a_saved_layer_is_the_same_layer(tmp_path):
    inputs = keras.Input((None, None, 4))
    layer = DilatedConv2D(3, 3, padding="same", dilation_rate=(6, 6), use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "one.keras")
    again = keras.models.load_model(tmp_path / "one.keras")
    assert type(again.layers[-1]) is DilatedConv2D
    assert again.layers[-1].get_config() == layer.get_config()
    (features,) = random_maps(9)
    np.testing.assert_array_equal(model(features), again(features))


@pytest.mark.parametrize(
    "wrong",
    [
        {"padding": "valid"},
        {"strides": 2, "dilation_rate": 1},
        {"groups": 2},
        {"dilation_rate": (2, 3)},
        {"kernel_size": (3, 4)},
        {"data_format": "channels_first"},
    ],
)
def test_settings_of_keras_that_it_does_not_know_are_refused(wrong):
    settings = {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2} | wrong
    with pytest.raises(ValueError, match="padding='same'.*Use keras.layers.Conv2D"):
        DilatedConv2D(**settings).build((None, 8, 8, 4))
