"""Choose the device that a run uses, and refuse one that is not there.

TensorFlow itself builds a strategy for a device that does not exist and then runs everything on
the CPU without a word, so the list of physical devices is checked here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from ssd_centernet.runtime import ascend, tpu, vendors

DEVICES = ("auto", "cpu", "gpu", "tpu", "hpu", "mlu", "npu")

_TPU_ADVICE = "Run on a TPU machine with the tensorflow build for TPU, or set TPU_NAME."
# Batches that wait in the device's memory.
_PREFETCHED = 2
# The CPU as the default device, where a plug-in's devices would be; it is never left.
_cpu_scopes: list = []


def select_device(name: str | None = "auto", *, index: int = 0) -> tf.distribute.Strategy:
    """Prepare a device and return the strategy that places a run on it.

    To be called before TensorFlow has touched any device.

    Args:
        name: 'auto' (the first accelerator found, otherwise the CPU), 'cpu', 'gpu', 'tpu', 'hpu',
            'mlu' or 'npu'; None is 'auto'.
        index: which device of that type, from 0: the local rank of this process.

    Returns:
        A strategy; on the CPU TensorFlow's default one, with every accelerator hidden or out of
        use; on an NPU also the default one, because the adapter is the default device itself.

    Raises:
        ValueError: `name` is none of the above.
        RuntimeError: no such device; fewer devices than `index` needs; the vendor's plug-in does
            not load; TensorFlow is already initialised with other settings.
    """
    name = "auto" if name is None else name.lower()
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; expected one of {', '.join(DEVICES)} (--device).")
    if name == "auto":
        name = _first_accelerator()
    if name == "cpu":
        return _cpu()
    if name == "tpu":
        return _tpu(index)
    return _npu(index) if name == "npu" else _accelerator(name.upper(), index)


def show_one_device(name: str | None = "auto", *, index: int = 0) -> str:
    """Let TensorFlow see the device alone that `select_device` will choose, without starting it.

    Args:
        name: 'auto', 'cpu' or 'gpu', as for `select_device`.
        index: which device of that type, from 0.

    Returns:
        'cpu' or 'gpu'.

    Raises:
        ValueError: processes that TensorFlow joins cannot train on such devices.
        RuntimeError: fewer devices than `index` needs.
    """
    name = _found(name)
    if name not in ("cpu", "gpu"):
        raise ValueError(
            f"--strategy=multi_worker knows GPUs and CPUs, and the device is {name!r}. Train by "
            "Horovod: ssd_centernet launch --num_processes=N -- train ..."
        )
    devices = tf.config.list_physical_devices("GPU")
    if name == "cpu":
        if devices:
            _set_visible([], "GPU")
        return name
    if not devices:
        raise _missing("GPU")
    device = devices[_position(len(devices), "GPU", index)]
    _set_visible([device], "GPU")
    _grow(device, "GPU")
    return name


def select_devices(name: str | None = "auto", count: int | None = None) -> tf.distribute.Strategy:
    """Prepare several devices of this process, which train one model together.

    To be called before TensorFlow has touched any device.

    Args:
        name: 'auto', 'cpu', 'gpu' or 'mlu', as for `select_device`.
        count: number of devices, the first ones; None is all. A CPU counts as many as are asked
            for.

    Returns:
        A strategy of as many replicas; for a single device that of `select_device`.

    Raises:
        ValueError: such devices cannot train in one process; a CPU without a number.
        RuntimeError: not as many devices; TensorFlow is already initialised with other settings.
    """
    name = _found(name)
    if name not in ("cpu", "gpu", "mlu"):
        instead = (
            "Give --strategy=tpu, which trains on the cores of a slice."
            if name == "tpu"
            else "Start a process for each device: ssd_centernet launch --num_processes=N -- train "
            "..."
        )
        raise ValueError(
            f"--strategy=mirrored knows GPUs, MLUs and CPUs, and the device is {name!r}. {instead}"
        )
    if name == "cpu" and count is None:
        raise ValueError(
            "--strategy=mirrored found no GPU or MLU. Give --devices=N too to train on N devices "
            "that share the CPU, as a trial; or leave out --strategy."
        )
    kind = name.upper()
    found = tf.config.list_physical_devices(kind)
    if kind != "CPU" and count is not None and count > len(found):
        raise RuntimeError(
            f"--devices is {count}, and TensorFlow sees {len(found)} {kind}(s). Give fewer, or let "
            f"it see more ({vendors.PLATFORMS[kind].visible[0]})."
        )
    count = len(found) if count is None else count
    if count <= 1:
        return select_device(name)
    if kind == "CPU":
        _cpu()
    if kind != "GPU":
        _divide_cpu(count)
    if kind != "CPU":
        _set_visible(found[:count], kind)
        for device in found[:count]:
            _grow(device, kind)
    names = [f"device:{kind}:{number}" for number in range(count)]
    strategy = tf.distribute.MirroredStrategy(names)
    # Keras' optimizers would join all replicas at each update, which `tf.cond` does not allow.
    # Nothing has to be joined there: see runtime/replicas.py.
    strategy.extended._use_merge_call = lambda: False
    if kind not in ("CPU", "GPU"):
        strategy.extended._collective_ops = _exchange_by_cpu(count)
    return strategy


def _divide_cpu(count: int) -> None:
    """Make the CPU as many devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise _too_late("CPU") from error


