"""Batches of workers: those of this process, whatever becomes of a worker."""

import contextlib
import dataclasses
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from ssd_centernet.data.augment.joining import MixUp
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.data.splits import find_shards
from ssd_centernet.data_service import feed as feed_module
from ssd_centernet.data_service import links
from ssd_centernet.data_service.addresses import Address, parse_addresses
from ssd_centernet.data_service.facts import Facts, own_facts
from ssd_centernet.data_service.feed import Feed, LostWorkersError
from ssd_centernet.data_service.records import difference, fingerprints
from tests.data.test_pipeline import assert_same
from tests.process import run, slowness
from tests.tiny import LABELS

# Flips are drawn; more would be traced for each pipeline.
CHAIN = SSDAugment((64, 64), crop=False, jitter=False, compiled=False)


def maker(data_dir, **changes):
    def make(start_example, part=None):
        return training_batches(
            str(data_dir),
            label_map=LABELS,
            batch_size=2,
            augment=CHAIN,
            image_size=(64, 64),
            start_example=start_example,
            part=part,
            seed=3,
            **changes,
        )

    return make


def check(batches, local, number):
    """Compare the next batches of two iterators."""
    for _ in range(number):
        assert_same(next(batches), next(local))


COMPOSED = MixUp(probability=0.5, off_for_last=0.0)


@pytest.mark.parametrize("compose", [(), COMPOSED], ids=["plain", "composed"])
def test_parts_are_the_stream(compose, data_dir):
    """The parts by turns are what one process reads, from any place on: 12 images, batches of 2."""
    begin, make = 7, maker(data_dir, compose=compose, shuffle_buffer=5)
    whole = iter(make(begin))
    first, second = (iter(make(begin, (index, 2))) for index in range(2))
    # The same part, from a later batch of it on.
    later = iter(make(begin + 2 * 2 * 3, (0, 2)))
    for number in range(7):
        batch = next(first)
        assert_same(batch, next(whole))
        assert_same(next(second), next(whole))
        if number >= 3:
            assert_same(next(later), batch)


@pytest.fixture
def addresses(workers):
    return parse_addresses(workers)


