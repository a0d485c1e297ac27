"""One round of the graph optimiser: what a call tells TensorFlow, and that a training says it."""

import pytest
import tensorflow as tf

from ssd_centernet.runtime.graph_rounds import one_round


def settings():
    from tensorflow.python.eager import context

    said = context.context().function_call_options.config_proto_serialized
    return tf.compat.v1.ConfigProto.FromString(said).graph_options.rewrite_options


def rounds():
    return settings().meta_optimizer_iterations


@pytest.mark.parametrize(
    ("device", "expected"),
    [("/job:localhost/replica:0/task:0/device:CPU:0", 1), ("/device:GPU:0", 0), ("", 0)],
)
def test_calls_on_a_cpu_ask_for_one_round(device, expected):
    # 0 is TensorFlow's own number.
    assert rounds() == 0
    with one_round(device):
        assert rounds() == expected
    assert rounds() == 0


def test_it_ends_with_an_error_and_settings_of_a_user_stay():
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        with pytest.raises(KeyError), one_round("/device:CPU:0"):
            assert rounds() == 1
            assert settings().remapping == settings().OFF
            raise KeyError
        assert rounds() == 0
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": True})


def test_a_function_is_traced_once_under_it():
    traces = []

    @tf.function
    def double(value):
        traces.append(value)
        return 2 * value

    for _ in range(2):
        with one_round("/device:CPU:0"):
            assert int(double(tf.constant(3))) == 6
    assert len(traces) == 1
