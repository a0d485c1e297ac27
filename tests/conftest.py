"""What every test shares: settings, a rendered data set and a run directory made of it."""

import contextlib
import ctypes
import functools
import gc
import importlib.util
import os
import signal
import sys

import pytest

# Before any test imports tensorflow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A shell starts what runs in its background with Ctrl-C ignored, and every process inherits that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A graph is made of very many objects that stay; to look among them for garbage as often as Python
# does of itself takes a tenth of the time.
gc.set_threshold(50_000, 20, 50)

# The one recipe on a backbone of the Model Garden, which is not there for every TensorFlow.
OF_MODEL_GARDEN = "ssd320_mobilenetv3_fpn"


def pytest_collection_modifyitems(items):
    """Leave out what cannot run, and begin with what takes longest, so that no process is last."""
    if importlib.util.find_spec("official") is None:
        missing = pytest.mark.skip(reason="tf-models-official is not installed")
        for item in items:
            if OF_MODEL_GARDEN in item.name:
                item.add_marker(missing)

    def minutes(item):
        mark = item.get_closest_marker("slow")
        return mark.kwargs.get("minutes", 0) if mark else 0

    items.sort(key=minutes, reverse=True)


def pytest_collection_finish():
    """Leave out of each search for garbage what imports have made and nobody will free."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _forget_settings():
    """Leave no gin binding of one test to the next."""
    yield
    config = sys.modules.get("ssd_centernet.config")
    if config is not None:
        config.clear()


# What decides how a process computes; but not what a command sets for its process, as here one
# process runs several. Packages set other variables where they are first imported.
_DECIDING = ("TF_", "XLA_", "OMP_", "MKL_", "ONEDNN_", "DNNL_", "HOROVOD_", "SSD_CENTERNET_")
_OF_A_COMMAND = {"TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL"}


@pytest.fixture(autouse=True)
def _environment_stays():
    """Put the environment back; fail a test that leaves what changes how later ones compute."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    names = {name for name in before | after if before.get(name) != after.get(name)}
    names -= {"PYTEST_CURRENT_TEST"}
    for name in names:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    deciding = {name for name in names if name.startswith(_DECIDING)} - _OF_A_COMMAND
    left = {name: (before.get(name), after.get(name)) for name in sorted(deciding)}
    assert not left, f"variables before and after the test: {left}; set them with monkeypatch"


# Growth after which a process looks for what it can give back.
_GROWTH = 100 << 20
_seen = {"memory": 0}
_CACHED = type(functools.cache(len))


def _memory() -> int:
    """Bytes of memory that this process uses, where Linux tells."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@pytest.fixture(autouse=True)
def _give_memory_back():
    """Free what a test has left, once it is much: several processes test side by side."""
    yield
    _collect()


def _collect() -> None:
    if _memory() > _seen["memory"] + _GROWTH:
        gc.collect()  # A graph is full of cycles, and goes no other way.
        with contextlib.suppress(AttributeError):  # glibc alone keeps what is freed, and has this.
            ctypes.CDLL(None).malloc_trim(0)
        _seen["memory"] = _memory()


@pytest.fixture(autouse=True, scope="module")
def _forget_networks(request):
    """Let go of the networks and graphs of a file when its last test has run.

    TensorFlow keeps the gradient of every `tf.custom_gradient` that was ever traced, and with it
    the graph, the variables of the network and those of its optimizer.
    """
    yield
    contracts = sys.modules.get("tests.models.contracts")
    for value in [*vars(request.module).values(), getattr(contracts, "_built", None)]:
        if isinstance(value, _CACHED) and value.__module__.startswith("tests."):
            value.cache_clear()
    operations = sys.modules.get("tensorflow.python.framework.ops")
    if operations is not None:
        gradients = operations.gradient_registry._registry
        traced = [name for name in gradients if name.startswith("CustomGradient-")]
        for name in traced:
            del gradients[name]
        if traced:
            _seen["memory"] -= _GROWTH // 2  # Worth a look, unless very little has come.
            _collect()


@pytest.fixture(scope="session")
def warm():
    """A program like python that needs no time to import the library; see tests/warm.py."""
    from tests.warm import warm_python

    with warm_python() as program:
        yield program


# Only a test that asks for these imports tensorflow.


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A rendered COCO data set: 4 training and 7 validation images."""
    from ssd_centernet.data.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("pictures")
    paths = make_synthetic(folder, num_train=4, num_val=7, image_size=(60, 100))
    return folder, paths


@pytest.fixture(scope="session")
def data_dir(pictures, tmp_path_factory):
    """The rendered data set, converted."""
    from ssd_centernet.data.convert import convert_coco

    folder, paths = pictures
    output = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        convert_coco(
            paths[split], folder / split, output, split=split, num_shards=2, progress=False
        )
    return output


@pytest.fixture(scope="session")
def model_dir(data_dir, tmp_path_factory):
    """A run directory with random weights: checkpoints 5 and 10, and 5 as the best."""
    import tensorflow as tf

    from ssd_centernet import config
    from ssd_centernet._keras import keras
    from ssd_centernet.building import build_detector
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.run_directory import named_weights
    from tests.tiny import RUN_RECIPE

    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.gin"
    recipe.write_text(RUN_RECIPE)
    config.parse([recipe])
    labels = load_label_map(data_dir)
    keras.utils.set_random_seed(3)
    detector = build_detector(label_map=labels)
    checkpoint = tf.train.Checkpoint(weights=named_weights(detector))
    for place, steps in ((folder, (5, 10)), (folder / "best", (5,))):
        manager = tf.train.CheckpointManager(
            checkpoint, str(place), max_to_keep=5, checkpoint_name="ckpt"
        )
        for step in steps:
            manager.save(checkpoint_number=step)
    config.save_operative(folder / "config.gin")
    labels.to_pbtxt(folder / "mscoco_label_map.pbtxt")
    return folder


@pytest.fixture
def tiny_recipe(tmp_path):
    """A gin file of a detector that trains in no time."""
    from tests.tiny import TINY_RECIPE

    path = tmp_path / "tiny.gin"
    path.write_text(TINY_RECIPE)
    return path
