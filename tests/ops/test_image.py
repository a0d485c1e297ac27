import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.ops import crops
from ssd_centernet.ops import image as image_ops

PHOTOS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "coco_open_mini" / "images"


def encode(image, file_format="JPEG", **options):
    data = io.BytesIO()
    Image.fromarray(image).save(data, file_format, **options)
    return tf.constant(data.getvalue())


def smooth_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.BICUBIC))


def in_dataset(function, *tensors):
    dataset = tf.data.Dataset.from_tensors(tensors).map(lambda *values: function(*values))
    return next(iter(dataset))


def test_legacy_resize_samples_at_multiples_of_the_ratio():
    column = tf.constant([0.0, 10.0, 20.0, 30.0], tf.float32)[:, tf.newaxis, tf.newaxis]
    # 4 rows to 8: source rows 0, 0.5, ..., 3.5; the row below the last one is the last one.
    resized = image_ops.resize_legacy_bilinear(column, (8, 1))[:, 0, 0]
    np.testing.assert_allclose(resized, [0, 5, 10, 15, 20, 25, 30, 30], atol=1e-5)


def test_legacy_resize_takes_batches():
    images = np.stack([smooth_image(20, 30, seed) for seed in range(2)])
    both = image_ops.resize_legacy_bilinear(tf.constant(images), (12, 16))
    assert both.shape == (2, 12, 16, 3) and both.dtype == tf.float32
    np.testing.assert_array_equal(both[1], image_ops.resize_legacy_bilinear(images[1], (12, 16)))


def test_crop_corners_fall_on_corners():
    image = tf.constant(np.arange(5 * 9).reshape(5, 9, 1), tf.float32)
    # Rows 1..3 and columns 2..6 of a 5 x 9 image.
    crop = image_ops.crop_and_resize(image, tf.constant([0.25, 0.25, 0.75, 0.75]), (3, 3))[..., 0]
    np.testing.assert_allclose(crop, [[11, 13, 15], [20, 22, 24], [29, 31, 33]], atol=1e-4)


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.13, 0.2, 0.7, 0.9)])
def test_crop_equals_the_formula(box):
    image = smooth_image(37, 53)
    got = image_ops.crop_and_resize(tf.constant(image), tf.constant(box), (30, 31)).numpy()

    def weights(start, end, size, count):
        position = start * (size - 1) + np.arange(count) * (end - start) * (size - 1) / (count - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))

    rows, columns = weights(box[0], box[2], 37, 30), weights(box[1], box[3], 53, 31)
    want = np.einsum("rh,hwc,kw->rkc", rows, image.astype(np.float64), columns)
    np.testing.assert_allclose(got, want, atol=5e-3)


def decode_and_crop(encoded, box, size):
    """Decode only what a crop needs, as chains do."""
    window, inner = crops.window_around(box, tf.io.extract_jpeg_shape(encoded)[:2])
    pixels, _ = crops.decode_around(encoded, window, margin=0)
    return image_ops.crop_and_resize(pixels, inner, size)


@pytest.mark.parametrize("size", [(96, 128), (61, 45), (17, 33)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_decoding_the_crop_only_equals_decoding_everything(size, subsampling):
    encoded = encode(smooth_image(*size), quality=80, subsampling=subsampling)
    whole = image_ops.decode_image(encoded)
    rng = np.random.default_rng(1)
    for _ in range(8):
        extent = rng.uniform(0.1, 1.0, 2)
        start = rng.uniform(0, 1 - extent)
        box = tf.constant(np.concatenate([start, start + extent]), tf.float32)
        got = decode_and_crop(encoded, box, (40, 40))
        want = image_ops.crop_and_resize(whole, box, (40, 40))
        np.testing.assert_allclose(got, want, atol=0.05)


def test_decoding_the_crop_only_on_photos():
    files = sorted(PHOTOS.glob("*/*.jpg"))[::8]
    if not files:
        pytest.skip("the photos (../shared/data/coco_open_mini) are not here")
    rng = np.random.default_rng(2)
    for path in files:
        encoded = tf.constant(path.read_bytes())
        extent = rng.uniform(0.3, 1.0, 2)
        start = rng.uniform(0, 1 - extent)
        box = tf.constant(np.concatenate([start, start + extent]), tf.float32)
        got = decode_and_crop(encoded, box, (100, 100))
        want = image_ops.crop_and_resize(image_ops.decode_image(encoded), box, (100, 100))
        np.testing.assert_allclose(got, want, atol=0.1, err_msg=path.name)


def test_png_and_grey_images_decode():
    image = smooth_image(20, 30)
    png = encode(image, "PNG")
    np.testing.assert_array_equal(image_ops.decode_image(png), image)
    grey = image_ops.decode_image(encode(image[..., 0]))
    assert grey.shape == (20, 30, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    box = tf.constant([0.1, 0.2, 0.8, 0.9])
    assert decode_and_crop(encode(image[..., 0]), box, (9, 9)).shape == (9, 9, 3)


def test_tiny_images_crop():
    encoded = encode(np.full((1, 1, 3), 200, np.uint8))
    got = decode_and_crop(encoded, tf.constant([0.1, 0.1, 0.6, 0.6]), (4, 4))
    np.testing.assert_allclose(got, np.full((4, 4, 3), 200.0), atol=2.0)


def test_normalize_by_hand():
    pixel = tf.constant([[[0.485, 0.5, 1.0]]])
    got = image_ops.normalize(pixel, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    np.testing.assert_allclose(got, [[[0.0, 0.044 / 0.224, 0.594 / 0.225]]], rtol=1e-5, atol=1e-7)


def test_flip_mirrors_columns():
    np.testing.assert_array_equal(
        image_ops.flip_left_right(tf.constant([[[1], [2], [3]]])), [[[3], [2], [1]]]
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("size", [(96, 96), (50, 131), (33, 64), (7, 400)])
def test_resize_by_gathering_equals_the_kernel_bit_for_bit(size, legacy):
    image = np.random.default_rng(1).integers(0, 256, (2, 264, 131, 3), np.uint8)
    kernel = image_ops.resize_legacy_bilinear if legacy else image_ops.resize_bilinear
    gathered = tf.function(lambda x: image_ops.resize_by_gathering(x, size, legacy=legacy))
    np.testing.assert_array_equal(gathered(image), kernel(image, size))
    padded = image_ops.resize_and_pad(image, size, legacy=legacy)
    portable = image_ops.resize_and_pad(image, size, legacy=legacy, portable=True)
    np.testing.assert_array_equal(portable, padded)
