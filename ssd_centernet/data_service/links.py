"""Connections of a training to its workers, which notice when one is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time

from ssd_centernet.data_service.addresses import Address
from ssd_centernet.data_service.facts import MOST_BYTES, Facts

# A worker is lost when it has said nothing for so long. A process that is killed is noticed at
# once, one that is halted or a machine that is gone after this.
SILENCE_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a worker.

    Attributes:
        facts: of a worker that lives; None of one that does not.
        reason: why there are none.
        since: time of the last change, of `time.monotonic`.
    """

    facts: Facts | None
    reason: str
    since: float


class Link:
    """A connection to a worker, held by a thread.

    Args:
        address: of the worker.
    """

    def __init__(self, address: Address):
        self.address = address
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
                where = (self.address.host, self.address.port)
                with socket.create_connection(where, timeout=_CONNECT_SECONDS) as connection:
                    self._listen(connection)
            except OSError as error:
                self._set(None, error.strerror or str(error) or type(error).__name__)
            except ValueError as error:  # It is no worker.
                self._set(None, str(error))
            self._stopping.wait(_AGAIN_SECONDS)

    def _listen(self, connection: socket.socket) -> None:
        """Hear the facts, and then signs of life until there are none."""
        connection.settimeout(SILENCE_SECONDS)
        heard = b""
        while b"\n" not in heard:
            data = connection.recv(MOST_BYTES)
            heard += data
            if not data or len(heard) > MOST_BYTES:
                raise ValueError(f"it answers {heard[:40]!r}")
        self._set(Facts.from_line(heard.partition(b"\n")[0]), "")
        while not self._stopping.is_set():
            with contextlib.suppress(InterruptedError):
                if not connection.recv(MOST_BYTES):
                    raise OSError("it closed the connection")

    def _set(self, facts: Facts | None, reason: str) -> None:
        if facts != self._state.facts:
            self._state = State(facts, reason, time.monotonic())
        elif reason != self._state.reason:
            self._state = dataclasses.replace(self._state, reason=reason)
