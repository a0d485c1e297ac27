"""What means the same in a COCO json, and ids that mean nothing."""

from __future__ import annotations

import json
import math
import random

from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, SAME, Changed
from tests.mutations.kinds.coco_file import FILE, content, of, place


def add_ids(kind: Kind) -> None:
    """Add ids in other ways of writing, and ids that mean nothing."""

    def ids(value: dict, change, *, images: bool = True, categories: bool = False) -> None:
        for one in value["images"] if images else ():
            one["id"] = change(one["id"])
        for one in value["categories"] if categories else ():
            one["id"] = change(one["id"])
        for one in value["annotations"]:
            if images:
                one["image_id"] = change(one["image_id"])
            if categories:
                one["category_id"] = change(one["category_id"])

    @of(kind, SAME)
    def image_ids_as_text(rng, value):
        ids(value, str)

    @of(kind, SAME)
    def image_ids_as_floats(rng, value):
        ids(value, float)

    @of(kind, SAME)
    def image_ids_of_19_digits(rng, value):
        ids(value, lambda number: 9_007_199_254_740_992_000 + number)

    @of(kind, SAME)
    def listed_ids_as_text_and_others_as_numbers(rng, value):
        for one in value["images"]:
            one["id"] = str(one["id"])

    @of(kind, SAME, rounds=6)
    def one_image_id_as_text(rng, value):
        one = scene.pick(rng, value["annotations"])
        one["image_id"] = rng.choice((str, float, lambda n: f" {n} ", lambda n: f"{n}.0"))(
            one["image_id"]
        )

    @of(kind, SAME)
    def category_ids_as_text(rng, value):
        ids(value, str, images=False, categories=True)

    @of(kind, SAME)
    def category_ids_as_floats(rng, value):
        ids(value, float, images=False, categories=True)

    @of(kind, SAME)
    def images_by_file_name(rng, value):
        names = {one["id"]: one["file_name"] for one in value["images"]}
        for one in value["annotations"]:
            one["image_id"] = names[one["image_id"]]

    @of(kind, SAME, rounds=4)
    def annotation_ids(rng, value):
        how = rng.choice(("none", "equal", "zero", "text", "negative"))
        for number, one in enumerate(value["annotations"]):
            one["id"] = {"equal": 1, "zero": 0, "text": f"a{number}", "negative": -number}.get(how)
            if how == "none":
                del one["id"]

    _add_ids_that_are_none(kind)


def _add_ids_that_are_none(kind: Kind) -> None:
    @of(kind, BROKEN, rounds=8)
    def image_that_is_not_listed(rng, value):
        one = scene.pick(rng, value["annotations"])
        one["image_id"] = rng.choice((999, "nothing.png", -7, 7.5, None, [7], {}, True, "", 2**70))
        return place(one)

    @of(kind, BROKEN, rounds=8)
    def category_that_is_not_listed(rng, value):
        one = scene.pick(rng, value["annotations"])
        one["category_id"] = rng.choice((99, "ca", -2, 2.5, None, [2], {}, True, "", 2**70))
        return place(one)

    @of(kind, BROKEN, rounds=6)
    def two_images_of_one_id(rng, value):
        first, second = rng.sample(value["images"], 2)
        first["id"] = second["id"]
        return r"\bid"

    @of(kind, BROKEN, rounds=4)
    def two_categories_of_one_id(rng, value):
        first, second = rng.sample(value["categories"], 2)
        first["id"] = second["id"]
        return r"\bid"

    @of(kind, BROKEN, rounds=6)
    def image_ids_that_are_none(rng, value):
        number = rng.randrange(4)
        value["images"][number]["id"] = rng.choice((None, [1], {}, "", True, math.nan))
        return rf"entry {number} of 'images'"

    @of(kind, BROKEN, rounds=6)
    def category_ids_that_are_none(rng, value):
        number = rng.randrange(3)
        value["categories"][number]["id"] = rng.choice((None, [1], {}, "", True, math.nan))
        return rf"entry {number} of 'categories'"


