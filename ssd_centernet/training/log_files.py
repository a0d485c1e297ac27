"""Reading the log of a run: its windows, evaluations and sessions."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_centernet.run_directory import (
    EVAL_KIND,
    EVALUATED_CHECKPOINTS_NAME,
    METRICS_NAME,
    SESSIONS_NAME,
    TRAIN_KIND,
)

# Ends of a training after which nothing more comes.
COMPLETE = ("finished", "stopped early")
UNDEFINED = -1.0  # COCO's metrics without any object.


def recorded_evaluations(model_dir: str | Path, *, until_step: int) -> list[dict[str, float]]:
    """Read the evaluations of a run.

    Args:
        model_dir: directory of the run.
        until_step: step of the checkpoint to resume from; later evaluations will be repeated and do
            not count.

    Returns:
        One record of metrics with `step` per evaluated step, by step; if a step has several, the
        last one.
    """
    found = {
        record["step"]: record for record in _records(model_dir) if record["kind"] == EVAL_KIND
    }
    return [found[step] for step in sorted(found) if step <= until_step]


def recorded_metrics(model_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """Read the windows and evaluations of a run that count.

    Args:
        model_dir: directory of the run.

    Returns:
        Windows of training and evaluations, each by ascending step. A killed process may have
        logged steps after its last checkpoint; they were repeated later and are left out.
    """
    windows: list[dict] = []
    evaluations: list[dict] = []
    for record in _records(model_dir):
        if record["kind"] == TRAIN_KIND:
            # The first window after a resume has one step: records at or after it were repeated.
            for records in (windows, evaluations):
                while records and records[-1]["step"] >= record["step"]:
                    records.pop()
            windows.append(record)
        elif record["kind"] == EVAL_KIND:
            while evaluations and evaluations[-1]["step"] >= record["step"]:
                evaluations.pop()
            evaluations.append(record)
    return windows, evaluations


def recorded_sessions(model_dir: str | Path) -> list[dict]:
    """Read when processes began and ended training in a directory; see `TrainLog.session`."""
    return _read_lines(Path(model_dir) / SESSIONS_NAME)


def recorded_checkpoints(directory: str | Path) -> list[dict]:
    """Read the numbers of checkpoints that `ssd_centernet evaluate` kept in a directory."""
    return _read_lines(Path(directory) / EVALUATED_CHECKPOINTS_NAME)


def _records(model_dir: str | Path) -> list[dict]:
    """Return the lines of the log with a kind and a step, each with its numbers alone."""
    return [
        {key: value for key, value in record.items() if key == "kind" or _is_number(value)}
        for record in _read_lines(Path(model_dir) / METRICS_NAME)
        if record.get("kind") in (TRAIN_KIND, EVAL_KIND)
    ]


def _read_lines(path: Path) -> list[dict]:
    """Read the JSON objects with a step of a file with one per line; none if there is no file.

    A line that is none is left out with a warning: a crash of the machine or an editor must not
    stop a run from going on.
    """
    if not path.is_file():
        return []
    records, unreadable = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            usable = isinstance(record, dict) and type(record.get("step")) is int
        except (ValueError, RecursionError):  # A killed process may leave half a line.
            usable = False
        if usable:
            records.append(record)
        elif line.strip():
            unreadable.append(number)
    if unreadable:
        lines = ", ".join(map(str, unreadable[:5])) + (", ..." if len(unreadable) > 5 else "")
        warnings.warn(
            f"{path}: {len(unreadable)} of its lines cannot be read and are left out: line {lines}",
            stacklevel=2,
        )
    return records


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def evaluations_without_best(
    records: Sequence[Mapping[str, float]], name: str, *, higher_is_better: bool
) -> int:
    """Count the evaluations after the best one.

    Args:
        records: result of `recorded_evaluations`.
        name: name of the metric that decides.
        higher_is_better: its direction.

    Returns:
        The number; 0 if the last one is the best. An undefined metric is never the best.
    """
    best, count = None, 0
    for record in records:
        value = record.get(name, math.nan)
        count += 1
        if beats(value, best, higher_is_better=higher_is_better):
            best, count = value, 0
    return count


def beats(value: float, best: float | None, *, higher_is_better: bool) -> bool:
    """Tell whether a metric is better than the best so far.

    Args:
        value: value of the metric.
        best: the best so far; None if there is none.
        higher_is_better: the metric's direction.

    Returns:
        False for an undefined value (-1 in COCO's numbers, or NaN), as it says nothing about the
        weights.
    """
    if math.isnan(value) or value == UNDEFINED:
        return False
    return best is None or (value > best if higher_is_better else value < best)


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
