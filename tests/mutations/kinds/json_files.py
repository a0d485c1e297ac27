"""JSON files that the library itself wrote, which a cut copy or an editor has changed."""

from __future__ import annotations

import functools
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from ssd_centernet.data.static import static_batches, write_static_batches
from ssd_centernet.labels import LabelMap
from ssd_centernet.runs.own_data import images_of_split
from ssd_centernet.runs.planned import check_settings
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, WHOLE_FILE, Changed, Meaning, Outcome

_OTHERS = (None, True, -1, 2.5, 10**12, "x", "", [], [7], [None], {}, {"x": []})


def _add_changes(
    kind: Kind, names: Sequence[str], keys: Sequence[str], told: tuple, *, texts: bool = True
) -> None:
    """Add changes of bytes and of values of files.

    Args:
        kind: the kind.
        names: of the files, one of which is changed.
        keys: names of values that the reader needs; each gets values of other kinds.
        told: names, of which an error has one.
        texts: whether another text in the place of a text is wrong.
    """

    def edited(name: str, claim: str, edit: Callable, rounds: int) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            file = rng.choice(list(names))
            return Changed({**files, file: edit(rng, files[file])}, told, WHOLE_FILE)

        kind.add(name, claim, change, rounds=rounds)

    def cut(rng: random.Random, data: bytes) -> bytes:
        return data[: rng.randrange(len(data.rstrip()) - 1)]

    def no_text(rng: random.Random, data: bytes) -> bytes:
        place = rng.randrange(len(data))
        return data[:place] + rng.choice((b"\xff\xfe", b"\0", b"\xed\xa0\x80")) + data[place:]

    edited("cut off", BROKEN, cut, 12)
    edited("bytes that are no text", BROKEN, no_text, 8)
    edited("zeros", BROKEN, lambda rng, data: bytes(len(data)), 1)
    edited("another value", BROKEN, lambda rng, d: json.dumps(rng.choice(_OTHERS)).encode(), 8)
    edited("very deep", BROKEN, lambda rng, data: b"[" * 100_000, 1)

    def value(rng: random.Random, files: Files) -> Changed | None:
        key = rng.choice(list(keys))
        changed = dict(files)
        for file in names:
            content = json.loads(files[file])
            for holder in _holders(content, key):
                old, new = holder[key], rng.choice(_OTHERS)
                if isinstance(old, str) and isinstance(new, str) and not texts:
                    continue
                # A reader of one worker cannot know that there are not so many.
                if (key, new) == ("workers", 10**12):
                    continue
                if new != old or type(new) is not type(old):
                    holder[key] = new
                    changed[file] = json.dumps(content).encode()
                    return Changed(changed, told, WHOLE_FILE)
        return None

    def lost(rng: random.Random, files: Files) -> Changed:
        key, changed = rng.choice(list(keys)), dict(files)
        for file in names:
            content = json.loads(files[file])
            for holder in _holders(content, key):
                del holder[key]
            changed[file] = json.dumps(content).encode()
        return Changed(changed, told, WHOLE_FILE)

    kind.add("a value of another kind", BROKEN, value, rounds=40)
    kind.add("a key is missing", BROKEN, lost, rounds=8)


def _holders(content: object, key: str) -> list[dict]:
    """Return the objects in some content that have a key."""
    parts = content.values() if isinstance(content, dict) else content
    found = [content] if isinstance(content, dict) and key in content else []
    for part in parts if isinstance(content, dict | list) else ():
        found += _holders(part, key)
    return found


# --- static batches ------------------------------------------------------------------------------

_LABELS = LabelMap(("square", "bar"), (1, 3))


@functools.cache
def _static() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        batches = (
            {"image": tf.fill([2, 4, 4, 3], float(n)), "source_id": tf.constant([n, -n], tf.int64)}
            for n in range(1, 4)
        )
        where = write_static_batches(batches, folder, steps=3, label_map=_LABELS)
        return {f"worker_0/{path.name}": path.read_bytes() for path in sorted(where.iterdir())}


def static() -> Kind:
    """Return static batches, of which the description changes."""

    def read(folder: Path) -> Outcome:
        batches = static_batches(str(folder), batch_size=2, label_map=_LABELS, image_size=(4, 4))
        images = {
            str(number): tuple((name, value.numpy().tobytes()) for name, value in batch.items())
            for number, batch in enumerate(batches.take(3))
        }
        return Outcome(Meaning(images))

    kind = Kind("static", _static, read)
    keys = ("workers", "steps", "batch_size", "fields", "labels", "image", "shape", "dtype")
    _add_changes(kind, ["worker_0/static.json"], keys, ("static.json", "worker_0"))

    @kind.mutation(EITHER, rounds=30)
    def flip_a_bit(rng: random.Random, files: Files) -> Changed:
        data = bytearray(files["worker_0/static.json"])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        changed = {**files, "worker_0/static.json": bytes(data)}
        return Changed(changed, ("static.json", "worker_0"), WHOLE_FILE)

    return kind


# --- settings of a comparison --------------------------------------------------------------------


def comparison() -> Kind:
    """Return the settings of a comparison that is to go on."""
    settings = {"gin_file": ["ssd_demo"], "seed": 3, "epochs": None}

    def clean() -> dict[str, bytes]:
        text = json.dumps(settings, indent=1).encode()
        return {"settings.json": text, "fp32/checkpoint": b"", "fp32/ckpt-1.index": b""}

    def read(folder: Path) -> Outcome:
        check_settings(folder, settings)
        return Outcome(Meaning({"settings": (((folder / "settings.json").read_bytes(),),)}))

    kind = Kind("comparison", clean, read)
    # The error about other settings names them and the folder.
    _add_changes(kind, ["settings.json"], ("gin_file", "seed"), ("settings.json", "--"))
    return kind


# --- the images of a split -----------------------------------------------------------------------


def split_images() -> Kind:
    """Return what a conversion noted of a split, from which its image files are found."""

    # Of the pictures nothing is read: any files will do.
    here = Path(__file__)
    names = ("coco_val.info.json", "coco_val.annotations.json")

    def clean() -> dict[str, bytes]:
        shards = [{"file": "coco_val.record-00000-of-00001", "num_images": 2, "bytes": 0}]
        info = {"shards": shards, "image_dir": os.fspath(here.parent), "input": {"max_pixels": 9}}
        images = [{"id": n, "file_name": name} for n, name in enumerate((here.name, "voc.py"))]
        contents = (json.dumps(content).encode() for content in (info, {"images": images}))
        return dict(zip(names, contents, strict=True))

    def read(folder: Path) -> Outcome:
        paths = images_of_split(folder, "coco_val")
        return Outcome(Meaning({"paths": tuple((path,) for path in paths)}))

    kind = Kind("split images", clean, read)
    keys = ("shards", "file", "images", "file_name")
    # Another text is another file, which may be gone: that is no error.
    _add_changes(kind, names, keys, names, texts=False)

    @kind.mutation(BROKEN, rounds=4)
    def a_folder_that_is_none(rng: random.Random, files: Files) -> Changed:
        info = {**json.loads(files[names[0]]), "image_dir": rng.choice((7, [7], {"x": 1}, True))}
        return Changed({**files, names[0]: json.dumps(info).encode()}, names, WHOLE_FILE)

    return kind
