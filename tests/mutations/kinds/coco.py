"""COCO json: as convert reads it, and as the ground truth of an evaluation."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, WHOLE_FILE, Changed, Meaning, Outcome
from tests.mutations.kinds.coco_boxes import add_boxes, add_units
from tests.mutations.kinds.coco_file import FILE, clean, of, place
from tests.mutations.kinds.coco_ids import add_copies_and_files, add_ids, add_same


def coco() -> Kind:
    """Return COCO json as convert reads it."""
    kind = Kind("coco", clean, lambda folder: scene.convert(folder / FILE, folder / "images"))
    _add_all(kind)
    return kind


def ground_truth() -> Kind:
    """Return COCO json as the ground truth of an evaluation."""
    kind = Kind("truth", clean, read_truth)
    _add_all(kind)
    return kind


def read_truth(folder: Path) -> Outcome:
    """Return what an evaluation takes for the truth; images are told apart by id or size."""
    truth = CocoGroundTruth.load(folder / FILE)
    ids = {7 + 4 * i: name for i, (name, _, _) in enumerate(scene.IMAGES)}
    sizes = {(width, height): name for name, width, height in scene.IMAGES}
    named = {}
    for number, width, height in zip(truth.image_ids, truth.widths, truth.heights, strict=True):
        name = ids.get(int(number)) or sizes.get((int(width), int(height)), f"image {number}")
        named[int(number)] = f"{name}.png"
    sides = dict(zip(named, zip(truth.widths, truth.heights, strict=True), strict=True))
    labels = {category["id"]: category["name"] for category in truth.categories}
    images: dict[str, list] = {name: [] for name in named.values()}
    columns = (truth.object_image_ids, truth.object_category_ids, truth.boxes, truth.is_crowd)
    for image, label, box, crowd in zip(*columns, strict=True):
        values = (round(float(value), 1) for value in box)
        if not _can_be_found(box, *sides[int(image)]):
            continue
        images[named[int(image)]].append((labels[int(label)], *values, bool(crowd)))
    meaning = Meaning({n: tuple(sorted(o)) for n, o in images.items()}, tuple(labels.values()))
    return Outcome(meaning, _as_report(truth.notes))


def _can_be_found(box: np.ndarray, width: int, height: int) -> bool:
    """Tell whether a detection could match a box; if none could, the notes count it as lost."""
    beyond = width and height and (box[0] >= width or box[1] >= height)
    return min(box[2:]) > 0 and min(box[:2] + box[2:]) > 0 and not beyond


def _as_report(notes: dict[str, int]) -> dict:
    """Return the notes of a ground truth, which hold no places, in the form of a report."""
    report: dict[str, dict] = {}
    for sentence, count in notes.items():
        kind = "dropped boxes" if "left out" in sentence or "can match it" in sentence else "notes"
        report.setdefault(kind, {})[sentence] = {"count": count, "first": [sentence]}
    return report


def _add_all(kind: Kind) -> None:
    text.add_encodings(kind, _file)
    text.add_marks(kind, _file, '{}[],:"', rounds=12)
    _add_cuts(kind)
    for add in (
        add_ids,
        add_same,
        add_copies_and_files,
        add_boxes,
        add_units,
        _add_broken,
        _add_structure,
    ):
        add(kind)


def _file(rng: random.Random, files: Files) -> str:
    return FILE


def _add_cuts(kind: Kind) -> None:
    def cut(rng: random.Random, data: str) -> str:
        return data[: rng.randrange(1, len(data.rstrip()) - 1)]

    def drop_line(rng: random.Random, data: str) -> str | None:
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        # Without its flag an object is no crowd region; a picture's size is read from its file.
        is_optional = any(key in lines[number] for key in ("iscrowd", "width", "height", "superc"))
        is_number = lines[number].strip(" ,\n").isdigit()
        if is_optional or is_number:
            return None
        return "".join(lines[:number] + lines[number + 1 :])

    def double_line(rng: random.Random, data: str) -> str:
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        return "".join(lines[: number + 1] + lines[number:])

    text.add_edit(kind, "cut off", BROKEN, _file, cut, rounds=12)
    text.add_edit(kind, "drop a line", EITHER, _file, drop_line, rounds=25)
    text.add_edit(kind, "double a line", EITHER, _file, double_line, rounds=15)


def _add_broken(kind: Kind) -> None:
    @of(kind, BROKEN, rounds=10)
    def flags_that_are_none(rng, value):
        one = scene.pick(rng, value["annotations"])
        one["iscrowd"] = rng.choice((2, -1, "maybe", math.nan, 0.5, [1], {}, "no crowd"))
        return place(one)

    @of(kind, BROKEN, rounds=12)
    def an_entry_that_is_none(rng, value):
        key = rng.choice(list(value))
        number = rng.randrange(len(value[key]))
        value[key][number] = rng.choice((None, 5, "entry", [], True))
        return rf"entry {number} of '{key}'"

    # Only the converter looks for files; a ground truth tells categories by their ids.
    only_for_files = BROKEN if kind.name == "coco" else EITHER

    @of(kind, only_for_files, rounds=8)
    def a_file_name_that_is_none(rng, value):
        number = rng.randrange(4)
        other = rng.choice((None, "", 5, [], {}, "a\0b", True))
        value["images"][number]["file_name"] = other
        return rf"entry {number} of 'images'|for example {re.escape(str(other))}"

    @of(kind, BROKEN, rounds=4)
    def a_name_that_is_none(rng, value):
        number = rng.randrange(3)
        value["categories"][number]["name"] = rng.choice((None, "", " ", [], {}))
        return rf"entry {number} of 'categories'|'categories'"

    if kind.name != "coco":
        return

    @of(kind, BROKEN, rounds=3)
    def two_categories_of_one_name(rng, value):
        first, second = rng.sample(value["categories"], 2)
        first["name"] = second["name"]
        return "name"


def _add_structure(kind: Kind) -> None:
    @of(kind, BROKEN, rounds=6, places=r"'(images|annotations|categories)'|images, ")
    def a_list_that_is_none(rng, value):
        key = rng.choice(list(value))
        value[key] = rng.choice((None, 5, "list", {}, True, {"1": {}}))

    @of(kind, BROKEN, rounds=2, places=r"'?(images|categories)'?")
    def a_list_that_is_missing(rng, value):
        del value[rng.choice(("images", "categories"))]

    @of(kind, BROKEN, places=r"'?(images|categories)'?|class")
    def a_list_that_is_empty(rng, value):
        value[rng.choice(("images", "categories"))] = []

    def twice(rng: random.Random, files: Files) -> Changed:
        data = files[FILE].decode()
        key = rng.choice(("annotations", "images", "categories"))
        other = rng.choice(("[]", "[{}]", "null"))
        return text.changed(files, FILE, data.replace("{", f'{{"{key}": {other},', 1), f"'{key}'")

    def own_key_twice(rng: random.Random, files: Files) -> Changed:
        data = files[FILE].decode()
        places = [i for i in range(len(data)) if data.startswith('"bbox"', i)]
        place = rng.choice(places)
        return text.changed(
            files, FILE, data[:place] + '"bbox": [1, 2, 3, 4], ' + data[place:], "'bbox'"
        )

    def nested(rng: random.Random, files: Files) -> Changed:
        return text.changed(files, FILE, "[" * 100_000, WHOLE_FILE)

    def in_a_list(rng: random.Random, files: Files) -> Changed:
        return text.changed(files, FILE, f"[{files[FILE].decode()}]", WHOLE_FILE)

    kind.add("a list twice", BROKEN, twice, rounds=6)
    kind.add("a box twice with two values", BROKEN, own_key_twice, rounds=4)
    kind.add("very deep", BROKEN, nested)
    kind.add("in a list", BROKEN, in_a_list)
