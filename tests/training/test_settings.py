"""Settings of another kind than can be used: one line, before anything is built."""

import gin
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.models.weight_decay import NORMS, decay_mask
from ssd_centernet.recipe import Recipe
from tests.tiny import tiny_detector
from tests.training.test_train import run


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer = @Adam()", r"optimizer is a \w+ that is built, expected .* without brackets"),
        ("optimizer = 'adam'", "optimizer is 'adam', expected the name of a constructor .* @Adam"),
        ("schedule = @ConstantRate()", "schedule is a ConstantRate that is built, expected"),
        (
            "augment = @CropPadAugment",
            r"CropPadAugment \(without brackets\), expected .* brackets .*@SSDAugment\(\)",
        ),
        ("weight_decay = '5e-4'", "weight_decay is '5e-4', expected a number without quotes"),
        ("weight_decay = -1.0", "weight_decay is -1.0, expected a number of 0 or more"),
        ("epochs = 'ten'", "epochs is 'ten', expected a number"),
        ("batch_size = 0", "batch_size is 0, expected a whole number of 1 or more"),
        ("batch_size = 2.5", "batch_size is 2.5, expected a whole number"),
        ("seed = -1", r"seed is -1, expected a whole number in 0\.\."),
        ("keep_empty = 'False'", "keep_empty is 'False', expected True or False"),
        ("decay_exclude = 3", "decay_exclude is 3, expected a regular expression"),
        ("freeze = (1,)", r"freeze is \(1,\), expected a regular expression"),
        ("clip_norm = 0", "clip_norm is 0, expected a number above 0"),
        ("early_stop_patience = 0", "early_stop_patience is 0, expected a whole number of 1"),
        ("log_every = 'often'", "train.log_every is 'often', expected a number of steps or text"),
        ("evaluate_every = '1..5 epochs'", "train.evaluate_every is '1..5 epochs', expected"),
        ("checkpoint_every = 2.5", "train.checkpoint_every is 2.5, expected a number of steps"),
        ("fine_tune_checkpoint_type = 'full'", "--fine_tune_checkpoint_type is 'full', but there"),
        ("fine_tune_exclude = ('a',)", r"train.fine_tune_exclude is \('a',\), but there is no"),
        ("fine_tune_channels = 'BGR'", "train.fine_tune_channels is 'BGR', but there is no"),
    ],
)
def test_another_kind_of_value_is_told(tiny_recipe, data_dir, tmp_path, setting, message):
    settings = ("train.steps = 1", f"train.{setting}")
    with pytest.raises(ValueError, match=message) as caught:
        run(tiny_recipe, data_dir, tmp_path / "r", *settings)
    assert "0x" not in str(caught.value).splitlines()[0]


def test_patience_needs_a_metric():
    with pytest.raises(ValueError, match="patience is 3, but train.keep_best is None"):
        Recipe(early_stop_patience=3, keep_best=None)


def test_a_text_is_one_pattern():
    """Its characters, taken for patterns, would match nearly every name."""
    detector = tiny_detector()
    variables = detector.trainable_variables
    mask = decay_mask(variables, "_norm/")
    assert mask == decay_mask(variables, ("_norm/",))
    assert mask == ["_norm/" not in variable.name for variable in variables]
    assert 0 < sum(mask) < len(mask)
    frozen = {v.name for v in variables} - {v.name for v in detector.variables_to_train("stem_")}
    assert frozen and all(name.startswith("stem_") for name in frozen)


def test_patterns_without_effect_or_sense_are_refused():
    detector = tiny_detector()
    variables = detector.trainable_variables
    with pytest.raises(ValueError, match="'_nrom/' in train.decay_exclude matches no variable"):
        decay_mask(variables, ("_norm/", "_nrom/"))
    # The default is no mistake of anybody's where a network has no norms.
    assert decay_mask([tf.Variable(0.0, name="conv/kernel")], NORMS) == [True]
    with pytest.raises(ValueError, match=r"'\(' in train.freeze is no regular expression"):
        detector.variables_to_train("(")


def test_the_length_that_is_set_last_counts(tiny_recipe, data_dir, tmp_path, capsys):
    recipe = tiny_recipe.read_text()
    tiny_recipe.write_text(f"{recipe}\ntrain.steps = 9\ntrain.eval_split = None\n")
    run(tiny_recipe, data_dir, tmp_path / "r", "train.epochs = 0.5")
    said = capsys.readouterr().out
    assert "3 steps an epoch, 2 steps in all (train.epochs = 0.5)" in said
    # What is saved means the same when it is read back.
    assert lengths([tmp_path / "r" / "config.gin"]) == (None, 0.5)


def test_of_two_lengths_the_later_one_is_kept(tiny_recipe):
    tiny_recipe.write_text("train.steps = 9\n")
    assert lengths([tiny_recipe], ["train.epochs = 2"]) == (None, 2)
    assert lengths([tiny_recipe], ["train.epochs = 2", "train.steps = 3"]) == (3, None)
    # None takes one away and says nothing about the other.
    assert lengths([tiny_recipe], ["train.epochs = None"]) == (9, None)


def lengths(files, params=()):
    config.parse(files, params)
    try:
        known = gin.get_bindings("train", resolve_references=False)
        return known.get("steps"), known.get("epochs")
    finally:
        config.clear()


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("SSDDecoder.score_treshold = 0.3", "score_threshold"),
        ("ResNet.blokcs = (1, 1)", "blocks"),
        ("Adam.epsilonn = 1e-7", "epsilon"),
    ],
)
def test_misspelt_parameters_of_keras_parts_have_near_matches(setting, meant):
    with pytest.raises(config.ConfigError, match=rf"has no parameter .*Did you mean {meant}"):
        config.parse([], [setting])
    config.parse([], ["SSDDecoder.trainable = False", "Adam.weight_decay = 0.1"])
