"""Connections of a training to its workers, which notice when one is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time

from ssd_centernet.data_service.addresses import Address
from ssd_centernet.data_service.facts import MOST_BYTES, Facts, own_facts
from ssd_centernet.data_service.proxies import without_proxy

# A worker is lost when it has said nothing for so long. A process that is killed is noticed at
# once, one that is halted or a machine that is gone after this.
SILENCE_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
# A worker may take so long to look at its record files.
_COMPARE_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a worker.

    Attributes:
        facts: of a worker that lives; None of one that does not.
        reason: why there are none.
        since: time of the last change, of `time.monotonic`.
        difference: how the records that it reads differ from those of the training; '' of none.
    """

    facts: Facts | None
    reason: str
    since: float
    difference: str = ""


class Link:
    """A connection to a worker, held by a thread.

    Args:
        address: of the worker.
        question: what it is asked about its record files (`records.question`); b'' asks nothing.
    """

    def __init__(self, address: Address, question: bytes = b""):
        self.address, self._question = address, question
        self._state = State(None, "it was not asked yet", time.monotonic())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    @property
    def state(self) -> State:
        """What is known now."""
        return self._state

    def close(self) -> None:
        """End it, without waiting."""
        self._stopping.set()

    def _hold(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._connect() as connection:
                    self._listen(connection)
            except OSError as error:
                self._set(None, error.strerror or str(error) or type(error).__name__)
            except ValueError as error:  # It is no worker.
                self._set(None, str(error))
            self._stopping.wait(_AGAIN_SECONDS)

    def _connect(self) -> socket.socket:
        where = (self.address.host, self.address.port)
        return socket.create_connection(where, timeout=_CONNECT_SECONDS)

    def _listen(self, connection: socket.socket) -> None:
        """Hear the facts, and then signs of life until there are none."""
        connection.settimeout(SILENCE_SECONDS)
        facts = Facts.from_line(_line(connection))
        self._reach(facts)
        difference = self._ask(facts) if self._question else ""
        self._set(facts, "", difference)
        while not self._stopping.is_set():
            with contextlib.suppress(InterruptedError):
                if not connection.recv(MOST_BYTES):
                    raise OSError("it closed the connection")

    def _reach(self, facts: Facts) -> None:
        """Try the ports of TensorFlow's servers, whose client would wait for ever."""
        ours = self.address.host
        without_proxy(ours, facts.host)
        for host, port in ((ours, facts.dispatcher), (facts.host, facts.worker)):
            try:
                socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
            except OSError as error:
                raise OSError(
                    f"it answers at port {self.address.port}, but {host}:{port}, of TensorFlow's "
                    f"data service there, cannot be reached ({error.strerror or error}): open "
                    f"ports {self.address.port}, {facts.dispatcher} and {facts.worker} to the "
                    "training"
                ) from error

    def _ask(self, facts: Facts) -> str:
        """Let the worker compare its record files; return the difference."""
        if facts.package != own_facts().package:
            return ""  # It may know no such question; the versions are what is told.
        with self._connect() as connection:
            connection.settimeout(_COMPARE_SECONDS)
            _line(connection)
            connection.sendall(self._question)
            heard = _line(connection)
            told = json.loads(heard)
        if not isinstance(told, str):
            raise ValueError(f"it answers {heard[:40]!r}")
        return told

    def _set(self, facts: Facts | None, reason: str, difference: str = "") -> None:
        if (facts, difference) != (self._state.facts, self._state.difference):
            self._state = State(facts, reason, time.monotonic(), difference)
        elif reason != self._state.reason:
            self._state = dataclasses.replace(self._state, reason=reason)


def _line(connection: socket.socket) -> bytes:
    """Hear a line that is not empty, as signs of life are."""
    heard = b""
    while b"\n" not in heard:
        data = connection.recv(MOST_BYTES)
        heard = (heard + data).lstrip(b"\n")
        if not data or len(heard) > MOST_BYTES:
            raise ValueError(f"it answers {heard[:40]!r}")
    return heard.partition(b"\n")[0]
