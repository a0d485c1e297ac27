import csv
import json
import math
import pathlib
import tracemalloc

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import (
    BACKENDS,
    METRIC_NAMES,
    CocoEvaluator,
    CocoGroundTruth,
    DetectionRows,
    evaluate_detections_file,
    evaluate_rows,
)
from ssd_centernet.files import write_atomically
from tests.evaluation.scenes import mini_annotations, perturbed_rows, scene, truth_as_rows
from tests.process import python


def batch_of(truth: CocoGroundTruth, image_ids, slots: int = 5) -> tuple:
    """Return the arguments of `add` that give back the objects of these images."""
    boxes = np.full((len(image_ids), slots, 4), np.nan, np.float32)
    classes = np.full((len(image_ids), slots), 10**6, np.int32)
    count = np.zeros(len(image_ids), np.int32)
    for b, image_id in enumerate(image_ids):
        mine = np.flatnonzero((truth.object_image_ids == image_id) & ~truth.is_crowd)
        x, y, w, h = truth.boxes[mine].T
        corners = [y / 100, x / 200, (y + h) / 100, (x + w) / 200]
        boxes[b, : len(mine)] = np.stack(corners, axis=1)
        classes[b, : len(mine)] = (truth.object_category_ids[mine] - 1) // 2
        count[b] = len(mine)
    scores = np.linspace(0.9, 0.5, slots, dtype=np.float32) * np.ones((len(image_ids), 1))
    fields = {"boxes": boxes, "scores": scores, "classes": classes, "count": count}
    size = len(image_ids)
    return np.array(image_ids), np.full(size, 100), np.full(size, 200), fields


def test_ground_truth_as_detections_gives_ap_1():
    truth = CocoGroundTruth.load(scene())
    evaluator = CocoEvaluator(truth, category_ids=[1, 3, 5])
    evaluator.add(*batch_of(truth, [1, 2, 3]))
    evaluator.add(*batch_of(truth, [4, -1, -1]))
    result = evaluator.compute()
    assert result.metrics["AP"] == result.metrics["AP50"] == result.metrics["ARmax100"] == 1.0
    assert (result.num_images, result.num_detections, result.notes) == (4, 12, {})


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_ground_truth_as_detections_gives_ap_1(split):
    truth = CocoGroundTruth.load(mini_annotations(split))
    metrics = evaluate_rows(truth, truth_as_rows(truth)).metrics
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == metrics["ARmax100"] == 1.0
    # Stated in the data set's own description.
    expected = {"train": (0.6595, 0.9919), "val": (0.7158, 0.9888)}[split]
    assert (metrics["ARmax1"], metrics["ARmax10"]) == pytest.approx(expected, abs=5e-5)


def test_an_image_without_detections_lowers_ap():
    # Three of four objects of each class are found, all right: precision is 1 up to recall 0.75,
    # so 76 of the 101 recall levels count.
    truth = CocoGroundTruth.load(scene(4))
    evaluator = CocoEvaluator(truth)
    evaluator.add(*batch_of(truth, [1, 2, 3]))
    never_added = evaluator.compute()
    assert never_added.metrics["AP"] == pytest.approx(76 / 101, abs=1e-12)
    assert list(never_added.notes.values()) == [1]
    ids, heights, widths, fields = batch_of(truth, [4])
    evaluator.add(ids, heights, widths, fields | {"count": np.zeros(1, np.int32)})
    added = evaluator.compute()
    assert added.metrics == never_added.metrics and not added.notes
    assert added.num_images == 4
    three = CocoGroundTruth.load(scene(3))
    assert evaluate_rows(three, truth_as_rows(three)).metrics["AP"] == 1.0


