"""Gaudi's own packages: what is seen of them without a device, and what the library does.

The tests of the real package run where it is installed (`constraints/gaudi1.14.txt`).
"""

import importlib.metadata
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from ssd_centernet.runtime import horovod, vendors
from tests.runtime import stub
from tests.runtime.test_accelerators import _LOAD

HOW = (
    "Gaudi's package is not installed: python3.10 -m venv gaudi && gaudi/bin/pip install "
    "-c constraints/gaudi1.14.txt tensorflow-cpu habana-tensorflow && "
    "TENSORFLOW=installed PYTHON=gaudi/bin/python bash scripts/setup.sh"
)
real = pytest.mark.skipif(importlib.util.find_spec("habana_frameworks") is None, reason=HOW)

# As in habana-horovod 1.14: the module is loaded while Horovod is imported.
_HOROVOD = """
from habana_frameworks.tensorflow import load_habana_module
load_habana_module()
mpi_ops = global_process_set = None
class Compression:
    none = None
def init(): pass
def rank(): return 0
size = local_size = lambda: 1
mpi_built = lambda: False
local_rank = rank
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return stub.compile_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def gaudi(tmp_path, library):
    """The environment of a machine with Gaudi's module and its Horovod."""
    files = {
        "habana_frameworks/tensorflow/__init__.py": _LOAD
        + "seen = {}\ndef load_habana_module():\n    if not seen:\n"
        "        seen.update(os.environ)\n        load()\n",
        "horovod/tensorflow/__init__.py": _HOROVOD,
        "horovod/__init__.py": "",
        "habana_horovod-1.14.0.493.dist-info/METADATA": "Name: habana-horovod\nVersion: 1.14.0\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    env = stub.environment(None, "HPU", 1, STUB_LIBRARY=str(library))
    env.pop("TF_ENABLE_ONEDNN_OPTS", None)
    # Before a Horovod that is installed.
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    return env


@pytest.mark.slow
def test_settings_are_in_place_before_its_horovod_loads_the_module(gaudi):
    code = """
    import os
    from ssd_centernet.runtime import device, distribution, horovod, vendors
    wanted = vendors.gaudi_settings()
    assert not set(wanted) & set(os.environ)
    os.environ["TF_CLUSTER_VARIABLES"] = "0"
    processes = distribution.connect(True)
    import habana_frameworks.tensorflow as plugin
    assert plugin.seen["TF_CLUSTER_VARIABLES"] == "0", "what the user has set stays"
    for name in set(wanted) - {"TF_CLUSTER_VARIABLES"}:
        assert plugin.seen[name] == wanted[name], name
    strategy = device.select_device("hpu", index=processes.local_rank)
    assert "HPU:0" in strategy.extended.worker_devices[0]
    """
    stub.run_python(code, gaudi)


@pytest.mark.slow
def test_the_command_line_switches_onednn_off_before_tensorflow(gaudi):
    code = """
    import os, sys
    from ssd_centernet.cli import main
    try:
        main.run(["ssd_centernet", "--version"])
    except SystemExit as end:
        assert not end.code
    assert "tensorflow" not in sys.modules and os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    """
    stub.run_python(code, gaudi)


@pytest.mark.slow
def test_its_import_error_is_shown_as_it_is(gaudi, tmp_path):
    text = "Found unsupported TF version (2.16.1), supported versions: (2.15.0)"
    package = tmp_path / "habana_frameworks" / "tensorflow" / "__init__.py"
    package.write_text(f"raise ImportError({text!r})\n")
    code = f"""
    from ssd_centernet.runtime import device, horovod
    for refused in (lambda: device.select_device("hpu"), horovod.HorovodProcesses):
        try:
            refused()
        except (ImportError, RuntimeError) as error:
            assert {text!r} in str(error), error
            assert "is not installed" not in str(error) and "sees no" not in str(error), error
        else:
            raise AssertionError("the version was not refused")
    """
    stub.run_python(code, gaudi)


@pytest.mark.parametrize(
    ("kinds", "single", "grouped", "packs"),
    [
        ({"CPU", "HPU"}, {"CPU", "HPU"}, {"CPU"}, True),
        ({"CPU"}, {"CPU", "HPU"}, {"CPU"}, False),
        ({"CPU", "GPU"}, {"CPU", "GPU"}, {"CPU", "GPU"}, False),
        ({"CPU", "MLU"}, {"CPU"}, {"CPU"}, False),
    ],
    ids=["gaudi", "cpu of its machine", "gpu", "no kernel of the device"],
)
def test_gradients_are_joined_where_groups_have_no_kernel(
    kinds, single, grouped, packs, monkeypatch
):
    there = {"HorovodAllreduce": single, "HorovodGroupedAllreduce": grouped}
    monkeypatch.setattr(vendors, "kernels", there.__getitem__)
    devices = [tf.config.PhysicalDevice(f"/physical_device:{k}:0", k) for k in kinds]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    assert horovod._packs() == packs


def test_kernels_are_those_that_are_registered():
    assert "CPU" in vendors.kernels("MatMul")
    assert vendors.kernels("NoSuchOperation") == set()


def package() -> Path:
    return Path(importlib.metadata.distribution("habana-tensorflow").locate_file(""))


@real
def test_the_real_package_takes_this_tensorflow_or_says_which():
    """Its check of the version, which runs before it looks for its libraries."""
    source = package() / "habana_frameworks" / "tensorflow" / "sysconfig.py"
    assert "Found unsupported TF version" in source.read_text("utf-8")
    code = """
    import re
    import tensorflow
    from ssd_centernet.runtime import device
    tensorflow.__version__ = "2.99.0"
    pattern = r"unsupported TF version \\(2.99.0\\), supported versions: \\("
    try:
        device.select_device("hpu")
    except RuntimeError as error:
        assert re.search(pattern, str(error)), error
    else:
        raise AssertionError("the version was not refused")
    """
    stub.run_python(code, stub.environment(None, "HPU", 0))


@real
def test_the_real_package_has_the_module_and_the_call_that_are_used():
    folder = package() / "habana_frameworks" / "tensorflow"
    exported = (folder / "__init__.py").read_text("utf-8")
    assert "load_habana_module" in exported
    module = vendors.PLATFORMS["HPU"].module
    assert importlib.util.find_spec(module).origin == str(folder / "__init__.py")
    helpers = (folder / "multinode_helpers.py").read_text("utf-8")
    for name in vendors.PLATFORMS["HPU"].visible:
        assert f'"{name}"' in helpers


@real
def test_the_real_library_reads_the_settings_of_these_names():
    (library,) = (package() / "habana_frameworks").rglob("habana_device.so.*")
    content = library.read_bytes()
    # The others are TensorFlow's own.
    known = set(vendors.gaudi_settings()) - {"TF_DISABLE_MKL", "TF_ENABLE_ONEDNN_OPTS"}
    # The last means that versions of compiled graphs are compared where it is not set.
    for name in {*known, "TF_DONT_CLUSTER", "TF_RECIPE_CACHE_IGNORE_VERSION"}:
        assert re.search(rf"(?<![A-Z_]){name}\0".encode(), content), name


@real
def test_the_real_package_without_a_driver_is_refused_with_its_own_words():
    code = """
    from ssd_centernet.runtime import device
    device.select_device("hpu")
    """
    ended = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(code)],
        env=stub.environment(None, "HPU", 0),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode
    # A library that cannot be loaded would end the process without one.
    last = ended.stderr.strip().splitlines()[-1]
    assert "habana_frameworks.tensorflow is installed and could not prepare a device" in last
    assert "hl-smi" in last and "--device=cpu" in last
