"""Words for a terminal: numbers with their nouns, and text of strangers that it only shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Controls (among them escape, and those of 8 bits), separators of lines that only some programs
# know, what turns the direction of writing, and halves of characters. Line ends and tabs stay.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINES = re.compile("[\t\n]")


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun.

    Args:
        number: how many.
        one: the noun of 1.
        many: of any other number; by default with an s.

    Returns:
        Such as '1 image' or '1,200 images'.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def plain(text: str, *, one_line: bool = False) -> str:
    r"""Write characters that a terminal would obey as escapes, such as `\x1b`.

    Letters of every script, accents, emoji and their joiners stay as they are.

    Args:
        text: file names, names of classes, settings, ids: anything that came with somebody's files.
        one_line: whether line ends and tabs are written as escapes too.

    Returns:
        The text.
    """
    text = _ACTING.sub(_escaped, text)
    return _LINES.sub(_escaped, text) if one_line else text


def _escaped(found: re.Match) -> str:
    return found[0].encode("unicode_escape", "backslashreplace").decode("ascii")


class PlainStream:
    """Write to a stream what `plain` leaves; a carriage return at an end is a progress bar's."""

    def __init__(self, stream: TextIO):
        """Stand before a stream, which has all other attributes."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write a text and return the number of its characters."""
        inner = text.strip("\r")
        if _ACTING.search(inner):
            start = len(text) - len(text.lstrip("\r"))
            text = text[:start] + plain(inner) + text[start + len(inner) :]
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)


@contextmanager
def plain_streams(owner: Any) -> Iterator[None]:
    """Put `PlainStream` before the streams of an owner (`sys`) in a block.

    Args:
        owner: has `stdout` and `stderr`, either of which may be None.
    """
    before = owner.stdout, owner.stderr
    owner.stdout, owner.stderr = (one and PlainStream(one) for one in before)
    try:
        yield
    finally:
        owner.stdout, owner.stderr = before
