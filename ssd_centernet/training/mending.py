"""What a training puts right in its directory before it goes on, after whatever ended the last."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from ssd_centernet import checkpoint_files
from ssd_centernet.checkpoint_files import BEST_DIR, CHECKPOINT_PREFIX, DIGEST_SUFFIX, LIST_NAME
from ssd_centernet.files import remove_leftovers
from ssd_centernet.run_directory import (
    DAMAGED_DIR,
    EVALUATION_DIR,
    NEW_BEST_DIR,
    OLD_BEST_DIR,
    PICTURES_DIR,
    PREDICTIONS_DIR,
    SUMMARY_DIR,
)
from ssd_centernet.training.log_files import recorded_metrics, recorded_sessions

# What TensorFlow writes before it renames: the parts of a checkpoint, and its list of checkpoints.
UNFINISHED = re.compile(
    rf"{CHECKPOINT_PREFIX}-\d+_temp(_[0-9a-f]{{32}})?|{LIST_NAME}\.tmp[0-9a-f]{{32}}"
)

# Reasons of the end of a session, see `TrainLoop.run`; others are the names of errors.
_ENDS_THAT_SAVED = ("finished", "stopped early", "SIG")
# Evaluations and predictions may be writing there.
_SHARED_DIRS = (EVALUATION_DIR, PREDICTIONS_DIR, PICTURES_DIR, SUMMARY_DIR)
_SHARED_AGE = 60.0


def mend(directory: Path) -> list[str]:
    """Put a run's directory right, which no other training may be using.

    What a killed training was writing is removed, the exchange of the best checkpoint is ended,
    and a checkpoint that cannot be read is set aside in `damaged/`, so that the run goes on from
    the one before it.

    Args:
        directory: of the run.

    Returns:
        What was done, in sentences; nothing for a run that has ended well, or is new.

    Raises:
        ValueError: no checkpoint of a run that had some can be read: it must not begin again
            unasked.
    """
    if not directory.is_dir():
        return []
    notes: list[str] = []
    _mend_best(directory)
    for folder in (directory, directory / BEST_DIR):
        _remove_unfinished(folder, notes)
    for name in _SHARED_DIRS:
        remove_leftovers(directory / name, older_than=_SHARED_AGE, say=notes.append)
    _mend_list(directory, notes)
    for folder in (directory, directory / BEST_DIR):
        forget_digests(folder)
    return notes


def forget_digests(directory: Path) -> None:
    """Remove the digests of checkpoints that are gone."""
    for path in directory.glob(f"{CHECKPOINT_PREFIX}-*{DIGEST_SUFFIX}"):
        if not path.with_suffix(".index").exists():
            path.unlink(missing_ok=True)


def _mend_best(directory: Path) -> None:
    """Put the best checkpoint back where a kill came between the two renames of its exchange."""
    best, new, old = (directory / name for name in (BEST_DIR, NEW_BEST_DIR, OLD_BEST_DIR))
    if old.exists() and not best.exists():
        # The new one was complete before the old one was moved away.
        (new if new.exists() else old).rename(best)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_unfinished(directory: Path, notes: list[str]) -> None:
    """Remove what TensorFlow, and what this library was writing when a training was killed."""
    if not directory.is_dir():
        return
    removed = []
    for path in sorted(directory.iterdir()):
        if UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path.name)
    # Nobody else writes here, so that none of it need be old.
    removed += remove_leftovers(directory, older_than=0.0)
    if removed:
        notes.append(
            f"removed what a killed training had left in {directory}: {', '.join(removed)}"
        )


def _mend_list(directory: Path, notes: list[str]) -> None:
    """Let TensorFlow's list name checkpoints that are there, the last of which can be read."""
    latest, names = checkpoint_files.listed(directory)
    there = [Path(prefix).name for prefix in checkpoint_files.written(directory)]
    known = latest is not None
    if latest in there:
        order = [name for name in names if name in there and name != latest] + [latest]
        spare = [name for name in there if name not in order]
        _remove_without_index(directory, {*names, latest})
    else:
        order, spare = there, []
    bad: list[tuple[str, str]] = []
    while order or spare:
        name = (order or spare)[-1]
        what = checkpoint_files.find_damage(str(directory / name))
        if what is None:
            order = order or [name]
            break
        bad.append(((order or spare).pop(), what))
    if order:
        if known and latest not in there:
            notes.append(f"{directory} has not all files of {latest}, its latest checkpoint")
        for name, what in bad:
            notes.append(f"{name} is damaged ({what}): {_set_aside(directory, [name])}")
        if notes and (bad or latest not in there):
            notes.append(f"the run goes on from {order[-1]}, the last checkpoint that can be read")
    elif bad or known:
        _begin_anew(directory, bad, known=known, notes=notes)
    else:
        steps = _logged_steps(directory)
        if steps:
            notes.append(
                f"there is no checkpoint in {directory}, though {steps} steps are logged: the run "
                "begins anew"
            )
    if _paths_of_list(directory) != [str(directory / name) for name in order]:
        checkpoint_files.write_list(directory, order)


