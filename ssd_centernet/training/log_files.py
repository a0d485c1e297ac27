"""Reading the log of a run: its windows, evaluations and sessions."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
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
# What numbers of a log can be: a step that every number format holds, a time that is a date.
_STEPS, _SECONDS = 2**53, 1e11
# The event of a session that a run goes on after, from an earlier step.
_RECOVERY = "recovery"
# What is told of a session beside its event, step and time, and its type; numbers are counts.
_FACTS = {
    **dict.fromkeys(("reason", "device", "precision", "data_dir"), str),
    **dict.fromkeys(("train_split", "eval_split"), str),
    **dict.fromkeys(("steps_per_epoch", "total_steps", "global_batch_size"), int),
    **dict.fromkeys(("images", "processes"), int),
    **dict.fromkeys(("mixed_with", "data_weights"), list),
    "versions": dict,
}


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
    """Read when processes began and ended training in a directory; see `TrainLog.session`.

    A fact that is not of the type that it is written with is left out.
    """
    return [
        {
            name: value
            for name, value in record.items()
            if name not in _FACTS or _is_fact(value, _FACTS[name])
        }
        for record in _read_lines(Path(model_dir) / SESSIONS_NAME, _is_session)
        if record["event"] != _RECOVERY
    ]


def recorded_recoveries(model_dir: str | Path) -> list[dict]:
    """Read where a run failed and went back, `step` and `to_step`; see `Recovery`."""
    sessions = _read_lines(Path(model_dir) / SESSIONS_NAME, _is_session)
    return [
        record
        for record in sessions
        if record["event"] == _RECOVERY
        and _is_step(record.get("step"))
        and _is_step(record.get("to_step"))
    ]


def recorded_checkpoints(directory: str | Path) -> list[dict]:
    """Read the numbers of checkpoints that `ssd_centernet evaluate` kept in a directory."""
    path = Path(directory) / EVALUATED_CHECKPOINTS_NAME
    return _read_lines(path, lambda record: _is_time(record.get("time")))


def unreadable_lines(path: str | Path) -> list[int]:
    """Return the numbers of the lines of a run's log, from 1, that are left out when it is read."""
    path = Path(path)
    return _split_lines(path, _is_session if path.name == SESSIONS_NAME else _is_record)[1]


def _records(model_dir: str | Path) -> list[dict]:
    """Return the windows and evaluations of the log, each with its numbers alone."""
    return [
        {
            name: value
            for name, value in record.items()
            if (name == "kind" or _is_number(value)) and (name != "time" or _is_time(value))
        }
        for record in _read_lines(Path(model_dir) / METRICS_NAME, _is_record)
        if record["kind"] in (TRAIN_KIND, EVAL_KIND)
    ]


def _read_lines(path: Path, usable: Callable[[dict], bool]) -> list[dict]:
    """Read a file with one JSON object per line; none if there is no file.

    A line that is not usable is left out with a warning: a crash of the machine or an editor must
    not stop a run from going on.
    """
    records, unreadable = _split_lines(path, usable)
    if unreadable:
        lines = ", ".join(map(str, unreadable[:5])) + (", ..." if len(unreadable) > 5 else "")
        warnings.warn(
            f"{path}: {len(unreadable)} of its lines cannot be read and are left out: line {lines}",
            stacklevel=2,
        )
    return records


def _split_lines(path: Path, usable: Callable[[dict], bool]) -> tuple[list[dict], list[int]]:
    """Return the usable objects of a file and the numbers of its other lines."""
    if not path.is_file():
        return [], []
    records, unreadable = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        record = _parsed(line)
        if record is not None and usable(record):
            records.append(record)
        elif line.strip():
            unreadable.append(number)
    return records, unreadable


def _parsed(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
        if b"\\u" in line:  # Half a pair of surrogates is no text that can be printed.
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # A killed process may leave half a line.
        return None
    return record if isinstance(record, dict) and _is_step(record.get("step")) else None


def _is_record(record: dict) -> bool:
    return isinstance(record.get("kind"), str)


def _is_session(record: dict) -> bool:
    return record.get("event") in ("begin", _RECOVERY, "end") and _is_time(record.get("time"))


def _is_fact(value: object, kind: type) -> bool:
    return type(value) is kind and (kind is not int or 0 < value < _STEPS)


def _is_step(value: object) -> bool:
    return type(value) is int and 0 <= value < _STEPS


def _is_time(value: object) -> bool:
    return _is_number(value) and 0 <= value < _SECONDS


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def numbers_of(content: object) -> dict[str, float]:
    """Return what is a number in an object of a file, by name; nothing of anything else."""
    found = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in found if _is_number(value)}


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
    return best is None or math.isnan(best) or (value > best if higher_is_better else value < best)


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
