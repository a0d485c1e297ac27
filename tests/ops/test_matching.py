import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import matching


def run(similarity, valid=None, **settings) -> list:
    valid = None if valid is None else tf.constant(valid)
    return matching.match(tf.constant(similarity, tf.float32), valid, **settings).numpy().tolist()


def test_threshold_is_inclusive():
    similarity = [[0.9, 0.5, 0.49999, 0.0]]
    assert run(similarity) == [0, 0, -1, -1]


def test_best_row_wins_and_ties_go_to_the_first():
    similarity = [[0.6, 0.7, 0.6], [0.8, 0.7, 0.5], [0.7, 0.7, 0.55]]
    assert run(similarity, force_match=False) == [1, 0, 0]


def test_force_match_overrides_the_threshold_and_better_rows():
    # Row 1 is below the threshold everywhere, its best anchor is 0, which row 0 likes better.
    similarity = [[0.6, 0.9, 0.0], [0.3, 0.1, 0.2]]
    assert run(similarity, force_match=False) == [0, 0, -1]
    assert run(similarity) == [1, 0, -1]


def test_lowest_row_wins_a_contested_anchor_and_the_other_gets_none():
    similarity = [[0.2, 0.1, 0.0], [0.4, 0.1, 0.3], [0.45, 0.0, 0.0]]
    assert run(similarity) == [0, -1, -1]


def test_row_without_any_overlap_claims_anchor_zero():
    similarity = [[0.0, 0.0, 0.0], [0.0, 0.8, 0.0]]
    assert run(similarity) == [0, 1, -1]


def test_best_anchor_ties_go_to_the_first():
    assert run([[0.1, 0.3, 0.3]]) == [-1, 0, -1]


def test_ignored_band():
    similarity = [[0.7, 0.5, 0.49, 0.4, 0.39]]
    got = run(similarity, unmatched_threshold=0.4, force_match=False)
    assert got == [0, 0, -2, -2, -1]
    # A forced match overrides the band too.
    assert run([[0.45, 0.1]], unmatched_threshold=0.4) == [0, -1]


def test_no_rows_at_all():
    similarity = tf.zeros([0, 5])
    assert matching.match(similarity).numpy().tolist() == [-1] * 5
    batched = matching.match(tf.zeros([2, 0, 5]), tf.zeros([2, 0], tf.bool))
    assert batched.numpy().tolist() == [[-1] * 5] * 2


def test_padding_wins_nothing_wherever_it_stands():
    similarity = [[0.9, 0.9, 0.9], [0.1, 0.6, 0.2], [0.9, 0.9, 0.9]]
    assert run(similarity, [False, True, False]) == [-1, 1, -1]
    assert run(similarity, [False, False, False]) == [-1, -1, -1]


def test_padded_batch_equals_images_one_by_one():
    rng = np.random.default_rng(3)
    counts = [0, 1, 4, 7]
    padded = rng.uniform(0, 1, (4, 7, 40)).astype(np.float32)
    # Coarse values make many ties.
    padded = np.round(padded * 8) / 8
    valid = np.arange(7) < np.array(counts)[:, None]
    batch = matching.match(tf.constant(padded), tf.constant(valid)).numpy()
    for image, count in enumerate(counts):
        alone = matching.match(tf.constant(padded[image, :count])).numpy()
        np.testing.assert_array_equal(batch[image], alone)


def brute_force(similarity: np.ndarray, threshold: float) -> np.ndarray:
    """Match with loops. Source: docs/reference/ssd_resnet34.md, section 4"""
    rows, anchors = similarity.shape
    result = np.full(anchors, -1)
    for anchor in range(anchors):
        best = max(range(rows), key=lambda row: (similarity[row, anchor], -row))
        if similarity[best, anchor] >= threshold:
            result[anchor] = best
    for row in reversed(range(rows)):
        result[np.argmax(similarity[row])] = row
    return result


@pytest.mark.parametrize("seed", range(5))
def test_against_loops(seed):
    rng = np.random.default_rng(seed)
    similarity = (np.round(rng.uniform(0, 1, (6, 30)) ** 3 * 16) / 16).astype(np.float32)
    np.testing.assert_array_equal(
        matching.match(tf.constant(similarity)), brute_force(similarity, 0.5)
    )


ANCHORS = tf.constant([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]])


