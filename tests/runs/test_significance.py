"""Means, intervals and verdicts, by hand and against printed tables."""

import math

import numpy as np
import pytest

from ssd_centernet.runs.significance import (
    holm,
    mean_and_deviation,
    paired_difference,
    quantile,
    two_sided_probability,
    verdicts,
)

# Two-sided 95 % and 99 % points of Student's t, as SciPy 1.17 gives them (stats.t.ppf).
POINTS = {
    1: (12.706204736, 63.656741163),
    2: (4.302652730, 9.924843201),
    3: (3.182446305, 5.840909310),
    4: (2.776445105, 4.604094871),
    5: (2.570581836, 4.032142984),
    9: (2.262157163, 3.249835544),
    10: (2.228138852, 3.169272673),
    30: (2.042272456, 2.749995654),
}


@pytest.mark.parametrize("freedom", POINTS)
def test_quantiles_are_those_of_the_tables(freedom):
    for level, point in zip((0.95, 0.99), POINTS[freedom], strict=True):
        assert quantile(level, freedom) == pytest.approx(point, rel=1e-8)
        assert two_sided_probability(point, freedom) == pytest.approx(1 - level, abs=1e-9)
        assert two_sided_probability(-point, freedom) == pytest.approx(1 - level, abs=1e-9)


def test_probabilities_in_closed_form():
    # One degree of freedom is Cauchy's distribution; of two, P = 1 - t / sqrt(2 + t^2).
    for t in (0.0, 0.3, 1.0, 7.0):
        assert two_sided_probability(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi)
        assert two_sided_probability(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_a_paired_difference_by_hand():
    # Differences 0.01, 0.03, 0.02: mean 0.02, deviation 0.01, error 0.01 / sqrt(3).
    found = paired_difference([0.31, 0.43, 0.52], [0.30, 0.40, 0.50])
    assert found.count == 3
    assert found.mean == pytest.approx(0.02)
    assert found.deviation == pytest.approx(0.01)
    half = 4.302652730 * 0.01 / math.sqrt(3)
    assert found.half_width == pytest.approx(half, rel=1e-8)
    assert found.interval == pytest.approx((0.02 - half, 0.02 + half))
    # t = 2 sqrt(3), so that P = 1 - sqrt(12 / 14).
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert not found.leaves_out_zero


def test_pairs_of_one_seed_take_out_what_the_seed_does():
    # The seeds differ by 0.1, the variants by 0.01 +- 0.001.
    base, better = [0.2, 0.3, 0.4], [0.210, 0.311, 0.409]
    assert verdicts([paired_difference(better, base)]) == ["better"]
    assert verdicts([paired_difference(base, better)]) == ["worse"]
    assert verdicts([paired_difference([0.311, 0.409, 0.210], base)]) == ["within the noise"]


def test_one_pair_has_no_spread_and_no_verdict():
    found = paired_difference([0.5], [0.1])
    assert (found.count, found.deviation, found.half_width, found.p) == (1, None, None, None)
    assert found.interval is None and not found.leaves_out_zero
    assert verdicts([found]) == [None]
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


def test_equal_differences_have_no_spread():
    assert paired_difference([0.0, 0.0], [0.0, 0.0]).p == 1.0
    assert paired_difference([0.5, 0.75], [0.25, 0.5]).p == 0.0
    assert verdicts([paired_difference([0.0, 0.0], [0.0, 0.0])]) == ["within the noise"]


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_makes_no_pairs_is_refused(values, baseline):
    with pytest.raises(ValueError, match="make no pairs"):
        paired_difference(values, baseline)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_what_is_clear_alone_need_not_be_among_others():
    nearly = paired_difference([0.32, 0.43, 0.517], [0.30, 0.40, 0.50])  # P about 0.03.
    nothing = paired_difference([0.31, 0.39, 0.50], [0.30, 0.40, 0.50])
    assert nearly.leaves_out_zero
    assert verdicts([nearly]) == ["better"]
    assert verdicts([nearly, nothing]) == ["within the noise", "within the noise"]
    single = paired_difference([0.9], [0.1])
    assert verdicts([single, nearly]) == [None, "better"]


def test_false_alarms_are_as_rare_as_told():
    """Studies of three variants and three seeds without any difference."""
    noise = np.random.default_rng(0).normal(0.3, 0.01, size=(4000, 4, 3))
    alarms = single = 0
    for base, *others in noise.tolist():
        found = [paired_difference(one, base) for one in others]
        alarms += any(one != "within the noise" for one in verdicts(found))
        single += found[0].leaves_out_zero
    # Holm's bound is 5 %; the intervals, each for itself, miss 0 in 5 %. Three deviations of 4000.
    assert alarms / 4000 < 0.05 + 0.0104
    assert abs(single / 4000 - 0.05) < 0.0104
