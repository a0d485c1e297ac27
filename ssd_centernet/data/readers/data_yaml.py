"""The few keys of a YOLO `data.yaml`, read without a YAML library."""

from __future__ import annotations

import os
import re

from ssd_centernet.data.readers.source import read_text

KEYS = ("path", "train", "val", "valid", "test", "nc", "names")


def read_data_yaml(path: str | os.PathLike) -> dict:
    """Read where the splits lie and what the classes are called.

    Args:
        path: the file. Values may be plain or quoted, lists and maps written in one line or one
            entry a line. Keys other than `KEYS` are passed over.

    Returns:
        `path`, `train`, `val`, `valid`, `test` as text or list of texts, `nc` as text, and `names`
        as list, each only where the file has it.

    Raises:
        ValueError: a value cannot be read, or the names are not numbered 0..C-1.
    """
    found: dict[str, list[str]] = {}
    key = None
    for line in read_text(path).splitlines():
        line = _without_comment(line)
        if not line.strip() or line.strip() in ("---", "..."):
            continue
        top = re.match(r"""(["']?)([\w-]+)\1\s*:(?:\s+(.*)|)$""", line)
        if top:
            key = top[2]
            found[key] = [top[3].strip()] if top[3] and top[3].strip() else []
        elif key is not None:
            found[key].append(line.strip())
    values = {}
    for key in (key for key in KEYS if key in found):
        try:
            values[key] = _value(found[key])
            if key == "names":
                values[key] = _numbered(values[key])
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {key}: {error}") from error
    return {key: value for key, value in values.items() if value not in ("", None)}


def _without_comment(line: str) -> str:
    return re.match(r"""(?:"[^"]*"|'[^']*'|(?<!\s)\#|[^#])*""", line)[0].rstrip()


def _value(lines: list[str]) -> str | list[str] | dict[str, str]:
    text = " ".join(lines).strip()
    if not text:
        return ""
    if text[0] in "[{":
        if text[-1] != "]}"["[{".index(text[0])]:
            raise ValueError(f"expected {text[0]!r} to be closed at the end, got {text[:80]!r}.")
        items = [item.strip() for item in _split(text[1:-1])]
        items = [item for item in items if item]
        return [_plain(item) for item in items] if text[0] == "[" else _map(items)
    if all(line == "-" or line.startswith("- ") for line in lines):
        return [_plain(line[1:].strip()) for line in lines]
    if len(lines) > 1 or re.match(r"\d+\s*:", text):
        return _map(lines)
    return _plain(text)


def _split(text: str) -> list[str]:
    """Split at commas that are not in quotes."""
    return re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"']|(?<=\w)')+""", text)


def _map(lines: list[str]) -> dict[str, str]:
    pairs = [re.match(r"""(["']?)(\w+)\1\s*:\s*(.+)$""", line) for line in lines]
    if None in pairs:
        raise ValueError(f"expected 'number: name', got {lines[pairs.index(None)]!r}.")
    return {pair[2]: _plain(pair[3].strip()) for pair in pairs}


def _plain(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return "" if text in ("~", "null") else text


def _numbered(names: str | list[str] | dict[str, str]) -> list[str]:
    if isinstance(names, str):
        return [names] if names else []
    if isinstance(names, list):
        return names
    if sorted(names, key=_as_number) != [str(i) for i in range(len(names))]:
        raise ValueError(
            f"classes are numbered {', '.join(names)}; expected 0 to {len(names) - 1} without a "
            "gap. Number the names from 0, as the label files do."
        )
    return [names[str(i)] for i in range(len(names))]


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1
