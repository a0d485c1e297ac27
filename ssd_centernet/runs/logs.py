"""A run as its directory tells it, whether it goes on, has ended or was killed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssd_centernet.config.text import read_bindings
from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.files import read_object
from ssd_centernet.run_directory import (
    CONFIG_NAME,
    EVAL_KIND,
    EVALUATION_DIR,
    EVALUATION_METRICS_NAME,
    METRICS_NAME,
)
from ssd_centernet.runs.lock import is_training
from ssd_centernet.training.length import LOSS_PREFIX
from ssd_centernet.training.log_files import (
    COMPLETE,
    UNDEFINED,
    numbers_of,
    recorded_checkpoints,
    recorded_metrics,
    recorded_sessions,
)

# What the end of a run is, as a share of its steps: losses of single batches differ.
END_SHARE = 0.05
# Longer names are cut in the middle where they stay apart.
_LABEL_LENGTH = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunLog:
    """Hold what a run has written so far.

    Attributes:
        label: what the run is called, unique among those it is compared with.
        directory: of the run.
        windows: the windows of training as `TrainLog` wrote them, by ascending `step`.
        evaluations: records of COCO's numbers and losses by ascending `step`; those of a later
            `ssd_centernet evaluate` on the same split are among them.
        sessions: when processes began and ended, see `TrainLog.session`; none of older versions.
        bindings: the settings, name -> value as gin writes it; empty where none can be read.
        running: whether a process of this machine is training in the directory.
    """

    label: str
    directory: str
    windows: Sequence[dict]
    evaluations: Sequence[dict]
    sessions: Sequence[dict]
    bindings: dict[str, str]
    running: bool

    @classmethod
    def read(cls, label: str, directory: str | os.PathLike) -> RunLog:
        """Read a run directory.

        Args:
            label: what the run is called.
            directory: of the run.

        Returns:
            What is there; nothing in it is changed.
        """
        directory = Path(directory)
        windows, evaluations = recorded_metrics(directory)
        bindings = _bindings(directory / CONFIG_NAME)
        split = bindings.get("train.eval_split", "").strip("'\"")
        later = _later_evaluations(directory / EVALUATION_DIR, split)
        evaluations = sorted(
            # Of one step that of the training counts.
            {one["step"]: one for one in [*later, *evaluations]}.values(),
            key=lambda one: one["step"],
        )
        return cls(
            label=label,
            directory=os.fspath(directory),
            windows=windows,
            evaluations=evaluations,
            sessions=recorded_sessions(directory),
            bindings=bindings,
            running=is_training(directory),
        )

    @property
    def steps(self) -> int:
        """Update that are logged."""
        logged = [*self.windows[-1:], *self.evaluations[-1:], *self.sessions[-1:]]
        return max((int(one["step"]) for one in logged), default=0)

    @functools.cached_property
    def facts(self) -> dict:
        """What the last process said of the run when it began; empty of older versions."""
        begun = [one for one in self.sessions if one.get("event") == "begin"]
        return begun[-1] if begun else {}

    @property
    def state(self) -> str:
        """In a word or two: 'running', 'finished', 'stopped early', 'stopped by SIGTERM', ..."""
        if self.running:
            return "running"
        if not self.sessions:
            return "not running"
        reason = self.sessions[-1].get("reason")
        if reason is None:
            return "interrupted"
        if reason.startswith("SIG"):
            return f"stopped by {reason}"
        return reason if reason in COMPLETE else f"failed: {reason}"

    @property
    def total_steps(self) -> int | None:
        """Steps that were asked for, where it is known."""
        return self.facts.get("total_steps")

    @property
    def batch_size(self) -> int | None:
        """Images of a step over all processes, where it is known."""
        return self.facts.get("global_batch_size")

    @property
    def images_seen(self) -> int | None:
        """Images of all steps."""
        return self.steps * self.batch_size if self.batch_size else None

    @property
    def epochs(self) -> float:
        """Pass over the training images; not a number where nothing is logged."""
        if self.facts.get("steps_per_epoch"):
            return self.steps / self.facts["steps_per_epoch"]
        return float(self.windows[-1].get("epoch", math.nan)) if self.windows else math.nan

    @property
    def minutes(self) -> float:
        """Time in which processes worked on the run, evaluations and beginnings included."""
        logged = [one["time"] for one in (*self.windows, *self.evaluations) if "time" in one]
        seconds, spans = 0.0, list(self.sessions)
        for number, begun in enumerate(spans):
            if begun.get("event") != "begin":
                continue
            after = spans[number + 1] if number + 1 < len(spans) else None
            if after is not None and after.get("event") == "end":
                seconds += after["time"] - begun["time"]
                continue
            # Killed, or going on: until its last line.
            limit = after["time"] if after is not None else math.inf
            own = [time for time in logged if begun["time"] <= time <= limit]
            seconds += max(own, default=begun["time"]) - begun["time"]
        return seconds / 60.0 if spans else math.nan

    @property
    def images_per_second(self) -> float:
        """Median of the windows; not a number without one that says it."""
        paces = [one["images_per_second"] for one in self.windows if "images_per_second" in one]
        return statistics.median(paces) if paces else math.nan

    @property
    def loss(self) -> float:
        """Mean of the total loss over the last 5 % of the steps; not a number without a window."""
        steps, values = self.curve("total")
        if not len(steps):
            return math.nan
        span = max(END_SHARE * float(steps[-1]), float(steps[-1] - steps[-2:-1].sum()))
        return float(smoothed(steps, values, steps[-1:], span)[0])

    @property
    def last(self) -> dict | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def last_losses(self) -> dict[str, float]:
        """Loss parts of the last evaluation, by name."""
        return {
            name.removeprefix(LOSS_PREFIX): value
            for name, value in (self.last or {}).items()
            if name.startswith(LOSS_PREFIX)
        }

    @property
    def best(self) -> dict | None:
        """The evaluation of the highest AP, the earlier one of equals."""
        return max(self.evaluations, key=_precision, default=None)

    def curve(self, name: str, *, of_evaluations: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps at which a number was logged, int [N], and its values, float [N]."""
        rows = self.evaluations if of_evaluations else self.windows
        rows = [one for one in rows if isinstance(one.get(name), int | float)]
        return np.array([one["step"] for one in rows], int), np.array([one[name] for one in rows])


