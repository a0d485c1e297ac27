import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.augment import ssd as augment
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import image as image_ops
from tests.parity import VECTORS

BOXES = np.array([[0.1, 0.2, 0.6, 0.7], [0.3, 0.3, 0.9, 0.95]], np.float32)

BOTH_FORMS = pytest.mark.usefixtures("form")


@pytest.fixture(scope="module")
def vectors():
    return np.load(VECTORS / "ssd_resnet34" / "augment.npz")


def make_example(boxes=BOXES, height=60, width=80, encoded=True):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height))
    data = io.BytesIO()
    image.save(data, "PNG")
    picture = {"encoded": tf.constant(data.getvalue())} if encoded else {"image": np.asarray(image)}
    count = len(boxes)
    return {
        **picture,
        "boxes": tf.constant(boxes, shape=[count, 4], dtype=tf.float32),
        "classes": tf.range(count),
        "is_crowd": tf.zeros([count], tf.bool),
        "area": tf.range(count, dtype=tf.float32) * 10,
    }


@pytest.mark.parametrize("case", range(6))
def test_crop_vectors(vectors, case):
    def get(key):
        return tf.constant(vectors[f"case{case}_{key}"])

    whole = tf.cast(get("no_crop"), tf.bool)
    window, accepted = augment.choose_crop(
        get("boxes"), get("uniform01_width_height_left_top"), get("min_iou"), whole
    )
    boxes, kept = augment.crop_boxes(get("boxes"), window, whole)
    image = image_ops.crop_and_resize(get("image"), window, (300, 300)).numpy()
    assert accepted
    np.testing.assert_allclose(window, get("bounds_yxyx"), atol=1e-6)
    np.testing.assert_array_equal(kept, get("kept"))
    np.testing.assert_allclose(boxes.numpy()[kept.numpy()], get("out_boxes"), atol=1e-6)
    np.testing.assert_allclose(image[::7, ::7], get("out_image_every7"), atol=1e-3)
    np.testing.assert_allclose(image.mean((0, 1)), get("out_image_mean"), atol=5e-3)


def test_flip_vectors(vectors):
    got = box_ops.flip_left_right(tf.constant(vectors["flip_in_boxes"]))
    np.testing.assert_allclose(got, vectors["flip_out_boxes"], atol=1e-6)


def test_proposals_pair_the_first_extent_with_y():
    uniforms = tf.constant([[0.5], [0.0], [1.0], [0.25]])
    # d0 = 0.65, d1 = 0.3, o0 = 0.35, o1 = 0.175
    got = augment.crop_proposals(uniforms)
    np.testing.assert_allclose(got, [[0.35, 0.175, 1.0, 0.475]], atol=1e-6)


def test_crop_rules_one_by_one():
    boxes = tf.constant([[0.4, 0.4, 0.6, 0.6]])
    windows = tf.constant(
        [
            [0.2, 0.2, 0.8, 0.8],  # IoU 0.04 / 0.36 = 0.11, fine
            [0.2, 0.35, 0.8, 0.65],  # twice as tall as wide: refused
            [0.0, 0.0, 0.5, 0.5],  # the centre is on the edge, not strictly inside
            [0.6, 0.6, 0.9, 0.9],  # touches only
        ]
    )
    valid = augment.valid_crops(boxes, windows, tf.constant(0.0))
    np.testing.assert_array_equal(valid, [True, False, False, False])
    assert not augment.valid_crops(boxes, windows, tf.constant(0.12))[0]
    # Every box must exceed the bound, also at 0; without boxes only the shape counts.
    both = tf.concat([boxes, [[0.9, 0.9, 1.0, 1.0]]], axis=0)
    assert not augment.valid_crops(both, windows, tf.constant(0.0))[0]
    empty = augment.valid_crops(tf.zeros([0, 4]), windows, tf.constant(0.9))
    np.testing.assert_array_equal(empty, [True, False, True, True])


