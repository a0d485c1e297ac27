"""Commands in processes of their own: run with a limit, watched at work, shown where they fail."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLI = (sys.executable, "-m", "ssd_centernet")
# Far above what any command of the tests takes: a process that hangs fails its test, not the run.
LIMIT = 300.0
_SHOWN = 6000


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that ended: its exit status (below 0 for a signal), texts and seconds."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    def __str__(self) -> str:
        parts = [f"{shlex.join(self.command)[:500]}\nstatus {self.status}, {self.seconds:.1f} s"]
        texts = {"stdout": self.stdout, "stderr": self.stderr}
        return "\n".join(parts + [f"--- {n}\n{t[-_SHOWN:]}" for n, t in texts.items()])


def environment(**changes) -> dict[str, str]:
    """Return this process's environment for a child that runs the checkout's code on the CPU.

    Args:
        **changes: variables by name; None takes one away.
    """
    ours = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    merged = {**os.environ, **ours, **changes}
    return {name: str(value) for name, value in merged.items() if value is not None}


class Running:
    """A command at work, with all that it starts; as a context it leaves none of these behind."""

    def __init__(self, *command, cwd=ROOT, env: dict[str, str] | None = None):
        self.command = tuple(map(str, command))
        self.start = time.monotonic()
        # Files take any amount while nobody reads. A group of its own, so that what the command
        # started ends with it.
        self.files = [tempfile.NamedTemporaryFile() for _ in range(2)]
        self.process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=self.files[0],
            stderr=self.files[1],
            start_new_session=True,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        for file in self.files:
            file.close()

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the command, or to everything that it started as well."""
        try:
            if group:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        except ProcessLookupError:
            pass  # It has ended.

    def finish(self, *, limit: float = LIMIT, status: int | None = None) -> Ended:
        """Wait for the end; fail if it takes longer than `limit` seconds or ends otherwise."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end within {limit} s: {self.kill()}")
        ended = self._ended()
        assert status is None or ended.status == status, str(ended)
        return ended

    def kill(self) -> Ended:
        """End it at once, with all that it started."""
        self.signal(signal.SIGKILL, group=True)
        self.process.wait()
        return self._ended()

    def wait_until(self, seen: Callable[[], object], *, limit: float = 120.0) -> None:
        """Wait until `seen()` is true; fail where the command ends before, or after `limit` s."""
        deadline = time.monotonic() + limit
        while not seen():
            if self.process.poll() is not None:
                pytest.fail(f"ended too early: {self._ended()}")
            if time.monotonic() > deadline:
                pytest.fail(f"nothing to see within {limit} s: {self.kill()}")
            time.sleep(0.01)

    def text(self) -> str:
        """Return what the command has printed so far."""
        return "".join(Path(file.name).read_text(errors="replace") for file in self.files)

    def _ended(self) -> Ended:
        texts = [Path(file.name).read_text(errors="replace") for file in self.files]
        seconds = time.monotonic() - self.start
        return Ended(self.command, self.process.returncode, *texts, seconds)


def run(
    *command,
    cwd=ROOT,
    env: dict[str, str] | None = None,
    limit: float = LIMIT,
    status: int | None = 0,
) -> Ended:
    """Run a command to its end and return what it printed.

    Args:
        *command: the program and its arguments.
        cwd: where it runs; the checkout when not given.
        env: its environment; `environment()` when not given.
        limit: seconds after which it is killed, with all that it started, and the test fails.
        status: the exit status that it must have; None takes any.
    """
    with Running(*command, cwd=cwd, env=env) as running:
        return running.finish(limit=limit, status=status)


def slowness() -> float:
    """Tell how many times as long things take now as on a machine that does nothing else.

    What must be done within a time is promised of such a machine; tests run beside others.
    """
    waiting = [os.getloadavg()[0]]
    with contextlib.suppress(OSError):  # Of Linux: who wants a core at this moment.
        waiting.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    return max(1.0, max(waiting) / (os.cpu_count() or 1))


def cli(*arguments, python=sys.executable, **options) -> Ended:
    """Run `ssd_centernet` in a fresh interpreter or another; `options` are those of `run`."""
    return run(python, "-m", "ssd_centernet", *arguments, **options)


def python(code: str, *arguments, **options) -> Ended:
    """Run Python code in a fresh interpreter; `options` are those of `run`."""
    return run(sys.executable, "-c", code, *arguments, **options)


def bash(script: str, **options) -> Ended:
    """Run lines of bash, the first failure of which ends it; `options` are those of `run`."""
    return run("bash", "-euo", "pipefail", "-c", script, **options)


def need_horovod() -> None:
    """Skip where Horovod was not built, unless the one who runs the tests asked for it."""
    if importlib.util.find_spec("horovod") is None:
        message = "Horovod is not installed: bash scripts/install_horovod.sh"
        if os.environ.get("REQUIRE_HOROVOD") == "1":
            pytest.fail(message)
        pytest.skip(message)


def need_mpirun() -> None:
    """Skip where OpenMPI is not installed."""
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed (Debian: apt-get install openmpi-bin)")