def read_runs(directories: Sequence[str | os.PathLike]) -> list[RunLog]:
    """Read runs to be compared.

    Args:
        directories: of the runs, at least one, each once.

    Returns:
        The runs in this order, with short labels that tell them apart.

    Raises:
        FileNotFoundError: a folder does not exist or is not a run; names those that are near.
        ValueError: no folder, or one that was given twice.
    """
    if not directories:
        raise ValueError("no run was given; expected the directories of one or more runs.")
    places = [os.path.abspath(one) for one in directories]
    for place, given in zip(places, directories, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"the run {os.fspath(given)} was given twice; expected each once.")
        if not _is_run(Path(place)):
            raise FileNotFoundError(_no_run(Path(given)))
    labels = short_labels(places)
    return [RunLog.read(*pair) for pair in zip(labels, directories, strict=True)]


def smoothed(steps: np.ndarray, values: np.ndarray, at: np.ndarray, span: float) -> np.ndarray:
    """Average the values of windows around steps.

    Args:
        steps: int [N], at which the windows end, ascending.
        values: float [N], means over the windows.
        at: [M] steps, within the run.
        span: over how many steps: half of them on either side, or at the ends of the run its first
            or last ones.

    Returns:
        float [M].
    """
    ends = np.concatenate([[0], steps])
    sums = np.concatenate([[0.0], np.cumsum(values * np.diff(ends))])
    span = min(span, float(steps[-1]))
    low = np.clip(at - span / 2, 0, steps[-1] - span)
    return (np.interp(low + span, ends, sums) - np.interp(low, ends, sums)) / span


def short_labels(paths: Sequence[str]) -> list[str]:
    """Choose names of paths that are as short as they can be and all differ.

    Args:
        paths: absolute paths, all different.

    Returns:
        The last parts where these differ, else what is left of the paths without the parts that
        all of them begin and end with; long ones are cut in the middle.
    """
    parts = [Path(path).parts for path in paths]
    labels = [own[-1] for own in parts]
    if len(set(labels)) < len(labels):
        first = min(len(os.path.commonprefix(parts)), min(map(len, parts)) - 1)
        last = len(os.path.commonprefix([own[::-1] for own in parts]))
        labels = ["/".join(own[first : max(len(own) - last, first + 1)]) for own in parts]
    if len(set(labels)) < len(labels):
        labels = ["/".join(own[first:]) or own[-1] for own in parts]
    half = _LABEL_LENGTH // 2 - 1
    cut = [
        label if len(label) <= _LABEL_LENGTH else f"{label[:half]}..{label[-half:]}"
        for label in labels
    ]
    return cut if len(set(cut)) == len(cut) else labels


