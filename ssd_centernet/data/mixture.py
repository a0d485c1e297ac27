"""Several data sets as one, and images that come more often than others.

Each record of an epoch has a number of copies: 0, 1 or more. It is a pure function of the seed and
the epoch, and its sum is the same in every epoch, so that the count of examples consumed is still
the position in the stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.directory import find_label_map
from ssd_centernet.labels import LabelMap

# Copies are counted in whole parts of this: sums are exact, on every device.
_PARTS = 1 << 20

DataDir = str | Path | Sequence[str | Path]


def folders_of(data_dir: DataDir) -> list[str]:
    """Return the folders of a data set or of several.

    Raises:
        ValueError: there is none, or one is given twice.
    """
    several = not isinstance(data_dir, str | os.PathLike)
    folders = [os.fspath(one) for one in (data_dir if several else [data_dir])]
    seen = {os.path.realpath(folder) for folder in folders}
    if not folders or len(seen) < len(folders):
        raise ValueError(
            f"the data directories are {folders}; expected one or more different folders. To take "
            "one more often, set train.data_weights (--data_weights=2,1)."
        )
    return folders


def splits_of(split: str, count: int) -> list[str]:
    """Return the split of each of several folders.

    Args:
        split: one name for all, or as many as there are folders with commas between them:
            'coco_train,train'.
        count: number of folders.

    Raises:
        ValueError: there is another number of names.
    """
    names = [name.strip() for name in split.split(",")]
    if len(names) not in (1, count):
        raise ValueError(
            f"the split {split!r} names {len(names)} splits for {count} data directories; expected "
            "one for all, or one for each in their order (--train_split=coco_train,train)."
        )
    return names * (count if len(names) == 1 else 1)


def merged_label_map(data_dir: DataDir) -> tuple[LabelMap, list[str]]:
    """Read the label maps of several data sets and join them by the names of the classes.

    The ids of the first folder stay. A class that it does not have keeps its own id where that is
    free, else it gets the next free one.

    Args:
        data_dir: a folder or several.

    Returns:
        The label map, and sentences that the user should read.

    Raises:
        FileNotFoundError: a folder has no label map.
    """
    folders = folders_of(data_dir)
    merged, note = find_label_map(folders[0])
    notes = [note] if note else []
    for folder in folders[1:]:
        own, note = find_label_map(folder)
        notes += [note] if note else []
        ids = dict(zip(merged.ids, merged.names, strict=True))
        other_names, added = dict(merged.other_names), []
        for category_id, name in zip(own.ids, own.names, strict=True):
            known = merged.id_of(name)
            if known is not None:
                if ids[known] != name:
                    notes.append(f"{name!r} of {folder} is taken for {ids[known]!r} of the others")
                continue
            free = category_id if category_id not in ids else max(ids) + 1
            ids[free] = name
            added.append(name)
            if category_id in own.other_names:
                other_names[free] = own.other_names[category_id]
        if added:
            notes.append(f"{folder} adds the classes {', '.join(added)}")
        order = sorted(ids)
        merged = LabelMap([ids[i] for i in order], order, other_names=other_names)
    return merged, notes


class Mixture:
    """The records of one data set or several, and how often each comes in an epoch.

    Args:
        data_dir: a folder or several.
        split: prefix of the names of their record files; see `splits_of`.
        rank: number of the process.
        world_size: number of processes; all read all files and take turns.
        keep_empty: whether to use images without objects.
        crowd: as in `training_batches`.
        label_map: of all folders together; None reads it.
        weights: share of each folder in an epoch, in any unit; None takes every image once.
        repeat_threshold: share of the images below which a class is rare: an image comes
            max(1, sqrt(threshold / share)) times, for the rarest of its classes; None repeats none.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        data_dir: DataDir,
        split: str,
        rank: int,
        world_size: int,
        keep_empty: bool,
        crowd: str,
        *,
        label_map: LabelMap | None = None,
        weights: Sequence[float] | None = None,
        repeat_threshold: float | None = None,
    ):
        self.folders = folders_of(data_dir)
        self.sources = [
            shards.RecordSource(folder, of_folder, 0, 1, keep_empty, crowd)
            for folder, of_folder in zip(
                self.folders, splits_of(split, len(self.folders)), strict=True
            )
        ]
        self.rank, self.world_size, self.split = rank, world_size, split
        shards.check_rank(rank, world_size)
        self.label_map = label_map or merged_label_map(self.folders)[0]
        self.label_maps = [self.label_map]
        if len(self.folders) > 1:
            self.label_maps = [find_label_map(folder)[0] for folder in self.folders]
        self.files = [path for source in self.sources for path in source.files]
        self._weights, self._threshold = weights, repeat_threshold
        if weights is not None and (
            len(weights) != len(self.folders)
            or not np.isfinite(weights).all()
            or min(weights) < 0
            or max(weights) == 0
        ):
            raise ValueError(
                f"data_weights are {tuple(weights)}; expected {len(self.folders)} numbers of 0 or "
                "more, one for each data directory, such as (2.0, 1.0)."
            )
        if repeat_threshold is not None and not 0 < repeat_threshold <= 1:
            raise ValueError(
                f"repeat_threshold is {repeat_threshold}; expected a share of the images above 0, "
                "at most 1, such as 0.001."
            )

    def check(self, label_map: LabelMap) -> None:
        """Refuse records that could not be used rightly, as `RecordSource.check` does."""
        del label_map  # Each folder has its own.
        for source, own in zip(self.sources, self.label_maps, strict=True):
            source.check(own)

    def check_not_empty(self) -> None:
        """Raise `shards.NoImageError` if this rank has no record to use."""
        if not self.count():
            raise shards.NoImageError(
                f"{', '.join(self.folders)} have no image of {self.split} for rank {self.rank} of "
                f"{self.world_size}. Check that the data sets have boxes, or set keep_empty=True."
            )

    def count(self) -> int:
        """Count the examples of this rank in an epoch, copies included."""
        total = int(self.parts().sum()) // _PARTS
        return len(range(self.rank, total, self.world_size))

    def parts(self) -> np.ndarray:
        """Return how often each record comes in an epoch on average, int64 [R] in parts.

        The sum over each folder is a whole number of examples.
        """
        often = np.concatenate([source.mask() for source in self.sources]).astype(np.float64)
        if self._threshold is not None:
            often *= self._repeats(often > 0)
        if self._weights is not None:
            often *= self._of_folders(often)
        parts = np.round(often * _PARTS).astype(np.int64)
        # Up to a whole number of examples, by as little as possible for each; rounding to parts
        # alone makes no further example.
        for of_folder in np.split(parts, np.cumsum(self.sizes())[:-1]):
            used = np.flatnonzero(of_folder % _PARTS)
            total = of_folder.sum()
            missing = -((len(used) - total) // _PARTS) * _PARTS - total
            if missing:
                of_folder[used] += missing // len(used)
                of_folder[used[: missing % len(used)]] += 1
        return parts

    def _repeats(self, used: np.ndarray) -> np.ndarray:
        """Return the repeat factor of each record, that of its rarest class."""
        size = self.label_map.num_classes
        owners, classes, before = [], [], 0
        for source, own in zip(self.sources, self.label_maps, strict=True):
            to_merged = self.classes_of(own)
            for one in source.summaries:
                kinds = [to_merged[_class_of(own, *pair)] for pair in one.classes]
                owners.append(one.owners.astype(np.int64) + before)
                classes.append(np.array(kinds, np.int64)[one.kinds])
                before += len(one.boxes)
        pairs = np.unique(np.concatenate(owners) * size + np.concatenate(classes))
        pairs = pairs[used[pairs // size]]
        share = np.bincount(pairs % size, minlength=size) / max(int(used.sum()), 1)
        factor = np.maximum(1.0, np.sqrt(self._threshold / np.maximum(share, 1e-12)))
        result = np.ones(len(used))
        np.maximum.at(result, pairs // size, factor[pairs % size])
        return result

    def _of_folders(self, often: np.ndarray) -> np.ndarray:
        """Return the factor of each record that gives the folders their shares of an epoch."""
        folder = self.folder_numbers()
        held = np.bincount(folder, often, minlength=len(self.folders))
        shares = np.asarray(self._weights, np.float64) / sum(self._weights)
        empty = np.flatnonzero((held == 0) & (shares > 0))
        if len(empty):
            raise ValueError(
                f"{self.folders[empty[0]]} has no image of {self.split} to use, but its weight is "
                f"{self._weights[empty[0]]}. Set its weight to 0, or leave the folder out."
            )
        return (shares * often.sum() / np.maximum(held, 1e-12))[folder]

    def largest_picture(self) -> tuple[int, int]:
        """Return the largest height and the largest width, as `RecordSource` does."""
        heights, widths = zip(*(source.largest_picture() for source in self.sources), strict=True)
        return max(heights), max(widths)

    def sizes(self) -> list[int]:
        """Return how many records each folder has."""
        return [len(source.objects()) for source in self.sources]

    def folder_numbers(self) -> np.ndarray:
        """Return the number of each record's folder, int32 [R]."""
        return np.repeat(np.arange(len(self.sources)), self.sizes()).astype(np.int32)

    def classes_of(self, own: LabelMap) -> np.ndarray:
        """Return the merged class of each class of a folder, int32 [C]."""
        ids = [self.label_map.id_of(name) for name in own.names]
        return np.array([self.label_map.to_class(i) for i in ids], np.int32)

    def parser(self, label_map: LabelMap) -> Callable[[tf.Tensor, tf.Tensor], dict]:
        """Make the graph function (serialized record, number of its folder) -> example."""
        del label_map  # Each folder has its own.

        def parse_with(own: LabelMap, serialized: tf.Tensor) -> dict:
            example = records.parse_example(serialized, own)
            table = tf.constant(self.classes_of(own))
            return {**example, "classes": tf.gather(table, example["classes"])}

        def parse(serialized: tf.Tensor, folder: tf.Tensor) -> dict:
            if len(self.label_maps) == 1:
                return records.parse_example(serialized, self.label_map)
            branches = [lambda own=own: parse_with(own, serialized) for own in self.label_maps]
            return tf.switch_case(folder, branches)

        return parse

    def notes(self) -> list[str]:
        """Say what the sources say, and how an epoch is made up."""
        notes = [note for source in self.sources for note in source.notes()]
        total = int(self.parts().sum()) // _PARTS
        often = np.bincount(self.folder_numbers(), self.parts() / _PARTS, len(self.folders))
        if len(self.folders) > 1:
            told = ", ".join(f"{f}: {n:.0f}" for f, n in zip(self.folders, often, strict=True))
            notes.append(f"an epoch has {total} images ({told})")
        if self._threshold is not None:
            most = self.parts().max() / _PARTS
            notes.append(
                f"images of rare classes come more often, up to {most:.1f} times: an epoch has "
                f"{total} images"
            )
        return notes

    def objects(self) -> np.ndarray:
        """Return how many objects each image has, as `RecordSource.objects` does."""
        return np.concatenate([source.objects() for source in self.sources])

    def beyond(self, limit: int, setting: str, consequence: str) -> list[str]:
        """Say how many images have too many objects, as `RecordSource.beyond` does."""
        return [note for one in self.sources for note in one.beyond(limit, setting, consequence)]


def _class_of(own: LabelMap, label: int | None, text: bytes | None) -> int:
    """Return the class of a label, or of a text where there is none."""
    if label is None:
        label = own.id_of(text.decode("utf-8", "replace"))
    return own.to_class(label)


def copies(parts: np.ndarray, folders: np.ndarray, seed: tf.Tensor) -> tf.Tensor:
    """Draw how often each record comes in an epoch: its whole copies, and one more or none.

    The fractions of a folder are laid end to end in a random order, and a comb of distance 1 takes
    from them. Each record has one more copy with the probability of its fraction, and the sum over
    a folder is always that of `parts`.

    Args:
        parts: int64 [R] of `Mixture.parts`.
        folders: int [R], the folder of each record, ascending.
        seed: int64 [2] of the epoch.

    Returns:
        int64 [R].
    """
    fractions = tf.constant(parts % _PARTS)
    keys = tf.random.stateless_uniform([len(parts)], seed, dtype=tf.float64)
    order = tf.argsort(keys + tf.cast(folders, tf.float64))
    start = tf.random.stateless_uniform([], seed, maxval=_PARTS, dtype=tf.int64)
    ends = tf.cumsum(tf.gather(fractions, order)) + start
    begins = tf.concat([start[tf.newaxis], ends[:-1]], 0)
    more = ends // _PARTS - begins // _PARTS
    drawn = tf.scatter_nd(order[:, tf.newaxis], more, [len(parts)])
    return tf.constant(parts // _PARTS) + drawn


def training_source(
    data_dir: DataDir,
    *choice: Any,
    label_map: LabelMap | None = None,
    data_weights: Sequence[float] | None = None,
    repeat_threshold: float | None = None,
) -> shards.RecordSource | Mixture:
    """Return the records of one folder as they are, or a mixture of several or with copies.

    Args:
        data_dir: as in `training_batches`.
        *choice: split, rank, world_size, keep_empty and crowd of `RecordSource`.
        label_map: of all folders together; None reads it.
        data_weights: as in `training_batches`.
        repeat_threshold: as in `training_batches`.
    """
    folders = folders_of(data_dir)
    if len(folders) == 1 and repeat_threshold is None and data_weights is None:
        return shards.RecordSource(folders[0], *choice)
    mixed = {"weights": data_weights, "repeat_threshold": repeat_threshold}
    return Mixture(folders, *choice, label_map=label_map, **mixed)
