"""The numbers of a run in a tracker of experiments: MLflow or Weights & Biases.

A tracker gets what `metrics.jsonl` gets, from a thread of its own, so that no step waits for a
network. A tracker that cannot be reached in the middle of a run costs its own numbers and a
warning; the run goes on. Both read where they write to from their own environment variables, such
as MLFLOW_TRACKING_URI and WANDB_PROJECT.

Sources: https://mlflow.org/docs/latest/ml/tracking and
https://docs.wandb.ai/guides/track/environment-variables
"""

from __future__ import annotations

import importlib
import json
import math
import os
import queue
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from ssd_centernet.files import read_text, write_atomically
from ssd_centernet.run_directory import TRACKER_NAME

TRACKERS = ("mlflow", "wandb")
# How long the end of a run waits for numbers that are still on their way.
_PATIENCE_SECONDS = 60.0
# A tracker that does not take numbers must not fill the memory.
_MOST_WAITING = 10_000
# MLflow takes so many settings in one request.
_BATCH = 100


class Tracker(Protocol):
    """Where the numbers of a run go; called from one thread."""

    @property
    def run_id(self) -> str:
        """The tracker's own name of the run, by which a resumed run goes on there."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""

    def end(self, finished: bool) -> None:
        """Note that the process ends, and whether the run is finished."""


class Tracking:
    """Send the numbers of a run to a tracker, from a thread of its own."""

    def __init__(self, tracker: Tracker, *, patience: float = _PATIENCE_SECONDS):
        """Begin.

        Args:
            tracker: where the numbers go.
            patience: seconds that `close` waits for numbers on their way.
        """
        self._tracker = tracker
        self._patience = patience
        self._waiting: queue.Queue = queue.Queue(_MOST_WAITING)
        self._failed = False
        # A daemon: a tracker that hangs must not keep a process from ending.
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def log(self, kind: str, step: int, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record as `KIND/NAME`; return at once.

        Args:
            kind: "train" or "eval".
            step: number of updates done.
            record: numbers by name; what is no finite number is left out.
        """
        metrics = {
            f"{kind}/{name}": float(value)
            for name, value in record.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        self._put(lambda: self._tracker.log(metrics, step))

    def close(self, *, finished: bool) -> None:
        """Wait until all is sent, as long as the patience lasts, and end.

        Args:
            finished: whether the run is; one that was stopped can be resumed.
        """
        self._put(lambda: self._tracker.end(finished))
        self._put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"it did not take all numbers within {self._patience:g} s")

    def _put(self, call: Any) -> None:
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._warn(f"{_MOST_WAITING} numbers wait for it already")

    def _send(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except Exception as error:  # Whatever a client raises, training is worth more.
                self._warn(f"{type(error).__name__}: {error}")

    def _warn(self, reason: str) -> None:
        """Warn once."""
        if not self._failed:
            self._failed = True
            warnings.warn(
                f"the tracker misses numbers of this run: {' '.join(reason.split())[:300]}. "
                "metrics.jsonl has all of them; the training goes on.",
                stacklevel=2,
            )


def start_tracking(
    name: str, model_dir: str | Path, settings: Mapping[str, str], *, label: str | None = None
) -> Tracking:
    """Begin or go on with a run in a tracker.

    Args:
        name: one of `TRACKERS`.
        model_dir: directory of the run; `tracker.json` in it keeps the tracker's name of the run.
        settings: name -> value as gin writes it.
        label: what people see; None is the name of the directory.

    Returns:
        What takes the numbers.

    Raises:
        ValueError: there is no such tracker.
        ImportError: its package is not installed.
        ConnectionError: it cannot be reached, or refuses the run.
    """
    if name not in TRACKERS:
        raise ValueError(f"train.tracker is {name!r}; expected {' or '.join(map(repr, TRACKERS))}.")
    path = Path(model_dir) / TRACKER_NAME
    known = _known_runs(path)
    label = label or Path(model_dir).resolve().name
    package = _package(name)
    try:
        begin = {"mlflow": _MLflow, "wandb": _WandB}[name]
        tracker = begin(package, known.get(name), label, settings, Path(model_dir))
    except Exception as error:  # A client's own kinds; none of them is a fault of the recipe.
        raise ConnectionError(
            f"--tracker={name} cannot begin: {type(error).__name__}: {error}. Check its own "
            "environment variables and its server, or leave --tracker out."
        ) from error
    write_atomically(path, json.dumps({**known, name: tracker.run_id}, indent=2) + "\n")
    return Tracking(tracker)


def _known_runs(path: Path) -> dict[str, str]:
    """Return tracker -> its name of the run; a damaged file begins a new run there."""
    try:
        known = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} cannot be read ({error}); a new run is tracked.", stacklevel=3)
        return {}
    items = known.items() if isinstance(known, dict) else ()
    return {key: value for key, value in items if key in TRACKERS and isinstance(value, str)}


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = {"mlflow": "mlflow-skinny", "wandb": "wandb"}[name]
        raise ImportError(
            f"--tracker={name} needs a package that cannot be imported ({error}). Install it: "
            f"pip install {needed}"
        ) from error


class _MLflow:
    """A run of MLflow, in the experiment that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(
        self,
        mlflow: ModuleType,
        run_id: str | None,
        label: str,
        settings: Mapping[str, str],
        model_dir: Path,
    ):
        entities = importlib.import_module("mlflow.entities")
        self._client = mlflow.MlflowClient()
        self._metric = entities.Metric
        if run_id is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ssd_centernet")
            found = self._client.get_experiment_by_name(experiment)
            place = found.experiment_id if found else self._client.create_experiment(experiment)
            run_id = self._client.create_run(place, run_name=label).info.run_id
            params = [entities.Param(name, value[:6000]) for name, value in settings.items()]
            for start in range(0, len(params), _BATCH):
                self._client.log_batch(run_id, params=params[start : start + _BATCH])
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._client.set_tag(run_id, "model_dir", str(model_dir.resolve()))
        self.run_id = run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        rows = [self._metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=rows)

    def end(self, finished: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")


class _WandB:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names."""

    def __init__(
        self,
        wandb: ModuleType,
        run_id: str | None,
        label: str,
        settings: Mapping[str, str],
        model_dir: Path,
    ):
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ssd_centernet"),
            id=run_id,
            name=label,
            dir=str(model_dir),
            config=dict(settings),
            resume="allow",
        )
        # A resumed run repeats steps; wandb's own counter would refuse them.
        for kind in ("train", "eval"):
            self._run.define_metric(f"{kind}/*", step_metric="step")
        self.run_id = self._run.id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    def end(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
