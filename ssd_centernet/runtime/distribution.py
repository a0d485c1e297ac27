"""What a run asks of the processes it consists of.

The train step and the loop speak to a `Communicator` only, so that they read the same for one
process and for many.
"""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf

from ssd_centernet.runtime import mpi, slurm
from ssd_centernet.runtime.cluster import read_cluster

# The operations that wait for other processes, as TensorFlow names them where they fail.
_COLLECTIVES = r"Horovod(Grouped)?(Allreduce|Allgather|Broadcast|Alltoall|Reducescatter)"
_LOST = re.compile(rf"{_COLLECTIVES}|Horovod has been shut down")
# TensorFlow's own say which process they miss, or that one was missed before.
_MISSED = re.compile(r"Collective ops is aborted by|remote target /job:|/job:\w+/replica:\d+/task:")

_MISSED_KINDS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    # A process of an earlier start was met, or one was started anew.
    tf.errors.FailedPreconditionError,
)


class LostProcessError(ConnectionError):
    """Another process of the run ended, stopped or cannot be reached."""


def is_lost_process(error: BaseException) -> bool:
    """Tell the failure of a collective whose other side is gone from a failure of this process.

    Args:
        error: what a collective or a graph with collectives raised.

    Returns:
        Whether another process is lost. Operations that do not fit each other are a mistake, of
        another type.
    """
    if isinstance(error, LostProcessError) or type(error).__name__ == "HorovodInternalError":
        return True
    kinds = (tf.errors.UnknownError, tf.errors.AbortedError)
    if isinstance(error, kinds) and _LOST.search(str(error)):
        return True
    return isinstance(error, _MISSED_KINDS) and bool(_MISSED.search(str(error)))


@runtime_checkable
class Communicator(Protocol):
    """The processes of one run: who this one is, and the collectives that a run needs."""

    @property
    def rank(self) -> int:
        """Number of this process, 0 to `size` - 1."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine: the index of its device."""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, summaries and reports."""

    @property
    def replicas(self) -> int:
        """Number of devices of this process, which share its batch; mostly 1."""

    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Average gradients over the processes; usable inside a tf.function.

        Args:
            gradients: tensors in the same order and of the same shapes on every process; None
                for a variable without gradient.

        Returns:
            The averages, None where None was given.
        """

    def mean(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Average named scalars over the processes.

        Args:
            values: float scalars under the same names on every process.

        Returns:
            The averages under the same names.
        """

    @property
    def group_size(self) -> int:
        """Processes that `mean_of_group` averages over."""

    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Average a tensor over the group of processes that share batch statistics.

        Args:
            tensor: float, of the same shape on every process.

        Returns:
            The average; differentiable, usable inside a tf.function.
        """

    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Give float variables their average over all processes.

        Args:
            variables: the same list on every process.
        """

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give the variables the values that they have on process 0.

        Args:
            variables: the same list on every process.
        """

    def gather(self, objects: Sequence[Any]) -> list[Any]:
        """Concatenate the lists of picklable objects of all processes, in the order of rank.

        Args:
            objects: this process's part; parts may differ in length.

        Returns:
            The whole list, on every process.
        """

    def barrier(self) -> None:
        """Wait until every process has come here."""

    def leave(self) -> None:
        """End the exchange on every process; nothing here may be called afterwards."""

    def together(self, what: str, seconds: float = 0.0) -> contextlib.AbstractContextManager:
        """Tell what becomes of a block in which all processes wait for each other.

        Every method here does so itself; it is for graphs with collectives in them.

        Args:
            what: the block does, for a message that others are waited for.
            seconds: that it takes by itself.

        Raises:
            LostProcessError: in the block; another process ended, stopped or cannot be reached.
        """


class SingleProcess:
    """A `Communicator` for a run of one process: everything is already everywhere."""

    rank = 0
    size = 1
    local_rank = 0
    is_chief = True
    replicas = 1
    group_size = 1

    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Return the gradients as they are; see `Communicator.mean_gradients`."""
        return list(gradients)

    def mean(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the scalars as they are; see `Communicator.mean`."""
        return dict(values)

    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor as it is; see `Communicator.mean_of_group`."""
        return tensor

    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Leave the variables as they are; see `Communicator.mean_variables`."""

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Leave the variables as they are; see `Communicator.broadcast`."""

    def gather(self, objects: Sequence[Any]) -> list[Any]:
        """Return the objects as a list; see `Communicator.gather`."""
        return list(objects)

    def barrier(self) -> None:
        """Return at once; see `Communicator.barrier`."""

    def leave(self) -> None:
        """Nothing is to be ended; see `Communicator.leave`."""

    def together(self, what: str, seconds: float = 0.0) -> contextlib.AbstractContextManager:
        """Wait for nobody; see `Communicator.together`."""
        return contextlib.nullcontext()


# What launchers tell the processes that they start: how many there are.
_SIZES = ("HOROVOD_SIZE", "PMI_SIZE")


def connect(
    use_horovod: bool = False, *, device: str | None = "auto", **options: Any
) -> Communicator:
    """Find the processes that this one trains with; before TensorFlow touches a device.

    Args:
        use_horovod: whether Horovod joins the processes; else those of TF_CONFIG, or those that
            mpirun or srun started, are joined by TensorFlow, if there are several.
        device: kind of the device that this process will use, see `select_device`.
        **options: of `HorovodProcesses` and `Workers`: compression, group_size.

    Returns:
        `HorovodProcesses`, `Workers` or `SingleProcess`.

    Raises:
        ImportError: Horovod is wanted and cannot be imported.
        ValueError: a launcher started several processes that know nothing of each other; srun
            spread them in another way than by blocks; wrong options.
        RuntimeError: no such device; OpenMPI's library does not load.
    """
    if use_horovod:
        from ssd_centernet.runtime.horovod import HorovodProcesses

        return HorovodProcesses(**options)
    for name in _SIZES:
        if int(os.environ.get(name) or 1) > 1:
            raise ValueError(
                f"a launcher started {os.environ[name]} processes ({name}), but --use_horovod is "
                "not given: each would train a model of its own in the same --model_dir. Add "
                "--use_horovod, or start one process."
            )
    mpi.join_for_tensorflow()
    slurm.join_for_tensorflow()
    cluster = read_cluster()
    if cluster is None or cluster.size == 1:
        return SingleProcess()
    from ssd_centernet.runtime.device import show_one_device
    from ssd_centernet.runtime.workers import Workers

    kind = show_one_device(device, index=cluster.local_rank)
    return Workers(cluster, on_gpu=kind == "gpu", **options)
