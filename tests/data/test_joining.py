"""Mosaic, mixup and copy-paste, with values by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.augment.compose import Composition, PictureStep
from ssd_centernet.data.augment.joining import CopyPaste, MixUp, Mosaic
from tests.data.chains import pixels

SEED = tf.constant([3, 5], tf.int64)


def places(height, width, mark=0):
    """Make a picture whose pixels say where they were: row, column and the mark of the picture."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, mark)], axis=-1).astype(np.uint8)


def picture(image, boxes=(), *, classes=None, crowd=(), source_id=7):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    number = len(boxes)
    flags = [index in crowd for index in range(number)]
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes),
        "classes": tf.constant(range(number) if classes is None else classes, tf.int32, [number]),
        "is_crowd": tf.constant(flags, tf.bool, [number]),
        "area": 10.0 * tf.range(1.0, number + 1.0),
        "source_id": tf.constant(source_id, tf.int64),
        "height": tf.shape(image)[0],
        "width": tf.shape(image)[1],
    }


def solid(level, height=20, width=20):
    return np.full((height, width, 3), level, np.uint8)


MIDDLE = {"centers": (0.5, 0.5), "off_for_last": 0.0}


def test_each_quarter_holds_its_picture_and_its_boxes():
    box = [0.25, 0.5, 0.75, 1.0]
    four = [picture(solid(50 * n), [box], classes=[n], crowd=(0,) * (n == 2)) for n in range(4)]
    four[3] = picture(solid(150), [box, [0, 0, 1, 1]], classes=[3, 9], source_id=8)
    found = Mosaic(size=(40, 40), **MIDDLE).apply(four[0], four[1:], SEED, None)
    expected = np.block(
        [[solid(0)[..., 0], solid(50)[..., 0]], [solid(100)[..., 0], solid(150)[..., 0]]]
    )
    for channel in range(3):
        np.testing.assert_array_equal(found["image"][..., channel], expected)
    # 20 of the canvas' 40 pixels a picture: the box of the second begins at row 5, column 20 + 10.
    np.testing.assert_allclose(
        found["boxes"],
        [
            [0.125, 0.25, 0.375, 0.5],
            [0.125, 0.75, 0.375, 1.0],
            [0.625, 0.25, 0.875, 0.5],
            [0.625, 0.75, 0.875, 1.0],
            [0.5, 0.5, 1.0, 1.0],
        ],
    )
    np.testing.assert_array_equal(found["classes"], [0, 1, 2, 3, 9])
    np.testing.assert_array_equal(found["is_crowd"], [False, False, True, False, False])
    np.testing.assert_array_equal(found["area"], [10, 10, 10, 10, 20])
    assert (found["source_id"], found["height"]) == (7, 20)


def test_smaller_pictures_touch_the_centre_and_the_rest_is_grey():
    four = [picture(solid(200, 10, 20), [[0, 0, 1, 1]]) for _ in range(4)]
    step = Mosaic(size=(40, 80), scales=(0.5, 0.5), fill=9, **MIDDLE)
    found = step.apply(four[0], four[1:], SEED, None)
    image = np.full((40, 80), 9)
    image[10:30, 20:60] = 200
    np.testing.assert_array_equal(found["image"][..., 0], image)
    np.testing.assert_allclose(
        found["boxes"] * [40, 80, 40, 80],
        [[10, 20, 20, 40], [10, 40, 20, 60], [20, 20, 30, 40], [20, 40, 30, 60]],
    )


@pytest.mark.parametrize("min_visible", [0.0, 0.3, 0.9])
def test_what_a_quarter_cuts_is_kept_by_its_visible_share(min_visible):
    boxes = [[0.0, 0.0, 0.5, 0.5], [0.4, 0.4, 0.9, 0.6], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 1, 1]]
    four = [picture(places(40, 40, n), boxes) for n in range(4)]
    step = Mosaic(size=(80, 80), centers=(0.25, 0.75), min_visible=min_visible, off_for_last=0.0)
    cut = 0
    for seed in range(12):
        found = step.apply(four[0], four[1:], tf.constant([0, seed], tf.int64), None)
        rows = []
        for number in range(4):
            # Where the canvas shows the picture, and which part of it.
            shown = found["image"].numpy()[..., 2] == number
            at = np.argwhere(shown)
            top, left = at[0]
            height, width = at[-1] + 1 - at[0]
            row, column = found["image"].numpy()[top, left, :2]
            cut += (height, width) != (40, 40)
            for index, box in enumerate(np.array(boxes) * 40):
                low = np.maximum(box[:2], [row, column])
                high = np.minimum(box[2:], [row + height, column + width])
                share = np.prod(np.maximum(high - low, 0)) / np.prod(box[2:] - box[:2])
                if share > 0 and share >= min_visible:
                    moved = [top - row, left - column] * 2 + np.concatenate([low, high])
                    rows.append([*moved / 80, index])
        got = np.concatenate([found["boxes"], found["classes"][:, np.newaxis]], axis=1)
        np.testing.assert_allclose(got, np.array(rows).reshape(-1, 5), atol=1e-6)
    assert cut > 12


