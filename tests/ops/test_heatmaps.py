import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import heatmaps


def all_distances(height: float, width: float, overlap: float) -> list[float]:
    """The reference's three, in float64."""
    total, product = height + width, height * width
    coefficients = (
        (1.0, -total, product * (1 - overlap) / (1 + overlap)),
        (4.0, -2 * total, (1 - overlap) * product),
        (4 * overlap, 2 * overlap * total, (overlap - 1) * product),
    )
    return [(-b + np.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in coefficients]


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.5, 0.7, 0.95])
def test_radius_is_the_smallest_of_the_three(overlap):
    rng = np.random.default_rng(0)
    heights, widths = rng.uniform(0.1, 128, (2, 200)).astype(np.float32)
    want = [min(all_distances(h, w, overlap)) for h, w in zip(heights, widths, strict=True)]
    got = heatmaps.gaussian_radius(tf.constant(heights), tf.constant(widths), overlap)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_radius_and_sigma_of_a_square_by_hand():
    # o S = 14, o^2 S^2 + 4 o (1 - o) P = 196 + 84: a radius of sqrt(280) - 14 = 2.73.
    ten = tf.constant([10.0, 0.0])
    np.testing.assert_allclose(heatmaps.gaussian_radius(ten, ten), [np.sqrt(280) - 14, 0], 1e-5)
    np.testing.assert_allclose(heatmaps.gaussian_sigma(ten, ten), [5 / 6, 1 / 6], rtol=1e-6)


def test_center_targets_by_hand():
    boxes = tf.constant([[1.0, 2.0, 4.0, 7.0], [0.0, 0.0, 8.0, 10.0], [8.0, 10.0, 8.0, 10.0]])
    cells, offsets, sizes = heatmaps.center_targets(boxes, (8, 10))
    assert cells.numpy().tolist() == [[2, 4], [4, 5], [7, 9]]
    assert offsets.numpy().tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 1.0]]
    assert sizes.numpy().tolist() == [[3.0, 5.0], [8.0, 10.0], [0.0, 0.0]]


def heatmap_of(cells, sigmas, classes, weights=None, num_classes=3, size=(6, 8)) -> np.ndarray:
    weights = np.ones(np.shape(sigmas)) if weights is None else weights
    return heatmaps.gaussian_heatmap(
        tf.constant(cells, tf.int32),
        tf.constant(sigmas, tf.float32),
        tf.constant(classes, tf.int32),
        tf.constant(weights, tf.float32),
        num_classes=num_classes,
        output_size=size,
    ).numpy()


def test_heatmap_equals_a_loop_over_boxes():
    rng = np.random.default_rng(1)
    cells = np.stack([rng.integers(0, 6, (2, 9)), rng.integers(0, 8, (2, 9))], axis=-1)
    sigmas, classes = rng.uniform(0.2, 2.0, (2, 9)), rng.integers(0, 3, (2, 9))
    weights = rng.choice([0.0, 0.5, 1.0], (2, 9))
    want = np.zeros((2, 6, 8, 3))
    rows, columns = np.mgrid[:6, :8]
    for image in range(2):
        for (y, x), sigma, label, weight in zip(
            cells[image], sigmas[image], classes[image], weights[image], strict=True
        ):
            peak = weight * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
            want[image, ..., label] = np.maximum(want[image, ..., label], peak)
    np.testing.assert_allclose(heatmap_of(cells, sigmas, classes, weights), want, atol=1e-6)


def test_peaks_are_exactly_one_and_shared_cells_collapse():
    cells = [[[2, 3], [2, 3], [5, 7], [0, 0]]]
    heatmap = heatmap_of(cells, [[0.7, 2.0, 1 / 6, 1.0]], [[1, 1, 1, 2]], [[1, 1, 1, 0]])
    assert np.argwhere(heatmap == 1.0).tolist() == [[0, 2, 3, 1], [0, 5, 7, 1]]
    # The wider of the two decides around the cell.
    assert heatmap[0, 2, 4, 1] == pytest.approx(np.exp(-1 / 8))
    assert not heatmap[..., 0].any() and not heatmap[..., 2].any()


def test_heatmap_of_no_box_is_zero():
    assert not heatmap_of(np.zeros((1, 0, 2)), np.zeros((1, 0)), np.zeros((1, 0))).any()


