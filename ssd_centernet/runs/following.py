"""Evaluations of the checkpoints of a run, one after the other, while it trains or later."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ssd_centernet.evaluation.replaced import describe_replaced
from ssd_centernet.files import open_at_end
from ssd_centernet.run_directory import (
    CONFIG_NAME,
    EVAL_KIND,
    EVALUATED_CHECKPOINTS_NAME,
    list_checkpoints,
)
from ssd_centernet.runs.evaluation import RunEvaluation, SplitResult, save_evaluation
from ssd_centernet.runs.lock import is_training
from ssd_centernet.runs.opened import OpenedRun, with_checkpoint
from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.training.length import LOSS_PREFIX
from ssd_centernet.training.log_files import (
    COMPLETE,
    recorded_checkpoints,
    recorded_sessions,
)

# Seconds between two looks at a run that trains.
POLL_SECONDS = 5.0


@dataclasses.dataclass(kw_only=True)
class Watch:
    """Say how long to wait for checkpoints.

    Attributes:
        wait: whether to wait for new ones until the training ends.
        timeout: seconds without a new one after which waiting ends.
        poll: seconds between two looks.
        say: told when waiting begins, and why it ended.
    """

    wait: bool = False
    timeout: float = 3600.0
    poll: float = POLL_SECONDS
    say: Callable[[str], None] = print


def wait_for_run(model_dir: str | Path, watch: Watch) -> None:
    """Wait until a run has its settings and a checkpoint; return at once without `watch.wait`.

    Raises:
        TimeoutError: it did not within the time.
    """
    began, told = time.monotonic(), False
    while watch.wait and not (
        (Path(model_dir) / CONFIG_NAME).exists() and list_checkpoints(model_dir)
    ):
        if time.monotonic() - began > watch.timeout:
            raise TimeoutError(
                f"there is no checkpoint in {model_dir} after {watch.timeout:g} s (--timeout): "
                "give the --model_dir of a training, or a longer time."
            )
        if not told:
            watch.say(f"waiting for the first checkpoint in {model_dir}")
            told = True
        time.sleep(watch.poll)


def checkpoints_in_order(
    model_dir: str | Path, watch: Watch, *, done: frozenset[int] = frozenset()
) -> Iterator[str]:
    """Yield the checkpoints of a run by step, also those that are written meanwhile.

    Args:
        model_dir: directory of the run.
        watch: whether and how long to wait for more.
        done: steps to leave out.

    Yields:
        Prefixes of checkpoints.
    """
    seen, since = set(done), time.monotonic()
    while True:
        # Asked first: the last checkpoint is there before the training has ended.
        ended = _has_ended(model_dir)
        new = {step: path for step, path in list_checkpoints(model_dir).items() if step not in seen}
        if new:
            # One at a time: later ones may come, and old ones go, while it is evaluated.
            step = min(new)
            seen.add(step)
            yield new[step]
            since = time.monotonic()
            continue
        if not watch.wait:
            return
        if ended:
            watch.say(f"the training in {model_dir} has ended: no more checkpoints come")
            return
        if time.monotonic() - since > watch.timeout:
            watch.say(f"no new checkpoint in {model_dir} for {watch.timeout:g} s (--timeout)")
            return
        time.sleep(watch.poll)


def evaluate_checkpoints(
    run: OpenedRun,
    evaluation: RunEvaluation,
    *,
    model_dir: str | Path,
    directory: str | os.PathLike,
    watch: Watch,
    facts: dict,
    communicator: Communicator,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, SplitResult | None, dict[str, str]]]:
    """Evaluate checkpoint after checkpoint, and keep the numbers of each.

    With `watch.wait` those are left out that `directory` has numbers of already, with the same
    facts: an evaluation that was stopped goes on.

    Args:
        run: of `open_run`.
        evaluation: of this run.
        model_dir: directory of the run.
        directory: gets the files of the last checkpoint, and `checkpoints.jsonl`.
        watch: whether and how long to wait for more.
        facts: what the numbers are of, beside the checkpoint: data, split.
        communicator: connects the processes; all evaluate the checkpoints that the first one finds.
        progress: called with (images done, images in all) after every batch.

    Yields:
        Step, result (None on all processes but the first), and name -> path of the files written.
    """
    log = Path(directory) / EVALUATED_CHECKPOINTS_NAME
    found = iter(())
    if communicator.is_chief:
        done = _recorded(directory, facts, model_dir) if watch.wait else frozenset()
        found = checkpoints_in_order(model_dir, watch, done=done)
    while (prefix := communicator.gather([next(found, None)])[0]) is not None:
        step = int(prefix.rpartition("-")[2])
        try:
            run = with_checkpoint(run, prefix)
        except (OSError, ValueError):
            if os.path.exists(f"{prefix}.index"):
                raise
            watch.say(f"{prefix} is gone: the training keeps its last checkpoints alone")
            continue
        result, paths = evaluation(progress), {}
        if result is not None:
            for line in describe_replaced(directory, split=evaluation.split):
                watch.say(f"note: {line}")
            paths = save_evaluation(result, directory, checkpoint=prefix, split=evaluation.split)
            losses = {LOSS_PREFIX + name: value for name, value in result.losses.items()}
            record = {"kind": EVAL_KIND, "step": step, "time": round(time.time(), 3), **facts}
            with open_at_end(log) as file:
                file.write(json.dumps({**record, **result.result.metrics, **losses}) + "\n")
        yield step, result, paths


def _has_ended(model_dir: str | Path) -> bool:
    """Tell a training that is over from one that goes on, or that may be begun again."""
    sessions = recorded_sessions(model_dir)
    return bool(sessions) and sessions[-1].get("reason") in COMPLETE and not is_training(model_dir)


def _recorded(directory: str | os.PathLike, facts: dict, model_dir: str | Path) -> frozenset[int]:
    """Return the steps with numbers of the same facts, made after their checkpoint was written."""
    times = {}
    for step, prefix in list_checkpoints(model_dir).items():
        times[step] = os.path.getmtime(f"{prefix}.index")
    steps = set()
    for record in recorded_checkpoints(directory):
        same = all(record.get(name) == value for name, value in facts.items())
        if same and record.get("time", 0) >= times.get(record["step"], 0):
            steps.add(record["step"])
    return frozenset(steps)
