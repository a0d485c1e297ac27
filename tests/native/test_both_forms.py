"""The compiled operations do what the graphs do; `python -m tests.native --all` tries more."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.native import calls, library
from tests.native import both_forms
from tests.parity import VECTORS, harness


@pytest.mark.parametrize("name", both_forms.CHAINS)
def test_chains_decide_alike_and_make_the_same_pixels(name):
    # Without XLA, which takes a second for each length of a list of pixels.
    found = both_forms.compare_chain(both_forms.make_chain(name, compiled=False), 25)
    assert found.images == 25
    assert not found.decisions and found.boxes == 0.0
    assert found.pixels < both_forms.TOLERANCE


def test_matching_decides_alike_on_ties_too():
    found = both_forms.compare_matching(150)
    assert found.images == 150 and not found.decisions and found.boxes < 1e-5


def test_the_compiled_form_is_used_where_it_is_asked_for():
    example = next(both_forms.pictures(np.random.default_rng(0), 1))
    chain = both_forms.make_chain("ssd", compiled=False)

    @tf.function
    def run():
        return chain(example, [1, 2])["image"]

    def operations(form):
        with library.use(form):
            graph = tf.function(lambda: chain(example, [1, 2])["image"]).get_concrete_function()
        return {each.type for each in graph.graph.get_operations()}

    mine = {"SsdCenternetRender", "SsdCenternetFindCrop"}
    assert mine <= operations(True) and not mine & operations(False)
    assert mine <= operations(None)
    assert library.active() is None


@pytest.mark.parametrize("system", ["ssd_resnet34", "ssd320_resnet50_fpn", "ssd_vgg16"])
def test_reference_vectors_of_targets(system):
    import importlib

    module = importlib.import_module(f"tests.parity.{system}")
    lines = []
    report = harness.Report(lines.append)
    vectors = harness.Vectors(VECTORS / system, optional=module.OPTIONAL_FILES)
    with library.use(True):
        module.SECTIONS["targets"](vectors, report)
    assert report.rows and not report.failed, "\n".join(lines)


@pytest.mark.parametrize("turns", [0, 3])
def test_the_same_numbers_are_drawn_as_tensorflow_draws(turns):
    """Bounds that only the last of some turns meets show every number before it."""
    box = tf.constant([[0.3, 0.3, 0.7, 0.7]])
    options = {"min_ious": (0.85,), "no_crop_probability": 0.02 * turns, "max_aspect_ratio": 2.0}
    from ssd_centernet.data.augment import overlap_crop, ssd

    for seed in range(6):
        for search, more in ((ssd.sample_crop, ()), (overlap_crop.sample_crop, ([331, 217],))):
            boxes = box * [331.0, 217.0, 331.0, 217.0] if more else box
            results = []
            for form in (False, True):
                with library.use(form):
                    results.append(search(boxes, *more, tf.constant([2**40 + 7, seed]), **options))
            for one, two in zip(*results, strict=True):
                np.testing.assert_array_equal(one, two)


def test_wrong_arguments_are_errors_and_end_nothing():
    pixels = tf.zeros([4, 4, 3], tf.uint8)
    common = {"flip": False, "mean": (0, 0, 0), "std": (1, 1, 1), "sampling": "legacy"}
    part = tf.constant([0, 0, 4, 4])
    with library.use(True):
        for window, place in (([0, 0, 5, 4], part), ([-1, 0, 4, 4], part), (part, part + 1)):
            places = calls.places(place, canvas=(4, 4), scaled=(2, 2))
            with pytest.raises(tf.errors.InvalidArgumentError):
                calls.render(pixels, window, (2, 2), places=places, **common)
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected 4 numbers"):
            calls.render(pixels, [0, 0, 4], (2, 2), places=places, **common)
        flags = {name: tf.ones([1], tf.bool) for name in ("objects", "forced", "regions")}
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected 2 rows"):
            calls.match(
                tf.zeros([2, 4]),
                tf.zeros([2], tf.int32),
                tf.zeros([3, 4]),
                matched_threshold=0.5,
                last_claim_wins=False,
                scale_factors=(1, 1, 1, 1),
                **flags,
            )
