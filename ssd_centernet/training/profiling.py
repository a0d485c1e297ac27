"""A TensorBoard profile of chosen steps of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf

# The name of each step in the trace; TensorBoard groups events by it.
TRACE_NAME = "train"


class StepProfiler:
    """Trace the steps `first` to `last` of a run, both included, into a TensorBoard folder.

    Each of these steps runs in its own call, in a trace named `train` with its number; the steps
    before and after run as without a profile.

    Source: docs/reference/ssd_resnet34.md, section 9
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        steps: Sequence[int],
        *,
        start: int = 0,
        say: Callable[[str], None] = print,
        write: bool = True,
    ):
        """Set the steps to trace.

        Args:
            folder: gets `plugins/profile/TIME/HOST.xplane.pb`.
            steps: (first, last), counted from 0 at the first step of this call of the run.
            start: that step: the restored one, or 0 for a new run.
            say: function that prints where the profile is, or that there is none.
            write: False on all processes but the first; they run the same numbers of steps per call
                and trace nothing.

        Raises:
            ValueError: these are not two numbers, one is negative, or the last is before the first.
        """
        if len(steps) != 2 or not 0 <= steps[0] <= steps[1]:
            raise ValueError(
                f"train.profile is {tuple(steps)}; expected the first and the last step to trace, "
                "such as (50, 53), counted from 0 where this run begins or resumes (--profile)."
            )
        self._folder = os.fspath(folder)
        self._first, self._last = start + int(steps[0]), start + int(steps[1])
        self._say = say
        self._write = write
        self._running = False
        self._done = False
        self._trace = None

    def limit(self, step: int) -> int:
        """Return how many steps the next call may run when `step` updates are done."""
        # A call ends where the trace begins, and each traced step is a call: the host opens and
        # closes a trace between calls only.
        if step < self._first:
            return self._first - step
        return 1 if step <= self._last else sys.maxsize

    def call_begins(self, step: int) -> None:
        """Start to trace before the first step and name the step that follows."""
        if self._write and step == self._first:
            tf.profiler.experimental.start(self._folder)
            self._running = True
        if self._running:
            self._trace = tf.profiler.experimental.Trace(TRACE_NAME, step_num=step, _r=1)
            self._trace.__enter__()

    def call_ended(self, before: int, after: int, seconds: float) -> None:
        """Write the profile after the last step."""
        del before, seconds
        self._leave_trace()
        if self._running and after > self._last:
            self._stop()

    def close(self) -> None:
        """Write the trace so far if the run ends before the last step."""
        self._leave_trace()
        if self._running:
            self._stop()
        elif self._write and not self._done:
            self._say(
                f"no step was profiled: the run ended before step {self._first}. Set "
                "--profile=FIRST,LAST to steps that it has."
            )

    def _leave_trace(self) -> None:
        if self._trace is not None:
            self._trace.__exit__(None, None, None)
            self._trace = None

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._running, self._done = False, True
        self._say(
            f"profiled from step {self._first} on; open it with: tensorboard --logdir "
            f"{self._folder} (needs tensorboard-plugin-profile)"
        )
