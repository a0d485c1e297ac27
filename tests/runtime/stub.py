"""Accelerators of any number and type in a process of one's own: real TensorFlow, a stub device.

What is compiled from `stub_device.cc` is a plug-in as a vendor would make it. TensorFlow can load
one a process and not unload it, so that every case is a process.
"""

import os
import shutil
import textwrap
from pathlib import Path

import pytest
import tensorflow as tf

from tests.process import ROOT, python, run

SOURCE = Path(__file__).with_name("stub_device.cc")
# What would choose devices in the tests' own surroundings.
_VISIBLE = (
    "ASCEND_DEVICE_ID",
    "ASCEND_RT_VISIBLE_DEVICES",
    "CM_WORKER_SIZE",
    "HABANA_VISIBLE_MODULES",
    "HLS_MODULE_ID",
    "MLU_VISIBLE_DEVICES",
    "RANK_ID",
    "RANK_SIZE",
    "RANK_TABLE_FILE",
    "TF_BF16_CONVERSION",
    "TF_CLUSTER_VARIABLES",
    "TF_DISABLE_MKL",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_RECIPE_CACHE_PATH",
    "TPU_NAME",
)


def compile_stub(folder: Path) -> Path:
    """Compile the plug-in for the installed TensorFlow; skips the test where that is impossible."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed: the stub device cannot be compiled")
    library = folder / "libstub_device.so"
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
    flags = [flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("--std")]
    command += [*flags, *tf.sysconfig.get_link_flags()]
    run(*command)
    return library


def environment(library: Path | None, kind: str, number: int, **settings) -> dict[str, str]:
    """The environment of a process that sees `number` devices of a type.

    With `library` None the process, or a vendor's module in it, loads the plug-in itself.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _VISIBLE}
    loaded = {} if library is None else {"TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(library)}
    return {
        **kept,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
        "STUB_DEVICE_COUNT": str(number),
        "STUB_DEVICE_TYPE": kind,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **loaded,
        **settings,
    }


def run_python(code: str, env: dict[str, str], *arguments: str) -> str:
    """Run Python code in a process of its own and return what it printed."""
    return python(textwrap.dedent(code), *arguments, env=env).stdout
