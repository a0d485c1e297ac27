import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.augment import common
from ssd_centernet.data.augment.centernet import CropPadAugment, SquareCropAugment
from ssd_centernet.data.loading import preprocess_example
from ssd_centernet.layers.preprocessing import Preprocessing
from tests.data import chains
from tests.data.chains import BOXES, make_example, run_many

SEED = tf.constant([5, 9], tf.int64)
NO_MEAN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
PLAIN = {**NO_MEAN, "jitter": False, "compiled": False}
OFF_A = {"flip_probability": 0.0, "jitter": False, "square_crop": False, "scales": (1.0, 1.0)}
OFF_B = {"flip_probability": 0.0, "jitter": False, "crop_probability": 0.0, "max_padding": 0}
BOTH_FORMS = pytest.mark.usefixtures("form")
BOTH = pytest.mark.parametrize("kind", [SquareCropAugment, CropPadAugment])


@pytest.mark.parametrize(
    ("kind", "off", "resize"),
    [(SquareCropAugment, OFF_A, "bilinear"), (CropPadAugment, OFF_B, "legacy_bilinear")],
)
@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=str)
@BOTH_FORMS
def test_without_augmentation_it_is_the_evaluation_path(kind, off, resize, size):
    chain = kind(size, **off)
    settings = {key: getattr(chain, key) for key in ("mean", "std", "scale", "channels")}
    preprocess = Preprocessing(size, resize=resize, keep_aspect=True, **settings)
    example = make_example(encoding="JPEG", height=61, width=83)
    want = preprocess_example(example, preprocess)
    got = chain(example, SEED)
    np.testing.assert_allclose(got["image"], want["image"], atol=1e-4)
    np.testing.assert_allclose(got["boxes"], want["boxes"], atol=1e-6)
    np.testing.assert_allclose(got["extent"], want["extent"], atol=1e-6)
    assert not np.allclose(got["extent"], 1.0) and "encoded" not in got