def differences(runs: Sequence[RunLog]) -> dict[str, list[str | None]]:
    """Find the settings that are not the same in all runs.

    Args:
        runs: those whose settings cannot be read say nothing.

    Returns:
        Name -> its value in each run, None where a run does not have it. Those that all runs have
        come first, then what only some have, as other parts were built; each by name.
    """
    told = [run for run in runs if run.bindings]
    names = {name for run in told for name in run.bindings}
    shared = {name for name in names if all(name in run.bindings for run in told)}
    ordered = [*sorted(shared), *sorted(names - shared)]
    found = {name: [run.bindings.get(name) for run in runs] for name in ordered}
    return {
        name: values
        for name, values in found.items()
        if len({run.bindings.get(name) for run in told}) > 1
    }


def doubts(runs: Sequence[RunLog]) -> list[str]:
    """Say why numbers of these runs should not be compared as they stand."""
    told = []
    data = {
        (run.bindings.get("train.eval_split"), run.facts.get("data_dir"))
        for run in runs
        if run.evaluations and run.facts
    }
    if len(data) > 1:
        listed = " and ".join(sorted(f"{split} of {place}" for split, place in data))
        told.append(f"AP was measured on different data: {listed}.")
    going = [run.label for run in runs if run.running]
    if going:
        told.append(f"Still running: {', '.join(going)}.")
    without = [run.label for run in runs if not run.evaluations]
    if without:
        told.append(f"Without an evaluation: {', '.join(without)}.")
    return told


def _precision(evaluation: dict) -> float:
    value = evaluation.get("AP", UNDEFINED)
    return UNDEFINED if math.isnan(value) else value


def _bindings(path: Path) -> dict[str, str]:
    try:
        return read_bindings(path)
    except (OSError, ValueError, RecursionError):  # Not written yet, or not by us.
        return {}


def _later_evaluations(folder: Path, split: str) -> list[dict]:
    """Read what `ssd_centernet evaluate` wrote, where it is of the split of the training."""
    last = _last_evaluation(folder / EVALUATION_METRICS_NAME, split)
    found = [
        numbers_of(record) | {"kind": EVAL_KIND}
        for record in recorded_checkpoints(folder)
        if _is_split(record.get("split"), split) and numbers_of(record).keys() >= set(METRIC_NAMES)
    ]
    return found + ([last] if last else [])


def _is_split(found: object, wanted: str) -> bool:
    """Tell whether an evaluation is of the split of a training; '' and 'None' take any.

    Recipes say coco_val, under which the files of a data set of another name are found.
    """
    if wanted in ("", "None", found):
        return True
    return wanted.startswith("coco_") and str(found).endswith(wanted.removeprefix("coco"))


def _last_evaluation(path: Path, split: str) -> dict | None:
    """Read the numbers of the checkpoint that was evaluated last."""
    content = read_object(path) or {}
    number = re.search(r"-(\d{1,15})$", str(content.get("checkpoint")))
    metrics = numbers_of(content.get("metrics"))
    if number is None or not metrics.keys() >= set(METRIC_NAMES):
        return None  # None there, or that of the training itself.
    if not _is_split(content.get("split"), split):
        return None
    metrics = {name: metrics[name] for name in METRIC_NAMES}
    losses = {LOSS_PREFIX + name: v for name, v in numbers_of(content.get("losses")).items()}
    return {"kind": EVAL_KIND, "step": int(number[1]), **metrics, **losses}


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (METRICS_NAME, CONFIG_NAME))


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))
    except OSError:
        return []


def _no_run(folder: Path) -> str:
    what = f"is not a run: it has neither {METRICS_NAME} nor {CONFIG_NAME}"
    reason = what if folder.exists() else "does not exist"
    inside = _runs_in(folder)
    beside = {path.name: path for path in _runs_in(folder.absolute().parent)}
    near = difflib.get_close_matches(folder.name, beside, n=3, cutoff=0.5)
    if inside:
        hint = f"Runs in it: {', '.join(os.fspath(path) for path in inside[:8])}."
    elif near:
        hint = f"Did you mean {' or '.join(os.fspath(folder.parent / name) for name in near)}?"
    elif beside:
        hint = f"Runs beside it: {', '.join(list(beside)[:8])}."
    else:
        hint = "Give what --model_dir of `ssd_centernet train` was."
    return f"{os.fspath(folder)} {reason}. {hint}"
