"""A training at several sizes of images: its steps, its resume, and what refuses it."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config, fit_data
from ssd_centernet._keras import keras
from ssd_centernet.cli.make_static import write_workers
from ssd_centernet.preview import fed_images
from ssd_centernet.recipe import Recipe
from ssd_centernet.training.image_sizes import sized_parts
from ssd_centernet.training.loop import compile_steps
from tests.tiny import LABELS, tiny_detector
from tests.training.test_train import assert_same_bits, run

SIZES = "train.image_sizes = ((64, 64), (96, 80), (48, 48))"
# The images have no padding, and one step is compared with another by hand.
PLAIN = ("train.weight_decay = 0.0", "Momentum.momentum = 0.0", "train.steps = 10")


@pytest.fixture
def parsed(tiny_recipe):
    """Return a function from further settings to the recipe, which stays parsed for the test."""

    def parse(*params):
        config.parse([tiny_recipe], [SIZES, *PLAIN, *params])
        return Recipe()

    yield parse
    config.clear()


@pytest.mark.parametrize(
    "more",
    [
        ("train.accumulate_steps = 2",),
        ("train.augment_on = 'device'", "DeviceRendering.window_size = (96, 96)"),
    ],
    ids=["accumulated", "device"],
)
def test_a_step_is_one_of_the_sibling_by_hand(parsed, data_dir, more):
    """Each update is that of SGD on the loss of the detector at the size of its images."""
    recipe, detectors = parsed(*more), []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        detectors.append(recipe.detector(LABELS))
    detector, other = detectors
    trainer = recipe.trainer(detector, recipe.length(12))
    batches = recipe.training_batches(detector, data_dir, for_step=True)
    seen = recipe.training_batches(other, data_dir).as_numpy_iterator()
    steps = compile_steps(trainer, tf.distribute.get_strategy())
    iterator, met = iter(batches), set()
    for _ in range(3):
        steps(iterator, tf.constant(1))
        gradients = []
        for _ in range(recipe.accumulate_steps):
            batch = next(seen)
            size = batch["image"].shape[1:3]
            met.add(size)
            form = other.at_size(size)
            with tf.GradientTape() as tape:
                parts = form.compute_losses(form(batch["image"], training=True), batch)
                total = form.total_loss(parts)
            gradients.append(tape.gradient(total, other.trainable_variables))
        for variable, *each in zip(other.trainable_variables, *gradients, strict=True):
            variable.assign_sub(0.01 * sum(each) / len(each))
    trainer.raise_if_failed()
    assert len(met) > 1
    pairs = zip(detector.trainable_variables, other.trainable_variables, strict=True)
    for one, wanted in pairs:
        np.testing.assert_allclose(one, wanted, atol=2e-5, err_msg=one.name)


def test_two_steps_equal_one_and_one(tiny_recipe, data_dir, tmp_path, capsys):
    more = ("train.image_sizes = ((96, 80), (48, 48))", "train.ema_decay = 0.9")
    more += ("train.checkpoint_every = 1",)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    # An evaluation leaves no trace in what is trained.
    seen = ("train.evaluate_every = 2", "train.pictures = 2")
    run(tiny_recipe, data_dir, whole, *more, *seen, "train.steps = 2")
    said = capsys.readouterr().out
    assert "each update has images of 96 x 80 or 48 x 48 pixels" in said
    run(tiny_recipe, data_dir, halves, *more, "train.steps = 1")
    run(tiny_recipe, data_dir, halves, *more, "train.steps = 2")
    assert_same_bits(whole, halves)
    settings = (whole / "config.gin").read_text()
    assert re.search(r"train.image_sizes = \\?\s*\(\(96, 80\)", settings)
    # It is evaluated at the size of the network, which is none of them.
    lines = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
    assert sum(one["kind"] == "eval" for one in lines) == 1


def test_one_size_that_is_the_networks_own_changes_no_bit(tiny_recipe, data_dir, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    run(tiny_recipe, data_dir, one, "train.steps = 2")
    run(tiny_recipe, data_dir, other, "train.steps = 2", "train.image_sizes = ((64, 64),)")
    assert_same_bits(one, other)


def test_a_step_that_is_not_finite_is_told_as_at_one_size(tiny_recipe, data_dir, tmp_path):
    wild = "ConstantRate.learning_rate = 1e30"
    with pytest.raises(RuntimeError, match=r"step \d+ is not finite.*Images \(source ids\): \d+"):
        run(tiny_recipe, data_dir, tmp_path, SIZES, wild, "train.steps = 6")


def test_inputs_are_shown_at_each_size(parsed, data_dir, tmp_path):
    recipe = parsed()
    detector = recipe.detector(LABELS)
    fed = fed_images.show_inputs(
        detector,
        recipe.training_batches(detector, data_dir),
        tmp_path / "inputs.png",
        heading="as fed",
        num_images=4,
        cell_size=96,
        sizes=recipe.image_sizes,
    )
    shown = [one.image.shape[:2] for one in fed]
    assert sorted(shown) == [(48, 48), (64, 64), (64, 64), (96, 80)]
    # The anchors of each are its own, and hold its objects.
    for one in fed:
        assert set(one.matches.owners.tolist()) == set(range(len(one.boxes)))
    assert (tmp_path / "inputs.png").stat().st_size


def test_what_takes_one_size_refuses_several(parsed, tiny_recipe, data_dir, tmp_path):
    recipe = parsed()
    said = r"train.image_sizes draws one of 64 x 64, 96 x 80 or 48 x 48 pixels.*make_static"
    with pytest.raises(ValueError, match=said):
        write_workers(recipe, data_dir, tmp_path / "static", steps=1)
    with pytest.raises(ValueError, match="but fit takes batches of one size"):
        fit_data.training_data(data_dir, tiny_detector(), recipe=tiny_recipe, settings=[SIZES])
    own = recipe.replace(augment=lambda example, seed: example)
    with pytest.raises(ValueError, match="has no form of another size: give it a method at_size"):
        own.training_batches(recipe.detector(LABELS), data_dir)


@pytest.mark.parametrize(
    "value", ["(64, 64)", "()", "((64,),)", "((64, 64), (64, 64))", "((0, 64),)", "'64'"]
)
def test_other_sizes_are_refused(tiny_recipe, value):
    config.parse([tiny_recipe], [f"train.image_sizes = {value}"])
    try:
        with pytest.raises(ValueError, match=r"train.image_sizes is .*a tuple of different"):
            Recipe()
    finally:
        config.clear()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("centernet_demo", "backbone's coarsest map has 32 pixels"),
        ("ssd300_resnet34", "first two maps, which halve, both have 1 x 1 cells"),
    ],
)
def test_images_smaller_than_a_cell_are_refused(recipe, said):
    config.parse([recipe], ["train.image_sizes = ((256, 256), (8, 8))"])
    try:
        made = Recipe()
        detector = made.detector(num_classes=2)
    finally:
        config.clear()
    with pytest.raises(ValueError, match=rf"train.image_sizes has \(8, 8\), .*{said}.*Expected"):
        sized_parts(detector, made.image_sizes, None, None)
    # What the documents name trains.
    assert len(sized_parts(detector, made.image_sizes[:1], None, None)) == 1
