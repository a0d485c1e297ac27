"""Many processes that train together on NPUs, by the HCCL of Ascend's adapter.

Frozen and never run on an NPU, as `runtime/ascend.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.runtime import ascend
from ssd_centernet.runtime.processes import Processes, refuse_unknown, waits

# Words of the shortest message: the device compiles each shape anew, so that lengths are few.
_SHORTEST = 1024


class HcclProcesses(Processes):
    """A `Communicator` over the processes that the variables of HCCL list.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local_rank: number of its device, ASCEND_DEVICE_ID.
        is_chief: whether this is process 0.
        group_size: processes that share the statistics of a synchronous batch norm: all.
        replicas: 1, as each process has one device.
    """

    def __init__(self, *, compression: str = "none", group_size: int | None = None):
        """Open the NPU of this process and join the others.

        Args:
            compression: "fp16" sends gradients in half precision, "none" as they are.
            group_size: None; smaller groups are not known to this engine.

        Raises:
            ImportError: the adapter is not installed.
            RuntimeError: it could not open the device, or not reach the other processes.
            ValueError: no such compression; groups; the environment lists no processes.
        """
        refuse_unknown(compression)
        self._halves = compression == "fp16"
        with self.together("the start"):
            self.rank, self.size, self.local_rank = ascend.join()
        if group_size not in (None, self.size):
            raise ValueError(
                f"train.sync_batch_norm={group_size} processes a group, but --strategy=hccl joins "
                "the statistics of all processes: set it to True."
            )
        self.group_size = self.size

    @property
    def _silence(self) -> str:
        return "HCCL_EXEC_TIMEOUT seconds"

    @waits
    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Average gradients over the processes; see `Communicator.mean_gradients`.

        The adapter joins them to larger messages. Scalars among them are never compressed.
        """
        result = list(gradients)
        there = [place for place, one in enumerate(gradients) if one is not None]
        tensors = [tf.convert_to_tensor(gradients[place]) for place in there]
        small = [self._halves and bool(tensor.shape.rank) for tensor in tensors]
        # Divided before they are added up, as half precision has no room for the sum.
        sent = [
            tf.cast(tensor / self.size, tf.float16) if halved else tensor / self.size
            for tensor, halved in zip(tensors, small, strict=True)
        ]
        summed = ascend.all_reduce(sent, "sum")
        for place, tensor, total in zip(there, tensors, summed, strict=True):
            result[place] = tf.cast(total, tensor.dtype)
        return result

    @waits
    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Average a float tensor over all processes; see `Communicator`."""
        return ascend.all_reduce([tensor], "mean")[0]

    def mean(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Average named scalars in the precision of Python; see `Communicator.mean`."""
        told = self.gather([{name: float(value) for name, value in values.items()}])
        return {name: sum(one[name] for one in told) / len(told) for name in values}

    @waits
    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Give float variables their average over all processes; see `Communicator`."""
        if not variables:
            return
        averaged = ascend.all_reduce([one.read_value() for one in variables], "mean")
        for variable, value in zip(variables, averaged, strict=True):
            variable.assign(value)

    @waits
    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give the variables the values of process 0; see `Communicator.broadcast`."""
        ascend.broadcast(variables)

    @waits
    def gather(self, objects: Sequence[Any]) -> list[Any]:
        """Concatenate lists of picklable objects in the order of rank; see `Communicator`.

        HCCL sums whole numbers: each process fills its own row of zeros.
        """
        message = np.frombuffer(pickle.dumps(list(objects)), np.uint8)
        lengths = self._rows(np.array([len(message)], np.int32))[:, 0]
        words = max(_SHORTEST, 1 << int(-(-lengths.max() // 4) - 1).bit_length())
        padded = np.pad(message, (0, 4 * words - len(message)))
        rows = self._rows(padded.view(np.int32))
        parts = [row.tobytes()[:length] for row, length in zip(rows, lengths, strict=True)]
        return [one for part in parts for one in pickle.loads(part)]

    def _rows(self, mine: np.ndarray) -> np.ndarray:
        rows = np.zeros((self.size, len(mine)), np.int32)
        rows[self.rank] = mine
        return ascend.all_reduce([tf.constant(rows)], "sum")[0].numpy()

    @waits
    def barrier(self) -> None:
        """Wait for all processes; see `Communicator.barrier`."""
        ascend.all_reduce([tf.zeros([1], tf.int32)], "sum")[0].numpy()

    def leave(self) -> None:
        """Wait for all processes; the adapter closes the device when Python ends."""
        self.barrier()
