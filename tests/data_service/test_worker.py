"""A worker: whom it answers, and how it ends."""

import errno
import os
import re
import signal
import socket
import sys

import pytest

from ssd_centernet.data_service import worker as worker_module
from ssd_centernet.data_service.addresses import parse_addresses
from ssd_centernet.data_service.closing import close_to_others
from ssd_centernet.data_service.facts import Facts
from tests.process import Running, cli, environment


def outer_address():
    """Return an address of this machine that is not of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # Nothing is sent.
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        return one.getsockname()[0]


def reaches(address, port):
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except TimeoutError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="packets are filtered on Linux")
def test_other_machines_are_kept_out():
    """The kernel drops what does not come from the loopback, also where all interfaces listen."""
    outer = outer_address()
    for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            server = socket.create_server((every, 0), family=family, dualstack_ipv6=every == "::")
        except OSError:  # No version 6 here.
            continue
        with server:
            port = server.getsockname()[1]
            assert reaches(outer, port)
            close_to_others([port])
            assert reaches("127.0.0.1", port)
            assert not reaches(outer, port)
    with pytest.raises(OSError, match="no socket of this process listens"):
        close_to_others([port])


def test_a_worker_answers_this_machine_and_ends_at_a_signal(start):
    with start() as (worker,):
        (address,) = parse_addresses([worker.address])
        with socket.create_connection((address.host, address.port), timeout=20) as connection:
            lines = connection.makefile("rb")
            facts = Facts.from_line(lines.readline())
            assert lines.readline() == b"\n"  # It lives.
        assert reaches("127.0.0.1", facts.dispatcher)
        assert not reaches(outer_address(), facts.dispatcher)
        os.kill(worker.pid, signal.SIGTERM)
        ended = worker.running.finish(limit=60, status=0)
        assert "Traceback" not in ended.text
        with pytest.raises(ConnectionRefusedError):
            reaches("127.0.0.1", address.port)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--host=10.9.8.7"], "asks nobody for a password and runs any graph"),
        (["--host=0.0.0.0", "--closed_network"], "stands for all addresses of this machine"),
        (["--host=192.0.2.1", "--closed_network"], "no address of version 4 of this machine"),
        (["--host=0", "--closed_network"], "stands for all addresses of this machine"),
        (["--port=TAKEN"], "is taken by another program"),
        # Of the three it is the last, which TensorFlow would share.
        (["--port=BELOW"], "is taken by another program"),
    ],
)
def test_what_a_worker_must_not_do_is_refused(given, told, warm):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        port = server.getsockname()[1]
        given = [one.replace("TAKEN", f"{port}").replace("BELOW", f"{port - 2}") for one in given]
        ended = cli("data_worker", *given, python=warm, status=1, limit=60)
    assert told in ended.stderr and "Traceback" not in ended.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a name of Linux's kernel")
def test_two_workers_that_begin_at_once_do_not_share_a_port():
    with worker_module._taking(range(20150, 20153)):
        with pytest.raises(OSError, match="port 20152 is taken"):
            with worker_module._taking(range(20152, 20155)):
                pass
    with worker_module._taking(range(20152, 20155)):
        pass


def test_why_a_port_cannot_be_opened_is_told():
    told = str(worker_module._refused(80, PermissionError(errno.EACCES, "Permission denied")))
    assert "port 80 cannot be opened: Permission denied. Ports below 1024" in told


def test_another_address_of_this_machine_is_warned_of(warm):
    """With --closed_network it starts, says what that means, and others reach it."""
    outer = outer_address()
    command = (warm, "-m", "ssd_centernet", "data_worker", f"--host={outer}", "--port=0")
    with Running(*command, "--closed_network", env=environment()) as running:
        running.wait_until(lambda: "--data_service=" in running.text())
        text = running.text()
        assert "warning: this worker asks nobody for a password" in text
        port = int(re.search(r"--data_service=grpc://[\d.]+:(\d+)", text)[1])
        with socket.create_connection((outer, port), timeout=20) as connection:
            facts = Facts.from_line(connection.makefile("rb").readline())
        assert reaches(outer, facts.dispatcher)
