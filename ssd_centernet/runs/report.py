"""Runs beside each other: tables for a terminal, and one page with curves and settings."""

from __future__ import annotations

import html
import math
import os
import time
from collections.abc import Callable, Sequence

import numpy as np

from ssd_centernet.drawing.chart import page_axes, page_color, scale_values, svg
from ssd_centernet.drawing.page import figure, number, page, table
from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.files import write_atomically
from ssd_centernet.plain_text import counted
from ssd_centernet.runs.logs import RunLog, differences, doubts, smoothed
from ssd_centernet.text_table import text_table
from ssd_centernet.training.length import LOSS_PREFIX
from ssd_centernet.training.log_files import duration

_NOTHING = "–"
# Settings in a terminal: more of them, or longer values, are left to the page.
_SETTINGS_LISTED = 24
_VALUE_LENGTH = 32
_STATE_HEAD = '<th scope="col" class="word">state'
# More windows than this are smoothed, and drawn in so many points.
_MOST_POINTS = 300
_SMOOTHED_FROM = 60
_SMOOTHED_SHARE = 0.03
# Values of windows that are not parts of the loss: they have their own chart, or none.
_NO_LOSS = {
    *("kind", "step", "time", "epoch", "learning_rate", "gradient_norm", "total"),
    *("images_per_second", "data_wait_share", "eta_seconds", "loss_scale", "skipped_steps"),
}
# What is told of a run: heading -> text of a run.
_COLUMNS: dict[str, Callable[[RunLog], str]] = {
    "state": lambda run: run.state,
    "steps": lambda run: f"{run.steps:,}" + (f" of {run.total_steps:,}" if run.total_steps else ""),
    "epochs": lambda run: _decimals(run.epochs, 1),
    "images seen": lambda run: _NOTHING if run.images_seen is None else f"{run.images_seen:,}",
    "images/s": lambda run: _decimals(run.images_per_second, 1),
    "time": lambda run: duration(60 * run.minutes) if math.isfinite(run.minutes) else _NOTHING,
    "loss": lambda run: _decimals(run.loss, 4),
    "last AP": lambda run: _metric(run.last, "AP"),
    "best AP": lambda run: _metric(run.best, "AP"),
    "at step": lambda run: f"{run.best['step']:,}" if run.best else _NOTHING,
}


# A terminal has 80 columns; the steps of the best evaluations stand in their own table there.
_PAGE_ALONE = ("images seen", "at step")


def text_report(runs: Sequence[RunLog]) -> str:
    """Lay runs beside each other as text.

    Args:
        runs: of `read_runs`.

    Returns:
        Lines for a terminal: the state of each run, COCO's numbers of its best evaluation, the
        settings that differ.
    """
    told = {name: cell for name, cell in _COLUMNS.items() if name not in _PAGE_ALONE}
    rows = [["run", *told], *([run.label, *(cell(run) for cell in told.values())] for run in runs)]
    parts = [text_table(rows, words=(0, 1))]  # The second is the state.
    evaluated = [run for run in runs if run.best]
    for names in (METRIC_NAMES[:6], METRIC_NAMES[6:]) if evaluated else ():
        rows = [["best evaluation", "step", *names]]
        rows += [
            [run.label, f"{run.best['step']:,}", *(_metric(run.best, m) for m in names)]
            for run in evaluated
        ]
        parts.append(text_table(rows))
    parts += [f"note: {told}" for told in doubts(runs)]
    if len(runs) > 1:
        parts.append(_text_settings(runs))
    return "\n\n".join(parts)


def runs_page(runs: Sequence[RunLog]) -> str:
    """Describe runs on one page that needs no other file and no network.

    Args:
        runs: of `read_runs`.

    Returns:
        The page, HTML with its style and charts inside.
    """
    warnings = "".join(f'<p class="hint">{html.escape(told)}</p>' for told in doubts(runs))
    when = time.strftime("%Y-%m-%d %H:%M")
    head = f'<p class="faint">As of {when}: {counted(len(runs), "run")}</p>{warnings}'
    sections = {
        "Runs": _runs_section(runs),
        "Metrics": _metrics_section(runs),
        "Curves": _curves_section(runs),
        "Settings": _settings_section(runs),
        "Facts": _facts_section(runs),
    }
    names = [run.label for run in runs[:3]] + (["..."] if len(runs) > 3 else [])
    title = f"{'Runs' if len(runs) > 1 else 'Run'}: {', '.join(names)}"
    return page(title, head=head, opening="", sections=sections)


def write_runs_page(path: str | os.PathLike, runs: Sequence[RunLog]) -> str:
    """Write the page of `runs_page`, whole or not at all and return the path."""
    return write_atomically(path, runs_page(runs), tidy=True)


# --- text ---------------------------------------------------------------------------------------


def _cells(run: RunLog) -> list[str]:
    return [cell(run) for cell in _COLUMNS.values()]


