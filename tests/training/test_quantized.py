"""A training for 8-bit integers: it goes on with a run, resumes exactly, and opens as it was."""

import numpy as np
import pytest

from ssd_centernet.models.quantized import RANGES_NAME, has_ranges
from ssd_centernet.runs.opened import open_run
from tests.training.test_train import assert_same_bits, run, tensors

QUANTIZE = "build_detector.quantize = @Quantize()"
RANGES = f"weights/{RANGES_NAME.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def trained(tiny_recipe, data_dir, tmp_path):
    """A run of three steps in float32, and the settings that go on with it."""
    run(tiny_recipe, data_dir, tmp_path / "float", "train.steps = 3")
    start = f"train.fine_tune_checkpoint = {str(tmp_path / 'float')!r}"
    return tmp_path / "float", (start, QUANTIZE, "train.checkpoint_every = 2")


def test_four_steps_equal_two_and_two(tiny_recipe, data_dir, tmp_path, trained, capsys):
    _, settings = trained
    settings = (*settings, "train.ema_decay = 0.9")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    capsys.readouterr()
    run(tiny_recipe, data_dir, whole, "train.steps = 4", "train.evaluate_every = 4", *settings)
    told = capsys.readouterr().out
    # Batch norms keep their statistics: nothing is said of averages that move.
    assert "batch norms" not in told and "weights from" in told
    assert run(tiny_recipe, data_dir, halves, "train.steps = 2", *settings) == "finished"
    assert run(tiny_recipe, data_dir, halves, "train.steps = 4", *settings) == "finished"
    assert_same_bits(whole, halves)
    assert np.all(np.ptp(tensors(whole)[RANGES], axis=1) > 0.0)


def test_statistics_stay_and_weights_move(tiny_recipe, data_dir, tmp_path, trained):
    first, settings = trained
    run(tiny_recipe, data_dir, tmp_path / "run", "train.steps = 2", *settings)
    before, after = tensors(first), tensors(tmp_path / "run")
    weights = [name for name in before if name.startswith("weights/")]
    moving = [name for name in weights if "moving_" in name]
    same = [name for name in weights if np.array_equal(before[name], after[name])]
    assert moving and set(moving) <= set(same)
    kernels = [name for name in weights if name.split("/")[1].endswith("kernel")]
    assert len(kernels) > 8 and not set(kernels) & set(same)


def test_an_opened_run_rounds_unless_it_is_told_not_to(tiny_recipe, data_dir, tmp_path, trained):
    first, settings = trained
    run(tiny_recipe, data_dir, tmp_path / "run", "train.steps = 2", *settings)
    opened = open_run(tmp_path / "run", device="cpu")
    assert has_ranges(opened.detector)
    np.testing.assert_array_equal(
        opened.detector.quantized.ranges, tensors(tmp_path / "run")[RANGES]
    )
    exact = open_run(tmp_path / "run", device="cpu", gin_params=["build_detector.quantize = None"])
    assert exact.detector.quantized is None
    # A run in float32 has no ranges that could be taken.
    with pytest.raises(ValueError, match=f"1 weights are missing.*{RANGES_NAME}"):
        open_run(first, device="cpu", gin_params=[QUANTIZE])
    # One that has some hands them on.
    start = f"train.fine_tune_checkpoint = {str(tmp_path / 'run')!r}"
    still = "ConstantRate.learning_rate = 0.0"
    run(
        tiny_recipe,
        data_dir,
        tmp_path / "next",
        "train.steps = 1",
        start,
        QUANTIZE,
        still,
        "Quantize.momentum = 0.5",
    )
    ours, theirs = (tensors(tmp_path / name)[RANGES] for name in ("next", "run"))
    assert 0.0 < np.max(np.abs(ours - theirs)) < 0.6 * np.max(theirs)


def test_it_does_not_begin_with_random_weights(tiny_recipe, data_dir, tmp_path):
    with pytest.raises(ValueError, match="goes on with a trained detector"):
        run(tiny_recipe, data_dir, tmp_path / "run", "train.steps = 2", QUANTIZE)
