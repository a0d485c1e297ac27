"""Every recipe parses, builds and trains for a step; a small one overfits a handful of images."""

import json

import pytest

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from ssd_centernet.training.schedules import RunLength
from tests.docs.commands import trained_recipes
from tests.narrow import NARROW, TRAINED_BY_SCRIPTS

# The same pictures are drawn by `show_inputs`, of each recipe: tests/test_recipe.py.
SMALL = (
    "IMAGE_SIZE = (96, 96)",
    "train.batch_size = 2",
    "train.steps = 1",
    "train.seed = 3",
    "train.pictures = 0",
    "train.eval_split = None",
)


# The others are trained by commands: tests/scripts/test_smoke.py and tests/docs/test_pages.py.
REST = sorted({*config.recipes()} - {*TRAINED_BY_SCRIPTS} - trained_recipes())


@pytest.mark.parametrize("recipe", REST)
def test_every_other_recipe_trains_for_a_step(recipe, data_dir, tmp_path):
    config.parse([recipe], [*SMALL, *NARROW.get(recipe, ())])
    try:
        assert train(tmp_path, data_dir) == "finished"
    finally:
        config.clear()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert record["total"] > 0
    # What the run saved is enough to build it again.
    config.parse([tmp_path / "config.gin"])
    config.clear()


@pytest.mark.parametrize("recipe", [name for name in config.recipes() if "overfit" not in name])
def test_every_recipe_takes_the_layer_for_small_sets(recipe):
    config.parse([recipe, "optim/finetune"])
    try:
        made = Recipe()
        run = RunLength(steps_per_epoch=10, total_steps=2000, global_batch_size=16)
        schedule = made.schedule()
        assert (made.batch_size, made.steps, made.epochs) == (16, 2000, None)
        assert made.evaluate_every == 200 and not made.freeze_random
        # It rises, and falls with the end of the run.
        rates = [float(schedule(step, run)) for step in (1, 300, 1000, 1999)]
        assert rates[0] <= rates[1] and 0 <= rates[3] < 0.02 * rates[1] < rates[2]
    finally:
        config.clear()


@pytest.mark.parametrize("recipe", config.recipes())
def test_every_recipe_says_where_it_comes_from_and_how_it_runs(recipe):
    header = config.find_recipe(recipe).read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Reference:", "Run:", f"--gin_file={recipe}"):
        assert word in config.find_recipe(recipe).read_text(), word


def test_a_handful_of_images_is_overfitted(tiny_recipe, data_dir, tmp_path):
    params = [
        "SSDAugment.crop = False",
        "SSDAugment.flip_probability = 0.0",
        "SSDAugment.jitter = False",
        "ResNet.blocks = (2,)",
        "ResNet.widths = (16,)",
        "ConstantRate.learning_rate = 0.02",
        "ConstantRate.warmup_steps = 20",
        "train.weight_decay = 0.0",
        "train.eval_split = 'coco_train'",
        "train.steps = 240",
        "train.evaluate_every = 240",
        "train.log_every = 60",
    ]
    config.parse([tiny_recipe], params)
    try:
        train(tmp_path, data_dir)
    finally:
        config.clear()
    metrics = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert metrics["AP50"] > 0.9
