"""Checkpoints of a run: save everything, resume, keep the best."""

from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from ssd_centernet import checkpoint_files
from ssd_centernet.checkpoint_files import BEST_DIR, CHECKPOINT_PREFIX
from ssd_centernet.files import read_object, write_atomically
from ssd_centernet.run_directory import (
    BEST_METRICS_NAME,
    NEW_BEST_DIR,
    OLD_BEST_DIR,
    named_weights,
    refuse_wildcards,
)
from ssd_centernet.training.log_files import beats, numbers_of, recorded_evaluations
from ssd_centernet.training.mending import forget_digests, mend
from ssd_centernet.training.trainer import Trainer


class MisfitError(ValueError):
    """A checkpoint of another model or optimizer; the settings of its run tell what differs."""


class RunCheckpoints:
    """Save and restore all that a run needs to go on as if it had never stopped.

    A checkpoint holds weights, moving statistics, optimizer slots, step, number of images seen
    (the input's position), loss scale and seed; the schedule is a function of the step. With an
    average of the weights, `weights` is the average, which everybody else reads, and `trained` is
    what training goes on with. Every
    process of a run calls the same methods at the same steps; the chief alone reads and writes.
    Digests of the files are written beside them while the training goes on.

    Attributes:
        notes: what was put right in the directory, see `mend`; on the chief.
        change: what differs from the run that was resumed, a sentence; None for nothing.
    """

    def __init__(self, trainer: Trainer, model_dir: str | Path, *, seed: int, keep: int = 5):
        """Prepare a run directory.

        Args:
            trainer: the trainer whose state is saved.
            model_dir: directory of the run.
            seed: seed of the run; a resumed run must have the seed that it began with.
            keep: number of checkpoints to keep, at least 1.

        Raises:
            ValueError: TensorFlow could not read checkpoints of a directory with this name, or no
                checkpoint of a run that had some can be read.
        """
        refuse_wildcards(
            model_dir,
            "--model_dir",
            "a training there could not be resumed, though a run that was moved there can be read",
        )
        self.trainer = trainer
        self.model_dir = Path(model_dir)
        # A variable, so that checkpoints carry it and a resume can compare.
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False)
        self.checkpoint = self._with_weights()
        # What a resume has changed; None for nothing.
        self.change: str | None = None
        self._communicator = trainer.communicator
        self.notes = mend(self.model_dir) if self._communicator.is_chief else []
        self._digests = _DigestWriter()
        self.manager = tf.train.CheckpointManager(
            self.checkpoint,
            str(self.model_dir),
            max_to_keep=keep,
            checkpoint_name=CHECKPOINT_PREFIX,
            step_counter=trainer.step,
        )

    @property
    def latest(self) -> str | None:
        """Return the path of the latest checkpoint of the run directory; None without one."""
        return self.manager.latest_checkpoint

    def resume(self, path: str | None = None) -> str | None:
        """Restore everything from the latest checkpoint of the run directory, if there is one.

        Only the chief calls it; the others get its state from `Communicator.broadcast`.

        Args:
            path: another checkpoint than the latest.

        Returns:
            Path of the checkpoint, or None if the run is new.

        Raises:
            ValueError: the checkpoint is damaged, or of another model or seed.
        """
        if path is not None:
            checkpoint_files.check_digest(path)
        path = path or self.latest  # Which `mend` has read.
        if path is None:
            return None
        seed = int(self._seed)
        try:
            # All or nothing: with new optimizer slots the run would not be the same any more.
            name, self._links = checkpoint_files.open_name(path)
            self._restore(name)
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            if checkpoint_files.is_damage(error):
                raise checkpoint_files.damaged(path, error) from error
            raise MisfitError(
                f"checkpoint {path} does not fit this model: "
                f"{checkpoint_files.first_line(error).rstrip('.')}. "
                "The run in this directory probably had another recipe, number of classes or "
                "backbone: choose another --model_dir, or load only the weights with "
                "--fine_tune_checkpoint."
            ) from error
        if int(self._seed) != seed:
            raise ValueError(
                f"the run in {self.model_dir} began with --seed={int(self._seed)}, but this call "
                f"has --seed={seed}: with another seed a resumed run cannot be exact. Give the "
                "first seed, or another --model_dir."
            )
        self.trainer.loss_scale.restored()
        return path

    def _with_weights(self, **options: bool) -> tf.train.Checkpoint:
        """Name what a checkpoint holds, by what is average now and what is trained."""
        # Keyed by names, not by attributes: a change of the code then orphans no checkpoint.
        held, average = named_weights(self.trainer.detector), self.trainer.average
        if average is None:
            return self._checkpoint(weights=held, **options)
        others = average.named(held)
        if average.is_in_use:
            return self._checkpoint(weights=held, trained=others, **options)
        return self._checkpoint(weights=others, trained=held, **options)

    def _checkpoint(
        self, *, rate_factor: bool = True, **weights: dict[str, tf.Variable]
    ) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(
            **weights,
            optimizer=self.trainer.optimizer,
            step=self.trainer.step,
            examples_seen=self.trainer.examples_seen,
            loss_scale=self.trainer.loss_scale,
            seed=self._seed,
            **({"rate_factor": self.trainer.rate_factor} if rate_factor else {}),
        )

    def _restore(self, name: str) -> None:
        """Restore all or nothing, also where the run begins or ends to average its weights."""
        average, held = self.trainer.average, named_weights(self.trainer.detector)
        averaged = checkpoint_files.holds_averages(name)
        # Those of version 0.1 have none, and no run of it had recovered.
        factor = {"rate_factor": checkpoint_files.holds(name, "rate_factor")}
        if averaged == (average is not None):
            checkpoint = self.checkpoint if factor["rate_factor"] else self._with_weights(**factor)
            status = checkpoint.restore(name)
        elif averaged:
            status = self._checkpoint(trained=held, **factor).restore(name)
            self.change = (
                "the run averaged its weights so far; without train.ema_decay it goes on with the "
                "weights that were trained, and the averages are given up"
            )
        else:
            status = self._checkpoint(weights=held, **factor).restore(name)
            self.change = (
                "the run did not average its weights so far; train.ema_decay begins with those of "
                "this step"
            )
        status.assert_existing_objects_matched()
        # What is left over is given up: TensorFlow would warn of each tensor when it ends.
        status.expect_partial()
        if average is not None and not averaged:
            average.restart()
        factor = float(self.trainer.rate_factor)
        if factor != 1.0:
            told = f"the run has recovered before: its rate stays {factor:g} of the schedule's"
            self.change = "; ".join(filter(None, (self.change, told)))

    def save(self) -> str:
        """Write a checkpoint named after the step and return its path.

        Raises:
            RuntimeError: the processes of the run no longer have the same weights.
        """
        step = int(self.trainer.step)
        # On every process, before the chief alone writes: both are collectives.
        self.trainer.share_statistics()
        self.trainer.check_agreement()
        existing = f"{self.model_dir / CHECKPOINT_PREFIX}-{step}"
        # A signal or the end of the run may come at a step that was just saved.
        if existing in self.manager.checkpoints or not self._communicator.is_chief:
            return existing
        self._digests.wait()
        # Those of files that are about to be replaced would call the new ones damaged.
        checkpoint_files.forget_digest(existing)
        path = self.manager.save(checkpoint_number=step)
        forget_digests(self.model_dir)
        self._digests.begin(path)
        return path

    def finish(self) -> None:
        """Wait until everything is on the disk."""
        self._digests.wait()

    def keep_best(self, metrics: dict[str, float], name: str, *, higher_is_better: bool) -> bool:
        """Copy the current state to `best/` if its metric beats the one kept there.

        Args:
            metrics: of the evaluation at the current step.
            name: name of the metric that decides.
            higher_is_better: direction of that metric.

        Returns:
            Whether it was kept. An undefined metric (-1 in COCO's numbers, or NaN) is never kept,
            as it says nothing about the weights.

        Raises:
            KeyError: `metrics` has no such name.
        """
        kept = self._communicator.is_chief and self._keep_if_better(metrics, name, higher_is_better)
        return self._communicator.gather([kept])[0]

    def best_metrics(self) -> dict[str, float] | None:
        """Return the metrics and the `step` of the checkpoint in `best/`; None without one."""
        folder = self.model_dir / BEST_DIR
        found = numbers_of(read_object(folder / BEST_METRICS_NAME))
        if "step" in found and len(found) > 1:
            return found
        # Empty after a crash of the machine; the log holds the same numbers.
        steps = {index.stem for index in folder.glob(f"{CHECKPOINT_PREFIX}-*.index")}
        for record in recorded_evaluations(self.model_dir, until_step=int(self.trainer.step)):
            if f"{CHECKPOINT_PREFIX}-{record['step']}" in steps:
                return record
        return None

    def _keep_if_better(self, metrics: dict[str, float], name: str, higher_is_better: bool) -> bool:
        if name not in metrics:
            raise KeyError(
                f"keep_best={name!r} is not among the metrics {sorted(metrics)}; set "
                "train.keep_best to one of them."
            )
        best_dir = self.model_dir / BEST_DIR
        best = (self.best_metrics() or {}).get(name)
        if not beats(metrics[name], best, higher_is_better=higher_is_better):
            return False
        # The new best is complete before the old one goes; `mend_best` ends a swap that was cut.
        self._digests.wait()
        step = int(self.trainer.step)
        fresh, replaced = self.model_dir / NEW_BEST_DIR, self.model_dir / OLD_BEST_DIR
        shutil.rmtree(fresh, ignore_errors=True)
        manager = tf.train.CheckpointManager(
            self._with_weights(), str(fresh), max_to_keep=1, checkpoint_name=CHECKPOINT_PREFIX
        )
        manager.save(checkpoint_number=step)
        content = json.dumps({"step": step, **metrics}, indent=1)
        write_atomically(fresh / BEST_METRICS_NAME, content)
        shutil.rmtree(replaced, ignore_errors=True)
        if best_dir.exists():
            best_dir.rename(replaced)
        fresh.rename(best_dir)
        shutil.rmtree(replaced, ignore_errors=True)
        self._digests.begin(best_dir / f"{CHECKPOINT_PREFIX}-{step}")
        return True


class _DigestWriter:
    """Write the digests of one checkpoint after another, beside the training."""

    def __init__(self):
        """Start no thread yet."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digests")
        self._pending: Future | None = None

    def begin(self, prefix: str | Path) -> None:
        """Begin with the files of a checkpoint, which must stay until `wait`."""
        self._pending = self._thread.submit(checkpoint_files.write_digest, prefix)

    def wait(self) -> None:
        """Wait for the digests begun; the checkpoint is whole without them, too."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except OSError as error:
            warnings.warn(f"the digests of a checkpoint were not written: {error}", stacklevel=2)
