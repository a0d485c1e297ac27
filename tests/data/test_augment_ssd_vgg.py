import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.augment import overlap_crop
from ssd_centernet.data.augment.ssd_vgg import SSDVGGAugment
from ssd_centernet.ops import color
from ssd_centernet.ops import image as image_ops
from tests.data import chains

PLAIN = {
    "distort": False,
    "expand_probability": 0.0,
    "crop": False,
    "flip_probability": 0.0,
    "compiled": False,
}

BOTH_FORMS = pytest.mark.usefixtures("form")


def accepts(boxes, windows, bound=0.0):
    boxes = tf.constant(boxes, tf.float32, [len(boxes), 4])
    return overlap_crop.accepts(boxes, tf.constant(windows, tf.float32), tf.constant(bound)).numpy()


def test_expansion_by_hand():
    size = tf.constant([90, 120])
    canvas, offset = overlap_crop.expansion(size, tf.constant([0.4, 0.5, 0.25, 0.75]))
    # Ratio 2.5; 0.25 of the 135 rows and 0.75 of the 180 columns beside it, cut to pixels.
    assert canvas.numpy().tolist() == [225, 300] and offset.numpy().tolist() == [33, 135]
    canvas, offset = overlap_crop.expansion(size, tf.constant([0.5, 0.5, 0.25, 0.75]))
    assert canvas.numpy().tolist() == [90, 120] and offset.numpy().tolist() == [0, 0]


def test_windows_by_hand():
    got = overlap_crop.windows_of(tf.constant([0.0, 1.0, 0.5, 0.0]), tf.constant([100, 200]))
    # Height 0.3 and width 1 of the picture, in the middle of the rows.
    np.testing.assert_allclose(got, [35.0, 0.0, 65.0, 200.0], rtol=1e-6)


def test_rules_of_the_crop_one_by_one():
    box = [40, 40, 60, 60]
    windows = [
        [20, 20, 80, 80],  # overlap 400 / 3600 = 0.111, fine
        [20, 30, 80, 59.9],  # more than twice as tall as wide
        [20, 30, 80, 60],  # just twice: the bound is inclusive
        [10, 10, 50, 50],  # the centre is on the edge, not strictly inside
        [40.2, 40.3, 40.9, 40.9],  # nothing is left in whole pixels
    ]
    assert accepts([box], windows).tolist() == [True, False, True, False, False]
    assert accepts([box], windows[:1], 0.111).all()
    assert not accepts([box], windows[:1], 0.112).any()
    # Exactly the bound is enough: 400 of 1600.
    assert accepts([box], [[30, 30, 70, 70]], 0.25).all()


def test_every_box_must_overlap_enough_but_one_centre_is_enough():
    boxes = [[40, 40, 60, 60], [90, 90, 100, 100]]
    window = [[30, 30, 70, 70]]
    assert accepts(boxes, window, 0.0).all()
    assert not accepts(boxes, window, 0.01).any()
    assert accepts([], window, 0.9).all()


def test_windows_are_judged_in_whole_pixels():
    # Cut to 0..10 x 0..10 the centre at 10.2 is outside.
    assert not accepts([[9.7, 4, 10.7, 6]], [[0.0, 0.0, 10.9, 10.9]]).any()


def test_boxes_are_cut_and_moved():
    boxes = tf.constant([[10.0, 10.0, 50.0, 50.0], [0.0, 0.0, 30.0, 30.0]])
    window = tf.constant([20.0, 20.0, 60.0, 70.0])
    cut, kept = overlap_crop.crop_boxes(boxes, window, tf.constant(0.3))
    assert kept.numpy().tolist() == [True, False]
    np.testing.assert_array_equal(cut[0], [0, 0, 30, 30])
    same, kept = overlap_crop.crop_boxes(boxes, window, tf.constant(1.0))
    assert kept.numpy().all()
    np.testing.assert_array_equal(same, boxes)


