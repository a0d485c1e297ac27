"""What a decoder of JPEGs says on standard error, past Python and without a name of the file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

_START = b"Corrupt JPEG data"


class DecoderLines:
    """Standard error of a block: lines of libjpeg are kept back, all others go on when asked for.

    Attributes:
        stream: the real standard error, for what is to be seen at once, such as a progress bar.
    """

    def __init__(self, held: int | None, stream: TextIO | None):
        """Keep the file that holds what is written, and the real standard error."""
        self._held, self.stream, self._read = held, stream, 0

    def take(self) -> bool:
        """Tell whether libjpeg has complained since the last call, and pass on all else."""
        if self._held is None:
            return False
        size = os.fstat(self._held).st_size
        if size == self._read:
            return False
        lines = os.pread(self._held, size - self._read, self._read).splitlines(keepends=True)
        self._read = size
        others = b"".join(line for line in lines if not line.startswith(_START))
        if others and self.stream is not None:
            self.stream.write(others.decode("utf-8", "replace"))
            self.stream.flush()
        return any(line.startswith(_START) for line in lines)


@contextlib.contextmanager
def held_lines() -> Iterator[DecoderLines]:
    """Hold what a block writes to standard error, from C++ too; see `DecoderLines`."""
    try:
        sys.stderr.flush()
        before = os.dup(2)
    except (AttributeError, OSError, ValueError):  # The process has none.
        yield DecoderLines(None, None)
        return
    with tempfile.TemporaryFile() as file, open(os.dup(before), "w", errors="replace") as stream:
        lines = DecoderLines(file.fileno(), stream)
        # Writers append, whoever they are: nothing is written over.
        held = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_APPEND)
        os.dup2(held, 2)
        os.close(held)
        try:
            yield lines
        finally:
            with contextlib.suppress(ValueError):
                sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            lines.take()
