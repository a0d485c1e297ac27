"""Text files as editors of any system write them, and files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def read_text(path: str | os.PathLike) -> str:
    """Read a text file that editors of any system wrote: a byte order mark is left out.

    Raises:
        ValueError: the file is not UTF-8 (or UTF-16 with its mark).
    """
    with open(path, "rb") as file:
        data = file.read()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)} is not UTF-8 text (byte {error.start}). Save it again with the "
            "encoding UTF-8."
        ) from error


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
