"""What a training puts right in its directory before it goes on, after whatever ended the last."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ssd_centernet import checkpoint_files
from ssd_centernet.checkpoint_files import (
    BEST_DIR,
    CHECKPOINT_PREFIX,
    DIGEST_SUFFIX,
    LIST_NAME,
    UNFINISHED,
)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a training goes on from.

    Attributes:
        checkpoint: name of the checkpoint, None where the run begins anew.
        order: names for TensorFlow's list, that one last.
        bad: later ones that cannot be read, and what is wrong with each, the last one first.
        gone: the latest one of TensorFlow's list, where its files are not there.
        lost: why the run can neither go on nor begin anew unasked, None where it can.
    """

    checkpoint: str | None
    order: Sequence[str]
    bad: Sequence[tuple[str, str]]
    gone: str | None
    lost: str | None


def find_beginning(directory: Path) -> Beginning:
    """Find what a training goes on from; nothing is changed.

    Args:
        directory: of the run.

    Returns:
        The latest checkpoint that can be read, and what stands in its way.
    """
    latest, names = checkpoint_files.listed(directory)
    there = [Path(prefix).name for prefix in checkpoint_files.written(directory)]
    order, spare = there, []
    if latest in there:
        order = [name for name in names if name in there and name != latest] + [latest]
        spare = [name for name in there if name not in order]
    bad: list[tuple[str, str]] = []
    while order or spare:
        name = (order or spare)[-1]
        what = checkpoint_files.find_damage(str(directory / name))
        if what is None:
            order = order or [name]
            break
        bad.append(((order or spare).pop(), what))
    found = Beginning(
        checkpoint=order[-1] if order else None,
        order=order,
        bad=bad,
        gone=latest if latest not in there else None,
        lost=None,
    )
    if order or not (bad or latest is not None):
        return found
    return dataclasses.replace(found, lost=_loss(directory, bad, known=latest is not None))


def _mend_list(directory: Path, notes: list[str]) -> None:
    """Let TensorFlow's list name checkpoints that are there, the last of which can be read."""
    beginning = find_beginning(directory)
    if beginning.lost is not None:
        raise ValueError(beginning.lost)
    latest, names = checkpoint_files.listed(directory)
    if latest is not None and beginning.gone is None:
        _remove_without_index(directory, {*names, latest})
    if beginning.gone is not None:
        notes.append(f"{directory} has not all files of {latest}, its latest checkpoint")
    for name, what in beginning.bad:
        where = _set_aside(directory, name)
        if beginning.checkpoint is not None:
            notes.append(f"{name} is damaged ({what}); its files are in {where} now")
        else:
            notes.append(
                f"{name} cannot be read ({what}): the run was killed while it wrote its first "
                f"checkpoint, and begins anew; the files are in {where} now"
            )
    if beginning.checkpoint is not None and (beginning.bad or beginning.gone):
        notes.append(f"the run goes on from {beginning.checkpoint}, which can be read")
    steps = 0 if beginning.checkpoint or beginning.bad else _logged_steps(directory)
    if steps:
        notes.append(
            f"there is no checkpoint in {directory}, though {steps} steps are logged: the run "
            "begins anew"
        )
    order = [str(directory / name) for name in beginning.order]
    if _paths_of_list(directory) != order:
        checkpoint_files.write_list(directory, beginning.order)


def _paths_of_list(directory: Path) -> list[str]:
    """Return the checkpoints as TensorFlow understands its list, the latest one last."""
    import tensorflow as tf

    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:  # Empty after a crash of the machine, or edited.
        return [""]
    if state is None:
        return [""] if (directory / LIST_NAME).exists() else []
    paths = list(state.all_model_checkpoint_paths)
    return paths if paths[-1:] == [state.model_checkpoint_path] else [""]


def _loss(directory: Path, bad: Sequence[tuple[str, str]], *, known: bool) -> str | None:
    """Say what a run without any readable checkpoint has lost; None where that is nothing.

    A kill while TensorFlow writes the index of the first checkpoint leaves one that is no loss.
    """
    reached = checkpoint_files.step_of(bad[0][0]) if bad else None
    # After a save that ended, the list names it, more steps are logged, or the end is.
    if not known and len(bad) == 1 and reached is not None and not _outlived(directory, reached):
        return None
    told = "; ".join(f"{name} is damaged ({what})" for name, what in bad)
    return (
        f"the run in {directory} has no checkpoint left that can be read: "
        f"{told or 'the files that its list of checkpoints names are gone'}. Copy them there "
        f"again from a backup, or begin anew from what {directory / BEST_DIR} holds, with "
        "train.resume_from and another --model_dir. To train from the start here, move "
        f"{CHECKPOINT_PREFIX}-* and {LIST_NAME} to another folder."
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


def _set_aside(directory: Path, name: str) -> Path:
    """Move the files of a checkpoint to a folder of their own: they may be whole all the same."""
    folder = directory / DAMAGED_DIR
    folder.mkdir(exist_ok=True)
    digest = directory / f"{name}{DIGEST_SUFFIX}"
    for path in checkpoint_files.parts_of(directory / name) + [digest] * digest.exists():
        os.replace(path, folder / path.name)
    return folder


def _remove_without_index(directory: Path, names: set[str]) -> None:
    """Remove data whose index a killed training had deleted, or not yet written.

    The list names neither, and without an index nothing can be read of it.
    """
    for path in directory.glob(f"{CHECKPOINT_PREFIX}-*.data-*-of-*"):
        name = path.name.partition(".")[0]
        if name not in names and not (directory / f"{name}.index").exists():
            path.unlink(missing_ok=True)
