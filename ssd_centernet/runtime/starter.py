"""A small program that starts processes which TensorFlow joins: `launch` runs it.

    python -m ssd_centernet.runtime.starter ADDRESSES FIRST COUNT COMMAND...
    mpirun -np N python -m ssd_centernet.runtime.starter mpi COMMAND...

It starts COUNT processes, of the numbers FIRST and up, each with TF_CONFIG; ADDRESSES are those of
all processes on all machines. What they print is passed on with the number in front, as horovodrun
does. When one fails, the others are given some seconds to end by themselves. The last line says how
the first one ended.

Below mpirun it starts one process, and stands between the two: mpirun kills all when one ends with
another status than 0, and some of them may be saving.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

# Tells which processes below mpirun train; and their number.
RANK_VARIABLE = "SSD_CENTERNET_RANK"
# For the others to notice that one is gone, and to say why they end.
_GRACE_SECONDS = 10.0
# The same below mpirun, which then ends them.
_SHORT_GRACE_SECONDS = 3.0
# For the processes to end when what started this program is gone: they save a checkpoint.
_ORPHANED_SECONDS = 120.0
# A process that was told to end has this status, or the other. It saved, and the others do.
_TOLD = tuple(128 + number for number in (signal.SIGTERM, signal.SIGINT))


def free_addresses(count: int) -> list[str]:
    """Return addresses on this machine that nobody listens on.

    Args:
        count: how many.
    """
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in taken]


def start(addresses: Sequence[str], first: int, count: int, command: Sequence[str]) -> int:
    """Run a command in several processes until all have ended.

    Args:
        addresses: of the processes on all machines, by rank.
        first: rank of the first process of this machine.
        count: processes of this machine.
        command: that each of them runs.

    Returns:
        The status of the first that failed, below 0 for a signal; else that of the first process.
    """
    lock = threading.Lock()
    processes, readers = [], []
    for rank in range(first, first + count):
        task = {"type": "worker", "index": rank}
        told = json.dumps({"cluster": {"worker": list(addresses)}, "task": task})
        process = subprocess.Popen(
            command,
            env={**os.environ, "TF_CONFIG": told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        for name in ("stdout", "stderr"):
            arguments = (getattr(process, name), rank, name, lock)
            readers.append(threading.Thread(target=_pass_on, args=arguments, daemon=True))
            readers[-1].start()
    status = _await(processes)
    for reader in readers:
        reader.join(timeout=5.0)  # A process of a process may hold the file open.
    return status


def _await(processes: Sequence[subprocess.Popen]) -> int:
    """Wait for all; end those that do not end after another has failed, or `launch` is gone."""
    failed, deadline, parent = None, float("inf"), os.getppid()
    while None in (statuses := [process.poll() for process in processes]):
        if failed is None:
            bad = [one for one in statuses if one not in (None, 0, *_TOLD)]
            if bad:
                failed, deadline = bad[0], time.monotonic() + _GRACE_SECONDS
        if parent is not None and os.getppid() != parent:
            parent = None
            deadline = min(deadline, time.monotonic() + _ORPHANED_SECONDS)
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    bad = [one for one in statuses if one not in (0, *_TOLD)]
    if failed is None and bad:
        failed = bad[0]
    return next(filter(None, statuses), 0) if failed is None else failed


def attend(command: Sequence[str]) -> int:
    """Run a command as the process of this number that mpirun starts.

    Args:
        command: that the process runs.

    Returns:
        The status by which mpirun learns how it ended, below 0 for a signal.
    """
    rank = os.environ["OMPI_COMM_WORLD_RANK"]
    for number in (signal.SIGTERM, signal.SIGINT):
        # mpirun tells the whole group, the process too.
        signal.signal(number, lambda *_: None)
    status = subprocess.Popen(command, env={**os.environ, RANK_VARIABLE: rank}).wait()
    if status in _TOLD and rank != "0":
        # Process 0 may still be writing its checkpoint; it says how the run ended.
        return 0
    if status:
        time.sleep(_SHORT_GRACE_SECONDS)
    return status


def _pass_on(source, rank: int, name: str, lock: threading.Lock) -> None:
    """Print what a process prints, in whole lines that say whose they are."""
    sink = getattr(sys, name).buffer
    for line in source:
        if not line.endswith(b"\n"):
            line += b"\n"
        # Where nobody reads any more, the process must still be able to print.
        with lock, contextlib.suppress(OSError, ValueError):
            sink.write(f"[{rank}]<{name}>:".encode() + line)
            sink.flush()


def main(arguments: Sequence[str]) -> int:
    """Start what the arguments say."""
    if arguments[0] == "mpi":
        status = attend(arguments[1:])
        return 128 - status if status < 0 else status
    addresses, first, count, *command = arguments
    status = start(addresses.split(","), int(first), int(count), command)
    if status:
        with contextlib.suppress(OSError):
            print(f"Exit code: {status}", file=sys.stderr, flush=True)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
