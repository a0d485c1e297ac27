"""Schedules against hand-computed rates; the reference's own values are in the parity harness."""

import math

import pytest

from ssd_centernet.training.schedules import ConstantRate, RunLength, WarmupCosine
from ssd_centernet.training.train import run_length, to_steps

RUN = RunLength(steps_per_epoch=100, total_steps=6400, global_batch_size=64)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [
        (0, 0.0),
        (3.5, 1.01 * 0.5),
        (7, 1.01),
        (14.99, 1.01),
        (15, 1.01),
        (35, 0.5 + 0.01),
        (45, 0.5 * (1 + math.cos(math.pi * 0.75)) + 0.01),
        (55, 0.01),
        (64, 0.01),
    ],
)
def test_warmup_cosine_at_hand_computed_epochs(epoch, factor):
    rate = float(WarmupCosine(3e-3)(round(epoch * 100), RUN))
    assert rate == pytest.approx(3e-3 * 64 / 32 * factor, rel=1e-5, abs=1e-9)


def test_stretch_moves_plateau_and_decay_but_not_warmup():
    stretched = WarmupCosine(3e-3, stretch=10)
    assert float(stretched(700, RUN)) == pytest.approx(6e-3 * 1.01, rel=1e-5)
    assert float(stretched(2999, RUN)) == pytest.approx(6e-3 * 1.01, rel=1e-5)
    assert float(stretched(7000, RUN)) == pytest.approx(6e-3 * 0.51, rel=1e-4)


def test_span_run_ends_the_decay_with_the_run():
    short = RunLength(steps_per_epoch=10, total_steps=100, global_batch_size=32)
    schedule = WarmupCosine(1.0, span_run=True)
    assert float(schedule(99, short)) == pytest.approx(0.01, abs=2e-3)
    assert float(schedule(20, short)) == pytest.approx(1.01, rel=1e-5)


def test_constant_rate_warms_up():
    schedule = ConstantRate(0.2, warmup_steps=10)
    assert [float(schedule(step, RUN)) for step in (0, 5, 10, 99)] == pytest.approx(
        [0.0, 0.1, 0.2, 0.2]
    )
    assert float(ConstantRate(0.2)(0, RUN)) == pytest.approx(0.2)


def test_published_step_counts():
    # The reference's table: 117,266 images, batch 128 on one process, 64 epochs.
    run = run_length(117266, 128, steps=None, epochs=64)
    assert (run.steps_per_epoch, run.total_steps) == (917, 58688)
    assert run_length(117266, 240, steps=None, epochs=64).total_steps == 31296
    assert run_length(117266, 128, steps=10, epochs=64).total_steps == 10


def test_a_run_without_length_is_refused():
    with pytest.raises(ValueError, match="--num_steps or --epochs"):
        run_length(10, 2, steps=None, epochs=None)


@pytest.mark.parametrize(
    ("length", "steps"),
    [(7, 7), ("7", 7), ("12 steps", 12), ("2 epochs", 20), ("0.25 epochs", 2), (0, 0), ("0", 0)],
)
def test_durations(length, steps):
    assert to_steps(length, 10) == steps


def test_a_duration_that_is_none():
    with pytest.raises(ValueError, match="'5 minutes'"):
        to_steps("5 minutes", 10)


@pytest.mark.parametrize("steps, epochs", [(0, 64), (-3, None), (None, 0.0), (None, -1)])
def test_run_without_length_is_refused(steps, epochs):
    """Zero steps do not mean all of the recipe's epochs."""
    with pytest.raises(ValueError, match="longer than 0"):
        run_length(10, 2, steps=steps, epochs=epochs)
