"""The runs of a study: trained one after the other, gone on with, recognised and counted.

DIR/VARIANT/seedN/        an ordinary run directory
DIR/VARIANT/seedN.json    what its processes took
DIR/ablation.json, .md    the tables, see `ablation_report.py`
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ssd_centernet.config.text import read_bindings
from ssd_centernet.files import read_object, remove_leftovers, write_atomically
from ssd_centernet.run_directory import CONFIG_NAME, METRICS_NAME, has_checkpoint
from ssd_centernet.runs.logs import RunLog
from ssd_centernet.runs.planned import run_command
from ssd_centernet.training.log_files import COMPLETE, numbers_of, recorded_sessions

_SEED = "train.seed"
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold how the runs of a variant are trained; JSON values.

    Attributes:
        name: of the variant.
        arguments: flags of `ssd_centernet train` but for seed and folder.
        steps: of each run.
        batch_size: images of a step.
        data: absolute paths of the data directories.
        settings: what `config.gin` of its runs holds, name -> value, without the seed.
    """

    name: str
    arguments: list[str]
    steps: int
    batch_size: int
    data: list[str]
    settings: dict[str, str]

    @property
    def images(self) -> int:
        """Images that a run sees."""
        return self.steps * self.batch_size

    def command(self, seed: int, directory: str | os.PathLike) -> list[str]:
        """Return the words of the training of a seed, after `ssd_centernet`."""
        folder = run_folder(directory, self.name, seed)
        return ["train", *self.arguments, f"--seed={seed}", f"--model_dir={folder}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
    """Hold what there is of one run of a study.

    Attributes:
        variant: its name.
        seed: of the run.
        log: what it has written; None before it began.
        processor_minutes: of all its processes; None where one of them was not measured to its end.
    """

    variant: str
    seed: int
    log: RunLog | None
    processor_minutes: float | None

    @property
    def name(self) -> str:
        """Of the run, such as 'base/seed0'."""
        return f"{self.variant}/seed{self.seed}"

    @property
    def complete(self) -> bool:
        """Whether it has come to its end, with the evaluation there."""
        log = self.log
        ended = log is not None and log.state in COMPLETE and log.last is not None
        return ended and log.last["step"] == log.steps

    @property
    def state(self) -> str:
        """In words."""
        if self.log is None:
            return "not begun"
        return self.log.state if self.complete else f"{self.log.state} at step {self.log.steps}"


def run_folder(directory: str | os.PathLike, variant: str, seed: int) -> Path:
    """Return the folder of a run."""
    return Path(directory) / variant / f"seed{seed}"


def read_run(directory: str | os.PathLike, variant: str, seed: int) -> StudyRun:
    """Read what there is of a run; nothing is changed."""
    folder = run_folder(directory, variant, seed)
    log = None
    if any((folder / name).is_file() for name in (METRICS_NAME, CONFIG_NAME)):
        log = RunLog.read(f"{variant}/seed{seed}", folder)
    minutes = _processor_minutes(folder)
    return StudyRun(variant=variant, seed=seed, log=log, processor_minutes=minutes)


def check_unchanged(
    plans: Iterable[Plan], seeds: Sequence[int], directory: str | os.PathLike
) -> None:
    """Refuse to go on where a run was trained in another way than the study says now.

    A run without a checkpoint has learnt nothing, and is not looked at.

    Args:
        plans: of all variants.
        seeds: of each.
        directory: of the study.

    Raises:
        ValueError: names the run and what differs.
    """
    for plan in plans:
        for seed in seeds:
            folder = run_folder(directory, plan.name, seed)
            if not has_checkpoint(folder):
                continue
            changed = [*_changed_settings(plan, seed, folder), *_changed_data(plan, seed, folder)]
            if not changed:
                continue
            more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            raise ValueError(
                f"{folder} was trained in another way than the study says now: "
                f"{'; '.join(changed[:_SHOWN])}{more}. Its numbers would be mixed with those of "
                "other runs. Give the first settings to go on, remove the runs of "
                f"{plan.name!r} to train them again, or give another --output_dir."
            )


def train_runs(
    plans: Sequence[Plan],
    seeds: Sequence[int],
    directory: str | os.PathLike,
    *,
    say: Callable[[str], None],
) -> list[str]:
    """Train what is left of a study, all variants of a seed before the next seed.

    Args:
        plans: of the variants to train.
        seeds: of each.
        directory: of the study.
        say: told what is going on.

    Returns:
        A sentence for each run that failed; the others were trained nevertheless.

    Raises:
        StoppedError: a signal came; the training has saved its state.
    """
    failed = []
    runs = [(seed, plan) for seed in seeds for plan in plans]
    for number, (seed, plan) in enumerate(runs, 1):
        run = read_run(directory, plan.name, seed)
        head = f"== {run.name} ({number} of {len(runs)})"
        folder = run_folder(directory, plan.name, seed)
        if run.complete:
            remove_leftovers(folder.parent, [_usage_path(folder).name])
            say(f"{head}: is there")
            continue
        say(f"{head}: {plan.steps} steps of {plan.batch_size} images in {folder}")
        with _measured(folder) as measured:
            measured["status"] = run_command(plan.command(seed, directory))
        if measured["status"]:
            failed.append(f"{run.name} ended with status {measured['status']}")
        elif not read_run(directory, plan.name, seed).complete:
            failed.append(f"{run.name} ended without the evaluation of its last step")
        if failed and failed[-1].startswith(f"{run.name} "):
            say(f"{head}: {failed[-1]}; its own message is above")
    return failed


def _changed_settings(plan: Plan, seed: int, folder: Path) -> list[str]:
    try:
        before = read_bindings(folder / CONFIG_NAME)
    except (OSError, ValueError) as error:
        return [f"its {CONFIG_NAME} cannot be read ({error})"]
    now = {**plan.settings, _SEED: str(seed)}
    return [
        f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _changed_data(plan: Plan, seed: int, folder: Path) -> list[str]:
    facts = RunLog.read(f"{plan.name}/seed{seed}", folder).facts
    before = [facts.get("data_dir"), *facts.get("mixed_with", ())]
    if before == [None] or before == plan.data:
        return []
    return [f"its data was {', '.join(map(str, before))}, is {', '.join(plan.data)}"]


def _usage_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _processes(folder: Path) -> list[Mapping[str, float]]:
    found = (read_object(_usage_path(folder)) or {}).get("processes")
    return [numbers_of(one) for one in found] if isinstance(found, list) else []


@contextlib.contextmanager
def _measured(folder: Path) -> Iterator[dict[str, float]]:
    """Note what the process of the block takes, when it ends or was stopped."""
    note: dict[str, float] = {}
    began, used, sessions = time.monotonic(), _processor_seconds(), _begun(folder)
    try:
        yield note
    finally:
        note["seconds"] = round(time.monotonic() - began, 3)
        note["processor_seconds"] = round(_processor_seconds() - used, 3)
        note["sessions"] = _begun(folder) - sessions
        listed = json.dumps({"processes": [*_processes(folder), note]}, indent=1)
        write_atomically(_usage_path(folder), listed + "\n", tidy=True)


def _processor_seconds() -> float:
    """Return what all processes that were waited for took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _begun(folder: Path) -> int:
    return sum(one.get("event") == "begin" for one in recorded_sessions(folder))


def _processor_minutes(folder: Path) -> float | None:
    """Add up the processes of a run; one that was killed with the study has no entry."""
    listed = _processes(folder)
    sessions = math.fsum(one.get("sessions", math.nan) for one in listed)
    if not listed or sessions != _begun(folder):
        return None
    seconds = math.fsum(one.get("processor_seconds", math.nan) for one in listed)
    return seconds / 60.0 if math.isfinite(seconds) else None
