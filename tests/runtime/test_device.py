"""Which device a run gets: names, errors and claims, on a machine without accelerators."""

import os
import socket

import pytest
import tensorflow as tf

from ssd_centernet.runtime import device, vendors


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"device is 'cuda'; expected one of auto, cpu, gpu"):
        device.select_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "tpu", "hpu", "mlu", "npu"])
def test_absent_device_is_refused_with_advice(name, monkeypatch):
    if tf.config.list_physical_devices(name.upper()) or name.upper() in vendors.installed():
        pytest.skip(f"this machine has a {name.upper()}")
    monkeypatch.delenv("TPU_NAME", raising=False)
    before = dict(os.environ)
    with pytest.raises(
        RuntimeError, match=rf"sees no {name.upper()} \(it sees: CPU:0.*--device=cpu"
    ):
        device.select_device(name)
    # Gaudi's settings would switch oneDNN off in every process that this one starts later.
    assert dict(os.environ) == before


def test_cpu_runs_a_step():
    strategy = device.select_device("cpu")
    with strategy.scope():
        variable = tf.Variable(1.0)
    total = strategy.run(tf.function(lambda: variable * 2.0))
    assert float(total) == 2.0
    assert "CPU" in variable.device
    # Nothing is to be copied, and any number of processes may share it.
    dataset = tf.data.Dataset.range(3)
    assert device.prefetch_to_device(dataset, strategy) is dataset
    assert device.claim_device(strategy, 1) is None


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("GPU", {}, None),
        ("GPU", {"CUDA_VISIBLE_DEVICES": ""}, None),
        ("GPU", {"CUDA_VISIBLE_DEVICES": "2, 0"}, ["2", "0"]),
        ("HPU", {"HLS_MODULE_ID": "3", "HABANA_VISIBLE_MODULES": "0,1"}, ["3"]),
        ("HPU", {"HABANA_VISIBLE_MODULES": "4,5"}, ["4", "5"]),
        ("NPU", {"ASCEND_RT_VISIBLE_DEVICES": "1"}, ["1"]),
    ],
)
def test_visible_devices_are_those_of_the_environment(kind, settings, expected, monkeypatch):
    for name in vendors.PLATFORMS[kind].visible:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert vendors.visible_devices(kind) == expected


def test_a_claim_names_the_physical_device(monkeypatch):
    # A strategy is made of a name alone; that the device is there is checked elsewhere.
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    monkeypatch.setitem(vendors.PLATFORMS, "CPU", vendors.PLATFORMS["MLU"])
    machine = socket.gethostname()
    monkeypatch.delenv("MLU_VISIBLE_DEVICES", raising=False)
    assert device.claim_device(strategy, 1) == (machine, "CPU 1")
    monkeypatch.setenv("MLU_VISIBLE_DEVICES", "4,6")
    assert device.claim_device(strategy, 1) == (machine, "CPU 6")
    # A launcher that shows each process its own device alone.
    monkeypatch.setenv("MLU_VISIBLE_DEVICES", "7")
    assert device.claim_device(strategy, 1) == (machine, "CPU 7")


def test_two_processes_on_one_device_are_refused(monkeypatch):
    claims = [("a", "MLU 0"), ("a", "MLU 1"), ("b", "MLU 0"), None, None]
    device.refuse_shared_devices(claims)
    monkeypatch.setenv("MLU_VISIBLE_DEVICES", "0")
    message = r"processes 1 and 5 both have MLU 1 of a.*MLU_VISIBLE_DEVICES=0 in this process"
    with pytest.raises(RuntimeError, match=message):
        device.refuse_shared_devices([*claims, ("a", "MLU 1")])
