"""`npu.distribute` between processes of one machine: the first one adds up and answers."""

import collections
import itertools
import json
import queue
import threading
from multiprocessing import connection

import numpy as np
import tensorflow as tf

_SECONDS = 60
_KINDS = (tf.int8, tf.int32, tf.float16, tf.float32)
_SENT = (*_KINDS, tf.int64, tf.uint64)
# The handle of the device that is the default one.
context = None
_channels: list = []
_sending = threading.Lock()
# By operation: TensorFlow may run those that do not depend on each other in any order.
_received = collections.defaultdict(queue.Queue)
_numbers = itertools.count()


def connect(rank_table, rank, size):
    with open(rank_table) as file:
        address = tuple(json.load(file)["address"])
    if rank == 0:
        with connection.Listener(address, backlog=size) as listener:
            joined = [listener.accept() for _ in range(size - 1)]
        _channels.extend(sorted(joined, key=lambda channel: channel.recv()))
    else:
        _channels.append(_reach(address))
        _channels[0].send(rank)
    for place, channel in enumerate(_channels):
        threading.Thread(target=_read, args=(place, channel), daemon=True).start()


def _reach(address):
    for _ in range(20 * _SECONDS):
        try:
            return connection.Client(address)
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise RuntimeError("HCCL: the first process does not listen")


def _read(place, channel):
    try:
        while True:
            number, array = channel.recv()
            _received[place, number].put(array)
    except (EOFError, OSError):
        return


def _send(channel, number, array):
    with _sending:
        channel.send((number, array))


def _receive(place, number, like):
    array = _received[place, number].get(timeout=_SECONDS)
    assert (array.shape, array.dtype) == (like.shape, like.dtype), (array.shape, like.shape)
    return array


def _exchange(number, array, combine):
    if context.worker_id:
        _send(_channels[0], number, array)
        return _receive(0, number, array)
    arrived = [_receive(place, number, array) for place in range(len(_channels))]
    result = np.asarray(combine([array, *arrived]), array.dtype)
    for channel in _channels:
        _send(channel, number, result)
    return result


_COMBINE = {"sum": sum, "max": np.maximum.reduce, "min": np.minimum.reduce, "prod": np.prod}


def _reduced(tensor, reduction):
    @tf.custom_gradient
    def reduced(value):
        number, combine = next(_numbers), _COMBINE[reduction]
        result = tf.numpy_function(
            lambda array: _exchange(number, array, combine), [value], value.dtype
        )
        result.set_shape(value.shape)
        return result, lambda gradient: _reduced(gradient, "sum")

    if tensor.dtype not in _KINDS:
        raise TypeError(f"HcomAllReduce: {tensor.dtype.name} is none of its types")
    return reduced(tensor)


@tf.function(autograph=False)
def _all_reduce(values, reduction):
    wanted = "sum" if reduction == "mean" else reduction
    results = [_reduced(value, wanted) for value in values]
    if reduction != "mean":
        return results
    return [value * tf.cast(1.0 / context.workers_num, value.dtype) for value in results]


def all_reduce(values, reduction="mean", fusion=1, fusion_id=-1, group="hccl_world_group"):
    if context is None or not context.is_cluster_worker():
        return values
    is_list = isinstance(values, (list, tuple))
    values = values if is_list else [values]
    results = _all_reduce([value for value in values if value is not None], reduction)
    results = [None if value is None else results.pop(0) for value in values]
    return results if is_list else results[0]


def broadcast(values, root_rank=0, fusion=2, fusion_id=0, group="hccl_world_group"):
    if context is None or not context.is_cluster_worker():
        return
    assert root_rank == 0, "of the stand-in alone"
    for variable in values if isinstance(values, (list, tuple)) else [values]:
        if variable.dtype not in _SENT:
            raise TypeError(f"HcomBroadcast: {variable.dtype.name} is none of its types")
        variable.assign(_exchange(next(_numbers), variable.numpy(), lambda arrays: arrays[0]))
