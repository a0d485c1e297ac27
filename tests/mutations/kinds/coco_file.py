"""A clean COCO json, and changes of what it says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import Changed

FILE = "instances.json"
Edit = Callable[[random.Random, dict], "str | bool | None"]


def clean() -> dict[str, bytes]:
    """Return the pictures and the json."""
    return {**scene.pictures("images"), FILE: dump(content())}


def content() -> dict:
    """Return the clean annotations; image ids have gaps, category ids too."""
    annotations = []
    for number, (image, label, x, y, w, h, crowd) in enumerate(scene.OBJECTS, 1):
        outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(
            {"id": 100 + number, "image_id": 7 + 4 * image, "category_id": 2 + 3 * label}
            | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": int(crowd)}
            | ({} if crowd else {"segmentation": outline})
        )
    images = [
        {"id": 7 + 4 * i, "file_name": f"{name}.png", "width": width, "height": height}
        for i, (name, width, height) in enumerate(scene.IMAGES)
    ]
    categories = [
        {"id": 2 + 3 * i, "name": n, "supercategory": "thing"} for i, n in enumerate(scene.CLASSES)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def dump(value: dict, **options) -> bytes:
    """Write json with one value a line, letters outside ASCII as they are."""
    return (json.dumps(value, indent=1, ensure_ascii=False, **options) + "\n").encode()


def of(kind: Kind, claim: str, *, rounds: int = 3, places: str | None = None):
    """Return a decorator for a change of the parsed json.

    The change returns a regular expression of the place that must be named, None for any, or False
    where it has nothing to change.
    """

    def add(edit: Edit) -> Edit:
        def change(rng: random.Random, files: Files) -> Changed | None:
            value = json.loads(files[FILE])
            found = edit(rng, value)
            if found is False:
                return None
            return text.changed(files, FILE, dump(value), places if found is None else found)

        kind.add(edit.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def place(annotation: dict) -> str:
    """Return a regular expression of the place of an annotation."""
    return rf"(annotation {annotation['id']}\b|line \d+)"
