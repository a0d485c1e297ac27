import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from tests.layers.contract import LayerContract

SIZE = {"num_classes": 2, "image_size": (16, 24), "output_size": (4, 6)}
HALF = -(0.5**2) * math.log(0.5)  # A negative of score 0.5, and equally a positive.


def targets_of(boxes, classes, *, crowd="object", max_boxes=3, is_crowd=None, **settings) -> dict:
    """Make targets of one image or a batch from boxes in cells."""
    boxes = np.asarray(boxes, np.float32) / np.float32([4, 6, 4, 6])
    classes = tf.constant(classes, tf.int32)
    is_crowd = tf.zeros(classes.shape, tf.bool) if is_crowd is None else tf.constant(is_crowd)
    return CenterNetLoss(max_boxes, crowd=crowd).make_targets(
        tf.constant(boxes), classes, is_crowd, **SIZE, **settings
    )


def outputs_of(batch=1, offset=0.0, size=0.0) -> dict:
    return {
        "center": tf.zeros([batch, 4, 6, 2]),
        "offset": tf.fill([batch, 4, 6, 2], offset),
        "size": tf.fill([batch, 4, 6, 2], size),
    }


def batched(targets: dict) -> dict:
    return {key: value[tf.newaxis] for key, value in targets.items()}


TWO = ([[0.5, 1.0, 2.5, 2.0], [2.0, 4.0, 4.0, 6.0]], [1, 0])


