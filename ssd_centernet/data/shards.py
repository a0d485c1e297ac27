"""Record files of a data directory: finding, sharing out and counting them."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# 8 bytes of length and 4 of its checksum before a TFRecord, 4 of the data's checksum after it.
_HEADER, _FOOTER = 12, 4
CROWD_CHOICES = ("object", "drop", "ignore")
_BBOX = b"image/object/bbox/"
_SIDES = (b"ymin", b"xmin", b"ymax", b"xmax")


class Objects(NamedTuple):
    """The objects of one record: `boxes` with an area, and how many of them are crowd regions."""

    boxes: int
    crowds: int


def find_shards(data_dir: str, split: str) -> list[str]:
    """List the record files of a split in order.

    Names may be `SPLIT.record-00000-of-00008`, `SPLIT-00000-of-00256` or
    `SPLIT-00000-of-00256.tfrecord`.

    Args:
        data_dir: folder of the record files.
        split: prefix of their names, e.g. 'coco_train'.

    Returns:
        Paths, sorted.

    Raises:
        FileNotFoundError: no folder, no file of this split, or a shard is missing.
        ValueError: files of two conversions with different shard counts.
    """
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(
            f"The data directory {data_dir!r} does not exist. Set --data_dir to the folder that "
            "`ssd_centernet convert` wrote."
        )
    pattern = re.compile(
        re.escape(split) + r"(?:\.record|\.tfrecord)?-(\d+)-of-(\d+)(?:\.tfrecords?|\.record)?"
    )
    names = sorted(os.listdir(data_dir))
    found = [(name, match) for name in names if (match := pattern.fullmatch(name))]
    if not found:
        splits = sorted({re.split(r"\.record|-\d+-of", n)[0] for n in names if "-of-" in n})
        raise FileNotFoundError(
            f"No record files of split {split!r} in {data_dir!r} (expected names such as "
            f"{split}.record-00000-of-00008). Splits found there: {', '.join(splits) or 'none'}. "
            "Set the split or --data_dir, or run `ssd_centernet convert`."
        )
    totals = sorted({int(match[2]) for _, match in found})
    if len(totals) > 1:
        raise ValueError(
            f"Split {split!r} in {data_dir!r} has files of {len(totals)} conversions (shard counts "
            f"{totals}). Remove the files of all but one."
        )
    missing = set(range(totals[0])) - {int(match[1]) for _, match in found}
    if missing:
        raise FileNotFoundError(
            f"Split {split!r} in {data_dir!r} has {len(found)} of {totals[0]} shards; number "
            f"{min(missing)} is missing. The conversion or a copy was probably interrupted: run "
            "it again."
        )
    return [os.path.join(data_dir, name) for name, _ in found]


def shares_by_file(num_files: int, world_size: int) -> bool:
    """Tell whether ranks get whole files, which they do if their shares are then about equal."""
    return num_files % world_size == 0 or num_files >= 8 * world_size


class RecordSource:
    """The record files of one rank, and the choice of records that it uses.

    Args:
        data_dir: folder of the record files.
        split: prefix of their names.
        rank: number of the process.
        world_size: number of processes; each record goes to one of them.
        keep_empty: whether to use images without objects.
        crowd: 'object', 'drop' or 'ignore'; with the last two a crowd region is not an object.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: an argument out of range.
    """

    def __init__(
        self, data_dir: str, split: str, rank: int, world_size: int, keep_empty: bool, crowd: str
    ):
        check_range("world_size", world_size, 1)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; expected 0 <= rank < world_size ({world_size}).")
        if crowd not in CROWD_CHOICES:
            raise ValueError(f"crowd is {crowd!r}; expected one of {CROWD_CHOICES}.")
        files = find_shards(data_dir, split)
        self.by_file = shares_by_file(len(files), world_size)
        self.files = files[rank::world_size] if self.by_file else files
        self.rank, self.world_size = rank, world_size
        self.keep_empty, self.crowd = keep_empty, crowd

    def _kept(self):
        for path in self.files:
            for objects in scan(path):
                counted = objects.boxes - (0 if self.crowd == "object" else objects.crowds)
                yield self.keep_empty or counted > 0

    def mask(self) -> list[bool]:
        """Return for each record in the files whether this rank uses it."""
        kept, total = list(self._kept()), 0
        for index, keep in enumerate(kept):
            if keep:
                kept[index] = self.by_file or total % self.world_size == self.rank
                total += 1
        return kept

    def count(self) -> int:
        """Count the records that this rank uses in an epoch."""
        return sum(self.mask())

    def check_not_empty(self) -> None:
        """Raise ValueError if this rank has no record to use."""
        # With no record to use, an endless stream would wait for ever.
        needed = 1 if self.by_file else self.rank + 1
        found = len(list(islice((keep for keep in self._kept() if keep), needed)))
        if found < needed:
            raise ValueError(
                f"The record files ({self.files[0]}, ...) have no image for rank {self.rank} of "
                f"{self.world_size} (keep_empty={self.keep_empty}, crowd={self.crowd!r}). Check "
                "that the data set has boxes; use fewer processes, or set keep_empty=True."
            )

    def check_whole(self) -> None:
        """Raise ValueError, naming the file, if it is cut short or not a record file."""
        # Tensorflow notices it in mid-reading and does not say in which file.
        for path in self.files:
            for _ in scan(path):
                pass

    def uses(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Tell, in a graph, whether a parsed example is used; agree with `scan`."""
        counted = tf.size(example["classes"])
        if self.crowd == "ignore":
            counted -= tf.reduce_sum(tf.cast(example["is_crowd"], tf.int32))
        return counted > 0


