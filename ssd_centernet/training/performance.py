"""The throughput summary of a run, from the measured times of its steps."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from ssd_centernet.files import write_atomically
from ssd_centernet.run_directory import SUMMARY_NAME

# Of a run of exactly this many steps, those from 10 on count: the customary benchmark.
_BENCHMARK_STEPS = 300
_WARMUP_STEPS = 10
# Otherwise the last ones count, or the second half of a run that is no longer than this.
_COUNTED_STEPS = 40


def counted_steps(step_times: Sequence[float]) -> Sequence[float]:
    """Choose the steps for the reported mean.

    Args:
        step_times: seconds of each step, in order.

    Returns:
        Entries 10 to 299 if there are exactly 300; otherwise the second half of up to 40 (the
        middle one of an odd number included), or the last 40.

    Source:
        docs/reference/centernet.md, section 7.5
        docs/reference/ssd320_resnet50_fpn.md, section 13
    """
    count = len(step_times)
    if count == _BENCHMARK_STEPS:
        return step_times[_WARMUP_STEPS:]
    if count <= _COUNTED_STEPS:
        return step_times[count // 2 :]
    return step_times[-_COUNTED_STEPS:]


def throughput_summary(step_times: Sequence[float], *, global_batch_size: int) -> dict:
    """Summarise how fast a run was.

    Args:
        step_times: seconds of each step, in order. A time of several steps must be divided by their
            number first.
        global_batch_size: images per step over all processes.

    Returns:
        `{"overall_stats": {"batch_size", "throughput_mean", "e2e"}}`: images per step, images/s,
        and the mean seconds of the steps that count.

    Raises:
        ValueError: there are no steps, a time is not positive, or the batch is empty.

    Source:
        docs/reference/centernet.md, section 7.5
        docs/reference/ssd320_resnet50_fpn.md, section 13
    """
    if not len(step_times):
        raise ValueError("no steps were timed, so there is no throughput; train at least one step.")
    if not min(step_times) > 0:
        raise ValueError(f"a step took {min(step_times)} s; expected more than 0.")
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size is {global_batch_size}; expected 1 or more.")
    counted = counted_steps(step_times)
    mean = float(sum(counted)) / len(counted)
    return {
        "overall_stats": {
            "batch_size": int(global_batch_size),
            "throughput_mean": global_batch_size / mean,
            "e2e": mean,
        }
    }


def write_summary(summary: Mapping, folder: str | os.PathLike) -> str:
    """Write `summary.json` into a folder, whole or not at all, and return its path.

    Args:
        summary: result of `throughput_summary`.
        folder: folder to write to; made if missing.

    Raises:
        OSError: the folder is not writable.
    """
    path = os.path.join(folder, SUMMARY_NAME)
    return write_atomically(path, json.dumps(summary, indent=2) + "\n")


class StepTimes:
    """Collect the times of a run's steps and write `summary.json` at its end.

    Many steps run in one call without returning to Python, so each step counts with the mean time
    of its call: measuring does not slow the run down. What happens between calls (logs,
    checkpoints, evaluations) does not count; waiting for data does.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        global_batch_size: int,
        *,
        say: Callable[[str], None] = print,
    ):
        """Begin a record.

        Args:
            folder: folder of `summary.json`.
            global_batch_size: images per step over all processes.
            say: function that prints the result, or that there is none.
        """
        self._folder = folder
        self._global_batch_size = global_batch_size
        self._say = say
        self._times: list[float] = []

    def limit(self, step: int) -> int:
        """Return how many steps the next call may run: any number."""
        del step
        return sys.maxsize

    def call_begins(self, step: int) -> None:
        """Do nothing before a call."""

    def call_ended(self, before: int, after: int, seconds: float) -> None:
        """Note a call that took `seconds` from step `before` to step `after`."""
        steps = after - before
        # The original takes the time of a whole call for that of a step: with its scripts' 100
        # steps a call the throughput came out 100 times too small.
        self._times += [seconds / steps] * steps

    def close(self) -> None:
        """Write `summary.json` and say what it holds."""
        if not self._times:
            self._say("no steps ran, so there is no summary of the speed.")
            return
        summary = throughput_summary(self._times, global_batch_size=self._global_batch_size)
        path = write_summary(summary, self._folder)
        stats = summary["overall_stats"]
        self._say(
            f"{stats['throughput_mean']:.2f} images/s, {1000 * stats['e2e']:.1f} ms per step over "
            f"{len(counted_steps(self._times))} of {len(self._times)} steps: {path}"
        )
