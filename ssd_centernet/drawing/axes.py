"""Axes of charts: where a value lies, and which numbers are written beside it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_LOG_FROM_RATIO = 8.0


@dataclasses.dataclass(frozen=True)
class Axis:
    """Place values between 0 and 1, and say where to write numbers.

    Attributes:
        low: the value at the lower end.
        high: the value at the upper end.
        log: whether equal factors are equal distances.
        ticks: values with their texts.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Return 0 at the lower end and 1 at the upper one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def choose_axis(values: np.ndarray, *, scale: str = "auto", unit: str = "") -> Axis:
    """Choose an axis that holds values.

    Args:
        values: of any shape; those that are not finite are passed over.
        scale: 'linear', 'log', 'log2' (ticks at powers of two), or 'auto': 'log' where positive
            values span a factor of 8.
        unit: written behind the numbers.

    Returns:
        The axis.

    Raises:
        ValueError: no value is finite.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("there is no finite value to choose an axis for.")
    low, high = float(values.min()), float(values.max())
    positive = low > 0 and scale != "linear"
    if positive and scale == "log2":
        return log2_axis(low, high)
    if positive and (scale == "log" or high / low >= _LOG_FROM_RATIO):
        return log_axis(low, high, unit=unit)
    return linear_axis(low, high, unit=unit)


def linear_axis(
    low: float, high: float, *, unit: str = "", tight: bool = False, ticks: int = 5
) -> Axis:
    """Make an axis of about so many ticks, which ends at ticks unless it is to be `tight`."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):
        low, high = low - max(0.5, 0.1 * abs(low)), high + max(0.5, 0.1 * abs(high))
    spacing = _nice((high - low) / ticks)
    if not tight:
        # Whole spacings, so that a number stands at either end.
        low = math.floor(low / spacing + 1e-9) * spacing
        high = math.ceil(high / spacing - 1e-9) * spacing
    first, last = math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9)
    values = [index * spacing for index in range(first, last + 1)]
    return Axis(low, high, False, tuple((v, _number(v) + unit) for v in values))


def log_axis(low: float, high: float, *, unit: str = "") -> Axis:
    """Make an axis of positive values on which equal factors are equal distances."""
    low, high = 0.95 * low, 1.05 * high
    values = [v for v in _log_ticks(low, high) if low <= v <= high]
    return Axis(low, high, True, tuple((v, _number(v) + unit) for v in values))


def log2_axis(low: float, high: float, *, ticks: int = 5) -> Axis:
    """Make an axis that has its ticks, about so many, at powers of two."""
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    # An octave on either side of a value that never changes.
    first, last = (first - 1, last + 1) if first == last else (first, last)
    stride = max(1, math.ceil((last - first) / ticks))
    values = [2.0**exponent for exponent in range(first, last + 1, stride)]
    return Axis(2.0**first, 2.0**last, True, tuple((v, _number(v)) for v in values))


def _nice(spacing: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(spacing))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= spacing * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers about as dense as a linear axis has them."""
    decades = math.log10(high / low)
    if decades <= 0.6:
        spacing = _nice((high - low) / 5)
        return [i * spacing for i in range(math.ceil(low / spacing), int(high / spacing) + 1)]
    factors = (1, 1.5, 2, 3, 5, 7) if decades < 1.5 else (1, 2, 5) if decades < 3 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    stride = max(1, round(decades / 6)) if len(factors) == 1 else 1
    return [f * 10.0**e for e in exponents if e % stride == 0 for f in factors]


def _number(value: float) -> str:
    """Write 20000, 0.05 and 1e+09 as they are read best."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e8 else f"{value:.6g}"
