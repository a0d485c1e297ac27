"""The few keys of a YOLO `data.yaml`, and of darknet's `obj.data`."""

from __future__ import annotations

import os
import re

import yaml

from ssd_centernet.files import read_text

KEYS = "path train val valid validation test nc names kpt_shape task".split()
_NOTHING = ("", "~", "null", "Null", "NULL")


class _Loader(yaml.BaseLoader):
    """Read every value as text, as a class may be called no or 1.0; refuse a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [str(key.value) for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if keys[i] in keys[:i]:
                told = f"the key {keys[i]!r} occurs twice; remove one of them"
                raise yaml.constructor.ConstructorError(None, None, told, key.start_mark)
        return super().construct_mapping(node, deep)


def read_data_yaml(path: str | os.PathLike) -> dict:
    """Read the folders of the splits and the names of the classes.

    Args:
        path: the file. Keys other than `KEYS` are ignored.

    Returns:
        `path`, `train`, `val`, `valid`, `validation`, `test` as text or list of texts, `nc` and
        `task` as text, `names` as list, and `kpt_shape` as (points, numbers a point), each only if
        the file has it.

    Raises:
        ValueError: the file is not YAML, a value has the wrong type, or the names are not numbered
            0..C-1.
    """
    text = read_text(path)
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{os.fspath(path)}: {explain_yaml(error, text)}") from error
    if content in _NOTHING or content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"{os.fspath(path)}: expected lines of 'key: value', got {_shown(content)}."
        )
    values = {}
    for key in (key for key in KEYS if content.get(key, "") not in _NOTHING):
        try:
            read = {"names": _numbered, "kpt_shape": _points, "task": _text, "nc": _text}
            values[key] = read.get(key, _texts)(content[key])
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {key}: {error}") from error
    return {key: value for key, value in values.items() if value}


def read_obj_data(path: str | os.PathLike) -> dict:
    """Read darknet's list of paths, lines of `key = value`.

    Args:
        path: the file, `obj.data`. Keys other than classes, train, valid, test and names are
            ignored.

    Returns:
        `train`, `valid`, `test` as text, `nc` as text, and `names` as a list with the path of the
        file that has them, each only if the file has it.

    Raises:
        ValueError: a line has no '='.
    """
    values = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, sign, value = (part.strip() for part in line.partition("="))
        if not sign:
            raise ValueError(
                f"{os.fspath(path)} line {number}: expected 'key = value', got {line[:80]!r}."
            )
        values[key.lower()] = value
    values["nc"] = values.pop("classes", "")
    values["names"] = [values["names"]] if values.get("names") else []
    return {key: value for key, value in values.items() if key in KEYS and value}


def explain_yaml(error: yaml.YAMLError, text: str) -> str:
    """Write an error of the parser in one line, with its place in the file."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return (
            f"line {line}: the character {chr(error.character)!r} cannot stand in YAML; remove it"
        )
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"this is not YAML: {error}"
    told = ", ".join(filter(None, (error.context, error.problem)))
    cause = (
        ". Is there an open bracket or quote, a tab among the spaces, or a text with a colon or a "
        "backslash without 'quotes'?"
    )
    cause = "" if isinstance(error, yaml.constructor.ConstructorError) else cause
    return f"line {mark.line + 1}, column {mark.column + 1}: {told}{cause}"


def _texts(value: object) -> str | list[str]:
    if isinstance(value, str) or _is_texts(value):
        return value
    raise ValueError(f"expected a text or a list of texts, got {_shown(value)}.")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise ValueError(f"expected a text, got {_shown(value)}.")


def _points(value: object) -> tuple[int, int]:
    numbers = value if _is_texts(value) else re.findall(r"[^\s,()\[\]]+", str(value))
    if len(numbers) == 2 and all(text.isdecimal() for text in numbers):
        count, size = map(int, numbers)
        if count > 0 and size in (2, 3):
            return count, size
    raise ValueError(
        "expected [points, numbers a point], such as [17, 3]; a point has 2 numbers, x and y, or a "
        f"third one that says whether it is seen; got {_shown(value)}."
    )


def _shown(value: object) -> str:
    """Write a value of the file as it may stand there."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(map(_shown, value)) + "]"
    else:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _numbered(names: object) -> list[str]:
    if isinstance(names, str):
        return [names]
    if _is_texts(names):
        return names
    if not isinstance(names, dict) or not _is_texts(list(names.values())):
        raise ValueError(f"expected a list of names, or 'number: name', got {_shown(names)}.")
    if sorted(names.values(), key=_as_number) == [str(i) for i in range(len(names))]:
        if not any(name.isdecimal() for name in names):  # cat: 0, emu: 1
            names = {number: name for name, number in names.items()}
    if sorted(names, key=_as_number) != [str(i) for i in range(len(names))]:
        raise ValueError(
            f"classes are numbered {', '.join(names)}; expected 0 to {len(names) - 1} without a "
            "gap. Number the names from 0, as the label files do."
        )
    return [names[str(i)] for i in range(len(names))]


def _as_number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
