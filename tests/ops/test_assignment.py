"""Assignments of anchors, against numbers by hand and against loops over objects and anchors."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import assignment
from ssd_centernet.ops import boxes as box_ops

# A fine level of four cells in a row, 10 pixels wide, and a coarse one of two, 20 wide.
FINE = [[0, 10 * i, 10, 10 * i + 10] for i in range(4)]
COARSE = [[0, 20 * i, 20, 20 * i + 20] for i in range(2)]
ANCHORS = np.array(FINE + COARSE, np.float32)
LEVELS = [(4, 1), (2, 1)]


def adaptive(boxes, *, valid=None, anchors=ANCHORS, levels=LEVELS, cells=2):
    boxes = tf.constant(np.reshape(boxes, [*np.shape(boxes)[:-1], 4]), tf.float32)
    valid = tf.ones(boxes.shape[:-1], tf.bool) if valid is None else tf.constant(valid)
    return assignment.adaptive(boxes, valid, anchors, levels, cells=cells).numpy()


def test_threshold_is_mean_plus_deviation_of_the_candidates():
    # The two nearest of each level, with IoU 1, 0 and 1/4, 1/16 or 0: the anchor 1 alone is above
    # 0.32 + 0.46.
    np.testing.assert_array_equal(adaptive([[0, 10, 10, 20]]), [-1, 0, -1, -1, -1, -1])


def test_an_object_between_two_cells_takes_the_anchors_whose_centre_it_holds():
    # IoU with the anchors 1 and 2 is 1/2 each, with 4 and 5 1/9 each: mean 0.306, deviation 0.225
    # of a sample, so that 0.5 does not reach 0.53. None passes; the first of the best is taken.
    np.testing.assert_array_equal(adaptive([[0, 10, 10, 30]]), [-1, 0, -1, -1, -1, -1])
    # With one candidate a level, 1/2 and 1/9: mean 0.306, deviation 0.275. None passes either.
    assert (adaptive([[0, 10, 10, 30]], cells=1) >= 0).sum() == 1


def test_an_anchor_of_two_objects_belongs_to_the_one_of_larger_overlap():
    found = adaptive([[0, 10, 10, 18], [0, 10, 10, 20]])
    assert found[1] == 1
    assert adaptive([[0, 10, 10, 20], [0, 10, 10, 20]])[1] == 0  # The first on ties.


def test_padding_takes_no_anchor_and_no_object_leaves_all_free():
    found = adaptive([[0, 10, 10, 20], [0, 0, 10, 10]], valid=[False, True])
    np.testing.assert_array_equal(found, [1, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(adaptive(np.zeros([0, 4])), [-1] * 6)
    np.testing.assert_array_equal(adaptive(np.zeros([2, 0, 4])), [[-1] * 6] * 2)


def test_levels_of_another_number_of_anchors_are_refused():
    with pytest.raises(ValueError, match="levels of .4, 3. anchors, but there are 6"):
        adaptive([[0, 0, 10, 10]], levels=[(4, 1), (3, 1)])


def centers(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def holds(box, points):
    return np.all((points > box[:2]) & (points < box[2:]), axis=-1)


def adaptive_by_loops(boxes, valid, anchors, levels, cells):
    """Assign as the paper's algorithm 1 is written, one object after the other."""
    overlaps = box_ops.iou(boxes, anchors).numpy()
    taken = np.full([len(boxes), len(anchors)], -1.0, np.float32)
    for row, box in enumerate(boxes):
        candidates, start = [], 0
        for count, per_cell in levels:
            distances = ((centers(anchors[start : start + count]) - centers(box)) ** 2).sum(-1)
            order = np.argsort(distances, kind="stable")[: min(cells * per_cell, count)]
            candidates += [start + index for index in order]
            start += count
        scores = overlaps[row, candidates]
        threshold = scores.mean() + scores.std(ddof=1)
        inside = holds(box, centers(anchors[candidates]))
        passed = [c for c, s, i in zip(candidates, scores, inside, strict=True)
                  if i and s >= threshold]  # fmt: skip
        if not passed:
            passed = [candidates[int(scores.argmax())]]
        if valid[row]:
            taken[row, passed] = overlaps[row, passed]
    return np.where(taken.max(axis=0) >= 0, taken.argmax(axis=0), -1)


