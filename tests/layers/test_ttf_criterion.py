"""TTFNet's targets and loss, against numbers by hand and against loops over objects and cells."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.ttf_criterion import TTFLoss
from ssd_centernet.models.centernet import CenterNet
from ssd_centernet.models.matches import MATCHED, UNMATCHED, WEAK
from ssd_centernet.ops import heatmaps
from tests.layers.contract import LayerContract
from tests.models import contracts
from tests.models.test_centernet import small_fpn

GRID = (8, 12)
PIXELS = (32, 48)


def targets_of(boxes, classes, *, is_crowd=None, valid=None, extent=None, **settings):
    """Make targets of boxes in cells."""
    boxes = np.reshape(boxes, [*np.shape(classes), 4]) / np.array([*GRID, *GRID])
    made = TTFLoss(**settings).make_targets(
        tf.constant(boxes, tf.float32),
        tf.constant(classes, tf.int32),
        tf.zeros(np.shape(classes), tf.bool) if is_crowd is None else tf.constant(is_crowd),
        num_classes=2,
        image_size=PIXELS,
        output_size=GRID,
        valid=None if valid is None else tf.constant(valid),
        extent=None if extent is None else tf.constant(extent),
    )
    return {key: value.numpy() for key, value in made.items()}


def test_an_ellipse_by_hand():
    # 4 x 8 cells: radii floor(0.27 * 4) = 1 and floor(0.27 * 8) = 2, deviations 3/6 and 5/6.
    made = targets_of([[2, 2, 6, 10]], [1])
    vertical = np.exp(-((np.arange(8) - 4.0) ** 2) / (2 * 0.5**2))
    horizontal = np.exp(-((np.arange(12) - 6.0) ** 2) / (2 * (5 / 6) ** 2))
    peak = vertical[:, np.newaxis] * horizontal
    np.testing.assert_allclose(made["heatmap"][..., 1], peak, atol=1e-6)
    assert not made["heatmap"][..., 0].any()
    inside = np.zeros(GRID, bool)
    inside[3:6, 4:9] = True
    np.testing.assert_array_equal(made["box_weights"] > 0, inside)
    np.testing.assert_allclose(made["boxes"][inside], [[2, 2, 6, 10]] * 15, rtol=1e-6)
    assert not made["boxes"][~inside].any()
    # A cell is 4 x 4 pixels.
    assert made["box_weights"].sum() == pytest.approx(math.log(1 + 32 * 16), rel=1e-5)
    shares = made["box_weights"] / made["box_weights"].sum()
    np.testing.assert_allclose(shares, peak * inside / (peak * inside).sum(), atol=1e-6)


def by_loops(boxes, share=0.54):
    """Draw the objects one by one, the largest first, as the authors do."""
    cell_boxes, cell_weights = np.zeros((*GRID, 4)), np.zeros(GRID)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        ymin, xmin, ymax, xmax = boxes[index]
        cy = min(int((ymin + ymax) / 2), GRID[0] - 1)
        cx = min(int((xmin + xmax) / 2), GRID[1] - 1)
        ry, rx = int(share * (ymax - ymin) / 2), int(share * (xmax - xmin) / 2)
        peak = {}
        for y in range(max(cy - ry, 0), min(cy + ry + 1, GRID[0])):
            for x in range(max(cx - rx, 0), min(cx + rx + 1, GRID[1])):
                sy, sx = (2 * ry + 1) / 6, (2 * rx + 1) / 6
                peak[y, x] = math.exp(-((y - cy) ** 2) / (2 * sy**2) - (x - cx) ** 2 / (2 * sx**2))
        for (y, x), value in peak.items():
            cell_boxes[y, x] = boxes[index]
            cell_weights[y, x] = value / sum(peak.values()) * math.log(1 + areas[index] * 16)
    return cell_boxes, cell_weights


@pytest.mark.parametrize("share", [0.54, 1.0])
def test_cells_are_those_of_drawing_one_object_after_the_other(share):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 6, (30, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.5, 6, (30, 5, 2))], -1)
    boxes = np.minimum(boxes, [*GRID, *GRID]).astype("f4")
    made = targets_of(boxes, rng.integers(0, 2, (30, 5)), share=share)
    for image in range(30):
        cell_boxes, cell_weights = by_loops(boxes[image].astype(float), share)
        np.testing.assert_allclose(made["boxes"][image], cell_boxes, atol=1e-4)
        np.testing.assert_allclose(made["box_weights"][image], cell_weights, rtol=1e-4, atol=1e-6)
        alone = targets_of(boxes[image], np.zeros(5, int), share=share)
        np.testing.assert_allclose(alone["boxes"], cell_boxes, atol=1e-4)


def test_the_smaller_of_two_objects_has_the_cell():
    large, small = [0, 0, 8, 12], [3, 5, 5, 7]
    for boxes in ([large, small], [small, large]):
        made = targets_of(boxes, [0, 0])
        np.testing.assert_allclose(made["boxes"][4, 6], small)
        np.testing.assert_allclose(made["boxes"][3, 6], large)


def test_crowds_padding_and_images_without_objects():
    boxes = [[2, 2, 6, 10], [0, 0, 4, 4]]
    crowd = targets_of(boxes, [0, 1], is_crowd=[True, False], crowd="ignore")
    assert crowd["heatmap"][4, 6, 0] == 0.0 and crowd["cell_weights"][4, 6] == 0.0
    assert not crowd["box_weights"][4, 6] and crowd["box_weights"][2, 2]
    assert targets_of(boxes, [0, 1], is_crowd=[True, False], crowd="drop")["cell_weights"].all()
    assert targets_of(boxes, [0, 1], is_crowd=[True, False])["heatmap"][4, 6, 0] == 1.0
    alone, padded = targets_of(boxes[:1], [0]), targets_of(boxes, [0, 1], valid=[True, False])
    for key, value in alone.items():
        # Vectorised exponentials of few and of many numbers may differ in the last bit.
        np.testing.assert_allclose(padded[key], value, rtol=1e-6, atol=1e-12)
    nothing = targets_of(np.zeros([0, 4]), np.zeros([0], int))
    assert not any(nothing[key].any() for key in ("heatmap", "boxes", "box_weights"))
    cut = targets_of(boxes, [0, 1], extent=[0.5, 1.0])["cell_weights"]
    assert cut[:4].all() and not cut[4:].any()


def maps(sides, logits=0.0):
    center = np.full((1, *GRID, 2), logits)
    sides = np.broadcast_to(np.array(sides, float), (1, *GRID, 4))
    return [{"center": tf.constant(center, tf.float32), "sides": tf.constant(sides, tf.float32)}]


def test_losses_by_hand():
    targets = {key: value[np.newaxis] for key, value in targets_of([[4, 4, 5, 5]], [0]).items()}
    # One cell with its box; the middle is (4.5, 4.5).
    parts = TTFLoss()(maps([0.5, 0.5, 0.5, 0.5]), targets)
    assert float(parts["box"]) == pytest.approx(0.0, abs=1e-5)
    parts = TTFLoss(box_loss="iou")(maps([0.5, 0.5, 1.5, 0.5]), targets)
    assert float(parts["box"]) == pytest.approx(0.5, rel=1e-5)
    forgiven = (1.0 - targets["heatmap"]) ** 4
    forgiven[targets["heatmap"] == 1.0] = 1.0
    want = 0.25 * math.log(2.0) * forgiven.sum()
    assert float(parts["center"]) == pytest.approx(want, rel=1e-5)
    # Two stacks count half each.
    twice = TTFLoss(box_loss="iou")(maps([0.5, 0.5, 1.5, 0.5]) + maps([0.5] * 4), targets)
    assert float(twice["box"]) == pytest.approx(0.25, rel=1e-5)


def test_an_empty_batch_has_no_box_loss():
    targets = targets_of(np.zeros([1, 0, 4]), np.zeros([1, 0], int))
    parts = TTFLoss()(maps([1.0] * 4), targets)
    assert float(parts["box"]) == 0.0 and float(parts["center"]) > 0.0


def test_a_head_of_sizes_is_refused():
    with pytest.raises(ValueError, match="set CenterNetHead.regression = 'sides'"):
        TTFLoss()([{"center": None, "offset": None, "size": None}], {})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"share": 0}, "TTFLoss.share must be above 0 and at most 1, got 0"),
        ({"box_loss": "huber"}, "TTFLoss.box_loss must be one of"),
        ({"crowd": "maybe"}, "TTFLoss.crowd must be one of"),
        ({"box_loss_weight": -1.0}, "TTFLoss.box_loss_weight must be a number of 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        TTFLoss(**setting)


def test_sides_and_boxes_are_inverse():
    sides = np.random.default_rng(0).uniform(0, 3, (2, *GRID, 4)).astype("f4")
    boxes = heatmaps.boxes_from_sides(tf.constant(sides)).numpy()
    y, x = np.mgrid[: GRID[0], : GRID[1]] + 0.5
    np.testing.assert_allclose(boxes[1, ..., 0], y - sides[1, ..., 0], rtol=1e-5)
    np.testing.assert_allclose(boxes[1, ..., 3], x + sides[1, ..., 3], rtol=1e-5)
    cells = tf.constant([[[3, 7]], [[0, 1]]])
    gathered = heatmaps.gather_cells(tf.constant(sides), cells)
    some = heatmaps.boxes_from_sides(gathered, cells)
    np.testing.assert_array_equal(some[0, 0], boxes[0, 3, 7])


def decoded(peaks, **settings):
    """Decode peaks `(y, x, class, logit, sides)`."""
    (given,) = maps([1.0] * 4, -20.0)
    center, sides = given["center"].numpy().copy(), given["sides"].numpy().copy()
    for y, x, kind, logit, lengths in peaks:
        center[0, y, x, kind], sides[0, y, x] = logit, lengths
    given = [{"center": tf.constant(center), "sides": tf.constant(sides)}]
    return CenterNetDecoder(5, score_threshold=0.01, **settings)(given)


def test_decoded_boxes_are_those_of_the_sides_inside_the_input():
    found = decoded([(4, 6, 1, 2.0, (2.5, 1.5, 1.5, 20.0))])
    assert int(found["count"][0]) == 1 and int(found["classes"][0, 0]) == 1
    np.testing.assert_allclose(found["boxes"][0, 0] * [*GRID, *GRID], [2, 5, 6, 12], rtol=1e-5)


def test_suppression_leaves_out_the_worse_of_two_boxes_of_a_class():
    whole = (4.5, 2.5, 3.5, 9.5)
    near = [(4, 2, 0, 2.0, whole), (4, 6, 0, 3.0, (4.5, 6.5, 3.5, 5.5)), (4, 10, 1, 1.0, whole)]
    assert int(decoded(near)["count"][0]) == 3
    found = decoded(near, iou_threshold=0.5)
    assert found["classes"][0, :2].numpy().tolist() == [0, 1] and int(found["count"][0]) == 2
    np.testing.assert_allclose(found["scores"][0, 0], tf.sigmoid(3.0))
    (given,) = maps([4.0] * 4, 0.0)
    kept = CenterNetDecoder(iou_threshold=0.9)([given], iou_threshold=0.1)["count"]
    assert int(kept[0]) < int(CenterNetDecoder(iou_threshold=0.9)([given])["count"][0])
    with pytest.raises(ValueError, match="CenterNetDecoder.iou_threshold must be above 0"):
        CenterNetDecoder(iou_threshold=0.0)


class TestTTFLossContract(LayerContract):
    part = TTFLoss
    settings = {
        "share": 0.7,
        "box_loss": "ciou",
        "crowd": "ignore",
        "center_loss_weight": 0.5,
        "box_loss_weight": 2.0,
        "class_weights": {"one": 2.0},
    }

    def call(self, layer):
        targets = layer.make_targets(
            tf.constant([[[0.1, 0.1, 0.6, 0.7]]]),
            tf.constant([[1]]),
            tf.constant([[False]]),
            num_classes=2,
            image_size=PIXELS,
            output_size=GRID,
        )
        return targets, layer(maps([1.0, 2.0, 3.0, 4.0]), targets)


def small_centernet(image_size=contracts.SQUARE, **settings) -> CenterNet:
    criterion = TTFLoss(crowd=settings.pop("crowd", "object"))
    head = functools.partial(CenterNetHead, regression="sides")
    return small_fpn(image_size, criterion=criterion, head=head, **settings)


class TestCenterNetWithSides(contracts.DetectorContract):
    crowd_modes = ("object", "drop", "ignore")

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_centernet(image_size, **settings)


def test_explanations_say_whose_box_the_cells_learn():
    detector = small_centernet()
    grid = np.array([*detector.output_size] * 2)
    # A large one whose centre a small one has; one alone; one box of two classes; a copy.
    boxes = [[0, 0, 16, 16], [7, 7, 9, 9], [18, 18, 22, 22], [2, 18, 6, 22], [2, 18, 6, 22]]
    boxes = (np.array([*boxes, boxes[2]]) / grid).astype(np.float32)
    classes, crowd = np.array([0, 0, 1, 1, 2, 1], np.int32), np.zeros(6, bool)
    targets = detector.make_targets(*map(tf.constant, (boxes, classes, crowd)))
    matches = detector.explain_targets(targets, boxes, classes, crowd)
    want = [WEAK, MATCHED, MATCHED, MATCHED, MATCHED, UNMATCHED]
    np.testing.assert_array_equal(matches.states, want)
    assert matches.points.shape == (len(matches.owners), 2)
    assert "sides on 24 x 24 cells" in detector.describe_outputs()
