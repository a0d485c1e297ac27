"""Charts: what is drawn where, the numbers beside it, and what a page gets of it."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ssd_centernet.drawing import chart
from ssd_centernet.drawing.chart import page_axes, page_color, scale_values, stacked_axes, svg
from tests.process import environment, python

RED = "#dc1e1e"


def draw(y, scale="linear", unit="", *, x=None, x_scale=None, **options):
    """Draw one curve and return its axes."""
    with stacked_axes(200, heading="a run", x_label="step", width=600, **options) as (axes,):
        axes.set_title("losses")
        if x_scale:
            axes.set_xscale(x_scale, base=2)
        axes.plot(range(len(y)) if x is None else x, y, color=RED)
        scale_values(axes, scale, unit)
    return axes


def numbers(axis):
    """Return the numbers that are written within the limits of an axis."""
    low, high = axis.get_view_interval()
    texts = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    margin = 1e-9 * (high - low)
    return [text.get_text() for at, text in texts if low - margin <= at <= high + margin]


def rows_and_columns(picture, color):
    """Where a picture has about this colour, as (first row, last row, first, last column)."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    near = np.all(np.abs(picture.astype(int) - wanted) < 40, axis=-1)
    rows, columns = np.nonzero(near)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_picture_shows_a_curve_where_its_values_are():
    axes = draw([0.0, 5.0, 10.0])
    picture = chart.pixels([axes])
    assert picture.dtype == np.uint8 and picture.shape[1:] == (600, 3)
    top, bottom, left, right = rows_and_columns(picture, RED)
    frame = axes.get_window_extent()
    height = picture.shape[0]
    assert (top, bottom) == (
        pytest.approx(height - frame.y1, abs=3),
        pytest.approx(height - frame.y0, abs=3),
    )
    assert (left, right) == (pytest.approx(frame.x0, abs=3), pytest.approx(frame.x1, abs=3))
    assert frame.height == pytest.approx(200, abs=12)


@pytest.mark.parametrize(
    ("values", "scale", "limits", "written"),
    [
        ([0, 10], "linear", (0, 10), ["0", "2", "4", "6", "8", "10"]),
        ([-3, 12], "linear", (-5, 15), ["-5", "0", "5", "10", "15"]),
        ([-0.3, 0.3], "linear", (-0.4, 0.4), ["-0.4", "-0.2", "0", "0.2", "0.4"]),
        ([4, 9], "auto", (4, 9), ["4", "5", "6", "7", "8", "9"]),
        ([2, 210], "auto", (1.9, 220.5), ["2", "5", "10", "20", "50", "100", "200"]),
        ([1, 10], "auto", (0.95, 10.5), ["1", "1.5", "2", "3", "5", "7", "10"]),
        ([1, 1e6], "auto", (0.95, 1.05e6), ["1", "10", "100", *("1,000 10,000".split())]),
        ([0, 100], "auto", (0, 100), ["0", "20", "40", "60", "80", "100"]),
        ([16384, 16384], "log2", (8192, 32768), ["8,192", "16,384", "32,768"]),
        ([3, 9], "log2", (2, 16), ["2", "4", "8", "16"]),
    ],
)
def test_numbers_of_the_vertical_axis(values, scale, limits, written):
    axes = draw(values, scale)
    assert axes.get_ylim() == pytest.approx(limits)
    assert numbers(axes.yaxis)[: len(written)] == written


def test_a_constant_has_room_above_and_below_and_a_unit_is_written():
    axes = draw([3.0, 3.0], unit=" %")
    low, high = axes.get_ylim()
    assert low < 3.0 < high
    assert "3 %" in numbers(axes.yaxis)


def test_horizontal_axis_ends_at_the_values_or_where_it_is_told_to():
    assert draw([1.0, 2.0], x=[3, 4017]).get_xlim() == (3, 4017)
    assert numbers(draw([1.0, 2.0], x=[0, 4000]).xaxis)[:3] == ["0", "500", "1,000"]
    axes = draw([0.0, 1.0, 1.0], x=[2, 8, 32], x_scale="log")
    assert axes.get_xlim() == (2, 32)
    assert numbers(axes.xaxis) == ["2", "4", "8", "16", "32"]
    with stacked_axes(100, 100, heading="a run", x_label="step") as (above, below):
        for axes in (above, below):
            axes.plot([5, 10], [1.0, 2.0])
        above.set_xlim(0, 10)
    assert below.get_xlim() == (0, 10) and below.get_xlabel() == "step"


def test_a_value_between_gaps_is_a_dot():
    nan = float("nan")
    (line,) = draw([1.0, 2.0, nan, 4.0, nan, 6.0, 7.0]).lines
    assert line.get_marker() == "o"
    np.testing.assert_array_equal(np.flatnonzero(line.get_markevery()), [3])
    (line,) = draw([1.0, nan, 3.0, 4.0]).lines
    np.testing.assert_array_equal(np.flatnonzero(line.get_markevery()), [0])
    (line,) = draw([1.0, 2.0]).lines
    assert line.get_marker() == ""


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-1.0, 1e-9], [1e-30, 1e30], [1e6, 1.1e6]])
@pytest.mark.parametrize("scale", ["auto", "linear", "log2"])
def test_any_finite_values_can_be_drawn(values, scale):
    assert chart.pixels([draw(values, scale)]).shape[1] == 600