@pytest.mark.parametrize("full", [(), (0,), (1,), (2, 3), (3,)])
def test_pictures_without_objects_may_lie_anywhere(full):
    boxes = [[[0.0, 0.0, 1.0, 1.0]] if n in full else [] for n in range(4)]
    four = [picture(solid(n), boxes[n], classes=[n] * len(boxes[n])) for n in range(4)]
    found = Mosaic(size=(40, 40), **MIDDLE).apply(four[0], four[1:], SEED, None)
    np.testing.assert_array_equal(found["classes"], full)
    assert found["boxes"].shape == (len(full), 4)
    for step in (MixUp(probability=1.0, scales=(1.0, 1.0)), CopyPaste(probability=1.0)):
        own, other = four[2], four[3]
        found = step.apply(own, [other], SEED, None)
        assert found["boxes"].shape[1] == 4 and found["image"].shape == (20, 20, 3)
        if 3 not in full:
            np.testing.assert_array_equal(found["classes"], [n for n in full if n == 2])


def test_the_canvas_is_twice_the_input_or_must_be_told():
    four = [picture(solid(n)) for n in range(4)]
    step = Mosaic(off_for_last=0.0)
    assert step.apply(four[0], four[1:], SEED, (30, 44))["image"].shape == (60, 88, 3)
    assert step.largest_canvas((700, 900), (30, 44)) == (60, 88)
    with pytest.raises(ValueError, match=r"set Mosaic.size = \(height, width\)"):
        step.apply(four[0], four[1:], SEED, None)


def test_mixed_pictures_are_blended_and_keep_all_objects():
    own = picture(solid(100, 30, 40), [[0.1, 0.1, 0.5, 0.5]], crowd=(0,))
    other = picture(solid(200, 15, 20), [[0.0, 0.5, 1.0, 1.0]], classes=[4])
    step = MixUp(shares=(0.25, 0.25), scales=(1.0, 1.0), off_for_last=0.0)
    found = step.apply(own, [other], SEED, None)
    np.testing.assert_array_equal(found["image"], solid(125, 30, 40))
    np.testing.assert_allclose(found["boxes"], [[0.1, 0.1, 0.5, 0.5], [0.0, 0.5, 1.0, 1.0]])
    np.testing.assert_array_equal(found["classes"], [0, 4])
    np.testing.assert_array_equal(found["is_crowd"], [True, False])
    np.testing.assert_array_equal(found["area"], [10, 10])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_mixed_picture_of_another_scale_lies_where_its_boxes_say(scale):
    own = picture(solid(0, 40, 40))
    other = solid(50, 20, 20)
    other[4:16, 6:14] = 250
    other = picture(other, [[4 / 20, 6 / 20, 16 / 20, 14 / 20]])
    step = MixUp(shares=(1.0, 1.0), scales=(scale, scale), min_visible=0.1, off_for_last=0.0)
    seen = set()
    for seed in range(8):
        found = step.apply(own, [other], tf.constant([0, seed], tf.int64), None)
        white = found["image"].numpy()[..., 0] > 150
        if not len(found["boxes"]):
            continue
        box = found["boxes"].numpy()[0] * 40
        at = np.argwhere(white)
        np.testing.assert_allclose(box, [*at[0], *(at[-1] + 1)], atol=1.0)
        seen.add(tuple(at[0]))
        if scale < 1:  # Around the smaller picture nothing changes.
            assert (found["image"].numpy() == 0).any()
    assert len(seen) > 3