def _paths_of_list(directory: Path) -> list[str]:
    """Return the checkpoints as TensorFlow understands its list, the latest one last."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:  # Empty after a crash of the machine, or edited.
        return [""]
    if state is None:
        return [""] if (directory / LIST_NAME).exists() else []
    paths = list(state.all_model_checkpoint_paths)
    return paths if paths[-1:] == [state.model_checkpoint_path] else [""]


def _begin_anew(
    directory: Path, bad: Sequence[tuple[str, str]], *, known: bool, notes: list[str]
) -> None:
    """Set the one checkpoint aside that was being written; refuse where there had been others.

    A kill while TensorFlow writes the index of the first checkpoint leaves one that is no loss.
    Anything else is the loss of a run.
    """
    reached = checkpoint_files.step_of(bad[0][0]) if bad else None
    # After a save that ended, the list names it, more steps are logged, or the end is.
    if known or len(bad) != 1 or reached is None or _outlived(directory, reached):
        listed = "; ".join(f"{name} is damaged ({what})" for name, what in bad)
        raise ValueError(
            f"the run in {directory} has no checkpoint left that can be read: "
            f"{listed or 'the files that its list of checkpoints names are gone'}. Copy them there "
            f"again from a backup, or begin anew from what {directory / BEST_DIR} holds, with "
            "train.resume_from and another --model_dir. To train from the start here, move "
            f"{CHECKPOINT_PREFIX}-* and {LIST_NAME} to another folder."
        )
    name, what = bad[0]
    notes.append(
        f"{name} cannot be read ({what}): the run was killed while it wrote its first checkpoint, "
        f"and begins anew. {_set_aside(directory, [name]).capitalize()}"
    )


def _outlived(directory: Path, step: int) -> bool:
    """Whether the run has gone on, or said why it ended, after the save at a step."""
    if _logged_steps(directory) > step:
        return True
    return any(
        one["step"] >= step and str(one.get("reason")).startswith(_ENDS_THAT_SAVED)
        for one in recorded_sessions(directory)
    )


def _logged_steps(directory: Path) -> int:
    windows, evaluations = recorded_metrics(directory)
    return max((int(one["step"]) for one in (*windows, *evaluations)), default=0)


def _set_aside(directory: Path, names: Sequence[str]) -> str:
    """Move the files of checkpoints to a folder of their own: they may be whole all the same."""
    folder = directory / DAMAGED_DIR
    folder.mkdir(exist_ok=True)
    for name in names:
        digest = directory / f"{name}{DIGEST_SUFFIX}"
        for path in checkpoint_files.parts_of(directory / name) + [digest] * digest.exists():
            os.replace(path, folder / path.name)
    return f"its files are in {folder} now"


def _remove_without_index(directory: Path, names: set[str]) -> None:
    """Remove data whose index a killed training had deleted, or not yet written.

    The list names neither, and without an index nothing can be read of it.
    """
    for path in directory.glob(f"{CHECKPOINT_PREFIX}-*.data-*-of-*"):
        name = path.name.partition(".")[0]
        if name not in names and not (directory / f"{name}.index").exists():
            path.unlink(missing_ok=True)
