"""Boxes and flags of COCO files as tools write them are read right or refused with their place."""

import json
import math

import pytest

from ssd_centernet.data.readers.masks import box_around
from tests.data.readers.coco_files import CLEAN, Files, first, found, reasons


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_a_clean_file_is_read_as_it_is(files):
    index = files.read()
    assert found(index) == CLEAN and index.report.to_dict() == {}
    assert [image.image_id for image in index.images] == [1, 2]
    assert [a["area"] for a in index.images[0].annotations] == [300, 12]


def corners(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y, w, h: [corners(x, y, w, h)],
        lambda x, y, w, h: corners(x, y, w, h),
        lambda x, y, w, h: [[x, y], [x + w, y], [x + w, y + h], [x, y + h]],
        lambda x, y, w, h: [[str(v) for v in corners(x, y, w, h)]],
        # Two polygons of one object: the box is around both.
        lambda x, y, w, h: [[x, y, x + 1, y, x + 1, y + 1], corners(x + 1, y + 1, w - 1, h - 1)],
    ],
)
@pytest.mark.parametrize("bbox", ["none", None, [], [0, 0, 0, 0], [math.nan] * 4, "?"])
def test_a_polygon_says_where_its_object_is(files, make, bbox):
    for annotation in files.annotations:
        annotation["segmentation"] = make(*annotation["bbox"])
        annotation["bbox"] = bbox
        if bbox == "none":
            del annotation["bbox"]
    index = files.read()
    assert found(index) == CLEAN
    reason = "no usable bbox: the box around its polygon or mask is taken"
    assert reasons(index) == {("repaired boxes", reason): 3}
    assert first(index)[0] == "annotation 10 of a.jpg"


@pytest.mark.parametrize("segmentation", [None, [], [[]], [[1, 2, 3]], [[1, 2]], "x", {"size": 3}])
def test_without_box_and_polygon_an_object_is_left_out(files, segmentation):
    files.annotations[1].update(bbox=None, segmentation=segmentation)
    index = files.read()
    assert found(index)["a.jpg"] == CLEAN["a.jpg"][:1]
    reason = "bbox is not four finite numbers [x, y, width, height]"
    assert reasons(index) == {("dropped boxes", reason): 1}
    assert first(index) == ["annotation 11 of a.jpg: nothing"]


def test_the_box_of_a_mask():
    import numpy as np
    from pycocotools import mask

    rng = np.random.default_rng(4)
    for _ in range(200):
        height, width = rng.integers(1, 30, 2)
        pixels = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.97])
        if not pixels.any():
            continue
        packed = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        expected = tuple(mask.toBbox(packed).tolist())
        text = {"size": packed["size"], "counts": packed["counts"].decode()}
        assert box_around(text) == expected
        flat = pixels.T.ravel()
        ends = np.flatnonzero(np.diff(flat)) + 1
        edges = np.concatenate([[0], ends, [flat.size]])
        runs = np.diff(edges).tolist()
        runs = [0, *runs] if flat[0] else runs
        assert box_around({"size": [int(height), int(width)], "counts": runs}) == expected


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [3, 3], "counts": [9]},
        {"size": [3, 3], "counts": [2, 3]},
        {"size": [3, 3], "counts": [-2, 11]},
        {"size": [3, 3], "counts": "\x7f\x7f"},
        {"size": [3, 3], "counts": "ø"},
        {"size": [0, 0], "counts": [0]},
        {"size": ["a", 3], "counts": [1, 8]},
    ],
)
def test_a_mask_without_meaning_has_no_box(mask):
    assert box_around(mask) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y, w, h: {"x": x, "y": y, "width": w, "height": h},
        lambda x, y, w, h: {"x": x, "y": y, "w": w, "h": str(h), "cx": x + w / 2},
        lambda x, y, w, h: {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h},
        lambda x, y, w, h: {"left": x, "top": y, "width": w, "height": h},
        lambda x, y, w, h: [str(x), f" {y}", f"{w}".replace(".", ","), f"{h}.0"],
        lambda x, y, w, h: f"[{x}, {y}, {w}, {h}]",
    ],
)
def test_boxes_as_objects_or_texts_have_one_meaning(files, make):
    for annotation in files.annotations:
        annotation["bbox"] = make(*annotation["bbox"])
    index = files.read()
    assert found(index) == CLEAN
    reason = "bbox is an object or text: read as its four numbers"
    assert reasons(index) == {("repaired boxes", reason): 3}
    assert "annotation 20 of b.jpg: " in first(index)[2]


