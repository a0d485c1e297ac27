"""A worker: TensorFlow's dispatcher and worker in one process, and a port that tells of them.

Each worker has a dispatcher of its own. A dispatcher with several workers hands out what comes
first, or lets every worker make everything; one with a single worker keeps the order.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from ssd_centernet.data_service import records
from ssd_centernet.data_service.addresses import Address, is_loopback, resolved
from ssd_centernet.data_service.closing import close_to_others
from ssd_centernet.data_service.facts import own_facts
from ssd_centernet.data_service.proxies import without_proxy
from ssd_centernet.native import library

# Between two signs of life.
_BEAT_SECONDS = 0.25
# A training has one connection for each of its processes; strangers may ask for any number.
_MOST_CONNECTIONS = 256
# Trainings that ask about record files at the same time, and the seconds that one may take to ask.
_MOST_QUESTIONS = 16
_ASKING_SECONDS = 30.0
# A training that is gone leaves its part of the work here for so long.
_FORGOTTEN_SECONDS = 60


@contextlib.contextmanager
def data_worker(host: str, port: int, *, closed_network: bool = False) -> Iterator[Address]:
    """Make batches for trainings, while the block runs.

    Args:
        host: address of this machine under which trainings reach it. Of the loopback, others are
            kept out.
        port: that trainings are given; the next two are TensorFlow's. 0 takes any three.
        closed_network: whether nobody but those who are trusted reaches this machine: TensorFlow's
            servers run what anyone sends them.

    Yields:
        Where it listens.

    Raises:
        ValueError: other machines reach the address, and it is not said that their network is
            closed; or an address that means several.
        OSError: a port is taken, the address is none of this machine, or others cannot be kept out.
    """
    if _means_all(host):
        raise ValueError(
            f"--host={host} stands for all addresses of this machine; expected the one under which "
            "the training reaches it, such as 10.0.0.5."
        )
    if not is_loopback(host) and not closed_network:
        raise ValueError(
            f"--host={host} lets other machines reach TensorFlow's data service, which asks nobody "
            "for a password and runs any graph that it is sent: whoever reaches its ports can read "
            "and write files as you. If nobody whom you do not trust reaches them, say so by "
            "--closed_network; else leave --host out."
        )
    with contextlib.ExitStack() as stack:
        if port:
            stack.enter_context(_taking(range(port, port + 3)))
        listener = _listen(host, port)
        stack.callback(listener.close)
        without_proxy("localhost", host)
        first = listener.getsockname()[1]
        ports = (first + 1, first + 2) if port else (0, 0)
        dispatcher = _dispatcher(ports[0])
        stack.callback(dispatcher.stop)
        target = int(dispatcher.target.rpartition(":")[2])
        worker = _worker(host, target, ports[1])
        stack.callback(worker.stop)
        last = ports[1] or _port_of(worker)
        if is_loopback(host):
            _keep_others_out(target, last, closed_network)
        with contextlib.suppress(ValueError):  # Then trainings that use them are told so.
            library.load()
        facts = own_facts(dispatcher=target, worker=last, host=host, instance=secrets.token_hex(8))
        stopping = threading.Event()
        teller = threading.Thread(
            target=_tell, args=(listener, facts.to_line(), stopping), daemon=True
        )
        teller.start()
        stack.callback(teller.join)
        stack.callback(stopping.set)
        yield Address(host, first)


def _means_all(host: str) -> bool:
    """Tell whether an address, however it is written, stands for all of this machine."""
    if host in ("", "::"):
        return True
    try:
        return resolved(host).is_unspecified
    except OSError:  # To listen there says why.
        return False


@contextlib.contextmanager
def _taking(ports: Sequence[int]) -> Iterator[None]:
    """Refuse ports that another program has, and keep other workers from them in the block.

    TensorFlow's servers share their ports with others (SO_REUSEPORT), without an error.
    """
    with contextlib.ExitStack() as stack:
        for port in ports:
            if sys.platform.startswith("linux"):
                # A name that the kernel forgets with the process: two workers that start at the
                # same time would both find the ports free.
                mark = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                _bind(mark, f"\0ssd_centernet data_worker {port}", port)
            for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                try:
                    one = socket.socket(family, socket.SOCK_STREAM)
                except OSError:  # No version 6 here.
                    continue
                with one:
                    # Refuses those that listen, but not what is left of closed connections.
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    _bind(one, (every, port), port)
        yield


def _bind(one: socket.socket, where: str | tuple[str, int], port: int) -> None:
    try:
        one.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:  # Version 6 is switched off.
            return
        raise _refused(port, error) from error


def _refused(port: int, error: OSError) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return OSError(_taken(port))
    why = ""
    if error.errno == errno.EACCES and port < 1024:
        why = " Ports below 1024 are for the administrator alone: give a larger --port."
    return OSError(f"port {port} cannot be opened: {error.strerror or error}.{why}")


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise OSError(
                f"--host={host} is no address of version 4 of this machine ({error.strerror}); "
                "expected one, or its name."
            ) from error
        raise _refused(port, error) from error
    return listener


def _taken(port: int) -> str:
    return (
        f"port {port} is taken by another program. A worker takes --port and the two after it: "
        "give another --port, or 0 for any that are free."
    )


def _dispatcher(port: int) -> tf.data.experimental.service.DispatchServer:
    service = tf.data.experimental.service
    config = service.DispatcherConfig(
        port=port,
        job_gc_check_interval_ms=10_000,
        job_gc_timeout_ms=_FORGOTTEN_SECONDS * 1000,
    )
    try:
        return service.DispatchServer(config)
    except tf.errors.OpError as error:
        raise OSError(_taken(port)) from error


def _worker(host: str, dispatcher: int, port: int) -> tf.data.experimental.service.WorkerServer:
    service = tf.data.experimental.service
    config = service.WorkerConfig(
        dispatcher_address=f"localhost:{dispatcher}",
        worker_address=f"{host}:%port%",
        port=port,
        heartbeat_interval_ms=1000,
    )
    try:
        return service.WorkerServer(config)
    except tf.errors.OpError as error:
        raise OSError(_taken(port)) from error


def _port_of(worker: tf.data.experimental.service.WorkerServer) -> int:
    # There is no public name for it. With a port that was given none is needed.
    return int(worker._address.rpartition(":")[2])


def _keep_others_out(dispatcher: int, worker: int, closed_network: bool) -> None:
    try:
        close_to_others([dispatcher, worker])
    except OSError as error:
        if not closed_network:
            raise OSError(
                "TensorFlow's data service listens on all interfaces, asks nobody for a password "
                f"and runs any graph that it is sent, and others cannot be kept out: {error}. If "
                "nobody whom you do not trust reaches this machine, say so by --closed_network."
            ) from error


def _tell(listener: socket.socket, line: bytes, stopping: threading.Event) -> None:
    """Tell everybody who connects what this worker is, and then that it lives."""
    told: list[socket.socket] = []
    listener.settimeout(_BEAT_SECONDS)
    try:
        while not stopping.is_set():
            told = [one for one in told if _sent(one, b"\n")]
            for one in _asking(told):
                told.remove(one)
                _answer_aside(one)
            with contextlib.suppress(TimeoutError):
                one, _ = listener.accept()
                one.setblocking(False)
                if len(told) < _MOST_CONNECTIONS and _sent(one, line):
                    told.append(one)
                else:
                    one.close()
    except OSError as error:
        logging.error("the data service cannot be asked any more: %s", error)
    finally:
        for one in told:
            one.close()


def _sent(one: socket.socket, data: bytes) -> bool:
    try:
        one.sendall(data)
        return True
    except OSError:  # Gone, or it does not read.
        one.close()
        return False


def _asking(told: Sequence[socket.socket]) -> list[socket.socket]:
    """Return the connections on which something was said, or which are closed there."""
    waiting = select.poll()
    for one in told:
        waiting.register(one, select.POLLIN)
    numbers = {number for number, _ in waiting.poll(0)}
    return [one for one in told if one.fileno() in numbers]


def _answer_aside(one: socket.socket) -> None:
    """Answer a question about record files in a thread, which ends the connection."""
    if not _questions.acquire(blocking=False):
        one.close()
        return
    threading.Thread(target=_answer, args=(one,), daemon=True).start()


def _answer(one: socket.socket) -> None:
    try:
        with one:
            deadline, heard = time.monotonic() + _ASKING_SECONDS, bytearray()
            while not heard.endswith(b"\n"):
                one.settimeout(max(deadline - time.monotonic(), 0.001))
                data = one.recv(1 << 20)
                if not data or len(heard) > records.MOST_BYTES:
                    return
                heard += data
            answer = records.answer(bytes(heard))
            one.settimeout(_ASKING_SECONDS)
            one.sendall(answer)
    except (OSError, ValueError, RecursionError):  # It is no training, or gone.
        pass
    finally:
        _questions.release()


_questions = threading.BoundedSemaphore(_MOST_QUESTIONS)
