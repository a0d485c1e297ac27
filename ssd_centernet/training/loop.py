"""The outer loop: run windows of steps, log, save, evaluate and stop."""

from __future__ import annotations

import contextlib
import inspect
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from ssd_centernet.memory import without_collector
from ssd_centernet.runtime.replicas import run_on_replicas
from ssd_centernet.runtime.signals import Stopped, interruptible, noted, unhurried
from ssd_centernet.training.best import BestKeeper
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.length import LoopOptions
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.observers import StepObserver
from ssd_centernet.training.recovery import Recovery
from ssd_centernet.training.step_input import StepInput
from ssd_centernet.training.trainer import NonFiniteLossError, Trainer

# Steps run inside one call until about this many seconds are over, so that a signal is answered.
SECONDS_PER_CALL = 5.0
# For the first call, before processes say that they wait for each other.
_TRACING_SECONDS = 15.0

FINISHED, STOPPED_EARLY = "finished", "stopped early"


def compile_steps(
    trainer: Trainer, strategy: tf.distribute.Strategy, *, in_graph: bool = True
) -> Callable:
    """Compile a function that runs many updates in one call.

    Args:
        trainer: the trainer whose step runs.
        strategy: places the step; of several replicas each gets its rows of a batch.
        in_graph: whether the updates are a loop of the graph, without returning to Python; else
            Python calls each batch, and no graph has a loop.

    Returns:
        Function of an iterator over batches, which may be that of a distributed data set, and of a
        number of updates, an int32 tensor: for each Python number it would be traced anew.
    """
    run = run_on_replicas(strategy)
    if not in_graph:
        return _steps_from_python(trainer, run)
    # Other devices have no oneDNN. On several TensorFlow fails with such a function in a branch.
    if "CPU" in trainer.train_variables[0].device and strategy.num_replicas_in_sync == 1:
        run = _outside_of_the_loop(run)

    @tf.function(autograph=False)
    def run_steps(iterator, number: tf.Tensor) -> None:
        def run_step(index: tf.Tensor) -> list[tf.Tensor]:
            # Operations keep their names from outside the loop, for profiles.
            with tf.name_scope(""):
                trainer.run_step(iterator, run)
            return [index + 1]

        tf.while_loop(lambda index: index < number, run_step, [tf.constant(0)])

    return run_steps


def _outside_of_the_loop(run: Callable) -> Callable:
    """Let each call be a function of its own, which TensorFlow does not put into the loop's graph.

    oneDNN takes the gradient of a max pooling only where TensorFlow has met the pooling before it.
    In a graph with a cycle it may meet either first, in another order at each start, and the two
    kernels add up in other orders: the last bits of gradients would differ from run to run.
    """
    if "experimental_attributes" not in inspect.signature(tf.function).parameters:
        return run  # TensorFlow 2.11 and older.
    functions = {}

    def run_outside(function: Callable, args: tuple) -> None:
        if function not in functions:
            functions[function] = tf.function(
                lambda *args: (run(function, args=args), None)[1],
                autograph=False,
                experimental_attributes={"_noinline": True},
            )
        functions[function](*args)

    return run_outside


def _steps_from_python(trainer: Trainer, run: Callable) -> Callable:
    accumulate = tf.function(
        lambda iterator, index: trainer.accumulate_next(index, iterator, run), autograph=False
    )
    finish = tf.function(lambda iterator: trainer.finish_step(iterator, run), autograph=False)

    def run_steps(iterator, number: tf.Tensor) -> None:
        for _ in range(int(number)):
            index = tf.constant(0)
            for _ in range(trainer.accumulate_steps - 1):
                index = accumulate(iterator, index)
            finish(iterator)

    return run_steps


