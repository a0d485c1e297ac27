"""Names of data sets: what the files of a conversion begin with, before the name of the split."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Mapping

from ssd_centernet.files import read_object
from ssd_centernet.labels import LabelMap

COCO = "coco"
# Of a folder whose name has no letter that files can have.
_NAMELESS = "data"


def check_name(setting: str, value: str) -> None:
    """Raise ValueError where a name of a data set or of a split cannot begin the name of a file."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", value):
        raise ValueError(f"{setting} must be of letters, digits, '_' or '.', got {value!r}.")


def name_and_split(prefix: str, info: Mapping) -> tuple[str, str]:
    """Tell whose split the files of a prefix are.

    Args:
        prefix: what the files begin with, such as a_train_val.
        info: content of its info file; earlier versions noted the split alone, or neither.

    Returns:
        The name of the data set and that of the split: 'a' and 'train_val', or 'a_train' and 'val'.
    """
    split = info.get("split")
    if isinstance(split, str) and prefix.endswith(f"_{split}"):
        return prefix.removesuffix(f"_{split}"), split
    name, _, split = prefix.partition("_")
    return name, split


def names_in(folder: str | os.PathLike) -> list[str]:
    """List the data sets whose conversions a folder holds, each once, in alphabetical order."""
    paths = glob.glob(os.path.join(glob.escape(os.fspath(folder)), "*.info.json"))
    prefixes = {path: os.path.basename(path).removesuffix(".info.json") for path in paths}
    found = {name_and_split(prefix, read_object(p) or {})[0] for p, prefix in prefixes.items()}
    return sorted(found)


def known_name(folder: str | os.PathLike) -> str | None:
    """Return the name of the one data set of a folder, or None where nothing is converted yet.

    Raises:
        ValueError: there are several, so that a further split may be of any.
    """
    names = names_in(folder)
    if len(names) > 1:
        raise ValueError(
            f"{os.fspath(folder)} holds the data sets {', '.join(names)}: say by name (--name) "
            "whose split this is, or give another output_dir."
        )
    return names[0] if names else None


def new_name(folder: str | os.PathLike, label_map: LabelMap) -> str:
    """Name the data set whose first split is converted into a folder.

    Args:
        folder: the output folder.
        label_map: of the data set.

    Returns:
        'coco' where the classes and ids are COCO's own; else the name of the folder, with '_' for
        what names of files do not have.
    """
    if label_map == LabelMap.coco():
        return COCO
    base = os.path.basename(os.path.abspath(folder))
    plain = unicodedata.normalize("NFKD", base).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.]+", "_", plain).strip("_.") or _NAMELESS
