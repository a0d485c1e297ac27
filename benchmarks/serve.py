"""Put load on `ssd_centernet serve` on this machine, bad requests included, and watch its memory.

    python benchmarks/serve.py --model_dir=runs/demo/model
    python benchmarks/serve.py --model=exported/demo/model.tflite --requests=2000

Starts the server on a free port of 127.0.0.1, and asks it from --clients threads: pictures alone
first, one client and then all; then --requests in all, of which one in four is a picture cut off, a
bomb, a form without a file, nonsense, a client that goes away, ... Clients that hold their sockets
open and send a byte a second are there the whole time. Then the server gets SIGTERM while requests
wait. Prints requests a second, percentiles of the seconds, and the memory, threads and open files
of the server. Ends with status 1 where an answer is another than the expected one, where memory
grows by more than --growth megabytes from the third phase to the fourth, which are alike, or where
the server does not end by itself. It stops by itself after --seconds.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import psutil
import traffic

_MEGABYTE = 2**20
_START_SECONDS = 300.0
# A tenth of the requests comes from one client alone, a tenth from all of them, both good.
_SHARES = {"one client": 0.1, "all clients": 0.3, "bad ones too": 0.3, "bad ones again": 0.3}
_MOST_TOLD = 20


class Server:
    """The server in a process of its own."""

    def __init__(self, arguments: Sequence[str]):
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "ssd_centernet", "serve", "--port=0", *arguments]
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        timer = threading.Timer(_START_SECONDS, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.search(r"http://\S+:(\d+)/", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}")
        self.port = int(found[1])
        self.watched = psutil.Process(self.process.pid)

    def facts(self) -> dict[str, float]:
        """Return its memory in megabytes, its threads and its open files."""
        with self.watched.oneshot():
            return {
                "memory": self.watched.memory_info().rss / _MEGABYTE,
                "threads": self.watched.num_threads(),
                "files": self.watched.num_fds(),
            }


class Memory:
    """Look at the memory of the server four times a second."""

    def __init__(self, server: Server):
        """Begin to look."""
        self.peak = 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.25):
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak, self._server.facts()["memory"])

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


class Load:
    """Ask, and keep what came back.

    Attributes:
        seconds: of each good request that was answered.
        counts: (kind, status) -> how often.
        wrong: answers that were not expected, in words.
    """

    def __init__(self, port: int, until: float):
        """Take the port, and the time when nothing is asked any more."""
        self.port = port
        self.seconds: list[float] = []
        self.counts: collections.Counter = collections.Counter()
        self.wrong: list[str] = []
        self._until = until
        self._lock = threading.Lock()

    def one(self, kind: traffic.Kind) -> None:
        """Make one request."""
        if time.monotonic() > self._until:
            return
        began = time.monotonic()
        try:
            status = kind.send(self.port)
        except OSError as error:
            status = f"{type(error).__name__}: {error}"
        took = time.monotonic() - began
        with self._lock:
            self.counts[kind.name, status] += 1
            if status == 200:
                self.seconds.append(took)
            if status not in (*kind.expected, traffic.BUSY):
                self.wrong.append(f"{kind.name}: {status}, expected {kind.expected}")

    def many(self, kinds: Iterator[traffic.Kind], number: int, clients: int) -> float:
        """Make so many requests from so many threads; return how many were answered a second."""
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(self.one, itertools.islice(kinds, number)))
        return number / (time.monotonic() - began)


@contextlib.contextmanager
def slow_clients(port: int, number: int) -> Iterator[None]:
    """Hold connections open that send a byte a second, of a head or of a body, and begin anew."""
    stop = threading.Event()
    heads = (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", traffic.head(100_000))

    def drip(index: int) -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection((traffic.HOST, port), timeout=5) as client,
            ):
                client.sendall(heads[index % 2])
                while not stop.wait(1.0):
                    client.sendall(b"a")
            stop.wait(0.2)

    with concurrent.futures.ThreadPoolExecutor(max(1, number)) as pool:
        for index in range(number):
            pool.submit(drip, index)
        try:
            yield
        finally:
            stop.set()


def mixed(good: Sequence[traffic.Kind], rest: Sequence[traffic.Kind]) -> Iterator[traffic.Kind]:
    """Yield three good ones, then one of the rest, for ever."""
    goods, others = itertools.cycle(good), itertools.cycle(rest)
    while True:
        yield from itertools.islice(goods, 3)
        yield next(others)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the tail, in milliseconds."""
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    named = {"50 %": cuts[49], "95 %": cuts[94], "99 %": cuts[98], "most": max(seconds)}
    return {name: 1000 * value for name, value in named.items()}


