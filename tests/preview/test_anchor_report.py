"""The report of what a recipe's targets can match, against objects placed by hand."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.preview import anchor_report
from ssd_centernet.recipe import Recipe
from ssd_centernet.runs.opened import open_run
from tests.data.coco_set import CocoSet
from tests.process import cli
from tests.warm import without_ours


def objects(boxes, classes, areas, height=64, width=64):
    return {
        "boxes": tf.constant(np.array(boxes, np.float32)),
        "classes": tf.constant(classes, tf.int32),
        "is_crowd": tf.zeros([len(classes)], tf.bool),
        "area": tf.constant(areas, tf.float32),
        "height": tf.constant(height),
        "width": tf.constant(width),
    }


def test_reached_forced_and_never(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    first = int(np.prod(detector.feature_sizes[0])) * detector.anchors.boxes_per_cell[0]
    anchors = detector.anchor_boxes.numpy()
    inside = ((anchors >= 0) & (anchors <= 1)).all(axis=1)
    fine = anchors[np.flatnonzero(inside[:first])[0]]
    coarse = anchors[first + np.flatnonzero(inside[first:])[0]]
    speck = [0.9, 0.9, 0.91, 0.91]
    # The second speck wants the one anchor that the first is given.
    images = [
        objects([fine, speck, speck], [0, 1, 1], [1023.0, 1.0, 1.0]),
        objects([coarse], [1], [9216.0]),
    ]
    matches = anchor_report.match_objects(detector, images)
    assert matches.states.tolist() == [0, 1, 2, 0] and matches.num_images == 2
    assert matches.groups.tolist() == [0, matches.groups[1], -1, 1]
    assert matches.quality[[0, 3]] == pytest.approx(1.0, abs=1e-5)
    assert matches.quality[1] == matches.quality[2] < 0.5
    assert matches.sides[1] == pytest.approx(0.64, abs=1e-3)
    rows = {row.group: row.counts for row in anchor_report.rows_by_size(matches)}
    assert rows["all objects"] == (2, 1, 1)
    assert rows["COCO small"] == (1, 1, 1) and rows["COCO large"] == (1, 0, 0)
    assert rows["COCO medium"] == (0, 0, 0) and rows["side 0 to 2 px"] == (0, 1, 1)
    text = anchor_report.format_report(matches)
    assert re.search(r"all objects +4 +50.0 % +25.0 % +25.0 %", text)
    assert re.search(r"COCO medium +0 +- +- +- +-\n", text)
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(ValueError, match="no image with an object"):
        anchor_report.match_objects(detector, [])


def test_matching_threshold_of_the_recipe_decides(model_dir):
    """The same objects under a lower threshold: what was forced is reached."""
    config.parse([model_dir / "config.gin"], ["MultiBoxLoss.matched_threshold = 0.0001"])
    try:
        detector = build_detector(num_classes=3)
    finally:
        config.clear()
    matches = anchor_report.match_objects(detector, [objects([[0.9, 0.9, 0.91, 0.91]], [1], [1.0])])
    assert matches.states.tolist() == [0]


def test_peaks_collisions_and_objects_below_a_cell():
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    # 16 x 16 cells: two of class 0 and one of class 1 have one cell, the fourth stands alone and is
    # narrower than a cell.
    boxes = [
        [0.2, 0.2, 0.6, 0.6],
        [0.3, 0.3, 0.5, 0.51],
        [0.3, 0.3, 0.5, 0.5],
        [0.7, 0.6, 0.9, 0.65],
    ]
    matches = anchor_report.match_objects(detector, [objects(boxes, [0, 0, 1, 1], [9.0] * 4)])
    assert matches.states.tolist() == [1, 1, 0, 0]
    assert {phrase: true.tolist() for phrase, true in matches.remarks.items()} == {
        "lower or narrower than a cell": [False, False, False, True],
        "in one cell with another object, of any class": [True, True, True, False],
    }
    text = anchor_report.format_report(matches)
    assert re.search(r"all objects +4 +50.0 % +50.0 % +0.0 %", text)
    assert "a cell: 1 object (25.0 %)" in text and "any class: 3 objects (75.0 %)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_images_keep_their_aspect_in_the_network():
    """Sides are those in the input: a wide picture is scaled by its longer side."""
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    keeps = bool(detector.preprocessing.keep_aspect)
    one = objects([[0.0, 0.0, 1.0, 0.5]], [0], [9.0], height=32, width=128)
    matches = anchor_report.match_objects(detector, [one])
    expected = (16.0 if keeps else 64.0) * 32.0
    assert matches.sides[0] == pytest.approx(expected**0.5, rel=1e-5)


def test_the_command_counts_what_the_annotations_have(model_dir, data_dir, tmp_path, warm):
    truth = json.loads((data_dir / "coco_val.annotations.json").read_text())
    numbers = [a["image_id"] for a in truth["annotations"]]
    places = (f"--gin_file={model_dir}/config.gin", f"--data_dir={data_dir}")
    flags = (*places, "--split=val", "--output=anchors.png")
    ended = cli("show_anchors", *flags, cwd=tmp_path, python=without_ours(warm))
    expected = f"{len(numbers)} objects in {len(set(numbers))} images, input 64 x 64 pixels"
    assert expected in ended.stdout
    assert re.search(rf"all objects +{len(numbers)} ", ended.stdout)
    assert "level of" in ended.stdout
    assert Image.open(tmp_path / "anchors.png").width == 1000


def test_crowd_regions_follow_the_recipe(model_dir, tmp_path):
    coco = CocoSet(tmp_path)
    coco.image("a.jpg").box().box((0, 0, 20, 20), iscrowd=1)
    coco.image("b.jpg").box((0, 0, 20, 20), iscrowd=1)
    coco.image("c.jpg").box()
    coco.convert()
    heads = {}
    for crowd in ("object", "drop"):
        config.parse([model_dir / "config.gin"], [f"train.crowd = '{crowd}'"])
        recipe = Recipe()
        detector = recipe.detector(load_label_map(coco.out))
        report = anchor_report.describe_anchors(detector, coco.out, crowd=recipe.crowd)
        heads[crowd] = report.split(",")[0].split(": ")[1]
    config.clear()
    assert heads == {"object": "4 objects in 3 images", "drop": "2 objects in 2 images"}


def small_objects(folder):
    coco = CocoSet(folder)
    for number in range(4):
        coco.image(f"{number}.jpg")
        for place in range(3):
            coco.box((4 + 9 * place, 5 + 6 * number, 5, 5))
    coco.convert()
    return coco.out


def test_settings_are_fitted_written_and_shown(model_dir, tmp_path, warm):
    data = small_objects(tmp_path)
    flags = [f"--gin_file={model_dir / 'config.gin'}", f"--data_dir={data}", "--fit"]
    flags.append(f"--fit_output={tmp_path / 'own.gin'}")
    ended = cli("show_anchors", *flags, python=warm)
    shares = [float(one) for one in re.findall(r"all objects +12 +([\d.]+) %", ended.stdout)]
    assert len(shares) == 2 and shares[1] > shares[0]
    lines = (tmp_path / "own.gin").read_text().splitlines()
    assert [line.split(" = ")[0] for line in lines if line[0] != "#"] == [
        "DefaultBoxes.scales",
        "DefaultBoxes.aspect_ratios",
    ]
    assert f"next: ssd_centernet train --gin_file={model_dir / 'config.gin'} --gin_file=" in (
        ended.stdout
    )
    # What was written is read.
    config.parse([model_dir / "config.gin", tmp_path / "own.gin"])
    try:
        detector = Recipe().detector(load_label_map(data))
    finally:
        config.clear()
    assert f"DefaultBoxes.scales = {detector.anchors.scales}" in lines


def test_a_warning_where_no_anchor_fits_many_objects(model_dir, tmp_path):
    data = small_objects(tmp_path)
    detector = open_run(model_dir, device="cpu").detector
    note = anchor_report.warn_of_forced_matches(detector, data, split="coco_train", crowd="object")
    assert re.search(r"fits 100 % of 12 objects in 4 images of coco_train, 100 % of .*--fit", note)
    assert anchor_report.fit_settings(detector, data).keys() == {
        "DefaultBoxes.scales",
        "DefaultBoxes.aspect_ratios",
    }
    # Few are not worth it, and a CenterNet forces nothing.
    (tmp_path / "large").mkdir()
    coco = CocoSet(tmp_path / "large")
    for number in range(21):
        coco.image(f"{number}.jpg").box((0, 0, 38, 28))
    coco.box((3, 3, 2, 2))
    coco.convert()
    warn = anchor_report.warn_of_forced_matches
    assert warn(detector, coco.out, split="coco_train", crowd="object") is None
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        centernet = build_detector(num_classes=3)
    finally:
        config.clear()
    assert warn(centernet, data, split="coco_train", crowd="object") is None
    assert anchor_report.fit_settings(centernet, data) is None