def _decimals(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else _NOTHING


def _metric(evaluation: dict | None, name: str) -> str:
    return number(evaluation.get(name, math.nan)) if evaluation else _NOTHING


def _text_settings(runs: Sequence[RunLog]) -> str:
    found = differences(runs)
    if not found:
        return "No setting differs."
    rows = [["setting", *(run.label for run in runs)]]
    for name, values in list(found.items())[:_SETTINGS_LISTED]:
        rows.append([name, *(_shortened(value) for value in values)])
    text = text_table(rows, words=range(len(rows[0])))
    more = len(found) - _SETTINGS_LISTED
    return text + (f"\n... and {counted(more, 'setting')} more on the page" if more > 0 else "")


def _shortened(value: str | None) -> str:
    if value is None:
        return _NOTHING
    return value if len(value) <= _VALUE_LENGTH else value[: _VALUE_LENGTH - 3] + "..."


# --- page ---------------------------------------------------------------------------------------


def _name(index: int, run: RunLog) -> str:
    """Return a run's name after the colour of its curves."""
    return f'<i class="swatch run{index % 8}"></i>{html.escape(run.label)}'


def _heads(names: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)


def _row(head: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>'


def _runs_section(runs: Sequence[RunLog]) -> str:
    rows = []
    for index, run in enumerate(runs):
        cells = []
        for heading, text in zip(_COLUMNS, _cells(run), strict=True):
            style = ' class="word"' if heading == "state" else ""
            cells.append(f'<td{style} data-v="{_sorted_by(text)}">{html.escape(text)}</td>')
        rows.append(_row(_name(index, run), cells))
    caption = (
        "Loss: mean of the last 5 % of the steps. Time: from the beginning of each process to its "
        "end, evaluations included. Images/s: median of the windows. Press a heading to sort."
    )
    heads = _heads(["run", *_COLUMNS]).replace('<th scope="col">state', _STATE_HEAD)
    return table("wide sortable runs", "runs", caption, heads, "".join(rows))


def _sorted_by(text: str) -> str:
    """Return what a cell is sorted by: its number where it is one, its text else."""
    if text == _NOTHING:
        return "-1"
    seconds = text.split(":")
    if len(seconds) > 1 and all(part.isdigit() for part in seconds):
        return str(sum(int(part) * 60**power for power, part in enumerate(reversed(seconds))))
    return html.escape(text.split(" of ")[0].replace(",", ""))


def _metrics_section(runs: Sequence[RunLog]) -> str:
    if not any(run.best for run in runs):
        return '<p class="faint">None of the runs has been evaluated.</p>'
    tables = []
    best, last = [run.best for run in runs], [run.last for run in runs]
    kinds = {"best": best} if best == last else {"best": best, "last": last}
    for title, chosen in kinds.items():
        both = ", which is also its last" if len(kinds) == 1 else ""
        bold = "; the highest number of a column is bold" if len(runs) > 1 else ""
        caption = f"The {title} evaluation of each run{both}{bold}."
        highest = {
            name: max((one.get(name, -1.0) for one in chosen if one), default=-1.0)
            for name in METRIC_NAMES
        }
        rows = []
        for index, (run, one) in enumerate(zip(runs, chosen, strict=True)):
            step = one["step"] if one else -1
            cells = [f'<td data-v="{step}">{f"{step:,}" if one else _NOTHING}</td>']
            for name in METRIC_NAMES:
                value = one.get(name, -1.0) if one else -1.0
                text = number(value)
                if value >= 0 and value == highest[name] and len(runs) > 1:
                    text = f"<b>{text}</b>"
                cells.append(f'<td data-v="{value:.6f}">{text}</td>')
            rows.append(_row(_name(index, run), cells))
        heads = _heads(["run", "step", *METRIC_NAMES])
        tables.append(
            table("wide sortable runs", f"{title} metrics", caption, heads, "".join(rows))
        )
    return '<div class="stack">' + "".join(tables) + "</div>"


def _curves_section(runs: Sequence[RunLog]) -> str:
    """Draw what was logged, over steps, or over images where batches differ."""
    sizes = {run.batch_size for run in runs}
    over_images = len(sizes) > 1 and None not in sizes
    scales = [float(run.batch_size) if over_images else 1.0 for run in runs]
    names = {name for run in runs for one in run.windows[-1:] for name in one} - _NO_LOSS
    wanted = [
        ("AP", "AP", True, "linear", "Of every evaluation."),
        ("total", "Loss", False, "auto", "Weighted sum of the parts, regularisation left out."),
        *((name, f"Loss part: {name}", False, "auto", "Unweighted.") for name in sorted(names)),
        *(
            (LOSS_PREFIX + name, f"Loss part of evaluations: {name}", True, "auto", "Unweighted.")
            for name in sorted(names)
        ),
        ("learning_rate", "Learning rate", False, "linear", ""),
        ("images_per_second", "Images/s", False, "linear", "Mean of each window."),
    ]
    drawn = [_curve(runs, scales, over_images, *one) for one in wanted]
    keys = "".join(
        f'<li><i class="run{i % 8}{_dashes(i)}"></i>{html.escape(run.label)}</li>'
        for i, run in enumerate(runs)
    )
    note = " Where windows are many, the thick line is their mean." if any(drawn) else ""
    axis = "images, as the runs have batches of different sizes" if over_images else "steps"
    figures = "".join(drawn) or '<p class="faint">Nothing is logged yet.</p>'
    return (
        f'<ul class="legend runs">{keys}</ul><p class="faint">Over {axis}.{note}</p>'
        f'<div class="two">{figures}</div>'
    )


def _dashes(index: int) -> str:
    return " dashed" if index >= 8 else ""


def _curve(runs, scales, over_images: bool, name, title, of_evaluations, scale, caption) -> str:
    """Draw one number of all runs; empty text where none has logged it."""
    curves = [run.curve(name, of_evaluations=of_evaluations) for run in runs]
    curves = [(steps[np.isfinite(y)], y[np.isfinite(y)]) for steps, y in curves]
    if name == "AP":
        curves = [(steps[y >= 0], y[y >= 0]) for steps, y in curves]
    if not any(len(steps) for steps, _ in curves):
        return ""
    # The same for all charts, so that they can be read below each other.
    furthest = max(run.steps * by for run, by in zip(runs, scales, strict=True))
    with page_axes(x_label="images" if over_images else "steps") as axes:
        axes.set_xlim(0, max(furthest, 1))
        for index, ((steps, y), by) in enumerate(zip(curves, scales, strict=True)):
            if not len(steps):
                continue
            style = {"color": page_color(f"run{index % 8}")}
            style |= {"linestyle": (0, (3.5, 2))} if _dashes(index) else {}
            xs, ys = _points(steps, y)
            if len(steps) > _SMOOTHED_FROM and not of_evaluations and name != "learning_rate":
                axes.plot(xs * by, ys, linewidth=1.2, alpha=0.35, **style)
                widest = float(np.diff(steps, prepend=0).max())
                ys = smoothed(steps, y, xs, max(_SMOOTHED_SHARE * float(steps[-1]), widest))
            axes.plot(xs * by, ys, marker="o" if len(xs) == 1 or of_evaluations else "", **style)
        if scale == "linear":
            axes.update_datalim([(0.0, 0.0)])
        scale_values(axes, scale)
        axes.set_ylabel("logarithmic" if axes.get_yscale() == "log" else "")
    told = [f"{run.label}: {y[-1]:.4g}" for run, (_, y) in zip(runs, curves, strict=True) if len(y)]
    drawn = svg(axes, f"{title}, the last value of each run. {'; '.join(told)}")
    return figure(title, drawn, caption)


def _points(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thin a curve out to what can be seen; the first and the last point stay."""
    if len(steps) <= _MOST_POINTS:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, _MOST_POINTS).round().astype(int)
    return steps[kept], values[kept]


def _settings_section(runs: Sequence[RunLog]) -> str:
    untold = [run.label for run in runs if not run.bindings]
    note = f" No settings can be read of: {', '.join(untold)}." if untold else ""
    found = differences(runs)
    if not found:
        return f'<p class="faint">No setting differs.{html.escape(note)}</p>'
    rows = []
    for name, values in found.items():
        cells = [
            f'<td class="word"><code>{_NOTHING if v is None else html.escape(v)}</code></td>'
            for v in values
        ]
        rows.append(_row(f"<code>{html.escape(name)}</code>", cells))
    heads = '<th scope="col" data-fixed>setting</th>' + "".join(
        f'<th scope="col" data-fixed class="word">{_name(i, run)}</th>'
        for i, run in enumerate(runs)
    )
    caption = (
        f"{counted(len(found), 'setting')} that differ, as the runs saved them; a dash where a "
        f"run has no part that asks for it.{html.escape(note)}"
    )
    return table("wide settings", "settings that differ", caption, heads, "".join(rows))


def _facts_section(runs: Sequence[RunLog]) -> str:
    parts = []
    for index, run in enumerate(runs):
        versions = run.facts.get("versions", {})
        facts = {
            "directory": run.directory,
            "state": run.state,
            "data": run.facts.get("data_dir"),
            "training images": run.facts.get("images"),
            "batch over all processes": run.batch_size,
            "processes": run.facts.get("processes"),
            "device": run.facts.get("device"),
            "precision": run.facts.get("precision"),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "begun": _moment(run.sessions[0] if run.sessions else None),
            "last entry": _moment(run.windows[-1] if run.windows else None),
            "processes so far": sum(one.get("event") == "begin" for one in run.sessions) or None,
        }
        terms = "".join(
            f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>"
            for name, value in facts.items()
            if value not in (None, "")
        )
        parts.append(f"<div><h3>{_name(index, run)}</h3><dl>{terms}</dl></div>")
    return f'<div class="two">{"".join(parts)}</div>'


def _moment(record: dict | None) -> str | None:
    if not record or "time" not in record:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["time"]))
