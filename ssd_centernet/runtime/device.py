"""Choose the device that a run uses, and refuse one that is not there.

TensorFlow itself builds a strategy for a device that does not exist and then runs everything on
the CPU without a word, so the list of physical devices is checked here. Plug-ins of accelerator
vendors are imported in this module alone.
"""

import importlib
import os

import tensorflow as tf
from absl import logging

DEVICES = ("auto", "cpu", "gpu", "tpu", "hpu", "mlu", "npu")

# What to do when TensorFlow sees no device of a type.
_ADVICE = {
    "GPU": "Install the driver and the CUDA libraries of this TensorFlow "
    '(pip install "tensorflow[and-cuda]"), and look at CUDA_VISIBLE_DEVICES.',
    "TPU": "Run on a TPU machine with the tensorflow build for TPU, or set TPU_NAME.",
    "HPU": "Install Intel Gaudi's software with its package habana-tensorflow "
    "(tensorflow 2.15 at most), and look at HABANA_VISIBLE_DEVICES.",
    "MLU": "Install Cambricon's driver and its TensorFlow plug-in (tensorflow-mlu), "
    "and look at MLU_VISIBLE_DEVICES.",
    "NPU": "Install Ascend's CANN and its TensorFlow adapter (npu_device), "
    "and look at ASCEND_VISIBLE_DEVICES.",
}


def select_device(name: str | None = "auto", *, index: int = 0) -> tf.distribute.Strategy:
    """Prepare a device and return the strategy that places a run on it.

    To be called before TensorFlow has touched any device.

    Args:
        name: 'auto' (the first accelerator found, otherwise the CPU), 'cpu', 'gpu', 'tpu', 'hpu',
            'mlu' or 'npu'; None is 'auto'.
        index: which device of that type, from 0: the local rank of this process.

    Returns:
        A strategy; on the CPU TensorFlow's default one, with every accelerator hidden.

    Raises:
        ValueError: `name` is none of the above.
        RuntimeError: no such device; fewer devices than `index` needs; TensorFlow is already
            initialised with other settings.
    """
    name = "auto" if name is None else name.lower()
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; expected one of {', '.join(DEVICES)} (--device).")
    if name == "auto":
        name = _first_accelerator()
    if name == "cpu":
        return _cpu()
    if name == "tpu":
        return _tpu()
    return _accelerator(name.upper(), index)


def describe_devices() -> list[str]:
    """Return one line for every device that TensorFlow sees, such as 'CPU:0'."""
    names = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        label = device.name.removeprefix("/physical_device:")
        model = details.get("device_name")
        names.append(f"{label} ({model})" if model else label)
    return names


def _first_accelerator() -> str:
    for kind in ("GPU", "HPU", "MLU", "NPU"):
        if tf.config.list_physical_devices(kind):
            return kind.lower()
    return "tpu" if os.environ.get("TPU_NAME") else "cpu"


def _cpu() -> tf.distribute.Strategy:
    for kind in {device.device_type for device in tf.config.list_physical_devices()} - {"CPU"}:
        _set_visible([], kind)
    return tf.distribute.get_strategy()


def _tpu() -> tf.distribute.Strategy:
    if not tf.config.list_physical_devices("TPU") and not os.environ.get("TPU_NAME"):
        raise _missing("TPU")
    address = os.environ.get("TPU_NAME", "local")
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
    if address != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _accelerator(kind: str, index: int) -> tf.distribute.Strategy:
    _load_plugin(kind)
    devices = tf.config.list_physical_devices(kind)
    if not devices:
        raise _missing(kind)
    if not 0 <= index < len(devices):
        raise RuntimeError(
            f"This process has local rank {index}, and TensorFlow sees {len(devices)} {kind} "
            f"device(s). Start at most {len(devices)} process(es) on this machine."
        )
    if index == 0 and len(devices) > 1:
        logging.info("Using %s 0 of %d; start one process a device to use all.", kind, len(devices))
    _set_visible([devices[index]], kind)
    try:
        tf.config.experimental.set_memory_growth(devices[index], True)
    except ValueError as error:  # Not every plug-in offers it.
        logging.info("No memory growth on %s: %s", kind, error)
    # The one visible device is number 0; the short form 'MLU:0' would not parse everywhere.
    return tf.distribute.OneDeviceStrategy(f"device:{kind}:0")


def _load_plugin(kind: str) -> None:
    """Load a vendor's module where importing tensorflow alone does not do it."""
    if tf.config.list_physical_devices(kind):
        return
    try:
        if kind == "HPU":
            importlib.import_module("habana_frameworks.tensorflow").load_habana_module()
        elif kind == "NPU":
            importlib.import_module("npu_device").open().as_default()
    except ImportError as error:
        raise _missing(kind) from error


def _set_visible(devices: list, kind: str) -> None:
    if tf.config.get_visible_devices(kind) == devices:
        return
    try:
        tf.config.set_visible_devices(devices, kind)
    except RuntimeError as error:
        raise RuntimeError(
            f"The {kind} devices cannot be chosen any more because TensorFlow already uses them. "
            "Call select_device (or choose --device) before anything else touches TensorFlow."
        ) from error


def _missing(kind: str) -> RuntimeError:
    seen = ", ".join(describe_devices()) or "no device"
    return RuntimeError(
        f"TensorFlow {tf.__version__} sees no {kind} (it sees: {seen}). {_ADVICE[kind]} "
        "To go on without it use --device=cpu."
    )
