"""Record files of a data directory: reading, sharing out and counting them."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, wire
from ssd_centernet.data.record_classes import check_classes
from ssd_centernet.data.scan import Summary, summarize
from ssd_centernet.data.splits import find_shards, list_splits, read_info, split_prefix
from ssd_centernet.data.wire import place
from ssd_centernet.labels import LabelMap
from ssd_centernet.memory import available_memory
from ssd_centernet.ops import image as image_ops
from ssd_centernet.plain_text import counted

CROWD_CHOICES = ("object", "drop", "ignore")
# Pillow's own bound against decompression bombs: a quarter of a gigabyte of RGB.
MAX_PIXELS = 89_478_485
# Shards of one split hold about as many records each; an empty one among such is a broken copy.
_RECORDS_OF_A_SHARD = 4


def read_records(files: Sequence[str]) -> tf.data.Dataset:
    """Read the serialized records of files one after another, compressed or not.

    Args:
        files: of one split, of `find_shards`.

    Returns:
        Dataset of string scalars.

    Raises:
        ValueError: some of the files are compressed and others are not.
    """
    return tf.data.TFRecordDataset(list(files), compression_type=compression(files))


def compression(files: Sequence[str]) -> str:
    """Tell how the files of a split are compressed, as `tf.data.TFRecordDataset` takes it.

    Raises:
        ValueError: some are and others are not.
    """
    found = {wire.compression_of(path): path for path in files if os.path.getsize(path)}
    if len(found) > 1:
        told = ", ".join(f"{os.path.basename(p)}: {c or 'none'}" for c, p in found.items())
        raise ValueError(
            f"the record files of one split in {os.path.dirname(files[0])} are compressed in "
            f"{len(found)} ways ({told}); expected one. Compress all of them, or none."
        )
    return next(iter(found), "")


class FileTable:
    """Record files side by side: whole ones, or single records at their places.

    Args:
        sources: the record files; each source is a folder.
    """

    def __init__(self, sources: Sequence[RecordSource]):
        summaries = [one for source in sources for one in source.summaries]
        self.paths = [path for source in sources for path in source.files]
        packed = [c for s in sources for c in [compression(s.files)] * len(s.files)]
        # TensorFlow 2.10 cannot begin at a place of a file; records are skipped then.
        self.has_places = not any(packed) and hasattr(tf.raw_ops, "TFRecordDatasetV2")
        folders = np.repeat(np.arange(len(sources)), [len(s.files) for s in sources])
        self._counts = [len(one.boxes) for one in summaries]
        self._places = [one.places for one in summaries]
        self._ends = tf.constant(np.cumsum(self._counts), tf.int64)
        self._folders = tf.constant(folders, tf.int32)
        self._paths, self._packed = tf.constant(self.paths), tf.constant(packed)

    def span(self, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the first record of a file and the one after its last, counted over all files."""
        begin = tf.where(file > 0, self._ends[tf.maximum(file, 1) - 1], 0)
        return begin, self._ends[file]

    def folder(self, file: tf.Tensor) -> tf.Tensor:
        """Return the number of a file's folder."""
        return self._folders[file]

    def read(self, file: tf.Tensor) -> tf.data.Dataset:
        """Read the serialized records of a file."""
        return tf.data.TFRecordDataset(self._paths[file], compression_type=self._packed[file])

    def numbers(self, file: tf.Tensor) -> tf.data.Dataset:
        """Return the numbers of the records of a file, counted over all files."""
        return tf.data.Dataset.range(*self.span(file))

    def read_at(self, numbers: np.ndarray, *, open_files: int, in_order: bool) -> tf.data.Dataset:
        """Read records by their numbers, each at its place; not of compressed files.

        Args:
            numbers: int64 [N].
            open_files: how many are read at the same time.
            in_order: whether they must come in the order of their numbers.

        Returns:
            Dataset of string scalars; checksums are compared, as in reading whole files.
        """
        files = np.searchsorted(self._ends.numpy(), numbers, side="right")
        places = np.concatenate(self._places)[numbers]

        @tf.autograph.experimental.do_not_convert
        def read_one(file: tf.Tensor, place: tf.Tensor) -> tf.data.Dataset:
            # `TFRecordDataset` has this argument in the graph alone. No buffer: it would be filled
            # with what comes behind the record.
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=self._paths[file],
                compression_type="",
                buffer_size=tf.constant(0, tf.int64),
                byte_offsets=place,
            )
            return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)

        return tf.data.Dataset.from_tensor_slices((files, places)).interleave(
            read_one, cycle_length=open_files, num_parallel_calls=open_files, deterministic=in_order
        )


def shares_by_file(num_files: int, world_size: int) -> bool:
    """Tell whether ranks get whole files, which they do if their shares are then about equal."""
    return num_files % world_size == 0 or num_files >= 8 * world_size


