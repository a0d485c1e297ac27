"""Devices of every vendor against the real TensorFlow runtime, which a stub plug-in gives them.

Nothing of TensorFlow is replaced. Each case is a process, which takes seconds to start.
"""

import importlib.util

import pytest

from tests.runtime import stub

pytestmark = pytest.mark.slow

# What a process begins with: a check of the errors that a user would see.
_BEGIN = """
import os, re, sys
import tensorflow as tf
from ssd_centernet.runtime import device, vendors

def refused(pattern, name, **options):
    try:
        device.select_device(name, **options)
    except RuntimeError as error:
        assert re.search(pattern, str(error)), str(error)
    else:
        raise AssertionError(f"{name} {options} was not refused")

def is_on(kind):
    variable = tf.Variable([1.0, 2.0])
    doubled = tf.function(lambda: variable * 2.0)()
    assert doubled.numpy().tolist() == [2.0, 4.0]
    return f"device:{kind}" in variable.device
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return stub.compile_stub(tmp_path_factory.mktemp("stub"))


def test_the_device_of_the_local_rank_is_used_alone(library):
    code = """
    refused(r"local rank 3, and TensorFlow sees 3 MLU.*at most 3.*MLU_VISIBLE_DEVICES is not set",
            "mlu", index=3)
    refused(r"local rank -1", "mlu", index=-1)
    refused(r"sees no HPU \\(it sees: CPU:0, MLU:0.*habana-tensorflow", "hpu")
    refused(r"sees no NPU .*npu_device", "npu")
    strategy = device.select_device("mlu", index=1)
    physical = tf.config.list_physical_devices("MLU")
    assert [one.name for one in physical] == [f"/physical_device:MLU:{i}" for i in range(3)]
    assert tf.config.get_visible_devices("MLU") == physical[1:2]
    assert tf.config.experimental.get_memory_growth(physical[1]) is True
    assert [one.name for one in tf.config.list_logical_devices("MLU")] == ["/device:MLU:0"]
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    with strategy.scope():
        assert is_on("MLU:0")
    assert device.claim_device(strategy, 1)[1] == "MLU 1"
    # A second call in the process finds everything as it wants it; another device is too late.
    assert device.select_device("auto", index=1).extended.worker_devices == (
        strategy.extended.worker_devices
    )
    refused("MLU devices cannot be chosen any more.*before anything else", "mlu", index=2)
    refused("MLU devices cannot be chosen any more.*before anything else", "cpu")

    dataset = tf.data.Dataset.range(8).batch(2, drop_remainder=True)
    fetched = device.prefetch_to_device(dataset, strategy)
    assert fetched.element_spec == dataset.element_spec
    assert [batch.numpy().tolist() for batch in fetched] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    """
    stub.run_python(_BEGIN + _dedent(code), stub.environment(library, "MLU", 3))


@pytest.mark.parametrize(
    ("kind", "variable"), [("MLU", "MLU_VISIBLE_DEVICES"), ("GPU", "CUDA_VISIBLE_DEVICES")]
)
def test_the_cpu_is_used_beside_an_accelerator(library, kind, variable):
    code = """
    kind, variable = sys.argv[1:]
    strategy = device.select_device("cpu")
    assert is_on("CPU:0")
    assert "CPU:0" in tf.function(lambda: tf.zeros([2]))().device
    device.select_device("cpu")
    assert is_on("CPU:0")
    # The launcher shows the fourth process device 5 alone: there is one, only it is too late.
    refused(f"{kind} devices cannot be chosen any more.*anything else", kind.lower(), index=3)
    os.environ[variable] = "4,5"
    refused(f"local rank 3, and TensorFlow sees 1 {kind}.*{variable} lists 4, 5", kind, index=3)
    """
    env = stub.environment(library, kind, 1, **{variable: "5"})
    stub.run_python(_BEGIN + _dedent(code), env, kind, variable)


def test_two_processes_have_a_device_each(library, tmp_path):
    if importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not installed: bash scripts/install_horovod.sh")
    (tmp_path / "worker.py").write_text(
        """
import os
import tensorflow as tf
from ssd_centernet.runtime import device, distribution

processes = distribution.connect(True)
rank = processes.local_rank
strategy = device.select_device("mlu", index=rank)
assert tf.config.get_visible_devices("MLU") == tf.config.list_physical_devices("MLU")[rank:rank + 1]
with strategy.scope():
    variable = tf.Variable([float(rank), 2.0])
assert "MLU:0" in variable.device
processes.broadcast([variable])
assert variable.numpy().tolist() == [0.0, 2.0]
(mean,) = tf.function(lambda: processes.mean_gradients([variable * rank]))()
assert mean.numpy().tolist() == [0.0, 1.0]

def check():
    device.refuse_shared_devices(processes.gather([device.claim_device(strategy, rank)]))

check()
# Each process was shown the same single device.
os.environ["MLU_VISIBLE_DEVICES"] = "5"
try:
    check()
except RuntimeError as error:
    assert "processes 0 and 1 both have MLU 5" in str(error), error
else:
    raise AssertionError("a shared device was not found")
