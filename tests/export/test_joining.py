"""TFLite files one behind the other, with values."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.export import joining
from ssd_centernet.export.biases import mend_biases


def converted(function, tmp_path, prepare=None):
    tf.saved_model.save(tf.Module(), tmp_path / "m", signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"))
    (prepare or (lambda one: None))(converter)
    return converter.convert()


def runner(content):
    interpreter = tf.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner()


def spec(name, shape=(1, 2, 2, 1)):
    return tf.TensorSpec(shape, tf.float32, name)


@tf.function(input_signature=[spec("a"), spec("b")])
def first(a, b):
    return {"sum": a + b, "difference": a - b}


@tf.function(input_signature=[{"difference": spec("difference"), "sum": spec("sum")}])
def second(values):
    """With a loop and a branch, which are subgraphs of a file."""
    total, _ = tf.while_loop(
        lambda x, n: n < 3, lambda x, n: (x * 2.0, n + 1), (values["sum"], tf.constant(0))
    )
    flipped = tf.cond(
        tf.reduce_max(total) > 50.0, lambda: -values["difference"], lambda: values["difference"]
    )
    return {"total": total, "difference": flipped}


A, B = (np.array(rows, np.float32).reshape(1, 2, 2, 1) for rows in ([1, 2, 3, 4], [5, 1, 0, 2]))


def test_values_go_through_both(tmp_path):
    joined = joining.join(converted(first, tmp_path), converted(second, tmp_path))
    run = runner(joined)
    found = run(a=A, b=B)
    assert set(found) == {"total", "difference"}
    np.testing.assert_array_equal(found["total"].ravel(), [48, 24, 24, 48])
    np.testing.assert_array_equal(found["difference"].ravel(), [-4, 1, 3, 2])
    # 8 * 7 is above 50.
    found = run(a=A, b=B + 1)
    np.testing.assert_array_equal(found["total"].ravel(), [56, 32, 32, 56])
    np.testing.assert_array_equal(found["difference"].ravel(), [5, 0, -2, -1])


def test_subgraphs_keep_their_numbers_when_a_third_is_put_before(tmp_path):
    back = joining.join(converted(first, tmp_path), converted(second, tmp_path))

    @tf.function(input_signature=[spec("x")])
    def front(x):
        three, _ = tf.while_loop(
            lambda y, n: n < 2, lambda y, n: (y + 1.0, n + 1), (x, tf.constant(0))
        )
        return {"a": three, "b": x * 2.0}

    found = runner(joining.join(converted(front, tmp_path), back))(x=A)
    np.testing.assert_array_equal(found["total"].ravel(), [40, 64, 88, 112])
    np.testing.assert_array_equal(found["difference"].ravel(), [-1, 0, 1, 2])


@tf.function(input_signature=[spec("x", (1, 1, 4, 1))])
def identity(x):
    return {"y": tf.nn.conv2d(x, tf.constant([[[[1.0]]]]), 1, "VALID")}


def integers(converter):
    samples = np.linspace(-1.0, 1.55, 4, dtype=np.float32).reshape(1, 1, 4, 1)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [{"x": samples}]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


def test_integers_become_numbers_between_them(tmp_path):
    network = converted(identity, tmp_path, integers)
    scales = joining.output_scales(network)
    assert scales["y"] == {"scale": pytest.approx(0.01, rel=1e-3), "zero_point": -28}

    @tf.function(input_signature=[{"y": spec("y", (1, 1, 4, 1))}])
    def double(values):
        return {"z": values["y"] * 2.0}

    run = runner(joining.join(network, converted(double, tmp_path)))
    given = np.array([-128, -28, 72, 127], np.int8).reshape(1, 1, 4, 1)
    np.testing.assert_allclose(run(x=given)["z"].ravel(), [-2.0, 0.0, 2.0, 3.1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("y", (1, 1, 2, 1), r"y: \[1, 1, 4, 1\] does not fit \[1, 1, 2, 1\]"),
        ("v", (1, 1, 4, 1), "y"),
    ],
)
def test_what_does_not_fit_is_refused(name, shape, message, tmp_path):
    @tf.function(input_signature=[{name: spec(name, shape)}])
    def other(values):
        return {"z": values[name] + 1.0}

    with pytest.raises(ValueError, match=message):
        joining.join(converted(identity, tmp_path), converted(other, tmp_path))


def test_a_shared_bias_gets_the_scale_of_each_convolution(tmp_path):
    """Two maps of different ranges, one kernel and bias: 16 bits, as in a head for all levels."""

    @tf.function(input_signature=[spec("x", (1, 1, 4, 1)), spec("w", (1, 1, 4, 1))])
    def shared(x, w):
        kernel, bias = tf.constant([[[[1.0]]]]), tf.constant([-4.6])
        return {
            key: tf.nn.bias_add(tf.nn.conv2d(value, kernel, 1, "VALID"), bias)
            for key, value in (("y", x), ("v", w))
        }

    values = np.array([-1.0, 0.0, 0.5, 1.0], np.float32).reshape(1, 1, 4, 1)

    def wide(converter):
        kinds = tf.lite.OpsSet
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: [{"x": values, "w": values * 6}]
        converter.target_spec.supported_ops = [
            kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]

    content = converted(shared, tmp_path, wide)
    mended, number = mend_biases(content)
    found = runner(mended)(x=values, w=values * 6)
    np.testing.assert_allclose(found["y"], values - 4.6, atol=1e-3)
    np.testing.assert_allclose(found["v"], values * 6 - 4.6, atol=3e-3)
    # Where the converter has done it right, nothing changes.
    assert mend_biases(mended) == (mended, 0)
    before = runner(content)(x=values, w=values * 6)
    wrong = max(
        np.abs(before["y"] - values + 4.6).max(), np.abs(before["v"] - values * 6 + 4.6).max()
    )
    assert (number == 1) == (wrong > 0.5)
