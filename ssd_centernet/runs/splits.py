"""The splits of a run by the whole names of their files, which it keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_centernet import config
from ssd_centernet.data.mixture import DataDir, folders_of, splits_of
from ssd_centernet.data.names import COCO, name_and_split
from ssd_centernet.data.splits import list_splits, read_info, same_role, split_prefix
from ssd_centernet.files import read_object
from ssd_centernet.plain_text import counted
from ssd_centernet.recipe import Recipe
from ssd_centernet.run_directory import has_checkpoint
from ssd_centernet.training.log_files import recorded_sessions

_PLACES = ("data_dir", "mixed_with")
_SPLITS = ("train_split", "eval_split")


def settle_splits(
    recipe: Recipe, data_dir: DataDir, *, model_dir: str | os.PathLike | None = None
) -> Recipe:
    """Put the whole names of its splits into a recipe: birds_train for coco_train, and birds_val.

    A run that goes on keeps those that it began with, also where other data sets came into the
    folder. What a flag or `gin_params` say counts before that. Of a new run `coco_val` is the
    split `val` of the data set that it is trained on.

    Args:
        recipe: the settings.
        data_dir: a folder or several; the first one is evaluated on.
        model_dir: directory of a run that may go on.

    Returns:
        The recipe; splits that are not there stay as they were.
    """
    folders = folders_of(data_dir)
    before = {} if model_dir is None else _begun_with(model_dir, folders)
    names = splits_of(recipe.train_split, len(folders))
    if config.is_given("train.train_split"):
        names = [split_prefix(*pair) for pair in zip(folders, names, strict=True)]
    elif "train_split" in before:
        names = splits_of(before["train_split"], len(folders))
    else:
        names = [same_role(*pair) for pair in zip(folders, names, strict=True)]
    evaluated = recipe.eval_split
    if evaluated and config.is_given("train.eval_split"):
        evaluated = split_prefix(folders[0], evaluated)
    elif evaluated and "eval_split" in before:
        evaluated = before["eval_split"]
    elif evaluated:
        evaluated = _of_same_data_set(folders[0], names[0], evaluated)
    joined = names[0] if len(set(names)) == 1 else ",".join(names)
    return recipe.replace(train_split=joined, eval_split=evaluated)


def describe_splits(recipe: Recipe, folders: Sequence[str], evaluated: bool) -> list[str]:
    """Say which splits a run reads, and whether they are of one data set.

    Args:
        recipe: of `settle_splits`.
        folders: of the data.
        evaluated: whether there are evaluations.

    Returns:
        Sentences; nothing where the batches are of no records.
    """
    names = splits_of(recipe.train_split, len(folders))
    pairs = [pair for pair in zip(folders, names, strict=True) if pair[1] in list_splits(pair[0])]
    if not pairs:
        return []
    trained = ", ".join(f"{name} of {folder}" for folder, name in pairs)
    if not evaluated:
        return [f"data: {trained}, without evaluations"]
    told = [f"data: {trained} to train on, {recipe.eval_split} of {folders[0]} to evaluate on"]
    owners = [_name(folders[0], split) for split in (names[0], recipe.eval_split)]
    if None not in owners and owners[0] != owners[1]:
        told.append(
            f"note: {names[0]} and {recipe.eval_split} are of two data sets: --train_split and "
            "--eval_split choose others"
        )
    return told + _told_of_tiles(pairs[0], (folders[0], recipe.eval_split))


def describe_tiles(folder: str | os.PathLike, split: str) -> str | None:
    """Say that the pictures of a split are tiles of others; None where they are not.

    Args:
        folder: of the records.
        split: prefix of their names.
    """
    cut = (read_info(folder, split) or {}).get("tiles")
    if not cut:
        return None
    return (
        f"the pictures of {split} are tiles of {cut['size']} pixels, cut out of "
        f"{counted(cut['num_pictures'], 'picture')}: numbers of an evaluation are of tiles, and "
        "not to be compared with those of whole pictures"
    )


def _told_of_tiles(trained: tuple[str, str], evaluated: tuple[str, str]) -> list[str]:
    """Say what evaluations of the training are of, where one of the two splits is of tiles."""
    if sentence := describe_tiles(*evaluated):
        return [f"note: {sentence}"]
    if describe_tiles(*trained) is None:
        return []
    return [
        f"note: {trained[1]} is of tiles and {evaluated[1]} of whole pictures, which evaluations "
        "during the training see as small as the network: convert it with the same --tiles, and "
        "measure whole pictures by `ssd_centernet evaluate --tiles`"
    ]


def _begun_with(model_dir: str | os.PathLike, folders: Sequence[str]) -> Mapping:
    """Return what a run that goes on noted, where its data are the same and still there."""
    begun = [one for one in recorded_sessions(model_dir) if one.get("event") == "begin"]
    if not (begun and has_checkpoint(model_dir)):
        return {}
    first, *others = map(os.path.abspath, folders)
    if [begun[-1].get(place) for place in _PLACES] != [first, others or None]:
        return {}
    found = {}
    for session in begun:
        found |= {name: session[name] for name in _SPLITS if name in session}
    trained = found.get("train_split", "").split(",")
    trained *= len(folders) if len(trained) == 1 else 1
    there = len(trained) == len(folders) and all(
        name in list_splits(folder) for folder, name in zip(folders, trained, strict=True)
    )
    if not there:
        found.pop("train_split", None)
    if found.get("eval_split") not in list_splits(folders[0]):
        found.pop("eval_split", None)
    return found


def _of_same_data_set(folder: str, trained: str, evaluated: str) -> str:
    """Find the split of a role in the data set that is trained on, else in any."""
    name, known = _name(folder, trained), list_splits(folder)
    if not name or not evaluated.startswith(f"{COCO}_"):
        return same_role(folder, evaluated)
    own = f"{name}_{evaluated.removeprefix(f'{COCO}_')}"
    other = same_role(folder, evaluated)
    # Where there is none at all, what is missing is told by the name that it should have.
    return own if own in known or other not in known else other


def _name(folder: str, split: str) -> str | None:
    """Return the name of the data set of a split; None where it has none, or is not known."""
    if split not in list_splits(folder) or "_" not in split:
        return None
    noted = read_object(Path(folder) / f"{split}.info.json")
    return split.rpartition("_")[0] if noted is None else name_and_split(split, noted)[0]
