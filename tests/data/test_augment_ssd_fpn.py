import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.augment.ssd_fpn import SSDFPNAugment
from ssd_centernet.data.loading import preprocess_example
from ssd_centernet.layers.preprocessing import Preprocessing
from tests.data.chains import (
    BOXES,
    check_boxes_lie_on_their_objects,
    make_example,
    run_many,
    traced_shapes,
)

PLAIN = {"mean": (0.0, 0.0, 0.0), "compiled": False}
SEED = tf.constant([5, 9], tf.int64)

BOTH_FORMS = pytest.mark.usefixtures("form")


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
@BOTH_FORMS
def test_without_augmentation_it_is_the_evaluation_path(encoding):
    chain = SSDFPNAugment((64, 96), flip_probability=0.0, crop=False)
    preprocess = Preprocessing((64, 96), mean=chain.mean, std=chain.std, scale=chain.scale)
    example = make_example(encoding=encoding)
    want = preprocess_example(example, preprocess)
    got = chain(example, SEED)
    np.testing.assert_allclose(got["image"], want["image"], atol=1e-4)
    np.testing.assert_array_equal(got["boxes"], want["boxes"])
    np.testing.assert_array_equal(got["is_crowd"], example["is_crowd"])
    assert "encoded" not in got and "extent" not in got


@BOTH_FORMS
def test_mean_is_subtracted_and_nothing_else():
    chain = SSDFPNAugment((4, 4), flip_probability=0.0, crop=False)
    image = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    got = chain(make_example(image=image), SEED)["image"]
    np.testing.assert_allclose(got[0, 0], [10 - 123.68, 20 - 116.779, 30 - 103.939], rtol=1e-6)


@BOTH_FORMS
def test_boxes_lie_on_their_objects():
    chain = SSDFPNAugment((100, 100), **PLAIN)
    check_boxes_lie_on_their_objects(chain, number=16, tolerance=1.7)


def test_draws():
    """Windows keep their bounds, half of the images are mirrored, and seeds tell them apart."""
    box = np.array([[0.49, 0.4, 0.51, 0.42]], np.float32)
    got = run_many(SSDFPNAugment((2, 2), **PLAIN), make_example(box, 300, 400), 400)
    boxes = got["boxes"][:, 0]
    boxes = boxes[~np.isnan(boxes).any(1)]
    share = 0.02 / (boxes[:, 2:] - boxes[:, :2])  # Of the crop, of the image's sides.
    areas, aspects = share.prod(1), share[:, 1] * 400 / (share[:, 0] * 300)
    assert areas.min() > 0.74 and areas.max() < 1.01
    assert 0.78 < areas.mean() < 0.88
    assert aspects.min() > 0.74 and aspects.max() < 1.8  # 4/3 of all of it, at most 1 / 0.75 more.
    assert len(np.unique(boxes, axis=0)) > 390
    flips = run_many(SSDFPNAugment((2, 2), crop=False, **PLAIN), make_example(box), 400)["boxes"]
    mirrored = np.isclose(flips[:, 0, 1], 1 - 0.42)
    assert np.isclose(flips[~mirrored, 0, 1], 0.4).all()
    assert 160 < mirrored.sum() < 240  # 4 standard deviations.


@BOTH_FORMS
def test_same_seed_same_result_and_every_source_of_pixels():
    chain = SSDFPNAugment((32, 32), **PLAIN)
    wanted = chain(make_example(), SEED)
    for encoding in (None, "PNG"):
        got = chain(make_example(encoding=encoding), SEED)
        np.testing.assert_array_equal(got["image"], wanted["image"])
        np.testing.assert_array_equal(got["boxes"], wanted["boxes"])
    encoded = make_example(encoding="JPEG", height=61, width=83)
    decoded = {**encoded, "image": tf.io.decode_jpeg(encoded["encoded"])}
    del decoded["encoded"]
    for number in range(6):  # Mirrored ones among them.
        seed = tf.constant([0, number], tf.int64)
        np.testing.assert_array_equal(chain(encoded, seed)["image"], chain(decoded, seed)["image"])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 2), (700, 500)], ids=str)
@pytest.mark.parametrize("count", [0, 2])
@BOTH_FORMS
def test_odd_images(size, count):
    got = run_many(SSDFPNAugment((16, 24), **PLAIN), make_example(BOXES[:count], *size), 3)
    assert got["image"].shape == (3, 16, 24, 3) and np.isfinite(got["image"]).all()


@BOTH_FORMS
def test_shapes_are_static():
    shapes = traced_shapes(SSDFPNAugment((16, 24), **PLAIN))
    assert shapes["image"] == (16, 24, 3) and shapes["boxes"].as_list() == [None, 4]


@BOTH_FORMS
def test_fields_follow_their_boxes_and_boxes_at_the_border_stay_inside():
    boxes = np.array(
        [
            [0.0, 0.0, 1.0, 1.0],
            [0.0, 0.0, 0.01, 0.01],
            [0.99, 0.99, 1.0, 1.0],
            [0.4, 0.4, 0.4, 0.6],
        ],
        np.float32,
    )
    chain = SSDFPNAugment((8, 8), **PLAIN)
    example = {**make_example(boxes), "is_crowd": tf.ones([4], tf.bool)}
    counts = set()
    for number in range(12):
        got = chain(example, tf.constant([1, number], tf.int64))
        rows = got["classes"].numpy()
        assert 0 in rows and 3 not in rows  # The third has no area.
        np.testing.assert_array_equal(got["area"], rows * 10.0)
        assert got["is_crowd"].numpy().all() and len(got["is_crowd"]) == len(rows)
        assert (got["boxes"].numpy() >= 0).all() and (got["boxes"].numpy() <= 1).all()
        counts.add(len(rows))
    assert len(counts) > 1  # The corners are cut off now and then.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip_probability": 1.5}, "SSDFPNAugment.flip_probability is 1.5"),
        ({"min_overlap": -1.0}, "min_overlap"),
        ({"channels": "GBR"}, "channels must be 'RGB' or 'BGR'"),
        ({"image_size": (0, 3)}, "image_size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SSDFPNAugment(**settings)