def test_the_last_valid_proposal_wins():
    # Extents 0.65 and offsets 0.175 in the middle; then 0.3 in a corner, far from the box.
    uniforms = tf.constant(
        [[0.5, 0.6, 0.0], [0.5, 0.6, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], tf.float32
    )
    boxes = tf.constant([[0.4, 0.4, 0.6, 0.6]])
    window, accepted = augment.choose_crop(boxes, uniforms, tf.constant(0.0), tf.constant(False))
    assert accepted
    np.testing.assert_allclose(window, [0.14, 0.14, 0.86, 0.86], atol=1e-6)
    _, accepted = augment.choose_crop(boxes, uniforms, tf.constant(0.9), tf.constant(False))
    assert not accepted


def test_boxes_are_cut_and_reframed():
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.45, 0.3], [0.5, 0.5, 1.0, 1.0]])
    window = tf.constant([0.2, 0.2, 0.7, 0.7])
    cut, kept = augment.crop_boxes(boxes, window, tf.constant(False))
    np.testing.assert_array_equal(kept, [True, False, False])
    np.testing.assert_allclose(cut[0], [0.0, 0.0, 0.6, 0.6], atol=1e-6)
    _, kept = augment.crop_boxes(boxes, tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(True))
    assert kept.numpy().all()


@tf.function
def _sample_many(boxes, seeds):
    return tf.map_fn(
        lambda seed: augment.sample_crop(boxes, seed),
        seeds,
        fn_output_signature=(tf.TensorSpec([4]), tf.TensorSpec([], tf.bool)),
    )


@BOTH_FORMS
def test_crop_statistics():
    """Against a plain Python loop over the rules, with other random numbers."""
    box = np.array([[0.3, 0.3, 0.7, 0.7]])
    seeds = tf.stack([tf.fill([1500], 5), tf.range(1500)], axis=1)
    windows, whole = _sample_many(tf.constant(box, tf.float32), tf.cast(seeds, tf.int64))
    windows, whole = windows.numpy(), whole.numpy()
    reference = [_crop_in_python(box[0], np.random.default_rng(seed)) for seed in range(1500)]
    areas = np.prod(windows[:, 2:] - windows[:, :2], axis=1)
    want = np.array([np.prod(window[2:] - window[:2]) for window, _ in reference])
    # Three standard errors of the difference are about 0.054 and 0.026.
    assert abs(whole.mean() - np.mean([flag for _, flag in reference])) < 0.05
    assert abs(areas.mean() - want.mean()) < 0.03
    assert abs(windows[:, 0].mean() - windows[:, 1].mean()) < 0.02
    assert len(np.unique(windows[~whole], axis=0)) == (~whole).sum()
    _, kept = augment.crop_boxes(tf.constant(box, tf.float32), windows[0], whole[0])
    assert kept.numpy().any()


def _crop_in_python(box, rng):
    while True:
        if rng.uniform() < 1 / 7:
            return np.array([0.0, 0.0, 1.0, 1.0]), True
        bound = rng.choice([0, 0.1, 0.3, 0.5, 0.7, 0.9])
        found = None
        extents = rng.uniform(0.3, 1.0, (50, 2))
        offsets = rng.uniform(0, 1 - extents)
        for start, extent in zip(offsets, extents, strict=True):
            end = start + extent
            sides = np.maximum(0, np.minimum(end, box[2:]) - np.maximum(start, box[:2]))
            inside = np.prod(sides)
            iou = inside / (np.prod(extent) + np.prod(box[2:] - box[:2]) - inside)
            center = (box[:2] + box[2:]) / 2
            square = 0.5 < extent[0] / extent[1] < 2
            if square and iou > bound and (start < center).all() and (center < end).all():
                found = np.concatenate([start, end])
        if found is not None:
            return found, False


@BOTH_FORMS
def test_without_a_valid_crop_the_whole_image_stays():
    # Two boxes so far apart that no crop exceeds the IoU bound with both.
    boxes = tf.constant([[0.0, 0.0, 0.05, 0.05], [0.9, 0.9, 1.0, 1.0]])
    window, whole = augment.sample_crop(
        boxes, tf.constant([1, 2], tf.int64), min_ious=(0.9,), no_crop_probability=0.0
    )
    np.testing.assert_array_equal(window, [0, 0, 1, 1])
    assert whole


