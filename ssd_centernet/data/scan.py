"""Record files checked and counted, without unpacking a picture.

The fields of all records of a file are collected, then checked together with numpy: about 50
microseconds a record. What is wrong is an error here, before training, and names the record; a
graph that reads records could not say in which file one is.
"""

from __future__ import annotations

import dataclasses
import os
import struct

import numpy as np
import tensorflow as tf

from ssd_centernet.data import wire
from ssd_centernet.ops import image as image_ops

# Of the sides; beyond them a coordinate is rounded, further out it is something else.
SLACK, SLACK_PIXELS = 0.01, 2.0
FLAT = 1e-4  # Upside down by less than this is a box without area, which rounding makes.
SIDES = ("ymin", "xmin", "ymax", "xmax")

_BBOX = "image/object/bbox/"
_LABEL, _TEXT = "image/object/class/label", "image/object/class/text"
_CROWD, _AREA = "image/object/is_crowd", "image/object/area"
_NUMBERS = {
    **{_BBOX + side: wire.FLOATS for side in SIDES},
    _AREA: wire.FLOATS,
    _LABEL: wire.INTS,
    _CROWD: wire.INTS,
    "image/height": wire.INTS,
    "image/width": wire.INTS,
}
# At most one text each.
_NAMES = ("image/source_id", "image/filename", "image/key/sha256")
_KEYS = {name: name.encode() for name in (*_NUMBERS, *_NAMES, _TEXT, "image/encoded")}
_NO_TEXT = -1  # The code of the text where a record has none.


@dataclasses.dataclass(frozen=True)
class Summary:
    """What one record file holds.

    Attributes:
        path: the file.
        ids: the source id of each record as it stands there, empty where it has none.
        boxes: int32 [R], the boxes of each record that have an area.
        crowds: int32 [R], how many of them are crowd regions.
        flat: int32 [R], boxes without an area, which reading leaves out.
        classes: (label or None, text or None) -> number of the first record with an object of them.
        kinds: int32 [N], for each box that has an area which of `classes` it is, in their order.
        owners: int32 [N], the record of each of them.
        sizes: int64 [R, 2], height and width of each picture as its header says, 0 where it does
            not.
        resized: bool [R], whether a record says another size than its picture has.
        places: int64 [R], the byte of the file at which each record begins; of no use in a
            compressed file.
    """

    path: str
    ids: list[bytes]
    boxes: np.ndarray
    crowds: np.ndarray
    flat: np.ndarray
    classes: dict[tuple[int | None, bytes | None], int]
    kinds: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray
    resized: np.ndarray
    places: np.ndarray


_KNOWN: dict[str, tuple[tuple, Summary]] = {}


def summarize(path: str | os.PathLike) -> Summary:
    """Check a record file and count what it holds; once, as long as the file stays the same.

    Args:
        path: a TFRecord file of Examples, compressed or not.

    Returns:
        The counts.

    Raises:
        ValueError: the file is damaged, or a record is not what training could use; names the file,
            the record, the field and the value.
    """
    path = os.path.abspath(path)
    stat = os.stat(path)
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if path not in _KNOWN or _KNOWN[path][0] != state:
        _KNOWN[path] = (state, _Reader(path).summary())
    return _KNOWN[path][1]


