"""What each vendor's device needs before TensorFlow knows it.

A vendor's module reads its settings from the environment at the moment it is loaded, which is why
this module alone sets environment variables, only those of the chosen device, and never one that
the user has set.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging


@dataclasses.dataclass(frozen=True)
class Platform:
    """One type of accelerator.

    Attributes:
        visible: environment variables that say which devices a process sees, the first one set
            counts.
        advice: what to install or look at where TensorFlow sees no such device.
        module: Python module that makes TensorFlow see it; None where importing tensorflow does.
    """

    visible: tuple[str, ...]
    advice: str
    module: str | None = None


PLATFORMS = {
    "GPU": Platform(
        ("CUDA_VISIBLE_DEVICES",),
        "Install the driver and the CUDA libraries of this TensorFlow "
        '(pip install "tensorflow[and-cuda]"), and look at CUDA_VISIBLE_DEVICES.',
    ),
    "HPU": Platform(
        ("HLS_MODULE_ID", "HABANA_VISIBLE_MODULES"),
        "Install Gaudi's driver and software with its package habana-tensorflow, made for this "
        "TensorFlow (2.15 at most); look at hl-smi, whether another process holds the device, "
        "and at HABANA_VISIBLE_MODULES.",
        "habana_frameworks.tensorflow",
    ),
    "MLU": Platform(
        ("MLU_VISIBLE_DEVICES",),
        "Install Cambricon's driver, its Neuware libraries and its plug-in for this TensorFlow; "
        "look at cnmon and at MLU_VISIBLE_DEVICES.",
    ),
    "NPU": Platform(
        ("ASCEND_RT_VISIBLE_DEVICES",),
        "Install Ascend's driver, CANN and its TensorFlow adapter for TensorFlow 2 (the module "
        "npu_device), made for this TensorFlow, and source CANN's set_env.sh; look at npu-smi and "
        "at ASCEND_RT_VISIBLE_DEVICES.",
        "npu_device",
    ),
}


def visible_devices(kind: str) -> list[str] | None:
    """Return the devices that the environment lets this process see.

    Args:
        kind: type of device, such as 'GPU'.

    Returns:
        The vendor's names of them in TensorFlow's order; None where the environment does not say.
    """
    for name in PLATFORMS[kind].visible:
        if os.environ.get(name):
            return [entry.strip() for entry in os.environ[name].split(",") if entry.strip()]
    return None


def installed() -> list[str]:
    """Return the types of device whose Python module is installed, without importing it."""
    return [kind for kind, one in PLATFORMS.items() if one.module and _found(one.module)]


def load_plugin(kind: str) -> None:
    """Make TensorFlow see the devices of a type, where importing tensorflow alone does not.

    Args:
        kind: 'HPU'; for other types nothing is to be done here.

    Raises:
        ImportError: the vendor's module is not installed.
        RuntimeError: it is, and could not be loaded.

    Source: docs/reference/ssd_resnet34.md, sections 9, 10 and 15
    """
    if kind != "HPU" or tf.config.list_physical_devices("HPU"):
        return
    if not _found("habana_frameworks.tensorflow"):
        raise ImportError("no module habana_frameworks.tensorflow")
    # Only now: what is set stays, and processes that this one starts would do without oneDNN.
    _set_for_gaudi()
    # The package refuses another TensorFlow than its own with an ImportError of its own.
    module = call(kind, lambda: importlib.import_module("habana_frameworks.tensorflow"))
    call(kind, module.load_habana_module)


def before_horovod() -> None:
    """Set what Gaudi's module reads where its Horovod is installed, which loads the module."""
    try:
        importlib.metadata.version("habana-horovod")
    except importlib.metadata.PackageNotFoundError:
        return
    _set_for_gaudi()


def kernels(operation: str) -> set[str]:
    """Return the types of device that an operation of TensorFlow or of a library has kernels for.

    Args:
        operation: such as 'HorovodAllreduce'; one that is not registered has none.
    """
    from tensorflow.python.framework.kernels import get_registered_kernels_for_op

    return {kernel.device_type for kernel in get_registered_kernels_for_op(operation).kernel}


def _set_for_gaudi() -> None:
    for name, value in gaudi_settings().items():
        if name not in os.environ:
            os.environ[name] = value
            logging.info("%s=%s", name, value)


def gaudi_settings() -> dict[str, str]:
    """Return the environment of a run on Gaudi: what is set where the user has set nothing."""
    try:
        version = importlib.metadata.version("habana-tensorflow")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    # Compiled graphs, shared by the processes of a machine; another version must not read them.
    cache = f"ssd_centernet_recipes_{os.getuid()}_{version}"
    return {
        # The policy of the model says what is bfloat16; no second conversion after it.
        "TF_BF16_CONVERSION": "0",
        # Variables belong to the compiled clusters, since release 1.6 of the port.
        "TF_CLUSTER_VARIABLES": "1",
        "TF_DISABLE_MKL": "1",
        # Too late for this process if nothing has set it before it imported TensorFlow, as the
        # command line does; processes that it starts inherit it.
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_RECIPE_CACHE_PATH": os.path.join(tempfile.gettempdir(), cache),
    }


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # The package above it is missing, or is kept from being imported.
        return False


def call(kind: str, function: Callable[[], Any]) -> Any:
    """Call into a vendor's module, whose errors are of any type.

    Args:
        kind: type of the device.
        function: called without arguments.

    Returns:
        What it returns.

    Raises:
        RuntimeError: it raised an error.
    """
    try:
        return function()
    except Exception as error:
        raise RuntimeError(
            f"{PLATFORMS[kind].module} is installed and could not prepare a device: "
            f"{type(error).__name__}: {error}. {PLATFORMS[kind].advice} "
            "To go on without it use --device=cpu."
        ) from error
