"""Ascend's NPUs by their adapter for TensorFlow 2, the module npu_device, which is imported here.

Frozen and never run on an NPU: written against the sources of the adapter for TensorFlow 2.6.5, and
tested with a module that has the same interface. docs/devices.md says what is known.

Source: https://github.com/hicann/tensorflow (tf_adapter_2.x/python/npu_device)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import gin
import tensorflow as tf
from absl import logging

from ssd_centernet.runtime import vendors

# Variables that say how many processes HCCL joins; the adapter takes one of them.
SIZES = ("RANK_SIZE", "CM_WORKER_SIZE")

# What this process has opened: the number of the device, and its handle. There can be one in a
# process, and it stays.
_opened: list[tuple[int, Any]] = []


@gin.configurable
def npu_options(
    *,
    precision_mode: str | None = None,
    precision_mode_v2: str | None = None,
    modify_mixlist: str | None = None,
    op_precision_mode: str | None = None,
    customize_dtypes: str | None = None,
    deterministic: int | None = None,
    jit_compile: str | None = None,
    fusion_switch_file: str | None = None,
    graph_memory_max_size: str | None = None,
    variable_memory_max_size: str | None = None,
    op_compiler_cache_mode: str | None = None,
    op_compiler_cache_dir: str | None = None,
) -> dict[str, Any]:
    """Choose options of the adapter, which are set before the NPU is opened.

    Args:
        precision_mode: in which precision operations compute, such as 'must_keep_origin_dtype' or
            'allow_mix_precision'; for Atlas training products its default computes the matrix
            products of float32 in float16.
        precision_mode_v2: the newer form of it, such as 'origin' or 'mixed_float16'; only one of
            both can be given.
        modify_mixlist: file with operations that mixed precision takes or leaves out.
        op_precision_mode: file with the precision of single operations.
        customize_dtypes: file with the types of single operations.
        deterministic: 1 for the same bits each time, at the cost of speed.
        jit_compile: 'true', 'false' or 'auto', whether operations are compiled for their shapes.
        fusion_switch_file: file that says which fusions are off.
        graph_memory_max_size: bytes for activations, as text.
        variable_memory_max_size: bytes for variables, as text.
        op_compiler_cache_mode: 'enable', 'disable' or 'force'.
        op_compiler_cache_dir: folder of compiled operations.

    Returns:
        Those that are set, by name.

    Raises:
        ValueError: both forms of the precision are given.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    if {"precision_mode", "precision_mode_v2"} <= options.keys():
        raise ValueError(
            f"npu_options.precision_mode is {precision_mode!r} and npu_options.precision_mode_v2 "
            f"is {precision_mode_v2!r}; the adapter takes one of them. Leave out precision_mode."
        )
    return options


def open_npu(index: int) -> int:
    """Open an NPU and make it the default device of everything that follows.

    Ascend's adapter is no device that TensorFlow lists: it takes the place of the default device.

    Args:
        index: which of the visible devices; ASCEND_DEVICE_ID wins where the user has set it.

    Returns:
        The number of the device.

    Raises:
        ImportError: the adapter is not installed.
        RuntimeError: it is, and could not open the device, or has opened another one before; the
            environment lists several processes that nothing joins.
        ValueError: it does not know an option, or not its value.
    """
    number = int(os.environ.get("ASCEND_DEVICE_ID") or index)
    if _opened:
        if _opened[0][0] != number:
            raise RuntimeError(
                f"this process has opened NPU {_opened[0][0]} before and cannot open NPU "
                f"{number} too: start one process for each device."
            )
        return number
    if processes() > 1:
        raise RuntimeError(
            f"the environment lists {processes()} processes ({' or '.join(SIZES)}), which the "
            "adapter would join by HCCL, but this one trains alone: give --strategy=hccl, or take "
            "the variable out of the environment."
        )
    _open(number)
    return number


