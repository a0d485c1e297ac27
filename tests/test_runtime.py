"""Devices, precision and processes."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.runtime import device, distribution, precision


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


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"device is 'cuda'; expected one of auto, cpu, gpu"):
        device.select_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "tpu", "hpu", "mlu", "npu"])
def test_absent_device_is_refused_with_advice(name, monkeypatch):
    if tf.config.list_physical_devices(name.upper()):
        pytest.skip(f"this machine has a {name.upper()}")
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(
        RuntimeError, match=rf"sees no {name.upper()} \(it sees: CPU:0.*--device=cpu"
    ):
        device.select_device(name)


def test_cpu_runs_a_step():
    strategy = device.select_device("cpu")
    with strategy.scope():
        variable = tf.Variable(1.0)
    total = strategy.run(tf.function(lambda: variable * 2.0))
    assert float(total) == 2.0
    assert "CPU" in variable.device


class _FakeDevices:
    """Stands in for tf.config with a number of devices of one type."""

    def __init__(self, monkeypatch, kind: str, number: int):
        self.physical = [
            tf.config.PhysicalDevice(f"/physical_device:{kind}:{i}", kind) for i in range(number)
        ]
        self.visible, self.grown = list(self.physical), []
        cpu = tf.config.PhysicalDevice("/physical_device:CPU:0", "CPU")

        def listed(wanted=None):
            return [d for d in (cpu, *self.physical) if wanted in (None, d.device_type)]

        def set_visible(devices, wanted):
            assert wanted == kind
            self.visible = list(devices)

        monkeypatch.setattr(tf.config, "list_physical_devices", listed)
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda wanted: self.visible)
        monkeypatch.setattr(tf.config, "set_visible_devices", set_visible)
        experimental = tf.config.experimental
        monkeypatch.setattr(experimental, "get_device_details", lambda device: {})
        monkeypatch.setattr(
            experimental, "set_memory_growth", lambda device, on: self.grown.append((device, on))
        )
        monkeypatch.setattr(tf.distribute, "OneDeviceStrategy", lambda name: name)


@pytest.mark.parametrize("kind", ["GPU", "MLU", "HPU", "NPU"])
def test_accelerator_of_the_local_rank_is_used_alone(monkeypatch, kind):
    fake = _FakeDevices(monkeypatch, kind, 3)
    # The only visible device is number 0, and the name has the long form.
    assert device.select_device(kind.lower(), index=2) == f"device:{kind}:0"
    assert fake.visible == [fake.physical[2]]
    assert fake.grown == [(fake.physical[2], True)]


def test_auto_takes_an_accelerator(monkeypatch):
    _FakeDevices(monkeypatch, "MLU", 1)
    assert device.select_device() == "device:MLU:0"


def test_more_processes_than_devices_are_refused(monkeypatch):
    _FakeDevices(monkeypatch, "GPU", 2)
    with pytest.raises(RuntimeError, match=r"local rank 2, and TensorFlow sees 2 GPU.*at most 2"):
        device.select_device("gpu", index=2)


def test_cpu_hides_accelerators(monkeypatch):
    fake = _FakeDevices(monkeypatch, "GPU", 2)
    device.select_device("cpu")
    assert fake.visible == []


def test_late_choice_is_explained(monkeypatch):
    _FakeDevices(monkeypatch, "GPU", 2)

    def refuse(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(RuntimeError, match="before anything else touches TensorFlow"):
        device.select_device("gpu")


def test_a_missing_plugin_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "npu_device", None)
    with pytest.raises(RuntimeError, match=r"sees no NPU.*CANN"):
        device.select_device("npu")


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
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
