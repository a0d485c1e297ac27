"""Layers that learn at a share of the rate: each optimizer moves them by that share."""

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.recipe import Recipe
from ssd_centernet.training.optimizers import LAMB, Adam, AdamW, Momentum
from ssd_centernet.training.schedules import ConstantRate
from tests.tiny import tiny_batch, tiny_trainer

RATES = {"stem_conv": 0.1, "stem_": 0.5, "group1_": 3.0}


def trainer_of(**options):
    """Build a trainer with the same first weights each time."""
    keras.utils.set_random_seed(3)
    return tiny_trainer(**options)


def moves(**options):
    """Return how a step moves each variable, by name."""
    trainer = trainer_of(**options)
    before = {v.name: v.numpy() for v in trainer.train_variables}
    trainer.compiled_step(tiny_batch())
    return {v.name: v.numpy() - before[v.name] for v in trainer.train_variables}


@pytest.mark.parametrize(
    ("optimizer", "jit_compile"),
    [(Momentum, False), (Momentum, True), (Adam, False), (AdamW, False), (LAMB, False)],
)
def test_a_step_moves_each_variable_by_its_share(optimizer, jit_compile):
    plain = moves(optimizer=optimizer(), jit_compile=jit_compile)
    found = moves(optimizer=optimizer(), jit_compile=jit_compile, layer_rates=RATES)
    shares = {
        name: next((RATES[one] for one in RATES if name.startswith(one)), 1.0) for name in plain
    }
    assert set(shares.values()) == {0.1, 0.5, 3.0, 1.0}
    moved = {shares[name] for name, move in plain.items() if np.abs(move).max() > 1e-5}
    assert moved == {0.1, 0.5, 3.0, 1.0}
    for name, move in plain.items():
        # A weight near 1 has no finer steps than 6e-8.
        expected = shares[name] * move
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=3e-7, err_msg=name)


def test_a_share_for_all_is_a_lower_rate():
    slow = trainer_of(schedule=ConstantRate(0.005))
    shared = trainer_of(schedule=ConstantRate(0.01), layer_rates={"": 0.5})
    for number in range(3):
        slow.train_step(tiny_batch(number))
        shared.train_step(tiny_batch(number))
    for one, other in zip(slow.train_variables, shared.train_variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"backbone/": 0.1}, "'backbone/' in train.layer_rates matches no variable"),
        ({"stem_": 0.1, "stem_conv": 0.5}, "'stem_conv' .* matches only variables that an earlier"),
        ({"(": 0.1}, "is no regular expression"),
    ],
)
def test_a_pattern_without_effect_is_refused(factors, message):
    with pytest.raises(ValueError, match=message):
        tiny_trainer(layer_rates=factors)


@pytest.mark.parametrize("value", ["('stem_', 0.1)", "{'stem_': 0}", "{'stem_': '0.1'}", "0.1"])
def test_a_setting_of_another_kind_is_refused(value):
    config.parse([], [f"train.layer_rates = {value}"])
    try:
        with pytest.raises(ValueError, match="expected a dict of regular expressions and numbers"):
            Recipe()
    finally:
        config.clear()