def join() -> tuple[int, int, int]:
    """Open the NPU of ASCEND_DEVICE_ID and join the processes of the environment by HCCL.

    Returns:
        Number of this process, number of processes, and number of the device.

    Raises:
        ImportError: the adapter is not installed.
        RuntimeError: it could not open the device, or not reach the other processes.
        ValueError: ASCEND_DEVICE_ID or the number of processes is not set, or no number.
    """
    if processes() < 2 or not os.environ.get("ASCEND_DEVICE_ID"):
        raise ValueError(
            "--strategy=hccl, but the environment does not say which processes train together: set "
            "ASCEND_DEVICE_ID, RANK_SIZE, RANK_ID and RANK_TABLE_FILE (or CM_WORKER_SIZE and the "
            "other variables CM_*) in each of them, as docs/devices.md shows."
        )
    number = _number("ASCEND_DEVICE_ID", 0)
    if not _opened:
        _open(number)
    handle = _opened[0][1]
    return handle.worker_id, handle.workers_num, number


def processes() -> int:
    """Return how many processes the environment says that HCCL joins; 1 where it says nothing.

    Raises:
        ValueError: it says something that is no number.
    """
    return max(_number(name, 1) for name in SIZES)


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name) or str(otherwise)
    if not text.isdecimal():
        raise ValueError(
            f"{name} is {text!r}; expected a number, by which HCCL knows the processes of a run. "
            "Set it as docs/devices.md shows, or take it out of the environment."
        )
    return int(text)


def opened_npu() -> int | None:
    """Return the number of the NPU that this process has opened, None where it has none."""
    return _opened[0][0] if _opened else None


def all_reduce(tensors: Sequence[tf.Tensor], reduction: str) -> list[tf.Tensor]:
    """Reduce tensors over all processes; usable inside a tf.function, and differentiable.

    Args:
        tensors: of int8, int32, float16 or float32 (newer devices: bfloat16), of the same shapes
            on every process.
        reduction: 'mean', 'sum', 'max', 'min' or 'prod'.
    """
    return _adapter().distribute.all_reduce(list(tensors), reduction)


def broadcast(variables: Sequence[tf.Variable]) -> None:
    """Give variables the values that they have in process 0."""
    _adapter().distribute.broadcast(list(variables), 0)


def has_saturated(tensors: Sequence[tf.Tensor]) -> tf.Tensor | None:
    """Tell whether the device cut a value off to the largest of its type instead of infinity.

    The device notes it where it happens, and forgets it when it is asked. For the graph of a step.

    Args:
        tensors: what must have been computed before.

    Returns:
        bool scalar, of this process; None where no NPU is open or it gives infinity, as newer
        devices do.
    """
    if not _opened:
        return None
    adapter = _adapter()
    # Older adapters know no other way than to saturate.
    if getattr(adapter, "is_inf_nan_enabled", bool)():
        return None
    from tensorflow.core.framework import attr_value_pb2

    operations, marked = adapter.gen_npu_ops, attr_value_pb2.AttrValue(b=True)
    # By this mark the adapter's compiler knows what must not be moved.
    with tf.compat.v1.get_default_graph()._attr_scope({"_npu_loss_scale": marked}):
        with tf.control_dependencies([one for one in tensors if one is not None]):
            status = operations.npu_get_float_status_v2()
        with tf.control_dependencies([status]):
            cleared = operations.npu_clear_float_status_v2()
        with tf.control_dependencies([cleared]):
            return tf.reduce_any(tf.not_equal(status, 0))


def _adapter() -> ModuleType:
    return importlib.import_module("npu_device")


def _open(number: int) -> None:
    adapter = _adapter()
    options = npu_options()
    known = vendors.call("NPU", adapter.global_options)
    for name, value in options.items():
        try:
            setattr(known, name, value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"npu_options.{name} is {value!r}, which this adapter does not take: {error}"
            ) from error
    if not {"precision_mode", "precision_mode_v2"} & options.keys():
        logging.info(
            "The adapter decides in which precision the NPU computes: set "
            "npu_options.precision_mode_v2, such as 'origin', to decide it yourself."
        )
    _opened.append((number, vendors.call("NPU", lambda: adapter.open(number).as_default())))
