"""Whom the server answers: names, pages of other sites, and clients that ask too often."""

import asyncio
import json

import pytest

from ssd_centernet.data_service.addresses import is_loopback
from ssd_centernet.labels import LabelMap
from ssd_centernet.serve.app import App
from ssd_centernet.serve.guard import Rates, check_host
from ssd_centernet.serve.running import listen, warning_of
from ssd_centernet.serve.settings import LOCAL_NAMES, Refused, Settings, host_of
from tests.serve.serving import need_packages


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost"},
        {"host": "LOCALHOST:8080"},
        {"host": "127.0.0.1:8080"},
        {"host": "[::1]:8080"},
        {"host": "localhost.:8080"},
        {
            "host": "localhost:8080",
            "origin": "http://localhost:8080",
            "sec-fetch-site": "same-origin",
        },
        {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_this_machine_is_answered(headers):
    check_host(headers, LOCAL_NAMES)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8080"},
        {"host": "evil.example:80@localhost"},
        {"host": "192.0.2.1"},
        {"host": "[::2]:8080"},
        {"host": "localhost:8080", "origin": "http://evil.example"},
        {"host": "localhost:8080", "origin": "null"},
        # Another program of this machine is another site.
        {"host": "localhost:8080", "origin": "http://localhost:3000"},
        {"host": "localhost:8080", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_other_names_and_pages_of_other_sites_are_not(headers):
    with pytest.raises(Refused) as caught:
        check_host(headers, LOCAL_NAMES)
    assert caught.value.status == 403


def test_a_name_that_is_allowed_is_answered_and_any_with_a_star():
    check_host({"host": "detect.example.org:443"}, (*LOCAL_NAMES, "detect.example.org"))
    check_host({"host": "what.ever"}, ("*",))
    # As --allowed_hosts may be given it, and as clients write it.
    check_host({"host": "[2001:DB8::5]:8080"}, (host_of("2001:db8::5"),))


def test_a_request_over_too_many_connections_is_told_to_come_again():
    need_packages()
    labels = LabelMap(["disc"])
    app, sent = App(settings=Settings(), labels=labels, facts={"version": "1"}), []
    scope = {
        "type": "http",
        "path": "/model",
        "method": "GET",
        "headers": [(b"host", b"localhost")],
    }

    async def send(message):
        sent.append(message)

    for count, status in ((96, 200), (97, 503)):
        app.connections = lambda count=count: count
        asyncio.run(app(dict(scope), None, send))
        start, body = sent[-2:]
        assert start["status"] == status
    assert (b"retry-after", b"1") in start["headers"]
    assert "Too many connections" in json.loads(body["body"])["error"]


def test_a_client_that_asks_too_often_waits_as_long_as_it_is_told():
    now = [100.0]
    rates = Rates(2.0, clock=lambda: now[0])
    for _ in range(4):  # Twice as many at once.
        rates.take("192.0.2.1")
    with pytest.raises(Refused) as caught:
        rates.take("192.0.2.1")
    assert caught.value.status == 429 and caught.value.retry == 1
    rates.take("192.0.2.2")  # Another client is not to blame.
    now[0] += 1.0
    rates.take("192.0.2.1")
    rates.take("192.0.2.1")
    with pytest.raises(Refused):
        rates.take("192.0.2.1")


def test_one_network_of_version_6_is_one_client_and_an_embedded_address_its_own():
    rates = Rates(0.5, clock=lambda: 0.0)
    rates.take("2001:db8::1")
    with pytest.raises(Refused):
        rates.take("2001:db8::ffff:1")
    rates.take("2001:db8:0:1::1")
    rates.take("::ffff:192.0.2.1")
    rates.take("::ffff:192.0.2.2")


def test_the_memory_of_clients_is_bounded_and_no_rate_remembers_none():
    rates = Rates(1.0, clients=100, clock=lambda: 0.0)
    for number in range(1000):
        rates.take(f"198.51.100.{number}")
    assert len(rates) == 100
    unlimited = Rates(0.0)
    for _ in range(100):
        unlimited.take("192.0.2.1")
    assert not len(unlimited)


def test_addresses_of_this_machine_are_known_and_others_are_warned_of():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "example.org")))
    assert warning_of("127.0.0.1", 1) is None
    assert "asks nobody for a password" in warning_of("0.0.0.0", 80)


def test_a_port_that_is_taken_is_told():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"--port={port} .* another program has it"):
            listen("127.0.0.1", port)
    with pytest.raises(OSError, match="--host=no.such.host.invalid is no address"):
        listen("no.such.host.invalid", 0)
