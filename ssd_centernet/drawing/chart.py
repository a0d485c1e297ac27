"""Draw charts with matplotlib: pictures of pixels, and SVG in the colours of a page.

Nothing but NumPy is imported before something is drawn. Lengths are pixels: all figures have 72
dots per inch, so that a point is a pixel.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_MISSING = (
    "charts need matplotlib, which is not installed. Install it: "
    'pip install "matplotlib>=3.7" (it is part of the extra ssd_centernet[train]).'
)
_STYLES = Path(__file__).parent
_INCH = 72  # Pixels.
_DOT = 7  # Every marker is a dot of this diameter.
_LOG_FROM_RATIO = 8.0
_MARGIN = 20
_FAINT = "#68707a"
_TRAINING_COLOR, _VALIDATION_COLOR = "#1f77b4", "#d66014"
# A chart of a page, and what its margins hold: numbers and names of its axes.
_PAGE_SIZE = (460, 300)
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 22, 14, 46
_PAGE_COLORS = ("faint", "rule", "blue", "teal", "orange", *(f"run{i}" for i in range(8)))


def check_installed() -> None:
    """Raise an error, before long work that ends with a chart, if no chart can be drawn.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(_MISSING)


def draw_history(
    history: Mapping[str, Sequence[float]],
    *,
    heading: str = "Mean of each epoch",
    width: int = 720,
) -> np.ndarray:
    """Draw the history of `fit`: one panel per number, with training and validation.

    Args:
        history: name -> value of each epoch, as `fit(...).history`; 'val_loss' is drawn beside
            'loss'.
        heading: heading at the top.
        width: width of the picture in pixels.

    Returns:
        uint8 [H, width, 3].

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no epochs.
    """
    names = [name for name in history if not name.startswith("val_")]
    if not names:
        raise ValueError(
            f"history has no numbers to draw, only {list(history)}; expected the history of fit()."
        )
    heights = [150] * len(names)
    with stacked_axes(*heights, heading=heading, x_label="epoch", width=width) as panels:
        for name, axes in zip(names, panels, strict=True):
            axes.set_title(name)
            for key, label, color in (
                (name, "training", _TRAINING_COLOR),
                (f"val_{name}", "validation", _VALIDATION_COLOR),
            ):
                if key in history:
                    epochs = range(1, len(history[key]) + 1)
                    axes.plot(epochs, history[key], color=color, label=label)
            scale_values(axes, "linear")
    return pixels(panels)


