"""Record files with their label map and info file, read as an evaluation does."""

from __future__ import annotations

import functools
import gzip
import json
import random
import re
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.data.shards import RecordSource, failures_named
from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind, write_files
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome
from tests.mutations.kinds import coco_file, record_fields

SPLIT = "coco_train"
SHARDS = tuple(f"{SPLIT}.record-0000{i}-of-00002" for i in range(2))
INFO, LABELS = f"{SPLIT}.info.json", "mscoco_label_map.pbtxt"
_PLACE = r"record \d+|info\.json|shard|[Bb]yte"


@functools.cache
def clean() -> dict[str, bytes]:
    """Convert the scene to two shards."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), coco_file.clean())
        output = Path(folder, "records")
        options = {"num_shards": 2, "workers": 1, "progress": False}
        convert_coco(Path(folder, coco_file.FILE), Path(folder, "images"), output, **options)
        return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def foreign() -> dict[str, bytes]:
    """Return the files without what only this library writes beside them."""
    return {name: data for name, data in clean().items() if not name.endswith(".json")}


def read(folder: Path) -> Outcome:
    """Return what an evaluation of the split sees, and what training notes."""
    labels = load_label_map(folder)
    source = RecordSource(str(folder), SPLIT, 0, 1, True, "object")
    batches = evaluation_batches(
        str(folder), label_map=labels, preprocess=_small, batch_size=4, split=SPLIT, max_boxes=8
    )
    images: dict[str, list] = {}
    with failures_named(folder, [SPLIT]):
        for batch in batches.as_numpy_iterator():
            _collect(batch, labels.names, images)
    meaning = Meaning({name: tuple(sorted(one)) for name, one in images.items()}, labels.names)
    return Outcome(meaning, _report(source.notes()))


def _small(image: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(tf.cast(image, tf.float32), (8, 8))


def _collect(batch: dict[str, np.ndarray], names, images: dict[str, list]) -> None:
    ids = {7 + 4 * i: f"{name}.png" for i, (name, _, _) in enumerate(scene.IMAGES)}
    for row, number in enumerate(batch["source_id"].tolist()):
        if number == -1:
            continue
        name = ids.get(number, f"image {number}")
        while name in images:
            name += " again"
        height, width = int(batch["height"][row]), int(batch["width"][row])
        images[name] = []
        for slot in np.flatnonzero(batch["valid"][row]):
            top, left, bottom, right = batch["boxes"][row, slot].astype(float)
            box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
            values = (round(float(value), 1) for value in box)
            crowd = bool(batch["is_crowd"][row, slot])
            images[name].append((names[int(batch["classes"][row, slot])], *values, crowd))


def _report(notes: list[str]) -> dict:
    """Return notes in the form of a report; what is left out begins with its number."""
    report: dict[str, dict] = {}
    for note in notes:
        kind = "dropped boxes" if "left out" in note else "notes"
        number = re.match(r"\d+", note)
        entry = {"count": int(number[0]) if number else 1, "first": [note]}
        report.setdefault(kind, {})[note] = entry
    return report


def records() -> Kind:
    """Return shards whose bytes, info file or label map change."""
    kind = Kind("records", clean, read)
    _add_bytes(kind)
    _add_files(kind)
    _add_info(kind)
    _add_labels(kind)
    return kind


def fields() -> Kind:
    """Return shards of another tool whose fields change."""
    kind = Kind("fields", foreign, read)
    record_fields.add_all(kind, SHARDS)
    return kind


def _changed(files: Files, name: str, data: bytes, places: str | None = _PLACE) -> Changed:
    return Changed({**files, name: data}, name, places)


def _add_bytes(kind: Kind) -> None:
    def of_shard(name: str, edit, *, rounds: int = 8) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            shard = rng.choice(SHARDS)
            return _changed(files, shard, edit(rng, files[shard]))

        kind.add(name, BROKEN, change, rounds=rounds)

    def flip(rng: random.Random, data: bytes) -> bytes:
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

    def flip_in_length(rng: random.Random, data: bytes) -> bytes:
        place = rng.randrange(12)
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

    def zeros(rng: random.Random, data: bytes) -> bytes:
        place, count = rng.randrange(len(data) - 64), rng.choice((4, 16, 64))
        return data[:place] + bytes(count) + data[place + count :]

    def cut(rng: random.Random, data: bytes) -> bytes:
        return data[: rng.randrange(1, len(data))]

    def cut_between(rng: random.Random, data: bytes) -> bytes:
        return data[: int.from_bytes(data[:8], "little") + 16]

    def first_lost(rng: random.Random, data: bytes) -> bytes:
        return data[int.from_bytes(data[:8], "little") + 16 :]

    def twice(rng: random.Random, data: bytes) -> bytes:
        return data + data[: int.from_bytes(data[:8], "little") + 16]

    of_shard("flip a bit", flip, rounds=40)
    of_shard("flip a bit of a length", flip_in_length, rounds=12)
    of_shard("zeros", zeros)
    of_shard("cut", cut, rounds=12)
    of_shard("cut between records", cut_between)
    of_shard("the first record is lost", first_lost)
    of_shard("a record twice", twice)
    of_shard("empty", lambda rng, data: b"")
    of_shard("bytes at the end", lambda rng, data: data + rng.randbytes(rng.choice((1, 12, 40))))
    of_shard("garbage", lambda rng, data: rng.randbytes(len(data)))
    of_shard("text", lambda rng, data: b"version https://git-lfs.github.com/spec/v1\n")
    of_shard("compressed alone", lambda rng, data: gzip.compress(data))


def _add_files(kind: Kind) -> None:
    def lost(rng: random.Random, files: Files) -> Changed:
        shard = rng.choice(SHARDS)
        left = {name: data for name, data in files.items() if name != shard}
        return Changed(left, SPLIT, r"00002|number \d|shard")

    def one_more(rng: random.Random, files: Files) -> Changed:
        name = rng.choice((f"{SPLIT}.record-00002-of-00003", f"{SPLIT}.record-00000-of-00001"))
        return Changed({**files, name: files[SHARDS[0]]}, SPLIT, r"shard counts|files of|shard")

    def exchanged(rng: random.Random, files: Files) -> Changed:
        first, second = SHARDS
        return Changed({**files, first: files[second], second: files[first]}, SPLIT, _PLACE)

    def equal(rng: random.Random, files: Files) -> Changed:
        first, second = rng.sample(SHARDS, 2)
        return Changed({**files, first: files[second]}, SPLIT, _PLACE)

    def no_json(rng: random.Random, files: Files) -> Changed:
        left = {name: data for name, data in files.items() if not name.endswith(".json")}
        return Changed(left, SPLIT)

    def both_compressed(rng: random.Random, files: Files) -> Changed:
        left = dict(no_json(rng, files).files)
        return Changed({**left, **{s: gzip.compress(left[s], mtime=0) for s in SHARDS}}, SPLIT)

    kind.add("a shard is lost", BROKEN, lost)
    kind.add("a shard too many", BROKEN, one_more, rounds=4)
    kind.add("shards exchanged", EITHER, exchanged)
    kind.add("one shard as both", BROKEN, equal)
    kind.add("no json beside it", SAME, no_json)
    kind.add("both compressed", SAME, both_compressed)


def _add_info(kind: Kind) -> None:
    def edited(name: str, claim: str, edit, *, rounds: int = 3) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            info = json.loads(files[INFO])
            edit(rng, info)
            return Changed({**files, INFO: json.dumps(info).encode()}, SPLIT, _PLACE)

        kind.add(name, claim, change, rounds=rounds)

    def bytes_of_a_shard(rng, info):
        rng.choice(info["shards"])["bytes"] += rng.choice((-1, 1, 100))

    def images_of_a_shard(rng, info):
        rng.choice(info["shards"])["num_images"] += rng.choice((-1, 1))

    def no_shards(rng, info):
        info["shards"] = rng.choice((None, 5, "x", {}, [5], [{}], [{"file": SHARDS[0]}]))

    def other_names(rng, info):
        rng.choice(info["shards"])["file"] = "coco_train.record-00000-of-00009"

    edited("info says other bytes", BROKEN, bytes_of_a_shard, rounds=5)
    edited("info says other counts", BROKEN, images_of_a_shard, rounds=4)
    edited("info has no shards", BROKEN, no_shards, rounds=8)
    edited("info names other shards", BROKEN, other_names)

    def cut(rng: random.Random, files: Files) -> Changed:
        data = files[INFO]
        return _changed(files, INFO, data[: rng.randrange(len(data) - 2)], WHOLE_FILE)

    kind.add("info is cut off", BROKEN, cut, rounds=4)


def _add_labels(kind: Kind) -> None:
    def edited(name: str, claim: str, edit, *, rounds: int = 3) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            found = text.changed(files, LABELS, edit(rng, files[LABELS].decode()))
            return Changed(found.files, (LABELS, SPLIT), r"record \d+|item|line|class|id \d")

        kind.add(name, claim, change, rounds=rounds)

    def names(rng: random.Random, data: str) -> str:
        first, second = rng.sample(scene.CLASSES, 2)
        data = data.replace(f"'{first}'", "'HERE'").replace(f"'{second}'", f"'{first}'")
        return data.replace("'HERE'", f"'{second}'")

    def ids(rng: random.Random, data: str) -> str:
        first, second = rng.sample(("2", "5", "8"), 2)
        data = data.replace(f"id: {first}", "id: HERE").replace(f"id: {second}", f"id: {first}")
        return data.replace("id: HERE", f"id: {second}")

    def shifted(rng: random.Random, data: str) -> str:
        step = rng.choice((-1, 1, 3))
        return re.sub(r"id: (\d)", lambda m: f"id: {int(m[1]) + step}", data)

    def renamed(rng: random.Random, data: str) -> str:
        return data.replace(rng.choice(("'cat'", "'dog'")), "'cow'")

    def one_less(rng: random.Random, data: str) -> str:
        items = [item + "}\n" for item in data.split("}\n")[:-1]]
        del items[rng.randrange(3)]
        return "".join(items)

    edited("names of the label map exchanged", BROKEN, names, rounds=4)
    edited("ids of the label map exchanged", BROKEN, ids, rounds=4)
    edited("ids of the label map shifted", BROKEN, shifted, rounds=4)
    edited("a class has another name", BROKEN, renamed)
    edited("a class is not in the label map", BROKEN, one_less)
    edited("no label map", BROKEN, lambda rng, data: "")

    def lost(rng: random.Random, files: Files) -> Changed:
        left = {name: data for name, data in files.items() if name != LABELS}
        return Changed(left, LABELS, WHOLE_FILE)

    kind.add("the label map is lost", BROKEN, lost)
