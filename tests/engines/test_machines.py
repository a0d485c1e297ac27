"""Several machines as docs/distributed.md has them: network namespaces with a cable between them.

A namespace has addresses and ports of its own, and reaches nothing but the other one.
"""

import os
import shutil
import subprocess
import sys

import pytest

from tests.distributed.conftest import WORKERS as SHARED
from tests.engines.conftest import environment
from tests.process import Running

ADDRESSES = ("10.213.77.1", "10.213.77.2")
LAUNCH = (
    "import sys; from ssd_centernet.runtime.launcher import launch; sys.exit(launch(sys.argv[2:], "
    "num_processes=3, engine='tf', hosts=sys.argv[1], max_restarts=0))"
)


@pytest.fixture
def machines():
    """Two namespaces, by name; they are gone afterwards."""
    names = [f"ssd{os.getpid()}{letter}" for letter in "ab"]
    if shutil.which("ip") is None:
        pytest.skip("network namespaces are made by ip, which is missing (Debian: iproute2)")
    try:
        for name in names:
            try:
                _ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
        ends = [word for name in names for word in ("name", f"{name}-e", "netns", name)]
        _ip("link", "add", *ends[:4], "type", "veth", "peer", *ends[4:])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}-e")
            for device in ("lo", f"{name}-e"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def test_each_machine_starts_its_own_processes_and_tensorflow_joins_all(machines):
    hosts = f"{ADDRESSES[0]}:1,{ADDRESSES[1]}:2"
    command = (sys.executable, "-c", LAUNCH, hosts)
    worker = (sys.executable, SHARED / "collectives.py", "none", 0)
    inside = [
        ("ip", "netns", "exec", name, *command, *worker, first)
        for first, name in enumerate(machines)
    ]
    with (
        Running(*inside[0], env=environment()) as first,
        Running(*inside[1], env=environment()) as second,
    ):
        ended = [one.finish(status=0) for one in (first, second)]
    assert "rank 0 of 3 is content" in ended[0].stdout and "rank 1" not in ended[0].stdout, ended
    for rank in (1, 2):
        assert f"rank {rank} of 3 is content" in ended[1].stdout, str(ended[1])
