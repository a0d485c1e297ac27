"""The loss scale of float16: what it does to a step, what a checkpoint keeps, what is logged."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runtime.distribution import SingleProcess
from ssd_centernet.runtime.precision import policy_scope
from ssd_centernet.train import train
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer


def half_trainer(**options):
    with policy_scope("fp16"):
        detector = tiny_detector()
    return tiny_trainer(detector, **options)


def state(trainer):
    scale = trainer.loss_scale
    return float(scale.value), int(scale.good_steps), int(scale.skipped)


def test_factor_by_hand():
    scale = LossScale(8.0, growth_steps=2)
    seen = []
    for finite in (True, True, True, False, True, True, False, False, False, False, False):
        scale.succeeded() if finite else scale.overflowed()
        seen.append(float(scale.value))
    assert seen == [8, 16, 16, 8, 8, 16, 8, 4, 2, 1, 1]
    assert int(scale.skipped) == 6


@pytest.mark.parametrize("options", [{"initial": 0.5}, {"growth_steps": 0}], ids=str)
def test_factor_that_only_harms_is_refused(options):
    with pytest.raises(ValueError, match="expected 1 or more for both"):
        LossScale(**options)


def test_fixed_power_of_two_changes_no_bit_of_an_update():
    weights = []
    for scale in (None, LossScale(128.0, dynamic=False)):
        keras.utils.set_random_seed(0)
        trainer = tiny_trainer(loss_scale=scale, weight_decay=0.1, clip_norm=1.0)
        for seed in range(2):
            trainer.train_step(tiny_batch(seed))
        weights.append([v.numpy() for v in trainer.train_variables])
    for plain, scaled in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, scaled)


def test_fixed_factor_excuses_no_overflow():
    trainer = half_trainer(loss_scale=LossScale(2.0**40, dynamic=False))
    trainer.train_step(tiny_batch())
    assert state(trainer) == (2.0**40, 0, 0)
    with pytest.raises(NonFiniteLossError, match="step 0 is not finite"):
        trainer.raise_if_failed()


def test_window_of_skipped_steps_still_tells_the_loss():
    trainer = half_trainer(loss_scale=LossScale(2.0**40))
    with tf.GradientTape():
        outputs = trainer.detector(tiny_batch()["image"], training=True)
        parts = trainer.detector.compute_losses(outputs, tiny_batch())
    trainer.train_step(tiny_batch())
    metrics = trainer.window_metrics()
    assert metrics["skipped_steps"] == 1
    assert metrics["total"] == pytest.approx(float(parts["class"] + parts["box"]), rel=1e-2)
    assert np.isfinite(metrics["gradient_norm"])


def test_checkpoint_keeps_factor_and_counts(tmp_path):
    trainer = half_trainer(loss_scale=LossScale(2.0**30, growth_steps=50))
    for _ in range(3):
        trainer.train_step(tiny_batch())
    trainer.loss_scale.value.assign(64.0)
    trainer.train_step(tiny_batch())
    before = state(trainer)
    assert before == (64.0, 1, 3)
    RunCheckpoints(trainer, tmp_path, seed=0).save()
    again = half_trainer(loss_scale=LossScale(2.0**15))
    RunCheckpoints(again, tmp_path, seed=0).resume()
    assert state(again) == before


def test_run_that_goes_on_in_another_precision_has_that_ones_factor(tmp_path):
    RunCheckpoints(tiny_trainer(), tmp_path / "single", seed=0).save()
    half = half_trainer(loss_scale=LossScale(512.0))
    RunCheckpoints(half, tmp_path / "single", seed=0).resume()
    # Not 1, under which float16 gradients vanish for thousands of steps.
    assert state(half) == (512.0, 0, 0)
    half.loss_scale.value.assign(256.0)
    half.loss_scale.skipped.assign(1)
    RunCheckpoints(half, tmp_path / "half", seed=0).save()
    single = tiny_trainer()
    RunCheckpoints(single, tmp_path / "half", seed=0).resume()
    assert float(single.loss_scale.scale(tf.constant(3.0))) == 3.0
    # And back, with what float16 had found.
    RunCheckpoints(single, tmp_path / "back", seed=0).save()
    RunCheckpoints(half, tmp_path / "back", seed=0).resume()
    assert state(half) == (256.0, 0, 1)


class OtherLossIsInfinite(SingleProcess):
    """Two processes of which the other one has finite gradients and an infinite loss."""

    size = 2

    def mean_gradients(self, gradients):
        *gradients, loss = gradients
        return [*gradients, (loss + float("inf")) / 2]


def test_every_process_skips_the_step_that_one_cannot_do():
    trainer = tiny_trainer(communicator=OtherLossIsInfinite())
    before = [v.numpy() for v in trainer.train_variables]
    trainer.train_step(tiny_batch())
    for variable, value in zip(trainer.train_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(NonFiniteLossError, match="finite on process 0 .*but not on another"):
        trainer.raise_if_failed()


def test_resumed_half_precision_run_equals_a_whole_one(tiny_recipe, data_dir, tmp_path, capsys):
    settings = (
        "build_detector.dtype = 'fp16'",
        "train.loss_scale = @LossScale",
        "LossScale.initial = 524288.0",  # Too large for the first steps.
        "LossScale.growth_steps = 2",
        "train.log_every = 1",
        "train.eval_split = None",
    )

    def run(name, steps):
        config.parse([tiny_recipe], [*settings, f"train.steps = {steps}"])
        try:
            assert train(tmp_path / name, data_dir) == "finished"
        finally:
            config.clear()
        reader = tf.train.load_checkpoint(find_checkpoint(tmp_path / name))
        names = [n for n in reader.get_variable_to_shape_map() if not n.startswith("_")]
        return {name: reader.get_tensor(name) for name in names}

    whole = run("whole", 12)
    run("halves", 5)
    halves = run("halves", 12)
    assert whole.keys() == halves.keys()
    assert [name for name in whole if not np.array_equal(whole[name], halves[name])] == []
    skipped = int(whole["loss_scale/skipped/.ATTRIBUTES/VARIABLE_VALUE"])
    assert 0 < skipped < 12
    lines = (tmp_path / "halves" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["skipped_steps"] == skipped
    assert rows[-1]["loss_scale"] == whole["loss_scale/value/.ATTRIBUTES/VARIABLE_VALUE"]
    assert re.search(rf"scale [\d.e+]+ \(skipped {skipped}\)", capsys.readouterr().out)
