"""Saved settings are data: what a file of a run may not say, whoever has made it.

A recipe that a user writes is code of his: it may import modules. The settings in a run directory
came with the run, so that they may name parts of this library and nothing that acts.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from ssd_centernet.config import gin_state
from ssd_centernet.config.gin_state import ConfigError
from ssd_centernet.config.text import PARSE_ERRORS, Words
from ssd_centernet.files import check_is_file
from ssd_centernet.run_directory import CONFIG_NAME

# Far above the settings of any recipe, which are some 10 kB.
_MOST_BYTES = 1_000_000
# Modules of this library that only define things when they are imported.
_OURS = re.compile(r"ssd_centernet(\.[a-z]\w*)+")
# What the library and Keras register: parts, and what holds their numbers.
_PARTS = ("ssd_centernet.", "keras.")
# What gin reads a value from, without a call.
_VALUES = (gin_state.MACRO, "gin.constant")
# Of the parts, what no detector consists of: one of these writes files.
_ACTS = (
    "ssd_centernet.export.export.export",
    "ssd_centernet.building.build_detector",
    "ssd_centernet.recipe.train",
)
_FLAG = "add --allow_import={names} (in Python: allow_import={list})"


def is_saved(path: Path) -> bool:
    """Tell whether a gin file belongs to a run: it is its `config.gin`, or lies beside one."""
    return any(
        place.name == CONFIG_NAME or (place.parent / CONFIG_NAME).exists()
        for place in (path, path.resolve())
    )


def check_size(path: Path) -> None:
    """Refuse settings of a run that are larger than any settings are.

    Raises:
        ConfigError: names the file and its size.
    """
    check_is_file(path)
    size = os.path.getsize(path)
    if size > _MOST_BYTES:
        raise ConfigError(
            f"{path} has {size} bytes; the settings of a run have some 10,000, and files of more "
            f"than {_MOST_BYTES} are not read. Take the config.gin that the training wrote."
        )


def check_imports(text: str, place: str, allowed: Sequence[str]) -> None:
    """Refuse saved settings that import modules which nobody has allowed; names all of them.

    What cannot be read is left to the reader that comes after this, which checks each import again.

    Raises:
        ConfigError: gives each line, the reason and the flag that allows it.
    """
    refused = [
        (statement, f"line {statement.location.line_num}")
        for statement in loading_statements(text)
        if isinstance(statement, config_parser.ImportStatement)
        and not may_import(statement.module, allowed)
    ]
    if refused:
        raise _refusal(place, refused, allowed)


def loading_statements(
    text: str,
) -> Iterator[config_parser.ImportStatement | config_parser.IncludeStatement]:
    """Yield what gin text imports and includes, up to a mistake if there is one."""
    try:
        for statement in config_parser.ConfigParser(text, Words()):
            if isinstance(
                statement, config_parser.ImportStatement | config_parser.IncludeStatement
            ):
                yield statement
    except PARSE_ERRORS:
        return


def check_import(
    statement: config_parser.ImportStatement, place: str, allowed: Sequence[str]
) -> None:
    """Refuse one import of saved settings, right before it would be obeyed.

    Raises:
        ConfigError: as `check_imports`.
    """
    if not may_import(statement.module, allowed):
        raise _refusal(place, [(statement, "")], allowed)


def may_import(module: str, allowed: Sequence[str]) -> bool:
    """Tell whether saved settings may import a module: the library's own, or one that is allowed.

    Args:
        module: the whole name, exactly as it would be imported.
        allowed: names; each stands for what lies below it as well.
    """
    return bool(_OURS.fullmatch(module)) or _is_below(module, allowed)


def _is_below(name: str, allowed: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def _refusal(place: str, refused: list, allowed: Sequence[str]) -> ConfigError:
    lines = "; ".join(f"{where}: {one.format()}".lstrip(": ") for one, where in refused)
    names = list(dict.fromkeys([*allowed, *(one.module for one, _ in refused)]))
    return ConfigError(
        f"{place} asks to import modules: {lines}. Settings of a run are data, and an import would "
        "run the code of a module that Python finds under this name. If you know the run and these "
        f"modules, {_FLAG.format(names=','.join(names), list=names)}."
    )


def check_binding(selector: str, value: Any, place: str, allowed: Sequence[str]) -> None:
    """Refuse a setting of a run that could do more than describe a detector.

    Args:
        selector: the whole name of what it is a setting of.
        value: as gin has read it, with its references.
        place: of the binding, for the error.
        allowed: modules whose names may be used.

    Raises:
        ConfigError: it names a function that acts or one of a foreign module, or is the
            description of an object that Keras would import and call.
    """
    _check_name(selector, place, allowed)
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if gin_state.is_reference(one):
            found = one.configurable.selector
            if found in _ACTS and not _is_below(found, allowed):
                raise ConfigError(
                    f"settings of a run name parts of a detector; {one} is none ({place}). Take "
                    "the config.gin that the training wrote."
                )
            _check_name(found, place, allowed)
        elif isinstance(one, Mapping):
            for key in one:
                if not isinstance(key, str | int | float | None) or key == "class_name":
                    raise ConfigError(
                        "settings of a run describe no objects for Keras to make, but there is a "
                        f"dictionary with the key {str(key):.40} ({place}). Name the object by a "
                        "text or as @Name, or give the setting with --gin_params."
                    )
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one


def _check_name(selector: str, place: str, allowed: Sequence[str]) -> None:
    if selector in _VALUES or selector.startswith(_PARTS) or _is_below(selector, allowed):
        return
    module, _, name = selector.rpartition(".")
    names = [*allowed, module]
    raise ConfigError(
        f"{name} is of the module {module!r} and not of this library ({place}). Settings of a run "
        "are data and use no code of other modules. If you know the run and this module, "
        f"{_FLAG.format(names=','.join(names), list=names)}."
    )