@BOTH
@BOTH_FORMS
def test_channels_are_bgr_and_padding_is_black_before_normalisation(kind):
    chain = kind((8, 8), **(OFF_A if kind is SquareCropAugment else OFF_B))
    image = np.full((4, 8, 3), (10, 20, 30), np.uint8)
    got = chain(make_example(image=image), SEED)["image"].numpy()
    mean, std = np.array(chain.mean), np.array(chain.std)
    np.testing.assert_allclose(got[0, 0], ([30, 20, 10] - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(got[7, 7], -mean / std, rtol=1e-5)


@pytest.mark.parametrize(
    "chain",
    [
        SquareCropAugment((96, 96), **PLAIN),
        SquareCropAugment((96, 128), **PLAIN),
        SquareCropAugment((96, 96), square_crop=False, **PLAIN),
        CropPadAugment((96, 96), **PLAIN),
        CropPadAugment((96, 128), max_padding=50, **PLAIN),
    ],
    ids=["square", "square, wide", "scaled", "pad", "pad, wide"],
)
@BOTH_FORMS
def test_boxes_lie_on_their_objects(chain):
    # The window of a square is a pixel short where its side is odd.
    chains.check_boxes_lie_on_their_objects(chain, number=16, tolerance=1.9)


def test_draws_of_squares():
    """Eight sides equally often, centres up to the border on both sides, half of all mirrored."""
    box = np.array([[0.45, 0.45, 0.55, 0.55]], np.float32)
    chain = SquareCropAugment((2, 2), **PLAIN)
    boxes = run_many(chain, make_example(box, 200, 200), 800)["boxes"][:, 0]
    sides = np.round(20 / (boxes[:, 2] - boxes[:, 0]), 1)
    values, counts = np.unique(sides, return_counts=True)
    np.testing.assert_allclose(values, [120, 140, 160, 180, 200, 220, 240, 260], atol=1.1)
    assert counts.min() > 60 and counts.max() < 140  # 100 each, 9 is a standard deviation.
    for axis in range(2):
        # The crop begins at centre - side // 2; the box at 90 of 200 pixels.
        start = 90 - boxes[:, axis] * sides
        centers = np.round(start + sides // 2)
        assert centers.min() == 64 and centers.max() == 136  # Border 64.
        assert abs(centers.mean() - 100) < 3
        assert len(np.unique(centers)) > 65
    flips = run_many(chain, make_example([[0.4, 0.4, 0.6, 0.5]], 200, 200), 400)["boxes"][:, 0]
    # The middle of the crop is known from one seed to the next only by the crop's own draws.
    unflipped = SquareCropAugment((2, 2), flip_probability=0.0, **PLAIN)
    same = run_many(unflipped, make_example([[0.4, 0.4, 0.6, 0.5]], 200, 200), 400)["boxes"][:, 0]
    mirrored = ~np.isclose(flips[:, 1], same[:, 1], atol=1e-4)
    assert 160 < mirrored.sum() < 240


def test_draws_of_scales_without_squares():
    box = np.array([[0.5, 0.5, 0.51, 0.51]], np.float32)
    settings = {"square_crop": False, "flip_probability": 0.0, **PLAIN}
    chain = SquareCropAugment((100, 100), scales=(0.5, 2.0), **settings)
    got = run_many(chain, make_example(box, 20, 20), 200)
    boxes = got["boxes"][:, 0]
    seen = (boxes[:, 2:] - boxes[:, :2])[:, 0] / 0.01
    seen = seen[(boxes > 0).all(1) & (boxes < 1).all(1)]
    assert seen.min() > 0.48 and seen.max() < 2.02 and seen.min() < 0.6 and seen.max() > 1.85
    # Small ones leave padding, which the extent tells.
    shares = got["extent"]
    assert shares.min() > 0.49 and shares.max() == 1.0
    assert 0.2 < (shares[:, 0] < 1).mean() < 0.47  # A third of the factors are below 1.


def test_draws_of_crops_and_paddings():
    box = np.array([[0.49, 0.49, 0.51, 0.51]], np.float32)
    plain = {**PLAIN, "flip_probability": 0.0}
    chain = CropPadAugment((100, 100), max_padding=0, **plain)
    boxes = run_many(chain, make_example(box, 100, 100), 400)["boxes"][:, 0]
    whole = np.isclose(boxes, box, atol=1e-6).all(1)
    assert 65 < whole.sum() < 135  # A quarter; 8.7 is a standard deviation.
    chain = CropPadAugment((100, 100), crop_probability=0.0, **plain)
    got = run_many(chain, make_example(box, 100, 100), 400)
    height, width = ((got["boxes"][:, 0, 2:] - got["boxes"][:, 0, :2]) * 100).T
    np.testing.assert_allclose(height, width, rtol=0.05)
    canvas = np.round(2 / np.minimum(height, width) * 100)  # The longer side, in pixels.
    assert canvas.min() >= 99 and 290 < canvas.max() <= 303
    assert 220 < canvas.mean() < 246  # 100 + two thirds of 200.
    # The picture may lie anywhere on the canvas.
    assert (got["extent"] > 0.3).all() and (got["extent"].max(1) == 1.0).all()
    offset = got["boxes"][:, 0, :2]
    assert offset.min() < 0.25 and offset.max() > 0.7


@BOTH
@BOTH_FORMS
def test_same_seed_same_result_and_every_source_of_pixels(kind):
    chain = kind((32, 32), compiled=False)
    wanted = chain(make_example(), SEED)
    got = chain(make_example(encoding="PNG"), SEED)
    for key in ("image", "boxes", "classes", "extent"):
        np.testing.assert_array_equal(got[key], wanted[key])
    encoded = make_example(encoding="JPEG", height=61, width=83)
    decoded = {**encoded, "image": tf.io.decode_jpeg(encoded["encoded"])}
    del decoded["encoded"]
    images = []
    for number in range(4):
        seed = tf.constant([0, number], tf.int64)
        images.append(chain(encoded, seed)["image"].numpy())
        np.testing.assert_array_equal(images[-1], chain(decoded, seed)["image"])
    assert not np.allclose(images[0], images[1])


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 2), (20, 30), (500, 400)], ids=str)
@pytest.mark.parametrize("count", [0, 2])
@BOTH_FORMS
def test_odd_images(kind, size, count):
    chain = kind((16, 24), compiled=False)
    got = run_many(chain, make_example(BOXES[:count], *size), 3)
    assert got["image"].shape == (3, 16, 24, 3) and np.isfinite(got["image"]).all()
    assert (got["extent"] > 0).all() and (got["extent"] <= 1).all()


