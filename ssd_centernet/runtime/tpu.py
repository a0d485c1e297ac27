"""The cores of a TPU slice as one training.

Written against the sources of TensorFlow 2.20, and never run on a TPU.

Source: https://www.tensorflow.org/guide/tpu
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# They call Python, or have texts, in the middle of a step.
_OF_THE_HOST = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction"}


def open_cores(count: int | None) -> tf.distribute.TPUStrategy:
    """Connect to the slice that TPU_NAME names, or to that of this machine, and start its system.

    Args:
        count: cores that train; None is all.

    Returns:
        A strategy with a replica for each of these cores.

    Raises:
        RuntimeError: the slice has fewer cores.
    """
    address = os.environ.get("TPU_NAME") or "local"
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
    if address != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    if count is None:
        return tf.distribute.TPUStrategy(resolver)
    found = topology.num_tasks * topology.num_tpus_per_task
    if count > found:
        raise RuntimeError(
            f"--devices is {count}, and the slice ({address}) has {found} cores. Give fewer, leave "
            "out --devices to use all, or let TPU_NAME name a larger slice."
        )
    cores = tf.tpu.experimental.DeviceAssignment.build(topology, num_replicas=count)
    return tf.distribute.TPUStrategy(resolver, cores)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether a strategy places steps on TPUs."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def check_precision(strategy: tf.distribute.Strategy, policy: str) -> None:
    """Refuse the precision that TPUs have no units for.

    Args:
        strategy: places the step.
        policy: Keras' name of the detector's precision.

    Raises:
        ValueError: float16 on TPUs.
    """
    if is_tpu(strategy) and policy == "mixed_float16":
        raise ValueError(
            "build_detector.dtype is 'fp16', and TPUs compute in bfloat16 or float32. Set "
            "--dtype=bf16, which needs no loss scale, or --dtype=fp32."
        )


def run_compiled(run: Callable, function: Callable, arguments: Sequence[Any]) -> Any:
    """Call a function on all cores, each time with what TensorFlow can compile for them.

    Args:
        run: `strategy.run`, or `run_on_replicas` gives one like it.
        function: of a batch and other arguments; those that are no tensors are bound to it, as
            TensorFlow would make tensors of them.
        arguments: of the function.

    Returns:
        What `run` returns.

    Raises:
        ValueError: a text or a size that is not known beforehand is among the tensors, or the step
            calls Python or makes texts.
    """
    sent = {n: one for n, one in enumerate(arguments) if isinstance(one, Mapping | tf.Tensor)}
    for one in sent.values():
        _refuse_unfit(one if isinstance(one, Mapping) else {"an argument": one})

    def call(*given: Any) -> Any:
        whole = list(arguments)
        for place, value in zip(sent, given, strict=True):
            whole[place] = value
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        result = function(*whole)
        _refuse_host_work(graph.get_operations()[before:])
        return result

    return run(functools.wraps(function)(call), args=tuple(sent.values()))


def _refuse_unfit(batch: Mapping[str, Any]) -> None:
    leaves = [(name, leaf) for name, part in batch.items() for leaf in tf.nest.flatten(part)]
    for name, tensor in leaves:
        if tensor.dtype == tf.string:
            raise ValueError(
                f"{name!r} of the batch is a text, and TPUs have numbers alone: leave it out of "
                "the batches, or choose another --device."
            )
        if not tensor.shape.is_fully_defined():
            raise ValueError(
                f"{name!r} of the batch has the shape {tensor.shape}; expected one that is known "
                "before the first step, as TPUs run compiled steps alone. Give batches of equal "
                "size, or choose another --device."
            )


def _refuse_host_work(operations: Sequence[tf.Operation]) -> None:
    for one in operations:
        texts = any(tensor.dtype == tf.string for tensor in one.outputs)
        # A constant may be the words of an error that XLA leaves out.
        if one.type in _OF_THE_HOST or (texts and one.type != "Const"):
            what = "makes a text" if texts else "calls Python"
            raise ValueError(
                f"the operation {one.name!r} of the step ({one.type}) {what}, which a TPU cannot "
                "do. Leave out what makes it: a criterion, optimizer or schedule of your own, or a "
                "print; or choose another --device."
            )