@contextlib.contextmanager
def stacked_axes(
    *heights: int, heading: str, x_label: str, width: int = 1000
) -> Iterator[list[Axes]]:
    """Yield axes, one below the other, to draw on; `pixels` turns them into a picture.

    A value with gaps on both sides becomes a dot. The labels of curves are above them.

    Args:
        *heights: heights of the axes from top to bottom, in pixels.
        heading: heading at the top; lines after the first are smaller.
        x_label: label of the horizontal axis, which all share.
        width: width of the picture in pixels.

    Yields:
        The axes; they are not in matplotlib's global state.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from ssd_centernet.drawing.canvas import legible

    first, *more = (legible(line, 14)[0] for line in heading.split("\n"))
    lines = [part for line in more for part in textwrap.wrap(line, max(16, width // 9 - 4))]
    above = _MARGIN + 36 + 22 * len(lines)
    height = above + sum(heights) + 58 * len(heights) + _MARGIN
    with _styled("chart") as matplotlib:
        figure = matplotlib.figure.Figure((width / _INCH, height / _INCH), layout="constrained")
        room = (_MARGIN / width, 0.01, 1 - 2 * _MARGIN / width, 0.99 - above / height)
        figure.get_layout_engine().set(rect=room, h_pad=8 / _INCH, hspace=0.02)
        style = {"va": "top", "linespacing": 1.3}
        left, top = _MARGIN / width, 1 - _MARGIN / height
        figure.text(left, top, first, fontsize=20, **style)
        figure.text(left, top - 30 / height, "\n".join(lines), color=_FAINT, fontsize=14, **style)
        grid = figure.subplots(
            len(heights), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        panels = grid[:, 0].tolist()
        yield panels
        for axes, size in zip(panels, heights, strict=True):
            axes.tick_params(labelbottom=True)
            for line in axes.lines:
                known = np.isfinite(line.get_ydata())
                alone = known & ~np.append(False, known[:-1]) & ~np.append(known[1:], False)
                line.set(marker="o" if alone.any() else "", markevery=alone, clip_on=False)
            if axes.get_legend_handles_labels()[0]:
                place = {"loc": "lower right", "bbox_to_anchor": (1, 1 + 12 / size)}
                axes.legend(ncols=len(axes.lines), **place).set_in_layout(False)
        panels[-1].set_xlabel(x_label)
        # Up to the last value; only a vertical axis ends at a round number.
        if panels[-1].get_autoscalex_on():
            panels[-1].autoscale(axis="x", tight=True)
        _number(panels[-1].xaxis, 9, integer=True)


def pixels(panels: Sequence[Axes]) -> np.ndarray:
    """Return the picture of `stacked_axes` as uint8 [H, W, 3]."""
    with _styled("chart") as matplotlib:
        canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(panels[0].figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def scale_values(axes: Axes, scale: str = "auto", unit: str = "") -> None:
    """Scale the vertical axis to its curves, and write its numbers.

    Args:
        axes: axes with curves.
        scale: 'linear', 'log2' (ticks at powers of two), or 'auto': logarithmic if positive values
            span a factor of 8. Values that are not positive make any axis linear.
        unit: text after the numbers.

    Raises:
        ValueError: there is no finite value.
    """
    low, high = axes.dataLim.intervaly
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the chart {axes.get_title('left')!r} has no finite value to draw.")
    factors = None
    if scale == "log2" and low > 0:
        axes.set_yscale("log", base=2)
    elif scale == "auto" and low > 0 and high / low >= _LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(0.95 * low, 1.05 * high)
        ratio = high / low
        factors = (1, 1.5, 2, 3, 5, 7) if ratio < 30 else (1, 2, 5) if ratio < 1000 else (1,)
    _number(axes.yaxis, unit=unit, factors=factors)
    axes.get_ylim()  # Chosen now, while the style is in force.


def _number(axis: Axis, ticks: int = 5, *, unit: str = "", factors=None, integer=False) -> None:
    """Choose an axis' ticks, and write their numbers in the most readable form."""
    from matplotlib import ticker

    def write(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        # Ticks are sums: zero may come as 1e-17.
        value = 0.0 if low <= 0 and abs(value) < 1e-9 * (high - low) else value
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e8 else f"{value:.6g}"
        return text + unit

    if axis.get_scale() == "linear":
        axis.set_major_locator(ticker.MaxNLocator(ticks, steps=(1, 2, 5, 10), integer=integer))
    elif factors:
        axis.set_major_locator(ticker.LogLocator(subs=factors))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(write)


# --- charts of a page -------------------------------------------------------------------------


def page_color(name: str) -> str:
    """Return, for matplotlib, a placeholder for a colour of the style sheet (light or dark).

    Args:
        name: name such as 'blue' or 'run3'; `svg` writes `var(--blue)`.
    """
    return f"#5c5c{_PAGE_COLORS.index(name):02x}"


@contextlib.contextmanager
def page_axes(*, x_label: str, y_label: str = "") -> Iterator[Axes]:
    """Yield axes to draw on; `svg` turns them into an element of a page.

    Args:
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.

    Yields:
        Axes from 0 to 1 in the style of the pages; colours are those of `page_color`. A group id
        (`set_gid`) is shown as a tooltip.

    Raises:
        ImportError: matplotlib is not installed.
    """
    width, height = _PAGE_SIZE
    across, upwards = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    with _styled("page") as matplotlib:
        figure = matplotlib.figure.Figure((width / _INCH, height / _INCH), frameon=False)
        place = (_LEFT / width, _BOTTOM / height, across / width, upwards / height)
        axes = figure.add_axes(place)
        axes.patch.set_visible(False)
        _number(axes.xaxis)
        _number(axes.yaxis)
        axes.set_xlabel(x_label, labelpad=6)
        axes.set_ylabel(y_label)
        axes.yaxis.set_label_coords((14 - _LEFT) / across, 0.5)
        yield axes
        axes.get_ylim()  # Chosen now, while the style is in force.


def svg(axes: Axes, description: str) -> str:
    """Return the element of a page that shows a chart.

    Args:
        axes: axes of `page_axes` with their drawing.
        description: text for readers who cannot see the chart.

    Returns:
        SVG with colours and fonts of the page, and without ids, which could occur twice.
    """
    from xml.etree import ElementTree

    for artist in (*axes.lines, *axes.patches):
        artist.set_clip_on(False)
    file = io.StringIO()
    with _styled("page"):
        axes.figure.savefig(file, format="svg", metadata={"Date": None})
    parts = []
    for group in ElementTree.fromstring(file.getvalue()).iter():
        name = group.get("id", "")
        # matplotlib numbers the parts without a name.
        tip = "" if re.fullmatch(r"[\w.]*", name) else f"<title>{html.escape(name)}</title>"
        if group.tag.endswith("}g"):
            parts += [_element(element, tip) for element in group]
    size = f"0 0 {_PAGE_SIZE[0]} {_PAGE_SIZE[1]}"
    label = html.escape(description)
    return (
        f'<svg class="chart" viewBox="{size}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _element(element: Element, tip: str) -> str:
    """Write one element of matplotlib's in the shortest form for browsers."""
    kind = element.tag.rpartition("}")[2]
    rules = element.get("style", "").split("; ")
    style = ";".join(rule.replace(": ", ":") for rule in rules if not rule.startswith("font"))
    style = re.sub("#5c5c(..)", lambda m: f"var(--{_PAGE_COLORS[int(m[1], 16)]})", style)
    style = f' style="{style}"' if style else ""
    x, y = (_rounded(element.get(name, "")) for name in "xy")
    if kind == "path":
        line = re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(element.get("d").strip()))
        return f'<path d="{line}"{style}>{tip}</path>'
    if kind == "use":
        return f'<circle cx="{x}" cy="{y}" r="{_DOT / 2}"{style}>{tip}</circle>'
    if kind != "text":
        return ""
    turn = element.get("transform", "")
    turn = "" if re.match(r"rotate\(-?0 ", turn) else f' transform="{_rounded(turn)}"'
    return f'<text x="{x}" y="{y}"{turn}{style}>{html.escape(element.text or "")}</text>'


def _rounded(text: str) -> str:
    return re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), text)


# --- matplotlib -------------------------------------------------------------------------------


@contextlib.contextmanager
def _styled(name: str):
    """Yield matplotlib with our style, whatever style the user has chosen."""
    check_installed()
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import matplotlib.style

    names = dict.fromkeys(("chart", name))
    with matplotlib.style.context(["default", *(_STYLES / f"{n}.mplstyle" for n in names)]):
        yield matplotlib
