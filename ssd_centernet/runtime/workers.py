"""Several processes that train together by TensorFlow alone, one device each.

MultiWorkerMirroredStrategy joins them: its servers, its watch over processes that no longer answer.
What is used of it are the collective operations underneath. A step with variables of its own would
be another step than that of one process; this way it is the same.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.runtime.cluster import Cluster
from ssd_centernet.runtime.distribution import is_lost_process
from ssd_centernet.runtime.launcher import LOST_ANOTHER
from ssd_centernet.runtime.processes import (
    BUCKET_BYTES,
    Processes,
    buckets,
    refuse_unknown,
    waits,
)
from ssd_centernet.runtime.signals import heard_again

# Keys of groups: operations of different groups cannot be mistaken for each other. TensorFlow's own
# begin at 1. That of the first group of batch norm, the others follow.
_MESSAGES, _STEPS, _NORMS = 1000, 1001, 1002


class Workers(Processes):
    """A `Communicator` over the processes of TF_CONFIG or `ssd_centernet launch --engine=tf`.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local_rank: number of this process on its machine.
        is_chief: whether this is process 0.
        group_size: processes that share the statistics of a synchronous batch norm.
        replicas: 1, as each process has one device.
    """

    _silence = "some ten seconds"

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_gpu: bool = False,
        compression: str = "none",
        group_size: int | None = None,
    ):
        """Join the other processes.

        To be called before TensorFlow has started, when it is settled which devices it sees.

        Args:
            cluster: of `read_cluster`.
            on_gpu: whether gradients are on a GPU, and travel by NCCL.
            compression: "fp16" sends gradients in half precision, "none" as they are.
            group_size: processes that `mean_of_group` averages over; None means all. Consecutive
                ranks form a group.

        Raises:
            ValueError: no such compression; groups that do not add up to all processes.
            LostProcessError: a process of an earlier run is still there, or one ended.
        """
        refuse_unknown(compression)
        self.rank, self.size, self.local_rank = cluster.rank, cluster.size, cluster.local_rank
        self.refuse_uneven_groups(group_size)
        self.group_size = group_size or self.size
        self._halves = compression == "fp16"
        self._traced = 0
        with self.together("the start"):
            self._strategy = _join(on_gpu)
        self._way = "nccl" if on_gpu else "ring"
        # NCCL runs one operation after the other, in the same order everywhere.
        self._order: list[tf.Tensor] = []
        if on_gpu:
            with tf.device("GPU:0"):
                self._token = tf.Variable(1.0, trainable=False)
            self._order = [self._token.handle]

    def _give_up(self) -> None:
        # TensorFlow would take leave of process 0, for ever where that one is halted.
        atexit.register(_end_at_once)

    @waits
    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Average gradients over the processes, in few large messages.

        Scalars among them are never compressed. See `Communicator.mean_gradients`.
        """
        result = list(gradients)
        for places in buckets(gradients):
            alike: dict[tf.DType, list[int]] = {}
            for index in places:
                alike.setdefault(gradients[index].dtype, []).append(index)
            for dtype, indices in alike.items():
                halves = self._halves and gradients[indices[0]].shape.rank
                wire = tf.float16 if halves else dtype
                sent = [tf.cast(gradients[index], wire) for index in indices]
                averaged = self._mean_of_alike(sent, _STEPS)
                for index, value in zip(indices, averaged, strict=True):
                    result[index] = tf.cast(value, dtype)
        return result

    def _mean_of_alike(self, tensors: list[tf.Tensor], group: int) -> list[tf.Tensor]:
        """Average tensors of one type as one message."""
        if len(tensors) == 1:
            return [self._mean(tensors[0], group, self.size)]
        shapes = [tensor.shape for tensor in tensors]
        joined = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        parts = tf.split(self._mean(joined, group, self.size), [s.num_elements() for s in shapes])
        return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _mean(self, tensor: tf.Tensor, group: int, size: int) -> tf.Tensor:
        """Average a tensor over a group; each sum is made once, so that all get the same bits."""
        return tf.raw_ops.CollectiveReduceV2(
            input=tensor,
            group_size=size,
            group_key=group,
            instance_key=self._key("mean", tensor),
            ordering_token=self._order if group != _MESSAGES else [],
            merge_op="Add",
            final_op="Div",
            communication_hint=self._way if group != _MESSAGES else "ring",
        )

    def _key(self, kind: str, tensor: tf.Tensor) -> int:
        """Return what tells an operation from others of its group, the same on every process.

        All trace the same graphs in the same order. Operations outside of graphs come one after the
        other; each has one number for all its calls, as TensorFlow keeps what it knows of a number.
        """
        if tf.executing_eagerly():
            return zlib.crc32(f"{kind} {tensor.dtype.name} {tensor.shape}".encode()) >> 1
        self._traced += 1
        return self._traced

    @waits
    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Average a float tensor over the group of this process; see `Communicator`."""
        group = _NORMS + self.rank // self.group_size

        @tf.custom_gradient
        def average(mine):
            # Each process has a share in what all others get.
            return self._mean(mine, group, self.group_size), lambda upstream: self._mean(
                upstream, group, self.group_size
            )

        return average(tensor)

    @waits
    def mean(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Average named scalars; see `Communicator.mean`."""
        names = sorted(values)
        with tf.device("CPU:0"):
            sent = tf.constant([float(values[name]) for name in names], tf.float64)
            averaged = self._mean(sent, _MESSAGES, self.size).numpy().tolist()
        return dict(zip(names, averaged, strict=True))

    @waits
    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Give float variables their average over all processes; see `Communicator`."""
        alike: dict[tf.DType, list[tf.Variable]] = {}
        for variable in variables:
            alike.setdefault(variable.dtype, []).append(variable)
        for same in alike.values():
            with tf.device("CPU:0"):
                values = [tf.identity(variable.read_value()) for variable in same]
                averaged = self._mean_of_alike(values, _MESSAGES)
            for variable, value in zip(same, averaged, strict=True):
                variable.assign(value)

    @waits
    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give the variables the values of process 0; see `Communicator.broadcast`."""
        for some in _by_bytes(variables):
            own = b"".join(variable.numpy().tobytes() for variable in some)
            sent = self._send(own)
            if self.is_chief:
                continue
            begin = 0
            for variable in some:
                dtype, shape = variable.dtype.as_numpy_dtype, variable.shape
                count = shape.num_elements()
                value = np.frombuffer(sent, dtype, count, begin).reshape(shape)
                variable.assign(value)
                begin += value.nbytes

    def _send(self, content: bytes) -> bytes:
        """Return what process 0 gave; all give equally many bytes."""
        words = _as_words(content, -(-len(content) // 4))
        settings = {"group_size": self.size, "group_key": _MESSAGES}
        with tf.device("CPU:0"):
            settings["instance_key"] = self._key("send", words)
            if self.is_chief:
                tf.raw_ops.CollectiveBcastSendV2(input=words, **settings)
                return content
            got = tf.raw_ops.CollectiveBcastRecvV2(shape=words.shape, T=tf.int32, **settings)
        return got.numpy().tobytes()[: len(content)]

    @waits
    def gather(self, objects: Sequence[Any]) -> list[Any]:
        """Concatenate lists of picklable objects in the order of rank; see `Communicator`."""
        content = pickle.dumps(list(objects))
        lengths = self._gather(tf.constant([len(content)])).tolist()
        # Few sizes, so that few are to be remembered.
        words = 1 << (max(lengths) // 4).bit_length()
        parts = self._gather(_as_words(content, words)).reshape(self.size, words)
        whole = [
            pickle.loads(part.tobytes()[:length])
            for part, length in zip(parts, lengths, strict=True)
        ]
        return [one for part in whole for one in part]

    def _gather(self, words: tf.Tensor) -> np.ndarray:
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveGatherV2(
                input=words,
                group_size=self.size,
                group_key=_MESSAGES,
                instance_key=self._key("gather", words),
                ordering_token=[],
                communication_hint="ring",
            ).numpy()

    @waits
    def barrier(self) -> None:
        """Wait for all processes; see `Communicator.barrier`."""
        self._gather(tf.zeros([1], tf.int32))

    def leave(self) -> None:
        """Wait for all: TensorFlow has no end of the exchange; see `Communicator.leave`."""
        self.barrier()
        # What a process has sent may still be under way when it has got all, and is lost where it
        # ends at once. All have passed the first barrier when one has passed the second.
        try:
            self._gather(tf.zeros([1], tf.int32))
        except Exception as error:
            if not is_lost_process(error):
                raise


def _end_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(LOST_ANOTHER)


def _join(on_gpu: bool) -> tf.distribute.Strategy:
    """Start the server of this process, and wait for those of all others."""
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.NCCL if on_gpu else kinds.RING
    )
    # It also takes SIGTERM for itself, to tell of machines that are taken away.
    with heard_again():
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _by_bytes(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Variable]]:
    """Yield variables that together are about as large as a message."""
    some: list[tf.Variable] = []
    size = 0
    for variable in variables:
        some.append(variable)
        size += variable.shape.num_elements() * variable.dtype.size
        if size >= BUCKET_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _as_words(content: bytes, count: int) -> tf.Tensor:
    """Return bytes as a tensor of int32, filled up with zeros."""
    return tf.constant(np.frombuffer(content.ljust(4 * count, b"\0"), np.int32))
