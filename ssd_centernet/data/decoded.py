"""Pictures unpacked once, in a file that every process maps: what `cache = "decoded"` reads.

A folder of the cache holds `pixels` (uint8 RGB, one picture after another), `records` (the records
without their pictures) and `index.npz` (where the pictures lie). Its name is a digest of the
records and of the reduction, so other records never find it, and processes that read the same
records share it. A picture is a view of the mapped file: nothing is copied or unpacked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from ssd_centernet.data import records, shards
from ssd_centernet.data.mixture import Mixture
from ssd_centernet.files import put_folder, remove_leftovers, temporary_folder
from ssd_centernet.memory import available_memory
from ssd_centernet.ops import image as image_ops

VARIABLE = "SSD_CENTERNET_DECODED"
PIXELS, RECORDS, INDEX = "pixels", "records", "index.npz"

# Changed where other files are written for the same records.
_FORMAT = "1"
# A view of a tensor must begin where the widest registers may read.
_ALIGNMENT = 64
# Of the memory that is there; a training needs the rest.
_SHARE_OF_MEMORY = 0.8
_GIB = 2**30
# Beyond it no picture is reduced; a number of pixels would be refused.
_LARGEST_SCALE = 16


def folder_of_cache(named: str | os.PathLike | None = None) -> Path:
    """Return where decoded pictures lie.

    Args:
        named: a folder; None takes SSD_CENTERNET_DECODED, or a folder of the user's cache.
    """
    named = named or os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ssd_centernet" / "decoded"


class DecodedRecords:
    """The pictures of record files, unpacked; written where they are not there yet.

    Args:
        sources: the record files; each source is a folder.
        longest_side: most pixels of the longer side; a larger picture is reduced, by the mean of
            the pixels that become one. None leaves all as they are.
        folder: where to keep them, see `folder_of_cache`.

    Raises:
        ValueError: they do not fit on the disk or in memory, or what lies there is damaged; says
            which setting to change.
    """

    def __init__(
        self,
        sources: Sequence[shards.RecordSource],
        *,
        longest_side: int | None = None,
        folder: str | os.PathLike | None = None,
    ):
        self._sources, self._longest_side = sources, longest_side
        self.path = folder_of_cache(folder) / self._name()
        if not self.path.exists():
            with _written_by_one(self.path):
                if not self.path.exists():
                    self._write()
        self._open()
        self._tell_what_changes()

    def _tell_what_changes(self) -> None:
        """Say that pixels are not those of the records."""
        if self._longest_side is not None:
            sizes = [one.sizes for source in self._sources for one in source.summaries]
            longest = np.concatenate([np.zeros([0, 2], np.int64), *sizes]).max(axis=1)
            logging.warning(
                "training_batches.cache_scale reduces %d of %d pictures to %d pixels: their pixels "
                "are not those that the recipe was published with",
                (longest > self._longest_side).sum(),
                len(longest),
                self._longest_side,
            )

    def parser(self, parse: Callable[..., dict]) -> Callable[..., dict]:
        """Make the graph function (number of a record, ...) -> example with `image`.

        Args:
            parse: from a serialized record, and what else an entry has, to an example.

        Returns:
            The function; numbers count over all files, as `shards.FileTable` does.
        """

        def parse_held(number: tf.Tensor, *others: tf.Tensor) -> dict:
            example = parse(self._records[number], *others)
            del example["encoded"]
            size = self._sizes[number]
            span = tf.reduce_prod(size) * 3
            flat = tf.slice(self._pixels, self._places[number][tf.newaxis], span[tf.newaxis])
            pixels = tf.reshape(flat, tf.concat([size, [3]], axis=0))
            example["image"] = tf.ensure_shape(pixels, [None, None, 3])
            return {**example, "source_id": self._ids[number]}

        return parse_held

    def _files(self) -> list[str]:
        return [path for source in self._sources for path in source.files]

    def _name(self) -> str:
        """Name the folder by what decides on its content."""
        digest = hashlib.blake2b(f"{_FORMAT} {self._longest_side}".encode(), digest_size=16)
        for source in self._sources:
            packed = shards.compression(source.files)
            for one in source.summaries:
                digest.update(_content_of(one.path, one.places, packed))
        return f"{self._sources[0].split}-{digest.hexdigest()}"

    # --- writing -----------------------------------------------------------------------------

    def _estimate(self, longest_side: int | None) -> int:
        """Return how many bytes the pictures take, by the sizes in their headers."""
        sizes = [one.sizes for source in self._sources for one in source.summaries]
        sizes = np.concatenate([np.zeros([0, 2], np.int64), *sizes]).astype(np.float64)
        if longest_side is not None:
            longest = np.maximum(sizes.max(axis=1, keepdims=True), 1.0)
            sizes = np.round(sizes * np.minimum(1.0, longest_side / longest))
        spans = sizes.prod(axis=1) * 3
        return int((np.ceil(spans / _ALIGNMENT) * _ALIGNMENT).sum())

    def _check_fits(self) -> int:
        """Refuse what does not fit, and return how many bytes it takes."""
        size, where = self._estimate(self._longest_side), self.path.parent
        memory, disk = available_memory(), shutil.disk_usage(where).free
        if size > disk:
            problem = f"{where} has {disk / _GIB:.2f} GiB free"
            remedy = "training_batches.cache_dir = 'FOLDER' of a larger disk, or "
        elif memory is not None and size > _SHARE_OF_MEMORY * memory:
            problem = (
                f"only {_SHARE_OF_MEMORY:.0%} of the available {memory / _GIB:.2f} GiB of memory "
                "may be used for them, and from a disk they are no faster than unpacking"
            )
            remedy = ""
        else:
            return size
        smaller = "a smaller training_batches.cache_scale"
        if self._longest_side is None:
            smaller = "training_batches.cache_scale = 1.5"
        raise ValueError(
            f"training_batches.cache = 'decoded' would hold {size / _GIB:.2f} GiB of pictures, but "
            f"{problem}. Set {remedy}{smaller}, which reduces pictures (docs/data.md), or "
            "training_batches.cache = False."
        )

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path.parent, [self.path.name], say=logging.warning)
        size = self._check_fits()
        count = sum(len(one.boxes) for source in self._sources for one in source.summaries)
        # Of a large data set it takes minutes.
        logging.warning("unpacking %d pictures, %.2f GiB, to %s", count, size / _GIB, self.path)
        with temporary_folder(self.path) as folder:
            self._write_files(folder, size)
            put_folder(folder, self.path)

    def _write_files(self, folder: Path, size: int) -> None:
        columns: dict[str, list] = {"places": [], "sizes": [], "ids": []}
        with (
            open(folder / PIXELS, "wb") as file,
            tf.io.TFRecordWriter(str(folder / RECORDS)) as writer,
        ):
            if size and hasattr(os, "posix_fallocate"):  # A disk that is full is told at once.
                os.posix_fallocate(file.fileno(), 0, size)
            for serialized, pixels, source_id, full_size in self._unpacked().as_numpy_iterator():
                columns["places"].append(file.tell())
                columns["sizes"].append(pixels.shape[:2])
                columns["ids"].append(source_id)
                file.write(pixels.tobytes())
                file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
                writer.write(_without_picture(serialized, *full_size))
            file.truncate()
            # After a fall of the power a file may have its name and size before its content.
            file.flush()
            os.fsync(file.fileno())
            end = file.tell()
        arrays = {
            "places": np.array(columns["places"], np.int64),
            "sizes": np.array(columns["sizes"], np.int64).reshape(-1, 2),
            "ids": np.array(columns["ids"], np.int64),
        }
        np.savez(folder / INDEX, end=end, **arrays)

    def _unpacked(self) -> tf.data.Dataset:
        """Return (record, pixels, id, size before the reduction) of each record, in order."""

        @tf.autograph.experimental.do_not_convert
        def unpack(serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
            picture = records.parse_picture(serialized)
            full_size = tf.stack([picture["height"], picture["width"]])
            pixels = image_ops.decode_image(picture["encoded"])
            if self._longest_side is not None:
                pixels = image_ops.reduce_to(pixels, self._longest_side)
            return serialized, pixels, picture["source_id"], full_size

        read = None
        for source in self._sources:
            one = shards.read_records(source.files)
            read = one if read is None else read.concatenate(one)
        return read.map(unpack, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)

    # --- reading -----------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            with np.load(self.path / INDEX, allow_pickle=False) as index:
                places, sizes, ids = (index[name] for name in ("places", "sizes", "ids"))
                end = int(index["end"])
            held = list(tf.data.TFRecordDataset(str(self.path / RECORDS)).as_numpy_iterator())
            found = os.path.getsize(self.path / PIXELS)
            spans = sizes.prod(axis=1) * 3
            whole = len(places) == len(sizes) == len(ids) == len(held) and found == end
            if not (whole and (places >= 0).all() and (places + spans <= end).all()):
                raise ValueError(f"{found} bytes of pixels, {len(held)} records")
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, tf.errors.OpError) as error:
            reason = str(getattr(error, "message", error)).split("\n")[0]
            raise ValueError(
                f"{self.path} is not what training_batches.cache = 'decoded' wrote there "
                f"({reason}). Remove this folder; it is then written again."
            ) from error
        with tf.device("CPU"):
            self._places, self._sizes, self._ids = map(tf.constant, (places, sizes, ids))
            self._records = tf.constant(held)
            # Mapped, not read: processes share the pages.
            path = os.path.abspath(self.path / PIXELS)
            self._pixels = tf.raw_ops.ImmutableConst(
                dtype=tf.uint8, shape=[end], memory_region_name=path
            )


def decoded_records(
    source: shards.RecordSource | Mixture,
    cache: bool | str,
    cache_scale: float | None,
    cache_dir: str | os.PathLike | None,
    image_size: tuple[int, int] | None,
) -> DecodedRecords | None:
    """Open the unpacked pictures that the settings of `training_batches` ask for.

    Args:
        source: the record files.
        cache: as in `training_batches`.
        cache_scale: as in `training_batches`.
        cache_dir: as in `training_batches`.
        image_size: (height, width) of the network's input in pixels, if it is known.

    Returns:
        None where `cache` is not 'decoded'.

    Raises:
        ValueError: a setting is not what it can be, or see `DecodedRecords`.
    """
    if not isinstance(cache, bool) and cache != "decoded":
        raise ValueError(
            f"training_batches.cache is {cache!r}; expected False, True (encoded records in "
            "memory) or 'decoded' (unpacked pictures in a file)."
        )
    if cache != "decoded":
        for name, value in (("cache_scale", cache_scale), ("cache_dir", cache_dir)):
            if value is not None:
                raise ValueError(
                    f"training_batches.{name} is {value!r}, but training_batches.cache is {cache}, "
                    f"where it means nothing: set cache = 'decoded', or leave {name} out."
                )
        return None
    longest_side = None
    if cache_scale is not None:
        number = isinstance(cache_scale, int | float) and not isinstance(cache_scale, bool)
        if not (number and 1 <= cache_scale <= _LARGEST_SCALE):
            raise ValueError(
                f"training_batches.cache_scale is {cache_scale!r}; expected a number from 1 to "
                f"{_LARGEST_SCALE}, such as 1.5, or None."
            )
        if image_size is None:
            raise ValueError(
                f"training_batches.cache_scale is {cache_scale}, a multiple of image_size, which "
                "is not given: give image_size too."
            )
        longest_side = round(cache_scale * max(image_size))
    sources = source.sources if isinstance(source, Mixture) else [source]
    return DecodedRecords(sources, longest_side=longest_side, folder=cache_dir)


def _content_of(path: str, places: np.ndarray, packed: str) -> bytes:
    """Return a digest of the records of a file: of their lengths and their own checksums."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if packed:
            for block in iter(lambda: file.read(2**20), b""):
                digest.update(block)
        else:
            # A record ends with its checksum, where the next one begins.
            for end in [*places[1:].tolist(), os.path.getsize(path)][: len(places)]:
                file.seek(end - 4)
                digest.update(end.to_bytes(8, "little") + file.read(4))
    return digest.digest()


def _without_picture(serialized: bytes, height: int, width: int) -> bytes:
    """Return a record without its picture, which says how large that was."""
    example = tf.train.Example.FromString(serialized)
    feature = example.features.feature
    feature["image/encoded"].bytes_list.value[:] = [b""]
    for name, value in (("image/height", height), ("image/width", width)):
        feature[name].int64_list.value[:] = [int(value)]
    return example.SerializeToString()


@contextlib.contextmanager
def _written_by_one(path: Path) -> Iterator[None]:
    """Hold a folder that is to be written: who comes second waits, and finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.lock"
    with open(name, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("waiting: another process unpacks %s", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # A file system without locks: each writes a folder and renames it.
            pass
        try:
            yield
        finally:
            # Who still waits for this file finds the folder, or writes one of its own.
            name.unlink(missing_ok=True)