class NoImageError(ValueError):
    """There is no image to train on."""


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
        check_rank(rank, world_size)
        if crowd not in CROWD_CHOICES:
            raise ValueError(f"crowd is {crowd!r}; expected one of {CROWD_CHOICES}.")
        self.data_dir, self.split = data_dir, split_prefix(data_dir, split)
        self.all_files = find_shards(data_dir, split)
        self.by_file = shares_by_file(len(self.all_files), world_size)
        self.files = self.all_files[rank::world_size] if self.by_file else self.all_files
        self.rank, self.world_size = rank, world_size
        self.keep_empty, self.crowd = keep_empty, crowd

    @functools.cached_property
    def summaries(self) -> list[Summary]:
        """What the files of this rank hold; each is checked when it is counted."""
        return [summarize(path) for path in self.files]

    def check(self, label_map: LabelMap) -> None:
        """Refuse files and records that training or evaluation could not use rightly.

        Args:
            label_map: of the data.

        Raises:
            ValueError: names the file, the record, the field and the value.
        """
        check_classes(self.summaries, label_map)
        info = read_info(self.data_dir, self.split) or {}
        self._check_pixels(max(MAX_PIXELS, info.get("input", {}).get("max_pixels", 0)))
        self._check_counts(info)

    def _check_pixels(self, limit: int) -> None:
        """Refuse pictures that would unpack to more than memory should hold."""
        for one in self.summaries:
            pixels = one.sizes.prod(axis=1)
            large = np.flatnonzero(pixels > limit)
            if len(large):
                raise ValueError(
                    f"{place(one.path, large[0])}: the header of image/encoded says "
                    f"{pixels[large[0]]:,} pixels; expected at most {limit:,}. If it is no "
                    "attack on memory, `ssd_centernet convert --max_pixels` allows larger pictures."
                )

    def _check_counts(self, info: Mapping) -> None:
        counts = {one.path: len(one.boxes) for one in self.summaries}
        noted = {shard["file"]: shard.get("num_images") for shard in info.get("shards", ())}
        for path, count in counts.items():
            wanted = noted.get(os.path.basename(path), count)
            if wanted not in (None, count):
                raise ValueError(
                    f"{path} holds {count} records, expected {wanted} as {self.split}.info.json "
                    "says: the files are of two conversions. Convert the split again with "
                    "--overwrite."
                )
        full = [count for count in counts.values() if count]
        empty = [path for path, count in counts.items() if not count]
        if empty and not noted and full and np.mean(full) >= _RECORDS_OF_A_SHARD:
            raise ValueError(
                f"{empty[0]} has 0 bytes, while the other {len(full)} shards hold about "
                f"{np.mean(full):.0f} records each: a copy was probably interrupted. Copy the file "
                "again."
            )

    def parser(self, label_map: LabelMap) -> Callable[[tf.Tensor], dict]:
        """Make the graph function serialized record -> example."""
        return lambda serialized: records.parse_example(serialized, label_map)

    def notes(self) -> list[str]:
        """Say what reading leaves out or takes as it is, with counts; nothing where all is well."""
        notes = []
        flat = [(one, number) for one in self.summaries for number in np.flatnonzero(one.flat)]
        if flat:
            boxes = sum(int(one.flat.sum()) for one in self.summaries)
            images, are = counted(len(flat), "image"), _verb(boxes, "is", "are")
            notes.append(
                f"{counted(boxes, 'box', 'boxes')} without an area in {images} of {self.split} "
                f"{are} left out "
                f"(first: {place(flat[0][0].path, flat[0][1])})"
            )
        ids = collections.Counter(i for one in self.summaries for i in one.ids if i)
        again = [i.decode("utf-8", "replace") for i, count in ids.items() if count > 1]
        if again:
            occur = _verb(len(again), "occurs", "occur")
            notes.append(
                f"{counted(len(again), 'image id')} of {self.split} {occur} more than once, such "
                f"as {again[0]!r}: is a record file there twice?"
            )
        sizes = [(one, number) for one in self.summaries for number in np.flatnonzero(one.resized)]
        if sizes:
            say = _verb(len(sizes), "says", "say")
            notes.append(
                f"{counted(len(sizes), 'record')} of {self.split} {say} "
                "another size than the picture has; areas and evaluation use theirs (first: "
                f"{place(sizes[0][0].path, sizes[0][1])})"
            )
        return notes

    def objects(self) -> np.ndarray:
        """Return how many objects each image of this rank has, after `crowd` chose among them."""
        parts = [
            one.boxes - (0 if self.crowd == "object" else one.crowds) for one in self.summaries
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def beyond(self, limit: int, setting: str, consequence: str) -> list[str]:
        """Say how many images have more objects than something can hold.

        Args:
            limit: objects of an image that it holds.
            setting: that says so, such as 'training_batches.max_boxes', or 'one and another'.
            consequence: what becomes of the others, in words.

        Returns:
            A sentence with the counts, or nothing.
        """
        counts = self.objects()
        many, most = int((counts > limit).sum()), int(counts.max(initial=0))
        if not many:
            return []
        have = _verb(many, "has", "have")
        return [
            f"{many} of {counted(len(counts), 'image')} of {self.split} {have} "
            f"more than {limit} objects (most: {most}); {consequence}: set "
            f"{setting.replace(' and ', f' = {most} and ')} = {most}"
        ]

    def kept(self) -> np.ndarray:
        """Return for each record in the files whether it is used, by this rank or another."""
        return np.full(len(self.objects()), True) if self.keep_empty else self.objects() > 0

    def mask(self) -> np.ndarray:
        """Return for each record in the files whether this rank uses it, as bool [R]."""
        kept = self.kept()
        if not self.by_file:
            kept &= (np.cumsum(kept) - 1) % self.world_size == self.rank
        return kept

    def largest_picture(self) -> tuple[int, int]:
        """Return the largest height and the largest width of the pictures that this rank uses."""
        sizes = np.concatenate([np.zeros([0, 2], int), *(one.sizes for one in self.summaries)])
        height, width = sizes[self.mask()].max(axis=0, initial=0).tolist()
        return height, width

    def count(self) -> int:
        """Count the records that this rank uses in an epoch."""
        return int(self.mask().sum())

    def check_not_empty(self) -> None:
        """Raise NoImageError if this rank has no record to use."""
        # With no record to use, an endless stream would wait for ever.
        if not self.count():
            raise NoImageError(
                f"The record files ({self.files[0]}, ...) have no image for rank {self.rank} of "
                f"{self.world_size} (keep_empty={self.keep_empty}, crowd={self.crowd!r}). Check "
                "that the data set has boxes; use fewer processes, or set keep_empty=True."
            )


def _verb(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


@contextlib.contextmanager
def failures_named(
    data_dir: str | os.PathLike | Sequence[str | os.PathLike], splits: Sequence[str]
) -> Iterator[None]:
    """Say in which file and record a picture or a checksum is damaged, which a graph cannot.

    Args:
        data_dir: folder of the record files that a block reads, or several.
        splits: that it reads.

    Raises:
        ValueError: instead of TensorFlow's error; names the record.
    """
    try:
        yield
    # TensorFlow quotes the bytes of what it cannot parse, which Python may then fail to decode.
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError) as error:
        several = not isinstance(data_dir, str | os.PathLike)
        for folder in data_dir if several else [data_dir]:
            for split in splits:
                known = split_prefix(folder, split) in list_splits(folder)
                for path in find_shards(folder, split) if known else ():
                    _refuse_damaged(path, error)
        raise


def _refuse_damaged(path: str, cause: Exception) -> None:
    """Raise ValueError for the first record of a file that cannot be read or decoded."""
    number = -1
    try:
        for number, serialized in enumerate(read_records([path])):
            try:
                fields = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
                encoded = tf.io.parse_single_example(serialized, fields)["image/encoded"]
                image_ops.decode_image(encoded)
            except (tf.errors.OpError, ValueError) as error:
                reason = str(getattr(error, "message", error)).split("\n")[0]
                reason = reason.split(" [Op:")[0].rpartition("}} ")[2]
                raise ValueError(
                    f"{place(path, number)}: image/encoded cannot be decoded: {reason} Write the "
                    "record again, or leave it out."
                ) from cause
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{path}: record {number + 1} is damaged: its checksum is not that of its bytes. Copy "
            "the file again, or convert the data again with --overwrite."
        ) from error


def check_rank(rank: int, world_size: int) -> None:
    """Raise ValueError where there is no such process."""
    check_range("world_size", world_size, 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; expected 0 <= rank < world_size ({world_size}).")


def check_range(name: str, value: int, least: int) -> None:
    """Raise ValueError where `value` is below `least`."""
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}.")


def check_fits_memory(paths: Sequence[str], share: float = 0.5) -> None:
    """Raise an error if record files do not fit in memory.

    Args:
        paths: the files.
        share: the part of the available memory that they may take.

    Raises:
        ValueError: they are larger.
    """
    size = sum(os.path.getsize(path) for path in paths)
    available = available_memory()
    if available is not None and size > share * available:
        raise ValueError(
            f"cache=True would hold {size / 2**30:.1f} GiB of records in memory, but only "
            f"{share:.0%} of the available {available / 2**30:.1f} GiB may be used for it. Set "
            "cache=False: the records are then read again in each epoch."
        )