def test_hand_computed_average_precision():
    # One class, two objects, three detections: right, wrong, right. Precision over recall is 1 up
    # to 1/2 (51 levels), then 2/3 (50 levels).
    content = scene(2, 1)
    truth = CocoGroundTruth.load(content)
    right = truth.boxes
    rows = DetectionRows(
        image_ids=np.array([1, 1, 2]),
        category_ids=np.array([1, 1, 1]),
        boxes=np.stack([right[0], [150.0, 0.0, 10.0, 10.0], right[1]]),
        scores=np.array([0.9, 0.8, 0.7]),
    )
    metrics = evaluate_rows(truth, rows).metrics
    expected = (51 * 1.0 + 50 * 2 / 3) / 101
    assert metrics["AP"] == pytest.approx(expected, abs=1e-12)
    # Both objects are of medium size (1800 pixels); there is none of another size.
    assert metrics["APm"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["APs"] == metrics["APl"] == metrics["ARs"] == metrics["ARl"] == -1.0
    assert metrics["ARmax1"] == 1.0
    assert tuple(metrics) == METRIC_NAMES


def test_batches_make_no_difference_and_padding_is_never_read():
    truth = CocoGroundTruth.load(scene(5))
    results = []
    for batches in ([[1, 2, 3, 4, 5]], [[5, 4], [3, -1], [2, 1]], [[i] for i in (2, 4, 1, 3, 5)]):
        evaluator = CocoEvaluator(truth)
        for image_ids in batches:
            evaluator.add(*batch_of(truth, image_ids))
        results.append(evaluator.compute())
        assert not results[-1].notes  # No image is missing.
    assert results[0].metrics == results[1].metrics == results[2].metrics
    assert [r.num_detections for r in results] == [15, 15, 15]


def test_pixels_of_non_square_images():
    truth = CocoGroundTruth.load(scene(1, 1))
    evaluator = CocoEvaluator(truth)
    fields = {
        "boxes": np.array([[[0.1, 0.25, 0.5, 0.75]]], np.float32),
        "scores": np.array([[0.5]], np.float32),
        "classes": np.array([[0]]),
        "count": np.array([1]),
    }
    evaluator.add(np.array([1]), np.array([100]), np.array([200]), fields)
    row = evaluator.compute().detections[0]
    assert row["bbox"] == pytest.approx([50.0, 10.0, 100.0, 40.0], abs=1e-5)
    assert (row["image_id"], row["category_id"], row["score"]) == (1, 1, 0.5)


def test_detections_may_be_an_object_with_attributes():
    truth = CocoGroundTruth.load(scene(1))
    ids, heights, widths, fields = batch_of(truth, [1])
    evaluator = CocoEvaluator(truth)
    evaluator.add(ids, heights, widths, type("Detections", (), fields))
    # pycocotools gives 1 / (1 + 2^-52) where a class has one object.
    assert evaluator.compute().metrics["AP"] == pytest.approx(1.0, abs=1e-12)


def test_add_refuses_and_stays_unchanged():
    truth = CocoGroundTruth.load(scene(3))
    evaluator = CocoEvaluator(truth)
    evaluator.add(*batch_of(truth, [1]))
    with pytest.raises(ValueError, match=r"not in the ground truth.*\[99\]"):
        evaluator.add(np.array([2, 99]), *batch_of(truth, [2, 3])[1:])
    with pytest.raises(ValueError, match=r"added twice.*\[1\]"):
        evaluator.add(*batch_of(truth, [2, 1]))
    with pytest.raises(ValueError, match=r"added twice.*\[2\]"):
        evaluator.add(*batch_of(truth, [2, 2]))
    ids, heights, widths, fields = batch_of(truth, [2])
    wrong = fields | {"classes": fields["classes"] * 0 + 3}
    with pytest.raises(ValueError, match=r"Image 2 has a detection of class 3, expected 0\.\.2"):
        evaluator.add(ids, heights, widths, wrong)
    with pytest.raises(ValueError, match="shapes"):
        evaluator.add(ids, heights, widths, fields | {"count": np.zeros(2)})
    evaluator.add(*batch_of(truth, [2, 3]))
    result = evaluator.compute()
    assert result.metrics["AP"] == 1.0 and not result.notes
    evaluator.reset()
    forgotten = evaluator.compute()
    assert list(forgotten.notes.values()) == [3] and forgotten.num_detections == 0


def test_another_size_than_stated_is_noted():
    truth = CocoGroundTruth.load(scene(1))
    ids, heights, widths, fields = batch_of(truth, [1])
    evaluator = CocoEvaluator(truth)
    evaluator.add(ids, widths, heights, fields)
    notes = evaluator.compute().notes
    assert [(text[:30], count) for text, count in notes.items()] == [
        ("images came with another size ", 1)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_give_ap_0(backend):
    truth = CocoGroundTruth.load(scene())
    pytest.importorskip(backend)
    result = CocoEvaluator(truth, backend=backend).compute()
    assert result.metrics["AP"] == result.metrics["AP50"] == result.metrics["ARmax100"] == 0.0
    assert result.detections == []
    assert "AP         0.000" in result.table()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_objects_give_ap_minus_1(backend):
    pytest.importorskip(backend)
    content = scene(2)
    rows = truth_as_rows(CocoGroundTruth.load(content))
    for annotations in ([], [dict(content["annotations"][0], iscrowd=1)]):
        truth = CocoGroundTruth.load(content | {"annotations": annotations})
        result = evaluate_rows(truth, rows, backend=backend)
        assert set(result.metrics.values()) == {-1.0}
        assert all(math.isnan(row["AP"]) for row in result.per_class)
    nothing = CocoGroundTruth.load({"images": [], "categories": [], "annotations": []})
    result = evaluate_rows(nothing, DetectionRows.from_list([]), backend=backend)
    assert set(result.metrics.values()) == {-1.0} and result.num_images == 0
    assert "0 images" in result.table()


def test_detections_that_are_not_finite_are_left_out_and_counted():
    truth = CocoGroundTruth.load(scene(2, 1))
    rows = truth_as_rows(truth)
    rows.boxes[0, 2] = np.nan
    result = evaluate_rows(truth, rows)
    assert result.num_detections == 1
    assert list(result.notes.values()) == [1]
    assert result.metrics["AP"] == pytest.approx(51 / 101, abs=1e-12)


def test_per_class_table():
    content = scene(2, 3)
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 5]
    content["annotations"][2]["iscrowd"] = 1
    truth = CocoGroundTruth.load(content)
    rows = truth_as_rows(truth).select(np.array([0]))
    first, second, third = evaluate_rows(truth, rows).per_class
    assert (first["name"], first["num_objects"], first["num_detections"]) == ("c0", 1, 1)
    assert first["AP"] == pytest.approx(1.0, abs=1e-12)
    assert (second["AP"], second["AP50"], second["num_objects"]) == (0.0, 0.0, 2)
    assert math.isnan(third["AP"]) and third["num_objects"] == 0


def test_more_than_100_detections_of_a_class():
    # 120 wrong detections in front of the right one: COCO's limit hides it, 150 does not.
    truth = CocoGroundTruth.load(scene(1, 1))
    boxes = np.concatenate([np.tile([150.0, 0, 5, 5], (120, 1)), truth.boxes])
    rows = DetectionRows(
        image_ids=np.ones(121, int),
        category_ids=np.ones(121, int),
        boxes=boxes,
        scores=np.linspace(1, 0.1, 121),
    )
    assert evaluate_rows(truth, rows).metrics["ARmax100"] == 0.0
    metrics = evaluate_rows(truth, rows, max_detections=150).metrics
    assert metrics["ARmax150"] == 1.0 and metrics["AP"] == pytest.approx(1 / 121)
    with pytest.raises(ValueError, match="expected 11 or more"):
        CocoEvaluator(truth, max_detections=10)


def test_a_label_map_of_another_data_set_is_refused():
    truth = CocoGroundTruth.load(scene())
    with pytest.raises(ValueError, match=r"category ids \[2\].*it has 3"):
        CocoEvaluator(truth, category_ids=[1, 2, 3])


def test_save_writes_what_can_be_scored_again(tmp_path):
    content = scene()
    truth = CocoGroundTruth.load(content)
    result = evaluate_rows(truth, perturbed_rows(truth, seed=3))
    paths = result.save(tmp_path / "new" / "folder")
    saved = json.loads((tmp_path / "new/folder/metrics.json").read_text())
    assert saved["metrics"] == result.metrics and list(saved["metrics"]) == list(METRIC_NAMES)
    assert saved["num_images"] == 4 and saved["backend"] == result.backend
    assert {"ssd_centernet", "numpy", result.backend} <= {*saved["versions"]}
    assert pathlib.Path(paths["detections.json"]).read_text() == json.dumps(result.detections)
    again = evaluate_detections_file(paths["detections.json"], content)
    assert again.metrics == result.metrics and again.num_detections == result.num_detections
    with open(paths["per_class.csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["c0", "c1", "c2"]
    assert float(rows[1]["AP"]) == result.per_class[1]["AP"]
    assert sorted(p.name for p in (tmp_path / "new/folder").iterdir()) == sorted(paths)


@pytest.mark.parametrize("number", [0, 1, 2048, 2049, 5000])
def test_detections_are_written_as_json_writes_them(number):
    rng = np.random.default_rng(number)
    rows = DetectionRows(
        image_ids=rng.integers(-(2**62), 2**62, number),
        category_ids=rng.integers(0, 90, number),
        boxes=rng.normal(0, 10.0 ** rng.integers(-300, 300, (number, 1)), (number, 4)),
        scores=rng.random(number).astype(np.float32).astype(np.float64),
    )
    if number == 2049:  # What is not finite JSON spells in its own way.
        rows.boxes[5, 2], rows.scores[7], rows.scores[8] = np.nan, np.inf, -0.0
    pieces = list(rows.json_pieces())
    assert "".join(pieces) == json.dumps(rows.to_list())
    assert max(map(len, pieces)) < 250 * 2048


def test_the_memory_of_writing_detections_does_not_grow_with_them(tmp_path):
    number = 50_000
    rows = DetectionRows(
        image_ids=np.arange(number),
        category_ids=np.ones(number, np.int64),
        boxes=np.full((number, 4), 1 / 3),
        scores=np.full(number, 0.1),
    )
    tracemalloc.start()
    try:
        write_atomically(tmp_path / "rows.json", rows.json_pieces())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # As one text they have 7 MB, and as dicts 40 MB.
    assert (tmp_path / "rows.json").stat().st_size > 6e6 and most < 3e6


def test_table_is_aligned_and_complete():
    truth = CocoGroundTruth.load(scene(2, 2))
    lines = evaluate_rows(truth, truth_as_rows(truth)).table().split("\n")
    assert lines[0].split() == ["class", "AP", "AP50", "objects", "detections"]
    assert lines[2].split() == ["c0", "1.000", "1.000", "2", "2"]
    assert len({len(line) for line in lines[:4]}) == 1
    for name in METRIC_NAMES:
        assert sum(line.startswith(name + " ") for line in lines) == 1
    short = evaluate_rows(truth, truth_as_rows(truth)).table(per_class=False)
    assert "c0" not in short and "AP50" in short


def test_files_of_all_kinds(tmp_path):
    content = scene()
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(content))
    found = tmp_path / "found.json"
    found.write_text("[]")
    assert evaluate_detections_file(found, annotations).metrics["AP"] == 0.0
    rows = truth_as_rows(CocoGroundTruth.load(content)).to_list()
    extras = [row | {"segmentation": {"size": [1, 1], "counts": "0"}, "area": 3} for row in rows]
    found.write_text(json.dumps(extras))
    assert evaluate_detections_file(str(found), str(annotations)).metrics["AP"] == 1.0
    found.write_text(json.dumps([rows[0] | {"image_id": 1234}]))
    with pytest.raises(ValueError, match=r"1 image ids .*\[1234\]"):
        evaluate_detections_file(found, annotations)
    found.write_text(json.dumps([rows[0] | {"category_id": 2}]))
    with pytest.raises(ValueError, match=r"category ids \[2\]"):
        evaluate_detections_file(found, annotations)
    found.write_text(json.dumps([rows[0], {"image_id": 1, "category_id": 1, "score": 1}]))
    with pytest.raises(ValueError, match=r"row 1 lacks \['bbox'\]"):
        evaluate_detections_file(found, annotations)
    with pytest.raises(ValueError, match="are the two files swapped"):
        evaluate_detections_file(annotations, annotations)
    found.write_text("[{")
    with pytest.raises(ValueError, match="is it cut off"):
        evaluate_detections_file(found, annotations)
    found.write_bytes(b"\x1f\x8b\xff\xfe")
    for pair in ((found, annotations), (annotations, found)):
        with pytest.raises(ValueError, match="(?i)found.json is not valid JSON .*utf-8"):
            evaluate_detections_file(*pair)
    # An id cut to a whole number would be another image's.
    for image_id in (1.5, 10**30):
        found.write_text(json.dumps([rows[0] | {"image_id": image_id}]))
        with pytest.raises(ValueError, match="it is not a whole number"):
            evaluate_detections_file(found, annotations)
        content["annotations"][0]["image_id"] = image_id
        with pytest.raises(ValueError, match="every annotation needs an integer 'image_id'"):
            CocoGroundTruth.load(content)


def test_evaluation_modules_load_no_library():
    code = (
        "import sys, ssd_centernet.evaluation.coco, ssd_centernet.evaluation.diagnosis\n"
        "assert not {'pycocotools', 'faster_coco_eval', 'hotcoco'} & set(sys.modules)"
    )
    python(code)
