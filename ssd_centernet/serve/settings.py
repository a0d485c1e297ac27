"""What the server allows, and the answer to what it does not."""

from __future__ import annotations

import dataclasses

# Names under which a program or a browser of this machine reaches the server.
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server allows.

    Attributes:
        hosts: names in a request's Host header that are answered, in lower case and without port;
            `*` allows any.
        min_score: lowest score of a detection that is answered, where a request names none.
        max_bytes: of the body of a request.
        max_pixels: of a picture; the header tells, and nothing larger is decoded.
        max_waiting: requests that are being answered; more are refused with 503.
        max_rate: requests with a picture that one client may make per second; 0 sets no limit.
        max_wait: seconds that a picture waits for others to fill a batch.
        seconds: that a request may take, from its head to its answer.
        stop_seconds: that the answers to accepted requests may take after a signal.
    """

    hosts: tuple[str, ...] = LOCAL_NAMES
    min_score: float = 0.3
    max_bytes: int = 16 * 2**20
    max_pixels: int = 25_000_000
    max_waiting: int = 32
    max_rate: float = 0.0
    max_wait: float = 0.005
    seconds: float = 30.0
    stop_seconds: float = 20.0

    @property
    def head_seconds(self) -> float:
        """Seconds until the head of a request is there, or of the next one of a connection."""
        return min(10.0, self.seconds)

    @property
    def max_connections(self) -> int:
        """Connections that are held open; those of health checks, and of the page, come on top."""
        return 2 * self.max_waiting + 32


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """A request that is answered with a reason instead.

    Attributes:
        status: of HTTP.
        retry: seconds after which the client may try again; None where that would not help.
    """

    def __init__(self, status: int, reason: str, *, retry: float | None = None):
        """Note the answer."""
        super().__init__(reason)
        self.status = status
        self.retry = retry


def host_of(header: str) -> str:
    """Return the name in a Host header or in an Origin: lower case, without scheme and port.

    An address of version 6 keeps its brackets.
    """
    name = header.strip().lower().rpartition("://")[2]
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    if name.count(":") > 1:  # No port is told apart from an address of version 6 without them.
        return f"[{name}]"
    return name.partition(":")[0].removesuffix(".")