@BOTH_FORMS
def test_without_a_window_the_whole_picture_stays():
    boxes = tf.constant([[0.0, 0.0, 5.0, 5.0], [95.0, 95.0, 100.0, 100.0]])
    search = tf.function(overlap_crop.sample_crop, autograph=False)
    window, bound = search(
        boxes,
        tf.constant([100, 100]),
        tf.constant([1, 2]),
        min_ious=(0.9,),
        no_crop_probability=0.0,
    )
    assert window.numpy().tolist() == [0, 0, 100, 100] and float(bound) == 1.0


@BOTH_FORMS
def test_sampled_windows_keep_the_rules():
    boxes, size = tf.constant([[30.0, 60.0, 90.0, 150.0]]), tf.constant([120, 200])

    def crop(index):
        window, bound = overlap_crop.sample_crop(boxes, size, tf.stack([np.int64(3), index]))
        return tf.concat([window, [bound]], axis=0)

    rows = next(iter(tf.data.Dataset.range(300).map(crop).batch(300))).numpy()
    whole = rows[:, 4] == 1.0
    # 1/7, more of it because large bounds are rarely met and another turn is drawn.
    assert 0.14 < whole.mean() < 0.35
    np.testing.assert_array_equal(rows[whole, :4], [[0, 0, 120, 200]] * whole.sum())
    assert len(np.unique(rows[~whole, :4], axis=0)) > 0.95 * (~whole).sum()
    for window in rows[~whole]:
        assert (window[:4] == np.floor(window[:4])).all()
        assert 36 <= window[2] - window[0] + 1 and 60 <= window[3] - window[1] + 1
        inside = np.prod(np.minimum(window[2:4], [90, 150]) - np.maximum(window[:2], [30, 60]))
        union = np.prod(window[2:4] - window[:2]) + 60 * 90 - inside
        assert inside / union >= window[4] - 1e-6


def on_canvas(image: np.ndarray, place: dict, size, mean) -> np.ndarray:
    """The expansion as it is written down: paste on a canvas, crop, resize, flip."""
    canvas = np.tile(np.float32(mean), (*place["canvas"].numpy(), 1))
    top, left = place["offset"].numpy()
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    ymin, xmin, ymax, xmax = place["window"].numpy()
    cut = image_ops.resize_bilinear(tf.constant(canvas[ymin:ymax, xmin:xmax]), size).numpy()
    return cut[:, ::-1] if place["flip"] else cut


@pytest.mark.parametrize("encoding", [None, "PNG"])
@BOTH_FORMS
def test_result_is_that_of_a_canvas(encoding):
    chain = SSDVGGAugment((40, 56), compiled=False)
    image, apply = chains.pixels(60, 80), tf.function(chain, autograph=False)
    kinds = set()
    for number in range(30):
        example, seed = chains.make_example(encoding=encoding), tf.constant([5, number])
        place = chain.place(tf.constant([60, 80]), example["boxes"], seed)
        colors = chain.color_draws(seed)
        distorted = color.distort(tf.constant(image, tf.float32), **colors).numpy()
        want = on_canvas(distorted, place, (40, 56), chain.mean) - np.float32(chain.mean)
        got = apply(example, seed)
        np.testing.assert_allclose(got["image"], want, atol=2e-3)
        kinds.add((int(place["canvas"][0]) > 60, float(place["bound"]) < 1, bool(place["flip"])))
    assert len(kinds) == 8


def test_a_later_order_distorts_the_resized_bytes():
    chain = SSDVGGAugment((40, 56), distort_last=True, compiled=False)
    for number in range(6):
        example, seed = chains.make_example(), tf.constant([6, number])
        place = chain.place(tf.constant([60, 80]), example["boxes"], seed)
        image = chains.pixels(60, 80)
        resized = np.round(on_canvas(image, place, (40, 56), np.floor(chain.mean)))
        want = color.distort(tf.constant(resized), **chain.color_draws(seed))
        got = chain(example, seed)["image"] + tf.constant(chain.mean)
        # Where a sample lies just between two bytes either is right: a step, times the contrasts.
        error = np.abs(got - want)
        assert np.quantile(error, 0.99) < 1e-2 and error.max() < 4.0


