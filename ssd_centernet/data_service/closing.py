"""Ports that TensorFlow opens to everybody, closed to other machines by the kernel.

TensorFlow's servers listen on all interfaces, and cannot be told otherwise. A filter of packets on
the listening socket, which any process may set on its own sockets in Linux, and which connections
inherit, lets nothing in that does not come from this machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26
# Offset of a packet's network header, in instructions.
_NETWORK = -0x100000
# Instructions of the kernel's filter language.
_LOAD_WORD, _LOAD_BYTE = 0x20, 0x30
_SHIFT, _AND, _EQUAL, _RETURN = 0x74, 0x54, 0x15, 0x06
_ALL = 0xFFFFFFFF
# (operation, jump if true, jump if false, number): packets whose source is 127.0.0.0/8 or ::1.
_FROM_THIS_MACHINE = (
    (_LOAD_BYTE, 0, 0, _NETWORK),
    (_SHIFT, 0, 0, 4),
    (_EQUAL, 0, 3, 4),
    (_LOAD_WORD, 0, 0, _NETWORK + 12),
    (_AND, 0, 0, 0xFF000000),
    (_EQUAL, 10, 9, 0x7F000000),
    (_EQUAL, 0, 8, 6),
    (_LOAD_WORD, 0, 0, _NETWORK + 8),
    (_EQUAL, 0, 6, 0),
    (_LOAD_WORD, 0, 0, _NETWORK + 12),
    (_EQUAL, 0, 4, 0),
    (_LOAD_WORD, 0, 0, _NETWORK + 16),
    (_EQUAL, 0, 2, 0),
    (_LOAD_WORD, 0, 0, _NETWORK + 20),
    (_EQUAL, 1, 0, 1),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)


def close_to_others(ports: Sequence[int]) -> None:
    """Let only this machine reach ports that this process listens on.

    Args:
        ports: each open in this process.

    Raises:
        OSError: this system cannot do it, or a port is not open here.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"packets cannot be filtered on {sys.platform}, only on Linux")
    left = set(ports)
    for one in _sockets():
        with one:
            if _is_open_at(one, ports):
                _filter(one)
                left.discard(one.getsockname()[1])
    if left:
        raise OSError(f"no socket of this process listens at port {min(left)}")


def _sockets() -> list[socket.socket]:
    """Return copies of the handles of all sockets of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.append(socket.socket(fileno=os.dup(int(name))))
        except OSError:  # Closed meanwhile.
            continue
    return found


def _is_open_at(one: socket.socket, ports: Sequence[int]) -> bool:
    if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
        return False
    listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return bool(listens) and one.getsockname()[1] in ports


def _filter(one: socket.socket) -> None:
    packed = b"".join(struct.pack("HBBI", *row[:3], row[3] & _ALL) for row in _FROM_THIS_MACHINE)
    program = ctypes.create_string_buffer(packed, len(packed))
    head = struct.pack("HL", len(_FROM_THIS_MACHINE), ctypes.addressof(program))
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