ONE = {"probability": 1.0, "max_objects": 1, "scales": (1.0, 1.0), "edge": 0.0}


def test_a_rectangle_is_pasted_with_its_object():
    own = picture(solid(7, 40, 50), [[0.0, 0.0, 0.1, 0.1]], classes=[2])
    # Rows 5 to 15 and columns 10 to 16 of 20 x 20; half of the third lies in them, a crowd region.
    boxes = [[0.25, 0.5, 0.75, 0.8], [0.9, 0.0, 1.0, 0.2], [0.25, 0.5, 0.75, 1.1], [0, 0, 1, 1]]
    boxes[2] = [0.25, 0.5, 0.75, 1.0]
    other = picture(places(20, 20, 200), boxes, classes=[4, 5, 6, 7], crowd=(1, 2, 3))
    step = CopyPaste(**ONE, min_visible=0.5)
    found = step.apply(own, [other], SEED, None)
    image = found["image"].numpy()
    at = np.argwhere(image[..., 2] == 200)
    top, left = at[0]
    assert tuple(at[-1] + 1 - at[0]) == (10, 6)
    np.testing.assert_array_equal(
        image[top : top + 10, left : left + 6], places(20, 20, 200)[5:15, 10:16]
    )
    assert (image[..., 2] == 7).sum() == 40 * 50 - 60
    np.testing.assert_array_equal(found["classes"], [2, 4, 6])
    np.testing.assert_array_equal(found["is_crowd"], [False, False, True])
    expected = np.array([top, left, top + 10, left + 6]) / [40, 50, 40, 50]
    np.testing.assert_allclose(found["boxes"][1:], [expected, expected], atol=1e-6)


def test_objects_under_a_rectangle_go_where_too_little_is_left():
    other = picture(solid(255, 10, 10), [[0.0, 0.0, 1.0, 1.0]], classes=[9])
    boxes = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.4, 0.4, 0.6, 0.6]]
    own = picture(solid(0, 20, 20), boxes)
    for min_visible in (0.0, 0.5, 0.8):
        step = CopyPaste(**ONE, min_visible=min_visible)
        for seed in range(10):
            found = step.apply(own, [other], tf.constant([1, seed], tf.int64), None)
            hidden = found["image"].numpy()[..., 0] == 255
            stay = []
            for index, box in enumerate(np.round(np.array(boxes) * 20).astype(int)):
                top, left, bottom, right = box
                share = 1 - hidden[top:bottom, left:right].mean()
                stay += [index] if share > 0 and share >= min_visible - 1e-6 else []
            np.testing.assert_array_equal(found["classes"], [*stay, 9])


def test_later_rectangles_lie_over_earlier_ones():
    other = picture(solid(255, 20, 20), [[0.0, 0.0, 1.0, 1.0]], classes=[9])
    own = picture(solid(0, 20, 20), [[0.0, 0.0, 1.0, 1.0]])
    # Each covers the whole picture: only the last one stays.
    step = CopyPaste(**{**ONE, "max_objects": 4})
    counts = {
        len(step.apply(own, [other], tf.constant([1, seed], tf.int64), None)["boxes"])
        for seed in range(9)
    }
    assert counts == {1}


def test_a_rectangle_larger_than_the_picture_is_made_to_fit():
    other = picture(pixels(60, 90), [[0.0, 0.0, 1.0, 1.0]], classes=[9])
    own = picture(solid(0, 20, 20))
    found = CopyPaste(**{**ONE, "scales": (2.0, 2.0)}).apply(own, [other], SEED, None)
    box = found["boxes"].numpy()[0] * 20
    np.testing.assert_allclose(box[2:] - box[:2], [13, 20], atol=1e-5)  # 60 * 2 / 9 = 13.3


def test_an_edge_is_soft():
    other = picture(solid(200, 20, 20), [[0.0, 0.0, 1.0, 1.0]])
    own = picture(solid(0, 20, 20))
    found = CopyPaste(**{**ONE, "edge": 2.0}).apply(own, [other], SEED, None)["image"][10, :, 0]
    np.testing.assert_array_equal(found, [50, 150, *[200] * 16, 150, 50])