@BOTH_FORMS
def test_crowd_regions_take_part_in_the_crop_and_stay_marked():
    # No window overlaps both by 0.1: with the crowd region only the whole picture is left.
    boxes = np.array([[0.05, 0.05, 0.3, 0.3], [0.7, 0.7, 0.95, 0.95]], np.float32)
    chain = SSDVGGAugment(
        (20, 20), expand_probability=0.0, min_ious=(0.1,), flip_probability=0.0, compiled=False
    )
    for number in range(4):
        got = chain(chains.make_example(boxes), tf.constant([1, number]))
        np.testing.assert_allclose(got["boxes"], boxes, atol=1e-6)
        assert got["is_crowd"].numpy().tolist() == [False, True]
    alone = chains.make_example(boxes[:1])
    assert any(
        not np.allclose(chain(alone, tf.constant([1, n]))["boxes"], boxes[:1]) for n in range(4)
    )


@BOTH_FORMS
def test_boxes_lie_on_their_objects():
    chain = SSDVGGAugment(
        (120, 160), mean=(0.0, 0.0, 0.0), distort=False, expand_probability=0.5, max_expansion=1.5
    )
    chains.check_boxes_lie_on_their_objects(chain, number=40, tolerance=2.5)


@BOTH_FORMS
def test_switched_off_it_is_a_resize():
    chain = SSDVGGAugment((30, 40), **PLAIN)
    example = chains.make_example()
    got = chain(example, tf.constant([1, 2]))
    want = image_ops.resize_bilinear(example["image"], (30, 40)) - tf.constant(chain.mean)
    np.testing.assert_allclose(got["image"], want, atol=1e-3)
    np.testing.assert_allclose(got["boxes"], chains.BOXES, atol=1e-6)


def test_same_seed_same_image_and_compiled_is_no_different():
    compiled, plain = SSDVGGAugment((32, 48)), SSDVGGAugment((32, 48), compiled=False)
    one = chains.run_many(compiled, chains.make_example(encoding="JPEG"), 4)
    again = chains.run_many(compiled, chains.make_example(encoding="JPEG"), 4)
    other = chains.run_many(plain, chains.make_example(encoding="JPEG"), 4)
    for key in one:
        np.testing.assert_array_equal(one[key], again[key])
        np.testing.assert_allclose(one[key], other[key], atol=2e-2)
    assert len(np.unique(one["image"].mean(axis=(1, 2, 3)))) == 4


@BOTH_FORMS
def test_static_shapes():
    shapes = chains.traced_shapes(SSDVGGAugment((32, 48), compiled=False))
    assert shapes["image"] == (32, 48, 3)
    assert "encoded" not in shapes


def test_kinds_of_colours_are_drawn_half_of_the_time():
    chain = SSDVGGAugment()
    seeds = tf.data.Dataset.range(800).map(lambda i: chain.color_draws(tf.stack([np.int64(2), i])))
    draws = {key: value.numpy() for key, value in next(iter(seeds.batch(800))).items()}
    for name, neutral, low, high, share in (
        ("brightness", 0.0, -32, 32, 0.5),
        ("saturation", 1.0, 0.5, 1.5, 0.5),
        ("hue", 0.0, -18, 18, 0.5),
        ("contrast_first", 1.0, 0.5, 1.5, 0.25),
        ("contrast_last", 1.0, 0.5, 1.5, 0.25),
    ):
        applied = draws[name][draws[name] != neutral]
        # Four standard errors are 0.07.
        assert abs(len(applied) / 800 - share) < 0.07, name
        assert low <= applied.min() < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < applied.max() < high, name
    assert not np.any((draws["contrast_first"] != 1) & (draws["contrast_last"] != 1))
    # The identity is one of the six orders.
    assert set(draws["order"]) == set(range(6))
    assert abs(np.mean(draws["order"] == 0) - (0.5 + 0.5 / 6)) < 0.07


@BOTH_FORMS
def test_an_image_without_boxes_passes():
    got = SSDVGGAugment((20, 20), compiled=False)(
        chains.make_example(np.zeros((0, 4))), tf.constant([0, 1])
    )
    assert got["boxes"].shape == (0, 4) and np.isfinite(got["image"]).all()


@pytest.mark.parametrize(
    "arguments",
    [{"image_size": (300,)}, {"expand_probability": 2.0}, {"no_crop_probability": -0.1}],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SSDVGGAugment(**arguments)
