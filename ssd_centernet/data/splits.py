"""Names of record files: which splits a folder holds, and the files of one of them.

A split is named by the beginning of its files, as `ssd_centernet convert`, the Object Detection
API, the Model Garden and the TPU tools write them:

* `coco_train.record-00000-of-00008`, `train-00000-of-00256.tfrecord`, `val-00000-of-00032`;
* `birds_train.record-00000-of-00008` of `convert --name=birds`, which is found as coco_train too;
* one file alone: `train.tfrecord`, `train.record`;
* each of them also with `.gz` at its end.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from ssd_centernet.files import read_object
from ssd_centernet.plain_text import counted

_EXTENSION = r"\.(?:tfrecords?|records?|tfrec)"
_SHARD = re.compile(rf"([^.].*?)(?:{_EXTENSION})?-(\d+)-of-(\d+)(?:{_EXTENSION})?(?:\.gz)?")
_SINGLE = re.compile(rf"([^.].*?){_EXTENSION}(?:\.gz)?")
# Words that tell what a split is for, and the flag that chooses it.
_ROLES = {
    "--train_split": ("train", "trn"),
    "--eval_split": ("val", "valid", "validation", "eval", "test", "dev", "minival"),
}
_LISTED = 6


class RecordFile(NamedTuple):
    """What a file's name says: `number` of `total` shards; 0 of 0 for the one file of a split."""

    name: str
    number: int
    total: int


def list_splits(data_dir: str | os.PathLike) -> dict[str, list[RecordFile]]:
    """Group the record files of a folder by the split that their names say.

    Args:
        data_dir: the folder.

    Returns:
        Split -> its files, both in the order of their names; nothing where there is no folder.
    """
    splits: dict[str, list[RecordFile]] = {}
    for name in sorted(os.listdir(data_dir)) if os.path.isdir(data_dir) else ():
        if match := _SHARD.fullmatch(name):
            file = RecordFile(name, int(match[2]), int(match[3]))
        elif match := _SINGLE.fullmatch(name):
            file = RecordFile(name, 0, 0)
        else:
            continue
        index = os.path.join(data_dir, f"{match[1].removesuffix('.data')}.index")
        if match[1].endswith(".data") and os.path.isfile(index):
            continue  # Of a checkpoint: the folder of a run was given.
        if os.path.isfile(os.path.join(data_dir, name)):
            splits.setdefault(match[1], []).append(file)
    return splits


def split_prefix(data_dir: str | os.PathLike, split: str) -> str:
    """Find what the names of a split's files start with, where the data set has a name of its own.

    Args:
        data_dir: folder of the record files.
        split: prefix of the names, or the name of the split: 'train', or 'coco_train' as recipes
            have it.

    Returns:
        `split` itself where it is such a prefix, or where nothing else fits; else the prefix of the
        one conversion of the folder that noted that it is of this split, such as 'birds_train'; or,
        where none noted anything, the one whose name ends so.
    """
    found = prefixes_of(data_dir, split)
    return found[0] if len(found) == 1 else split


def prefixes_of(data_dir: str | os.PathLike, split: str) -> list[str]:
    """List what the files of a split may begin with.

    Args:
        data_dir: folder of the record files.
        split: as in `split_prefix`.

    Returns:
        `split` alone where it is such a prefix; else one for each data set of the folder that has
        this split, in alphabetical order.
    """
    splits, role = list_splits(data_dir), split.removeprefix("coco_")
    if split in splits:
        return [split]
    named = sorted(prefix for prefix in splits if prefix.endswith(f"_{role}"))
    infos = {p: read_object(os.path.join(data_dir, f"{p}.info.json")) or {} for p in named}
    noted = [prefix for prefix, info in infos.items() if info.get("split") == role]
    return noted or [prefix for prefix, info in infos.items() if "split" not in info]


