"""The other end of `armed.py`: tells of each change of a file before it is made."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.armed import CALLS, install
from tests.process import Ended, Running

_NAMES = {number: name for name, number in CALLS.items()}
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
# Calls by where the file that they change is named: the arguments that hold a descriptor, a path,
# or a descriptor of a folder and a path below it.
_DESCRIPTOR = {
    **dict.fromkeys(("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile"), 0),
    **dict.fromkeys(("ftruncate", "fallocate"), 0),
    "copy_file_range": 2,
}
_PATHS = {
    **dict.fromkeys(("open", "creat", "truncate", "mkdir", "rmdir", "unlink"), (0,)),
    **dict.fromkeys(("rename", "link"), (0, 1)),
    "symlink": (1,),
}
_BELOW = {
    **dict.fromkeys(("openat", "mkdirat", "unlinkat"), (0,)),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), (0, 2)),
    "symlinkat": (1,),
}
_LONGEST = 1 << 26


def missing() -> str | None:
    """Say why this machine cannot watch a process; None if it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "processes are watched on Linux on x86-64 alone"
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(install())
            status = 0
        except OSError:
            pass
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        return "the kernel, or the container, does not allow seccomp's notifications"
    return None


@dataclass
class Operation:
    """A change of a file that is about to be made.

    Attributes:
        number: of this operation, from 1.
        call: name of the system call.
        paths: the files, relative to the watched folder; those outside it are not told.
        half: of a write the first half of its bytes and where they go in the file, else None.
        alone: whether the thread before this one cannot be at work any more.
    """

    number: int
    call: str
    paths: tuple[str, ...]
    pid: int
    half: tuple[int, bytes] | None = field(default=None, repr=False)
    alone: bool = True
    killed: bool = False

    def __str__(self) -> str:
        return f"{self.number}: {self.call} {' '.join(self.paths)}"

    def kill(self) -> None:
        """End the command, all of its processes, before the change."""
        self.killed = True
        os.killpg(os.getpgid(self.pid), signal.SIGKILL)


class Watched:
    """A command that is told of at each of its changes below a folder."""

    def __init__(self, running: Running, listener: int, root: Path) -> None:
        self._running, self._listener = running, listener
        self._root = os.path.realpath(root)
        self._last = 0

    def operations(self) -> Iterator[Operation]:
        """Yield each change while the command waits before it; it goes on when the next is asked.

        The command has ended, or was killed, where there is no next one.
        """
        number = 0
        events = select.poll()
        events.register(self._listener, select.POLLIN)
        while not any(kind & (select.POLLHUP | select.POLLERR) for _, kind in events.poll(200)):
            request = bytearray(80)
            try:
                if not events.poll(0):
                    if self._running.process.poll() is not None:
                        return
                    continue
                fcntl.ioctl(self._listener, _RECEIVE, request)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # The thread is gone.
                    continue
                raise
            which, thread, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", request)
            operation = self._operation(number + 1, thread, _NAMES[call], arguments)
            if operation is not None:
                number += 1
                yield operation
                if operation.killed:
                    return
            with contextlib.suppress(FileNotFoundError):
                fcntl.ioctl(self._listener, _SEND, struct.pack("QqiI", which, 0, 0, _CONTINUE))

    def finish(self, **options) -> Ended:
        """Wait for the end of the command, see `Running.finish`."""
        return self._running.finish(**options)

    def _operation(self, number: int, thread: int, call: str, arguments) -> Operation | None:
        process = f"/proc/{thread}"
        half = None
        try:
            if call in _DESCRIPTOR:
                handle = arguments[_DESCRIPTOR[call]]
                paths = [os.readlink(f"{process}/fd/{handle}")]
            elif call in _PATHS:
                paths = [_path(process, None, arguments[i]) for i in _PATHS[call]]
            else:
                paths = [_path(process, arguments[i], arguments[i + 1]) for i in _BELOW[call]]
            inside = [os.path.relpath(p, self._root) for p in paths if self._holds(p)]
            if not inside:
                return None
            if call in ("write", "pwrite64") and arguments[2] > 1:
                offset = arguments[3] if call == "pwrite64" else _offset(process, handle)
                half = (offset, _memory(process, arguments[1], arguments[2] // 2))
            pid = _field(f"{process}/status", "Tgid")
        except FileNotFoundError:  # It was killed meanwhile.
            return None
        alone, self._last = thread == self._last, thread
        return Operation(number, call, tuple(inside), pid, half, alone)

    def _holds(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")


@contextlib.contextmanager
def watched(
    python, *arguments, cwd: Path, root: Path, record: Path, env: dict[str, str] | None = None
) -> Iterator[Watched]:
    """Start a program so that its changes below a folder are told before they are made.

    Args:
        python: the interpreter.
        *arguments: the program, a module or a file, and its arguments.
        cwd: where it runs.
        root: the folder.
        record: file to which the programs that it starts are written.
        env: its environment; `tests.process.environment()` when not given.
    """
    with tempfile.TemporaryDirectory(prefix="watch") as folder:
        address = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            server.settimeout(0.2)
            command = (python, "-m", "tests.faults.armed", address, record, *arguments)
            with Running(*command, cwd=cwd, env=env) as running:
                listener = _listener_of(server, running)
                try:
                    yield Watched(running, listener, root)
                finally:
                    os.close(listener)


def _listener_of(server: socket.socket, running: Running, limit: float = 120.0) -> int:
    deadline = time.monotonic() + limit
    while True:
        try:
            client, _ = server.accept()
            break
        except TimeoutError:
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not watched: {running.kill()}") from None
    with client:
        client.settimeout(limit)
        files = array.array("i")
        _, rights, _, _ = client.recvmsg(1, socket.CMSG_LEN(files.itemsize))
        for _, _, data in rights:
            files.frombytes(data)
    return files[0]


def _path(process: str, folder: int | None, address: int) -> str:
    """Return the absolute path of an argument, its last part not followed where it is a link."""
    text = _memory(process, address, 4096, text=True)
    # Descriptors are ints; AT_FDCWD is a negative one.
    here = folder is None or folder & 0xFFFFFFFF > 1 << 31
    base = os.readlink(f"{process}/cwd" if here else f"{process}/fd/{folder & 0xFFFFFFFF}")
    head, tail = os.path.split(os.path.join(base, os.fsdecode(text)).rstrip("/"))
    return os.path.join(os.path.realpath(head), tail)


def _memory(process: str, address: int, size: int, *, text: bool = False) -> bytes:
    with open(f"{process}/mem", "rb", buffering=0) as file:
        file.seek(address)
        if not text:
            return file.read(min(size, _LONGEST))
        # A page that is not there may follow.
        found = file.read(min(size, 4096 - address % 4096))
        while b"\0" not in found and len(found) < size:
            found += file.read(4096)
        return found.partition(b"\0")[0]


def _offset(process: str, handle: int) -> int:
    """Return where the next write to a descriptor goes."""
    flags = int(_line(f"{process}/fdinfo/{handle}", "flags"), 8)
    if flags & os.O_APPEND:
        return os.stat(f"{process}/fd/{handle}").st_size
    return _field(f"{process}/fdinfo/{handle}", "pos")


def _field(path: str, name: str) -> int:
    return int(_line(path, name))


def _line(path: str, name: str) -> str:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
    raise FileNotFoundError(path)