@pytest.mark.parametrize(
    "bbox",
    [[1, 2, 3], [1, 2, 3, 4, 5], {"x": 1, "y": 2}, [1, 2, 3, True], "1 2 3", 7, ["１", 2, 3, 4]],
)
def test_other_boxes_are_left_out_with_their_value(files, bbox):
    files.annotations[2]["bbox"] = bbox
    index = files.read()
    assert found(index) == {**CLEAN, "b.jpg": []}
    assert [key[0] for key in reasons(index)] == ["dropped boxes"]
    (item,) = first(index)
    assert item == f"annotation 20 of b.jpg: {json.dumps(bbox, ensure_ascii=False)}"
    assert "{'" not in item  # As it stands in the file, not as Python writes it.


@pytest.mark.parametrize(
    "degrees, box", [(90, (12.5, 3.5, 15, 20)), (180, (10, 6, 20, 15)), (0, (10, 6, 20, 15))]
)
def test_a_turned_box_of_cvat_becomes_the_box_around_it(files, degrees, box):
    files.annotations[0]["attributes"] = {"occluded": False, "rotation": degrees}
    index = files.read()
    assert found(index)["a.jpg"][0][0] == pytest.approx(box)
    reason = "turned box: the upright box around it is taken"
    assert reasons(index) == ({("repaired boxes", reason): 1} if degrees else {})


def test_exact_copies_of_an_object_are_left_out(files):
    copies = [{**a, "id": 500 + i} for i, a in enumerate(files.annotations)]
    copies[0]["bbox"] = {"x": 10.0, "y": 6, "width": 20, "height": 15}
    del copies[1]["id"]
    # Other classes, other pictures and crowd regions are not copies.
    others = [
        {**files.annotations[0], "id": 600, "category_id": 2},
        {**files.annotations[0], "id": 601, "image_id": 2},
        {**files.annotations[0], "id": 602, "iscrowd": 1},
    ]
    files.annotations += [*copies, *others]
    index = files.read()
    assert found(index) == {
        "a.jpg": [*CLEAN["a.jpg"], ((10, 6, 20, 15), "bolt", 0), ((10, 6, 20, 15), "nut", 1)],
        "b.jpg": [*CLEAN["b.jpg"], ((10, 6, 20, 15), "nut", 0)],
    }
    reason = "exact copy of another object of the picture (same class and box): left out"
    assert reasons(index)["repaired boxes", reason] == 3


@pytest.mark.parametrize("no", [0, "0", False, "false", 0.0, "0.0", None, ""])
@pytest.mark.parametrize("yes", [1, "1", True, "True", 1.0])
def test_flags_are_read_whatever_their_type(files, no, yes):
    files.annotations[0]["iscrowd"] = no
    files.annotations[1]["iscrowd"] = yes
    index = files.read()
    assert [a.get("iscrowd", 0) for a in index.images[0].annotations] == [0, 1]


def test_ignored_objects_are_crowd_regions(files):
    files.annotations[0]["ignore"] = 1
    files.annotations[1]["ignore"] = "0"
    del files.annotations[2]["iscrowd"]
    files.annotations[2]["ignore"] = True
    index = files.read()
    assert found(index)["a.jpg"] == [((10, 6, 20, 15), "nut", 1), ((0, 0, 4, 3), "bolt", 0)]
    assert found(index)["b.jpg"][0][2] == 1
    assert reasons(index) == {("notes", "ignore is 1: read as a crowd region"): 2}


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [-1, 2, "no", "-1", math.nan, [0], {"a": 1}, 0.5])
def test_other_flags_are_refused_with_value_and_place(files, key, value):
    files.annotations[2][key] = value
    shown = json.dumps(value)
    with pytest.raises(ValueError) as error:
        files.read()
    assert f"instances.json: annotation 20 of b.jpg has {key} {shown}, expected 0" in str(
        error.value
    )
