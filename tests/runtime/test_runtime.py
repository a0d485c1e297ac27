"""Devices, precision and processes."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.runtime import device, distribution, precision
from tests.process import environment, python


@pytest.mark.parametrize(
    ("dtype", "policy"),
    [
        (None, "float32"),
        ("fp32", "float32"),
        ("bf16", "mixed_bfloat16"),
        ("fp16", "mixed_float16"),
        ("mixed_bfloat16", "mixed_bfloat16"),
    ],
)
def test_policy_names(dtype, policy):
    assert precision.policy_name(dtype) == policy
    assert precision.needs_loss_scale(dtype) == (policy == "mixed_float16")


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"dtype is 'float64'; expected one of fp32, bf16, fp16"):
        precision.policy_name("float64")


def test_policy_scope_applies_and_restores():
    before = keras.mixed_precision.global_policy().name
    with pytest.raises(RuntimeError, match="inside"):
        with precision.policy_scope("bf16") as name:
            assert name == keras.mixed_precision.global_policy().name == "mixed_bfloat16"
            layer = keras.layers.Dense(2)
            raise RuntimeError("inside")
    assert keras.mixed_precision.global_policy().name == before
    # A layer keeps the policy it was made under: bf16 results from float32 weights.
    assert layer(tf.ones([1, 3])).dtype == tf.bfloat16
    assert layer.kernel.dtype == tf.float32


def test_single_process_changes_nothing():
    process = distribution.SingleProcess()
    assert isinstance(process, distribution.Communicator)
    assert (process.rank, process.size, process.local_rank, process.is_chief) == (0, 1, 0, True)
    gradients = [tf.constant([1.0, 2.0]), None]

    @tf.function
    def step():
        return process.mean_gradients(gradients)[0] * 2.0

    np.testing.assert_array_equal(step(), [2.0, 4.0])
    assert process.mean_gradients(gradients)[1] is None
    assert float(process.mean({"loss": tf.constant(3.0)})["loss"]) == 3.0
    variable = tf.Variable([5.0])
    process.broadcast([variable])
    assert float(variable[0]) == 5.0
    assert process.gather(("a", 1)) == ["a", 1]
    process.barrier()


def test_flags_and_runtime_agree():
    from ssd_centernet.cli import _flags

    assert tuple(_flags._DEVICES) == device.DEVICES
    assert set(_flags._DTYPES) == set(precision.POLICIES)


def test_library_import_leaves_the_environment_alone():
    code = (
        "import os; before = dict(os.environ)\n"
        "from ssd_centernet.runtime import device, precision, distribution\n"
        "import tensorflow, ssd_centernet._keras\n"
        "new = {k for k in os.environ if os.environ[k] != before.get(k)}\n"
        "assert not any('KERAS' in k or 'TF_CPP' in k for k in new), new\n"
    )
    python(code, env=environment(TF_CPP_MIN_LOG_LEVEL=None))