def test_only_objects_that_are_no_crowds_are_pasted():
    other = picture(solid(255), [[0.0, 0.0, 1.0, 1.0]], crowd=(0,))
    own = picture(solid(0, 20, 20), [[0.0, 0.0, 1.0, 1.0]])
    found = CopyPaste(**ONE).apply(own, [other], SEED, None)
    np.testing.assert_array_equal(found["image"], own["image"])
    assert len(found["boxes"]) == 1


class Marks(PictureStep):
    """Adds one to the picture, and five times the partner's."""

    partners = 1

    def apply(self, own, partners, seed, image_size):
        return {**own, "image": own["image"] + 1 + 5 * partners[0]["image"]}


def composed(steps, images, position=0, seed=SEED, **options):
    pictures = [picture(np.full((2, 2, 3), level, np.uint8)) for level in images]
    opened = []

    def parse(index):
        opened.append(index)
        return pictures[index]

    entries = [(index,) for index in range(len(images))]
    joined = tf.constant(position, tf.int64), entries
    made = Composition(steps, **options)(joined, parse, seed=seed)
    return int(made["image"][0, 0, 0]), opened


def test_each_step_gets_partners_of_its_own_and_what_the_one_before_made():
    assert composed([Marks(), Marks()], [10, 1, 2]) == (10 + 1 + 5 + 1 + 10, [0, 1, 2])
    assert Composition([Marks(), Mosaic()]).partners == 4


def test_a_step_that_does_not_come_opens_no_partner():
    assert composed(Marks(probability=0.0), [10, 1]) == (10, [0])
    drawn = [composed(Marks(probability=0.25), [10, 1], seed=[1, n])[0] == 16 for n in range(60)]
    assert 6 <= sum(drawn) <= 24


def test_a_step_ends_with_its_share_of_the_run():
    step = Marks(off_for_last=0.25)
    on = [composed(step, [10, 1], position=n, total_examples=8)[0] == 16 for n in range(9)]
    assert on == [True] * 6 + [False] * 3
    with pytest.raises(ValueError, match="Marks.off_for_last is 0.25, a share of the run"):
        composed(step, [10, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Mosaic(probability=1.5),
            "Mosaic.probability is 1.5; expected a number from 0 to 1",
        ),
        (lambda: MixUp(off_for_last=-0.1), "MixUp.off_for_last is -0.1"),
        (lambda: CopyPaste(probability="yes"), "CopyPaste.probability is 'yes'"),
        (lambda: Mosaic(size=(0, 10)), "Mosaic.size: image_size is"),
        (lambda: Mosaic(centers=0.5), "Mosaic.centers is 0.5; expected two numbers"),
        (lambda: Mosaic(centers=(0.7, 0.3)), "expected the smallest number first"),
        (lambda: Mosaic(fill=300), "Mosaic.fill is 300; expected a number from 0 to 255"),
        (lambda: Mosaic(scales=(0.0, 1.0)), "Mosaic.scales is 0.0"),
        (lambda: MixUp(shares=(0.5, 2.0)), "MixUp.shares is 2.0"),
        (lambda: MixUp(min_visible=float("nan")), "MixUp.min_visible is nan"),
        (lambda: CopyPaste(max_objects=0), "CopyPaste.max_objects is 0; expected a whole number"),
        (lambda: CopyPaste(edge=-1), "CopyPaste.edge is -1"),
    ],
)
def test_settings_out_of_their_bounds_are_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert words in str(error.value)


def test_a_canvas_is_the_largest_that_may_come():
    assert Composition(None).largest_canvas((90, 20)) == (90, 20)
    always = Mosaic(off_for_last=0.0)
    assert Composition(always, image_size=(30, 30)).largest_canvas((90, 20)) == (60, 60)
    assert Composition([Mosaic(), MixUp()], image_size=(30, 30)).largest_canvas((90, 20)) == (
        90,
        60,
    )


def test_joined_pictures_with_too_many_objects_are_told():
    objects = np.array([30] * 10 + [1] * 90)
    limits = {"training_batches.max_boxes": 40, "CenterNet.max_objects": 500}
    (note,) = Composition((Mosaic(), CopyPaste())).notes(objects, limits)
    assert note.startswith("train.compose joins up to 4 pictures: about ")
    assert "more than 40 objects" in note and "training_batches.max_boxes = " in note
    assert Composition(CopyPaste()).notes(objects, limits) == []
    assert Composition(Mosaic()).notes(objects[:0], limits) == []