def check_range(name: str, value: int, least: int) -> None:
    """Raise ValueError where `value` is below `least`."""
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}.")


def scan(path: str) -> Iterator[Objects]:
    """Walk through a record file and count the objects of each record without reading images.

    Only the pages that hold field headers are touched, so a record takes about 50 microseconds,
    however large its image is. Boxes are counted as `records.parse_example` keeps them: those that
    have an area after clipping to the image.

    Args:
        path: a TFRecord file of Examples, not compressed.

    Yields:
        `Objects` of each record, in order.

    Raises:
        ValueError: the file is damaged; names the file and the record.
    """
    size = os.path.getsize(path)
    if size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, number = 0, 0
        while position < size:
            end = -1
            if position + _HEADER <= size:
                start = position + _HEADER
                end = start + struct.unpack_from("<Q", data, position)[0]
            if end < 0 or end + _FOOTER > size:
                raise ValueError(
                    f"{path}: record {number} at byte {position} is damaged: the file ends inside "
                    "it, or it is not an (uncompressed) TFRecord file. A copy or a conversion "
                    "was probably interrupted: write the file again."
                )
            try:
                yield _count(_features(data, start, end))
            except (IndexError, ValueError, struct.error) as error:
                raise ValueError(
                    f"{path}: record {number} at byte {position} is not a valid Example ({error}). "
                    "Write the file again."
                ) from error
            position, number = end + _FOOTER, number + 1


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _spans(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of the fields of one protocol buffer message."""
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 2:
            length, position = _varint(data, position)
            stop = position + length
        elif wire == 0:
            _, stop = _varint(data, position)
        else:
            stop = position + {1: 8, 5: 4}[wire] if wire in (1, 5) else end + 1
        if stop > end:
            raise ValueError(f"a field reaches beyond its message at byte {position}")
        yield tag >> 3, position, stop
        position = stop


def _features(data: mmap.mmap, start: int, end: int) -> dict[bytes, tuple[int, int, mmap.mmap]]:
    """Return the places of the object fields of an Example: name -> (start, end, data)."""
    fields = {}
    for _, message_start, message_end in _spans(data, start, end):
        for _, entry_start, entry_end in _spans(data, message_start, message_end):
            entry = {field: span for field, *span in _spans(data, entry_start, entry_end)}
            name = data[slice(*entry[1])] if 1 in entry else b""
            if name.startswith(b"image/object/") and 2 in entry:
                fields[name] = (*entry[2], data)
    return fields


def _floats(start: int, end: int, data: mmap.mmap) -> np.ndarray:
    packed = b""
    for _, list_start, list_end in _spans(data, start, end):
        for _, value_start, value_end in _spans(data, list_start, list_end):
            packed += data[value_start:value_end]
    return np.frombuffer(packed, "<f4")


def _ints(start: int, end: int, data: mmap.mmap) -> list[int]:
    values = []
    for _, list_start, list_end in _spans(data, start, end):
        # Packed or not, the bytes of the values are varints one after another.
        for _, position, value_end in _spans(data, list_start, list_end):
            while position < value_end:
                value, position = _varint(data, position)
                values.append(value)
    return values


def _count(fields: dict[bytes, tuple[int, int, mmap.mmap]]) -> Objects:
    spans = [fields.get(_BBOX + side) for side in _SIDES]
    if None in spans:
        return Objects(0, 0)
    ymin, xmin, ymax, xmax = (np.clip(_floats(*span), 0.0, 1.0) for span in spans)
    usable = (ymax - ymin > 0) & (xmax - xmin > 0)
    crowds = fields.get(b"image/object/is_crowd")
    flags = np.asarray(_ints(*crowds) if crowds else [], bool)[: len(usable)]
    return Objects(int(usable.sum()), int((usable[: len(flags)] & flags).sum()))


def check_fits_memory(paths: Sequence[str], share: float = 0.5) -> None:
    """Raise an error if record files do not fit in memory.

    Args:
        paths: the files.
        share: the part of the available memory that they may take.

    Raises:
        ValueError: they are larger.
    """
    size = sum(os.path.getsize(path) for path in paths)
    available = _available_memory()
    if available is not None and size > share * available:
        raise ValueError(
            f"cache=True would hold {size / 2**30:.1f} GiB of records in memory, but only "
            f"{share:.0%} of the available {available / 2**30:.1f} GiB may be used for it. Set "
            "cache=False: the records are then read again in each epoch."
        )


def _available_memory() -> int | None:
    """Return MemAvailable in bytes, or None if the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
