"""The average of the weights: its values, what is evaluated and kept, and a run that goes on."""

import gc
import json

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet as sc
from ssd_centernet.checkpoint_files import holds_averages
from ssd_centernet.cli._runs import open_run_of_flags
from ssd_centernet.models.weight_average import WeightAverage
from ssd_centernet.run_directory import named_weights
from ssd_centernet.runs.opened import open_run
from tests.cli.command_line import parsed
from tests.tiny import tiny_batch, tiny_trainer
from tests.training.test_train import run

SETTINGS = ("train.ema_decay = 0.5", "train.evaluate_every = 4", "train.checkpoint_every = 2")


def values(detector):
    return {name: variable.numpy() for name, variable in named_weights(detector).items()}


def differing(left, right):
    return [name for name in left if not np.array_equal(left[name], right[name])]


def test_average_follows_the_updates_with_a_decay_that_grows():
    trainer = tiny_trainer(ema_decay=0.25)
    step = tf.function(trainer.train_step)
    expected = values(trainer.detector)
    for number in range(4):
        step(tiny_batch(number))
        # 0.1, 2/11 and then 0.25, which 3/12 reaches.
        decay = min(0.25, (1 + number) / (10 + number))
        for name, value in values(trainer.detector).items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    with trainer.average.in_use():
        found = values(trainer.detector)
    assert len(found) > 20
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    # Moving statistics are averaged too, and all is as before outside of the context.
    assert "stem_norm/moving_mean" in differing(found, values(trainer.detector))


def test_average_does_not_change_the_training():
    plain, averaged = tiny_trainer(), tiny_trainer(ema_decay=0.9)
    for variable, value in zip(averaged.detector.variables, plain.detector.variables, strict=True):
        variable.assign(value)
    for number in range(2):
        plain.train_step(tiny_batch(number))
        averaged.train_step(tiny_batch(number))
        with averaged.average.in_use():
            pass
    assert not differing(values(plain.detector), values(averaged.detector))


def test_a_step_that_is_skipped_does_not_count():
    trainer = tiny_trainer(ema_decay=0.5)
    trainer.train_step(tiny_batch())  # Before it averages and weights are the same.
    before = [average.numpy() for average in trainer.average.averages]
    batch = tiny_batch()
    trainer.train_step({**batch, "image": batch["image"] * np.nan})
    weights = {id(variable) for variable in trainer.train_variables}
    for variable, average, value in zip(
        trainer.average.followed, trainer.average.averages, before, strict=True
    ):
        if id(variable) in weights:
            np.testing.assert_array_equal(average.numpy(), value)


def test_values_of_another_precision_than_floats_are_left_alone():
    variables = [tf.Variable(1.0), tf.Variable(3, dtype=tf.int64)]
    average = WeightAverage(variables, 0.5)
    variables[0].assign(2.0)
    variables[1].assign(4)
    with average.in_use():
        assert [float(v) for v in variables] == [1.0, 4.0]
    named = average.named({"a": variables[0], "b": variables[1]})
    assert named["a"] is average.averages[0] and named["b"] is variables[1]


def test_a_whole_number_is_a_decay():
    average = WeightAverage([tf.Variable(1.0)], 0)
    average.followed[0].assign(2.0)
    average.update(tf.constant(0, tf.int64))
    assert float(average.averages[0]) == 2.0


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="ema_decay"):
        WeightAverage([tf.Variable(1.0)], decay)


def test_run_evaluates_keeps_and_resumes_its_average(tiny_recipe, data_dir, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tiny_recipe, data_dir, whole, "train.steps = 4", *SETTINGS)
    run(tiny_recipe, data_dir, parts, "train.steps = 2", *SETTINGS)
    run(tiny_recipe, data_dir, parts, "train.steps = 4", *SETTINGS)
    found = {}
    for folder in (whole, parts):
        for trained in (False, True):
            found[folder, trained] = values(sc.load(folder / "ckpt-4", trained=trained))
    # The same to the last bit; the average is another network than the one that is trained.
    for trained in (False, True):
        assert not differing(found[whole, trained], found[parts, trained])
    assert "stem_conv/kernel" in differing(found[whole, False], found[whole, True])
    assert holds_averages(whole / "ckpt-4") and holds_averages(whole / "best" / "ckpt-4")
    # What was evaluated, and is kept as the best, is the average.
    kept = sc.load(whole, checkpoint="best")
    assert all("moving" in name for name in differing(values(kept), found[whole, False]))
    recorded = json.loads((whole / "evaluation" / "detections.json").read_text())
    for detector, same in ((kept, True), (sc.load(whole, checkpoint="best", trained=True), False)):
        scores = sorted(one["score"] for one in sc.evaluate(detector, data_dir).detections)
        assert scores, "nothing was detected"
        ours = sorted(one["score"] for one in recorded)
        assert (len(scores) == len(ours) and np.allclose(scores, ours, atol=1e-4)) == same
    # The flag of evaluate, predict and export; without it, as with "ema", the average.
    for flag, want in (([], kept), (["--weights=ema"], kept), (["--weights=raw"], None)):
        with parsed("evaluate", [f"--model_dir={whole}", "--checkpoint=best", *flag]):
            opened = open_run_of_flags(checkpoint="best")
        want = want or sc.load(whole, checkpoint="best", trained=True)
        assert not differing(values(opened.detector), values(want)), flag


def test_run_that_begins_or_ends_to_average_says_so(
    tiny_recipe, data_dir, tmp_path, capsys, caplog
):
    model_dir = tmp_path / "run"
    run(tiny_recipe, data_dir, model_dir, "train.steps = 1")
    capsys.readouterr()
    run(tiny_recipe, data_dir, model_dir, "train.steps = 2", "train.ema_decay = 0.5")
    assert "note: the run did not average its weights so far" in capsys.readouterr().out
    run(tiny_recipe, data_dir, model_dir, "train.steps = 3", "train.ema_decay = 0.5")
    assert "did not average" not in capsys.readouterr().out
    # A step of rate 0: what goes on are the weights that were trained, not the averages.
    trained = values(sc.load(model_dir, checkpoint="latest", trained=True))
    run(
        tiny_recipe,
        data_dir,
        model_dir,
        "train.steps = 4",
        "train.schedule = @ConstantRate",
        "ConstantRate.learning_rate = 0.0",
        "train.weight_decay = 0.0",
    )
    assert not holds_averages(model_dir / "ckpt-4")
    assert "note: the run averaged its weights so far" in capsys.readouterr().out
    # TensorFlow warns of each tensor that is left over when the checkpoint is collected.
    gc.collect()
    assert "checkpoint" not in caplog.text
    found = values(sc.load(model_dir, checkpoint="latest"))
    changed = [n for n in differing(found, trained) if "moving" not in n]
    assert not changed
    with pytest.raises(ValueError, match=r"did not average .* \(in Python trained=True\)\.$"):
        open_run(model_dir, checkpoint="latest", trained=True, device=None)
