"""The tiny data set, and workers in processes of their own."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from tests.process import Running, environment
from tests.tiny import write_data_set


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A converted data set: 12 training and 5 validation images of two classes."""
    return write_data_set(tmp_path_factory.mktemp("data"))


# The warm python asks another process to run this.
_PROGRAM = """
import os, sys
from ssd_centernet.cli.main import run
open(sys.argv[1], "w").write(str(os.getpid()))
run(["ssd_centernet", "data_worker", *sys.argv[2:]])
"""


class Worker:
    """A worker at work: its process and its address."""

    def __init__(self, running: Running, pid: Path):
        self.running, self.pid = running, int(pid.read_text())
        self.address = re.search(r"--data_service=(\S+)", running.text())[1]

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.running.process.wait(30)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def start(warm, tmp_path_factory):
    """Begin workers that end with the test: `with start(2) as workers`."""

    @contextlib.contextmanager
    def begin(number=1, port=0):
        with contextlib.ExitStack() as stack:
            # A proxy that nobody listens at: workers must not ask it for themselves.
            proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": None, "no_grpc_proxy": None}
            env = environment(TF_NUM_INTRAOP_THREADS="1", **proxy)
            pids = [tmp_path_factory.mktemp("worker") / "pid" for _ in range(number)]
            # All at once: one after another would wait for each.
            running = [
                stack.enter_context(Running(warm, "-c", _PROGRAM, pid, f"--port={port}", env=env))
                for pid in pids
            ]
            for one, pid in zip(running, pids, strict=True):
                one.wait_until(lambda one=one: "--data_service=" in one.text())
                stack.callback(_end, int(pid.read_text()))
            yield [Worker(*both) for both in zip(running, pids, strict=True)]

    return begin


@pytest.fixture(scope="session")
def workers(start):
    """Addresses of two workers, for the tests that leave them whole."""
    with start(2) as both:
        yield [one.address for one in both]
