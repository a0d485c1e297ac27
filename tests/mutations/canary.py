"""Sees whether reading an input runs code of it: programs, connections, modules of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

# A module of this name is what a hostile input brings, or asks for.
MODULE = "canary_of_mutations"
_EVENTS = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
    "socket.connect",
    "subprocess.Popen",
)
# Modules of which a pickle may name a function that does anything.
_UNSAFE = ("builtins", "importlib", "nt", "os", "posix", "runpy", "shutil", "subprocess", "sys")

_seen: list[str] | None = None
_is_installed = False


def _hook(event: str, arguments: tuple) -> None:
    if _seen is None:
        return
    if event in _EVENTS or (event == "import" and str(arguments[0]).startswith(MODULE)):
        _seen.append(f"{event} {arguments[:2]!r:.200}")
    elif event == "pickle.find_class" and str(arguments[0]).partition(".")[0] in _UNSAFE:
        _seen.append(f"{event} {arguments!r:.200}")


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """Yield a list to which everything is added that the code inside runs."""
    global _seen, _is_installed
    if not _is_installed:  # A hook stays for the life of the process.
        sys.addaudithook(_hook)
        _is_installed = True
    before, _seen = _seen, []
    try:
        yield _seen
    finally:
        _seen = before
