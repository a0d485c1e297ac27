"""Charts as SVG inside a page, whose style sheet gives them their colours."""

import html
import math
from collections.abc import Sequence

import numpy as np

# Units of a chart; the page scales it to the column it stands in.
_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44


class Plot:
    """Collect the strokes of one chart with axes."""

    def __init__(
        self,
        description: str,
        *,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
    ):
        """Draw the axes.

        Args:
            description: what the chart shows, for those who cannot see it.
            x_label: what the horizontal axis counts.
            y_label: what the vertical axis counts.
            x_ticks: (place 0..1, text); none at places that have no mark.
            y_ticks: (place 0..1, text), each with a line across the chart.
        """
        self._description = description
        self._parts = []
        for place, text in y_ticks:
            y = self.y(place)
            self._parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
            self._text(_LEFT - 7, y + 4, text, "end")
        for place, text in x_ticks:
            self._text(self.x(place), _HEIGHT - _BOTTOM + 17, text, "middle")
        self._parts.append(f'<path class="axis" d="M{_LEFT} {self.y(0)}H{_WIDTH - _RIGHT}"/>')
        self._text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 7, x_label, "middle")
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        turned = f' transform="rotate(-90 12 {middle})"'
        self._text(12, middle, y_label, "middle", turned)

    def x(self, place: float) -> float:
        """Return the horizontal unit of a place 0..1."""
        return round(_LEFT + place * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, place: float) -> float:
        """Return the vertical unit of a place 0..1."""
        return round(_HEIGHT - _BOTTOM - place * (_HEIGHT - _TOP - _BOTTOM), 1)

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """Draw a line through places 0..1, with a gap at values that are not finite."""
        runs, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                runs.append(f"{pen}{self.x(x)} {self.y(y)}")
            pen = "L" if math.isfinite(y) else "M"
        self._parts.append(f'<path class="line {style}" d="{"".join(runs)}"/>')

    def dots(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """Draw a dot at each place that is finite."""
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                self._parts.append(
                    f'<circle class="{style}" cx="{self.x(x)}" cy="{self.y(y)}" r="3.5"/>'
                )

    def bar(self, left: float, right: float, top: float, style: str, tip: str) -> None:
        """Draw a bar between two places that says what it is when pointed at."""
        y = self.y(top)
        width, height = round(self.x(right) - self.x(left), 1), round(self.y(0) - y, 1)
        self._parts.append(
            f'<rect class="{style}" x="{self.x(left)}" y="{y}" width="{width}" height="{height}">'
            f"<title>{html.escape(tip)}</title></rect>"
        )

    def label(self, x: float, y: float, text: str) -> None:
        """Write a value above a place."""
        self._text(self.x(x), self.y(y) - 5, text, "middle")

    def svg(self) -> str:
        """Return the chart."""
        return (
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{html.escape(self._description)}">{"".join(self._parts)}</svg>'
        )

    def _text(self, x: float, y: float, text: str, anchor: str, more: str = "") -> None:
        self._parts.append(
            f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}"{more}>'
            f"{html.escape(text)}</text>"
        )


def share_ticks() -> list[tuple[float, str]]:
    """Return marks of an axis from 0 to 1."""
    return [(value / 5, f"{value / 5:.1f}") for value in range(6)]


def count_axis(highest: int) -> tuple[list[tuple[float, str]], float]:
    """Return marks of a logarithmic axis of counts.

    Args:
        highest: largest count.

    Returns:
        The marks, and the logarithm of 1 + count that stands at the top.
    """
    last = max(1, math.ceil(math.log10(max(highest, 1))))
    top = math.log10(1 + 10**last)
    decades = [10**power for power in range(last + 1)]
    marks = [(math.log10(1 + count) / top, _short(count)) for count in decades]
    return [(0.0, "0"), *marks], top


def sparkline(values: np.ndarray, description: str) -> str:
    """Draw a curve of values 0..1 as small as a word.

    Args:
        values: [N]; nothing is drawn for NaN.
        description: for those who cannot see it.

    Returns:
        An SVG element, empty text where there is no value.
    """
    if not np.isfinite(values).all():
        return ""
    taken = values[::4]
    points = " ".join(
        f"{64 * i / (len(taken) - 1):.0f},{1 + 18 * (1 - value):.1f}"
        for i, value in enumerate(taken)
    )
    label = html.escape(description)
    return (
        f'<svg class="spark" viewBox="0 0 64 20" role="img" aria-label="{label}">'
        f'<polygon points="0,20 {points} 64,20"/><polyline points="{points}"/></svg>'
    )


def _short(count: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)
