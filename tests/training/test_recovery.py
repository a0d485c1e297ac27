"""A run whose rate is too high goes back to its checkpoint, once, and on with half of the rate."""

import contextlib
import functools
import io
import json

import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from ssd_centernet.run_directory import find_checkpoint, named_weights
from ssd_centernet.runs.inspection import inspect_run
from ssd_centernet.train import train
from ssd_centernet.training.log_files import recorded_evaluations, recorded_sessions
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import TINY_RECIPE
from tests.training.test_train import assert_same_bits, tensors

FACTOR = "rate_factor/.ATTRIBUTES/VARIABLE_VALUE"


class Fragile(Momentum):
    """Weights become NaN at a rate above a limit, as those of a network that diverges."""

    def __init__(self, limit=0.01):
        super().__init__()
        self._limit = limit

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        broken = tf.where(self.learning_rate > self._limit, float("nan"), 0.0)
        return super().apply_gradients(
            [(g + broken, v) for g, v in grads_and_vars], *args, **kwargs
        )


class Rising:
    """The rate of a run that asks for too much from a step on."""

    def __init__(self, first=0.01, later=0.02, at=7):
        self._first, self._later, self._at = first, later, at

    def __call__(self, step, length):
        return tf.where(step < self._at, self._first, self._later)


def go(recipe, data_dir, model_dir, *, optimizer=Fragile, schedule=Rising, **settings):
    """Train with parts that only tests have."""
    lines = recipe.read_text().splitlines()
    given = ("train.optimizer", "train.schedule", "ConstantRate", "train.evaluate_every")
    text = "\n".join(line for line in lines if not line.startswith(given))
    own = model_dir.with_suffix(".gin")
    own.write_text(text)
    config.parse([own], [])
    parts = {"optimizer": optimizer, "schedule": schedule, "evaluate_every": 0, "recovery": True}
    try:
        return train(model_dir, data_dir, Recipe(**{**parts, **settings}))
    finally:
        config.clear()


@pytest.fixture(scope="module")
def recover(data_dir, tmp_path_factory):
    """Train for 12 steps, once for each decay: the directory of the run and what it printed."""

    @functools.cache
    def run(ema_decay):
        folder = tmp_path_factory.mktemp("recovered")
        recipe, said = folder / "tiny.gin", io.StringIO()
        recipe.write_text(TINY_RECIPE)
        settings = {"steps": 12, "ema_decay": ema_decay, "evaluate_every": 4}
        with contextlib.redirect_stdout(said):
            assert go(recipe, data_dir, folder / "run", **settings) == "finished"
        return folder / "run", said.getvalue()

    return run


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_run_goes_back_once_and_on_with_half_of_the_rate(
    tiny_recipe, data_dir, tmp_path, recover, ema_decay
):
    (recovered, printed), expected = recover(ema_decay), tmp_path / "expected"
    # Step 7 spoils the weights, and step 8 shows it.
    assert "step 8 is not finite" in printed
    assert f"back to {recovered / 'ckpt-5'}, and on from there with 0.5 of" in printed
    # The same bits as a run that went on from there with half of the rate by itself. Evaluations
    # change none of them.
    more = {"ema_decay": ema_decay}
    go(tiny_recipe, data_dir, expected, steps=5, schedule=lambda: Rising(at=99), **more)
    half = {"schedule": lambda: Rising(0.005, 0.01), "optimizer": Momentum}
    go(tiny_recipe, data_dir, expected, steps=12, **half, **more)
    assert tensors(recovered)[FACTOR] == 0.5 and tensors(expected)[FACTOR] == 1.0
    for name, value in tensors(expected).items():
        if name != FACTOR and "learning_rate" not in name:
            assert (tensors(recovered)[name] == value).all(), name
    # The log holds each step and each evaluation once, and where the run went back.
    assert [one["step"] for one in recorded_evaluations(recovered, until_step=12)] == [4, 8, 12]
    lines = (recovered / "sessions.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [one["event"] for one in events] == ["begin", "recovery", "end"]
    assert events[1]["to_step"] == 5 and events[1]["rate_factor"] == 0.5
    assert [one["event"] for one in recorded_sessions(recovered)] == ["begin", "end"]
    (found,) = [one for one in inspect_run(recovered) if "went back to step 5" in one.text]
    assert found.status == "warn"


def test_a_resumed_run_keeps_the_factor_and_does_not_go_back_again(
    tiny_recipe, data_dir, tmp_path, capsys, recover
):
    (whole, _), parts = recover(None), tmp_path / "parts"
    for steps in (10, 12):
        go(tiny_recipe, data_dir, parts, steps=steps)
    assert "its rate stays 0.5 of the schedule's" in capsys.readouterr().out
    assert_same_bits(whole, parts)
    # Without the setting it goes on as slowly.
    go(tiny_recipe, data_dir, parts, steps=13, recovery=False)
    assert tensors(parts)[FACTOR] == 0.5
    later = {"schedule": lambda: Rising(later=0.04, at=14), "steps": 20}
    with pytest.raises(NonFiniteLossError, match="is 0.5 of the schedule's already: it is not"):
        go(tiny_recipe, data_dir, parts, **later)
    assert find_checkpoint(parts).endswith("ckpt-15")


def test_runs_without_the_setting_or_a_checkpoint_end(tiny_recipe, data_dir, tmp_path):
    with pytest.raises(NonFiniteLossError, match="the last checkpoint is intact.$"):
        go(tiny_recipe, data_dir, tmp_path / "off", steps=12, recovery=False)
    early = {"schedule": lambda: Rising(at=1), "steps": 12}
    with pytest.raises(NonFiniteLossError, match="had no checkpoint to go back to: set train.ch"):
        go(tiny_recipe, data_dir, tmp_path / "early", **early)


def test_a_checkpoint_of_before_goes_on(tiny_recipe, data_dir, tmp_path, monkeypatch):
    steady = {"schedule": lambda: Rising(at=99), "optimizer": Momentum}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    go(tiny_recipe, data_dir, whole, steps=10, **steady)
    with monkeypatch.context() as patch:
        patch.setattr(
            "ssd_centernet.training.checkpoints.RunCheckpoints._with_weights",
            lambda self: self._checkpoint(
                weights=named_weights(self.trainer.detector), rate_factor=False
            ),
        )
        go(tiny_recipe, data_dir, parts, steps=5, **steady)
    assert FACTOR not in tensors(parts)
    go(tiny_recipe, data_dir, parts, steps=10, **steady)
    for name, value in tensors(whole).items():
        # TensorFlow's own count of saves begins again; files are named after the step.
        if "save_counter" not in name:
            assert (tensors(parts)[name] == value).all(), name
