"""Steps on whole pictures in the pipeline: the same after a resume, in each form and each place."""

import re

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet import recipe as recipe_module
from ssd_centernet.cli import show_inputs
from ssd_centernet.data.augment import compose
from ssd_centernet.data.augment.centernet import SquareCropAugment
from ssd_centernet.data.augment.joining import CopyPaste, MixUp, Mosaic
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.augment.photometric import RandomColors, RandomErasing
from ssd_centernet.data.augment.ssd_fpn import SSDFPNAugment
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.loading import resize_only
from ssd_centernet.native import library
from ssd_centernet.ops import boxes as box_ops
from tests.cli.command_line import parsed
from tests.data.test_pipeline import (
    CHAIN,
    PLAIN,
    SIZE,
    assert_same,
    examples,
    preprocess,
    record,
    training,
    write,
)
from tests.training.test_train import assert_same_bits, run

TWO = (Mosaic(probability=0.7), MixUp())


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    """13 images in 4 files, of which 11 have a box."""
    items = [record(n, count=0 if n in (3, 8) else 1 + n % 4) for n in range(13)]
    return write(tmp_path_factory.mktemp("records"), items, 4)


def composing(folder, **changes):
    options = {"augment": PLAIN, "compose": TWO, "image_size": SIZE, "total_examples": 60}
    options |= {"max_boxes": 20, "seed": 3, "shuffle_buffer": 4}
    return training(folder, **options | changes)


# An epoch has 11 images: in its midst, at its end, and where `Mosaic` and `MixUp` have ended.
@pytest.mark.parametrize(
    ("cache", "weights", "starts"),
    [(False, None, (1, 22, 58)), (True, None, (7,)), (False, (1.0,), (7,)), (True, (1.0,), (7,))],
    ids=["read", "cached", "mixed", "mixed and cached"],
)
def test_a_resumed_stream_joins_the_same(records_dir, cache, weights, starts):
    options = {"cache": cache, "data_weights": weights}
    whole = examples(composing(records_dir, **options), 64)
    for start in starts:
        rest = examples(composing(records_dir, start_example=start, **options), 64 - start)
        assert_same(rest, {key: values[start:] for key, values in whole.items()})
    plain = examples(composing(records_dir, compose=(), **options), 64)
    changed = (whole["image"] != plain["image"]).any(axis=(1, 2, 3))
    assert_same(whole["source_id"], plain["source_id"])
    # Both end after 57 of the run's 60 examples.
    assert 40 < changed[:57].sum() < 57 and not changed[57:].any()


def test_each_rank_joins_its_own_and_resumes(records_dir):
    parts = [examples(composing(records_dir, rank=rank, world_size=2), 30) for rank in (0, 1)]
    assert not np.array_equal(parts[0]["image"], parts[1]["image"])
    rest = examples(composing(records_dir, rank=1, world_size=2, start_example=8), 22)
    assert_same(rest, {key: values[8:] for key, values in parts[1].items()})


def test_partners_are_others_of_the_next_ones(tmp_path):
    folder = write(tmp_path, [record(number) for number in range(60)])

    class Names(compose.PictureStep):
        partners = 3

        def apply(self, own, partners, seed, image_size):
            ids = tf.stack([one["source_id"] for one in [own, *partners]])
            flags = {"is_crowd": tf.zeros([4], tf.bool), "area": tf.zeros([4])}
            return {**own, **flags, "boxes": tf.zeros([4, 4]), "classes": tf.cast(ids, tf.int32)}

    found = examples(composing(folder, compose=Names(), total_examples=None), 60)
    ids = found["classes"][:, :4]
    np.testing.assert_array_equal(ids[:, 0], found["source_id"])
    order = [*found["source_id"]]
    places = [[order.index(one) - own for one in ids[own]] for own in range(27)]
    assert all(len({*row}) == 4 and 1 <= min(row[1:]) and max(row) <= 32 for row in places)
    assert len({tuple(row) for row in places}) == 27 and len({*np.ravel(places)}) > 28


STEPS_OF_EACH_KIND = (*TWO, CopyPaste(), RandomColors(), RandomErasing())


@pytest.mark.parametrize("step", STEPS_OF_EACH_KIND, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize(
    "chain",
    [
        PLAIN,
        SSDFPNAugment(SIZE, compiled=False),
        SquareCropAugment(SIZE, square_crop=False, scales=(0.1, 2.0), compiled=False),
        resize_only(preprocess),
    ],
    ids=["ssd", "pyramid", "centernet", "resize"],
)
def test_every_chain_takes_what_a_step_makes(records_dir, step, chain):
    batches = composing(records_dir, compose=step, augment=chain)
    assert all(item.shape.is_fully_defined() for item in tf.nest.flatten(batches.element_spec))
    found = examples(batches, 24)
    assert np.isfinite(found["image"]).all()
    boxes = found["boxes"][found["valid"]]
    assert (boxes >= 0).all() and (boxes <= 1).all() and (box_ops.area(boxes) > 0).all()
    assert found["valid"].sum() > 24


def test_both_forms_of_the_chain_get_the_same_picture(records_dir, form):
    """The steps are graphs in both; the chains differ by rounding alone."""
    with library.use(False):
        expected = examples(composing(records_dir, augment=CHAIN, native=False), 16)
    found = examples(composing(records_dir, augment=CHAIN, native=form), 16)
    np.testing.assert_allclose(found.pop("image"), expected.pop("image"), atol=1e-4)
    assert_same(found, expected)


def test_the_device_makes_the_same_pixels(records_dir):
    size = (2 * SIZE[0], 2 * SIZE[1])
    rendering = DeviceRendering(CHAIN, window_size=size)
    mosaic = Mosaic(off_for_last=0.0)
    expected = examples(composing(records_dir, augment=CHAIN, compose=mosaic), 8)
    batches = composing(records_dir, compose=mosaic, augment=rendering.ship)
    shipped = next(iter(batches.unbatch().batch(8)))
    found = rendering.render(shipped)
    unit = 255.0 * max(CHAIN.std)
    np.testing.assert_allclose(found["image"] * unit, expected["image"] * unit, atol=0.1)
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])


