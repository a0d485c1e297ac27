"""Suppression as one operation keeps what the products keep."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import nms, standard_nms
from tests.ops.test_nms import random_case


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_detections": 7},
        {"max_entering": 4},
        {"max_kept": 3, "score_threshold": 0.2},
        {"clip_after": True},
        {"clip_after": True, "max_kept": 3, "max_detections": 7},
        {"max_detections": 400, "iou_threshold": 0.1},
        {"clip_after": True, "max_detections": 400},
    ],
)
def test_one_operation_keeps_what_products_keep(settings):
    boxes, scores = random_case(5, anchors=50, classes=3)
    # Some reach out of the image, some lie outside of it.
    boxes = boxes * np.float32(1.6) - np.float32(0.6)
    best, indices, classes = nms.best_pairs(tf.constant(scores), 120)
    given = (tf.gather(tf.constant(boxes), indices, batch_dims=1), best, classes)
    limits = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 60} | settings
    want = standard_nms.suppress(*given, num_classes=3, **limits)
    with standard_nms.one_operation():
        found = standard_nms.suppress(*given, num_classes=3, **limits)
    assert want["count"].numpy().min() > 2
    for key, value in want.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_what_lies_outside_suppresses_and_is_left_out():
    boxes = tf.constant([[[-1, 0, -0.1, 1], [-1, 0, -0.05, 1], [0, 0, 1, 2.0]]])
    given = (boxes, tf.constant([[0.9, 0.8, 0.7]]), tf.constant([[0, 0, 0]]))
    limits = {"score_threshold": 0.1, "iou_threshold": 0.5, "max_detections": 2}
    with standard_nms.one_operation():
        found = standard_nms.suppress(*given, num_classes=1, clip_after=True, **limits)
    assert found["count"].numpy().tolist() == [1]
    assert found["boxes"].numpy().tolist() == [[[0, 0, 1, 1], [0, 0, 0, 0]]]
    assert found["scores"].numpy().tolist() == [[np.float32(0.7), 0]]