def _exchange_by_cpu(count: int) -> tf.distribute.CrossDeviceOps:
    """Return what adds up tensors of devices for which TensorFlow has no operations of this kind.

    Each device sends them through a part of the CPU.
    """
    from tensorflow.python.distribute import collective_util, cross_device_ops

    parts = [f"/cpu:{number}" for number in range(count)]
    return cross_device_ops.CollectiveAllReduce(parts, count, collective_util.Options())


def describe_devices() -> list[str]:
    """Return one line for every device that TensorFlow sees, such as 'CPU:0'."""
    names = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        label = device.name.removeprefix("/physical_device:")
        model = details.get("device_name")
        names.append(f"{label} ({model})" if model else label)
    return names


def prefetch_to_device(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Copy the next batches to the device while it computes.

    Args:
        dataset: of numeric tensors.
        strategy: of `select_device`.

    Returns:
        The data set; on the CPU, on an NPU and under a strategy of several devices as it is.

    Source: docs/reference/ssd_resnet34.md, section 7.2
    """
    if not isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return dataset
    (device,) = strategy.extended.worker_devices
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, _PREFETCHED))


def claim_device(strategy: tf.distribute.Strategy, index: int) -> tuple[str, str] | None:
    """Say which device of which machine this process computes on.

    Args:
        strategy: of `select_device`.
        index: what `select_device` was given.

    Returns:
        Name of the machine and of the device; None where processes may share it (the CPU), or
        where it is left to the vendor's driver which device a process gets.
    """
    if ascend.opened_npu() is not None:
        kind, number = "NPU", ascend.opened_npu()
    elif isinstance(strategy, tf.distribute.OneDeviceStrategy):
        (device,) = strategy.extended.worker_devices
        kind, number = tf.DeviceSpec.from_string(device).device_type, index
    else:
        return None
    visible = vendors.visible_devices(kind)
    if visible is None and kind == "HPU":
        return None
    if visible:
        number = visible[min(number, len(visible) - 1)]
    return socket.gethostname(), f"{kind} {number}"


def refuse_shared_devices(claims: Sequence[tuple[str, str] | None]) -> None:
    """Check that no two processes compute on the same device.

    Args:
        claims: of `claim_device`, from every process in the order of rank.

    Raises:
        RuntimeError: two processes have the same device.
    """
    owners: dict[tuple[str, str], int] = {}
    for rank, claim in enumerate(claims):
        if claim is None:
            continue
        if claim in owners:
            machine, device = claim
            names = vendors.PLATFORMS[device.split()[0]].visible
            found = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
            raise RuntimeError(
                f"processes {owners[claim]} and {rank} both have {device} of {machine}: each "
                "process needs a device of its own. Start no more processes there than it has "
                f"devices, and let {' or '.join(names)} list them all, or another one for each "
                f"process ({', '.join(found) or 'not set'} in this process)."
            )
        owners[claim] = rank


def _found(name: str | None) -> str:
    """Return the kind of device that a name means, in lower case."""
    name = "auto" if name is None else name.lower()
    return _first_accelerator() if name == "auto" else name


def _first_accelerator() -> str:
    for kind in vendors.PLATFORMS:
        if tf.config.list_physical_devices(kind):
            return kind.lower()
    if os.environ.get("TPU_NAME"):
        return "tpu"
    # Who installed a plug-in means to use it: that it fails must not end on the CPU unnoticed.
    return next((kind.lower() for kind in vendors.installed()), "cpu")


def _cpu() -> tf.distribute.Strategy:
    for kind in {device.device_type for device in tf.config.list_physical_devices()} - {"CPU"}:
        _set_visible([], kind)
        # TensorFlow hides GPUs, but shows all of a plug-in's devices where it is told to show none.
        if tf.config.list_logical_devices(kind) and not _cpu_scopes:
            _cpu_scopes.append(tf.device("CPU:0"))
            _cpu_scopes[0].__enter__()
    return tf.distribute.get_strategy()


def find_tpu() -> None:
    """Refuse to go on where there is no TPU.

    Raises:
        RuntimeError: there is none.
    """
    if not tf.config.list_physical_devices("TPU") and not os.environ.get("TPU_NAME"):
        raise _missing("TPU")


def _tpu(index: int) -> tf.distribute.Strategy:
    find_tpu()
    if index > 0:
        raise RuntimeError(
            f"This process has local rank {index}: several processes cannot train on TPUs. Start "
            "one, without --use_horovod, or use GPUs."
        )
    # All cores of a strategy would be given the same images, where nothing deals them.
    return tpu.open_cores(1)


def _npu(index: int) -> tf.distribute.Strategy:
    visible = vendors.visible_devices("NPU")
    if visible is not None:
        index = _position(len(visible), "NPU", index)
    try:
        number = ascend.open_npu(index)
    except ImportError as error:
        raise _missing("NPU") from error
    logging.info("Using NPU %d.", number)
    return tf.distribute.get_strategy()


def _accelerator(kind: str, index: int) -> tf.distribute.Strategy:
    try:
        vendors.load_plugin(kind)
    except ImportError as error:
        raise _missing(kind) from error
    devices = tf.config.list_physical_devices(kind)
    if not devices:
        raise _missing(kind)
    index = _position(len(devices), kind, index)
    if index == 0 and len(devices) > 1:
        ways = "start one process per device"
        ways += ", or give --strategy=mirrored," if kind == "GPU" else ""
        logging.info("Using %s 0 of %d; %s to use all.", kind, len(devices), ways)
    _set_visible([devices[index]], kind)
    _grow(devices[index], kind)
    if not tf.config.list_logical_devices(kind):
        raise _too_late(kind)
    # The one visible device is number 0; the short form 'MLU:0' would not parse everywhere.
    return tf.distribute.OneDeviceStrategy(f"device:{kind}:0")


def _grow(device, kind: str) -> None:
    """Let a device take memory as it is needed."""
    try:
        if tf.config.experimental.get_memory_growth(device):
            return
        tf.config.experimental.set_memory_growth(device, True)
    except (ValueError, RuntimeError) as error:  # Not offered by every plug-in, or too late.
        logging.info("No memory growth on %s: %s", kind, error)


def _position(count: int, kind: str, index: int) -> int:
    """Choose among `count` visible devices.

    A launcher may show each process one device, its own; Gaudi's driver always does.
    """
    visible = vendors.visible_devices(kind)
    if count == 1 and index > 0 and (kind == "HPU" or (visible and len(visible) == 1)):
        return 0
    if 0 <= index < count:
        return index
    names = " or ".join(vendors.PLATFORMS[kind].visible)
    setting = "is not set" if visible is None else f"lists {', '.join(visible)}"
    raise RuntimeError(
        f"This process has local rank {index}, and TensorFlow sees {count} {kind} device(s). "
        f"Start at most {count} process(es) on this machine, or let it see more devices ({names} "
        f"{setting})."
    )


def _set_visible(devices: list, kind: str) -> None:
    if tf.config.get_visible_devices(kind) == devices:
        return
    try:
        tf.config.set_visible_devices(devices, kind)
    except RuntimeError as error:
        raise _too_late(kind) from error


def _too_late(kind: str) -> RuntimeError:
    return RuntimeError(
        f"The {kind} devices cannot be chosen any more because TensorFlow already uses its "
        "devices. Call select_device (or choose --device) before anything else touches "
        "TensorFlow; a notebook needs a fresh kernel."
    )


def _missing(kind: str) -> RuntimeError:
    seen = ", ".join(describe_devices()) or "no device"
    advice = _TPU_ADVICE if kind == "TPU" else vendors.PLATFORMS[kind].advice
    return RuntimeError(
        f"TensorFlow {tf.__version__} sees no {kind} (it sees: {seen}). {advice} "
        "To go on without it use --device=cpu."
    )
