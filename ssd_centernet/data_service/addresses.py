"""Addresses of workers."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Sequence

PORT = 5050


@dataclasses.dataclass(frozen=True, order=True)
class Address:
    """Where a worker listens: a name or an address of version 4, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"grpc://{self.host}:{self.port}"


def parse_addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    """Read addresses as they are given to `--data_service`.

    Args:
        texts: such as grpc://10.0.0.5:5050 or localhost:5050.

    Raises:
        ValueError: one is no address, or stands there twice.
    """
    found = []
    for text in texts:
        match = re.fullmatch(r"(?:grpc://)?([A-Za-z0-9._-]+):(\d{1,5})/?", text.strip())
        if not match or not 0 < int(match[2]) < 2**16:
            raise ValueError(
                f"--data_service has {text!r}; expected grpc://HOST:PORT, as "
                "`ssd_centernet data_worker` prints it, and commas between several."
            )
        found.append(Address(match[1], int(match[2])))
    again = [one for one in found if found.count(one) > 1]
    if again:
        raise ValueError(
            f"--data_service names {again[0]} twice; expected each worker once, as each makes a "
            "part of the batches of its own."
        )
    return tuple(found)


def resolved(host: str) -> ipaddress.IPv4Address:
    """Return the address of version 4 that a name, or another way to write one, stands for.

    Raises:
        OSError: there is none.
    """
    return ipaddress.IPv4Address(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])


def is_loopback(host: str) -> bool:
    """Tell whether an address, or localhost, is reached by programs of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
