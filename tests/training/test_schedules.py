"""Schedules against hand-computed rates; the reference's own values are in the parity harness."""

import math
import re

import pytest

from ssd_centernet.training.length import run_length, to_steps
from ssd_centernet.training.schedules import (
    ConstantRate,
    RunLength,
    StepDecay,
    WarmupCosine,
    WarmupCosineSteps,
)

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


def epochs_run(epochs, steps_per_epoch=917, batch=128):
    return RunLength(steps_per_epoch, round(epochs * steps_per_epoch), batch)


def test_a_run_of_another_length_than_the_published_one_is_spanned():
    published, spanned = WarmupCosine(span_run=False), WarmupCosine(span_run=True)
    for run, same in (
        (epochs_run(64), published),
        (epochs_run(64, steps_per_epoch=489, batch=240), published),
        (epochs_run(63), spanned),
        (epochs_run(8), spanned),
        (epochs_run(300, steps_per_epoch=7), spanned),
    ):
        for step in (0, 1, run.total_steps // 9, run.total_steps // 2, run.total_steps - 1):
            assert float(WarmupCosine()(step, run)) == float(same(step, run)), (run, step)
    # Of a longer run more than three quarters would else have a hundredth of the rate.
    long = epochs_run(250, steps_per_epoch=8)
    assert float(published(1000, long)) / float(published(100, long)) < 0.011
    assert float(WarmupCosine()(1000, long)) / float(published(100, long)) > 0.5


def test_the_length_of_the_recipe_is_that_of_its_epochs():
    vgg = StepDecay(boundaries=(80, 110), length=120)
    assert vgg.boundary_steps(epochs_run(120, 1833)) == (80 * 1833, 110 * 1833)
    assert vgg.describe(epochs_run(120, 1833)) is None
    own = WarmupCosine(decay_until_epoch=36.0, length=36)
    kept = WarmupCosine(decay_until_epoch=36.0, span_run=False)
    for step in (10, 700, 1300):
        assert float(own(step, epochs_run(36, 40))) == float(kept(step, epochs_run(36, 40)))


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
    with pytest.raises(ValueError, match="expected more than 0"):
        run_length(10, 2, steps=steps, epochs=epochs)


def test_run_without_images_is_refused():
    with pytest.raises(ValueError, match="no images to train on.*train.keep_empty = True"):
        run_length(0, 2, steps=None, epochs=3)


def rates(schedule, run, *steps):
    return [float(schedule(step, run)) for step in steps]


def steps_run(total, batch=32, steps_per_epoch=10):
    return RunLength(steps_per_epoch, total_steps=total, global_batch_size=batch)


def test_cosine_in_steps_at_hand_computed_steps():
    schedule = WarmupCosineSteps(
        0.4, warmup_learning_rate=0.1, warmup_steps=10, total_steps=110, reference_batch_size=None
    )
    got = rates(schedule, steps_run(500), 0, 5, 10, 60, 110, 111, 499)
    assert got == pytest.approx([0.1, 0.25, 0.4, 0.2, 0.0, 0.0, 0.0], abs=1e-7)


def test_cosine_that_is_not_shifted_by_its_warmup():
    schedule = WarmupCosineSteps(
        1.0,
        warmup_learning_rate=0.0,
        warmup_steps=25,
        total_steps=100,
        shifted=False,
        reference_batch_size=None,
    )
    peak = 0.5 * (1 + math.cos(math.pi / 4))
    got = rates(schedule, steps_run(100), 0, 5, 25, 50, 75, 100)
    want = [0.0, peak / 5, peak, 0.5, 1 - peak, 0.0]
    assert got == pytest.approx(want, abs=1e-6)


def test_cosine_spans_the_run_and_grows_with_the_batch_unless_told_otherwise():
    run = steps_run(12500, batch=256)
    got = rates(WarmupCosineSteps(), run, 0, 1000, 6750, 12500)
    assert got == pytest.approx([0.0693312, 0.16, 0.08, 0.0], rel=1e-5, abs=1e-7)
    assert WarmupCosineSteps().lengths(run) == (1000, 12500)
    assert WarmupCosineSteps().describe(run) is None
    # A run of one step, and one without warm-up, are runs too.
    assert rates(WarmupCosineSteps(), steps_run(1), 0) == pytest.approx([0.02])
    schedule = WarmupCosineSteps(warmup_steps=0)
    assert rates(schedule, steps_run(10), 0, 5) == pytest.approx([0.02, 0.01], rel=1e-5)


HOURGLASS_SETTINGS = {
    "warmup_learning_rate": 0.0,
    "warmup_steps": 2000,
    "shifted": False,
    "reference_batch_size": None,
}
HOURGLASS = WarmupCosineSteps(5e-4, **HOURGLASS_SETTINGS)
LIMITED = WarmupCosineSteps(5e-4, **HOURGLASS_SETTINGS, warmup_limit=0.1)


def test_warmup_shrinks_with_a_run_that_it_was_not_made_for():
    peak = 0.5 * 5e-4 * (1 + math.cos(math.pi / 10))
    got = rates(LIMITED, steps_run(300), 0, 15, 30, 150, 300)
    assert got == pytest.approx([0.0, peak / 2, peak, 2.5e-4, 0.0], abs=1e-9)
    # Without the limit nothing is learned: the rate is 0 in all steps.
    assert rates(HOURGLASS, steps_run(300), 0, 150, 299) == pytest.approx([0.0] * 3, abs=1e-12)
    assert LIMITED.lengths(steps_run(3)) == (0, 3)
    for total in (20_000, 140_000, 280_000):
        assert LIMITED.lengths(steps_run(total)) == (2000, total)
        steps = (0, 999, 2000, 2001, total // 2, total - 1)
        assert rates(LIMITED, steps_run(total), *steps) == rates(
            HOURGLASS, steps_run(total), *steps
        )
    vgg = StepDecay(1.0, boundaries=(), warmup_limit=0.5, reference_batch_size=None)
    assert rates(vgg, steps_run(300), 0, 75, 150) == pytest.approx([0.001, 0.5005, 1.0])
    assert rates(vgg, steps_run(1000), 250, 500) == pytest.approx([0.5005, 1.0])


@pytest.mark.parametrize(
    ("schedule", "total", "message"),
    [
        (WarmupCosineSteps(total_steps=100), 1000, "is 0 from step 100 on.*has 1000"),
        (WarmupCosineSteps(total_steps=100), 50, "until step 100, but the run ends at 50"),
        (WarmupCosineSteps(warmup_steps=8000), 500, "warm-up of 8000 .* too long .* run of 500"),
        (HOURGLASS, 300, "warm-up of 2000 .* reaches 0 instead of 0.0005.*warmup_limit = 0.1"),
        (HOURGLASS, 2200, r"warm-up of 2000 .* reaches 1\.01e-05 instead of 0\.0005"),
        (
            LIMITED,
            300,
            r"2000 steps is shortened to 30 in this run of 300, .* reaches 0\.000488.*= None",
        ),
        (
            StepDecay(boundaries=(), warmup_limit=0.5),
            300,
            "of 500 steps is shortened to 150 .* run of 300",
        ),
        (
            StepDecay(unit="steps", boundaries=(90, 150), length=140, warmup_steps=0),
            280,
            r"boundaries \(90, 150\), .* after StepDecay.length = 140: .* step 300, .* ends at 280",
        ),
        (StepDecay(unit="steps", boundaries=(90, 120), warmup_steps=0), 100, "fall at step 120"),
        (StepDecay(boundaries=(), warmup_steps=500), 100, "StepDecay.warmup_steps"),
        (ConstantRate(warmup_steps=10), 10, "ConstantRate.warmup_steps"),
        (WarmupCosine(span_run=False), 100, "until epoch 55, but the run ends at 10. Set"),
        (
            WarmupCosine(span_run=False),
            1000,
            "until epoch 55, .* ends at 100; the rest has 1 % of the peak",
        ),
        (
            WarmupCosine(),
            100,
            r"to this run of 10 epochs: it warms up over 1\.27 epochs, .* at epoch 55, ends with .*"
            "span_run = False",
        ),
        (
            WarmupCosine(),
            1000,
            r"to this run of 100 epochs: .* over 12\.7 epochs, .* at epoch 55, ends with the run",
        ),
        (
            StepDecay(length=120, warmup_steps=0),
            120,
            r"to this run of 120 steps: it falls at steps 80 and 110, .* \(80\.0, 110\.0\) of 120 "
            "epochs. Set StepDecay.length = None",
        ),
        (
            StepDecay(unit="steps", boundaries=(90, 120)),
            1000,
            "falls last at step 120, .* ends at 1000",
        ),
    ],
)
def test_schedules_say_where_they_do_not_fit_the_run(schedule, total, message):
    assert re.search(message, schedule.describe(steps_run(total)))


@pytest.mark.parametrize(
    "schedule",
    [
        WarmupCosineSteps(total_steps=1000),
        StepDecay(unit="steps", boundaries=(600, 900)),
        StepDecay(boundaries=(60, 90), length=100, warmup_steps=0),
        ConstantRate(),
        WarmupCosine(plateau_until_epoch=27.0, decay_until_epoch=86.0, span_run=False),
        WarmupCosine(plateau_until_epoch=27.0, decay_until_epoch=86.0, length=100),
        WarmupCosine(plateau_until_epoch=27.0, decay_until_epoch=100.0),
        WarmupCosine(span_run=True, decay_until_epoch=1000.0),
    ],
)
def test_schedules_that_fit_say_nothing(schedule):
    assert schedule.describe(steps_run(1000)) is None


def test_decays_in_steps():
    schedule = StepDecay(
        1e-3, unit="steps", boundaries=(6, 8), warmup_steps=0, reference_batch_size=None
    )
    got = rates(schedule, steps_run(10, batch=999), 0, 5, 6, 7, 8, 9)
    assert got == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5], rel=1e-6)