@pytest.mark.filterwarnings("error")
def test_any_text_can_be_written():
    heading = "costs $5 and $x_{\n" + 20 * "/a path/that is long/日本" + "\n\x07"
    with stacked_axes(60, heading=heading, x_label="step", width=400) as (axes,):
        axes.plot([0, 1], [1.0, 2.0], label="a" * 300)
    assert chart.pixels([axes]).shape[1] == 400
    written = [text.get_text() for text in axes.figure.texts]
    assert written[0] == "costs $5 and $x_{"
    # What no font can write is a question mark; the whole path is there, in several lines.
    assert "".join(written[1].split()).count("/apath/thatislong/??") == 20


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="'losses' has no finite value"):
        draw([float("nan")])
    with pytest.raises(ValueError, match=r"no numbers to draw, only \['val_loss'\]"):
        chart.draw_history({"val_loss": [1.0]})


def test_history_has_a_panel_for_each_number_with_its_validation(monkeypatch):
    drawn = []
    monkeypatch.setattr(chart, "pixels", lambda panels: drawn.append(panels))
    chart.draw_history({"loss": [4.0, 2.0], "class": [1.0, 0.5], "val_loss": [4.0, 1.0]})
    loss, single = drawn[0]
    assert [axes.get_title(loc="left") for axes in (loss, single)] == ["loss", "class"]
    curves = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert curves == {"training": [[1, 4], [2, 2]], "validation": [[1, 4], [2, 1]]}
    assert [text.get_text() for text in single.get_legend().get_texts()] == ["training"]
    monkeypatch.undo()
    both = chart.draw_history({"loss": [4.0, 2.0], "class": [1.0, 0.5], "val_loss": [4.0, 1.0]})
    alone = chart.draw_history({"loss": [4.0, 2.0]}, width=400)
    assert alone.shape[1] == 400 and alone.shape[0] < both.shape[0]


# --- charts of a page ---------------------------------------------------------------------------


@pytest.fixture
def drawn():
    with page_axes(x_label="recall", y_label="precision <1>") as axes:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 0.5, 1], [1, 0.25, 0], color=page_color("blue"))
        axes.plot([0.5], [0.5], color=page_color("run7"), marker="o")
        (bar,) = axes.bar([0.25], [0.75], 0.1, color=page_color("orange"))
        bar.set_gid('3 "right" & <wrong>')
    return axes


def parts(text):
    found = ElementTree.fromstring(text)
    return found, {tag: list(found.iter(tag)) for tag in ("path", "circle", "text", "title")}


def test_page_chart_lies_where_its_values_are(drawn):
    root, found = parts(svg(drawn, 'a "curve"'))
    assert root.attrib == {
        "class": "chart",
        "viewBox": "0 0 460 300",
        "role": "img",
        "aria-label": 'a "curve"',
    }
    # The axes are 384 wide and 240 high, and begin at (54, 254).
    [curve] = [e for e in found["path"] if "stroke:var(--blue)" in e.get("style")]
    assert curve.get("d") == "M54 14L246 194L438 254"
    [dot] = found["circle"]
    assert (dot.get("cx"), dot.get("cy"), dot.get("r")) == ("246", "134", "3.5")
    assert "fill:var(--run7)" in dot.get("style")
    [bar] = [e for e in found["path"] if "fill:var(--orange)" in e.get("style")]
    assert bar.get("d").startswith("M130.8 254L169.2 254L169.2 74L130.8 74")
    assert [title.text for title in bar] == ['3 "right" & <wrong>'] and len(found["title"]) == 1


def test_page_chart_has_the_colours_and_the_letters_of_the_page(drawn):
    text = svg(drawn, "a curve")
    _, found = parts(text)
    written = [element.text for element in found["text"]]
    assert written[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert {"recall", "precision <1>"} < set(written)
    for element in (*found["path"], *found["circle"]):
        assert re.search(r"(fill|stroke):var\(--\w+\)", element.get("style")), element.attrib
    for element in found["text"]:
        assert "fill:var(--faint)" in element.get("style") and "font" not in element.get("style")
    # Nothing that two charts of a page could both have, and nothing to load.
    for token in (" id=", "url(", "href", "http", "<style", "#", "5c5c"):
        assert token not in text, token
    assert len(text) < 6000


def test_page_charts_are_the_same_each_time(drawn):
    assert svg(drawn, "a curve") == svg(drawn, "a curve")


def test_colours_of_the_style_sheet_exist():
    css = (chart._STYLES / "page.css").read_text(encoding="utf-8")
    for name in chart._PAGE_COLORS:
        # In light, in dark and on paper.
        assert len(re.findall(rf"--{name}: #", css)) == 3, name


# --- matplotlib ---------------------------------------------------------------------------------


def test_the_style_of_a_user_is_left_as_it_is_and_changes_nothing(drawn):
    import matplotlib

    plain = svg(drawn, "a curve"), chart.pixels([draw([1.0, 2.0])])
    with matplotlib.rc_context({"text.color": "red", "lines.linewidth": 9, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        assert svg(drawn, "a curve") == plain[0]
        np.testing.assert_array_equal(chart.pixels([draw([1.0, 2.0])]), plain[1])
        assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_imported_when_a_chart_is_drawn():
    code = """
import sys
import ssd_centernet.cli.train, ssd_centernet.cli.report, ssd_centernet.runs.report
import ssd_centernet.evaluation.report, ssd_centernet.preview.anchor_report
from ssd_centernet.drawing.chart import check_installed, draw_history
from tests.process import environment, python
check_installed()
assert "matplotlib" not in sys.modules
draw_history({"loss": [1.0]})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    # As the command line sets it: the Keras 3 that TensorFlow would load imports matplotlib.
    python(code, env=environment(TF_USE_LEGACY_KERAS=1))


def test_without_matplotlib_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setattr(chart.importlib.util, "find_spec", lambda name: None)
    for use in (chart.check_installed, lambda: chart.draw_history({"loss": [1.0]})):
        with pytest.raises(ImportError, match=r'pip install "matplotlib>=3\.7"'):
            use()
