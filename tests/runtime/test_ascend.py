"""Ascend's NPUs, with a module that has the interface of their adapter; nothing ran on one."""

import json
import socket
import sys

import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.runtime import ascend
from ssd_centernet.runtime.cluster import launched_rank
from ssd_centernet.runtime.engine import start_engine
from ssd_centernet.training.failures import NonFiniteLossError
from ssd_centernet.training.loss_scale import LossScale
from tests.process import ROOT, Running, slowness
from tests.runtime import stub
from tests.runtime.test_accelerators import _BEGIN
from tests.tiny import tiny_batch, tiny_trainer

ADAPTER = ROOT / "tests" / "runtime" / "npu"
WORKER = ROOT / "tests" / "runtime" / "hccl_worker.py"


@pytest.fixture
def adapter(monkeypatch):
    """The stand-in for the adapter, as if nothing was opened."""
    monkeypatch.syspath_prepend(ADAPTER)
    monkeypatch.setattr(ascend, "_opened", [])
    for name in (*ascend.SIZES, "ASCEND_DEVICE_ID", "ASCEND_RT_VISIBLE_DEVICES", "RANK_ID"):
        monkeypatch.delenv(name, raising=False)
    import npu_device

    yield npu_device
    for name in [name for name in sys.modules if name.split(".")[0] == "npu_device"]:
        del sys.modules[name]


def test_options_are_set_before_the_device_is_opened(adapter):
    config.parse(
        gin_params=["npu_options.precision_mode_v2 = 'origin'", "npu_options.deterministic = 1"]
    )
    assert ascend.open_npu(3) == 3
    ((number, options),) = adapter.opened
    assert number == 3 and options["precision_mode_v2"] == "origin"
    assert options["deterministic"] == "1" and "precision_mode" not in options


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["precision_mode = 'fp32'"], r"npu_options.precision_mode is 'fp32'.*optional list"),
        (["deterministic = 3"], r"npu_options.deterministic is 3.*optional list"),
        (
            ["precision_mode = 'force_fp32'", "precision_mode_v2 = 'origin'"],
            "takes one of them. Leave out precision_mode",
        ),
    ],
)
def test_options_that_the_adapter_does_not_take_are_errors(adapter, bindings, message):
    config.parse(gin_params=[f"npu_options.{binding}" for binding in bindings])
    with pytest.raises(ValueError, match=message):
        ascend.open_npu(0)
    assert adapter.opened == []


def test_an_unknown_option_is_an_error_before_anything_starts():
    with pytest.raises(config.ConfigError, match="precision_mode"):
        config.parse(gin_params=["npu_options.precision_modes = 'origin'"])


def test_the_rank_of_processes_that_hccl_joins(adapter, monkeypatch):
    assert launched_rank() is None
    monkeypatch.setenv("RANK_SIZE", "2")
    assert launched_rank() is None
    monkeypatch.setenv("RANK_ID", "1")
    assert launched_rank() == 1
    monkeypatch.setenv("RANK_SIZE", "1")
    assert launched_rank() is None
    for name in ("RANK_SIZE", "ASCEND_DEVICE_ID"):
        monkeypatch.setenv("RANK_SIZE", "2")
        monkeypatch.setenv("ASCEND_DEVICE_ID", "0")
        monkeypatch.setenv(name, "two")
        with pytest.raises(ValueError, match=f"{name} is 'two'; expected a number"):
            start_engine("hccl")


def test_processes_that_nothing_joins_are_refused(adapter, monkeypatch):
    monkeypatch.setenv("RANK_SIZE", "8")
    with pytest.raises(RuntimeError, match="lists 8 processes.*--strategy=hccl"):
        ascend.open_npu(0)
    with pytest.raises(ValueError, match="ASCEND_DEVICE_ID, RANK_SIZE, RANK_ID"):
        start_engine("hccl")
    monkeypatch.setenv("ASCEND_DEVICE_ID", "2")
    # The words of the adapter itself.
    with pytest.raises(RuntimeError, match="CM_CHIEF_IP and RANK_TABLE_FILE are all not"):
        start_engine("hccl", device="npu")
    with pytest.raises(ValueError, match="--device is 'gpu'"):
        start_engine("hccl", device="gpu")
    with pytest.raises(ValueError, match="--strategy=hccl a process has one device"):
        start_engine("hccl", devices=2)


