import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import nms


def plain_nms(boxes, scores, *, score_threshold, iou_threshold, max_detections, max_per_class):
    """Suppress one image with loops. Source: docs/reference/ssd_resnet34.md, section 13"""
    rows = []
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")[:max_per_class]
        left = [a for a in order if scores[a, label] > score_threshold]
        while left:
            best = left.pop(0)
            rows.append((scores[best, label], label, best))
            left = [a for a in left if plain_iou(boxes[best], boxes[a]) < iou_threshold]
    return sorted(rows, key=lambda row: -row[0])[:max_detections]


def plain_iou(a, b):
    one = np.float32
    height = max(one(0), min(a[2], b[2]) - max(a[0], b[0]))
    width = max(one(0), min(a[3], b[3]) - max(a[1], b[1]))
    intersection = height * width
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union if intersection > 0 else one(0)


def random_case(seed, anchors=60, classes=5, images=2):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.1, 0.6, (images, anchors, 2))
    size = rng.uniform(0.2, 0.5, (images, anchors, 2))
    boxes = np.concatenate([low, low + size], axis=-1).astype(np.float32)
    scores = rng.uniform(0, 1, (images, anchors, classes)).astype(np.float32) ** 3
    return boxes, scores


@pytest.mark.parametrize(
    "settings",
    [
        {"max_detections": 200, "max_per_class": 200},
        {"max_detections": 7, "max_per_class": 200},
        {"max_detections": 200, "max_per_class": 6},  # more candidates than may enter
        {"max_detections": 200, "max_per_class": 59, "score_threshold": 0.0},
        {"max_detections": 50, "max_per_class": 20, "iou_threshold": 0.2},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed, settings):
    settings = {"score_threshold": 0.05, "iou_threshold": 0.5, **settings}
    boxes, scores = random_case(seed)
    found = nms.multiclass_nms(tf.constant(boxes), tf.constant(scores), **settings)
    for image in range(2):
        want = plain_nms(boxes[image], scores[image], **settings)
        count = int(found["count"][image])
        assert count == len(want)
        np.testing.assert_allclose(found["scores"][image, :count], [row[0] for row in want])
        assert found["classes"][image, :count].numpy().tolist() == [row[1] for row in want]
        np.testing.assert_array_equal(
            found["boxes"][image, :count], boxes[image][[row[2] for row in want]]
        )
        assert not np.any(found["boxes"][image, count:])
        assert not np.any(found["scores"][image, count:])


def run(boxes, scores, **settings):
    found = nms.multiclass_nms(
        tf.constant([boxes], tf.float32), tf.constant([scores], tf.float32), **settings
    )
    count = int(found["count"][0])
    scores = [round(float(score), 6) for score in found["scores"][0, :count]]
    return list(zip(scores, found["classes"][0, :count].numpy().tolist(), strict=True))


def test_iou_of_exactly_the_threshold_suppresses():
    # [0, 1] x [0, 2] and its half: IoU is 0.5 to the bit.
    whole, half = [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0]
    assert run([whole, half], [[0.9], [0.8]], iou_threshold=0.5) == [(0.9, 0)]
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert run([whole, half], [[0.9], [0.8]], iou_threshold=above) == [(0.9, 0), (0.8, 0)]


def test_score_of_exactly_the_threshold_is_dropped():
    boxes = [[0.0, 0.0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]
    assert run(boxes, [[0.25], [0.5]], score_threshold=0.25) == [(0.5, 0)]


def test_classes_do_not_suppress_each_other_and_boxes_are_not_clipped():
    box = [-0.5, -0.5, 1.5, 1.5]
    found = nms.multiclass_nms(tf.constant([[box, box]]), tf.constant([[[0.9, 0.3], [0.8, 0.7]]]))
    assert int(found["count"][0]) == 2
    assert found["classes"][0, :2].numpy().tolist() == [0, 1]
    np.testing.assert_allclose(found["scores"][0, :2], [0.9, 0.7])
    np.testing.assert_array_equal(found["boxes"][0, 0], box)


def test_suppressed_boxes_suppress_nothing():
    # The second is suppressed by the first, so the third, which overlaps only the second, stays.
    boxes = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.3, 1.0, 1.3], [0.0, 0.6, 1.0, 1.6]]
    assert run(boxes, [[0.9], [0.8], [0.7]]) == [(0.9, 0), (0.7, 0)]


