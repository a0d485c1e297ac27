"""Votes on boxes: the same whatever branch of the graph a number of detections takes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import nms, voting

LIMITS = {"score_threshold": 0.05, "vote_iou": 0.6}


@pytest.mark.parametrize("candidates", [64, 100, 256, 512])
def test_branches_for_few_detections_change_nothing(candidates):
    rng = np.random.default_rng(candidates)
    corner = rng.uniform(0.0, 0.8, (2, candidates, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.2, corner.shape)], axis=-1)
    boxes = tf.constant(boxes.astype(np.float32))
    # As a SavedModel is called: with any number of images.
    signature = [tf.TensorSpec([None, candidates, 4]), tf.TensorSpec([None, candidates, 7])]

    def detect(boxes, scores, branches):
        found = nms.multiclass_nms(boxes, scores, score_threshold=0.05)
        voted = voting.vote(found, boxes, scores, **LIMITS, branches=branches)
        return voted, found["boxes"]

    ways = [
        tf.function(lambda b, s, on=on: detect(b, s, on), input_signature=signature)
        for on in (False, True)
    ]
    counts = set()
    for pairs in (0, 6, 40, 130, 7 * candidates):
        kept = rng.uniform(size=(2, candidates, 7)) < pairs / (7 * candidates)
        scores = tf.constant(np.where(kept, rng.uniform(size=kept.shape), 0.0), tf.float32)
        (want, unmoved), (found, _) = (way(boxes, scores) for way in ways)
        counts.add(int(tf.reduce_max(want["count"])))
        for key, value in want.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
        if pairs == 7 * candidates:
            assert np.abs(want["boxes"] - unmoved).max() > 0.01
    assert min(counts) == 0 and any(0 < n <= 16 for n in counts) and max(counts) == 200
    assert any(16 < n <= 64 for n in counts)
