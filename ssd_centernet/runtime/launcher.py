"""Start the processes of one run, and start them again when one of them was lost.

The processes are started by Horovod's own launcher, or for TensorFlow by `starter.py`. What is
added: a process that fails says why in a file, so that its error and not the complaints of the
others ends the run; a run of which a process was killed begins again from its last checkpoint; and
a request to stop reaches a process that can answer it.

Source: docs/reference/centernet.md, section 7.2 (the launch lines with horovodrun)
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ssd_centernet.runtime.cluster import VARIABLE as CLUSTER_VARIABLE
from ssd_centernet.runtime.cluster import launched_rank
from ssd_centernet.runtime.launch_plans import Plan, make_plan
from ssd_centernet.runtime.signals import answered_signals
from ssd_centernet.runtime.starter import RANK_VARIABLE

# Where a process of the run leaves the error that ends it.
FAILURES_VARIABLE = "SSD_CENTERNET_FAILURES"
# The machine and the number of the process that launched it.
LAUNCHER_VARIABLE = "SSD_CENTERNET_LAUNCHER"
# Status of a process that ends because another one is gone; sysexits.h: a temporary failure.
LOST_ANOTHER = 75
# Horovod's launcher kills what does not end within some seconds; a step and a checkpoint take more.
_GRACE_SECONDS = 600.0
# What horovodrun and `starter.py` put before a line; mpirun also where it passes on parts of lines.
_TAG = re.compile(r"(?:^|(?=\[[^][\s]+,))\[(?:[^][\s]+,)?(\d+)\]<(?:stdout|stderr)>:")
_TRACEBACK = "Traceback (most recent call last):\n"
_FIRST_TO_FAIL = re.compile(r"Exit code:\s+(-?\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the processes of a run ended.

    Attributes:
        status: 0, or that of the process that ended first.
        failures: rank -> the error that it ended by; none for a process that was killed, or that
            only lost another one.
        stopped: whether it ended because it was told to.
        killed: the signal that ended what started the processes, or None.
    """

    status: int
    failures: dict[int, str]
    stopped: bool = False
    killed: int | None = None

    @property
    def lost(self) -> bool:
        """Whether a process was killed, so that starting again may help."""
        gone = self.status == LOST_ANOTHER or self.status > 128
        # Without what started them all fail, as what they print goes nowhere.
        return not self.stopped and (self.killed is not None or (gone and not self.failures))


