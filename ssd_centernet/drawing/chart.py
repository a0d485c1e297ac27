"""Line charts, with NumPy and Pillow alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssd_centernet.drawing.axes import Axis, choose_axis, linear_axis, log2_axis
from ssd_centernet.drawing.canvas import line_height, load_font, shortened

_PAPER = (255, 255, 255)
_INK = (32, 36, 42)
_FAINT_INK = (104, 112, 122)
_GRID = (230, 233, 237)
_AXIS = (150, 157, 166)
# Lines are drawn this much larger and scaled down, as Pillow draws them with jagged edges.
_OVERSAMPLING = 4
_MARGIN = 20
_TRAINING_COLOR, _VALIDATION_COLOR = (31, 119, 180), (214, 96, 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Hold one line of a chart.

    Attributes:
        x: [N] positions, ascending.
        y: [N] values; the line has a gap where one is not finite.
        color: red, green and blue, 0..255.
        label: its text in the legend; none without it.
        width: of the line, pixels.
        opacity: 1 covers what is below, 0 is not seen.
        steps: whether a value holds until the next one, instead of a straight line between them.
    """

    x: Sequence[float]
    y: Sequence[float]
    color: tuple[int, int, int]
    label: str = ""
    width: float = 2.0
    opacity: float = 1.0
    steps: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """Hold one pair of axes.

    Attributes:
        title: above them.
        curves: the lines, the first one lowest.
        height: of the axes, pixels.
        scale: of the vertical axis: 'linear', 'log', 'log2' (ticks at powers of two), or 'auto':
            'log' where positive values span a factor of 8.
        unit: written behind the numbers of the vertical axis, such as '%'.
        note: a line below the title, in smaller print.
    """

    title: str
    curves: Sequence[Curve]
    height: int = 300
    scale: str = "auto"
    unit: str = ""
    note: str = ""


def line_chart(
    panels: Sequence[Panel],
    *,
    heading: str,
    x_label: str,
    x_from: float | None = None,
    x_scale: str = "linear",
    width: int = 1000,
) -> np.ndarray:
    """Draw panels below each other over one horizontal axis.

    Args:
        panels: from top to bottom.
        heading: at the top; lines behind the first are fainter.
        x_label: what the horizontal axis counts.
        x_from: where it begins; None is at the first point.
        x_scale: of the horizontal axis: 'linear' or 'log2' (ticks at powers of two).
        width: of the picture, pixels.

    Returns:
        uint8 [H, width, 3].

    Raises:
        ValueError: there is nothing to draw: no panel, or one without a finite value.
    """
    if not panels:
        raise ValueError("a chart without panels was asked for; expected at least one.")
    return _Chart(panels, heading, x_label, x_from, x_scale, width).draw()


def draw_history(
    history: Mapping[str, Sequence[float]],
    *,
    heading: str = "Mean of each epoch",
    width: int = 720,
) -> np.ndarray:
    """Draw what `fit` returns: a panel for each of its numbers, training and validation in one.

    Args:
        history: name -> value of each epoch, as `fit(...).history`; 'val_loss' is drawn beside
            'loss'.
        heading: at the top.
        width: of the picture, pixels.

    Returns:
        uint8 [H, width, 3].

    Raises:
        ValueError: there is no epoch.
    """
    panels = []
    for name in (name for name in history if not name.startswith("val_")):
        curves = []
        for key, label, color in (
            (name, "training", _TRAINING_COLOR),
            (f"val_{name}", "validation", _VALIDATION_COLOR),
        ):
            if key in history:
                epochs = range(1, len(history[key]) + 1)
                curves.append(Curve(x=epochs, y=history[key], color=color, label=label))
        panels.append(Panel(title=name, curves=curves, height=150, scale="linear"))
    return line_chart(panels, heading=heading, x_label="epoch", width=width)


