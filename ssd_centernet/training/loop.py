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
from collections.abc import Callable, Sequence

import tensorflow as tf

from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.log_files import (
    beats,
    evaluations_without_best,
    recorded_evaluations,
)
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.observers import StepObserver
from ssd_centernet.training.trainer import Trainer

# Steps run inside one call until about this many seconds are over, so that a signal is answered.
SECONDS_PER_CALL = 5.0


# Of the evaluation's loss parts among its metrics; the only ones that are better when lower.
LOSS_PREFIX = "loss_"


class _Stopped(Exception):
    """End the loop from inside an orbit action."""


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
        """Refuse, before hours of training, what would fail at the first window or evaluation."""
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
    """Run a `Trainer` to the end of its run, or until a signal or a bad step stops it."""

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
        observers: Sequence[StepObserver] = (),
    ):
        """Join the parts.

        Args:
            trainer: the step and its state, already restored.
            dataset: infinite tf.data of batches, beginning where the state says.
            options: when things happen.
            checkpoints: of the run directory.
            log: of the run.
            evaluate: evaluates the current weights and returns its metrics.
            strategy: where the step is placed.
            observers: are told of every call; they are closed when the run ends.
        """
        self.trainer = trainer
        self.options = options
        self.checkpoints = checkpoints
        self.log = log
        self._evaluate = evaluate
        self._strategy = strategy or tf.distribute.get_strategy()
        self._dataset = dataset
        self._observers = observers
        self._stop_signal: int | None = None
        self._steps_per_second: float | None = None
        self._call_began = 0.0
        self._step_at_call = 0
        self._evaluations_without_best = 0

    def run(self) -> str:
        """Train until the end.

        Returns:
            Why it ended: "finished", "stopped early", or the name of the signal.
        """
        try:
            reason = self._run()
        except Exception as error:
            self.log.session("end", int(self.trainer.step), reason=type(error).__name__)
            raise
        # A process that is killed leaves no end, and is known by that.
        self.log.session("end", int(self.trainer.step), reason=reason)
        return reason

    def _run(self) -> str:
        orbit = _import_orbit()
        options, step = self.options, int(self.trainer.step)
        due = self._evaluation_is_due(step)
        if self._out_of_patience():
            self.log.say(
                f"the run had stopped early: {self._evaluations_without_best} evaluations without "
                "a better result. To go on raise train.early_stop_patience."
            )
            return "stopped early"
        if step >= options.total_steps and not due:
            self.log.say(
                f"nothing is left to do: the run is at step {step} of {options.total_steps}. To go "
                "on give more --num_steps or --epochs."
            )
            return "finished"
        # orbit prints each of its moves; our own lines say more.
        with self._signals(), self._closing(), contextlib.redirect_stdout(io.StringIO()):
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
                if due:
                    self.log.say(f"the evaluation due at step {step} is not recorded: made up now")
                    with self.log.paused():
                        controller.evaluate(steps=-1)
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

    def _evaluation_is_due(self, step: int) -> bool:
        """Whether a run that begins at a step owes an evaluation of it; counts those before it."""
        options = self.options
        if self._evaluate is None or not options.evaluate_every or not step:
            return False
        owed, count = False, 0
        if self.trainer.communicator.is_chief:
            records = recorded_evaluations(self.checkpoints.model_dir, until_step=step)
            at_step = bool(records) and records[-1]["step"] == step
            # Killed between the record and the copy, a best result would be lost.
            lost = at_step and self._is_lost_best(records[-1])
            ends = step % options.evaluate_every == 0 or step >= options.total_steps
            owed = ends and (not at_step or lost)
            direction = {"higher_is_better": options.higher_is_better}
            records = records[:-1] if at_step and owed else records
            count = evaluations_without_best(records, str(options.keep_best), **direction)
        # The chief reads the files; every process must do the same.
        owed, self._evaluations_without_best = self.trainer.communicator.gather([(owed, count)])[0]
        return owed

    def _is_lost_best(self, record: dict) -> bool:
        name, best = self.options.keep_best, self.checkpoints.best_metrics() or {}
        if name is None or name not in record:
            return False
        better = self.options.higher_is_better
        return beats(record[name], best.get(name), higher_is_better=better)

    def _out_of_patience(self) -> bool:
        patience = self.options.early_stop_patience
        return patience is not None and self._evaluations_without_best >= patience

    def _orbit_trainer(self, orbit):
        loop, trainer = self, self.trainer

        class StepRunner(orbit.StandardTrainer):
            def __init__(self):
                super().__init__(loop._dataset)

            def train_step(self, iterator):
                trainer.run_step(iterator, loop._strategy.run)

            def train_loop_begin(self):
                loop._step_at_call = int(trainer.step)
                for observer in loop._observers:
                    observer.call_begins(loop._step_at_call)
                loop._call_began = time.monotonic()

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
        """Choose how many steps run in one call: to the next event, some seconds at most."""
        options = self.options
        intervals = (options.log_every, options.checkpoint_every, options.evaluate_every)
        due = min(every - int(step) % every for every in intervals if every)
        if self._steps_per_second is None:
            return 1
        due = min([due, *(observer.limit(int(step)) for observer in self._observers)])
        return max(1, min(due, int(self._steps_per_second * SECONDS_PER_CALL)))

    def _after_call(self, _) -> None:
        """Measure the pace, then logs, save or stop where that is due."""
        step, options = int(self.trainer.step), self.options
        self.trainer.raise_if_failed()
        first = self._steps_per_second is None
        seconds = max(time.monotonic() - self._call_began, 1e-6)
        for observer in self._observers:
            observer.call_ended(self._step_at_call, step, seconds)
        # The first call traces the graph and its pace says nothing: two steps are tried next.
        pace = 2.0 / SECONDS_PER_CALL if first else (step - self._step_at_call) / seconds
        # Every process must take as many steps in the next call, and stop after the same one.
        paces, signals = zip(
            *self.trainer.communicator.gather([(pace, self._stop_signal)]), strict=True
        )
        self._steps_per_second = paces[0]
        # Ours may have come since they were asked; then it is answered after the next call.
        number = next((one for one in signals if one is not None), None)
        last, stopping = step >= options.total_steps, number is not None
        if step % options.log_every == 0 or last or first or stopping:
            self.log.window(step, self.trainer.window_metrics(), warmup=first)
        if step % options.checkpoint_every == 0 or last or stopping:
            with self.log.paused():
                path = self.checkpoints.save()
            if stopping:
                name = signal.Signals(number).name
                self.log.say(f"{name}: saved {path}; the same command goes on from step {step}.")
                raise _Stopped(name)

    def _after_evaluation(self, metrics: dict[str, float]) -> None:
        """Keep the best checkpoint, and stop when there was none for long enough."""
        options = self.options
        if options.keep_best is not None:
            best = self.checkpoints.keep_best(
                metrics, options.keep_best, higher_is_better=options.higher_is_better
            )
            self._evaluations_without_best = 0 if best else self._evaluations_without_best + 1
            if best:
                self.log.say(f"  best {options.keep_best} so far, kept in best/")
        if self._out_of_patience():
            self.checkpoints.save()
            count = self._evaluations_without_best
            self.log.say(f"stopped early: {count} evaluations without a better result.")
            raise _Stopped("stopped early")

    @contextlib.contextmanager
    def _closing(self):
        """Close the observers at the end of the run, however it ends."""
        try:
            yield
        finally:
            for observer in self._observers:
                observer.close()

    @contextlib.contextmanager
    def _signals(self):
        """Note SIGTERM and SIGINT for the end of the current call; the second one is obeyed."""
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
