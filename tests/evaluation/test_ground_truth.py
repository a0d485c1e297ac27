import copy
import json

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import CocoGroundTruth
from tests.evaluation.scenes import scene


def test_load_keeps_every_value(tmp_path):
    content = scene(2, 2)
    content["images"].reverse()
    content["annotations"][1]["iscrowd"] = 1
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = CocoGroundTruth.load(path)
    assert truth.image_ids.tolist() == [1, 2]
    assert truth.heights.tolist() == [100, 100] and truth.widths.tolist() == [200, 200]
    assert truth.ids.tolist() == [1, 2, 3, 4]
    assert truth.object_image_ids.tolist() == [1, 1, 2, 2]
    assert truth.object_category_ids.tolist() == [1, 3, 1, 3]
    assert truth.boxes[1].tolist() == [71.0, 17.0, 34.0, 55.0]
    assert truth.areas.tolist() == [1800.0, 1870.0, 1800.0, 1870.0]
    assert truth.is_crowd.tolist() == [False, True, False, False]
    assert truth.category_ids == (1, 3)
    assert (truth.num_images, truth.num_objects, truth.notes) == (2, 3, {})


def test_load_repairs_and_counts_without_changing_its_argument():
    content = scene(2, 2)
    first, second, third, _ = content["annotations"]
    del first["iscrowd"], first["area"]
    second["area"] = 0
    third["image_id"] = 77
    before = copy.deepcopy(content)
    truth = CocoGroundTruth.load(content)
    assert content == before
    assert truth.is_crowd.tolist() == [False, False, False]
    assert truth.areas.tolist() == [1800.0, 1870.0, 1870.0]
    assert truth.notes == {
        "annotations of images that are not listed, left out (first: annotation 3: 77)": 1,
        "annotations without area, taken as width*height": 2,
        "annotations without iscrowd, taken as 0": 1,
    }


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [5, 6, 6, 7], [1, 2, 3, None], ["a", "b", "c", "d"]])
def test_unusable_annotation_ids_are_renumbered_from_1(ids):
    content = scene(2, 2)
    for annotation, number in zip(content["annotations"], ids, strict=True):
        annotation["id"] = number
        if number is None:
            del annotation["id"]
    truth = CocoGroundTruth.load(content)
    assert truth.ids.tolist() == [1, 2, 3, 4]
    assert truth.notes == {
        "annotations renumbered from 1 (ids missing, repeated or below 1)": 4,
    }


def test_boxes_without_extent_are_kept_and_counted():
    content = scene(1, 2)
    content["annotations"][0].update(bbox=[1, 2, 0, 5], area=0)
    truth = CocoGroundTruth.load(content)
    assert truth.num_objects == 2
    assert list(truth.notes.values()) == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), "image ids occur more than once.*id 1"),
        (
            lambda c: c["categories"].append({"id": "3", "name": "x"}),
            "category ids occur more than once: 'c1' and 'x' both have the id '3'",
        ),
        (lambda c: c["annotations"][0].update(category_id=90), r"category ids \[90\]"),
        (lambda c: c["annotations"][0].pop("bbox"), "needs a 'bbox' of four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "needs a 'bbox' of four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "not four finite"),
        (lambda c: c["annotations"][0].pop("image_id"), "needs an integer 'image_id'"),
        (lambda c: c["images"][0].update(id=[1]), r"entry 0 of 'images' needs an 'id'.*\[1\]"),
        (lambda c: c["images"].append(None), "entry 2 of 'images' is nothing"),
        (
            lambda c: c["annotations"][2].update(iscrowd=-1),
            "annotation 3 of image 2 has iscrowd -1",
        ),
        (lambda c: c.pop("categories"), r"missing: categories"),
    ],
)
def test_load_refuses(change, message):
    content = scene(2, 2)
    change(content)
    with pytest.raises(ValueError, match=message):
        CocoGroundTruth.load(content)


def test_load_refuses_other_files(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="a list is a detections file"):
        CocoGroundTruth.load(path)
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match="cut off"):
        CocoGroundTruth.load(path)
    with pytest.raises(FileNotFoundError):
        CocoGroundTruth.load(tmp_path / "none.json")