def test_candidates_beyond_the_limit_never_enter():
    # The two best overlap; the third is free, but only two of a class may enter.
    boxes = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [5.0, 5.0, 6.0, 6.0]]
    scores = [[0.9], [0.8], [0.7]]
    assert run(boxes, scores, max_per_class=2) == [(0.9, 0)]
    assert run(boxes, scores, max_per_class=3) == [(0.9, 0), (0.7, 0)]


def test_ties_at_the_limit_go_to_the_lower_index():
    boxes = [[float(i), 0.0, i + 1.0, 1.0] for i in range(4)]
    found = nms.multiclass_nms(
        tf.constant([boxes]), tf.constant([[[0.5], [0.9], [0.5], [0.5]]]), max_per_class=2
    )
    assert int(found["count"][0]) == 2
    np.testing.assert_array_equal(found["boxes"][0, :2, 0], [1.0, 0.0])


def test_zero_area_boxes_do_not_crash_nor_give_nan():
    point = [0.5, 0.5, 0.5, 0.5]
    found = nms.multiclass_nms(tf.constant([[point, point]]), tf.constant([[[0.9], [0.8]]]))
    assert np.all(np.isfinite(found["boxes"])) and np.all(np.isfinite(found["scores"]))


def test_nothing_above_the_threshold():
    boxes, scores = random_case(0)
    found = nms.multiclass_nms(tf.constant(boxes), tf.constant(scores * 0.01))
    assert found["count"].numpy().tolist() == [0, 0]
    assert found["boxes"].shape == (2, 200, 4)
    assert not np.any(found["boxes"]) and not np.any(found["scores"])


def test_an_overlap_at_the_threshold_suppresses_only_where_inclusive():
    # Intersection 1, union 2.
    boxes = tf.constant([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 1.0]]])
    scores = tf.constant([[[0.9], [0.8]]])
    for inclusive, count in ((True, 1), (False, 2)):
        found = nms.multiclass_nms(boxes, scores, iou_threshold=0.5, inclusive=inclusive)
        assert int(found["count"][0]) == count
    found = nms.multiclass_nms(boxes, scores, iou_threshold=0.49, inclusive=False)
    assert int(found["count"][0]) == 1


def test_without_a_bound_every_candidate_enters():
    boxes, scores = random_case(4, anchors=90, classes=2)
    settings = {"score_threshold": 0.0, "iou_threshold": 0.05, "max_detections": 12}
    found = nms.multiclass_nms(
        tf.constant(boxes), tf.constant(scores), max_per_class=None, **settings
    )
    for image in range(2):
        want = plain_nms(boxes[image], scores[image], max_per_class=90, **settings)
        count = int(found["count"][image])
        np.testing.assert_allclose(found["scores"][image, :count], [row[0] for row in want])
        few = plain_nms(boxes[image], scores[image], max_per_class=12, **settings)
        assert [row[0] for row in few] != [row[0] for row in want]


def test_best_pairs_are_ordered_by_score_class_and_anchor():
    scores = tf.constant([[[0.1, 0.5], [0.5, 0.2], [0.5, 0.5]]])
    values, anchors, classes = nms.best_pairs(scores, 4)
    np.testing.assert_allclose(values, [[0.5] * 4])
    assert classes.numpy().tolist() == [[0, 0, 1, 1]]
    assert anchors.numpy().tolist() == [[1, 2, 0, 2]]
    assert nms.best_pairs(scores, 100)[0].shape == (1, 6)


def greedy(boxes, classes, candidates, **settings) -> list[list[int]]:
    settings = {"iou_threshold": 0.5, "max_detections": 4, "max_per_class": 9, **settings}
    positions, count = nms.greedy_nms(
        tf.constant(boxes, tf.float32),
        tf.constant(classes),
        tf.constant(candidates),
        num_classes=2,
        **settings,
    )
    assert positions.shape[1] == settings["max_detections"]
    return [row[:n].tolist() for row, n in zip(positions.numpy(), count.numpy(), strict=True)]


# Box 1 is inside of box 0 with an IoU of exactly 0.5; box 3 lies apart.
GREEDY_BOXES = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.9], [2, 2, 3, 3]]