def test_cells_inside_counts_partly_covered_cells():
    inside = heatmaps.cells_inside(
        tf.constant([[90 / 96, 1.0], [0.5, 81 / 96]]), (96, 96), (24, 24)
    )
    # 90 pixels reach into the 23rd row of 4; 81 into the 21st column.
    assert inside[0].numpy().all(axis=1).tolist() == [True] * 23 + [False]
    assert inside[1, 0].numpy().tolist() == [True] * 21 + [False] * 3
    assert inside[1].numpy().any(axis=1).sum() == 12


def test_cells_inside_does_not_round_a_share_up():
    for pixels in range(4, 301, 4):
        extent = tf.constant([np.float32(pixels) / np.float32(300), 1.0], tf.float32)
        inside = heatmaps.cells_inside(extent, (300, 300), (75, 75)).numpy()
        assert inside[:, 0].sum() == pixels // 4


def test_cells_in_regions_go_by_the_middle():
    regions = tf.constant([[0.5, 1.0, 2.5, 3.0], [0.0, 0.0, 9.0, 9.0], [3.4, 0.0, 4.0, 1.0]])
    inside = heatmaps.cells_in_regions(regions, tf.constant([True, False, True]), (4, 5)).numpy()
    assert np.argwhere(inside).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [3, 0]]


def test_all_cells_of_a_plateau_are_peaks():
    scores = np.zeros((1, 4, 5, 2), np.float32)
    scores[0, 0, 0, 0] = scores[0, 0, 1, 0] = 0.5
    scores[0, 1, 1, 0] = 0.5 - 5e-7
    scores[0, 1, 0, 0] = 0.5 - 5e-6
    scores[0, 0, 1, 1] = 0.4
    kept = heatmaps.keep_peaks(tf.constant(scores)).numpy()
    places = [tuple(place) for place in np.argwhere(kept[0] > 0)]
    assert places == [(0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 0)]
    np.testing.assert_array_equal(kept[kept > 0], scores[0][tuple(np.transpose(places))])


def test_top_peaks_take_ties_by_row_column_class():
    scores = np.zeros((2, 2, 3, 2), np.float32)
    scores[0, 1, 2, 1] = 0.9
    scores[0, 1, 0, 1] = scores[0, 0, 2, 0] = scores[0, 0, 2, 1] = 0.5
    best, cells, classes = heatmaps.top_peaks(tf.constant(scores), 6)
    np.testing.assert_allclose(best[0], [0.9, 0.5, 0.5, 0.5, 0, 0])
    assert cells[0].numpy().tolist() == [[1, 2], [0, 2], [0, 2], [1, 0], [0, 0], [0, 0]]
    assert classes[0].numpy().tolist() == [1, 0, 1, 1, 0, 1]
    assert not best[1].numpy().any()


def test_boxes_are_clipped_to_the_map_and_never_inverted():
    boxes = heatmaps.decode_boxes(
        tf.constant([[1, 1], [3, 0], [2, 2]]),
        tf.constant([[0.5, 0.25], [0.9, 0.0], [0.0, 0.0]]),
        tf.constant([[1.0, 0.5], [4.0, 4.0], [-3.0, 2.0]]),
        (4, 4),
    )
    want = [[1, 1, 2, 1.5], [1.9, 0, 4, 2], [2, 1, 2, 3]]
    np.testing.assert_allclose(boxes, want, atol=1e-6)


def test_decoding_inverts_the_targets():
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 12, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 4, (30, 2))], axis=-1).astype(np.float32)
    targets = heatmaps.center_targets(tf.constant(boxes), (16, 16))
    np.testing.assert_allclose(heatmaps.decode_boxes(*targets, (16, 16)), boxes, atol=1e-5)


def test_gather_cells():
    maps = tf.reshape(tf.range(2 * 3 * 4 * 2, dtype=tf.float32), [2, 3, 4, 2])
    got = heatmaps.gather_cells(maps, tf.constant([[[2, 3], [0, 1]], [[1, 0], [1, 0]]]))
    want = [[maps[0, 2, 3], maps[0, 0, 1]], [maps[1, 1, 0]] * 2]
    np.testing.assert_array_equal(got, np.array(want))
