import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import crops
from ssd_centernet.ops import image as image_ops

BOXES = tf.constant([[0.1, 0.1, 0.4, 0.5], [0.6, 0.5, 0.95, 0.98]])


def noise(height, width):
    small = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    return np.kron(small, np.ones((4, 4, 1)))[:height, :width].astype(np.uint8)


@pytest.mark.parametrize("window", [[0, 0, 61, 83], [7, 9, 20, 33], [60, 82, 1, 1], [0, 31, 61, 2]])
def test_decoded_window_is_that_of_the_whole_image(window):
    encoded = tf.io.encode_jpeg(noise(61, 83), quality=60, chroma_downsampling=True)
    y, x, height, width = window
    whole = image_ops.decode_image(encoded)[y : y + height, x : x + width]
    np.testing.assert_array_equal(
        crops.cut(*crops.decode_around(encoded, tf.constant(window))), whole
    )


def test_cut_and_paste():
    image = tf.reshape(tf.range(12), [3, 4, 1])
    part = crops.cut(image, tf.constant([1, 2, 2, 1]))
    np.testing.assert_array_equal(part[..., 0], [[6], [10]])
    canvas = crops.paste(part, tf.constant([0, 1]), tf.constant([3, 3]))
    np.testing.assert_array_equal(canvas[..., 0], [[0, 6, 0], [0, 10, 0], [0, 0, 0]])


def test_mirrored_window_covers_the_same_pixels():
    image = tf.reshape(tf.range(12), [3, 4, 1])
    window = tf.constant([1, 0, 2, 3])
    mirrored = crops.cut(tf.reverse(image, [1]), crops.mirror_window(window, tf.constant(4)))
    np.testing.assert_array_equal(mirrored, tf.reverse(crops.cut(image, window), [1]))


def test_boxes_of_a_frame():
    frame = crops.frame_of(tf.constant([10, 20, 50, 20]), tf.constant([100, 80]))
    np.testing.assert_allclose(frame, [0.1, 0.25, 0.6, 0.5])
    # ymin: 0 is 0.1 before the frame, which is 0.5 tall.
    got = crops.reframe_boxes(tf.constant([[0.0, 0.25, 0.6, 0.75]]), frame)
    np.testing.assert_allclose(got, [[-0.2, 0.0, 1.0, 2.0]], atol=1e-6)


def test_boxes_that_only_touch_the_frame_are_outside():
    frame = tf.constant([0.25, 0.25, 0.75, 0.75])
    boxes = tf.constant(
        [
            [0.0, 0.25, 0.25, 0.75],  # touches from above
            [0.25, 0.75, 0.75, 1.0],  # touches from the right
            [0.0, 0.25, 0.26, 0.75],  # a sliver inside
            [0.0, 0.0, 1.0, 1.0],
        ]
    )
    cut, kept = crops.crop_boxes(boxes, frame)
    np.testing.assert_array_equal(kept, [False, False, True, True])
    np.testing.assert_allclose(cut[2], [0.0, 0.0, 0.02, 1.0], atol=1e-6)
    np.testing.assert_allclose(cut[3], [0.0, 0.0, 1.0, 1.0])


def test_overlap_bound_includes_itself_and_drops_boxes_without_area():
    frame = tf.constant([0.0, 0.0, 0.5, 1.0])
    boxes = tf.constant(
        [
            [0.25, 0.0, 0.75, 1.0],  # exactly half inside
            [0.3125, 0.0, 0.8125, 1.0],  # three eighths inside
            [0.2, 0.3, 0.2, 0.6],  # no area
        ]
    )

    def kept(bound):
        return crops.crop_boxes(boxes, frame, min_overlap=bound)[1].numpy().tolist()

    assert kept(None) == [True, True, True]
    assert kept(0.0) == [True, True, False]
    assert kept(0.5) == [True, False, False]
    assert kept(0.51) == [False, False, False]


def sample(size, boxes, number, **options):
    defaults = {"min_object_covered": 1.0, "aspect_ratios": (0.5, 1.7), "areas": (0.1, 1.0)}
    function = tf.function(
        lambda seed: crops.sample_window(
            tf.constant(size), tf.constant(boxes), seed, **{**defaults, **options}
        )
    )
    return np.stack([function(tf.constant([3, n])) for n in range(number)])


