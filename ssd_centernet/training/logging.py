"""The log of a run: a line per window, the same numbers in metrics.jsonl and TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import tensorflow as tf

from ssd_centernet.files import open_at_end, write_atomically
from ssd_centernet.run_directory import METRICS_NAME, SESSIONS_NAME, TRAIN_KIND
from ssd_centernet.training.log_files import COMPLETE, duration
from ssd_centernet.training.schedules import RunLength
from ssd_centernet.training.tracking import Tracking

# Above this share of waiting time the input pipeline is the bottleneck.
INPUT_BOUND_SHARE = 0.2
# The width of a terminal.
_COLUMNS = 80
_NOT_LOSS_PARTS = {
    "total",
    "gradient_norm",
    "learning_rate",
    "loss_scale",
    "skipped_steps",
    "epoch",
    "images_per_second",
    "data_wait_share",
    "eta_seconds",
}


class TrainLog:
    """Write windows of training and evaluations to the console, a file and TensorBoard."""

    def __init__(
        self,
        model_dir: str | Path,
        length: RunLength,
        *,
        console: TextIO | None = None,
        write_files: bool = True,
    ):
        """Open the log of a run, or continue an existing one.

        Args:
            model_dir: directory of the run; gets `metrics.jsonl`, `sessions.jsonl` and events for
                TensorBoard.
            length: length of the run.
            console: stream for lines; None means standard output.
            write_files: False on all processes but the first.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        self.length = length
        self._console = console or sys.stdout
        self._file: TextIO | None = None
        self._writes = write_files
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._model_dir = Path(model_dir)
        if write_files:
            # TensorFlow would say so only at the first window, after the time for tracing.
            if importlib.util.find_spec("tensorboard") is None:
                raise ImportError(
                    "training writes its curves with the package tensorboard, which is not "
                    "installed (TensorFlow 2.21 no longer includes it). Install it: "
                    'pip install "ssd_centernet[train]"'
                )
            self._model_dir.mkdir(parents=True, exist_ok=True)
        self._tracking: Tracking | None = None
        self._finished = False
        self._last_step = 0
        self._last_time = time.monotonic()
        self._rate: float | None = None

    @property
    def folder(self) -> Path | None:
        """Return the run's directory, or None on a process that writes no files."""
        return self._model_dir if self._writes else None

    def say(self, text: str) -> None:
        """Print a line on the console, on the first process only."""
        if not self._writes:
            return
        print(text, file=self._console, flush=True)

    def follow(self, tracking: Tracking) -> None:
        """Send the numbers of the run to a tracker as well, from now on."""
        self._tracking = tracking

    def keep(self, name: str, text: str) -> None:
        """Write a text that is too long for the console to a file of the run's directory."""
        if self._writes:
            write_atomically(self._model_dir / name, text + "\n")

    def resume_at(self, step: int) -> None:
        """Begin the first window at a resumed step."""
        self._last_step = step

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block, such as that of a save, out of the current window."""
        begin = time.monotonic()
        try:
            yield
        finally:
            # As if the window had begun later by the time of the block.
            self._last_time += time.monotonic() - begin

    def window(
        self, step: int, metrics: dict[str, float], *, warmup: bool = False
    ) -> dict[str, float]:
        """Report the steps since the last call.

        Args:
            step: number of updates done.
            metrics: means over the window, with `learning_rate`, and with `data_wait_seconds` where
                that was measured.
            warmup: whether the window includes tracing, so that its pace means nothing.

        Returns:
            The record written: the metrics, `images_per_second`, `data_wait_share`, `epoch`,
            `eta_seconds`.
        """
        now = time.monotonic()
        steps, seconds = step - self._last_step, max(now - self._last_time, 1e-9)
        metrics = dict(metrics)
        waited = metrics.pop("data_wait_seconds", None)
        record = {**metrics, "epoch": step / self.length.steps_per_epoch}
        if not warmup and steps:
            rate = steps / seconds
            # Smoothed, so that one slow window does not spoil the estimate.
            self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
            record["images_per_second"] = rate * self.length.global_batch_size
            if waited is not None:
                record["data_wait_share"] = min(waited / seconds, 1.0)
            record["eta_seconds"] = (self.length.total_steps - step) / self._rate
        self.say(self._line(step, record))
        self.write(TRAIN_KIND, step, record)
        # Not `now`: the time for writing the line is not part of the next window.
        self._last_step, self._last_time = step, time.monotonic()
        return record

    def write(self, kind: str, step: int, record: dict[str, float]) -> None:
        """Append a record to metrics.jsonl and, under `kind`, to TensorBoard."""
        if not self._writes:
            return
        now = {"time": round(time.time(), 3)}
        self._opened().write(json.dumps({"kind": kind, "step": step, **record, **now}) + "\n")
        if self._tracking is not None:
            self._tracking.log(kind, step, record)
        with self._writer(kind):
            for name, value in record.items():
                tf.summary.scalar(name, value, step=step)

    def picture(self, kind: str, name: str, step: int, image: np.ndarray) -> None:
        """Write a picture, uint8 [H, W, 3], to TensorBoard, under `kind`."""
        if not self._writes:
            return
        with self._writer(kind):
            tf.summary.image(name, image[np.newaxis], step=step)

    def session(self, event: str, step: int, **facts) -> None:
        """Append to sessions.jsonl that this process begins or ends, with facts about it.

        Args:
            event: "begin", "recovery" or "end".
            step: number of updates done.
            **facts: JSON values.
        """
        if not self._writes:
            return
        record = {"event": event, "step": step, "time": round(time.time(), 3), **facts}
        self._finished = event == "end" and facts.get("reason") in COMPLETE
        with open_at_end(self._model_dir / SESSIONS_NAME) as file:
            file.write(json.dumps(record) + "\n")

    def _opened(self) -> TextIO:
        """Open metrics.jsonl for its first line: a start that fails before leaves no such file."""
        if self._file is None:
            # Appended line by line: a killed process loses at most the last line, and a resume goes
            # on below.
            self._file = open_at_end(self._model_dir / METRICS_NAME)
        return self._file

    @contextlib.contextmanager
    def _writer(self, kind: str) -> Iterator[None]:
        """Write the summaries of the block to the event files of a kind, at once."""
        if kind not in self._writers:
            self._writers[kind] = tf.summary.create_file_writer(str(self._model_dir / kind))
        with self._writers[kind].as_default():
            yield
        self._writers[kind].flush()

    def close(self) -> None:
        """Close the files and the tracker."""
        if self._tracking is not None:
            self._tracking.close(finished=self._finished)
        for writer in self._writers.values():
            writer.close()
        if self._file is not None:
            self._file.close()

    def _line(self, step: int, record: dict[str, float]) -> str:
        width = len(str(self.length.total_steps))
        fields = [
            f"epoch {record['epoch']:.2f}",
            f"loss {record['total']:.4f}",
            f"lr {record['learning_rate']:.3g}",
        ]
        if "eta_seconds" in record:
            fields += [
                f"{record['images_per_second']:.1f} images/s",
                f"eta {duration(record['eta_seconds'])}",
            ]
        parts = {k: v for k, v in record.items() if k not in _NOT_LOSS_PARTS}
        fields += [f"{name} {value:.4f}" for name, value in parts.items()]
        if "loss_scale" in record:
            fields.append(f"scale {record['loss_scale']:g} (skipped {record['skipped_steps']})")
        if record.get("data_wait_share", 0.0) > INPUT_BOUND_SHARE:
            fields.append(f"[input bound: waits {100 * record['data_wait_share']:.0f}%]")
        return _wrapped(f"step {step:>{width}}/{self.length.total_steps}", fields)


def _wrapped(head: str, fields: Sequence[str]) -> str:
    """Write fields after a head; those that would leave a terminal go below the first ones."""
    lines = [head]
    for field in fields:
        if len(lines[-1]) + 2 + len(field) > _COLUMNS:
            lines.append(" " * len(head))
        lines[-1] += f"  {field}"
    return "\n".join(lines)
