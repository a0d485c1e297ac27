"""How often TensorFlow's graph optimiser goes over a graph before it runs for the first time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def one_round(device: str) -> Iterator[None]:
    """Let the optimiser go once over the graph of a function that is called, on CPUs, not twice.

    Its second round finds nothing to gain in a train step: the steps have the same bits and take
    as long, and the first one comes sooner. Make every call of the function under it: TensorFlow
    prepares a function anew for each setting. On other devices, and where TensorFlow keeps its
    settings elsewhere, nothing changes.

    Args:
        device: name of the device that computes, "" for TensorFlow's choice.
    """
    # No public name: `tf.config.optimizer` sets single passes only.
    from tensorflow.python.eager import context

    context, one = context.context(), None
    before = getattr(context, "function_call_options", None)
    if tf.DeviceSpec.from_string(device or "").device_type == "CPU" and before is not None:
        config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
        config.graph_options.rewrite_options.meta_optimizer_iterations = 1
        one = type(before)(before.executor_type, config)
    if one is None:
        yield
        return
    context.function_call_options = one
    try:
        yield
    finally:
        context.function_call_options = before