def add_same(kind: Kind) -> None:
    """Add other ways to write flags, boxes and areas."""

    @of(kind, SAME)
    def other_orders(rng, value):
        for entries in value.values():
            rng.shuffle(entries)
            for number, entry in enumerate(entries):
                keys = list(entry)
                rng.shuffle(keys)
                entries[number] = {key: entry[key] for key in keys}

    @of(kind, SAME, rounds=6)
    def flags_in_other_ways(rng, value):
        how = rng.choice((str, bool, float, lambda n: str(bool(n)), lambda n: f" {n} "))
        for one in value["annotations"]:
            one["iscrowd"] = how(one["iscrowd"])

    @of(kind, SAME)
    def ignore_for_iscrowd(rng, value):
        for one in value["annotations"]:
            one["ignore"] = one.pop("iscrowd")

    @of(kind, SAME, rounds=4)
    def boxes_in_other_ways(rng, value):
        how = rng.choice(("text", "decimal", "object", "short", "corners", "one text"))
        for one in value["annotations"]:
            x, y, w, h = one["bbox"]
            one["bbox"] = {
                "text": [str(x), str(y), str(w), str(h)],
                "decimal": [f"{x},0", f"{y},0", f"{w},0", f"{h},0"],
                "object": {"x": x, "y": y, "width": w, "height": h},
                "short": {"h": h, "w": w, "y": y, "x": x},
                "corners": {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h},
                "one text": f"[{x}, {y}, {w}, {h}]",
            }[how]

    @of(kind, SAME, rounds=6)
    def boxes_by_outlines(rng, value):
        one = scene.pick(rng, [a for a in value["annotations"] if not a["iscrowd"]])
        rng.choice((lambda: one.pop("bbox"), lambda: one.update(bbox=None)))()

    @of(kind, SAME)
    def areas(rng, value):
        other = rng.choice((None, -1, 0, "many", math.nan, "12.5", [3]))
        for one in value["annotations"]:
            one["area"] = other


def add_copies_and_files(kind: Kind) -> None:
    """Add entries that stand twice, and other ways to write sizes and file names."""

    @of(kind, SAME, rounds=6)
    def an_object_twice(rng, value):
        one = dict(scene.pick(rng, value["annotations"]))
        one["id"] = rng.choice((one["id"], 4711))
        value["annotations"].insert(rng.randrange(10), one)

    @of(kind, SAME)
    def an_image_twice(rng, value):
        value["images"].insert(rng.randrange(4), dict(scene.pick(rng, value["images"])))

    @of(kind, SAME)
    def a_file_joined_with_itself(rng, value):
        for entries in value.values():
            entries += [dict(entry) for entry in entries]

    @of(kind, SAME, rounds=6)
    def a_file_under_two_ids(rng, value):
        one = dict(scene.pick(rng, value["images"]))
        for annotation in value["annotations"]:
            if annotation["image_id"] == one["id"] and rng.random() < 0.5:
                annotation["image_id"] = 5000
        one["id"] = 5000
        value["images"].append(one)

    @of(kind, SAME, rounds=4)
    def sizes_in_other_ways(rng, value):
        how = rng.choice((str, float, lambda n: f"{n}.0"))
        for one in value["images"]:
            one["width"], one["height"] = how(one["width"]), how(one["height"])

    @of(kind, SAME)
    def keys_of_other_tools(rng, value):
        value.update(info={"year": 2024}, licenses=[], type="instances")
        for entries in value.values():
            for one in entries if isinstance(entries, list) else ():
                one.update(license=1, note='quoted "{" text', extra=[1, {"bbox": [1, 2, 3, 4]}])

    def escaped(rng: random.Random, files: Files) -> Changed:
        return text.changed(files, FILE, json.dumps(content(), separators=(",", ":")))

    kind.add("one line of ascii", SAME, escaped)

    @of(kind, SAME, rounds=6)
    def files_in_other_ways(rng, value):
        head = rng.choice(("./", "/home/me/set/", "C:\\data\\", "..\\..\\train\\", "gs://a/b/"))
        for one in value["images"]:
            one["file_name"] = head + one["file_name"]