def test_greedy_suppression_by_hand():
    boxes = [GREEDY_BOXES] * 4
    classes = [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0] * 4]
    candidates = [[True] * 4, [True] * 4, [False, True, True, True], [False] * 4]
    # An IoU of exactly the threshold does not suppress; box 1 and 2 have one of 0.56.
    assert greedy(boxes, classes, candidates) == [[0, 1, 3], [0, 1, 2, 3], [1, 3], []]
    assert greedy(boxes, classes, candidates, max_detections=1) == [[0], [0], [1], []]


def test_what_is_not_counted_suppresses_and_fills_its_class():
    counted = tf.constant([[False, True, True, True]])
    candidates = [[True] * 4]
    assert greedy([GREEDY_BOXES], [[0] * 4], candidates, counted=counted) == [[1, 3]]
    settings = {"counted": counted, "max_per_class": 2}
    assert greedy([GREEDY_BOXES], [[0] * 4], candidates, **settings) == [[1]]
    assert greedy([GREEDY_BOXES], [[0, 0, 0, 1]], candidates, **settings) == [[1, 3]]


def test_candidates_are_found_in_their_order():
    background = tf.constant([[0.99, 0.2, 0.95, 0.4, 0.5], [1.0, 0.99, 0.98, 0.97, 0.96]])
    counts = nms.count_candidates(background, 0.05)
    # 0.95 leaves exactly the threshold: rounding might have hidden a candidate.
    assert counts.numpy().tolist() == [[0, 1, 2, 3, 4], [0] * 5]
    indices, valid = nms.first_candidates(counts, 3)
    assert indices.numpy().tolist() == [[1, 2, 3], [0, 0, 0]]
    assert valid.numpy().tolist() == [[True] * 3, [False] * 3]
    indices, valid = nms.first_candidates(counts, 5)
    assert indices.numpy().tolist() == [[1, 2, 3, 4, 0], [0] * 5]
    assert valid.numpy().tolist() == [[True] * 4 + [False], [False] * 5]
    assert indices.dtype == tf.int32


def test_all_anchors_may_be_candidates():
    indices, valid = nms.first_candidates(nms.count_candidates(tf.ones([2, 5]), 0.0), 5)
    assert indices.numpy().tolist() == [[0, 1, 2, 3, 4]] * 2 and valid.numpy().all()


@pytest.mark.parametrize(
    ("images", "settings"),
    [
        (2, {}),
        (1, {"max_detections": 7}),
        (2, {"max_entering": 4}),
        (2, {"max_kept": 3}),
        (2, {"max_kept": 3, "counted": True, "score_threshold": 0.2}),
        (1, {"max_detections": 400, "iou_threshold": 0.1}),
    ],
)
def test_suppression_of_fixed_shape_is_the_greedy_one(images, settings):
    boxes, scores = random_case(5, anchors=50, classes=3, images=images)
    best, indices, classes = nms.best_pairs(tf.constant(scores), 120)
    boxes = tf.gather(tf.constant(boxes), indices, batch_dims=1)
    settings = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 60} | settings
    if settings.pop("counted", False):
        settings["counted"] = boxes[..., 0] > 0.1
    positions, count = nms.fixed_shape_nms(boxes, best, classes, **settings)
    assert positions.shape == (images, settings["max_detections"])
    candidates = best > settings.pop("score_threshold")
    entering = settings.pop("max_entering", None)
    if entering is not None:
        rank = np.stack([[(c[:i] == c[i]).sum() for i in range(120)] for c in classes.numpy()])
        candidates &= rank < entering
    settings["max_per_class"] = settings.pop("max_kept", None) or 120
    want, want_count = nms.greedy_nms(boxes, classes, candidates, num_classes=3, **settings)
    assert count.numpy().tolist() == want_count.numpy().tolist() and count[0] > 2
    for image in range(images):
        number = int(count[image])
        np.testing.assert_array_equal(positions[image, :number], want[image, :number])


def test_thresholds_may_be_tensors():
    assert nms.just_below(0.5) == float(nms.just_below(tf.constant(0.5))) == np.float32(0.49999997)
    boxes, scores = random_case(1)
    limits = {"score_threshold": 0.2, "iou_threshold": 0.3}
    want = nms.multiclass_nms(tf.constant(boxes), tf.constant(scores), **limits)
    limits = {key: tf.constant(value) for key, value in limits.items()}
    found = nms.multiclass_nms(tf.constant(boxes), tf.constant(scores), **limits)
    for key, value in want.items():
        np.testing.assert_array_equal(found[key], value)
