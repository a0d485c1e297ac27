"""Text files as editors of any system write them, and files that appear whole or not at all.

What is being written is hidden and lies beside its target, as `.NAME.ssd-XXXXXXXXXX.tmp` with ten
hexadecimal digits, a file or a folder. Who writes it holds a lock on it, which ends with the
process: `remove_leftovers` knows by the name and by the lock what a killed command has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import fnmatch
import glob
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

# What a file gets: text (written as UTF-8, line ends as they are), bytes, or pieces of text, which
# need not be in memory together.
Content = str | bytes | Iterable[str]

# Where a file system knows no locks, what nobody has written to for so many seconds is left over.
LEFTOVER_AGE = 3600.0
# Between a name and its lock lies a moment in which nothing is known of it.
SETTLED = 60.0
# Of renameat2: paths are from the current folder; two names change places.
_HERE, _RENAME_EXCHANGE = -100, 2
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.ssd-[0-9a-f]{10}\.tmp", re.DOTALL)


def check_is_file(path: str | os.PathLike) -> None:
    """Refuse to open what has no end or may never begin.

    Raises:
        OSError: there is no such path.
        ValueError: the path is a pipe, a device or a socket.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(
            f"{os.fspath(path)} is a pipe, a device or a socket. Expected a file: write its "
            "content to one first."
        )


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read a whole file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file, see `check_is_file`.
    """
    check_is_file(path)
    with open(path, "rb") as file:
        return file.read()


def read_text(path: str | os.PathLike) -> str:
    """Read a text file that editors of any system wrote, without its mark and with one line end.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8 (or UTF-16 with its mark), or no file; see `read_bytes`.
    """
    data = read_bytes(path)
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 if wide else data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{os.fspath(path)} is not UTF-8 text (byte {error.start}) in line {line}. Save it "
            "again with the encoding UTF-8."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{os.fspath(path)} is not text: it has a zero byte in line {line}. Is it UTF-16 "
            "without its mark, or damaged? Save it again with the encoding UTF-8."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_object(path: str | os.PathLike) -> dict | None:
    """Read a JSON object; None where there is no file, or a crash or an editor left something else.

    Raises:
        OSError: the file is there and cannot be opened.
    """
    try:
        found = json.loads(read_bytes(path))
        json.dumps(found, ensure_ascii=False).encode()  # Half a pair of surrogates is no text.
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def open_at_end(path: str | os.PathLike) -> TextIO:
    """Open a file of lines to append some, each written as soon as it ends.

    Half a line of a killed process stays a line of its own, and takes no other with it.

    Args:
        path: the file; made if missing.

    Raises:
        OSError: it cannot be written to.
    """
    with open(path, "ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        cut = file.read(1) not in (b"", b"\n")
    lines = open(path, "a", buffering=1, encoding="utf-8")
    lines.write("\n" if cut else "")
    return lines


def write_atomically(path: str | os.PathLike, content: Content, *, tidy: bool = False) -> str:
    """Write a file beside its target and rename it, so that no reader sees half of it.

    Args:
        path: the file; missing folders are made.
        content: see `Content`.
        tidy: whether to remove what killed calls were writing of this file; lists its folder.

    Returns:
        The path.

    Raises:
        OSError: the folder cannot be written to; the old file is then as it was.
    """
    if tidy:
        remove_leftovers(Path(path).parent, [glob.escape(Path(path).name)])
    with _written_beside(Path(path), content) as temporary:
        os.replace(temporary, path)
    return os.fspath(path)


def write_together(
    directory: str | os.PathLike,
    contents: Mapping[str, Content],
    *,
    remove: Sequence[str] = (),
) -> dict[str, str]:
    """Replace files that belong together: where the last one is there, all are of one call.

    All are written before the first one is replaced. Then the last one is removed, the others take
    their places, and the new last one its own: a kill leaves the old files, the new ones, or a
    folder without the last one, which a reader takes for nothing.

    Args:
        directory: where to write; made if missing.
        contents: name -> content, at least one, as of `write_atomically`.
        remove: names of files that would belong to another call now.

    Returns:
        Name -> path, as in `contents`.

    Raises:
        OSError: the folder cannot be written to; its files are then as they were.
    """
    folder = Path(directory)
    *others, last = contents
    with contextlib.ExitStack() as stack:
        written = {
            name: stack.enter_context(_written_beside(folder / name, content))
            for name, content in contents.items()
        }
        if others or remove:
            (folder / last).unlink(missing_ok=True)
        for name in remove:
            (folder / name).unlink(missing_ok=True)
        for name in (*others, last):
            os.replace(written[name], folder / name)
    return {name: os.path.join(directory, name) for name in contents}


@contextlib.contextmanager
def _written_beside(target: Path, content: Content) -> Iterator[Path]:
    """Write a hidden file beside a target, to be renamed; remove it at the end if it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pieces = (content,) if isinstance(content, str | bytes) else content
    temporary = _temporary_name(target)
    # Who may read it is what the umask says, as for any other file.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "wb") as file:
        try:
            _hold(file.fileno())
            for piece in pieces:
                file.write(piece.encode("utf-8") if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Make a hidden folder beside a target, to be filled and renamed to it; remove it at the end.

    Args:
        target: what the folder is to become; missing folders above it are made.

    Yields:
        The folder, empty; whoever may open it is what the umask says. Once it is renamed, nothing
        is removed.

    Raises:
        OSError: the folder above cannot be written to.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = _temporary_name(target)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _hold(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def put_folder(folder: Path, target: str | os.PathLike) -> None:
    """Give a finished folder the name of another: at each moment one of them has it, whole.

    Args:
        folder: of `temporary_folder`; where the target was there, the old one has its name then.
        target: where it goes.

    Raises:
        OSError: the folder above cannot be written to.
    """
    target = Path(target)
    mend_folder(target)
    if not target.exists():
        folder.rename(target)
        return
    try:
        _exchange(folder, target)
    except OSError:  # A file system that cannot exchange names: `mend_folder` ends what is cut.
        old = _old_name(target)
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: str | os.PathLike) -> None:
    """Remove a folder at once: a kill leaves no half of it, but what `remove_leftovers` knows."""
    folder = Path(folder)
    gone = _temporary_name(folder)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def mend_folder(target: str | os.PathLike) -> None:
    """End an exchange of folders that was cut, see `put_folder`: the old one comes back."""
    target = Path(target)
    old = _old_name(target)
    if not old.exists():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(target)


def remove_leftovers(
    folder: str | os.PathLike,
    patterns: Sequence[str] = ("*",),
    *,
    older_than: float = SETTLED,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """Remove what killed commands of this library were writing in a folder.

    Only names that `write_atomically` and `temporary_folder` give are looked at, and of these none
    that a running process holds.

    Args:
        folder: where it may lie; folders in it are not searched.
        patterns: of the names of the targets, such as `*.json`, as in `fnmatch`.
        older_than: seconds without a change before something is removed; where the file system
            knows no locks, at least `LEFTOVER_AGE`.
        say: called with one line where something was removed.

    Returns:
        The names that were removed, sorted. What cannot be removed stays, as does everything in a
        folder that cannot be read.
    """
    removed = []
    for path in leftovers(folder, patterns, older_than=older_than):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path.name)
    if removed and say is not None:
        say(f"removed what a killed command had left in {folder}: {', '.join(removed)}")
    return removed


def leftovers(
    folder: str | os.PathLike,
    patterns: Sequence[str] = ("*",),
    *,
    older_than: float = SETTLED,
) -> list[Path]:
    """List what `remove_leftovers` would remove, sorted."""
    try:
        found = sorted(Path(folder).iterdir())
    except OSError:
        return []
    return [
        path
        for path in found
        if (named := _TEMPORARY.fullmatch(path.name))
        and any(fnmatch.fnmatchcase(named["name"], pattern) for pattern in patterns)
        and _is_left_over(path, older_than)
    ]


def is_temporary(name: str) -> bool:
    """Tell a name that `write_atomically` and `temporary_folder` give from all others."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary_name(target: Path) -> Path:
    """Choose a name beside a target that nothing else has."""
    # A file system takes names of 255 bytes.
    name = target.name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore")
    return target.with_name(f".{name}.ssd-{secrets.token_hex(5)}.tmp")


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.ssd-old")


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names at once.

    Raises:
        OSError: the system or the file system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "no renameat2")
    names = [os.fsencode(os.path.abspath(path)) for path in (one, other)]
    if rename(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _hold(handle: int) -> None:
    """Lock what is being written for as long as this process has it open."""
    with contextlib.suppress(OSError):  # A file system without locks: its age must do.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_left_over(path: Path, older_than: float) -> bool:
    """Whether nobody holds a temporary, and nothing has changed in it for so long."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except BlockingIOError:
        return False
    except OSError:
        older_than = max(older_than, LEFTOVER_AGE)
    try:
        inside = [path, *path.rglob("*")] if path.is_dir() else [path]
        changed = max(one.lstat().st_mtime for one in inside)
    except OSError:  # It is gone, or being written to.
        return False
    return time.time() - changed >= older_than