print(f"PASSED {rank}", flush=True)
"""
    )
    code = """
    import sys
    from ssd_centernet.runtime.launcher import launch
    sys.exit(launch([sys.executable, sys.argv[1]], num_processes=2, max_restarts=0))
    """
    printed = stub.run_python(
        code, stub.environment(library, "MLU", 2), str(tmp_path / "worker.py")
    )
    assert "PASSED 0" in printed and "PASSED 1" in printed


def test_several_mlus_of_one_process_train_as_one(library):
    """MirroredStrategy over devices of a plug-in: the steps of one device with the whole batch."""
    code = """
    import numpy as np
    from ssd_centernet._keras import keras
    from ssd_centernet.layers.normalization import synchronize
    from ssd_centernet.runtime import engine
    from ssd_centernet.training.loop import compile_steps
    from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

    mirrored = engine.start_engine("mirrored", device="mlu", devices=2)
    assert mirrored.communicator.replicas == 2
    told, weights = [], []
    for communicator in (mirrored.communicator, None):
        keras.utils.set_random_seed(3)
        strategy = mirrored.strategy if communicator else tf.distribute.OneDeviceStrategy("cpu:0")
        with mirrored.scope() if communicator else strategy.scope():
            detector = tiny_detector()
            if communicator:
                synchronize(detector, communicator.mean_of_group, communicator.group_size)
            trainer = tiny_trainer(
                detector, communicator=communicator, batch_size=4, clip_norm=0.5, ema_decay=0.9
            )
        steps = compile_steps(trainer, strategy)
        steps(iter(tf.data.Dataset.from_tensors(tiny_batch(size=4)).repeat()), tf.constant(3))
        trainer.raise_if_failed()
        trainer.share_statistics()
        trainer.check_agreement()
        told.append(trainer.window_metrics())
        weights.append([one.numpy() for one in trainer.train_variables])
        kinds = {device.partition("device:")[2][:3] for one in trainer.train_variables
                 for device in [getattr(one, "values", [one])[0].device]}
        assert kinds == ({"MLU"} if communicator else {"CPU"}), kinds
    for name in ("class", "box", "gradient_norm"):
        np.testing.assert_allclose(told[0][name], told[1][name], rtol=1e-4, err_msg=name)
    for ours, alone in zip(*weights):
        np.testing.assert_allclose(ours, alone, atol=2e-5 * (1 + np.abs(alone).max()))
    """
    env = stub.environment(library, "MLU", 3, TF_USE_LEGACY_KERAS="1")
    stub.run_python(_BEGIN + _dedent(code), env)


def test_mlus_that_cannot_be_used_together_are_refused(library):
    code = """
    for name, count, pattern in (
        ("mlu", 4, r"--devices is 4, and TensorFlow sees 3 MLU.*MLU_VISIBLE_DEVICES"),
        ("npu", 2, "knows GPUs, MLUs and CPUs, and the device is 'npu'"),
    ):
        try:
            device.select_devices(name, count)
        except (RuntimeError, ValueError) as error:
            assert re.search(pattern, str(error)), str(error)
        else:
            raise AssertionError("it was not refused")
    strategy = device.select_devices("auto")
    devices = [f"/job:localhost/replica:0/task:0/device:MLU:{n}" for n in range(3)]
    assert list(strategy.extended.worker_devices) == devices, strategy.extended.worker_devices
    with strategy.scope():
        variable = tf.Variable([1.0])
    assert [one.device for one in variable.values] == devices
    """
    stub.run_python(_BEGIN + _dedent(code), stub.environment(library, "MLU", 3))


# Loads the stub as the vendor's module loads its own library, and notes what it was given.
_LOAD = """
import os
from tensorflow.python.framework import load_library

def load():
    if os.environ.get("STUB_FAILS"):
        raise ValueError("the device is busy")
    load_library.load_pluggable_device_library(os.environ["STUB_LIBRARY"])
"""


@pytest.fixture
def gaudi(tmp_path, library):
    """The environment of a machine with Gaudi's module, which shows a process one device."""
    package = tmp_path / "habana_frameworks" / "tensorflow"
    package.mkdir(parents=True)
    code = _LOAD + "seen = {}\ndef load_habana_module():\n    seen.update(os.environ)\n    load()\n"
    (package / "__init__.py").write_text(code)
    env = stub.environment(None, "HPU", 1, STUB_LIBRARY=str(library), TF_DISABLE_MKL="0")
    env["PYTHONPATH"] += f":{tmp_path}"
    return env


def test_gaudi_is_loaded_with_its_settings(gaudi):
    code = """
    assert tf.config.list_physical_devices("HPU") == []
    os.environ["STUB_FAILS"] = "1"
    # Who has installed the plug-in must not end on the CPU unnoticed.
    refused("ValueError: the device is busy.*hl-smi.*--device=cpu", "auto")
    del os.environ["STUB_FAILS"]
    # The driver gives each process a device of its own, whatever its rank.
    strategy = device.select_device("hpu", index=5)
    import habana_frameworks.tensorflow as plugin
    assert plugin.seen["TF_BF16_CONVERSION"] == "0"
    assert plugin.seen["TF_DISABLE_MKL"] == "0", "what the user has set stays"
    assert "ssd_centernet_recipes" in plugin.seen["TF_RECIPE_CACHE_PATH"]
    with strategy.scope():
        assert is_on("HPU:0")
    assert device.claim_device(strategy, 5) is None
    os.environ["HLS_MODULE_ID"] = "6"
    assert device.claim_device(strategy, 5)[1] == "HPU 6"
    assert device.select_device("auto", index=5).extended.worker_devices == (
        strategy.extended.worker_devices
    )
    """
    stub.run_python(_BEGIN + _dedent(code), gaudi)


def test_gaudi_loaded_too_late_is_refused(gaudi):
    code = """
    tf.constant(1.0)  # A notebook that has used TensorFlow already.
    refused("HPU devices cannot be chosen any more.*before anything else", "hpu")
    assert tf.config.list_physical_devices("HPU"), "TensorFlow itself would not have said so"
    """
    stub.run_python(_BEGIN + _dedent(code), gaudi)


def _dedent(code):
    return stub.textwrap.dedent(code)
