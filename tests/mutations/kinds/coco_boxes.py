"""Boxes of a COCO json: values that are none, and other units."""

from __future__ import annotations

import math

from tests.mutations import scene
from tests.mutations.harness import Kind
from tests.mutations.judge import BROKEN
from tests.mutations.kinds.coco_file import of, place


def add_boxes(kind: Kind) -> None:
    """Add values of one box that are none."""

    def one_box(rng, value) -> dict:
        one = scene.pick(rng, value["annotations"])
        one.pop("segmentation", None)
        return one

    @of(kind, BROKEN, rounds=16)
    def a_number_that_is_none(rng, value):
        one = one_box(rng, value)
        others = (math.nan, math.inf, -math.inf, None, "", "x", [1], {}, True, "1 2", "٣", 10**400)
        one["bbox"][rng.randrange(4)] = rng.choice(others)
        return place(one)

    @of(kind, BROKEN, rounds=10)
    def a_box_that_is_none(rng, value):
        one = one_box(rng, value)
        one["bbox"] = rng.choice(
            (
                None,
                [],
                [1, 2, 3],
                [1, 2, 3, 4, 5],
                "",
                "box",
                5,
                True,
                {},
                {"x": 1, "y": 2},
            )
        )
        return place(one)

    @of(kind, BROKEN)
    def no_box(rng, value):
        one = one_box(rng, value)
        del one["bbox"]
        return place(one)

    @of(kind, BROKEN, rounds=8)
    def a_size_below_one(rng, value):
        one = one_box(rng, value)
        one["bbox"][rng.choice((2, 3))] *= rng.choice((0, -1))
        return rf"{place(one)}|no width or height"

    @of(kind, BROKEN, rounds=6)
    def a_box_outside(rng, value):
        one = one_box(rng, value)
        one["bbox"][rng.choice((0, 1))] = rng.choice((-500, 500, 1e9))
        return place(one)


def add_units(kind: Kind) -> None:
    """Add boxes that are all in another unit or order."""
    sizes = {7 + 4 * i: (width, height) for i, (_, width, height) in enumerate(scene.IMAGES)}

    def all_boxes(name: str, convert) -> None:
        def edit(rng, value):
            for one in value["annotations"]:
                one["bbox"] = convert(*one["bbox"], *sizes[one["image_id"]])
            return r"annotation \d+ of \w+\.png has bbox"

        edit.__name__ = name
        of(kind, BROKEN)(edit)

    all_boxes("fractions", lambda x, y, w, h, W, H: [x / W, y / H, w / W, h / H])
    all_boxes("corners for sizes", lambda x, y, w, h, W, H: [x, y, x + w, y + h])
    all_boxes(
        "corners as fractions", lambda x, y, w, h, W, H: [x / W, y / H, (x + w) / W, (y + h) / H]
    )
    all_boxes("centres for corners", lambda x, y, w, h, W, H: [x + w / 2, y + h / 2, w, h])
    all_boxes(
        "thousandths",
        lambda x, y, w, h, W, H: [1000 * x / W, 1000 * y / H, 1000 * w / W, 1000 * h / H],
    )
    all_boxes("pixels of twice the size", lambda x, y, w, h, W, H: [2 * x, 2 * y, 2 * w, 2 * h])
    all_boxes("left right top bottom", lambda x, y, w, h, W, H: [x, x + w, y, y + h])