def test_sampled_windows_keep_the_bounds_and_cover_a_box():
    size = np.array([240, 320])
    windows = sample(size.tolist(), BOXES, 60)
    start, extent = windows[:, :2], windows[:, 2:]
    assert (start >= 0).all() and (start + extent <= size).all()
    share = extent.prod(1) / size.prod()
    aspect = extent[:, 1] / extent[:, 0]
    assert (share > 0.09).all() and (aspect > 0.49).all() and (aspect < 1.73).all()
    assert share.min() < 0.5 and share.max() > 0.8  # They do vary.
    pixels = BOXES.numpy() * np.tile(size, 2)
    inside = (pixels[:, None, :2] >= start - 1) & (pixels[:, None, 2:] <= start + extent + 1)
    assert inside.all(2).any(0).all()


def test_sampling_is_decided_by_the_seed():
    np.testing.assert_array_equal(sample([64, 64], BOXES, 5), sample([64, 64], BOXES, 5))
    assert len(np.unique(sample([640, 640], BOXES, 5), axis=0)) == 5


def test_whole_image_where_no_window_can_be():
    # A quarter of a square cannot be a hundred times wider than tall.
    windows = sample([50, 50], BOXES, 3, aspect_ratios=(100.0, 101.0), areas=(0.25, 1.0))
    np.testing.assert_array_equal(windows, [[0, 0, 50, 50]] * 3)


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros([0, 4], np.float32),
        np.array([[0.3, 0.3, 0.3, 0.6]], np.float32),
        np.array([[-0.5, -0.5, 1.5, 1.5]], np.float32),
        np.array([[0.0, 0.0, 1.0, 1.0]], np.float32),
    ],
    ids=["none", "no area", "beyond the image", "all of it"],
)
@pytest.mark.parametrize("size", [[40, 60], [1, 1], [1, 500]], ids=str)
def test_odd_boxes_and_images_can_be_sampled(boxes, size):
    windows = sample(size, boxes, 3, min_object_covered=0.0)
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= size).all()


def test_border_of_square_crops():
    sizes = np.arange(1, 1200, dtype=np.int32)
    want = [
        128 // int(np.clip(2 ** math.ceil(math.log2(256 / size)), 1, 128))
        for size in sizes.tolist()
    ]
    np.testing.assert_array_equal(crops.square_crop_border(tf.constant(sizes)), want)


def test_square_crop_by_hand():
    # Side int(0.9 * 72) = 64 about (41, 14): rows 9..72, of which the last row, 47, is left out;
    # columns -18..45.
    window, offset, square = crops.square_crop(
        tf.constant([48, 72]), tf.constant(0.9), tf.constant([41, 14])
    )
    np.testing.assert_array_equal(window, [9, 0, 38, 46])
    np.testing.assert_array_equal(offset, [0, 18])
    np.testing.assert_array_equal(square, [9, -18, 64, 64])


@pytest.mark.parametrize("size", [[1, 1], [1, 300], [300, 1], [2, 3]], ids=str)
@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_square_crop_of_slivers_fits_its_canvas(size, scale):
    image = tf.ones([*size, 3], tf.uint8)
    for center in ([0, 0], [size[0] // 2, size[1] // 2], size):
        window, offset, square = crops.square_crop(
            tf.constant(size), tf.constant(scale), tf.constant(center)
        )
        canvas = crops.paste(crops.cut(image, window), offset, square[2:])
        assert canvas.shape[0] == canvas.shape[1] == max(int(scale * max(size)), 1)


def test_scaled_crop_by_hand():
    # Twice a frame of 64 x 96 is 128 x 192; 60 x 90 fits as 128 x 192, with 64 x 96 to spare.
    scaled, offset = crops.scaled_crop(
        tf.constant([60, 90]), (64, 96), tf.constant(2.0), tf.constant([0.5, 0.999])
    )
    np.testing.assert_array_equal(scaled, [128, 192])
    np.testing.assert_array_equal(offset, [32, 95])
    scaled, offset = crops.scaled_crop(
        tf.constant([51, 83]), (64, 96), tf.constant(0.5), tf.constant([0.5, 0.5])
    )
    np.testing.assert_array_equal(scaled, [29, 48])  # 51 * 48 / 83 = 29.49
    np.testing.assert_array_equal(offset, [0, 0])


def test_resized_scaled_crop_is_the_whole_picture_and_padding():
    image = tf.constant(noise(30, 40))
    scaled, offset = crops.scaled_crop(
        tf.constant([30, 40]), (32, 32), tf.constant(1.0), tf.zeros([2])
    )
    got = crops.resize_scaled_crop(image, (32, 32), scaled, offset)
    np.testing.assert_allclose(got, image_ops.resize_and_pad(image, (32, 32)), atol=1e-4)
