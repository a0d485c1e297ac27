"""A folder at one moment, as a kill would leave it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What is drawn by lot or by the clock in the names of files: two states that differ in nothing else
# are one.
_CHANCE = (
    (re.compile(r"\.ssd-[0-9a-f]{10}\.tmp"), ".ssd-TEMPORARY.tmp"),
    (re.compile(r"(events\.out\.tfevents)\.[^/]*"), r"\1.TIME"),
    (re.compile(r"\.tempstate\d+"), ".tempstate"),
    (re.compile(r"_temp_?[0-9a-f]{16,}"), "_temp"),
)


@dataclass(frozen=True)
class Entry:
    """A file, a link (its target) or a folder (no bytes), with its time of change."""

    kind: str
    data: bytes
    changed: int


@dataclass(frozen=True)
class State:
    """Path -> what lies there."""

    entries: Mapping[str, Entry]

    @classmethod
    def read(cls, root: Path) -> State:
        """Read a folder; equal contents share their memory."""
        entries: dict[str, Entry] = {}
        for place, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = Path(place) / name
                key = os.path.relpath(path, root)
                try:
                    entries[key] = _entry(path)
                except FileNotFoundError:  # Removed by another thread just now.
                    continue
        return cls(entries)

    def write(self, root: Path, *, older: int = 0) -> None:
        """Make a folder that is like this one.

        Args:
            root: the folder, empty or not there.
            older: nanoseconds by which everything was changed earlier.
        """
        root.mkdir(parents=True, exist_ok=True)
        for name, entry in self.entries.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind == "folder":
                path.mkdir(exist_ok=True)
            elif entry.kind == "link":
                path.symlink_to(os.fsdecode(entry.data))
            else:
                path.write_bytes(entry.data)
        for name, entry in reversed(self.entries.items()):
            times = 2 * (entry.changed - older,)
            os.utime(root / name, ns=times, follow_symlinks=False)

    def with_part(self, path: str, offset: int, data: bytes) -> State | None:
        """Return the state in which bytes were written to one of its files; None if it has none."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file":
            return None
        old = entry.data.ljust(offset, b"\0")
        new = old[:offset] + data + old[offset + len(data) :]
        return State({**self.entries, path: Entry("file", new, entry.changed)})

    def without(self, folder: str | None) -> State:
        """Leave out a folder."""
        return State({n: e for n, e in self.entries.items() if not _is_in(n, folder)})

    def below(self, folder: str) -> State:
        """Return what lies in a folder, by its path from there."""
        head = f"{folder}/"
        return State(
            {n.removeprefix(head): e for n, e in self.entries.items() if n.startswith(head)}
        )

    @property
    def names(self) -> set[str]:
        """Names of all that is there, without what is drawn by lot."""
        return {plain(name) for name in self.entries}

    @property
    def digest(self) -> str:
        """Equal where two states differ in names drawn by lot and in times alone."""
        lines = sorted((plain(name), one.kind, one.data) for name, one in self.entries.items())
        digest = hashlib.sha256()
        for name, kind, data in lines:
            digest.update(repr((name, kind, len(data))).encode("utf-8", "surrogateescape") + data)
        return digest.hexdigest()


def plain(name: str) -> str:
    """Return a name without what is drawn by lot."""
    for pattern, instead in _CHANCE:
        name = pattern.sub(instead, name)
    return name


def _is_in(name: str, folder: str | None) -> bool:
    return folder is not None and f"{name}/".startswith(f"{folder}/")


_KNOWN: dict[bytes, bytes] = {}


def _entry(path: Path) -> Entry:
    changed = path.lstat().st_mtime_ns
    if path.is_symlink():
        return Entry("link", os.fsencode(os.readlink(path)), changed)
    if path.is_dir():
        return Entry("folder", b"", changed)
    data = path.read_bytes()
    return Entry("file", _KNOWN.setdefault(hashlib.sha256(data).digest(), data), changed)