def test_targets_by_hand():
    made = targets_of(*TWO)
    assert made["cells"].numpy().tolist() == [[1, 1], [3, 5], [0, 0]]
    np.testing.assert_allclose(made["offsets"], [[0.5, 0.5], [0, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(made["sizes"], [[2, 1], [2, 2], [0, 0]], atol=1e-6)
    assert made["weights"].numpy().tolist() == [1, 1, 0]
    assert np.argwhere(made["heatmap"] == 1.0).tolist() == [[1, 1, 1], [3, 5, 0]]
    # Radii below 1 leave a deviation of 1/6: a cell beside the centre has exp(-18).
    np.testing.assert_allclose(made["heatmap"][1, 2, 1], math.exp(-18), rtol=1e-5)
    assert np.all(made["cell_weights"] == 1.0)


def test_losses_by_hand_over_two_stacks():
    loss = CenterNetLoss(3)
    made = batched(targets_of(*TWO))
    parts = loss([outputs_of(offset=1.0, size=1.0), outputs_of()], made)
    # 48 cells and classes of score 0.5, and two boxes.
    assert float(parts["center"]) == pytest.approx(48 * HALF / 2, rel=1e-4)
    # |1 - 0.5| twice and |1 - 0| twice; then |0 - 0.5| twice.
    assert float(parts["offset"]) == pytest.approx((3.0 + 1.0) / 4)
    assert float(parts["size"]) == pytest.approx(((1 + 0 + 1 + 1) + (2 + 1 + 2 + 2)) / 4)
    assert loss.loss_weights == {"center": 1.0, "size": 0.1, "offset": 1.0}


def test_the_normaliser_is_that_of_the_batch():
    made = [targets_of(*TWO), targets_of(np.zeros((0, 4)), [])]
    both = {key: tf.stack([m[key] for m in made]) for key in made[0]}
    parts = CenterNetLoss(3)([outputs_of(batch=2)], both)
    assert float(parts["center"]) == pytest.approx(2 * 48 * HALF / 2, rel=1e-4)


def test_empty_image_is_undivided_background():
    parts = CenterNetLoss(3)([outputs_of()], batched(targets_of(np.zeros((0, 4)), [])))
    assert float(parts["center"]) == pytest.approx(48 * HALF, rel=1e-5)
    assert float(parts["size"]) == float(parts["offset"]) == 0.0


def test_batch_form_equals_images_one_by_one():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 2, (3, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 2, low.shape)], axis=-1)
    classes, valid = rng.integers(0, 2, (3, 5)), rng.uniform(size=(3, 5)) < 0.6
    extent = np.float32([[1, 1], [0.5, 1], [1, 0.7]])
    crowd = rng.uniform(size=(3, 5)) < 0.3
    for mode in ("object", "drop", "ignore"):
        settings = {"crowd": mode, "max_boxes": 7}
        together = targets_of(
            boxes,
            classes,
            is_crowd=crowd,
            valid=tf.constant(valid),
            extent=tf.constant(extent),
            **settings,
        )
        for image in range(3):
            alone = targets_of(
                boxes[image],
                classes[image],
                is_crowd=crowd[image],
                valid=tf.constant(valid[image]),
                extent=tf.constant(extent[image]),
                **settings,
            )
            for key, value in alone.items():
                np.testing.assert_array_equal(value, together[key][image], err_msg=key)


def test_rows_beyond_max_boxes_are_left_out():
    boxes = [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]
    made = targets_of(boxes, [0, 0, 0], max_boxes=2)
    assert made["weights"].shape == (2,)
    assert np.argwhere(made["heatmap"] == 1.0)[:, 0].tolist() == [0, 1]


def test_weights_scale_the_peak_and_the_errors_but_are_counted_whole():
    made = targets_of(*TWO, weights=tf.constant([0.5, 0.0]))
    assert made["heatmap"].numpy().max() == 0.5
    assert not made["heatmap"].numpy()[..., 0].any()
    parts = CenterNetLoss(3)([outputs_of()], batched(made))
    assert float(parts["offset"]) == pytest.approx(0.5 * 1.0)
    assert float(parts["size"]) == pytest.approx(0.5 * 3.0)
    # No cell is a positive; that of the peak is forgiven (1 - 0.5)^4.
    assert float(parts["center"]) == pytest.approx((47 + 0.5**4) * HALF, rel=1e-4)


def test_padding_of_the_image_is_left_out():
    made = targets_of(*TWO, extent=tf.constant([9 / 16, 1.0]))
    # Nine rows of pixels reach into the third row of cells.
    assert made["cell_weights"].numpy().tolist() == [[1] * 6] * 3 + [[0] * 6]
    parts = CenterNetLoss(3)([outputs_of()], batched(made))
    assert float(parts["center"]) == pytest.approx(36 * HALF / 2, rel=1e-4)


CROWD = ([[0.0, 0.0, 2.0, 3.0], [0.4, 0.4, 0.6, 0.6]], [1, 0])


def crowd_targets(mode: str) -> dict:
    return targets_of(*CROWD, crowd=mode, is_crowd=[True, False])


def test_crowd_as_object():
    made = crowd_targets("object")
    assert np.argwhere(made["heatmap"] == 1.0).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert made["weights"].numpy().tolist() == [1, 1, 0]
    assert np.all(made["cell_weights"] == 1.0)


def test_crowd_dropped():
    made = crowd_targets("drop")
    assert np.argwhere(made["heatmap"] == 1.0).tolist() == [[0, 0, 0]]
    assert made["weights"].numpy().tolist() == [0, 1, 0]
    assert np.all(made["cell_weights"] == 1.0)


def test_crowd_ignored_but_for_objects_in_it():
    made = crowd_targets("ignore")
    assert np.argwhere(made["heatmap"] == 1.0).tolist() == [[0, 0, 0]]
    assert made["weights"].numpy().tolist() == [0, 1, 0]
    want = np.ones((4, 6))
    want[:2, :3] = 0.0
    want[0, 0] = 1.0
    np.testing.assert_array_equal(made["cell_weights"], want)


def test_unknown_crowd_mode_raises():
    with pytest.raises(ValueError, match="CenterNetLoss.crowd must be one of .* got 'keep'"):
        CenterNetLoss(crowd="keep")


def test_rows_of_padding_are_not_looked_at():
    nonsense = [[0.5, 1.0, 2.5, 2.0], [np.nan] * 4, [np.inf, 0.0, -np.inf, 9e9]]
    made = targets_of(nonsense, [1, -7, 99], valid=tf.constant([True, False, False]))
    clean = targets_of(nonsense[:1], [1])
    for key, value in clean.items():
        np.testing.assert_array_equal(made[key], value, err_msg=key)


def test_gradient_reaches_only_the_centre_cells():
    outputs = outputs_of(offset=0.1, size=0.1)
    made = batched(targets_of(*TWO))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        parts = CenterNetLoss(3)([outputs], made)
        total = parts["size"] + parts["offset"]
    gradients = tape.gradient(total, outputs, unconnected_gradients="zero")
    assert not np.any(gradients["center"])
    for key in ("offset", "size"):
        touched = np.any(tf.convert_to_tensor(gradients[key])[0], axis=-1)
        assert np.argwhere(touched).tolist() == [[1, 1], [3, 5]], key


class TestCenterNetLossContract(LayerContract):
    part = CenterNetLoss
    settings = {
        "max_boxes": 5,
        "min_overlap": 0.5,
        "crowd": "ignore",
        "center_loss_weight": 0.3,
        "size_loss_weight": 0.2,
        "offset_loss_weight": 0.4,
        "class_weights": {"one": 2.0},
    }

    def call(self, layer):
        boxes = tf.constant(np.float32([TWO[0]]) / np.float32([4, 6, 4, 6]))
        crowd = tf.constant([[False, True]])
        targets = layer.make_targets(boxes, tf.constant([TWO[1]]), crowd, **SIZE)
        return targets, layer([outputs_of(offset=0.5)], targets)

    def test_weights_of_the_parts(self):
        assert self.build().loss_weights == {"center": 0.3, "size": 0.2, "offset": 0.4}
