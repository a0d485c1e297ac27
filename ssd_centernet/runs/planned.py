"""Train and evaluate one recipe several times, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ssd_centernet.files import read_object, write_atomically
from ssd_centernet.run_directory import EVALUATION_DIR, EVALUATION_METRICS_NAME, has_checkpoint
from ssd_centernet.runtime.launcher import ending_with_this
from ssd_centernet.runtime.signals import answered_signals

_SETTINGS_NAME = "settings.json"


class StoppedError(Exception):
    """A signal ended the comparison; what was trained is saved.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        """Note the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """Hold what makes a run differ from the others of its comparison.

    Attributes:
        name: of the run and of its folder.
        dtype: 'fp32', 'bf16' or 'fp16'.
        seed: of weights, order and augmentation.
    """

    name: str
    dtype: str
    seed: int


def plan_runs(dtypes: Sequence[str], *, seed: int, control: bool = False) -> list[PlannedRun]:
    """List the runs of a comparison.

    Args:
        dtypes: the baseline first.
        seed: of all of them.
        control: whether the baseline is trained a second time with the next seed, after the
            others: how far chance alone takes a run.

    Returns:
        The runs.
    """
    runs = [PlannedRun(name=dtype, dtype=dtype, seed=seed) for dtype in dtypes]
    if control:
        name = f"{dtypes[0]}_seed{seed + 1}"
        runs.append(PlannedRun(name=name, dtype=dtypes[0], seed=seed + 1))
    return runs


def check_settings(directory: str | os.PathLike, settings: dict) -> None:
    """Note the settings of a new comparison, or refuse to go on with one that has others.

    Without a checkpoint nothing was trained yet, and corrected settings are not another comparison.

    Args:
        directory: of the comparison.
        settings: what all its runs have in common; JSON values.

    Raises:
        ValueError: the comparison in this directory has other settings, or they cannot be read.
    """
    path = Path(directory) / _SETTINGS_NAME
    if not path.exists() or not any(map(has_checkpoint, Path(directory).iterdir())):
        write_atomically(path, json.dumps(settings, indent=1) + "\n", tidy=True)
        return
    before = read_object(path)
    if before is None:
        raise ValueError(
            f"{path} is damaged: expected the settings of the runs beside it. If they were trained "
            "with the settings that are given now, remove the file to go on; or give another "
            "--output_dir."
        )
    changed = [key for key in sorted({*settings, *before}) if settings.get(key) != before.get(key)]
    if changed:
        told = "; ".join(
            f"--{key} was {_told(before.get(key))}, is {_told(settings.get(key))}"
            for key in changed
        )
        raise ValueError(
            f"{directory} holds a comparison with other settings: {told}. Runs would not be "
            "comparable: give the first settings to go on, or another --output_dir."
        )


def _told(value: object) -> str:
    """Write a setting for people; an object, which none is, as the file has it."""
    return json.dumps(value) if isinstance(value, dict) else repr(value)


def complete_run(
    planned: PlannedRun,
    directory: str | os.PathLike,
    *,
    train_arguments: Sequence[str],
    evaluate_arguments: Sequence[str],
    say: Callable[[str], None],
) -> Path:
    """Train and evaluate a run, or what is left of it.

    Args:
        planned: the run.
        directory: of the comparison; the run gets a folder in it.
        train_arguments: flags of `ssd_centernet train` that all runs have in common.
        evaluate_arguments: the same of `ssd_centernet evaluate`.
        say: told what is going on.

    Returns:
        The folder of the run.

    Raises:
        StoppedError: a signal came; the training has saved its state.
        RuntimeError: the training or the evaluation failed.
    """
    model_dir = Path(directory) / planned.name
    # Written after the last step, whole or not at all.
    if (model_dir / EVALUATION_DIR / EVALUATION_METRICS_NAME).exists():
        say(f"== {planned.name}: is there ({model_dir})")
        return model_dir
    say(f"== {planned.name}: training in {model_dir}")
    own = [f"--model_dir={model_dir}", f"--dtype={planned.dtype}", f"--seed={planned.seed}"]
    _run_command("train", [*train_arguments, *own, "--mode=train"], planned)
    say(f"== {planned.name}: evaluation")
    latest = [own[0], "--checkpoint=latest"]
    _run_command("evaluate", [*evaluate_arguments, *latest], planned)
    return model_dir


def _run_command(name: str, arguments: Sequence[str], planned: PlannedRun) -> None:
    """Run one command of the package in a process of its own and wait for it."""
    status = run_command([name, *arguments])
    if status:
        other = "leave its precision out of --dtypes to compare the others"
        raise RuntimeError(
            f"`{name}` of the run {planned.name} ended with status {status}; its own message is "
            f"above. When the cause is gone the same command goes on; or {other}."
        )


def run_command(words: Sequence[str]) -> int:
    """Run a command of the package in a process of its own, which ends with this one.

    Args:
        words: its name and its flags.

    Returns:
        Its status, below 0 for a signal that ended it.

    Raises:
        StoppedError: a signal came; it was passed on, and the command has ended.
    """
    sys.stdout.flush()
    command = [sys.executable, "-m", "ssd_centernet", *words]
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
    child = subprocess.Popen(
        command, start_new_session=True, env={**os.environ, **ending_with_this()}
    )
    received: list[int] = []

    def forward(number: int) -> None:
        received.append(number)
        child.send_signal(signal.SIGTERM)

    with answered_signals(forward, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        status = child.wait()
    if received:
        raise StoppedError(received[0])
    return status
