"""The few keys of a YOLO `data.yaml`."""

from __future__ import annotations

import os

import yaml

from ssd_centernet.files import read_text

KEYS = ("path", "train", "val", "valid", "test", "nc", "names")
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
        `path`, `train`, `val`, `valid`, `test` as text or list of texts, `nc` as text, and `names`
        as list, each only if the file has it.

    Raises:
        ValueError: the file is not YAML, a value has the wrong type, or the names are not numbered
            0..C-1.
    """
    try:
        content = yaml.load(read_text(path), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{os.fspath(path)}: {_told(error)}") from error
    if content in _NOTHING or content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{os.fspath(path)}: expected lines of 'key: value', got {content!r:.80}.")
    values = {}
    for key in (key for key in KEYS if content.get(key, "") not in _NOTHING):
        try:
            values[key] = _numbered(content[key]) if key == "names" else _texts(content[key])
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {key}: {error}") from error
    return {key: value for key, value in values.items() if value}


def _told(error: yaml.YAMLError) -> str:
    """Write an error of the parser in one line, with its place in the file."""
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
    raise ValueError(f"expected a text or a list of texts, got {value!r:.80}.")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _numbered(names: object) -> list[str]:
    if isinstance(names, str):
        return [names]
    if _is_texts(names):
        return names
    if not isinstance(names, dict) or not _is_texts(list(names.values())):
        raise ValueError(f"expected a list of names, or 'number: name', got {names!r:.80}.")
    if sorted(names, key=_as_number) != [str(i) for i in range(len(names))]:
        raise ValueError(
            f"classes are numbered {', '.join(names)}; expected 0 to {len(names) - 1} without a "
            "gap. Number the names from 0, as the label files do."
        )
    return [names[str(i)] for i in range(len(names))]


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1