class _Reader:
    """Collects the fields of a file's records, checks them and counts.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._raw: dict[str, list[bytes]] = {name: [] for name in _NUMBERS}
        self._text_lists: list[tuple[int, ...]] = []
        # Lists of texts as they stand in the file -> their codes; most come again and again.
        self._lists: dict[bytes, tuple[int, ...]] = {b"": ()}
        self._codes: dict[bytes, int] = {}
        self._sizes: list[tuple[int, int]] = []
        self._ids: list[bytes] = []
        self._places: list[int] = []
        self._read()

    def _fail(self, number: int, problem: str) -> None:
        raise ValueError(f"{wire.place(self._path, number)}: {problem}")

    def _read(self) -> None:
        number = -1
        for number, (data, start, end) in enumerate(wire.read_records(self._path)):
            self._places.append(start - wire.HEADER)
            try:
                fields = wire.features(data, start, end)
                b"".join(fields).decode()  # Names of fields are texts.
                for name, kind in _NUMBERS.items():
                    self._raw[name].append(wire.packed(data, fields.get(_KEYS[name]), kind))
                told = {}
                for name in _NAMES:
                    if (span := fields.get(_KEYS[name])) and span[0] < span[1]:
                        told[name] = wire.texts(data, span)
                name = _TEXT
                self._text_lists.append(self._coded(data, fields.get(_KEYS[name])))
                name = "image/encoded"
                pictures = wire.texts(data, fields.get(_KEYS[name]))
            except wire.WrongKindError as error:
                wanted = wire.KINDS[_NUMBERS.get(name, wire.BYTES)]
                self._fail(number, f"{name} holds {error}; expected {wanted}.")
            except (IndexError, ValueError, struct.error) as error:
                raise ValueError(
                    f"{self._path}: record {number} is not a valid Example ({error}). Write the "
                    "file again."
                ) from error
            for name, found in told.items():
                if len(found) != 1:
                    self._fail(number, f"{name} has {len(found)} values; expected one or no field.")
            self._ids.append(data[slice(*told.get("image/source_id", [(0, 0)])[0])])
            if len(pictures) != 1 or pictures[0][0] == pictures[0][1]:
                found = len(pictures) if len(pictures) != 1 else "an empty text"
                self._fail(number, f"image/encoded holds {found}; expected one JPEG or PNG file.")
            self._sizes.append(self._picture(number, data, *pictures[0]))
        self._count = number + 1

    def _coded(self, data: wire.Buffer, span: wire.Span | None) -> tuple[int, ...]:
        """Return a number for each text of a list, the same for the same text."""
        raw = data[slice(*span)] if span else b""
        if raw not in self._lists:
            found = [raw[first:last] for first, last in wire.texts(raw, (0, len(raw)))]
            self._lists[raw] = tuple(self._codes.setdefault(t, len(self._codes)) for t in found)
        return self._lists[raw]

    def _picture(self, number: int, data: wire.Buffer, start: int, end: int) -> tuple[int, int]:
        """Return the height and width of a picture; decode it only where it looks damaged."""
        size = wire.picture_size(data, start, end)
        if min(size) > 0 and wire.has_end(data, start, end):
            return size
        try:
            image_ops.decode_image(tf.constant(data[start:end]))
        except (tf.errors.OpError, ValueError) as error:
            reason = getattr(error, "message", str(error)).split("\n")[0].split(" [Op:")[0]
            reason = reason.rpartition("}} ")[2]
            self._fail(
                number,
                f"image/encoded ({end - start} bytes) cannot be decoded: {reason} Expected a whole "
                "JPEG, PNG, GIF or BMP file: write the record again, or leave it out.",
            )
        return size

    # --- checks of all records together ------------------------------------------------------

    def summary(self) -> Summary:
        """Check what was read and return the counts."""
        height, width, rotated, resized, sizes = self._checked_sizes()
        boxes, counts = self._boxes()
        owners = np.repeat(np.arange(self._count), counts)
        self._check_corners(boxes, owners, height, width)
        is_crowd, flags = self._values(_CROWD, counts)
        self._check_values(_CROWD, is_crowd, flags, (is_crowd != 0) & (is_crowd != 1), "0 or 1")
        area, given = self._values(_AREA, counts)
        bad = ~np.isfinite(area) | (area < 0)
        self._check_values(_AREA, area, given, bad, "pixels^2 of 0 or more")
        classes, kinds = self._first_of_each(self._classes(counts), owners)
        self._check_rotated(rotated, counts)
        clipped = np.clip(boxes, 0.0, 1.0)
        usable = (clipped[2] > clipped[0]) & (clipped[3] > clipped[1])
        crowd = np.zeros(len(owners), bool)
        crowd[np.isin(owners, flags)] = is_crowd > 0
        return Summary(
            path=self._path,
            ids=self._ids,
            boxes=self._per_record(owners[usable]),
            crowds=self._per_record(owners[usable & crowd]),
            flat=self._per_record(owners[~usable]),
            classes=classes,
            kinds=kinds[usable],
            owners=owners[usable].astype(np.int32),
            sizes=sizes,
            resized=resized,
            places=np.array(self._places, np.int64),
        )

    def _per_record(self, owners: np.ndarray) -> np.ndarray:
        return np.bincount(owners, minlength=self._count).astype(np.int32)

    def _numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of a field of all records, and how many of them each record has."""
        raw = self._raw[name]
        lengths = np.fromiter(map(len, raw), np.int64, self._count)
        if _NUMBERS[name] == wire.FLOATS:
            odd = np.flatnonzero(lengths % 4)
            if len(odd):
                self._fail(odd[0], f"{name} is cut short. Write the file again.")
            return np.frombuffer(b"".join(raw), "<f4"), lengths // 4
        joined = np.frombuffer(b"".join(raw), np.uint8)
        last = joined < 0x80
        ends = np.cumsum(lengths)
        unfinished = np.flatnonzero((lengths > 0) & ~np.append(last, True)[ends - 1])
        if len(unfinished):
            self._fail(unfinished[0], f"{name} is cut short. Write the file again.")
        values = joined.astype(np.uint64)
        if not last.all():
            stops = np.flatnonzero(last)
            starts = np.append(0, stops[:-1] + 1)
            places = np.arange(len(joined)) - np.repeat(starts, stops - starts + 1)
            parts = (values & np.uint64(0x7F)) << (7 * places).astype(np.uint64)
            values = np.add.reduceat(parts, starts)
        counts = np.diff(np.append(0, np.append(0, np.cumsum(last))[ends]))
        return values.view(np.int64), counts

    def _checked_sizes(self) -> tuple[np.ndarray, ...]:
        """Compare the sizes that records say with those of the pictures."""
        read = np.array(self._sizes, np.int64).reshape(-1, 2)
        said = []
        for name in ("image/height", "image/width"):
            values, counts = self._numbers(name)
            many = np.flatnonzero(counts > 1)
            if len(many):
                self._fail(many[0], f"{name} has {counts[many[0]]} values; expected one.")
            column = np.zeros(self._count, np.int64)
            column[counts > 0] = values
            bad = np.flatnonzero(column < 0)
            if len(bad):
                self._fail(bad[0], f"{name} is {column[bad[0]]}; expected pixels.")
            said.append(column)
        said = np.stack(said, axis=1)
        known = (said > 0).all(axis=1) & (read > 0).all(axis=1)
        differs = known & (said != read).any(axis=1)
        rotated = differs & (said == read[:, ::-1]).all(axis=1)
        size = np.where(known[:, np.newaxis], said, read)
        self._rotation = (said, read)
        return size[:, 0], size[:, 1], rotated, differs, read

    def _check_rotated(self, rotated: np.ndarray, counts: np.ndarray) -> None:
        wrong = np.flatnonzero(rotated & (counts > 0))
        if len(wrong):
            said, read = (size[wrong[0]] for size in self._rotation)
            self._fail(
                wrong[0],
                f"image/height and image/width say {said[0]} x {said[1]}, but the picture has "
                f"{read[0]} x {read[1]} pixels as it is stored: they are exchanged, or the boxes "
                "are those of the picture turned upright by its EXIF orientation, which reading "
                "records ignores. Write the records again, with turned pictures.",
            )

    def _boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners float64 [4, N] and the boxes of each record."""
        columns = [self._numbers(_BBOX + side) for side in SIDES]
        counts = columns[0][1]
        for side, (_, other) in zip(SIDES, columns, strict=True):
            wrong = np.flatnonzero(counts != other)
            if len(wrong):
                first = wrong[0]
                self._fail(
                    first,
                    f"{_BBOX}ymin has {counts[first]} values but {_BBOX}{side} has {other[first]}; "
                    "expected one for each box.",
                )
        return np.stack([values for values, _ in columns]).astype(np.float64), counts

    def _check_corners(
        self, boxes: np.ndarray, owners: np.ndarray, height: np.ndarray, width: np.ndarray
    ) -> None:
        """Refuse corners that are no fractions of the picture."""
        extent = np.maximum(np.stack([height, width] * 2), 1)[:, owners]
        slack = np.maximum(SLACK, np.where(extent > 1, SLACK_PIXELS / extent, 0.0))
        with np.errstate(invalid="ignore"):
            bad = ~((boxes >= -slack) & (boxes <= 1.0 + slack))
        if bad.any():
            index = np.flatnonzero(bad.any(axis=0))[0]
            side = np.flatnonzero(bad[:, index])[0]
            value = boxes[side, index]
            cause = _likely_unit(boxes) if np.isfinite(value) else "a number is missing."
            self._fail(
                owners[index],
                f"{_BBOX}{SIDES[side]} is {value:.7g}; expected fractions 0..1 of the picture, got "
                f"{value:.7g}: {cause} Divide by the picture's width and height when the records "
                "are written.",
            )
        for low, high in ((0, 2), (1, 3)):
            upside_down = np.flatnonzero(boxes[low] - boxes[high] > FLAT)
            if len(upside_down):
                index = upside_down[0]
                self._fail(
                    owners[index],
                    f"{_BBOX}{SIDES[low]} is {boxes[low, index]:.7g}, above {SIDES[high]} "
                    f"{boxes[high, index]:.7g}; expected the smaller one first: are the corners "
                    "exchanged, or are these a corner and a size?",
                )

    def _values(self, name: str, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an optional field's values and the records that have it."""
        values, counts = self._numbers(name)
        self._check_length(name, counts, wanted)
        return values, np.flatnonzero(counts)

    def _check_length(self, name: str, counts: np.ndarray, wanted: np.ndarray) -> None:
        wrong = np.flatnonzero((counts != 0) & (counts != wanted))
        if len(wrong):
            first = wrong[0]
            self._fail(
                first,
                f"{name} has {counts[first]} values but there are {wanted[first]} boxes; expected "
                "one for each box.",
            )

    def _check_values(
        self, name: str, values: np.ndarray, records: np.ndarray, bad: np.ndarray, expected: str
    ) -> None:
        wrong = np.flatnonzero(bad)
        if len(wrong):
            counts = self._numbers(name)[1]
            owner = np.repeat(np.arange(self._count), counts)[wrong[0]]
            self._fail(owner, f"{name} holds {values[wrong[0]]:.7g}; expected {expected}.")

    def _classes(self, wanted: np.ndarray) -> np.ndarray:
        """Return for each box whether it has a label, the label, the code of its text: [N, 3]."""
        labels, label_counts = self._numbers(_LABEL)
        self._check_length(_LABEL, label_counts, wanted)
        text_counts = np.fromiter(map(len, self._text_lists), np.int64, self._count)
        self._check_length(_TEXT, text_counts, wanted)
        without = np.flatnonzero((wanted > 0) & (label_counts == 0) & (text_counts == 0))
        if len(without):
            first = without[0]
            self._fail(first, f"has {wanted[first]} boxes, but neither {_LABEL} nor {_TEXT}.")
        codes = np.fromiter((c for codes in self._text_lists for c in codes), np.int64)
        columns = (
            np.repeat(label_counts > 0, wanted),
            _spread(labels, label_counts, wanted, 0),
            _spread(codes, text_counts, wanted, _NO_TEXT),
        )
        return np.stack(columns, axis=1).astype(np.int64)

    def _first_of_each(
        self, objects: np.ndarray, owners: np.ndarray
    ) -> tuple[dict[tuple[int | None, bytes | None], int], np.ndarray]:
        """Return each pair of label and text with its first record, and the pair of each box."""
        if not len(owners):
            return {}, np.zeros(0, np.int32)
        names = list(self._codes)
        pairs, first, kinds = np.unique(objects, axis=0, return_index=True, return_inverse=True)
        classes = {
            (label if has_label else None, None if code == _NO_TEXT else names[code]): int(at)
            for (has_label, label, code), at in zip(pairs.tolist(), owners[first], strict=True)
        }
        return classes, kinds.reshape(-1).astype(np.int32)


def _spread(values: np.ndarray, counts: np.ndarray, wanted: np.ndarray, missing: int) -> np.ndarray:
    """Return one value for each box, where a record has values for all of its boxes or for none."""
    result = np.full(wanted.sum(), missing, np.int64)
    result[np.repeat(counts > 0, wanted)] = values
    return result


def _likely_unit(boxes: np.ndarray) -> str:
    """Tell what coordinates are that are no fractions, by the largest of a file."""
    finite = boxes[np.isfinite(boxes)]
    largest = np.abs(finite).max(initial=0.0)
    if largest <= 2.0:
        return "does the box reach beyond the picture? Clip it then."
    return "per cent, or pixels?" if largest <= 100.0 else "pixels?"
