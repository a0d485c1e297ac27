"""The outer loop on orbit: windows, checkpoints, evaluations, and stopping when told to.

The only module that imports orbit (a part of tf-models-official).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
import time
from collections.abc import Callable

import tensorflow as tf

from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.trainer import Trainer

# Steps run inside one call until about this many seconds are over, so that a signal is answered.
SECONDS_PER_CALL = 5.0


# Of the evaluation's loss parts among its metrics; the only ones that are better when lower.
LOSS_PREFIX = "loss_"


class _Stopped(Exception):
    """Ends the loop from inside an orbit action."""


@dataclasses.dataclass
class LoopOptions:
    """When things happen, in steps.

    Attributes:
      total_steps: where the run ends.
      log_every: length of a window.
      checkpoint_every: distance of checkpoints; the last step always gets one.
      evaluate_every: distance of evaluations; 0 means none.
      keep_best: metric that decides which checkpoint is kept in `best/`; None for none.
      higher_is_better: direction of that metric.
      early_stop_patience: evaluations without improvement before the run stops; None never stops.
    """

    total_steps: int
    log_every: int = 100
    checkpoint_every: int = 1000
    evaluate_every: int = 0
    keep_best: str | None = "AP"
    higher_is_better: bool = True
    early_stop_patience: int | None = None

    def __post_init__(self):
        """Refuses, before hours of training, what would fail at the first window or evaluation."""
        for name in ("log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"train.{name} is {getattr(self, name)} steps, expected 1 or more; for fewer "
                    "lines or checkpoints set a large number."
                )
        if self.keep_best in (None, *METRIC_NAMES) or self.keep_best.startswith(LOSS_PREFIX):
            return
        raise ValueError(
            f"train.keep_best is {self.keep_best!r}, expected one of {', '.join(METRIC_NAMES)}, a "
            f"loss part such as {LOSS_PREFIX}box, or None."
        )


def _import_orbit():
    try:
        import orbit
    except ImportError as error:
        raise ImportError(
            f"training runs on orbit, a part of tf-models-official, which cannot be imported "
            f"({error}). Install it: pip install 'ssd_centernet[train]'"
        ) from error
    return orbit


class TrainLoop:
    """Runs a `Trainer` to the end of its run, or until a signal or a bad step stops it."""

    def __init__(
        self,
        trainer: Trainer,
        dataset,
        *,
        options: LoopOptions,
        checkpoints: RunCheckpoints,
        log: TrainLog,
        evaluate: Callable[[], dict[str, float]] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ):
        """Joins the parts.

        Args:
          trainer: the step and its state, already restored.
          dataset: infinite tf.data of batches, beginning where the state says.
          options: when things happen.
          checkpoints: of the run directory.
          log: of the run.
          evaluate: evaluates the current weights and returns its metrics.
          strategy: where the step is placed.
        """
        self.trainer = trainer
        self.options = options
        self.checkpoints = checkpoints
        self.log = log
        self._evaluate = evaluate
        self._strategy = strategy or tf.distribute.get_strategy()
        self._dataset = dataset
        self._stop_signal: int | None = None
        self._steps_per_second: float | None = None
        self._call_began = 0.0
        self._step_at_call = 0
        self._evaluations_without_best = 0

    def run(self) -> str:
        """Trains until the end.

        Returns:
          Why it ended: "finished", "stopped early", or the name of the signal.
        """
        orbit = _import_orbit()
        options, step = self.options, int(self.trainer.step)
        if step >= options.total_steps:
            return "finished"
        # orbit prints each of its moves; our own lines say more.
        with self._signals(), contextlib.redirect_stdout(io.StringIO()):
            controller = orbit.Controller(
                trainer=self._orbit_trainer(orbit),
                evaluator=self._orbit_evaluator(orbit),
                global_step=self.trainer.step,
                steps_per_loop=self._steps_per_call,
                strategy=self._strategy,
                train_actions=[self._after_call],
                eval_actions=[self._after_evaluation],
            )
            try:
                while step < options.total_steps:
                    # Evaluations stay at multiples of the interval when a run is resumed.
                    every = options.evaluate_every or options.total_steps
                    step = min(options.total_steps, (step // every + 1) * every)
                    controller.train(step, checkpoint_at_completion=False)
                    if self._evaluate is not None and options.evaluate_every:
                        with self.log.paused():
                            controller.evaluate(steps=-1)
            except _Stopped as stopped:
                return str(stopped)
        return "finished"

    def _orbit_trainer(self, orbit):
        loop, trainer = self, self.trainer

        class StepRunner(orbit.StandardTrainer):
            def __init__(self):
                super().__init__(loop._dataset)

            def train_step(self, iterator):
                batch = trainer.next_batch(iterator)
                loop._strategy.run(trainer.train_step, args=(batch,))

            def train_loop_begin(self):
                loop._call_began, loop._step_at_call = time.monotonic(), int(trainer.step)

            def train_loop_end(self):
                return {}

        return StepRunner()

    def _orbit_evaluator(self, orbit):
        loop = self
        if self._evaluate is None:
            return None

        class Evaluator(orbit.AbstractEvaluator):
            def evaluate(self, num_steps):
                return loop._evaluate()

        return Evaluator()

    def _steps_per_call(self, step: int) -> int:
        """Chooses how many steps run in one call: to the next event, some seconds at most."""
        options = self.options
        intervals = (options.log_every, options.checkpoint_every, options.evaluate_every)
        due = min(every - int(step) % every for every in intervals if every)
        if self._steps_per_second is None:
            return 1
        return max(1, min(due, int(self._steps_per_second * SECONDS_PER_CALL)))

    def _after_call(self, _) -> None:
        """Measures the pace, then logs, saves or stops where that is due."""
        step, options = int(self.trainer.step), self.options
        self.trainer.raise_if_failed()
        first = self._steps_per_second is None
        seconds = max(time.monotonic() - self._call_began, 1e-6)
        # The first call traces the graph and its pace says nothing: two steps are tried next.
        self._steps_per_second = (
            2.0 / SECONDS_PER_CALL if first else (step - self._step_at_call) / seconds
        )
        last, stopping = step >= options.total_steps, self._stop_signal is not None
        if step % options.log_every == 0 or last or first or stopping:
            self.log.window(step, self.trainer.window_metrics(), warmup=first)
        if step % options.checkpoint_every == 0 or last or stopping:
            with self.log.paused():
                path = self.checkpoints.save()
            if stopping:
                name = signal.Signals(self._stop_signal).name
                self.log.say(f"{name}: saved {path}; the same command goes on from step {step}.")
                raise _Stopped(name)

    def _after_evaluation(self, metrics: dict[str, float]) -> None:
        """Keeps the best checkpoint, and stops when there was none for long enough."""
        options = self.options
        if options.keep_best is not None:
            best = self.checkpoints.keep_best(
                metrics, options.keep_best, higher_is_better=options.higher_is_better
            )
            self._evaluations_without_best = 0 if best else self._evaluations_without_best + 1
            if best:
                self.log.say(f"  best {options.keep_best} so far, kept in best/")
        patience = options.early_stop_patience
        if patience is not None and self._evaluations_without_best >= patience:
            self.checkpoints.save()
            self.log.say(f"stopped early: {patience} evaluations without a better result.")
            raise _Stopped("stopped early")

    @contextlib.contextmanager
    def _signals(self):
        """Notes SIGTERM and SIGINT for the end of the current call; the second one is obeyed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {}

        def note(number, frame):
            del frame
            self._stop_signal = number
            signal.signal(number, before[number])

        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
