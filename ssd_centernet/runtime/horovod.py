"""Many processes that train together, by Horovod; the only module that imports it.

What is used of it are plain collectives on tensors: its optimizers, callbacks and synchronous batch
norm are tied to another Keras than ours.
"""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from ssd_centernet.runtime import vendors
from ssd_centernet.runtime.cluster import started_by_mpirun, started_by_srun
from ssd_centernet.runtime.mpi import join_for_gloo
from ssd_centernet.runtime.processes import Processes, buckets, refuse_unknown, waits

_HINT = (
    "Build it for this TensorFlow with `bash scripts/install_horovod.sh` (Gaudi's software brings "
    "its own), or train in one process: leave out --use_horovod."
)


class HorovodProcesses(Processes):
    """A `Communicator` over the processes that horovodrun, mpirun or `ssd_centernet launch` began.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local_rank: number of this process on its machine.
        local_size: processes on this machine.
        is_chief: whether this is process 0.
        group_size: processes that share the statistics of a synchronous batch norm.
        replicas: 1, as each process has one device.
    """

    def __init__(self, *, compression: str = "none", group_size: int | None = None):
        """Join the other processes; to be called before TensorFlow touches a device.

        Args:
            compression: "fp16" sends gradients in half precision, "none" as they are.
            group_size: processes that `mean_of_group` averages over; None means all. Consecutive
                ranks form a group.

        Raises:
            ImportError: Horovod is not installed, or was built for another TensorFlow.
            ValueError: no such compression; groups that do not add up to all processes; srun
                started others, which this Horovod does not find.
        """
        refuse_unknown(compression)
        self._hvd = hvd = _import_horovod()
        if _needs_a_meeting(hvd):
            join_for_gloo(_serve)
        self.rank, self.size = (int(os.environ.get(f"HOROVOD_{n}", 0)) for n in ("RANK", "SIZE"))
        with self.together("the start"):
            # Groups are known only when the number of processes is.
            hvd.init(process_sets="dynamic") if group_size else hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._compression = getattr(hvd.Compression, compression)
        self.group_size = group_size or self.size
        self._group = self._make_groups(group_size) if group_size else hvd.global_process_set
        self._packs: bool | None = None
        if self.size == 1 and (place := started_by_srun()) is not None:
            raise ValueError(
                f"srun started {place[1]} processes, and this Horovod does not find the others: "
                "each would train a model of its own in the same --model_dir. Leave out "
                "--use_horovod, and TensorFlow joins them."
            )
        if self.size == 1:
            logging.info("Horovod has one process; start several with `ssd_centernet launch`.")

    @property
    def _silence(self) -> str:
        seconds = os.environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", "30")
        return f"{seconds} seconds (HOROVOD_GLOO_TIMEOUT_SECONDS)"

    def _make_groups(self, group_size: int):
        self.refuse_uneven_groups(group_size)
        firsts = range(0, self.size, group_size)
        if len(firsts) == 1:
            return self._hvd.global_process_set
        sets = [self._hvd.add_process_set(list(range(n, n + group_size))) for n in firsts]
        return sets[self.rank // group_size]

    @waits
    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Average gradients over the processes, in few large messages.

        Scalars among them are never compressed. See `Communicator.mean_gradients`.
        """
        result = list(gradients)
        for places in buckets(gradients):
            is_scalar = gradients[places[0]].shape.rank == 0
            compression = self._hvd.Compression.none if is_scalar else self._compression
            averaged = self._average([gradients[index] for index in places], compression)
            for index, value in zip(places, averaged, strict=True):
                result[index] = value
        return result

    def _average(self, tensors: list[tf.Tensor], compression=None) -> list[tf.Tensor]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        options = {"compression": compression or self._hvd.Compression.none}
        if self._packs is None:  # Now the devices are known.
            self._packs = _packs()
        if not self._packs:
            return self._hvd.grouped_allreduce(tensors, op=self._hvd.Average, **options)
        averaged: list[tf.Tensor | None] = [None] * len(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = tf.concat([tf.reshape(tensors[place], [-1]) for place in places], 0)
            flat = self._hvd.allreduce(flat, op=self._hvd.Average, **options)
            sizes = [tensors[place].shape.num_elements() for place in places]
            for place, part in zip(places, tf.split(flat, sizes), strict=True):
                averaged[place] = tf.reshape(part, tensors[place].shape)
        return averaged

    @waits
    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Average a float tensor over the group of this process; see `Communicator`."""
        return self._hvd.allreduce(tensor, op=self._hvd.Average, process_set=self._group)

    @waits
    def mean(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Average named scalars; see `Communicator.mean`."""
        names = sorted(values)
        with _on_host():
            sent = tf.constant([float(values[name]) for name in names], tf.float64)
            averaged = self._hvd.allreduce(sent, op=self._hvd.Average).numpy().tolist()
        return dict(zip(names, averaged, strict=True))

    @waits
    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Give float variables their average over all processes; see `Communicator`."""
        if not variables:
            return
        averaged = self._average([variable.read_value() for variable in variables])
        for variable, value in zip(variables, averaged, strict=True):
            variable.assign(value)

    @waits
    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give the variables the values of process 0; see `Communicator.broadcast`."""
        self._hvd.broadcast_variables(variables, root_rank=0)

    @waits
    def gather(self, objects: Sequence[Any]) -> list[Any]:
        """Concatenate lists of picklable objects in the order of rank; see `Communicator`."""
        if self.size == 1:
            return list(objects)
        message = np.frombuffer(pickle.dumps(list(objects)), np.uint8)
        # Gaudi's collectives end the process for an odd number of bytes; pickle ignores what
        # follows.
        message = np.pad(message, (0, len(message) % 2))
        with _on_host():
            lengths = self._hvd.allgather(tf.constant([len(message)], tf.int64), name="lengths")
            received = self._hvd.allgather(tf.constant(message), name="objects").numpy()
        parts = np.split(received, np.cumsum(lengths.numpy())[:-1])
        return [one for part in parts for one in pickle.loads(part.tobytes())]

    @waits
    def barrier(self) -> None:
        """Wait for all processes; see `Communicator.barrier`."""
        with _on_host():
            self._hvd.allreduce(tf.zeros([]), op=self._hvd.Sum, name="barrier")

    def leave(self) -> None:
        """Stop Horovod's thread, which no longer takes a part of a core; see `Communicator`."""
        self.barrier()
        self._hvd.shutdown()


def _needs_a_meeting(hvd) -> bool:
    """Tell whether mpirun started this process, and Horovod has Gloo alone, which it tells nothing.

    Each process would else train a model of its own.
    """
    place = started_by_mpirun()
    told = "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ or hvd.mpi_built()
    return place is not None and place[1] > 1 and not told


def _serve(places: list[dict]) -> int:
    """Start the server by which Gloo's processes meet, as Horovod's launcher does."""
    server = importlib.import_module("horovod.runner.http.http_server").RendezvousServer()
    slot = importlib.import_module("horovod.runner.common.util.hosts").SlotInfo
    port = server.start()
    server.init([slot(**place) for place in places])
    return port


def _on_host():
    """Place what is no gradient on the CPU: collectives of devices take few types and sizes."""
    return tf.device("CPU:0")


def _packs() -> bool:
    """Tell whether gradients travel joined, as plain messages.

    Where Horovod has a kernel of the device for one tensor, but none for a group, as on Gaudi, a
    group would go through the host.
    """
    kinds = {device.device_type for device in tf.config.list_physical_devices()} - {"CPU"}
    single, grouped = (vendors.kernels(f"Horovod{name}llreduce") for name in ("A", "GroupedA"))
    return bool(kinds & single) and not kinds & grouped


def _import_horovod():
    vendors.before_horovod()
    try:
        hvd = importlib.import_module("horovod.tensorflow")
        hvd.mpi_ops  # noqa: B018  # the compiled part, which a failed build leaves out
    except ImportError as error:
        raise ImportError(
            f"--use_horovod needs Horovod, which cannot be imported ({error}). {_HINT}"
        ) from error
    return hvd
