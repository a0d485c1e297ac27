"""Whether two settings differ by more than the noise: means over seeds, paired t, Holm.

A run with another seed ends at another number. One run of each setting therefore says nothing about
a small difference. Here runs of one seed are pairs, as they begin with the same weights and see the
same images in the same order, and the mean of the differences is compared with their spread.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

# Of intervals, and 1 - of false alarms in a whole study without any difference.
LEVEL = 0.95
BETTER, WORSE, NOISE = "better", "worse", "within the noise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Hold what the runs of two settings say about their difference.

    Attributes:
        count: pairs.
        mean: of the differences.
        deviation: standard deviation of the differences; None for one pair.
        half_width: of the interval around `mean` that holds the true difference with `LEVEL`; None
            for one pair.
        p: share of studies without any difference in which chance gives a mean as far from 0; None
            for one pair.
    """

    count: int
    mean: float
    deviation: float | None
    half_width: float | None
    p: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the interval; None for one pair."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval, taken for itself, is on one side of 0."""
        return self.p is not None and self.p < 1.0 - LEVEL


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation with n - 1 of values, None for a single one."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> PairedDifference:
    """Compare two settings by their runs of the same seeds.

    Args:
        values: of one setting, by seed.
        baseline: of the other one, in the same order.

    Returns:
        The difference: mean, spread, interval and probability by Student's t with n - 1 degrees of
        freedom.

    Raises:
        ValueError: no pair, or numbers that do not match.
    """
    if len(values) != len(baseline) or not values:
        raise ValueError(
            f"{len(values)} and {len(baseline)} values make no pairs; expected as many, at least 1."
        )
    mean, deviation = mean_and_deviation([a - b for a, b in zip(values, baseline, strict=True)])
    count = len(values)
    if deviation is None:
        return PairedDifference(count=1, mean=mean, deviation=None, half_width=None, p=None)
    error = deviation / math.sqrt(count)
    if error == 0.0:  # Runs that all differ by the same, or not at all.
        p = 1.0 if mean == 0.0 else 0.0
    else:
        p = two_sided_probability(mean / error, count - 1)
    half = error * quantile(LEVEL, count - 1)
    return PairedDifference(count=count, mean=mean, deviation=deviation, half_width=half, p=p)


def verdicts(differences: Sequence[PairedDifference]) -> list[str | None]:
    """Say of several differences which are larger than the noise, all together.

    Args:
        differences: every comparison of the study.

    Returns:
        `BETTER`, `WORSE` or `NOISE` for each; None where there is one pair. If nothing differs, a
        study says better or worse of anything in 1 - `LEVEL` of all cases.
    """
    known = [number for number, one in enumerate(differences) if one.p is not None]
    corrected = holm([differences[number].p for number in known])
    found: list[str | None] = [None] * len(differences)
    for number, p in zip(known, corrected, strict=True):
        sign = BETTER if differences[number].mean > 0 else WORSE
        found[number] = sign if p < 1.0 - LEVEL else NOISE
    return found


def holm(probabilities: Sequence[float]) -> list[float]:
    """Correct the probabilities of several tests, so that they bound an error in any of them.

    The smallest of k is multiplied by k, the next by k - 1, and so on; none becomes smaller than
    one before it (S. Holm 1979, Scandinavian Journal of Statistics 6).

    Args:
        probabilities: of each test.

    Returns:
        The corrected ones in the same order, at most 1.
    """
    corrected, least = [0.0] * len(probabilities), 0.0
    order = sorted(range(len(probabilities)), key=lambda number: probabilities[number])
    for rank, number in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * probabilities[number]))
        corrected[number] = least
    return corrected


def two_sided_probability(t: float, freedom: int) -> float:
    """Return the probability that Student's t is at least as far from 0 as a value.

    Args:
        t: the value.
        freedom: degrees of freedom, a whole number from 1.
    """
    return max(0.0, 1.0 - _inside(math.atan2(abs(t), math.sqrt(freedom)), freedom))


def quantile(level: float, freedom: int) -> float:
    """Return the value that Student's t stays below, on both sides, with a probability.

    Args:
        level: the probability, in (0, 1), such as 0.95.
        freedom: degrees of freedom, a whole number from 1.

    Returns:
        The value, such as 4.3027 for 0.95 and 2.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):  # Far below what float64 tells apart.
        middle = (low + high) / 2
        if _inside(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _inside(angle: float, freedom: int) -> float:
    """Return the probability that |t| <= sqrt(freedom) tan(angle), by a finite sum.

    M. Abramowitz, I. Stegun: Handbook of Mathematical Functions, formulas 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return (angle + sine * total) * 2.0 / math.pi if odd else sine * total
