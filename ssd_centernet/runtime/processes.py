"""What the engines of several processes share: waiting for each other, and large messages."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from ssd_centernet.runtime.distribution import LostProcessError, is_lost_process
from ssd_centernet.runtime.launcher import LOST_ANOTHER

COMPRESSIONS = ("none", "fp16")

# A group is sent when all its gradients are there: several groups, so that the first travel while
# the others are still computed; large ones, so that each fills the link.
BUCKET_BYTES = 32 << 20

# Seconds after which a process says that it waits; and after which it ends, if they are given.
# Horovod has variables of these names too, but looks at them only while it has something to do.
_SAY_VARIABLE, _SAY_SECONDS = "HOROVOD_STALL_CHECK_TIME_SECONDS", 45.0
_END_VARIABLE = "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"


def waits(method: Callable) -> Callable:
    """Make a method of `Processes` one in which all processes wait for each other."""

    @functools.wraps(method)
    def waiting(self, *args, **kwargs):
        if not tf.executing_eagerly():  # Traced: the graph waits later.
            return method(self, *args, **kwargs)
        with self.together(method.__name__.replace("_", " ")):
            return method(self, *args, **kwargs)

    return waiting


class Processes:
    """The part of a `Communicator` that is the same for all engines of several processes.

    Attributes:
        rank: number of this process.
        size: number of processes.
        replicas: 1, as each process has one device.
    """

    replicas = 1
    rank = 0
    size = 1
    # How the engine finds out that a process does not answer.
    _silence = ""

    @property
    def is_chief(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @contextlib.contextmanager
    def together(self, what: str, seconds: float = 0.0) -> Iterator[None]:
        """Tell what becomes of a block with collectives; see `Communicator.together`."""
        over = threading.Event()
        # One message, not one of each process: of the first that waits.
        if self.size > 1 and self.rank < 2:
            arguments = (over, what, seconds, self.rank)
            threading.Thread(target=_tell_of_waiting, args=arguments, daemon=True).start()
        try:
            yield
        except Exception as error:
            if not is_lost_process(error):
                raise
            self._give_up()
            raise LostProcessError(
                f"process {self.rank} lost another one in {what}: it ended, or did not answer for "
                f"{self._silence}."
            ) from error
        finally:
            over.set()

    def _give_up(self) -> None:
        """Prepare for the end of this process, which lost another one."""

    def refuse_uneven_groups(self, group_size: int | None) -> None:
        """Check that groups of processes add up to all.

        Raises:
            ValueError: they do not.
        """
        if group_size and self.size % group_size:
            raise ValueError(
                f"train.sync_batch_norm={group_size} processes a group, but {self.size} processes "
                f"cannot be divided so. Choose a divisor of {self.size}, or True for all."
            )


def refuse_unknown(compression: str) -> None:
    """Check that a compression of gradients is known.

    Raises:
        ValueError: it is not.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(
            f"train.gradient_compression is {compression!r}; expected one of "
            f"{', '.join(COMPRESSIONS)}."
        )


def buckets(gradients: Sequence[tf.Tensor | None]) -> Iterator[list[int]]:
    """Yield the places of gradients that travel together: the last layers' are ready first.

    Args:
        gradients: of static shapes; None for a variable without gradient, which does not travel.

    Yields:
        Places; a scalar has a bucket of its own.
    """
    bucket: list[int] = []
    size = 0
    for index in reversed(range(len(gradients))):
        gradient = gradients[index]
        if gradient is None:
            continue
        if gradient.shape.rank == 0:
            yield [index]
            continue
        bucket.append(index)
        size += gradient.shape.num_elements() * gradient.dtype.size
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def _tell_of_waiting(over: threading.Event, what: str, seconds: float, rank: int) -> None:
    """Say after a while that this process waits; end it after a longer while, if that is asked."""
    until_said = float(os.environ.get(_SAY_VARIABLE) or _SAY_SECONDS)
    until_end = float(os.environ.get(_END_VARIABLE) or 0.0)
    until_said += seconds
    if over.wait(until_said):
        return
    others = "the others" if rank == 0 else "process 0, which may be at work alone, or another one"
    print(
        f"process {rank} has waited {until_said:.0f} seconds for {others} in {what}. A process "
        f"that hangs does so in its input, or its machine does; {_END_VARIABLE} sets after how "
        "many seconds all begin again.",
        file=sys.stderr,
        flush=True,
    )
    if until_end and not over.wait(max(0.0, until_end - until_said)):
        print(f"process {rank} ends: it has waited {until_end:.0f} seconds.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(LOST_ANOTHER)
