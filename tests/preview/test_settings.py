"""Commands that look at a training before it begins take the settings that it takes."""

import re

import pytest

from ssd_centernet import config
from ssd_centernet.cli import show_anchors, show_inputs
from tests.cli.command_line import parsed

SETTINGS = (
    "train.augment_on = 'device'",
    "DeviceRendering.window_size = (200, 300)",
    "train.loss_scale = @LossScale",
    "LossScale.initial = 8.0",
    "Momentum.momentum = 0.5",
    "ConstantRate.warmup_steps = 5",
    "train.batches = @training_batches",
    "training_batches.shuffle_buffer = 3",
)


def run(module, tiny_recipe, data_dir, *settings, output=()):
    name = module.__name__.rpartition(".")[2]
    given = [f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", *output]
    with parsed(name, [*given, *(f"--gin_params={one}" for one in settings)]):
        assert module.main([name]) == 0


@pytest.mark.parametrize("module", [show_inputs, show_anchors])
def test_any_setting_of_a_training_is_taken(module, tiny_recipe, data_dir, tmp_path, capsys):
    output = [f"--output={tmp_path / 'sheet.png'}"] if module is show_inputs else []
    run(module, tiny_recipe, data_dir, *SETTINGS, output=output)
    assert "coco_train" in capsys.readouterr().out
    # One that has no effect on the training is refused here too.
    with pytest.raises(config.ConfigError, match=re.escape("DeviceRendering.window_size")):
        run(module, tiny_recipe, data_dir, SETTINGS[1], output=output)


def test_of_many_images_the_first_are_drawn(tiny_recipe, data_dir, tmp_path, capsys):
    output = [f"--output={tmp_path / 'sheet.png'}", "--num_images=2"]
    run(show_inputs, tiny_recipe, data_dir, output=output)
    said = capsys.readouterr().out
    assert "sheet.png: 2 images, " in said
    assert re.search(r"they are the first of \d+ that coco_train has to train on", said)