def pyramid(rng, cells=2):
    """Anchors of two shapes a cell on three levels of an image of 64 pixels."""
    anchors, levels = [], []
    for stride in (8, 16, 32):
        for y in np.arange(stride / 2, 64, stride):
            for x in np.arange(stride / 2, 64, stride):
                for height, width in ((2.5, 2.5), (1.8, 3.6))[:cells]:
                    half = np.array([height, width]) * stride / 2
                    anchors.append([*(np.array([y, x]) - half), *(np.array([y, x]) + half)])
        levels.append(((64 // stride) ** 2 * cells, cells))
    return np.array(anchors, np.float32), levels


def random_boxes(rng, *shape):
    corners = rng.uniform(0, 56, [*shape, 2])
    return np.concatenate([corners, corners + rng.uniform(3, 40, [*shape, 2])], -1).astype("f4")


def test_adaptive_is_the_algorithm_of_the_paper_on_random_boxes():
    rng = np.random.default_rng(0)
    anchors, levels = pyramid(rng)
    boxes, valid = random_boxes(rng, 40, 6), rng.random([40, 6]) < 0.8
    together = adaptive(boxes, valid=valid, anchors=anchors, levels=levels, cells=5)
    for image in range(40):
        want = adaptive_by_loops(boxes[image], valid[image], anchors, levels, 5)
        np.testing.assert_array_equal(together[image], want)
        alone = adaptive(boxes[image], valid=valid[image], anchors=anchors, levels=levels, cells=5)
        np.testing.assert_array_equal(alone, want)
    assert (together >= 0).any(axis=1).all()


def aligned(scores, overlaps, candidates=None, **settings):
    overlaps = tf.constant(overlaps, tf.float32)
    candidates = tf.ones(overlaps.shape, tf.bool) if candidates is None else tf.constant(candidates)
    found = assignment.task_aligned(
        tf.constant(scores, tf.float32), overlaps, candidates, **settings
    )
    return [value.numpy() for value in found]


def test_measure_is_score_times_overlap_to_their_powers():
    # 0.8 * 0.5^2 = 0.2, 0.2 * 0.9^2 = 0.162, 0.5 * 0.6^2 = 0.18: the first and the third of three.
    matches, quality = aligned([[0.8, 0.2, 0.5]], [[0.5, 0.9, 0.6]], top=2, beta=2.0)
    np.testing.assert_array_equal(matches, [0, -1, 0])
    # Scaled so that the best is the largest IoU of those taken.
    np.testing.assert_allclose(quality, [0.6, 0.0, 0.6 * 0.18 / 0.2], rtol=1e-5)


def test_an_anchor_of_two_objects_goes_to_the_larger_overlap_and_counts_for_it_alone():
    matches, quality = aligned([[0.9, 0.9], [0.1, 0.1]], [[0.5, 0.4], [0.6, 0.0]], top=2, beta=1.0)
    np.testing.assert_array_equal(matches, [1, 0])
    np.testing.assert_allclose(quality, [0.6, 0.4], rtol=1e-6)


def test_only_candidates_with_an_overlap_are_taken():
    matches, quality = aligned([[0.5, 0.5, 0.5]], [[0.9, 0.0, 0.2]], [[False, True, True]], top=3)
    np.testing.assert_array_equal(matches, [-1, -1, 0])
    np.testing.assert_allclose(quality, [0.0, 0.0, 0.2], rtol=1e-6)
    matches, quality = aligned(np.zeros([0, 3]), np.zeros([0, 3]))
    np.testing.assert_array_equal(matches, [-1, -1, -1])
    np.testing.assert_array_equal(quality, [0, 0, 0])


def test_the_overlap_of_anchors_counts_by_its_share():
    scores, overlaps = [[1.0, 1.0, 1.0]], [[0.8, 0.6, 0.5]]
    anchors = tf.constant([[0.0, 0.6, 0.9]])
    options = {"top": 2, "beta": 1.0, "anchor_overlaps": anchors, "anchor_share": 0.25}
    matches, quality = aligned(scores, overlaps, **options)
    # 0.6, 0.6, 0.6: the first two; with half of it 0.4, 0.6, 0.7: the last two.
    np.testing.assert_array_equal(matches, [0, 0, -1])
    matches, quality = aligned(scores, overlaps, **{**options, "anchor_share": 0.5})
    np.testing.assert_array_equal(matches, [-1, 0, 0])
    # The quality tells how well predicted boxes fit: 0.6 at most.
    np.testing.assert_allclose(quality, [0.0, 0.6 * 0.6 / 0.7, 0.6], rtol=1e-6)


def aligned_by_loops(scores, overlaps, candidates, top, alpha, beta):
    measure = np.where(candidates, scores**alpha * overlaps**beta, 0.0)
    taken = np.zeros(measure.shape, bool)
    for row in range(len(measure)):
        for index in np.argsort(-measure[row], kind="stable")[:top]:
            taken[row, index] = measure[row, index] > 0
    matches = np.full(measure.shape[1], -1)
    for anchor in range(measure.shape[1]):
        rows = np.flatnonzero(taken[:, anchor])
        if len(rows):
            matches[anchor] = rows[overlaps[rows, anchor].argmax()]
    quality = np.zeros(measure.shape[1])
    for row in range(len(measure)):
        own = np.flatnonzero(matches == row)
        if len(own):
            largest = measure[row, own].max()
            quality[own] = measure[row, own] / largest * overlaps[row, own].max()
    return matches, quality


def test_task_aligned_is_the_same_by_loops():
    rng = np.random.default_rng(1)
    scores, overlaps = rng.random([30, 5, 60]), rng.random([30, 5, 60])
    candidates = rng.random([30, 5, 60]) < 0.3
    scores, overlaps = scores.astype("f4"), overlaps.astype("f4")
    matches, quality = aligned(scores, overlaps, candidates, top=7, alpha=0.5, beta=4.0)
    for image in range(30):
        want, goodness = aligned_by_loops(
            scores[image], overlaps[image], candidates[image], 7, 0.5, 4.0
        )
        np.testing.assert_array_equal(matches[image], want)
        np.testing.assert_allclose(quality[image], goodness, rtol=1e-4)


def test_assignment_is_a_constant_for_the_gradient():
    scores, overlaps = tf.Variable([[0.5, 0.2]]), tf.Variable([[0.5, 0.9]])
    with tf.GradientTape() as tape:
        _, quality = assignment.task_aligned(scores, overlaps, tf.ones([1, 2], tf.bool))
        total = tf.reduce_sum(quality)
    assert tape.gradient(total, [scores, overlaps]) == [None, None]


def test_centres_inside_a_box_and_the_nearest_of_one_that_holds_none():
    found = assignment.centers_inside(
        tf.constant([[0.0, 2.0, 10.0, 17.0], [0.0, 0.0, 2.0, 2.0]]), ANCHORS
    ).numpy()
    # Centres at x 5, 15, 25, 35 with y 5, and 10, 30 with y 10, which is on the border.
    np.testing.assert_array_equal(found[0], [True, True, False, False, False, False])
    np.testing.assert_array_equal(found[1], [True, False, False, False, False, False])
