import numpy as np
import pytest

from ssd_centernet.drawing import axes, chart
from ssd_centernet.drawing.chart import Curve, Panel, line_chart

RED, BLUE = (220, 30, 30), (20, 60, 220)


def panel(*curves, **options):
    return Panel(title="losses", curves=curves, **options)


def draw(*panels, **options):
    return line_chart(panels, heading="a run", x_label="step", **options)


def rows_and_columns(picture, color):
    """Where a picture has about this colour, as (first row, last row, first, last column)."""
    near = np.all(np.abs(picture.astype(int) - color) < 40, axis=-1)
    rows, columns = np.nonzero(near)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_curve_lies_where_its_values_are():
    rising = Curve(x=[0, 10], y=[0.0, 10.0], color=RED)
    low = Curve(x=[0, 10], y=[0.0, 0.0], color=BLUE)
    picture = draw(panel(rising, low, height=200), width=600)
    assert picture.dtype == np.uint8 and picture.shape[1:] == (600, 3)
    top, bottom, left, right = rows_and_columns(picture, RED)
    assert bottom - top == pytest.approx(200, abs=4)
    level, _, first, last = rows_and_columns(picture, BLUE)
    assert level == pytest.approx(bottom, abs=4)
    assert (first, last) == (pytest.approx(left, abs=4), pytest.approx(right, abs=4))
    near = np.all(np.abs(picture.astype(int) - RED) < 40, axis=-1)
    # Upwards to the right: half way up in the middle.
    middle = np.nonzero(near[:, (left + right) // 2])[0]
    assert middle.mean() == pytest.approx((top + bottom) / 2, abs=4)


def test_logarithmic_axis_where_values_span_much():
    curve = Curve(x=[0, 1, 2], y=[1.0, 10.0, 100.0], color=RED)
    picture = draw(panel(curve, height=200), width=600)
    top, bottom, left, right = rows_and_columns(picture, RED)
    near = np.all(np.abs(picture.astype(int) - RED) < 40, axis=-1)
    middle = np.nonzero(near[:, (left + right) // 2])[0]
    assert middle.mean() == pytest.approx((top + bottom) / 2, abs=4)


def test_equal_factors_are_equal_distances_on_a_horizontal_axis_of_powers():
    curve = Curve(x=[2, 8, 32], y=[0.0, 1.0, 1.0], color=RED, steps=True)
    picture = draw(panel(curve, height=200, scale="linear"), width=600, x_scale="log2")
    top, bottom, left, right = rows_and_columns(picture, RED)
    near = np.all(np.abs(picture.astype(int) - RED) < 40, axis=-1)
    # The step at 8 lies in the middle between 2 and 32.
    rise = np.nonzero(near[(top + bottom) // 2])[0]
    assert rise.mean() == pytest.approx((left + right) / 2, abs=4)


def test_gap_where_a_value_is_not_finite():
    curve = Curve(x=range(5), y=[1.0, 1.0, float("nan"), 1.0, 1.0], color=RED)
    picture = draw(panel(curve), width=600)
    _, _, left, right = rows_and_columns(picture, RED)
    near = np.all(np.abs(picture.astype(int) - RED) < 40, axis=-1).any(axis=0)
    quarter = (right - left) // 4
    assert near[left + quarter // 2] and near[right - quarter // 2]
    assert not near[left + quarter + 8 : right - quarter - 8].any()


def test_axis_from_zero_shifts_the_first_point():
    curve = Curve(x=[5, 10], y=[1.0, 2.0], color=RED)
    tight, from_zero = (
        rows_and_columns(draw(panel(curve), x_from=x_from, width=600), RED) for x_from in (None, 0)
    )
    assert from_zero[2] - tight[2] == pytest.approx((tight[3] - tight[2]) / 2, abs=6)


def test_steps_hold_their_value():
    curve = Curve(x=[0, 1, 2], y=[1.0, 2.0, 1.0], color=RED, steps=True)
    (run,) = chart._runs(curve)
    assert run == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 1)]


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, ["0", "2", "4", "6", "8", "10"]), (-3, 12, ["-5", "0", "5", "10", "15"])],
)
def test_linear_ticks(low, high, want):
    assert [label for _, label in axes.linear_axis(low, high).ticks] == want


def test_ticks_of_other_axes():
    assert [label for _, label in axes.log2_axis(16384, 16384).ticks] == [
        "8,192",
        "16,384",
        "32,768",
    ]
    assert [label for _, label in axes.log_axis(2, 210).ticks] == [
        "2",
        "5",
        "10",
        "20",
        "50",
        "100",
        "200",
    ]
    assert [label for _, label in axes.log_axis(4, 9).ticks] == ["4", "6", "8"]
    constant = axes.linear_axis(3.0, 3.0, unit=" %")
    assert constant.low < 3.0 < constant.high


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-1.0, 1e-9], [1e-30, 1e30], [1e6, 1.1e6]])
def test_any_finite_values_can_be_drawn(values):
    curve = Curve(x=range(len(values)), y=values, color=RED, label="a" * 300)
    for scale in ("auto", "linear", "log", "log2"):
        assert draw(panel(curve, scale=scale, note="b" * 500), width=400).shape[1] == 400


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="without panels"):
        draw()
    with pytest.raises(ValueError, match="'losses' has no finite value"):
        draw(panel(Curve(x=[0], y=[float("nan")], color=RED)))


def test_history_has_a_panel_for_each_number_with_its_validation():
    history = {"loss": [4.0, 2.0], "class": [1.0, 0.5], "val_loss": [4.0, 1.0]}
    both = chart.draw_history(history)
    orange = rows_and_columns(both, chart._VALIDATION_COLOR)
    blue = rows_and_columns(both, chart._TRAINING_COLOR)
    # The validation ends below the training, in the upper of two panels.
    assert orange[1] < both.shape[0] / 2 < blue[1]
    alone = chart.draw_history({"loss": [4.0, 2.0]}, width=400)
    assert alone.shape[1] == 400 and alone.shape[0] < both.shape[0]
    with pytest.raises(ValueError, match="without panels"):
        chart.draw_history({})
