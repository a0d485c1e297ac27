"""`python -m tests.faults.armed SOCKET|- RECORD PROGRAM ARGUMENTS`: run a program watched.

PROGRAM is a module, such as ssd_centernet, or a file NAME.py.

The process asks the kernel to stop it before every call that may change a file, and hands the end
at which it is let go on to who listens on SOCKET; with `-` nobody stops it. Programs that it starts
are written to the file RECORD.
"""

from __future__ import annotations

import array
import ctypes
import os
import runpy
import socket
import struct
import sys

# Numbers of the system calls of x86-64, and which argument holds the flags of those that open.
CALLS = {
    "write": 1,
    "open": 2,
    "pwrite64": 18,
    "writev": 20,
    "sendfile": 40,
    "truncate": 76,
    "ftruncate": 77,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "creat": 85,
    "link": 86,
    "unlink": 87,
    "symlink": 88,
    "openat": 257,
    "mkdirat": 258,
    "unlinkat": 263,
    "renameat": 264,
    "linkat": 265,
    "symlinkat": 266,
    "fallocate": 285,
    "pwritev": 296,
    "renameat2": 316,
    "copy_file_range": 326,
    "pwritev2": 328,
}
_FLAGS = {"open": 1, "openat": 2}

_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_NO_NEW_PRIVILEGES = 38
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ARGUMENTS = 16  # Offset of the arguments, 8 bytes each, in what the filter sees.


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter() -> bytes:
    """Make the filter, instructions of (code, jump if true, jump if false, value)."""
    made = [(_LOAD, 0, 0, 0)]
    for name, number in CALLS.items():
        if name in _FLAGS:
            made += [
                (_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _ARGUMENTS + 8 * _FLAGS[name]),
                (_ANY_BIT, 0, 1, os.O_CREAT | os.O_TRUNC),
                (_RETURN, 0, 0, _NOTIFY),
                (_RETURN, 0, 0, _ALLOW),
            ]
        else:
            made += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
    made.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *one) for one in made)


def install() -> int:
    """Have the kernel stop this process, and those that it forks, before calls that change files.

    Returns:
        A descriptor that tells of each such call.

    Raises:
        OSError: this kernel, or its settings, do not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(_filter())
    program = _Program(len(code) // 8, ctypes.addressof(code))
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    found = libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if found < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return found


def _record(path: str) -> None:
    """Write down every program that Python starts from now on."""
    events = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")

    def hook(event: str, arguments: tuple) -> None:
        if event in events:
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{event} {arguments[:2]!r}\n")

    sys.addaudithook(hook)


def main() -> None:
    """Run the program."""
    address, record, program, *arguments = sys.argv[1:]
    _record(record)
    if address != "-":
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(address)
            listener = array.array("i", [install()])
            # Sent, not written: nobody would let it go on before.
            server.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, listener)])
        os.close(listener[0])
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
