"""Moving statistics that have not arrived: estimated for an evaluation, and taken back."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import norms_of
from ssd_centernet.models.moving_statistics import estimate_statistics, late_norms
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.opened import open_run
from ssd_centernet.training.statistics import EarlyStatistics, describe_late_averages
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer
from tests.training.test_train import run, tensors

# A run long enough for the published momentum, that ends early.
LONG = ("ResNet.norm_momentum = 0.997", "train.steps = 6000", "train.checkpoint_every = 4")


def statistics(path):
    return {name: value for name, value in tensors(path).items() if "moving_" in name}


def test_estimates_are_the_means_of_the_batches():
    detector, batches = tiny_detector(), [tiny_batch(seed) for seed in range(3)]
    first, *others = norms_of(detector)
    before = [variable.numpy() for norm in others for variable in norm.variables]
    seen = keras.Model(detector.backbone.inputs, first.input)
    features = [seen(batch["image"]).numpy() for batch in batches]
    assert estimate_statistics(detector, [first], batches) == 3
    mean = np.mean([one.mean(axis=(0, 1, 2)) for one in features], axis=0)
    np.testing.assert_allclose(first.moving_mean, mean, rtol=1e-4, atol=1e-6)
    count = features[0][..., 0].size
    variance = np.mean([one.var(axis=(0, 1, 2)) for one in features], axis=0) * count / (count - 1)
    np.testing.assert_allclose(first.moving_variance, variance, rtol=1e-4)
    for value, variable in zip(
        before, (one for norm in others for one in norm.variables), strict=True
    ):
        np.testing.assert_array_equal(value, variable)


def test_they_are_taken_back_also_after_an_error():
    trainer, said = tiny_trainer(), []
    settled = EarlyStatistics(trainer, lambda: [tiny_batch(0)], said.append)
    before = [variable.numpy() for variable in trainer.detector.variables]
    with pytest.raises(KeyError), settled():
        assert not np.array_equal(norms_of(trainer.detector)[0].moving_mean, 0.0)
        raise KeyError
    for value, variable in zip(before, trainer.detector.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert "hold 100 % of their beginning" in said[0] and "on 1 batches" in said[0]
    trainer.step.assign(100)  # 0.9 ** 100 is nothing.
    assert late_norms(trainer.detector, 100)[0] == []
    with settled():
        assert len(said) == 1


def test_an_early_evaluation_of_a_long_run(tiny_recipe, data_dir, tmp_path, capsys):
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    every = ("train.evaluate_every = 2", "train.early_stop_patience = 1", "train.keep_best = 'AP'")
    still = "ConstantRate.learning_rate = 0.0"
    assert run(tiny_recipe, data_dir, often, *LONG, *every, still) == "stopped early"
    out = capsys.readouterr().out
    assert "batch norms hold 99 % of their beginning still" in out
    assert "on 12 batches" in out and "follow this short run" not in out
    # Two evaluations before step 4 or none: training goes on with the same state.
    later = ("train.evaluate_every = 8", *every[1:])
    assert run(tiny_recipe, data_dir, seldom, *LONG, *later, still) == "stopped early"
    one, other = (tensors(folder / "ckpt-4") for folder in (often, seldom))
    # The best ones are saved by themselves.
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []
    # best/ holds what was evaluated, and so do evaluate, predict and export.
    best = json.loads((often / "best" / "metrics.json").read_text())
    kept, own = statistics(often / "best"), statistics(often)
    name = next(name for name in kept if "variance" in name)
    assert not np.allclose(kept[name], own[name])
    opened = open_run(often, device="cpu")
    assert opened.checkpoint.startswith(str(often / "best"))
    evaluated = evaluate_run(opened, data_dir)
    metrics = evaluated.result.metrics
    assert "of their beginning" not in str(evaluated.hint)
    assert metrics == pytest.approx({key: best[key] for key in metrics}, abs=1e-6)


def test_the_averages_of_an_early_checkpoint_are_told(tmp_path):
    detector = tiny_detector()
    detector.backbone.get_layer("stem_norm").momentum = 0.997
    begin = {"event": "begin", "step": 0, "time": 1e9, "total_steps": 6000, "fits_length": True}

    def told(name, **changes):
        (tmp_path / "sessions.jsonl").write_text(json.dumps({**begin, **changes}) + "\n")
        return str(describe_late_averages(detector, str(tmp_path / name)))

    assert "of 1 batch norms hold 41 % of their beginning after 300 steps" in told("ckpt-300")
    assert told("ckpt-1600") == told("best/ckpt-300") == told("ckpt-300", total_steps=900) == "None"
    # Of a run from before that, best/ has no estimates, and a short run no warm-up.
    assert "41 %" in told("best/ckpt-300", fits_length=None, total_steps=900)


def test_a_short_run_needs_no_estimates(tiny_recipe, data_dir, tmp_path, capsys):
    settings = ("ResNet.norm_momentum = 0.997", "train.steps = 4", "train.evaluate_every = 4")
    assert run(tiny_recipe, data_dir, tmp_path / "r", *settings) == "finished"
    out = capsys.readouterr().out
    assert "batch norms follow this short run" in out and "0.997 at most" in out
    assert "of their beginning" not in out
    # After 4 steps a momentum of 0.997 would have moved them by a hundredth.
    latest = tf.train.load_checkpoint(find_checkpoint(tmp_path / "r"))
    names = [name for name in latest.get_variable_to_shape_map() if "moving_variance" in name]
    moved = [np.abs(latest.get_tensor(name) - 1.0).max() for name in names]
    assert moved and min(moved) > 0.1
    begin = json.loads((tmp_path / "r" / "sessions.jsonl").read_text().splitlines()[0])
    assert begin["fits_length"] is True