@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_decays_are_scaled_to_the_run(unit):
    schedule = StepDecay(1.0, unit=unit, length=140, boundaries=(90, 120), warmup_steps=0)
    assert schedule.boundary_steps(steps_run(140_000)) == (90_000, 120_000)
    assert schedule.boundary_steps(steps_run(14)) == (9, 12)
    assert StepDecay(boundaries=(1.5,)).boundary_steps(steps_run(99)) == (15,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupCosineSteps(warmup_steps=-1), "warmup_steps is -1"),
        (lambda: WarmupCosineSteps(total_steps=0), "total_steps is 0"),
        (lambda: StepDecay(unit="hours"), "'epochs' or 'steps', got 'hours'"),
        (lambda: StepDecay(boundaries=(3, 2)), "must ascend"),
    ],
)
def test_schedules_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("step", "want"),
    [
        (0, 2e-3 * 0.001),
        (250, 2e-3 * (1 - 0.5 * 0.999)),
        (500, 2e-3),
        (79 * 100 + 99, 2e-3),
        (80 * 100, 2e-4),
        (110 * 100 - 1, 2e-4),
        (110 * 100, 2e-5),
    ],
)
def test_step_decay_at_hand_computed_steps(step, want):
    assert float(StepDecay()(step, RUN)) == pytest.approx(want, rel=1e-6)
    eighth = RunLength(steps_per_epoch=100, total_steps=12000, global_batch_size=8)
    assert float(StepDecay()(step, eighth)) == pytest.approx(want / 8, rel=1e-6)