def test_targets_by_hand():
    boxes = tf.constant([[0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]])
    classes, codes = matching.assign_targets(
        boxes, tf.constant([7, 0]), ANCHORS, tf.constant([0, 1, -1])
    )
    # Background is 0, so class 0 becomes 1.
    assert classes.numpy().tolist() == [8, 1, 0]
    want = [[10 * -0.125 / 0.5, 0.0, 5 * np.log(0.5), 0.0], [0.0] * 4, [0.0] * 4]
    np.testing.assert_allclose(codes, want, atol=1e-6)
    assert not np.any(codes[2])


def test_targets_of_ignored_anchors_are_zero():
    classes, codes = matching.assign_targets(
        tf.constant([[0.0, 0.0, 1.0, 1.0]]), tf.constant([3]), ANCHORS, tf.constant([-2, 0, -1])
    )
    assert classes.numpy().tolist() == [0, 4, 0]
    assert not np.any(codes.numpy()[[0, 2]])
    assert np.any(codes[1])


def test_targets_of_a_batch_and_of_no_objects():
    boxes = tf.constant([[[0.0, 0.0, 0.4, 0.4]], [[0.5, 0.5, 0.9, 0.9]]])
    matches = tf.constant([[0, -1, -1], [-1, 0, -1]])
    classes, codes = matching.assign_targets(boxes, tf.constant([[1], [2]]), ANCHORS, matches)
    assert classes.numpy().tolist() == [[2, 0, 0], [0, 3, 0]]
    np.testing.assert_allclose(codes[0, 0], box_ops.encode(boxes[0, 0], ANCHORS[0]))
    np.testing.assert_allclose(codes[1, 1], box_ops.encode(boxes[1, 0], ANCHORS[1]))
    classes, codes = matching.assign_targets(
        tf.zeros([0, 4]), tf.zeros([0], tf.int32), ANCHORS, tf.constant([-1, -1, -1])
    )
    assert not np.any(classes) and not np.any(codes)
    assert np.all(np.isfinite(codes))


def test_last_claim_wins():
    similarity = [[0.2, 0.1, 0.0], [0.4, 0.1, 0.3], [0.45, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert run(similarity, last_claim_wins=True) == [3, -1, -1]
    # Copies: the first takes what overlaps enough, the last its best anchor.
    copies = [[0.6, 0.7, 0.55]] * 3
    assert run(copies, last_claim_wins=True) == [0, 2, 0]
    valid = [True, True, True, False]
    assert run(similarity, valid, last_claim_wins=True) == [2, -1, -1]


@pytest.mark.parametrize("seed", range(3))
def test_last_claim_wins_in_batches_and_against_loops(seed):
    rng = np.random.default_rng(seed)
    similarity = (np.round(rng.uniform(0, 1, (2, 6, 12)) ** 3 * 8) / 8).astype(np.float32)
    valid = tf.ones([2, 6], tf.bool)
    batch = matching.match(tf.constant(similarity), valid, last_claim_wins=True).numpy()
    for image in range(2):
        want = matching.match(tf.constant(similarity[image]), force_match=False).numpy()
        for row in range(6):
            want[np.argmax(similarity[image, row])] = row
        np.testing.assert_array_equal(batch[image], want)
        alone = matching.match(tf.constant(similarity[image]), last_claim_wins=True)
        np.testing.assert_array_equal(alone, want)


def test_force_match_by_row():
    similarity = [[0.3, 0.1, 0.0], [0.0, 0.4, 0.2], [0.0, 0.0, 0.9]]
    forced = tf.constant([True, False, False])
    assert run(similarity, force_match=forced) == [0, -1, 2]
    assert run(similarity, [False, True, True], force_match=forced) == [-1, -1, 2]
    batch = matching.match(
        tf.constant([similarity] * 2), force_match=tf.constant([[True, False, False], [True] * 3])
    )
    assert batch.numpy().tolist() == [[0, -1, 2], [0, 1, 2]]


def test_anchors_half_inside_a_region_are_told():
    anchors = np.array(
        [
            [0.0, 0.0, 0.2, 0.2],
            [0.0625, 0.0, 0.1875, 0.2],
            [0.11, 0.0, 0.31, 0.2],
            [0.6, 0.6, 0.8, 0.8],
        ],
        np.float32,
    )
    regions = tf.constant([[[0.0, 0.0, 0.125, 0.5], [0.5, 0.5, 1.0, 1.0]]] * 2)
    valid = tf.constant([[True, False], [False, True]])
    inside = matching.inside_regions(anchors, regions, valid).numpy()
    # Of the second exactly half lies inside, of the third a little.
    assert inside[0].tolist() == [True, True, False, False]
    assert inside[1].tolist() == [False, False, False, True]