def test_batches_are_those_of_one_process(addresses, data_dir, monkeypatch):
    """Also where a recovery begins anew with the same workers, and a proxy is for other things."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.com")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    make, said = maker(data_dir), []
    with contextlib.closing(Feed(addresses, said.append)) as feed:
        check(iter(feed.batches(make)), iter(make(0)), 20)
        check(iter(feed.batches(make, start_example=4)), iter(make(4)), 5)
    assert said == []
    assert os.environ["no_grpc_proxy"] == "example.com,127.0.0.1"


def test_other_records_of_a_worker_are_refused(addresses, data_dir, tmp_path):
    """Of the same names and sizes, too; a difference is told in full."""
    folder = tmp_path / "records"
    shutil.copytree(data_dir, folder)
    first, second = find_shards(folder, "coco_train")[:2]
    prints = fingerprints(folder, "coco_train")
    assert difference(prints) == ""
    content = bytearray(Path(first).read_bytes())
    content[-1] ^= 1
    Path(first).write_bytes(content)
    with contextlib.closing(Feed(addresses, print, prints=prints)) as feed:
        told = rf"would make other batches: 1 of 2 record files in {folder} differ: {first} has"
        with pytest.raises(ValueError, match=rf"{addresses[0]} {told} other content there") as got:
            feed.batches(maker(data_dir))
        assert prints[first][1] in str(got.value)
        assert "would make other batches: 1 of 2 record" in feed._reason(feed._links[0])
    Path(second).write_bytes(b"")
    assert "has 0 bytes there" in difference({second: prints[second]})
    Path(second).unlink()
    assert "cannot be read there (No such file" in difference({second: prints[second]})
    with contextlib.closing(Feed(addresses, print, prints=fingerprints(data_dir, "coco_train"))):
        pass


def test_each_process_of_a_run_gets_its_share(addresses, data_dir):
    make = maker(data_dir, rank=1, world_size=2)
    with contextlib.closing(Feed(addresses, print)) as feed:
        check(iter(feed.batches(make, start_example=7)), iter(make(7)), 12)


def test_a_second_reader_is_noticed(addresses, data_dir):
    with contextlib.closing(Feed(addresses, print)) as feed:
        batches = feed.batches(maker(data_dir))
        next(iter(batches))
        with pytest.raises(tf.errors.InvalidArgumentError, match="in turn"):
            next(iter(batches))


def test_a_killed_worker_is_replaced_and_comes_back(start, data_dir, monkeypatch):
    monkeypatch.setattr(feed_module, "_PROVEN_SECONDS", 0.5)
    make, said = maker(data_dir), []
    with start(2) as both:
        addresses = parse_addresses([one.address for one in both])
        ending = threading.Event()
        feed = Feed(addresses, said.append, patience=300.0, hurried=ending.is_set)
        batches, local = iter(feed.batches(make)), iter(make(0))
        check(batches, local, 3)
        both[1].kill()
        check(batches, local, 30)
        assert [line for line in said if f"{addresses[1]} is lost" in line], said
        with start(1, addresses[1].port):
            wait(lambda: any("is there again" in line for line in said))
            check(batches, local, 20)
            # No thread asks a worker that is gone.
            wait(lambda: len(taking()) == 2)
        both[0].kill()
        wait(lambda: any("no worker of --data_service is left" in line for line in said))
        assert feed.error is None
        ending.set()  # A signal came: there is no time to wait.
        with pytest.raises(tf.errors.OpError):
            while True:
                check(batches, local, 1)
        assert isinstance(feed.error, LostWorkersError)
        assert "all of 2 workers of --data_service are lost" in str(feed.error)
        feed.close()
        wait(lambda: not taking())


def taking():
    return [one for one in threading.enumerate() if one.name.startswith("data service, part")]


def wait(seen, seconds=60.0):
    deadline = time.monotonic() + seconds * slowness()
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def facts_at(port):
    """Return facts of a worker whose servers are at one port."""
    return own_facts(dispatcher=port, worker=port, host="127.0.0.1", instance="a")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, Address("127.0.0.1", server.getsockname()[1])


def test_a_worker_that_falls_silent_is_lost(listener, monkeypatch):
    """A process that is halted keeps its connections."""
    monkeypatch.setattr(links, "SILENCE_SECONDS", 0.3)
    server, address = listener
    link = links.Link(address)
    connection, _ = server.accept()
    with connection:
        connection.sendall(facts_at(address.port).to_line())
        wait(lambda: link.state.facts is not None)
        wait(lambda: link.state.facts is None)
    assert "timed out" in link.state.reason
    link.close()


def test_what_is_no_worker_is_told(listener):
    server, address = listener
    threading.Thread(target=lambda: server.accept()[0].sendall(b"HTTP/1.1 400\r\n")).start()
    with pytest.raises(LostWorkersError, match=r"did not answer in 1 s .*it answers b'HTTP"):
        Feed([address], print, patience=1.0)


def test_a_port_of_tensorflow_that_is_closed_is_told(listener):
    server, address = listener
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    facts = dataclasses.replace(facts_at(address.port), worker=closed)
    connections = []

    def tell():
        connections.append(server.accept()[0])
        connections[0].sendall(facts.to_line())

    threading.Thread(target=tell).start()
    told = rf"127\.0\.0\.1:{closed}, of TensorFlow's data service there, cannot be reached"
    with pytest.raises(LostWorkersError, match=told) as got:
        Feed([address], print, patience=0.5)
    assert f"open ports {address.port}, {address.port} and {closed}" in str(got.value)
    assert "or leave --data_service out" in str(got.value)
    connections[0].close()


def test_a_worker_that_would_make_other_batches_is_refused(listener, data_dir):
    server, address = listener
    facts = facts_at(address.port)
    other = Facts(**{**vars(facts), "tensorflow": "2.99.0 (v2.99)"})
    connections = []

    def tell():
        connections.append(server.accept()[0])
        connections[0].sendall(other.to_line())

    threading.Thread(target=tell).start()
    feed = Feed([address], print)
    with pytest.raises(ValueError, match=r"other batches: it has TensorFlow 2\.99\.0"):
        feed.batches(maker(data_dir))
    # As it is told where a worker comes back with another version.
    assert "it would make other batches: it has TensorFlow 2.99" in feed._reason(feed._links[0])
    feed.close()
    connections[0].close()
    assert facts.misfit(facts) is None
    with_native = Facts(**{**vars(facts), "native": "a.so"})
    assert "it has none" in with_native.misfit(Facts(**{**vars(facts), "native": None}))
    assert Facts(**{**vars(facts), "native": None}).misfit(with_native) is None


def test_addresses_that_are_none_are_refused():
    assert parse_addresses(["grpc://a-b.c:1", "localhost:5050"]) == (
        Address("a-b.c", 1),
        Address("localhost", 5050),
    )
    for text in ("localhost", "http://a:1", "a:0", "a:70000", "grpc://:5"):
        with pytest.raises(ValueError, match="expected grpc://HOST:PORT"):
            parse_addresses([text])
    with pytest.raises(ValueError, match="names grpc://a:1 twice"):
        parse_addresses(["grpc://a:1", "a:1"])


@pytest.mark.parametrize("cache", [True, "decoded"])
def test_what_one_process_keeps_is_no_use_to_another(cache, data_dir):
    with pytest.raises(ValueError, match="--data_service lets other processes read"):
        maker(data_dir, cache=cache)(0, (0, 2))


_STUCK = """
import socket, sys, threading, time
from ssd_centernet.cli.main import leave
from ssd_centernet.data_service.addresses import Address
from ssd_centernet.data_service.facts import own_facts
from ssd_centernet.data_service import feed as module
from ssd_centernet.data_service.feed import Feed
from ssd_centernet.data_service.parts import is_stuck
from tests.data_service.test_feed import maker

server = socket.create_server(("127.0.0.1", 0))
# Accepts connections, and answers none.
nobody = socket.create_server(("127.0.0.1", 0))

def tell():
    global connection
    connection = server.accept()[0]
    port = nobody.getsockname()[1]
    facts = own_facts(dispatcher=port, worker=port, host="127.0.0.1", instance="a")
    connection.sendall(facts.to_line())

threading.Thread(target=tell).start()
feed = Feed([Address("127.0.0.1", server.getsockname()[1])], print)
module._ANSWER_SECONDS = 0.5
feed.batches(maker(sys.argv[1], native=False))
while feed.error is None:
    time.sleep(0.05)
print(feed.error)
feed.close()
print("stuck:", is_stuck(0.5))
leave(3)
"""


def test_a_command_ends_although_a_worker_cannot_be_asked(data_dir, warm):
    """Its dispatcher does not answer, which TensorFlow tries for ever; the ports are told."""
    ended = run(warm, "-c", _STUCK, data_dir, status=3, limit=60)
    assert "answers, but TensorFlow's data service there did not in" in ended.stdout
    assert "stuck: True" in ended.stdout
