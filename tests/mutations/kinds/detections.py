"""Detections in COCO's result format, scored against annotations."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

from ssd_centernet.evaluation.coco import evaluate_detections_file
from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome
from tests.mutations.kinds import coco_file

FILE = "detections.json"
# The place is the number of the entry.
_PLACE = r"(detection|row|entry|item) \d+|\bline \d+"


def clean() -> dict[str, bytes]:
    """Return annotations, and as many detections, a little beside them."""
    truth = coco_file.content()
    rows = [
        {k: one[k] for k in ("image_id", "category_id")}
        | {"bbox": [v + 0.5 for v in one["bbox"]], "score": round(0.9 - 0.03 * number, 2)}
        for number, one in enumerate(truth["annotations"])
    ]
    return {coco_file.FILE: coco_file.dump(truth), FILE: coco_file.dump(rows)}


def read(folder: Path) -> Outcome:
    """Score the file; the numbers must be those of the clean one where the detections are."""
    result = evaluate_detections_file(folder / FILE, folder / coco_file.FILE)
    ids = {7 + 4 * i: f"{name}.png" for i, (name, _, _) in enumerate(scene.IMAGES)}
    names = {2 + 3 * i: name for i, name in enumerate(scene.CLASSES)}
    images: dict[str, list] = {name: [] for name in ids.values()}
    rows = result.rows
    for image, label, box, score in zip(
        rows.image_ids.tolist(),
        rows.category_ids.tolist(),
        rows.boxes.tolist(),
        rows.scores.tolist(),
        strict=True,
    ):
        values = (round(value, 2) for value in (*box, score))
        # Nothing can match it, and the notes say so: it is lost.
        if min(box[2:]) > 0:
            images[ids[image]].append((names[label], *values))
    meaning = Meaning({n: tuple(sorted(o)) for n, o in images.items()}, tuple(names.values()))
    return Outcome(meaning, _report(result.notes))


def _report(notes: dict[str, int]) -> dict:
    report: dict[str, dict] = {}
    for sentence, count in notes.items():
        is_lost = "left out" in sentence or "can match" in sentence
        kind = "dropped boxes" if is_lost else "notes"
        report.setdefault(kind, {})[sentence] = {"count": count, "first": [sentence]}
    return report


def detections() -> Kind:
    """Return a file of detections that changes."""
    kind = Kind("detections", clean, read)
    text.add_encodings(kind, _file)
    # All letters are ASCII, so that other encodings of 8 bits are the same bytes.
    text.add_marks(kind, _file, '{}[],:"', rounds=12)
    for add in (_add_same, _add_values, _add_units, _add_structure):
        add(kind)
    return kind


def _file(rng: random.Random, files: Files) -> str:
    return FILE


def _of(kind: Kind, claim: str, *, rounds: int = 4, places: str | None = _PLACE):
    """Return a decorator for a change of the parsed list."""

    def add(edit):
        def change(rng: random.Random, files: Files) -> Changed | None:
            rows = json.loads(files[FILE])
            edit(rng, rows)
            return text.changed(files, FILE, coco_file.dump(rows), places)

        kind.add(edit.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def _add_same(kind: Kind) -> None:
    @_of(kind, SAME)
    def ids_in_other_ways(rng, rows):
        how = rng.choice((str, float, lambda n: f"{n}.0", lambda n: f" {n} "))
        for row in rows:
            row["image_id"], row["category_id"] = how(row["image_id"]), how(row["category_id"])

    @_of(kind, SAME)
    def images_by_file_name(rng, rows):
        ending = rng.choice((".png", ""))
        for row in rows:
            row["image_id"] = scene.IMAGES[(row["image_id"] - 7) // 4][0] + ending

    @_of(kind, SAME)
    def categories_by_name(rng, rows):
        for row in rows:
            row["category_id"] = scene.CLASSES[(row["category_id"] - 2) // 3]

    @_of(kind, SAME)
    def numbers_as_text(rng, rows):
        for row in rows:
            row["bbox"] = [str(value) for value in row["bbox"]]
            row["score"] = str(row["score"])

    @_of(kind, SAME)
    def boxes_as_objects(rng, rows):
        for row in rows:
            row["bbox"] = dict(zip(("x", "y", "width", "height"), row["bbox"], strict=True))

    @_of(kind, SAME)
    def another_order(rng, rows):
        rng.shuffle(rows)

    @_of(kind, SAME)
    def keys_of_other_tools(rng, rows):
        for number, row in enumerate(rows):
            row.update(id=number, area=12.5, segmentation=[], iscrowd=0)


def _add_values(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=16)
    def a_number_that_is_none(rng, rows):
        others = (math.nan, math.inf, None, "", "x", [1], {}, True, "1 2", "٣", 10**400)
        rng.choice(rows)["bbox"][rng.randrange(4)] = rng.choice(others)

    @_of(kind, BROKEN, rounds=12)
    def a_score_that_is_none(rng, rows):
        others = (math.nan, math.inf, None, "", "high", [0.5], {}, True, -math.inf)
        rng.choice(rows)["score"] = rng.choice(others)

    @_of(kind, BROKEN, rounds=8)
    def a_box_that_is_none(rng, rows):
        others = (None, [], [1, 2, 3], [1, 2, 3, 4, 5], "", "box", 5, {}, {"x": 1})
        rng.choice(rows)["bbox"] = rng.choice(others)

    @_of(kind, BROKEN, rounds=10, places=rf"{_PLACE}|image ids|for example")
    def an_image_that_is_none(rng, rows):
        others = (None, "", "nothing.png", 999, -7, 7.5, [7], {}, True, 2**70)
        rng.choice(rows)["image_id"] = rng.choice(others)

    @_of(kind, BROKEN, rounds=10, places=rf"{_PLACE}|category ids")
    def a_category_that_is_none(rng, rows):
        others = (None, "", "cow", 99, -2, 2.5, [2], {}, True, 2**70)
        rng.choice(rows)["category_id"] = rng.choice(others)

    @_of(kind, BROKEN, rounds=6)
    def a_size_below_zero(rng, rows):
        rng.choice(rows)["bbox"][rng.choice((2, 3))] *= rng.choice((-1, 0))

    @_of(kind, BROKEN, rounds=6)
    def a_key_is_missing(rng, rows):
        row = rng.choice(rows)
        del row[rng.choice(list(row))]

    @_of(kind, BROKEN, rounds=6)
    def a_key_has_another_name(rng, rows):
        row = rng.choice(rows)
        key = rng.choice(list(row))
        row[rng.choice((key.upper(), f"{key}s"))] = row.pop(key)


def _add_units(kind: Kind) -> None:
    def all_boxes(name: str, convert) -> None:
        def edit(rng, rows):
            for row in rows:
                _, width, height = scene.IMAGES[(row["image_id"] - 7) // 4]
                row["bbox"] = convert(*row["bbox"], width, height)

        edit.__name__ = name
        _of(kind, BROKEN, places=r"(detection|row|entry) \d+|image \S+ has bbox|\.png has bbox")(
            edit
        )

    all_boxes("fractions", lambda x, y, w, h, W, H: [x / W, y / H, w / W, h / H])
    all_boxes("corners for sizes", lambda x, y, w, h, W, H: [x, y, x + w, y + h])
    all_boxes(
        "corners as fractions", lambda x, y, w, h, W, H: [x / W, y / H, (x + w) / W, (y + h) / H]
    )


def _add_structure(kind: Kind) -> None:
    def whole(name: str, claim: str, edit, *, rounds: int = 3) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            return text.changed(files, FILE, edit(rng, files[FILE].decode()), WHOLE_FILE)

        kind.add(name, claim, change, rounds=rounds)

    @_of(kind, BROKEN, rounds=6)
    def an_entry_that_is_none(rng, rows):
        rows[rng.randrange(len(rows))] = rng.choice((None, 5, "row", [], True))

    whole("cut off", BROKEN, lambda rng, d: d[: rng.randrange(1, len(d) - 3)], rounds=8)
    whole("in an object", EITHER, lambda rng, d: f'{{"annotations": {d}}}')
    whole("in a list", BROKEN, lambda rng, d: f"[{d}]")
    whole("a line for each", EITHER, lambda rng, d: _lines(d))
    whole(
        "annotations instead", BROKEN, lambda rng, d: coco_file.dump(coco_file.content()).decode()
    )
    whole("very deep", BROKEN, lambda rng, d: "[" * 100_000)

    def twice(rng: random.Random, data: str) -> str:
        places = [match.start() for match in re.finditer('"score"', data)]
        place = rng.choice(places)
        return data[:place] + '"score": 0.001, ' + data[place:]

    whole("a key twice", BROKEN, twice, rounds=4)


def _lines(data: str) -> str:
    return "".join(json.dumps(row) + "\n" for row in json.loads(data))
