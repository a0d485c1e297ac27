"""Network inputs turned back into pictures, with their matched anchors."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.models.matches import MATCHED, UNMATCHED, WEAK
from ssd_centernet.preview import fed_images
from ssd_centernet.recipe import Recipe
from ssd_centernet.runs.opened import open_run


def test_inputs_are_drawn_as_they_are_fed(model_dir, data_dir, tmp_path):
    plain = ["crop = False", "jitter = False", "flip_probability = 0.0"]
    config.parse([model_dir / "config.gin"], [f"SSDAugment.{setting}" for setting in plain])
    recipe = Recipe()
    detector = recipe.detector(load_label_map(data_dir))
    fed = fed_images.show_inputs(
        detector,
        recipe.training_batches(detector, data_dir),
        tmp_path / "inputs.png",
        heading="as fed",
        num_images=3,
        cell_size=128,
    )
    assert len(fed) == 3
    truth = json.loads((data_dir / "coco_train.annotations.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for one in fed:
        assert one.image.shape == (64, 64, 3) and one.image.std() > 5
        height, width = sizes[one.source_id]
        mine = [a["bbox"] for a in truth["annotations"] if a["image_id"] == one.source_id]
        expected = np.array([[y, x, y + h, x + w] for x, y, w, h in mine])
        expected = expected / [height, width, height, width]
        np.testing.assert_allclose(np.sort(one.boxes, 0), np.sort(expected, 0), atol=1e-4)
        # Each object is given an anchor, and no anchor belongs to none.
        assert set(one.matches.owners.tolist()) == set(range(len(one.boxes)))
    assert Image.open(tmp_path / "inputs.png").width > 2 * 128


def test_red_stays_red_through_normalisation_and_back(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    red = tf.constant(np.tile(np.array([200, 10, 30], np.uint8), (40, 50, 1)))
    boxes = tf.constant([[[0.2, 0.2, 0.7, 0.7], [0.0, 0.0, 0.0, 0.0]]])
    objects = {"boxes": boxes, "classes": tf.constant([[2, 0]]), "is_crowd": boxes[..., 0] < 0}
    batch = {
        **objects,
        "image": detector.preprocessing(red)[tf.newaxis],
        "source_id": tf.constant([9], tf.int64),
        "valid": tf.constant([[True, False]]),
    }
    batch["targets"] = detector.make_targets(*objects.values(), valid=batch["valid"])
    [one] = fed_images.describe_batch(detector, batch)
    assert one.image.reshape(-1, 3).tolist() == [[200, 10, 30]] * 64 * 64
    assert one.source_id == 9 and one.boxes.shape == (1, 4) and one.classes.tolist() == [2]
    number = int(batch["targets"]["num_matched"][0])
    assert len(one.matches.boxes) == number > 1
    assert fed_images.input_title(one) == f"9: 1 object, {number} anchors"


def test_colours_tell_matched_forced_and_lost_objects(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    anchor = detector.anchor_boxes[100].numpy()
    speck = np.array([0.9, 0.9, 0.91, 0.91], np.float32)
    boxes = np.stack([anchor, speck, speck])
    classes = np.array([0, 1, 1], np.int32)
    targets = detector.make_targets(boxes, classes, np.zeros(3, bool))
    matches = detector.explain_targets(targets, boxes, classes, np.zeros(3, bool))
    mine = matches.boxes[matches.owners == 0]
    assert np.abs(mine - anchor).max(axis=1).min() < 1e-6
    assert matches.quality[0] == pytest.approx(1.0, abs=1e-5)
    assert (matches.owners == 1).sum() == 1 and (matches.owners == 2).sum() == 0
    one = fed_images.FedImage(
        source_id=1,
        image=np.zeros((64, 64, 3), np.uint8),
        boxes=boxes,
        classes=classes,
        is_crowd=np.zeros(3, bool),
        matches=matches,
    )
    assert matches.states.tolist() == [MATCHED, WEAK, UNMATCHED]
    assert fed_images.input_title(one).endswith("anchors; forced: 1, never: 1")
    assert fed_images.count_matches([one]).endswith("; reached: 1, forced: 1, never: 1")
    assert fed_images.legend(matches).splitlines() == [
        "green: anchors reach the matching threshold   "
        "orange: only the anchor that each object is given",
        "red: no anchor   thin blue: matched anchors, their number beside the class   "
        "hatched: crowd region",
    ]
    picture = fed_images.draw_input(one, ["a", "b"], size=64)
    for color in (fed_images.COLORS[MATCHED], fed_images.UNIT_COLOR):
        assert (picture == color).all(axis=-1).any()


def test_codes_of_a_box_that_no_object_has_belong_to_none(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    box = np.array([[0.2, 0.2, 0.7, 0.7]], np.float32)
    classes = np.array([1], np.int32)
    targets = detector.make_targets(box, classes, np.zeros(1, bool))
    crowd = np.zeros(1, bool)
    for other, kinds in ((box + 0.1, classes), (box, classes + 1), (box[:0], classes[:0])):
        matches = detector.explain_targets(targets, other, kinds, crowd[: len(other)])
        assert len(matches.owners) and set(matches.owners.tolist()) == {-1}
        assert matches.states.tolist() == [UNMATCHED] * len(other)


def test_peaks_tell_objects_of_their_own_and_those_that_share_one():
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    # Of 16x16 cells: the first two have their centres in one cell, the third there too but of
    # another class; the last stands alone.
    boxes = np.array(
        [[0.2, 0.2, 0.6, 0.6], [0.3, 0.3, 0.5, 0.51], [0.3, 0.3, 0.5, 0.5], [0.7, 0.6, 0.9, 0.9]],
        np.float32,
    )
    objects = {"boxes": boxes, "classes": np.array([0, 0, 1, 1]), "is_crowd": np.zeros(4, bool)}
    batch = {name: tf.constant(value[np.newaxis]) for name, value in objects.items()}
    batch["classes"] = tf.cast(batch["classes"], tf.int32)
    targets = detector.make_targets(*batch.values())
    batch |= {"image": tf.zeros([1, 64, 64, 3]), "source_id": tf.constant([9], tf.int64)}
    batch |= {"valid": tf.ones([1, 4], tf.bool), "targets": targets}
    [one] = fed_images.describe_batch(detector, batch)
    assert one.matches.heat.shape == (16, 16) and one.matches.heat.max() == 1.0
    assert one.matches.owners.tolist() == [0, 1, 2, 3]
    assert one.matches.states.tolist() == [WEAK, WEAK, MATCHED, MATCHED]
    assert fed_images.input_title(one) == "9: 4 objects, 4 peaks; shared peak: 2"
    assert "warm colours: the heatmap" in fed_images.legend(one.matches)
    drawn = fed_images.draw_input(one, ("a", "b"), size=64) - one.image.astype(int)
    # The cell of a peak is tinted, a corner of the image is not.
    assert drawn[49, 50, 0] > 40 and drawn[49, 50, 2] < -40
    assert np.abs(drawn[62, 2]).max() < 10


def test_no_object_is_no_peak():
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    nothing = np.zeros((0, 4), np.float32)
    targets = detector.make_targets(nothing, np.zeros(0, np.int32), np.zeros(0, bool))
    found = detector.explain_targets(targets, nothing, np.zeros(0, np.int32), np.zeros(0, bool))
    assert len(found.owners) == len(found.states) == 0 and not found.heat.any()