def phases(server: Server, options: argparse.Namespace, report: dict) -> list[str]:
    """Go through the phases; return what was wrong."""
    good = traffic.good()
    rest = [*traffic.bad(options.max_megabytes * _MEGABYTE), *traffic.rude()]
    until = time.monotonic() + options.seconds
    mixture = mixed(good, rest)
    wrong, statuses = [], collections.Counter()
    for name, share in _SHARES.items():
        load = Load(server.port, until)
        kinds = itertools.cycle(good) if "bad" not in name else mixture
        clients = 1 if name == "one client" else options.clients
        slow = options.slow if "bad" in name else 0
        with slow_clients(server.port, slow):
            rate = load.many(kinds, round(options.requests * share), clients)
        report["phases"][name] = {"requests": sum(load.counts.values()), "rate": rate}
        report["phases"][name] |= percentiles(load.seconds) | server.facts()
        wrong += load.wrong
        statuses.update(load.counts)
    report["answers"] = {
        f"{kind}: {status}": n for (kind, status), n in sorted(statuses.items(), key=str)
    }
    done = sum(statuses.values())
    if done < options.requests * 0.99:
        wrong.append(f"{done} of {options.requests} requests were made in {options.seconds} s")
    return wrong


def stopped_at_work(server: Server, report: dict, clients: int) -> list[str]:
    """Send SIGTERM while requests wait: those that were accepted are answered."""
    picture = traffic.encoded(traffic.scene(3, 640, 480), "JPEG")
    sent = threading.Barrier(clients + 1)

    def one(_index: int) -> int | None:
        with socket.create_connection((traffic.HOST, server.port), timeout=60) as client:
            client.sendall(traffic.head(len(picture)) + picture[:-1])
            sent.wait(30)
            time.sleep(0.3)  # Until the signal has come.
            client.sendall(picture[-1:])
            return traffic.status_of(client.recv(1 << 16))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        answers = [pool.submit(one, index) for index in range(clients)]
        sent.wait(30)
        time.sleep(0.1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        statuses = [answer.result() for answer in answers]
        status = server.process.wait(60)
    report["stop"] = {"seconds": time.monotonic() - began, "status": status, "answers": statuses}
    wrong = [] if status == 0 else [f"the server ended with status {status}"]
    return wrong + [f"a request got {one} at the end" for one in statuses if one != 200]


def tell(report: dict) -> None:
    """Print the figures."""
    columns = ("requests", "rate", "50 %", "95 %", "99 %", "most", "memory", "threads", "files")
    print(f"{'':20}" + "".join(f"{name:>10}" for name in columns))
    for name, row in report["phases"].items():
        cells = [
            f"{row[key]:>10.{0 if key in ('requests', 'threads', 'files') else 1}f}"
            if key in row
            else f"{'':>10}"
            for key in columns
        ]
        print(f"{name:20}" + "".join(cells))
    print("rate: requests a second; % : milliseconds of those with status 200; memory: MiB")
    print(
        f"memory before the first request {report['before']['memory']:.0f} MiB, most ever "
        f"{report['peak']:.0f} MiB, grown by {report['growth']:.1f} MiB in the last phase"
    )
    stop = report["stop"]
    print(
        f"SIGTERM with {len(stop['answers'])} requests waiting: ended after "
        f"{stop['seconds']:.1f} s with status {stop['status']}"
    )
    for line in report["wrong"][:_MOST_TOLD]:
        print(f"WRONG {line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_dir", help="the run that is served")
    parser.add_argument("--model", help="the exported file that is served")
    parser.add_argument("--requests", type=int, default=10_000, help="in all (10000)")
    parser.add_argument("--clients", type=int, default=16, help="threads that ask (16)")
    parser.add_argument("--slow", type=int, default=10, help="connections that drip (10)")
    parser.add_argument("--seconds", type=float, default=1800.0, help="most of all (1800)")
    parser.add_argument("--growth", type=float, default=100.0, help="MiB that are none (100)")
    parser.add_argument("--max_megabytes", type=int, default=4, help="most of a body (4)")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args(argv)
    if (options.model_dir is None) == (options.model is None) or options.requests < 100:
        parser.error("give --model_dir or --model, and at least 100 --requests")
    source = f"--model_dir={options.model_dir}" if options.model_dir else f"--model={options.model}"
    server = Server([source, f"--max_megabytes={options.max_megabytes}"])
    report: dict = {"before": server.facts(), "phases": {}}
    memory = Memory(server)
    try:
        wrong = phases(server, options, report)
        wrong += stopped_at_work(server, report, min(8, options.clients))
    finally:
        memory.stop()
        server.process.kill()
        server.process.wait()
    kept = [row["memory"] for row in report["phases"].values()]
    report |= {"peak": memory.peak, "growth": kept[-1] - kept[-2], "wrong": wrong}
    if report["growth"] > options.growth:
        wrong.append(f"memory grew by {report['growth']:.0f} MiB")
    tell(report)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