def test_a_chain_of_ones_own_is_told_that_there_are_no_files(records_dir):
    def asks(example, seed):
        length = tf.cast(tf.strings.length(example["encoded"]), tf.float32)
        return {**example, "image": tf.fill([*SIZE, 3], length)}

    assert "image" in composing(records_dir, augment=asks, compose=()).element_spec
    with pytest.raises(ValueError, match=r"train.augment asks for example\['encoded'\]"):
        composing(records_dir, augment=asks)

    def takes(example, seed):
        image = tf.cast(tf.image.resize(example["image"], SIZE), tf.float32)
        return {**example, "image": image}

    assert examples(composing(records_dir, augment=takes), 4)["image"].max() > 100


RUN = ("train.log_every = 1", "train.checkpoint_every = 2", "train.batch_size = 2")
STEPS = "train.compose = (@Mosaic(), @MixUp(), @CopyPaste())"
ALWAYS = ("Mosaic.off_for_last = 0.0", "MixUp.off_for_last = 0.0")


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
def test_a_run_with_steps_resumes_bit_for_bit(device, tiny_recipe, data_dir, tmp_path):
    settings = (*RUN, STEPS, *ALWAYS)
    if device:
        settings += ("train.augment_on = 'device'", "DeviceRendering.window_size = (128, 128)")
    run(tiny_recipe, data_dir, tmp_path / "whole", *settings, "train.steps = 4")
    run(tiny_recipe, data_dir, tmp_path / "parts", *settings, "train.steps = 2")
    run(tiny_recipe, data_dir, tmp_path / "parts", *settings, "train.steps = 4")
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_frames_that_are_too_small_for_a_canvas_end_a_training_before_it_begins(
    tiny_recipe, data_dir, tmp_path
):
    device = ("train.augment_on = 'device'", "DeviceRendering.window_size = (100, 140)")
    words = r"have up to 128 rows and 128 columns: set DeviceRendering.window_size = \(128, 140\)"
    with pytest.raises(ValueError, match=words):
        run(
            tiny_recipe,
            data_dir,
            tmp_path / "run",
            *RUN,
            STEPS,
            *ALWAYS,
            *device,
            "train.steps = 1",
        )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.compose = @Mosaic", "train.compose is the class Mosaic"),
        ("train.compose = @SSDAugment()", "train.compose is a SSDAugment that is built, expected"),
        ("train.compose = (@Mosaic(), 'MixUp')", "such as @Mosaic(), or a tuple of steps"),
        ("train.compose = @Mosaic()\nMosaic.fill = 300", "Mosaic.fill is 300"),
        (
            "train.compose = (@MixUp(), @Mosaic())\nMosaic.off_for_last = 1.0",
            "Mosaic.off_for_last is 1.0: no picture would go through it. Expected a number below 1",
        ),
        ("train.compose = @MixUp()\nMixUp.probability = 0", "MixUp.probability is 0.0: no picture"),
    ],
)
def test_what_is_no_step_is_refused(setting, words, tiny_recipe, data_dir, tmp_path):
    with pytest.raises(ValueError) as error:
        run(tiny_recipe, data_dir, tmp_path / "run", *RUN, *setting.split("\n"), "train.steps = 1")
    assert words in str(error.value)


def test_the_length_of_the_run_decides_where_a_step_ends(tiny_recipe, data_dir):
    seen = {}
    lines = (*RUN, "train.compose = @Mosaic()", "train.steps = 7", "train.accumulate_steps = 3")
    config.parse([tiny_recipe], lines)
    try:
        recipe = recipe_module.Recipe()
        recipe = recipe.replace(batches=lambda *_, **options: seen.update(options))
        detector = recipe.detector(load_label_map(data_dir))
        recipe.training_batches(detector, data_dir, world_size=2)
    finally:
        config.clear()
    assert seen["total_examples"] == 7 * 3 * 2 and seen["image_size"] == (64, 64)


def test_inputs_are_drawn_as_they_are_joined(tiny_recipe, data_dir, tmp_path, capsys):
    files = [f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", "--gin_params=train.steps = 99"]
    counts = []
    for more in ([], ["--gin_params=train.compose = @Mosaic()"]):
        output = tmp_path / f"{len(more)}.png"
        with parsed("show_inputs", [*files, f"--output={output}", "--num_images=8", *more]):
            assert show_inputs.main(["show_inputs"]) == 0
        counts.append(int(re.search(r"(\d+) objects?, ", capsys.readouterr().out)[1]))
    assert counts[1] > 2 * counts[0]
