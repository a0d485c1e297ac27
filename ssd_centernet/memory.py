"""How much memory this process may take, and has taken at most; who looks through it."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

_MEMINFO = "/proc/meminfo"
# Groups of version 2 and 1: the limit, what is used, and which part of that can be given up.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_memory(root: str = "/") -> int | None:
    """Return how many bytes a process may still take, or None where the system does not say.

    That is what the machine has available, or what a container's limit leaves, whichever is less.

    Args:
        root: where /proc and /sys are.
    """
    machine = _of_machine(root)
    left = [left for group in _GROUPS if (left := _of_group(root, *group)) is not None]
    return None if machine is None else min([machine, *left])


def used_memory(*, peak: bool = False) -> int | None:
    """Return how many bytes this process has in memory, or had at most; None if not known."""
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Switch the collector of reference circles off while very many objects are made.

    It would look through all of them again and again, and find next to nothing: a third of the time
    of reading annotations.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _of_machine(root: str) -> int | None:
    try:
        with open(os.path.join(root, _MEMINFO.lstrip("/"))) as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_group(root: str, folder: str, limit: str, used: str, spare: str) -> int | None:
    """Return what a limit leaves; None where there is none, as in the group of a whole machine."""
    folder = os.path.join(root, folder.lstrip("/"))
    try:
        with open(os.path.join(folder, limit)) as file:
            most = int(file.read())  # Without a limit version 2 says "max".
        with open(os.path.join(folder, used)) as file:
            taken = int(file.read())
        with open(os.path.join(folder, "memory.stat")) as file:
            stat = dict(line.split() for line in file)
        return max(0, most - taken + int(stat.get(spare, 0)))
    except (OSError, ValueError):
        return None