@BOTH
@BOTH_FORMS
def test_fields_follow_their_boxes_and_boxes_at_the_border_stay_inside(kind):
    corners = [[0.0, 0.0, 0.05, 0.05], [0.95, 0.95, 1.0, 1.0]]
    boxes = [[0.45, 0.45, 0.55, 0.55], *corners, [0.0, 0.0, 1.0, 1.0]]
    chain = kind((8, 8), **PLAIN)
    example = {**make_example(boxes, 300, 200), "is_crowd": tf.ones([4], tf.bool)}
    counts = set()
    for number in range(12):
        got = chain(example, tf.constant([1, number], tf.int64))
        rows = got["classes"].numpy()
        np.testing.assert_array_equal(got["area"], rows * 10.0)
        assert got["is_crowd"].numpy().all() and len(got["is_crowd"]) == len(rows)
        values, extent = got["boxes"].numpy(), np.tile(got["extent"], 2)
        assert (values >= 0).all() and (values <= extent + 1e-6).all()
        assert (values[:, 2:] > values[:, :2]).all()
        counts.add(len(rows))
    assert len(counts) > 1


@pytest.mark.parametrize(
    "chain",
    [
        SquareCropAugment((16, 24), compiled=False),
        SquareCropAugment((16, 24), square_crop=False, **PLAIN),
        CropPadAugment((16, 24), compiled=False),
    ],
    ids=["square", "scaled", "pad"],
)
@BOTH_FORMS
def test_shapes_are_static(chain):
    shapes = chains.traced_shapes(chain)
    assert shapes["image"] == (16, 24, 3) and shapes["extent"] == (2,)
    assert shapes["boxes"].as_list() == [None, 4] and shapes["area"].rank == 1


def test_boxes_without_area_go_with_squares():
    boxes = [[0.3, 0.3, 0.3, 0.6], [0.3, 0.3, 0.4, 0.6]]
    got = SquareCropAugment((8, 8), **{**PLAIN, **OFF_A})(make_example(boxes), SEED)
    np.testing.assert_array_equal(got["classes"], [1])


def tf_image_jitter(image, hue, contrast, saturation, brightness, clip_each):
    def clip(values):
        return tf.clip_by_value(values, 0.0, 1.0) if clip_each else values

    image = clip(tf.image.adjust_hue(tf.cast(image, tf.float32) / 255.0, hue))
    image = clip(tf.image.adjust_contrast(image, contrast))
    image = clip(tf.image.adjust_saturation(image, saturation))
    return tf.clip_by_value(image + brightness, 0.0, 1.0) * 255.0


@pytest.mark.parametrize("clip_each", [True, False])
def test_jitter_is_that_of_tf_image(clip_each):
    jitter = common.HueFirstJitter(clip_each=clip_each)  # Compiled, and two lengths.
    for size in ((37, 53), (160, 120)):
        image = tf.constant(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
        for draws in ((0.0, 0.999, 0.999, 0.999), (0.999, 0.0, 0.2, 0.1)):
            hue, contrast, saturation, brightness = (
                low + (high - low) * draw
                for (low, high), draw in zip(
                    ((-0.02, 0.02), (0.8, 1.25), (0.8, 1.25), (-0.2, 0.2)), draws, strict=True
                )
            )
            want = tf_image_jitter(image, hue, contrast, saturation, brightness, clip_each)
            np.testing.assert_allclose(jitter(image, tf.constant(draws)), want, atol=2e-3)


@BOTH_FORMS
def test_contrast_is_of_the_whole_image_whatever_is_cut_out():
    """A grey left half stays what the mean of both halves makes of it."""
    image = np.full((64, 64, 3), 100, np.uint8)
    image[:, 32:] = 200
    settings = {"hue": 0.0, "contrast": (0.5, 0.5), "saturation": (1.0, 1.0), "brightness": 0.0}
    chain = SquareCropAugment((32, 32), compiled=False, **settings, **NO_MEAN)
    for number in range(4):
        got = chain(make_example(image=image), tf.constant([0, number], tf.int64))["image"].numpy()
        values = np.unique(got.round(2))
        assert 125.0 in values or 175.0 in values
        assert values.max() < 175.01


def test_lengths_of_pixel_lists():
    for count, length in ((1, 16384), (16384, 16384), (16385, 24576), (24577, 32768)):
        assert common._filled_length(tf.constant(count)) == length
    ratio = [float(common._filled_length(tf.constant(n)) / n) for n in range(20000, 10**6, 9973)]
    assert min(ratio) >= 1 and max(ratio) < 1.5


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SquareCropAugment, {"flip_probability": -0.1}, "SquareCropAugment.flip_probability"),
        (CropPadAugment, {"crop_probability": 2.0}, "CropPadAugment.crop_probability is 2.0"),
        (CropPadAugment, {"channels": "rgb"}, "channels must be 'RGB' or 'BGR'"),
        (SquareCropAugment, {"image_size": 512}, "image_size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
