"""Changes of the fields of one record among records of another tool."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import tensorflow as tf

from tests.mutations import scene
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, Changed

SIDES = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
LABEL, TEXT = "image/object/class/label", "image/object/class/text"
CROWD, AREA = "image/object/is_crowd", "image/object/area"
LISTS = (*SIDES, LABEL, TEXT, CROWD, AREA)
Edit = Callable[[random.Random, dict], "bool | None"]


def add_all(kind: Kind, shards: Sequence[str]) -> None:
    """Add all changes.

    Args:
        kind: the kind.
        shards: names of its record files.
    """
    for add in (_add_same, _add_corners, _add_lists, _add_kinds, _add_classes, _add_pictures):
        add(kind, shards)


def _of(kind: Kind, shards: Sequence[str], claim: str, *, rounds: int = 4):
    """Return a decorator for a change of the fields of one record: name -> tf.train.Feature."""

    def add(edit: Edit) -> Edit:
        def change(rng: random.Random, files: Files) -> Changed | None:
            shard = rng.choice(shards)
            examples = _split(files[shard])
            number = rng.randrange(len(examples))
            example = tf.train.Example.FromString(examples[number])
            if edit(rng, example.features.feature) is False:
                return None
            examples[number] = example.SerializeToString(deterministic=True)
            place = rf"{shard}: record {number}\b"
            return Changed({**files, shard: _join(examples)}, shard, place)

        kind.add(edit.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def _split(data: bytes) -> list[bytes]:
    found, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        found.append(data[position + 12 : position + 12 + length])
        position += 16 + length
    return found


def _join(records: Sequence[bytes]) -> bytes:
    parts = []
    for record in records:
        length = len(record).to_bytes(8, "little")
        parts += [length, _checksum(length), record, _checksum(record)]
    return b"".join(parts)


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _texts(values) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _set(fields, name: str, feature: tf.train.Feature) -> None:
    fields[name].CopyFrom(feature)


def _values(feature: tf.train.Feature):
    """Return the list in a feature."""
    return getattr(feature, feature.WhichOneof("kind")).value


def _add_same(kind: Kind, shards: Sequence[str]) -> None:
    @_of(kind, shards, SAME)
    def fields_of_other_tools(rng, fields):
        _set(fields, "image/object/view", _texts([b"left"]))
        _set(fields, "image/segmentation", _floats([0.5] * 7))

    @_of(kind, shards, SAME)
    def no_texts(rng, fields):
        del fields[TEXT]

    @_of(kind, shards, SAME)
    def no_labels_but_texts(rng, fields):
        del fields[LABEL]

    @_of(kind, shards, SAME)
    def no_areas(rng, fields):
        del fields[AREA]

    @_of(kind, shards, SAME)
    def no_size(rng, fields):
        del fields["image/height"], fields["image/width"]

    @_of(kind, shards, SAME)
    def texts_in_capitals(rng, fields):
        _set(fields, TEXT, _texts([t.decode().upper().encode() for t in _values(fields[TEXT])]))

    @_of(kind, shards, SAME)
    def no_format_and_name(rng, fields):
        del fields["image/format"], fields["image/filename"], fields["image/key/sha256"]


def _add_corners(kind: Kind, shards: Sequence[str]) -> None:
    def one(rng: random.Random, fields) -> tuple:
        name = rng.choice(SIDES)
        values = _values(fields[name])
        return values, rng.randrange(len(values))

    def all_corners(fields, change) -> None:
        height, width = (_values(fields[f"image/{side}"])[0] for side in ("height", "width"))
        for name, side in zip(SIDES, (height, width, height, width), strict=True):
            _set(fields, name, _floats([change(v, side) for v in _values(fields[name])]))

    @_of(kind, shards, BROKEN, rounds=10)
    def a_corner_that_is_none(rng, fields):
        values, place = one(rng, fields)
        others = (float("nan"), float("inf"), -float("inf"), -0.5, 1.5, 37.0, 1e30, -3.0)
        values[place] = rng.choice(others)

    @_of(kind, shards, BROKEN)
    def pixels(rng, fields):
        all_corners(fields, lambda value, side: value * side)

    @_of(kind, shards, BROKEN)
    def per_cent(rng, fields):
        all_corners(fields, lambda value, side: value * 100)

    @_of(kind, shards, BROKEN)
    def thousandths(rng, fields):
        all_corners(fields, lambda value, side: value * 1000)

    @_of(kind, shards, BROKEN)
    def corners_exchanged(rng, fields):
        first, second = rng.choice(((0, 2), (1, 3)))
        values = [list(_values(fields[SIDES[i]])) for i in (first, second)]
        _set(fields, SIDES[first], _floats(values[1]))
        _set(fields, SIDES[second], _floats(values[0]))

    @_of(kind, shards, BROKEN)
    def one_box_upside_down(rng, fields):
        tops, bottoms = _values(fields[SIDES[0]]), _values(fields[SIDES[2]])
        place = rng.randrange(len(tops))
        tops[place], bottoms[place] = bottoms[place], tops[place]

    @_of(kind, shards, EITHER, rounds=6)
    def a_box_without_area(rng, fields):
        first, second = rng.choice(((0, 2), (1, 3)))
        place = rng.randrange(len(_values(fields[SIDES[0]])))
        _values(fields[SIDES[second]])[place] = _values(fields[SIDES[first]])[place]

    @_of(kind, shards, BROKEN)
    def left_and_right_side_by_side(rng, fields):
        values = [list(_values(fields[name])) for name in SIDES]
        for name, place in zip(SIDES, (1, 3, 0, 2), strict=True):
            _set(fields, name, _floats(values[place]))


def _add_lists(kind: Kind, shards: Sequence[str]) -> None:
    @_of(kind, shards, BROKEN, rounds=16)
    def a_value_is_missing(rng, fields):
        values = _values(fields[rng.choice(LISTS)])
        del values[rng.randrange(len(values))]

    @_of(kind, shards, BROKEN, rounds=16)
    def a_value_too_many(rng, fields):
        values = _values(fields[rng.choice(LISTS)])
        values.insert(rng.randrange(len(values) + 1), values[0])

    @_of(kind, shards, BROKEN, rounds=6)
    def corners_are_missing(rng, fields):
        del fields[rng.choice(SIDES)]

    @_of(kind, shards, BROKEN, rounds=6)
    def corners_are_empty(rng, fields):
        _set(fields, rng.choice(SIDES), _floats([]))

    @_of(kind, shards, BROKEN)
    def neither_labels_nor_texts(rng, fields):
        del fields[LABEL], fields[TEXT]

    @_of(kind, shards, BROKEN, rounds=4)
    def two_heights(rng, fields):
        values = _values(fields[rng.choice(("image/height", "image/width"))])
        values.append(values[0])


def _add_kinds(kind: Kind, shards: Sequence[str]) -> None:
    @_of(kind, shards, BROKEN, rounds=8)
    def corners_of_another_kind(rng, fields):
        name = rng.choice(SIDES)
        count = len(_values(fields[name]))
        _set(fields, name, rng.choice((_ints([0] * count), _texts([b"0.5"] * count))))

    @_of(kind, shards, BROKEN, rounds=6)
    def labels_of_another_kind(rng, fields):
        values = list(_values(fields[LABEL]))
        other = (_floats(values), _texts([str(value).encode() for value in values]))
        _set(fields, LABEL, rng.choice(other))

    @_of(kind, shards, BROKEN, rounds=4)
    def texts_of_another_kind(rng, fields):
        _set(fields, TEXT, _ints(list(_values(fields[LABEL]))))

    @_of(kind, shards, BROKEN, rounds=6)
    def flags_that_are_none(rng, fields):
        values = _values(fields[CROWD])
        values[rng.randrange(len(values))] = rng.choice((2, -1, 255, 2**40))

    @_of(kind, shards, BROKEN, rounds=6)
    def areas_that_are_none(rng, fields):
        values = _values(fields[AREA])
        values[rng.randrange(len(values))] = rng.choice((float("nan"), -4.0, float("inf")))

    @_of(kind, shards, BROKEN, rounds=4)
    def flags_of_another_kind(rng, fields):
        count = len(_values(fields[CROWD]))
        _set(fields, CROWD, rng.choice((_floats([0.0] * count), _texts([b"0"] * count))))


def _add_classes(kind: Kind, shards: Sequence[str]) -> None:
    @_of(kind, shards, BROKEN, rounds=8)
    def a_label_that_is_not_in_the_map(rng, fields):
        values = _values(fields[LABEL])
        values[rng.randrange(len(values))] = rng.choice((0, 1, 3, 9, 90, -5, 2**40))

    @_of(kind, shards, BROKEN, rounds=8)
    def a_label_of_another_class(rng, fields):
        values = _values(fields[LABEL])
        place = rng.randrange(len(values))
        values[place] = rng.choice([label for label in (2, 5, 8) if label != values[place]])

    @_of(kind, shards, BROKEN, rounds=8)
    def a_text_of_another_class(rng, fields):
        values = _values(fields[TEXT])
        place = rng.randrange(len(values))
        names = [name.encode() for name in scene.CLASSES]
        values[place] = rng.choice([name for name in names if name != values[place]])

    @_of(kind, shards, BROKEN, rounds=4)
    def a_text_that_is_not_in_the_map(rng, fields):
        values = _values(fields[TEXT])
        values[rng.randrange(len(values))] = rng.choice((b"cow", b"c\xe4t", b"cat2"))

    @_of(kind, shards, BROKEN, rounds=4)
    def texts_alone_that_are_not_in_the_map(rng, fields):
        a_text_that_is_not_in_the_map(rng, fields)
        del fields[LABEL]


def _add_pictures(kind: Kind, shards: Sequence[str]) -> None:
    @_of(kind, shards, BROKEN, rounds=6)
    def a_picture_that_is_none(rng, fields):
        data = _values(fields["image/encoded"])[0]
        other = rng.choice((b"", b"/data/one.png", b"GIF89a", bytes(400), data[:30]))
        _set(fields, "image/encoded", _texts([other]))

    @_of(kind, shards, BROKEN, rounds=8)
    def a_picture_cut_off(rng, fields):
        data = _values(fields["image/encoded"])[0]
        _set(fields, "image/encoded", _texts([data[: rng.randrange(40, len(data) - 16)]]))

    @_of(kind, shards, BROKEN, rounds=4)
    def no_picture(rng, fields):
        del fields["image/encoded"]

    @_of(kind, shards, BROKEN, rounds=3)
    def two_pictures(rng, fields):
        values = _values(fields["image/encoded"])
        values.append(values[0])

    @_of(kind, shards, BROKEN, rounds=4)
    def height_and_width_exchanged(rng, fields):
        height, width = (list(_values(fields[f"image/{side}"])) for side in ("height", "width"))
        _set(fields, "image/height", _ints(width))
        _set(fields, "image/width", _ints(height))