@pytest.mark.parametrize("gives_infinity", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_value_that_was_cut_off_is_an_overflow(adapter, gives_infinity, accumulate):
    adapter.gives_infinity = gives_infinity
    ascend.open_npu(0)
    trainer = tiny_trainer(loss_scale=LossScale(2.0**4), accumulate_steps=accumulate)
    before = [variable.numpy() for variable in trainer.train_variables]
    iterator = iter(tf.data.Dataset.from_tensors(tiny_batch()).repeat())
    step = tf.function(lambda: trainer.run_step(iterator, lambda f, args: f(*args)))
    adapter.gen_npu_ops.register[0] = 1
    step()
    trainer.raise_if_failed()
    same = [(v.numpy() == b).all() for v, b in zip(trainer.train_variables, before, strict=True)]
    # Where the device gives infinity, nobody asks for its register.
    assert all(same) != gives_infinity
    assert int(trainer.loss_scale.skipped) == (not gives_infinity)
    assert adapter.gen_npu_ops.register.any() == gives_infinity
    step()
    assert float(trainer.loss_scale.value) == (16.0 if gives_infinity else 8.0)
    assert (trainer.train_variables[0].numpy() != before[0]).any()


def test_a_fixed_scale_that_is_too_high_is_told(adapter):
    ascend.open_npu(0)
    trainer = tiny_trainer(loss_scale=LossScale(2.0**4, dynamic=False))
    iterator = iter(tf.data.Dataset.from_tensors(tiny_batch()).repeat())
    adapter.gen_npu_ops.register[0] = 1
    tf.function(lambda: trainer.run_step(iterator, lambda f, args: f(*args)))()
    with pytest.raises(NonFiniteLossError, match=r"step 0 overflowed: .*LossScale.dynamic = True"):
        trainer.raise_if_failed()


def test_a_step_without_a_scale_does_not_ask(adapter):
    ascend.open_npu(0)
    assert LossScale(1.0, dynamic=False).saturation([tf.zeros([1])]) == []


@pytest.mark.slow
def test_ascend_is_opened_as_the_default_device(tmp_path):
    code = """
    os.environ["STUB_FAILS"] = "1"
    refused("npu_device is installed.*the device is busy.*npu-smi", "npu")
    del os.environ["STUB_FAILS"]
    os.environ["ASCEND_RT_VISIBLE_DEVICES"] = "6,7"
    refused("local rank 2, and TensorFlow sees 2 NPU.*lists 6, 7", "npu", index=2)
    strategy = device.select_device("auto", index=1)
    import npu_device
    assert [number for number, _ in npu_device.opened] == [1]
    assert strategy is tf.distribute.get_strategy()
    with strategy.scope():
        assert is_on("NPU:1")
    assert device.claim_device(strategy, 1)[1] == "NPU 7"
    dataset = tf.data.Dataset.range(3)
    assert device.prefetch_to_device(dataset, strategy) is dataset
    device.select_device("npu", index=1)
    assert len(npu_device.opened) == 1, "opened once"
    refused("opened NPU 1 before and cannot open NPU 0", "npu", index=0)
    """
    env = stub.environment(None, "NPU", 2, STUB_LIBRARY=str(stub.compile_stub(tmp_path)))
    env["PYTHONPATH"] += f":{ADAPTER}"
    stub.run_python(_BEGIN + stub.textwrap.dedent(code), env)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "fp16"])
def test_processes_that_hccl_joins_train_as_one_with_the_whole_batch(compression, tmp_path, warm):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        table = tmp_path / "rank_table.json"
        table.write_text(json.dumps({"address": probe.getsockname()}))
    started = []
    for rank in range(2):
        own = {"RANK_ID": str(rank), "ASCEND_DEVICE_ID": str(rank)}
        shared = {"RANK_SIZE": "2", "RANK_TABLE_FILE": str(table), "TF_USE_LEGACY_KERAS": "1"}
        # Operations wait for other processes, each in a thread.
        env = stub.environment(None, "NPU", 0, TF_NUM_INTEROP_THREADS="8", **own, **shared)
        env["PYTHONPATH"] += f":{ADAPTER}"
        started.append(Running(warm, WORKER, compression, env=env))
    with started[0] as first, started[1] as second:
        for rank, process in enumerate((first, second)):
            ended = process.finish(status=0, limit=120.0 * slowness())
            assert f"process {rank} of 2 is content" in ended.stdout, str(ended)
