"""Text files as editors of any system write them, and files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


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


def write_atomically(path: str | os.PathLike, content: str | bytes) -> str:
    """Write a file beside its target and rename it, so that no reader sees half of it.

    Args:
        path: the file; missing folders are made.
        content: text (written as UTF-8, line ends as they are) or bytes.

    Returns:
        The path.

    Raises:
        OSError: the folder cannot be written to; the old file is then as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; what is written here is meant to be read by others.
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return os.fspath(path)
