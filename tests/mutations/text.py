"""Changes of text that know nothing of its meaning but the characters that hold it together."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed

# Chooses the file of an input that is changed.
Choose = Callable[[random.Random, Files], str]
Edit = Callable[[random.Random, str], str | bytes | None]


def changed(files: Files, name: str, data: str | bytes, places: str | None = None) -> Changed:
    """Return the files with another content of one."""
    data = data.encode() if isinstance(data, str) else data
    joined = max(0, files[name].count(b"\n") - data.count(b"\n"))
    return Changed({**files, name: data}, name.rpartition("/")[2], places, joined=joined)


def add_edit(
    kind: Kind,
    name: str,
    claim: str,
    choose: Choose,
    edit: Edit,
    *,
    rounds: int = 3,
    places: str | None = None,
) -> None:
    """Add a change that edits the text of one file; None says that there is nothing to edit."""

    def change(rng: random.Random, files: Files) -> Changed | None:
        path = choose(rng, files)
        data = edit(rng, files[path].decode())
        return None if data is None else changed(files, path, data, places)

    kind.add(name, claim, change, rounds=rounds)


def add_encodings(
    kind: Kind, choose: Choose, *, tabs: str = SAME, place: str = "byte|UTF-8"
) -> None:
    """Add what editors and systems do to a text file that leaves its meaning.

    The text has a letter outside ASCII, so that another encoding is either known or refused.

    Args:
        kind: the kind.
        choose: of the file.
        tabs: what a tab at the end of a line claims.
        place: regular expression of the place of a letter in another encoding.
    """

    def add(name: str, claim: str, edit: Edit, **options) -> None:
        add_edit(kind, name, claim, choose, edit, **options)

    add("byte order mark", SAME, lambda _, t: t.encode("utf-8-sig"), rounds=4)
    add("line ends of Windows", SAME, lambda _, t: t.replace("\n", "\r\n"), rounds=4)
    add("mark and line ends of Windows", SAME, _mark_and_ends, rounds=4)
    add("line ends of old Macs", EITHER, lambda _, t: t.replace("\n", "\r"), rounds=4)
    add("no line end at the end", SAME, lambda _, t: t.rstrip("\n"), rounds=4)
    add("empty lines at the end", SAME, lambda _, t: t + "\n\n\n", rounds=4)
    add("spaces at line ends", SAME, lambda _, t: t.replace("\n", "  \n"), rounds=4)
    add("a tab at line ends", tabs, lambda _, t: t.replace("\n", "\t\n"), rounds=4)
    for code in ("utf-16", "utf-16-le", "utf-16-be"):
        add(f"as {code}", EITHER, lambda _, t, c=code: t.encode(c), places=WHOLE_FILE, rounds=3)
    for code in ("latin-1", "cp1252"):
        add(f"as {code}", EITHER, lambda _, t, c=code: t.encode(c, "replace"), places=place)
    add("a byte that is no text", EITHER, _bad_byte, rounds=8, places="byte|UTF-8|line|utf-8")
    add("a null character", EITHER, _insert("\0"), rounds=12)
    add("an escape character", EITHER, _insert("\x1b"), rounds=6)
    add("empty", BROKEN, lambda _, t: "", places=WHOLE_FILE)
    add("only spaces", BROKEN, lambda _, t: " \n\n  \n", places=WHOLE_FILE)
    add("garbage", BROKEN, _garbage, places=WHOLE_FILE, rounds=6)


def add_marks(
    kind: Kind,
    choose: Choose,
    marks: str,
    *,
    rounds: int = 10,
    quotes: bool = True,
    places: str | None = None,
) -> None:
    """Add changes of single characters that hold the text together, never of letters and digits.

    Args:
        kind: the kind.
        choose: of the file.
        marks: the characters.
        rounds: seeds of each change.
        quotes: whether curly quotes for plain ones leave another text than a valid one.
        places: see `Changed`.
    """
    edits = (_drop(marks), _double(marks), _exchange(marks), _replace(marks))
    names = ("drop a mark", "double a mark", "exchange two marks", "another mark")
    for name, edit in zip(names, edits, strict=True):
        add_edit(kind, name, EITHER, choose, edit, rounds=2 * rounds, places=places)
    if quotes:
        add_edit(kind, "curly quotes", EITHER, choose, _curly, rounds=2, places=places)


def places_of(text: str, marks: str) -> list[int]:
    """Return the positions of some characters."""
    return [i for i, character in enumerate(text) if character in marks]


def _mark_and_ends(_: random.Random, text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("utf-8-sig")


def _bad_byte(rng: random.Random, text: str) -> bytes:
    data = text.encode()
    place = rng.randrange(1, len(data))
    while data[place] & 0xC0 == 0x80:
        place -= 1
    return data[:place] + b"\xff" + data[place:]


def _insert(character: str) -> Edit:
    def edit(rng: random.Random, text: str) -> str:
        # At the border of a token: inside of one it could become another token.
        places = [m.start() for m in re.finditer(r"\b", text)]
        place = rng.choice(places)
        return text[:place] + character + text[place:]

    return edit


def _garbage(rng: random.Random, text: str) -> bytes:
    return rng.randbytes(max(8, len(text) // 2))


def _drop(marks: str) -> Edit:
    def edit(rng: random.Random, text: str) -> str | None:
        places = places_of(text, marks)
        place = rng.choice(places)
        return text[:place] + text[place + 1 :]

    return edit


def _double(marks: str) -> Edit:
    def edit(rng: random.Random, text: str) -> str | None:
        place = rng.choice(places_of(text, marks))
        return text[:place] + text[place] + text[place:]

    return edit


def _exchange(marks: str) -> Edit:
    def edit(rng: random.Random, text: str) -> str | None:
        first, second = sorted(rng.sample(places_of(text, marks), 2))
        if text[first] == text[second]:
            return None
        return (
            text[:first]
            + text[second]
            + text[first + 1 : second]
            + text[first]
            + text[second + 1 :]
        )

    return edit


def _replace(marks: str) -> Edit:
    def edit(rng: random.Random, text: str) -> str | None:
        place = rng.choice(places_of(text, marks))
        other = rng.choice([mark for mark in marks if mark != text[place]])
        return text[:place] + other + text[place + 1 :]

    return edit


def _curly(_: random.Random, text: str) -> str | None:
    return re.sub(r"\"(.*?)\"", "\u201c\\1\u201d", text) if '"' in text else None
