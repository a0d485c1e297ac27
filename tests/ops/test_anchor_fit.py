"""Anchors fitted to data: clusters by hand, overlaps as of all anchors, and what improves."""

import numpy as np
import pytest

from ssd_centernet.layers.anchors import DefaultBoxes, MultiscaleAnchors
from ssd_centernet.ops import anchor_fit
from ssd_centernet.ops import boxes as box_ops

KINDS = {
    "default": (
        DefaultBoxes((30, 60, 120), aspect_ratios=((2,), (2, 3)), steps=None, reference_size=100),
        [(8, 8), (4, 4)],
    ),
    "multiscale": (MultiscaleAnchors(4.0, min_level=3, max_level=4), [(12, 12), (6, 6)]),
}


def random_boxes(count=60, smallest=0.05, largest=0.5, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(smallest), np.log(largest), (count, 2)))
    low = rng.uniform(0.0, 1.0 - sizes)
    return np.concatenate([low, low + sizes], axis=1).astype(np.float32)


def test_clusters_of_shapes():
    shapes = np.array([[10, 10], [20, 60], [80, 40]])
    rng = np.random.default_rng(0)
    sizes = np.concatenate([shape * rng.uniform(0.9, 1.1, (40, 2)) for shape in shapes])
    centers = anchor_fit.cluster_sizes(sizes, 3)
    assert np.abs(centers / shapes - 1.0).max() < 0.06
    assert anchor_fit.cluster_sizes(np.array([[3.0, 4.0]]), 2).tolist() == [[3.0, 4.0]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_cell_has_the_best_anchor(kind):
    anchors, sizes = KINDS[kind]
    made, boxes = anchors.generate((96, 96), sizes), random_boxes()
    got = anchor_fit.best_overlaps(boxes, made, sizes, anchors.boxes_per_cell)
    np.testing.assert_allclose(got, box_ops.iou(boxes, made).numpy().max(axis=1), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_anchors_reach_more_objects(kind):
    anchors, sizes = KINDS[kind]
    boxes = random_boxes(smallest=0.06, largest=0.2)
    settings = anchors.fitted(boxes, (96, 96), sizes, 0.5)
    fitted = type(anchors).from_config({**anchors.get_config(), **settings})
    assert fitted.boxes_per_cell == anchors.boxes_per_cell
    reached = [
        (box_ops.iou(boxes, one.generate((96, 96), sizes)).numpy().max(axis=1) >= 0.5).mean()
        for one in (anchors, fitted)
    ]
    assert reached[1] > reached[0] + 0.15
    assert settings == anchors.fitted(boxes, (96, 96), sizes, 0.5)


def test_scales_stay_in_order_whatever_the_objects():
    anchors, sizes = KINDS["default"]
    for boxes in ([[0.5, 0.5, 0.5001, 0.5001]], [[0.0, 0.0, 1.0, 1.0]] * 3):
        scales = anchors.fitted(np.array(boxes), (96, 96), sizes, 0.5)["scales"]
        assert list(scales) == sorted(set(scales)) and scales[0] > 0