class _Chart:
    """Lay a chart out from top to bottom and draw it."""

    def __init__(self, panels, heading: str, x_label: str, x_from, x_scale: str, width: int):
        self.panels = panels
        self.heading = heading.split("\n")
        self.x_label = x_label
        self.fonts = {name: load_font(size) for name, size in _FONT_SIZES.items()}
        self.axes = [_axis_of(panel) for panel in panels]
        numbers = [label for axis in self.axes for _, label in axis.ticks]
        font = self.fonts["number"]
        self.left = _MARGIN + int(max(font.getlength(text) for text in numbers)) + 10
        self.width = width
        self.right = width - _MARGIN - 8
        xs = np.concatenate([np.asarray(c.x, float) for p in panels for c in p.curves])
        low = float(xs.min()) if x_from is None else x_from
        high = float(xs.max()) if xs.max() > low else low + 1.0
        if x_scale == "log2":
            self.x_axis = log2_axis(low, high, ticks=9)
        else:
            self.x_axis = linear_axis(low, high, tight=True, ticks=9)

    def draw(self) -> np.ndarray:
        """Return the picture."""
        line, title = line_height(self.fonts["heading"]), line_height(self.fonts["title"])
        small = line_height(self.fonts["number"])
        tops, y = [], _MARGIN + line + (len(self.heading) - 1) * title + 10
        for panel in self.panels:
            y += title + (small + 2 if panel.note else 0) + 8
            tops.append(y)
            y += panel.height + small + 18
        self.picture = Image.new("RGB", (self.width, y + small + 6), _PAPER)
        self.pen = ImageDraw.Draw(self.picture)
        self._heading(line, title)
        for panel, axis, top in zip(self.panels, self.axes, tops, strict=True):
            self._panel(panel, axis, top, title, small)
        middle = (self.left + self.right) / 2
        self._text((middle, y + small / 2 - 4), self.x_label, "number", anchor="mm")
        return np.asarray(self.picture)

    def _heading(self, line: int, title: int) -> None:
        room = self.width - 2 * _MARGIN
        for row, text in enumerate(self.heading):
            y = _MARGIN if row == 0 else _MARGIN + line + (row - 1) * title
            font, ink = ("heading", _INK) if row == 0 else ("title", _FAINT_INK)
            self._text((_MARGIN, y), shortened(text, self.fonts[font], room), font, ink=ink)

    def _panel(self, panel: Panel, axis: Axis, top: int, title: int, small: int) -> None:
        bottom = top + panel.height
        above = top - 8 - (small + 2 if panel.note else 0) - title
        self._text((_MARGIN, above), panel.title, "title")
        if panel.note:
            self._text((_MARGIN, top - 8 - small), panel.note, "number", ink=_FAINT_INK)
        self._legend(panel, above)
        for value, label in axis.ticks:
            y = bottom - axis.place(value) * panel.height
            self.pen.line((self.left, y, self.right, y), fill=_GRID)
            self._text((self.left - 8, y), label, "number", anchor="rm", ink=_FAINT_INK)
        for value, label in self.x_axis.ticks:
            x = self.left + self.x_axis.place(value) * (self.right - self.left)
            self.pen.line((x, bottom, x, bottom + 5), fill=_AXIS)
            self._text((x, bottom + 8), label, "number", anchor="ma", ink=_FAINT_INK)
        self.pen.line((self.left, bottom, self.right, bottom), fill=_AXIS)
        for curve in panel.curves:
            self._curve(curve, axis, top, panel.height)

    def _legend(self, panel: Panel, y: int) -> None:
        """Write labels with a stroke of their colour, right-aligned beside the title."""
        font = self.fonts["legend"]
        middle = y + line_height(self.fonts["title"]) / 2
        right = float(self.right)
        for curve in reversed([curve for curve in panel.curves if curve.label]):
            x = right - font.getlength(curve.label)
            self.pen.text((x, middle), curve.label, fill=_INK, font=font, anchor="lm")
            self.pen.line((x - 30, middle, x - 8, middle), fill=curve.color, width=4)
            right = x - 30 - 22

    def _curve(self, curve: Curve, axis: Axis, top: int, height: int) -> None:
        size = (self.right - self.left + 8, height + 8)
        large = Image.new("L", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
        pen = ImageDraw.Draw(large)
        stroke = max(1, round(curve.width * _OVERSAMPLING))
        for run in _runs(curve):
            points = [
                (
                    (4 + self.x_axis.place(x) * (self.right - self.left)) * _OVERSAMPLING,
                    (4 + height - axis.place(y) * height) * _OVERSAMPLING,
                )
                for x, y in run
            ]
            if len(points) == 1:
                (x, y), radius = points[0], 0.9 * stroke
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
            pen.line(points, fill=255, width=stroke, joint="curve")
        mask = large.resize(size, Image.Resampling.BOX).point(lambda v: int(v * curve.opacity))
        self.picture.paste(Image.new("RGB", size, curve.color), (self.left - 4, top - 4), mask)

    def _text(self, place, text: str, font: str, *, anchor: str = "la", ink=_INK) -> None:
        self.pen.text(place, text, fill=ink, font=self.fonts[font], anchor=anchor)


_FONT_SIZES = {"heading": 22, "title": 16, "legend": 15, "number": 13}


def _axis_of(panel: Panel) -> Axis:
    """Choose an axis for all curves of a panel."""
    values = np.concatenate([np.asarray(curve.y, float).ravel() for curve in panel.curves])
    try:
        return choose_axis(values, scale=panel.scale, unit=panel.unit)
    except ValueError as error:
        raise ValueError(f"the chart {panel.title!r} has no finite value to draw.") from error


def _runs(curve: Curve) -> list[list[tuple[float, float]]]:
    """Cut a curve at values that are not finite; draw corners where values hold."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(curve.x, curve.y, strict=True):
        if not math.isfinite(y):
            runs.append([])
            continue
        if curve.steps and runs[-1]:
            runs[-1].append((float(x), runs[-1][-1][1]))
        runs[-1].append((float(x), float(y)))
    return [run for run in runs if run]