@BOTH_FORMS
def test_same_seed_same_image_eager_and_in_a_dataset():
    chain = augment.SSDAugment((40, 50))
    example = make_example()
    eager = chain(example, tf.constant([3, 4]))
    again = chain(example, tf.constant([3, 4]))
    other = chain(example, tf.constant([3, 5]))
    mapped = next(iter(tf.data.Dataset.from_tensors(example).map(lambda e: chain(e, [3, 4]))))
    assert eager["image"].shape == (40, 50, 3) and "encoded" not in eager
    for key in eager:
        np.testing.assert_array_equal(eager[key], again[key])
        np.testing.assert_allclose(eager[key], mapped[key], atol=1e-5)
    assert np.abs(eager["image"] - other["image"]).max() > 0.1


@BOTH_FORMS
def test_encoded_and_decoded_examples_give_the_same():
    chain = augment.SSDAugment((30, 30))
    for seed in range(3):
        one = chain(make_example(), tf.constant([0, seed]))
        two = chain(make_example(encoded=False), tf.constant([0, seed]))
        np.testing.assert_allclose(one["image"], two["image"], atol=1e-4)
        np.testing.assert_array_equal(one["boxes"], two["boxes"])


@BOTH_FORMS
def test_switched_off_it_is_the_evaluation_path():
    chain = augment.SSDAugment((30, 40), crop=False, flip_probability=0.0, jitter=False)
    example = make_example(encoded=False)
    got = chain(example, tf.constant([1, 2]))
    want = image_ops.resize_legacy_bilinear(example["image"], (30, 40)) / 255.0
    want = image_ops.normalize(want, augment.IMAGENET_MEAN, augment.IMAGENET_STD)
    np.testing.assert_allclose(got["image"], want, atol=1e-5)
    np.testing.assert_array_equal(got["boxes"], BOXES)


@BOTH_FORMS
def test_flip_turns_image_and_boxes():
    still = augment.SSDAugment((60, 80), crop=False, flip_probability=0.0, jitter=False)
    turned = augment.SSDAugment((60, 80), crop=False, flip_probability=1.0, jitter=False)
    seed = tf.constant([1, 2])
    one, two = still(make_example(), seed), turned(make_example(), seed)
    np.testing.assert_allclose(two["image"], one["image"][:, ::-1], atol=1e-6)
    np.testing.assert_allclose(two["boxes"][0], [0.1, 0.3, 0.6, 0.8], atol=1e-6)


@BOTH_FORMS
def test_fields_follow_their_boxes():
    chain = augment.SSDAugment(
        (20, 20), flip_probability=0.0, no_crop_probability=0.0, jitter=False
    )
    boxes = np.array([[0.0, 0.0, 0.55, 0.55], [0.4, 0.4, 1.0, 1.0]], np.float32)
    counts = set()
    for seed in range(15):
        got = chain(make_example(boxes), tf.constant([9, seed]))
        classes = got["classes"].numpy()
        np.testing.assert_array_equal(got["area"], classes * 10.0)
        assert len(got["boxes"]) == len(classes) == len(got["is_crowd"]) >= 1
        assert (got["boxes"].numpy() >= 0).all() and (got["boxes"].numpy() <= 1).all()
        counts.add(tuple(classes))
    assert (0,) in counts or (1,) in counts


@BOTH_FORMS
def test_an_image_without_boxes_passes():
    got = augment.SSDAugment((20, 20))(make_example(np.zeros((0, 4))), tf.constant([0, 1]))
    assert got["boxes"].shape == (0, 4) and np.isfinite(got["image"]).all()


def test_uncompiled_equals_compiled():
    seed = tf.constant([7, 7])
    one = augment.SSDAugment((32, 32))(make_example(), seed)
    two = augment.SSDAugment((32, 32), compiled=False)(make_example(), seed)
    np.testing.assert_allclose(one["image"], two["image"], atol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"image_size": (300,)}, {"image_size": 300}, {"flip_probability": 2.0}]
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        augment.SSDAugment(**arguments)
