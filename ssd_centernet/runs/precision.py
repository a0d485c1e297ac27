"""Runs of one recipe in several precisions, side by side: curves, distances, metrics."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssd_centernet.drawing.chart import pixels, scale_values, stacked_axes
from ssd_centernet.drawing.visualize import save_png
from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.files import write_atomically
from ssd_centernet.runs.logs import RunLog, smoothed
from ssd_centernet.text_table import text_table

COMPARISON_NAME = "comparison.json"
CURVES_NAME = "loss_curves.png"
# A loss is smoothed over this share of the run: batches differ more than precisions do.
SMOOTHED_SHARE = 0.05
_SHOWN_METRICS = ("AP", "AP50", "AP75", "ARmax100")
# Readable by the colour-blind (Okabe and Ito).
_COLORS = {"fp32": "#323840", "bf16": "#0072b2", "fp16": "#d55e00"}
_CONTROL_COLOR = "#aa82c8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossDistance:
    """Hold how far a smoothed loss is from that of the baseline.

    Attributes:
        relative: float [M], loss / loss of the baseline - 1, by common step.
        largest: the largest absolute value.
        at_step: where.
        mean: of the absolute values.
        at_end: of the last step.
    """

    relative: np.ndarray
    largest: float
    at_step: int
    mean: float
    at_end: float


class Comparison:
    """Compare runs with the first of them.

    Attributes:
        runs: the logs of the runs, the baseline first.
        steps: int [M], the steps at which every run has logged.
        span: over how many steps losses are smoothed.
        curves: float [M] for each run, the smoothed losses.
        distances: name -> `LossDistance` of each run but the baseline.
    """

    def __init__(self, runs: Sequence[RunLog]):
        """Align the runs.

        Args:
            runs: at least one, trained and evaluated; the first is the baseline.

        Raises:
            ValueError: there is no run, the runs differ in length, or one has logged nothing.
        """
        if not runs:
            raise ValueError("no run to compare was given; expected at least one.")
        for run in runs:
            _check_complete(run)
        logged = [run.curve("total") for run in runs]
        lengths = {run.label: int(steps[-1]) for run, (steps, _) in zip(runs, logged, strict=True)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(
                f"the runs end at different steps ({told}); expected the same length. Train the "
                "shorter ones to the end."
            )
        self.runs = tuple(runs)
        common = set.intersection(*(set(steps.tolist()) for steps, _ in logged))
        self.steps = np.array(sorted(common))
        # No less than the longest window, or a smoothed value would be a part of one.
        widest = max(int(np.diff(steps, prepend=0).max()) for steps, _ in logged)
        self.span = max(SMOOTHED_SHARE * int(self.steps[-1]), float(widest))
        self.curves = [smoothed(*one, self.steps, self.span) for one in logged]
        self.distances = {
            run.label: _distance(curve, self.curves[0], self.steps)
            for run, curve in zip(runs[1:], self.curves[1:], strict=True)
        }

    @property
    def baseline(self) -> RunLog:
        """The run that the others are compared with."""
        return self.runs[0]

    def table(self) -> str:
        """Lay the numbers side by side, a column a run, with differences from the first.

        Returns:
            Lines of text without a line end at the last.
        """
        rows = [["", *(run.label for run in self.runs)]]
        rows.append(["loss at the end", *map(self._end_cell, self.runs)])
        for title, cell in (
            ("largest distance", lambda d: f"{d.largest:.2%} at step {d.at_step}"),
            ("mean distance", lambda d: f"{d.mean:.2%}"),
        ):
            rows.append([title, "-", *(cell(d) for d in self.distances.values())])
        rows += [
            [name, *(self._metric_cell(run, name) for run in self.runs)] for name in _SHOWN_METRICS
        ]
        if any(_scales(run) for run in self.runs):
            last = [_scales(run)[-1:] for run in self.runs]
            rows.append(["loss scale", *(f"{one[0]:g}" if one else "-" for one in last)])
            skipped = [str(_skipped(run)) if _scales(run) else "-" for run in self.runs]
            rows.append(["skipped steps", *skipped])
        rows.append(["images/s", *map(self._pace_cell, self.runs)])
        return text_table(rows, words=range(len(rows[0])), rule=False)

    def to_dict(self) -> dict:
        """Return everything as JSON takes it; numbers that are not finite become None."""
        runs = {
            run.label: {
                "model_dir": run.directory,
                "loss_at_end": _plain(curve[-1]),
                "smoothed_loss": _plain(curve),
                "windows": dict(
                    zip(("step", "loss"), map(_plain, run.curve("total")), strict=True)
                ),
                "loss_scale": (_scales(run) or [None])[-1],
                "skipped_steps": _skipped(run),
                "images_per_second": _plain(run.images_per_second),
                "metrics": {name: run.last[name] for name in METRIC_NAMES},
                "eval_losses": run.last_losses,
            }
            for run, curve in zip(self.runs, self.curves, strict=True)
            for logged in [run.curve("total")]
        }
        differences = {
            name: {
                "largest_relative_distance": _plain(distance.largest),
                "at_step": distance.at_step,
                "mean_relative_distance": _plain(distance.mean),
                "relative_distance_at_end": _plain(distance.at_end),
                "metrics": {key: _difference(run, self.baseline, key) for key in METRIC_NAMES},
            }
            for (name, distance), run in zip(self.distances.items(), self.runs[1:], strict=True)
        }
        return {
            "baseline": self.baseline.label,
            "step": self.steps.tolist(),
            "smoothed_over_steps": self.span,
            "runs": runs,
            "differences": differences,
        }

    def picture(self, title: str) -> np.ndarray:
        """Draw the losses, their distance from the baseline and, where there is one, the scale.

        Args:
            title: what was trained.

        Returns:
            uint8 [H, W, 3].
        """
        scaled = any(_scales(run) for run in self.runs)
        heights = [340] + [180] * bool(self.distances) + [90] * scaled
        ends = [f"{run.label} {run.last['AP']:.3f}" for run in self.runs]
        heading = f"{title}\nAP at the end: {', '.join(ends)}"
        with stacked_axes(*heights, heading=heading, x_label="step") as panels:
            panels[0].set_xlim(0, self.steps[-1])
            self._draw_losses(panels[0])
            if self.distances:
                self._draw_distances(panels[1])
            if scaled:
                self._draw_scales(panels[-1])
        return pixels(panels)

    def save(self, directory: str | os.PathLike, *, title: str, **facts) -> list[str]:
        """Write `comparison.json` and `loss_curves.png`, each whole or not at all.

        Args:
            directory: where to; created if missing.
            title: at the top of the picture.
            **facts: what the JSON file says beside the numbers: recipe and settings.

        Returns:
            The paths written.
        """
        directory = Path(directory)
        text = json.dumps({**facts, **self.to_dict()}, indent=1, allow_nan=False) + "\n"
        return [
            write_atomically(directory / COMPARISON_NAME, text, tidy=True),
            save_png(directory / CURVES_NAME, self.picture(title)),
        ]

    def _draw_losses(self, axes) -> None:
        axes.set_title(f"total loss (thin: as logged; thick: mean of {self.span:.0f} steps)")
        for run in self.runs:
            axes.plot(*run.curve("total"), color=_color(run), linewidth=1, alpha=0.3)
        for run, curve in zip(self.runs, self.curves, strict=True):
            # The baseline is the broad line below the others, so that one sees where they agree.
            width = 4.5 if run is self.baseline else 2.0
            axes.plot(self.steps, curve, color=_color(run), label=run.label, linewidth=width)
        scale_values(axes)

    def _draw_distances(self, axes) -> None:
        axes.set_title(f"smoothed loss, relative to {self.baseline.label}")
        ends = (0, self.steps[-1])
        axes.plot(ends, (0.0, 0.0), color=_color(self.baseline), linewidth=1.5)
        for run in self.runs[1:]:
            relative = 100 * self.distances[run.label].relative
            axes.plot(self.steps, relative, color=_color(run))
        scale_values(axes, "linear", " %")

    def _draw_scales(self, axes) -> None:
        scaled = [run for run in self.runs if _scales(run)]
        skipped = [f"{run.label} skipped {_skipped(run)} of {run.steps} steps" for run in scaled]
        axes.set_title(f"loss scale ({', '.join(skipped)})")
        for run in scaled:
            axes.plot(*run.curve("loss_scale"), color=_color(run), drawstyle="steps-post")
        scale_values(axes, "log2")

    def _end_cell(self, run: RunLog) -> str:
        text = f"{self.curves[self.runs.index(run)][-1]:.4f}"
        distance = self.distances.get(run.label)
        return text if distance is None else f"{text} ({distance.at_end:+.2%})"

    def _metric_cell(self, run: RunLog, name: str) -> str:
        difference = _difference(run, self.baseline, name)
        if run.last[name] < 0:
            return "undefined"
        text = f"{run.last[name]:.4f}"
        return text if run is self.baseline or difference is None else f"{text} ({difference:+.4f})"

    def _pace_cell(self, run: RunLog) -> str:
        text = f"{run.images_per_second:.1f}"
        if run is self.baseline:
            return text
        return f"{text} (x{run.images_per_second / self.baseline.images_per_second:.2f})"


def _distance(curve: np.ndarray, baseline: np.ndarray, steps: np.ndarray) -> LossDistance:
    relative = curve / baseline - 1.0
    worst = int(np.argmax(np.abs(relative)))
    return LossDistance(
        relative=relative,
        largest=float(abs(relative[worst])),
        at_step=int(steps[worst]),
        mean=float(np.abs(relative).mean()),
        at_end=float(relative[-1]),
    )


def _color(run: RunLog) -> str:
    return _COLORS.get(run.label, _CONTROL_COLOR)


def _difference(run: RunLog, baseline: RunLog, name: str) -> float | None:
    """Return the difference of a metric; COCO's -1 means that there is none."""
    if min(run.last[name], baseline.last[name]) < 0:
        return None
    return run.last[name] - baseline.last[name]


def _check_complete(run: RunLog) -> None:
    """Refuse a run that logged no window of training or has no evaluation."""
    for records, wanted in (
        (run.windows, "window of training; expected one every train.log_every steps"),
        (run.evaluations, "evaluation; expected that of its last step"),
    ):
        if not records:
            raise ValueError(
                f"{run.directory} holds no {wanted}. Remove the folder and start the comparison "
                "again."
            )


def _scales(run: RunLog) -> list[float]:
    """Return the loss scale at the end of each window that has one."""
    return run.curve("loss_scale")[1].tolist()


def _skipped(run: RunLog) -> int:
    """Count the steps that were skipped because a gradient overflowed."""
    return int(run.windows[-1].get("skipped_steps", 0))


def _plain(values) -> float | list | None:
    """Turn numbers into what JSON can hold."""
    values = np.asarray(values, float)
    if values.ndim:
        return [_plain(value) for value in values]
    return float(values) if np.isfinite(values) else None
