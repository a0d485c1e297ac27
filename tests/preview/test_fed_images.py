"""Network inputs turned back into pictures, with their matched anchors."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.data.directory import load_label_map
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
        assert set(one.owners.tolist()) == set(range(len(one.boxes)))
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
    assert len(one.anchors) == int(batch["targets"]["num_matched"][0]) > 0
    assert fed_images.input_title(one).startswith("9: 1 object, ")


def test_colours_tell_matched_forced_and_lost_objects(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    anchor = detector.anchor_boxes[100].numpy()
    speck = np.array([0.9, 0.9, 0.91, 0.91], np.float32)
    boxes = np.stack([anchor, speck, speck])
    classes = np.array([0, 1, 1], np.int32)
    targets = detector.make_targets(boxes, classes, np.zeros(3, bool))
    matched = fed_images.matched_anchors(detector, targets, boxes, classes)
    assert matched["overlaps"][matched["owners"] == 0].max() == pytest.approx(1.0, abs=1e-5)
    assert (matched["owners"] == 1).sum() == 1 and (matched["owners"] == 2).sum() == 0
    one = fed_images.FedImage(
        source_id=1,
        image=np.zeros((64, 64, 3), np.uint8),
        boxes=boxes,
        classes=classes,
        is_crowd=np.zeros(3, bool),
        **matched,
    )
    threshold = detector.criterion.matched_threshold
    expected = [fed_images.MATCHED, fed_images.FORCED, fed_images.UNMATCHED]
    assert fed_images.box_states(one, threshold) == expected
    picture = fed_images.draw_input(one, ["a", "b"], threshold, size=64)
    assert (picture == fed_images.MATCHED).all(axis=-1).any()


def test_codes_of_a_box_that_no_object_has_belong_to_none(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    box = np.array([[0.2, 0.2, 0.7, 0.7]], np.float32)
    classes = np.array([1], np.int32)
    targets = detector.make_targets(box, classes, np.zeros(1, bool))
    matched = fed_images.matched_anchors(detector, targets, box + 0.1, classes)
    assert len(matched["owners"]) and set(matched["owners"].tolist()) == {-1}
    matched = fed_images.matched_anchors(detector, targets, box, classes + 1)
    assert set(matched["owners"].tolist()) == {-1}
    matched = fed_images.matched_anchors(detector, targets, box[:0], classes[:0])
    assert set(matched["owners"].tolist()) == {-1}


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
    assert one.heat.shape == (16, 16) and one.heat.max() == 1.0
    assert one.owners.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(one.anchors, boxes, atol=1e-5)
    states = [fed_images.FORCED, fed_images.FORCED, fed_images.MATCHED, fed_images.MATCHED]
    assert fed_images.box_states(one, 0.5) == states
    assert fed_images.input_title(one) == "9: 4 objects, 2 share a peak"
    drawn = fed_images.draw_input(one, ("a", "b"), 0.5, size=64) - one.image.astype(int)
    # The cell of a peak is tinted, a corner of the image is not.
    assert drawn[26, 26, 0] > 40 and drawn[26, 26, 2] < -40
    assert np.abs(drawn[62, 2]).max() < 10


def test_no_object_is_no_peak():
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    nothing = np.zeros((0, 4), np.float32)
    targets = detector.make_targets(nothing, np.zeros(0, np.int32), np.zeros(0, bool))
    found = fed_images.matched_anchors(detector, targets, nothing, np.zeros(0, np.int32))
    assert len(found["anchors"]) == 0 and not found["heat"].any()