class TrainLoop:
    """Run a `Trainer` to the end of its run, or until a signal or a bad step stops it."""

    def __init__(
        self,
        trainer: Trainer,
        batches: StepInput,
        *,
        options: LoopOptions,
        checkpoints: RunCheckpoints,
        log: TrainLog,
        evaluate: Callable[[], dict[str, float]] | None = None,
        settled: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        strategy: tf.distribute.Strategy | None = None,
        observers: Sequence[StepObserver] = (),
        begins: Callable[[], None] = lambda: None,
        differences: str | None = None,
    ):
        """Join the parts.

        Args:
            trainer: the step and its state, already restored.
            batches: those that follow the position of the state.
            options: steps at which to log, save and evaluate.
            checkpoints: of the run directory.
            log: log of the run.
            evaluate: evaluates the current weights and returns its metrics; raises `Stopped` on
                every process where a signal ends it.
            settled: opens the state that is evaluated and kept as the best one, and closes it
                again, so that training goes on with its own.
            strategy: places the step on devices.
            observers: called before and after every call of steps; closed when the run ends.
            begins: called by the first process before the first step, if there is one to do.
            differences: what is other than in the run that goes on, a line for each: where no step
                is left, no evaluation is made up with other settings than the run's.
        """
        self.trainer = trainer
        self.options = options
        self.checkpoints = checkpoints
        self.log = log
        self._evaluate = evaluate
        self._settled = settled
        self._evaluate_every = options.evaluate_every if evaluate is not None else 0
        self._strategy = strategy or tf.distribute.get_strategy()
        self._batches = batches
        self._observers = observers
        self._recovery = None
        if options.recovery:
            self._recovery = Recovery(checkpoints, log, batches.begin)
        self._begins, self._differences = begins, differences
        self._stop_signal: int | None = None
        self._best = BestKeeper(
            checkpoints,
            metric=options.keep_best,
            higher_is_better=options.higher_is_better,
            patience=options.early_stop_patience,
        )

    def run(self) -> str:
        """Train until the end.

        Returns:
            The reason for the end: "finished", "stopped early", or the name of the signal.

        Raises:
            Stopped: a signal came before a step was done, so that there is nothing to save.
        """
        try:
            reason = self._run()
        except (Exception, Stopped) as error:
            if isinstance(error, Stopped):
                self.log.say(
                    f"{error}: no step was done, so nothing is to be saved; give the same command "
                    "again."
                )
            self.log.session("end", int(self.trainer.step), reason=type(error).__name__)
            raise
        # A killed process records no end.
        self.log.session("end", int(self.trainer.step), reason=reason)
        return reason

    def _run(self) -> str:
        step, total_steps, owed = int(self.trainer.step), self.options.total_steps, False
        if self._evaluate_every:
            owed = self._best.resume_at(step, evaluates=self._evaluates_at(step))
        if self._best.is_out_of_patience:
            self.log.say(
                f"the run has stopped early: {self._best.evaluations_since} evaluations without a "
                "better result. To go on, raise train.early_stop_patience."
            )
            return STOPPED_EARLY
        if step >= total_steps and owed and self._differences:
            self.log.say(
                f"the evaluation at step {step} is not recorded. It is not made up now, as the "
                f"settings are other than the run's:\n{self._differences}\nGive those of the run "
                "again, or evaluate it by `ssd_centernet evaluate`, which takes them."
            )
            owed = False
        if step >= total_steps and not owed:
            self.log.say(
                f"nothing is left to do: the run is at step {step} of {total_steps}. To go on, "
                "give more --num_steps or --epochs."
            )
            return FINISHED
        with contextlib.ExitStack() as stack:
            stack.enter_context(noted(self._note_signal, "ending after a checkpoint"))
            if not self.trainer.communicator.is_chief:
                # The others wait for the first process, and end when it does.
                stack.enter_context(unhurried())
            for observer in self._observers:
                stack.callback(observer.close)
            if owed:
                self.log.say(f"the evaluation at step {step} is not recorded; it is made up now")
                if ended := self._evaluate_and_keep_best():
                    return ended
            return self._train() if step < total_steps else FINISHED

    def _train(self) -> str:
        """Run the remaining steps, some in each call; after a call log, save or evaluate if due."""
        trainer, options = self.trainer, self.options
        run_steps = compile_steps(trainer, self._strategy, in_graph=options.loop_in_graph)
        iterator = iter(self._batches.begin())
        step, pace, first = int(trainer.step), None, True
        if trainer.communicator.is_chief:
            self._begins()
        while step < options.total_steps:
            before = step
            for observer in self._observers:
                observer.call_begins(before)
            # The log tells a beginning by its window of one step.
            number = 1 if first else self._steps_per_call(step, pace)
            began = time.monotonic()
            seconds = number / pace if pace else _TRACING_SECONDS
            together = trainer.communicator.together(f"the steps after {step}", seconds)
            try:
                tracing = contextlib.nullcontext() if pace else without_collector()
                with self._answering(number, pace), together, tracing:
                    run_steps(iterator, tf.constant(number, tf.int32))
                    step = int(trainer.step)  # Waits for the device.
            except tf.errors.OpError as error:
                self._end_without_input(error)
            try:
                trainer.raise_if_failed()
            except NonFiniteLossError as error:
                step, iterator = self._go_back(error)
                first = True
                continue
            seconds = max(time.monotonic() - began, 1e-6)
            for observer in self._observers:
                observer.call_ended(before, step, seconds)
            # The first call traces the graph, so its pace means nothing: the next call takes two
            # steps.
            pace = 2.0 / SECONDS_PER_CALL if pace is None else (step - before) / seconds
            pace, number = self._agree(pace)
            last, stopping = step >= options.total_steps, number is not None
            if step % options.log_every == 0 or last or first or stopping:
                self.log.window(step, trainer.window_metrics(), warmup=first)
            first = False
            if step % options.checkpoint_every == 0 or last or stopping:
                with self.log.paused(), unhurried():
                    path = self.checkpoints.save()
            if stopping:
                return self._stopped(number, path)
            if self._evaluates_at(step) and (ended := self._evaluate_and_keep_best()):
                return ended
        return FINISHED

    def _go_back(self, error: NonFiniteLossError) -> tuple[int, Iterator]:
        """Recover from a step that was not finite, or raise its error.

        Returns:
            The step where the run goes on, and an iterator over its batches.
        """
        if self._recovery is None:
            raise error
        with self.log.paused(), unhurried():
            batches = self._recovery.recover(error)
            step = int(self.trainer.step)
            if self._evaluate_every:
                self._best.resume_at(step, evaluates=self._evaluates_at(step))
        return step, iter(batches)

    def _end_without_input(self, error: tf.errors.OpError) -> None:
        """Keep the steps that are done where workers make no more batches, and raise why.

        The call ended where it waited for a batch: the state is that after a whole step.
        """
        lost = self._batches.lost()
        if lost is None:
            raise error
        self.trainer.raise_if_failed()
        step = int(self.trainer.step)
        # A checkpoint takes all processes, and each is lost at a step of its own.
        if step and self.trainer.communicator.size == 1:
            with self.log.paused(), unhurried():
                path = self.checkpoints.save()
            self.log.say(f"no more batches come: saved {path}, to go on from step {step}")
        raise lost from error

    def _answering(self, steps: int, pace: float | None) -> contextlib.AbstractContextManager:
        """Answer a signal within a call of steps, or let it wait for its end."""
        if pace is not None:
            # A call that is late loses all its steps when it is ended.
            return unhurried(2.0 * steps / pace)
        # The first call traces the step, which may take minutes, and there is nothing to save.
        # Of several processes each may be at another place of it.
        alone = self.trainer.communicator.size == 1
        return interruptible() if alone else contextlib.nullcontext()

    def _stopped(self, number: int, path: str, then: str = "") -> str:
        """Say that a signal ended the run, and return its name."""
        name = signal.Signals(number).name
        step = int(self.trainer.step)
        self.log.say(
            f"{name}: saved {path}; give the same command again to go on from step {step}{then}."
        )
        return name

    def _evaluates_at(self, step: int) -> bool:
        """Return whether a step has an evaluation: it is a multiple of the interval."""
        every = self._evaluate_every
        return bool(every and step) and (step % every == 0 or step >= self.options.total_steps)

    def _steps_per_call(self, step: int, pace: float) -> int:
        """Return how many steps to run in one call: up to the next event, or for a few seconds."""
        options = self.options
        intervals = (options.log_every, options.checkpoint_every, self._evaluate_every)
        due = [every - step % every for every in intervals if every]
        due += [observer.limit(step) for observer in self._observers]
        due += [options.total_steps - step, int(pace * SECONDS_PER_CALL)]
        return max(1, min(due))

    def _agree(self, pace: float) -> tuple[float, int | None]:
        """Return a pace in steps/s and a signal or None, the same on every process.

        All must take as many steps in the next call, and stop after the same one.
        """
        told = self.trainer.communicator.gather([(pace, self._stop_signal)])
        # Our own signal may have come later; then it is answered after the next call.
        return told[0][0], next((number for _, number in told if number is not None), None)

    def _evaluate_and_keep_best(self) -> str | None:
        """Evaluate the weights; return why the run should end, or None."""
        with self.log.paused():
            try:
                with self._settled():
                    metrics = self._evaluate()
                    with unhurried():
                        if self._best.keep(metrics):
                            self.log.say(f"  best {self.options.keep_best} so far, kept in best/")
            except Stopped as stop:  # The same on every process.
                with unhurried():
                    path = self.checkpoints.save()
                return self._stopped(stop.number, path, ", with the evaluation that was stopped")
            with unhurried():
                if not self._best.is_out_of_patience:
                    return None
                self.checkpoints.save()
        count = self._best.evaluations_since
        self.log.say(f"stopped early: {count} evaluations without a better result.")
        return STOPPED_EARLY

    def _note_signal(self, number: int) -> None:
        self._stop_signal = number
