"""Scoring a file reads annotations and detections as the converter reads annotations."""

import copy
import json

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import (
    BACKENDS,
    CocoGroundTruth,
    evaluate_detections_file,
)
from tests.evaluation.scenes import perturbed_rows, scene
from tests.process import python

BIG = 1699188312345678900


@pytest.fixture
def content():
    made = scene(4, 3)
    for image in made["images"]:
        image["file_name"] = f"p{image['id']:03d}.jpg"
    made["annotations"][4]["iscrowd"] = 1
    return made


@pytest.fixture
def rows(content):
    return perturbed_rows(CocoGroundTruth.load(content), seed=3).to_list()


def metrics(rows, content) -> dict:
    """Score through files, as the command does."""
    return evaluate_detections_file(json.loads(json.dumps(rows)), content).metrics


def changed(entries, key, write):
    return [{**entry, key: write(entry[key])} for entry in entries]


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


CHANGES = {
    "iscrowd as text": lambda c: c.update(annotations=changed(c["annotations"], "iscrowd", str)),
    "iscrowd as bool": lambda c: c.update(annotations=changed(c["annotations"], "iscrowd", bool)),
    "area as text": lambda c: c.update(annotations=changed(c["annotations"], "area", str)),
    "image ids as text": lambda c: c.update(images=changed(c["images"], "id", str)),
    "references as whole floats": lambda c: c.update(
        annotations=changed(c["annotations"], "image_id", float)
    ),
    "references by file name": lambda c: c.update(
        annotations=changed(c["annotations"], "image_id", lambda i: f"p{i:03d}.jpg")
    ),
    "category ids as text": lambda c: c.update(categories=changed(c["categories"], "id", str)),
    "categories by name": lambda c: c.update(
        annotations=changed(c["annotations"], "category_id", lambda i: f"c{(i - 1) // 2}")
    ),
    "boxes as objects": lambda c: c.update(
        annotations=changed(
            c["annotations"],
            "bbox",
            lambda b: dict(zip("x y width height".split(), b, strict=True)),
        )
    ),
    "boxes as texts": lambda c: c.update(
        annotations=changed(c["annotations"], "bbox", lambda b: [str(v) for v in b])
    ),
    "polygons alone": lambda c: [
        a.update(segmentation=polygon(a.pop("bbox"))) for a in c["annotations"]
    ],
    "objects twice": lambda c: c["annotations"].extend(
        [{**a, "id": 100 + a["id"]} for a in c["annotations"]]
    ),
    "entries twice": lambda c: (
        c["images"].append(c["images"][0]),
        c["categories"].append(c["categories"][1]),
    ),
    "a file under two ids": lambda c: (
        c["images"].append({**c["images"][0], "id": 901}),
        c["annotations"][0].update(image_id=901),
    ),
    "sizes as text": lambda c: c.update(images=changed(c["images"], "width", str)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_annotations_of_any_writing_give_the_same_numbers(content, rows, change):
    expected = metrics(rows, content)
    assert 0.1 < expected["AP"] < 0.95
    other = copy.deepcopy(content)
    change(other)
    before = copy.deepcopy(other)
    assert metrics(rows, other) == expected
    assert other == before


@pytest.mark.parametrize(
    "change",
    [
        lambda r: changed(r, "image_id", str),
        lambda r: changed(r, "image_id", float),
        lambda r: changed(r, "image_id", lambda i: f"p{i:03d}.jpg"),
        lambda r: changed(r, "image_id", lambda i: f"p{i:03d}"),
        lambda r: changed(r, "category_id", str),
        lambda r: changed(r, "category_id", lambda i: f"c{(i - 1) // 2}"),
        lambda r: changed(r, "score", str),
        lambda r: changed(r, "bbox", lambda b: [str(v) for v in b]),
    ],
)
def test_detections_of_any_writing_give_the_same_numbers(content, rows, change):
    assert metrics(change(rows), content) == metrics(rows, content)


@pytest.mark.parametrize("number", [lambda i: BIG + i, lambda i: f"left/{i}", lambda i: i - 9])
def test_ids_of_any_kind_agree_in_both_files(content, rows, number):
    expected = metrics(rows, content)
    other = {
        "images": changed(content["images"], "id", number),
        "annotations": changed(content["annotations"], "image_id", number),
        "categories": changed(content["categories"], "id", number),
    }
    other["annotations"] = changed(other["annotations"], "category_id", number)
    renamed = changed(changed(rows, "image_id", number), "category_id", number)
    for backend in BACKENDS:
        pytest.importorskip(backend)
        assert evaluate_detections_file(renamed, other, backend=backend).metrics == expected


def test_detections_with_the_ids_from_before_a_conversion(content, rows):
    """Converted annotations say which text each number was."""
    expected = metrics(rows, content)
    for image in content["images"]:
        image["original_id"] = f"shot {image['id']}"
    renamed = changed(rows, "image_id", lambda i: f"shot {i}")
    assert metrics(renamed, content) == expected


def test_a_perfect_detector_of_a_file_under_two_ids(content):
    """It finds the objects of both entries in both, since the picture is the same."""
    content["images"].append({**content["images"][0], "id": 901})
    content["annotations"][0]["image_id"] = 901
    truth = CocoGroundTruth.load(content)
    assert truth.image_ids.tolist() == [1, 2, 3, 4] and truth.num_objects == 11
    note = "images: one file listed under two ids: merged into the first"
    assert truth.notes == {note: 1}
    found = [
        {k: a[k] for k in ("category_id", "bbox")} | {"image_id": i, "score": 0.9}
        for a in content["annotations"]
        for i in ([1, 901] if a["image_id"] in (1, 901) else [a["image_id"]])
    ]
    result = evaluate_detections_file(found, content)
    assert result.metrics["AP"] == 1.0 and result.num_detections == 12
    second = "detections of the second id of a file, left out: its first id has detections too"
    assert result.notes == {note: 1, second: 3}
    # Where only the second id has detections, they are those of the file.
    only = [row for row in found if row["image_id"] != 1]
    assert evaluate_detections_file(only, content).metrics["AP"] == 1.0


@pytest.mark.parametrize(
    "key, value",
    [
        ("image_id", "nowhere.jpg"),
        ("image_id", True),
        ("image_id", "１"),
        ("image_id", None),
        ("category_id", "c9"),
        ("category_id", 1.5),
        ("bbox", [1, 2, 3]),
        ("bbox", [1, 2, 3, True]),
        ("bbox", {"x": 1}),
        ("bbox", ["１", 2, 3, 4]),
        ("score", "high"),
        ("score", True),
        ("score", None),
        ("score", [0.5]),
    ],
)
def test_other_detections_are_refused_with_row_and_value(content, rows, key, value):
    rows[7][key] = value
    shown = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    with pytest.raises(ValueError) as error:
        evaluate_detections_file(rows, content)
    assert f"row 7 has {key} {shown}" in str(error.value)


@pytest.mark.parametrize("row", [None, 3, [], "x"])
def test_rows_that_are_no_objects_are_refused(content, rows, row):
    rows[2] = row
    with pytest.raises(ValueError, match="row 2 is "):
        evaluate_detections_file(rows, content)


def test_the_truth_names_what_it_refuses(content):
    content["annotations"][1].update(bbox=None)
    with pytest.raises(
        ValueError, match=r"annotation 2 of p001.jpg: bbox is not four finite .*nothing"
    ):
        CocoGroundTruth.load(content)


def test_byte_order_marks(content, rows, tmp_path):
    expected = metrics(rows, content)
    for encoding in ("utf-8-sig", "utf-16"):
        for name, value in (("truth", content), ("found", rows)):
            (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding=encoding)
        result = evaluate_detections_file(tmp_path / "found.json", tmp_path / "truth.json")
        assert result.metrics == expected


def test_nineteen_digits_are_kept(content):
    """Neighbouring ids differ below what a float can hold."""
    other = {**content, "images": changed(content["images"], "id", lambda i: BIG + i)}
    other["annotations"] = changed(content["annotations"], "image_id", lambda i: BIG + i)
    truth = CocoGroundTruth.load(other)
    assert truth.image_ids.tolist() == [BIG + 1, BIG + 2, BIG + 3, BIG + 4]
    np.testing.assert_array_equal(
        truth.object_image_ids - BIG, CocoGroundTruth.load(content).object_image_ids
    )


def test_scoring_a_file_imports_no_tensorflow():
    code = (
        "import sys, ssd_centernet.evaluation.coco\n"
        "assert not {'tensorflow', 'tf_keras'} & set(sys.modules)"
    )
    python(code)


def test_exact_copies_of_detections_are_noted_and_scored(rows, content):
    once = evaluate_detections_file(rows, content)
    assert not any("exact copies" in note for note in once.notes)
    twice = evaluate_detections_file([*rows, *rows[:5]], content)
    (note,) = [note for note in twice.notes if "exact copies" in note]
    assert note.endswith(f"(first: row {len(rows)})") and "5" in str(twice.notes[note])
