"""A training for 8-bit integers: it goes on with a run, resumes exactly, and opens as it was."""

import numpy as np
import pytest

from ssd_centernet.models.quantized import RANGES_NAME, has_ranges
from ssd_centernet.runs.opened import open_run
from tests.tiny import TINY_RECIPE
from tests.training.test_train import assert_same_bits, run, tensors

QUANTIZE = "build_detector.quantize = @Quantize()"
RANGES = f"weights/{RANGES_NAME.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """A folder with `float`, of three steps, and `whole`, which goes on for four steps."""
    folder = tmp_path_factory.mktemp("quantized")
    (folder / "tiny.gin").write_text(TINY_RECIPE)
    run(folder / "tiny.gin", data_dir, folder / "float", "train.steps = 3")
    run(folder / "tiny.gin", data_dir, folder / "whole", "train.steps = 4", *going_on(folder))
    return folder


def going_on(folder, first="float"):
    start = f"train.fine_tune_checkpoint = {str(folder / first)!r}"
    return (start, QUANTIZE, "train.checkpoint_every = 2", "train.ema_decay = 0.9")


def test_four_steps_equal_two_and_two(runs, data_dir, capsys):
    settings = (runs / "tiny.gin", data_dir, runs / "halves")
    assert run(*settings, "train.steps = 2", *going_on(runs)) == "finished"
    told = capsys.readouterr().out
    # Batch norms keep their statistics: nothing is said of averages that move.
    assert "batch norms" not in told and "weights from" in told
    assert run(*settings, "train.steps = 4", *going_on(runs)) == "finished"
    assert_same_bits(runs / "whole", runs / "halves")


def test_statistics_stay_and_weights_move(runs):
    before, after = tensors(runs / "float"), tensors(runs / "whole")
    weights = [name for name in before if name.startswith("weights/")]
    moving = [name for name in weights if "moving_" in name]
    same = [name for name in weights if np.array_equal(before[name], after[name])]
    assert moving and set(moving) <= set(same)
    kernels = [name for name in weights if name.split("/")[1].endswith("kernel")]
    assert len(kernels) > 8 and not set(kernels) & set(same)
    assert np.count_nonzero(np.ptp(after[RANGES], axis=1)) >= len(after[RANGES]) - 1


def test_an_opened_run_rounds_unless_it_is_told_not_to(runs):
    opened = open_run(runs / "whole", device="cpu")
    assert has_ranges(opened.detector)
    np.testing.assert_array_equal(opened.detector.quantized.ranges, tensors(runs / "whole")[RANGES])
    exact = open_run(runs / "whole", device="cpu", gin_params=["build_detector.quantize = None"])
    assert exact.detector.quantized is None
    # A run in float32 has no ranges that could be taken.
    with pytest.raises(ValueError, match=f"1 weights are missing.*{RANGES_NAME}"):
        open_run(runs / "float", device="cpu", gin_params=[QUANTIZE])


def test_a_quantized_run_hands_its_ranges_on(runs, data_dir):
    still = ("ConstantRate.learning_rate = 0.0", "Quantize.momentum = 0.5", "train.steps = 1")
    run(runs / "tiny.gin", data_dir, runs / "next", *going_on(runs, "whole"), *still)
    ours, theirs = (tensors(runs / name)[RANGES] for name in ("next", "whole"))
    # Halfway to those of one batch.
    assert 0.0 < np.max(np.abs(ours - theirs)) < 0.6 * np.max(theirs)


def test_it_does_not_begin_with_random_weights(runs, data_dir, tmp_path):
    with pytest.raises(ValueError, match="goes on with a trained detector"):
        run(runs / "tiny.gin", data_dir, tmp_path / "run", "train.steps = 2", QUANTIZE)
    with pytest.raises(ValueError, match="train.sync_batch_norm joins statistics that stay"):
        settings = (*going_on(runs), "train.sync_batch_norm = True", "train.steps = 2")
        run(runs / "tiny.gin", data_dir, tmp_path / "run", *settings)
