"""Colours and erased rectangles of one picture, with values by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.augment.photometric import RandomColors, RandomErasing
from ssd_centernet.ops import photometric
from tests.data.chains import pixels
from tests.data.test_joining import picture, solid

OWN = picture(pixels(20, 30), [[0.1, 0.2, 0.5, 0.6]], crowd=(0,))
NAMES = RandomColors().operations


def seeds(number):
    return [tf.constant([2, n], tf.int64) for n in range(number)]


@pytest.mark.parametrize("name", NAMES)
def test_each_operation_has_its_strength(name):
    step = RandomColors(operations=name, count=1, magnitude=0.5)
    strengths = {"posterize": [6], "solarize": [128.0], "equalize": [], "autocontrast": []}
    function = getattr(photometric, name)
    either = [[0.55], [1.45]] if name not in strengths else [strengths[name]]
    expected = {function(OWN["image"], *one).numpy().tobytes() for one in either}
    found = {step.apply(OWN, [], seed, None)["image"].numpy().tobytes() for seed in seeds(12)}
    assert found == expected


def test_operations_follow_each_other_and_objects_stay():
    step = RandomColors(operations=("posterize", "solarize"), count=2, magnitude=0.5)
    image = OWN["image"]
    posterized, solarized = photometric.posterize(image, 6), photometric.solarize(image, 128.0)
    pairs = [
        photometric.posterize(posterized, 6),
        photometric.solarize(posterized, 128.0),
        photometric.posterize(solarized, 6),
        photometric.solarize(solarized, 128.0),
    ]
    found = [step.apply(OWN, [], seed, None) for seed in seeds(24)]
    assert {one["image"].numpy().tobytes() for one in found} == {p.numpy().tobytes() for p in pairs}
    for one in found:
        np.testing.assert_array_equal(one["boxes"], OWN["boxes"])
        assert one["is_crowd"].numpy().all() and one["image"].dtype == tf.uint8


def test_a_rectangle_is_erased_with_what_lies_under_it():
    boxes = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.45, 0.45, 0.55, 0.55]]
    own = picture(solid(10, 40, 40), boxes)
    step = RandomErasing(areas=(0.25, 0.25), aspect_ratios=(1.0, 1.0), fill=200, min_visible=0.6)
    seen = set()
    for seed in seeds(12):
        found = step.apply(own, [], seed, None)
        hidden = found["image"].numpy()[..., 0] == 200
        assert hidden.sum() == 400 and (found["image"].numpy()[~hidden] == 10).all()
        at = np.argwhere(hidden)
        assert tuple(at[-1] - at[0]) == (19, 19)
        corners = np.round(np.array(boxes) * 40).astype(int)
        shares = [1 - hidden[t:b, left:r].mean() for t, left, b, r in corners]
        np.testing.assert_array_equal(found["classes"], np.flatnonzero(np.array(shares) >= 0.6))
        seen.add(len(found["classes"]))
    assert len(seen) > 1


def test_shapes_and_noise_are_drawn():
    own = picture(solid(0, 60, 60))
    step = RandomErasing(areas=(0.1, 0.2), aspect_ratios=(0.5, 2.0), count=1)
    ratios, values, first = [], [], set()
    for seed in seeds(30):
        image = step.apply(own, [], seed, None)["image"].numpy()
        at = np.argwhere(image.any(axis=2))
        height, width = at.max(0) + 1 - at.min(0)
        assert 0.09 * 3600 < height * width < 0.21 * 3600
        ratios.append(height / width)
        first.add(tuple(image[tuple(at.min(0))]))
        values += [*image[image.any(axis=2)].ravel()]
    assert 0.45 < min(ratios) < 0.8 and 1.25 < max(ratios) < 2.2
    assert len(first) > 25
    assert abs(np.mean(values) - 127.5) < 3 and min(values) == 0 and max(values) == 255
    three = RandomErasing(areas=(0.01, 0.01), count=3, fill=9).apply(own, [], seeds(1)[0], None)
    assert (three["image"].numpy()[..., 0] == 9).sum() > 60


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_the_smallest_pictures_pass(size):
    own = picture(solid(50, *size))
    for step in (RandomColors(count=3), RandomErasing(count=2)):
        for seed in seeds(6):
            assert step.apply(own, [], seed, None)["image"].shape == (*size, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomColors(operations=("rotate",)), "expected one or more of 'brightness'"),
        (lambda: RandomColors(operations=()), "RandomColors.operations is ()"),
        (lambda: RandomColors(count=0), "RandomColors.count is 0; expected a whole number"),
        (lambda: RandomColors(magnitude=9), "RandomColors.magnitude is 9; expected a number"),
        (lambda: RandomErasing(areas=(0.5, 0.1)), "expected the smallest number first"),
        (lambda: RandomErasing(fill=-1), "RandomErasing.fill is -1"),
        (lambda: RandomErasing(count=True), "RandomErasing.count is True"),
    ],
)
def test_settings_out_of_their_bounds_are_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert words in str(error.value)