def launch(
    command: Sequence[str],
    *,
    num_processes: int,
    engine: str = "horovod",
    hosts: str | None = None,
    port: int = 29500,
    max_restarts: int = 3,
    launcher_args: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Run a command in several processes until it succeeds, fails by itself, or is stopped.

    Args:
        command: that every process runs; it must go on from its last checkpoint when started anew.
        num_processes: over all machines.
        engine: one of `ENGINES`, what starts and joins the processes.
        hosts: machines and their numbers of processes, such as "a:8,b:8"; None is this machine.
            With "tf" the same is called on each of them.
        port: of the first process of a machine, with "tf" and `hosts`.
        max_restarts: how often a run is started again of which a process was lost.
        launcher_args: more arguments of horovodrun or mpirun.
        say: is given what the launcher itself has to tell.

    Returns:
        The exit status: 0, that of the first process to fail, or 128 + signal when stopped.

    Raises:
        FileNotFoundError: horovodrun or mpirun is not installed.
        ValueError: wrong numbers.
    """
    if num_processes < 1:
        raise ValueError(f"--num_processes is {num_processes}; expected 1 or more.")
    if max_restarts < 0:
        raise ValueError(f"--max_restarts is {max_restarts}; expected 0 or more.")
    plan = make_plan(engine, command, num_processes, hosts, port, launcher_args)
    for attempt in range(max_restarts + 1):
        began = time.monotonic()
        outcome = _run_once(plan, say)
        if outcome.killed is None:
            for rank, message in sorted(outcome.failures.items()):
                say(f"process {rank} failed: {message}")
        if not outcome.lost:
            return outcome.status
        what = f"a process was lost (status {outcome.status})"
        if outcome.killed is not None:
            what = f"{plan.program} itself was ended by {signal.Signals(outcome.killed).name}"
        what += f" after {(time.monotonic() - began) / 60.0:.1f} minutes"
        if attempt < max_restarts:
            say(f"{what}; starting again, {attempt + 1} of {max_restarts} times")
            time.sleep(plan.pause)
    say(f"{what}; not started again after {max_restarts} times (--max_restarts)")
    return outcome.status


def report_failure(message: str) -> None:
    """Leave the error that ends this process where `launch` looks for it.

    Nothing is done in a process that `launch` did not start.

    Args:
        message: for the user.
    """
    folder, rank = os.environ.get(FAILURES_VARIABLE), launched_rank()
    if folder and rank is not None and os.path.isdir(folder):
        Path(folder, str(rank)).write_text(message, encoding="utf-8")


def _environment(local_processes: int) -> dict[str, str]:
    """Return the environment of the processes: the cores of a machine are shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // local_processes))
    shared = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
    # What started this process tells of it, not of those that it will start.
    told = {name: value for name, value in os.environ.items() if name != CLUSTER_VARIABLE}
    return {**dict.fromkeys(shared, threads), **told}


def ending_with_this() -> dict[str, str]:
    """Return the variable of a command that ends, as for SIGTERM, when this process is gone."""
    return {LAUNCHER_VARIABLE: f"{socket.gethostname()}:{os.getpid()}"}


def end_with_launcher() -> None:
    """End this process, as for SIGTERM, when the command that started it is gone.

    Nothing is done in a process that no command of this library on this machine started.
    """
    host, _, number = os.environ.get(LAUNCHER_VARIABLE, "").rpartition(":")
    if host == socket.gethostname():
        threading.Thread(target=_end_with, args=(int(number),), daemon=True).start()


def _end_with(number: int) -> None:
    """Wait for the end of a process, and ask this one to end."""
    with contextlib.suppress(ProcessLookupError):
        try:
            select.select([os.pidfd_open(number)], [], [])
        except (AttributeError, PermissionError, OSError):
            while True:  # Until there is no such process.
                os.kill(number, 0)
                time.sleep(1.0)
    with contextlib.suppress(OSError, ValueError):
        told = f"what started this process (process {number}) is gone, so it ends too"
        print(told, file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_once(plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Start the processes once, passing on what its processes print and the signals that come."""
    with tempfile.TemporaryDirectory(prefix="ssd_centernet-") as folder:
        ours = {FAILURES_VARIABLE: folder, **ending_with_this()}
        process = subprocess.Popen(
            plan.line(),
            env={**_environment(plan.local), **ours},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            # A signal of the terminal must not reach it: it would kill processes that are saving.
            start_new_session=True,
        )
        told: list[str] = []
        readers = [
            threading.Thread(target=_pass_on, args=(source, sink, told), daemon=True)
            for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        for reader in readers:
            reader.start()
        stopper = _Stopper(process, folder, say)
        # A handler may be interrupted by the next signal, so it only notes them.
        came: list[int] = []
        with answered_signals(came.append):
            while (status := process.poll()) is None:
                time.sleep(0.1)
                while came:
                    stopper.stop(came.pop(0))
            # Whatever is left would hold the run's directory, a process that was halted too.
            _kill_all(folder)
        for reader in readers:
            reader.join()
        killed = -status if status < 0 and stopper.number is None else None
        if status != 0:
            first = _FIRST_TO_FAIL.search("\n".join(told))
            status = int(first[1]) if first else status
        if stopper.number is not None:
            status = 128 + stopper.number
        failures = {
            int(path.name): path.read_text(encoding="utf-8") for path in Path(folder).iterdir()
        }
    stopped = stopper.number is not None or status in plan.told
    # A process killed by signal n has status -n or 128 + n.
    status = 128 - status if status < 0 else status
    if failures and status == LOST_ANOTHER:
        # The others ended before the one whose error it was.
        status = 1
    return Outcome(status=status, failures=failures, stopped=stopped, killed=killed)


def _pass_on(source, sink, told: list[str]) -> None:
    """Print what the processes print; only lines of others than the first say whose they are."""
    begun: dict[str, str] = {}  # By rank: the part of a line whose end has not come.
    for line in source:
        own, *parts = _TAG.split(line)
        if own or not parts:
            # Of the launcher itself; its traceback says nothing that we do not say.
            told.append(line)
            # A process that was killed leaves a line without an end, and there it begins.
            begun = {rank: text.removesuffix(_TRACEBACK) for rank, text in begun.items()}
        for rank, text in zip(parts[::2], parts[1::2], strict=True):
            begun[rank] = text = begun.get(rank, "") + text
            if text.endswith("\n") and (text == _TRACEBACK or not text.endswith(_TRACEBACK)):
                _show(int(rank), begun.pop(rank), sink)
    for rank, text in begun.items():
        _show(int(rank), text if text.endswith("\n") else f"{text}\n", sink)


def _show(rank: int, text: str, sink) -> None:
    print(f"[{rank}] {text}" if rank else text, end="", file=sink, flush=True)


def _processes(folder: str) -> list:
    """Return what belongs to a run on this machine: the processes that know its folder."""
    import psutil  # A requirement of Horovod, and of the extra `train`.

    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.pid != os.getpid() and one.environ().get(FAILURES_VARIABLE) == folder:
                found.append(one)
    return found


def _kill_all(folder: str) -> None:
    """End all processes of a run at once, and wait until they are gone."""
    import psutil

    # Again, for those that were just being started.
    for _ in range(5):
        left = _processes(folder)
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=5.0)


class _Stopper:
    """Pass a signal on to the processes of the run, which then stop at one step and save."""

    def __init__(self, process: subprocess.Popen, folder: str, say: Callable[[str], None]):
        self._process = process
        self._folder = folder
        self._say = say
        self.number: int | None = None

    def stop(self, number: int) -> None:
        import psutil

        name, again = signal.Signals(number).name, self.number is not None
        self.number = number
        if again:
            self._say(f"{name} again: all processes are ended at once")
            _kill_all(self._folder)
            return
        self._say(f"{name}: the processes save a checkpoint and end; once more to end at once")
        ranks = self._ranks()
        for rank in ranks:
            with contextlib.suppress(psutil.Error):
                rank.send_signal(signal.SIGTERM)
        if not ranks:
            self._process.terminate()
        timer = threading.Timer(_GRACE_SECONDS, _kill_all, (self._folder,))
        timer.daemon = True
        timer.start()

    def _ranks(self) -> list:
        """Return the processes of this machine that train."""
        import psutil

        found = []
        for one in _processes(self._folder):
            with contextlib.suppress(psutil.Error):
                if {"HOROVOD_RANK", CLUSTER_VARIABLE, RANK_VARIABLE}.intersection(one.environ()):
                    found.append(one)
        numbers = {one.pid for one in found}
        # Not what one of them started.
        return [one for one in found if one.ppid() not in numbers]
