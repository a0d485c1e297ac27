"""A server in a process of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator

import pytest

from benchmarks.traffic import HOST, ask
from tests.process import Running, environment

_MODULES = ("uvicorn", "starlette", "python_multipart", "prometheus_client")


def need_packages() -> None:
    """Skip where the extra is not installed."""
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: pip install "ssd_centernet[serve]"')


class Served:
    """The server of a run or a file, as a client sees it.

    Attributes:
        running: its process.
        port: of 127.0.0.1.
    """

    def __init__(self, running: Running):
        self.running = running
        pattern = re.compile(r"http://\S+:(\d+)/ \(Ctrl-C ends it\)")
        running.wait_until(lambda: pattern.search(running.text()))
        self.port = int(pattern.search(running.text())[1])
        self.url = f"http://{HOST}:{self.port}/"

    def ask(self, body=None, **options):
        """Make a request; returns status, bytes and headers."""
        return ask(self.port, body, **options)

    def get(self, path, **headers):
        """Ask for a path; returns status and JSON."""
        status, content, _ = ask(self.port, method="GET", path=path, **headers)
        return status, json.loads(content)

    def detect(self, body, query="", **headers):
        """Send a picture; returns status and JSON."""
        status, content, _ = ask(self.port, body, path=f"/detect{query}", **headers)
        return status, json.loads(content)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over all of its labels."""
        text = ask(self.port, method="GET", path="/metrics")[1].decode()
        rows = re.findall(rf"^ssd_centernet_{name}(?:\{{.*\}})? (\S+)$", text, re.M)
        return sum(map(float, rows))


@contextlib.contextmanager
def serving(*arguments, python=sys.executable) -> Iterator[Served]:
    """Start the server with flags, and end it."""
    command = (python, "-m", "ssd_centernet", "serve", "--port=0", *arguments)
    with Running(*command, env=environment(TF_NUM_INTRAOP_THREADS="1")) as running:
        yield Served(running)