def same_role(data_dir: str | os.PathLike, split: str) -> str:
    """Find the split that has the role in a folder which another one has where a run was trained.

    Args:
        data_dir: folder of the record files.
        split: whole prefix of the other one, such as birds_val.

    Returns:
        `split` itself where it is there, or nothing fits; else the only split of a data set with
        that role, such as fish_val.
    """
    known, role = list_splits(data_dir), split
    while split not in known and role:
        found = [prefix for prefix in prefixes_of(data_dir, role) if prefix != role]
        if len(found) == 1:
            return found[0]
        role = role.partition("_")[2]
    return split


def find_shards(data_dir: str | os.PathLike, split: str) -> list[str]:
    """List the record files of a split in order.

    Args:
        data_dir: folder of the record files.
        split: prefix of their names, e.g. 'coco_train'; see `split_prefix`.

    Returns:
        Paths, sorted.

    Raises:
        FileNotFoundError: no folder, no file of this split, or a shard is missing.
        ValueError: files of two conversions, or files that are not those of the info file.
    """
    check_folder(data_dir)
    folder = os.fspath(data_dir)
    split, splits = split_prefix(folder, split), list_splits(folder)
    files = splits.get(split)
    if not files:
        raise FileNotFoundError(_no_split(folder, split, splits))
    _check_numbers(folder, split, files)
    _check_info(folder, split, [file.name for file in files])
    return [os.path.join(folder, file.name) for file in files]


def read_info(data_dir: str | os.PathLike, split: str) -> dict | None:
    """Read what a conversion noted of a split, or None if another tool wrote the records.

    Args:
        data_dir: folder of the record files.
        split: prefix of their names.

    Returns:
        The content of `SPLIT.info.json`.

    Raises:
        ValueError: the file is damaged.
    """
    path = os.path.join(data_dir, f"{split_prefix(data_dir, split)}.info.json")
    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
        _check_kinds(info)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): expected the list of shards that `ssd_centernet "
            "convert` wrote. Convert the split again with --overwrite."
        ) from error
    return info


def _check_kinds(info: dict) -> None:
    """Raise an error unless what is read of an info file is there, and of the right kinds."""
    if not isinstance(info["shards"], list) or not info["shards"]:
        raise ValueError("there is no list of shards")
    for shard in info["shards"]:
        if not isinstance(shard["file"], str) or not isinstance(shard["bytes"], int):
            raise ValueError("a shard has no name or size")
        if not isinstance(shard.get("num_images"), int | None):
            raise ValueError("a shard has no number of images")
    if not isinstance(info.get("image_dir"), str | None):
        raise ValueError("image_dir is no path")
    if not isinstance(info.get("input", {}).get("max_pixels", 0), int):
        raise ValueError("max_pixels is no number")
    tiles = info.get("tiles") or {}
    if not all(isinstance(tiles[name], int) for name in ("size", "num_pictures") if tiles):
        raise ValueError("tiles have no size or number of pictures")


def check_folder(data_dir: str | os.PathLike) -> None:
    """Raise FileNotFoundError where there is no folder."""
    folder = os.fspath(data_dir)
    if os.path.isdir(folder):
        return
    if os.path.isfile(folder):
        raise FileNotFoundError(
            f"--data_dir is the file {folder!r}; expected the folder that holds the record files "
            f"and their label map: give --data_dir={os.path.dirname(folder) or '.'} and, where its "
            "name does not begin with coco_train or coco_val, --train_split or --eval_split."
        )
    raise FileNotFoundError(
        f"The data directory {folder!r} does not exist. Set --data_dir to the folder that "
        "`ssd_centernet convert` wrote."
    )