def test_from_examples_gives_the_same_as_the_json():
    content = scene(2, 2)
    content["annotations"][3].update(iscrowd=1, area=7.0)
    expected = CocoGroundTruth.load(content)
    examples = [_example(content, 1), _example(content, 2), {"source_id": -1}]
    truth = CocoGroundTruth.from_examples(iter(examples), names=["c0", "c1"], ids=[1, 3])
    for name in ("image_ids", "heights", "widths", "object_image_ids", "object_category_ids"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(expected, name))
    np.testing.assert_array_equal(truth.is_crowd, expected.is_crowd)
    np.testing.assert_allclose(truth.boxes, expected.boxes, rtol=1e-12)
    np.testing.assert_allclose(truth.areas, expected.areas, rtol=1e-12)
    assert truth.categories == expected.categories


def _example(content: dict, image_id: int) -> dict:
    """Return a record of an image, padded by one box."""
    mine = [a for a in content["annotations"] if a["image_id"] == image_id]
    boxes = [
        [y / 100, x / 200, (y + h) / 100, (x + w) / 200] for x, y, w, h in (a["bbox"] for a in mine)
    ]
    return {
        "source_id": image_id,
        "height": 100,
        "width": 200,
        "boxes": np.array([*boxes, [0, 0, 0, 0]]),
        "classes": np.array([(a["category_id"] - 1) // 2 for a in mine] + [-1]),
        "is_crowd": np.array([a["iscrowd"] for a in mine] + [0]),
        "area": np.array([a["area"] for a in mine] + [0]),
        "valid": np.array([True] * len(mine) + [False]),
    }


def test_from_examples_refuses_classes_without_a_name():
    example = _example(scene(1, 2), 1)
    with pytest.raises(ValueError, match=r"class 1, expected 0\.\.0"):
        CocoGroundTruth.from_examples([example], names=["c0"])


def test_positions_and_subset():
    truth = CocoGroundTruth.load(scene(3, 1))
    assert truth.positions(np.array([3, 9, 1])).tolist() == [2, -1, 0]
    part = truth.subset(np.array([2]))
    assert part.image_ids.tolist() == [2] and part.object_image_ids.tolist() == [2]
    assert part.boxes.tolist() == [[22.0, 10.0, 30.0, 60.0]]
    empty = truth.subset(np.array([], np.int64))
    assert empty.positions(np.array([1])).tolist() == [-1]


def boxes_in_file(tmp_path, change):
    content = scene(2, 6)
    for image in content["images"]:
        image.update(width=200, height=160)
    for number, one in enumerate(content["annotations"]):
        one["bbox"] = change(60 + 5 * number, 70 + number, 80, 75)
        one["area"] = 100
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_boxes_of_a_file_in_other_units_are_refused(tmp_path):
    good = CocoGroundTruth.load(boxes_in_file(tmp_path, lambda *box: list(box)))
    assert good.boxes[0].tolist() == [60, 70, 80, 75] and not good.notes
    for change in (
        lambda x, y, w, h: [x / 200, y / 160, w / 200, h / 160],
        lambda x, y, w, h: [x, y, x + w, y + h],
    ):
        with pytest.raises(ValueError, match=r"instances\.json: 12 of 12 boxes .*annotation 1 of"):
            CocoGroundTruth.load(boxes_in_file(tmp_path, change))


def test_what_no_detection_can_match_is_counted_with_its_place(tmp_path):
    path = boxes_in_file(tmp_path, lambda *box: list(box))
    content = json.loads(path.read_text())
    content["annotations"][2]["bbox"] = [900, 10, 20, 20]
    content["annotations"][4]["bbox"] = [10, 10, 0, 20]
    notes = CocoGroundTruth.load(content).notes
    assert [(count, sentence.split(" (first: ")[1]) for sentence, count in notes.items()] == [
        (1, "annotation 5 of image 1)"),
        (1, "annotation 3 of image 1)"),
    ]
    content["images"] = []
    with pytest.raises(ValueError, match="'images' is empty, but 'annotations' has 12 entries"):
        CocoGroundTruth.load(content)
