"""What is looked at before a request reaches the application: its host, its origin, its rate."""

from __future__ import annotations

import collections
import ipaddress
import math
import time
from collections.abc import Callable, Mapping

from ssd_centernet.serve.settings import Refused, host_of

# Sent with every answer: nothing here is for other sites.
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def check_host(headers: Mapping[str, str], hosts: tuple[str, ...]) -> None:
    """Refuse a request for another name, and one that a page of another site makes.

    A page of a stranger can make a browser ask this machine under a name of the stranger's (DNS
    rebinding), or send it pictures without reading the answers.

    Args:
        headers: of the request, names in lower case.
        hosts: names that are answered.

    Raises:
        Refused: the Host header has another name, or the Origin is another host.
    """
    name = host_of(headers.get("host", ""))
    if "*" not in hosts and name not in hosts:
        raise Refused(
            403,
            f"The Host header names {name or 'nobody'}, which is not answered. Allow a name with "
            "--allowed_hosts where the server is started.",
        )
    origin = headers.get("origin")
    if origin is not None and origin.rpartition("://")[2] != headers.get("host", ""):
        raise Refused(403, "A page of another site asks, which is not answered.")
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != (
        "navigate"
    ):
        raise Refused(403, "A page of another site asks, which is not answered.")


class Rates:
    """Allow each client so many requests a second, and twice as many at once."""

    def __init__(
        self,
        per_second: float,
        *,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin without any client.

        Args:
            per_second: requests a second; 0 sets no limit.
            clients: how many are remembered; those not seen for longest are forgotten.
            clock: seconds that only grow.
        """
        self._per_second = per_second
        self._most = max(1.0, 2 * per_second)
        self._clients = clients
        self._clock = clock
        # Client -> requests that it may make now, and when that was so.
        self._left: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def take(self, address: str) -> None:
        """Count a request.

        Args:
            address: of the client. Of version 6 the network counts, of which one client has all.

        Raises:
            Refused: too many came from there.
        """
        if not self._per_second:
            return
        client, now = _client(address), self._clock()
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        if len(self._left) > self._clients:
            self._left.popitem(last=False)
        if not allowed:
            retry = max(1.0, math.ceil((1.0 - left) / self._per_second))
            raise Refused(429, f"More than {self._per_second:g} requests a second.", retry=retry)

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._left)


def _client(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False))