def _no_split(folder: str, split: str, splits: dict[str, list[RecordFile]]) -> str:
    """Say what a folder holds instead of a split, and which flag would read it."""
    start = (
        f"No record files of split {split!r} in {folder!r} (expected names such as "
        f"{split}.record-00000-of-00008, {split}-00000-of-00008.tfrecord or {split}.tfrecord)."
    )
    if splits:
        return f"{start} Splits found there: {_described(splits)}. {_proposal(split, splits)}"
    for name in sorted(os.listdir(folder)):
        inside = list_splits(os.path.join(folder, name))
        if inside:
            deeper = os.path.join(folder, name)
            return (
                f"{start} Its folder {name} holds {_described(inside)}: give --data_dir={deeper}."
            )
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    shown = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return (
        f"{start} There are no record files at all; the folder holds "
        f"{f'{len(names)} entries ({shown})' if names else 'nothing'}. Set --data_dir to the "
        "folder that `ssd_centernet convert` wrote, or convert the data first."
    )


def _described(splits: dict[str, list[RecordFile]]) -> str:
    counts = [(name, len(files)) for name, files in splits.items()]
    shown = [f"{name} ({n} file{'s' if n > 1 else ''})" for name, n in counts[:_LISTED]]
    return ", ".join(shown) + (", ..." if len(counts) > _LISTED else "")


def _proposal(split: str, splits: dict[str, list[RecordFile]]) -> str:
    flag = next((flag for flag in _ROLES if _has_role(split, flag)), None)
    fitting = [name for name in splits if flag and _has_role(name, flag)]
    if fitting:
        choices = " or ".join(f"{flag}={name}" for name in fitting)
        return f"Give {choices}, or convert the split that is missing."
    flags = flag or "--train_split or --eval_split"
    return (
        f"Give {flags} with the name of one of them, convert the split that is missing, or set "
        "--data_dir to another folder."
    )


def _has_role(split: str, flag: str) -> bool:
    words = re.split(r"[^a-z]+", split.casefold())
    return any(word in _ROLES[flag] for word in words)


def _check_numbers(folder: str, split: str, files: Sequence[RecordFile]) -> None:
    """Raise an error unless the files are all shards of one conversion, each once."""
    totals = sorted({file.total for file in files})
    if len(totals) > 1:
        raise ValueError(
            f"Split {split!r} in {folder!r} has files of {len(totals)} conversions (shard counts "
            f"{totals}, 0 for one file alone). Remove the files of all but one."
        )
    seen: dict[int, str] = {}
    for file in files:
        if file.number in seen:
            raise ValueError(
                f"Split {split!r} in {folder!r} has two files for one shard: {seen[file.number]} "
                f"and {file.name}. Remove one of them."
            )
        seen[file.number] = file.name
    missing = set(range(totals[0])) - set(seen)
    if missing:
        raise FileNotFoundError(
            f"Split {split!r} in {folder!r} has {len(files)} of {counted(totals[0], 'shard')}; "
            f"number {min(missing)} is missing. The conversion or a copy was probably interrupted: "
            "run it again."
        )
    beyond = [file.name for file in files if file.total and file.number >= file.total]
    if beyond:
        raise ValueError(
            f"{os.path.join(folder, beyond[0])} has a number beyond its count of shards, which "
            "begin at 00000. Remove it, or rename the shards."
        )


def _check_info(folder: str, split: str, names: Sequence[str]) -> None:
    """Raise an error unless the shards are those that the conversion noted, byte for byte."""
    info = read_info(folder, split)
    if info is None:
        return
    noted = {shard["file"]: shard["bytes"] for shard in info["shards"]}
    again = (
        "The conversion or a copy was interrupted, or files of two conversions were mixed: copy "
        "the folder again, or convert the split again with --overwrite."
    )
    if set(names) != set(noted):
        other = sorted(set(names) ^ set(noted))[0]
        raise ValueError(
            f"{os.path.join(folder, f'{split}.info.json')} lists {len(noted)} shards, the folder "
            f"has {len(names)}; {other} is only in one of the two. {again}"
        )
    for name in names:
        path = os.path.join(folder, name)
        size = os.path.getsize(path)
        if size != noted[name]:
            raise ValueError(
                f"{path} has {size} bytes, but {split}.info.json says {noted[name]}. {again}"
            )
