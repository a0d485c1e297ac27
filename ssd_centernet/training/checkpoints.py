"""Checkpoints of a run: save everything, resume, keep the best."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import tensorflow as tf

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.labels import LabelMap
from ssd_centernet.training.history import beats
from ssd_centernet.training.trainer import Trainer

CHECKPOINT_PREFIX = "ckpt"
BEST_DIR = "best"
_NEW_BEST, _OLD_BEST = f".{BEST_DIR}.new", f".{BEST_DIR}.old"


class RunCheckpoints:
    """Saves and restores all that a run needs to go on as if it had never stopped.

    A checkpoint holds weights, moving statistics, optimizer slots, step, number of images seen
    (the input's position), loss scale and seed; the schedule is a function of the step. Every
    process of a run calls the same methods at the same steps; the chief alone reads and writes.
    """

    def __init__(self, trainer: Trainer, model_dir: str | Path, *, seed: int, keep: int = 5):
        """Prepares a run directory.

        Args:
          trainer: whose state is saved.
          model_dir: directory of the run.
          seed: of the run; a resumed run must use the seed it began with.
          keep: how many checkpoints stay, at least 1.

        Raises:
          ValueError: TensorFlow could not read a checkpoint of this directory back.
        """
        wildcards = sorted(set(str(model_dir)) & set("*?[]\\"))
        if wildcards:
            raise ValueError(
                f"--model_dir={str(model_dir)!r} holds {' '.join(wildcards)}, which TensorFlow "
                "takes as wildcards when it reads a checkpoint: the run could be neither resumed "
                "nor evaluated. Choose a name without * ? [ ] and backslash; spaces are fine."
            )
        self.trainer = trainer
        self.model_dir = Path(model_dir)
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(
            weights=named_weights(trainer.detector),
            optimizer=trainer.optimizer,
            step=trainer.step,
            examples_seen=trainer.examples_seen,
            loss_scale=trainer.loss_scale,
            seed=self._seed,
        )
        self._communicator = trainer.communicator
        if self._communicator.is_chief:
            _mend_list(self.model_dir)
            _mend_best(self.model_dir)
        self.manager = tf.train.CheckpointManager(
            self.checkpoint,
            str(self.model_dir),
            max_to_keep=keep,
            checkpoint_name=CHECKPOINT_PREFIX,
            step_counter=trainer.step,
        )

    def resume(self, path: str | None = None) -> str | None:
        """Restores everything from the latest checkpoint of the run directory, if there is one.

        For the chief; the others get its state by `Communicator.broadcast`.

        Args:
          path: a certain checkpoint instead of the latest.

        Returns:
          Path of the checkpoint, or None when the run starts afresh.

        Raises:
          ValueError: the checkpoint is damaged, of another model, or of a run with another seed.
        """
        path = path or self.manager.latest_checkpoint
        if path is None:
            return None
        seed = int(self._seed)
        try:
            self.checkpoint.restore(path).assert_existing_objects_matched()
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            if _is_damage(error):
                raise damaged(path, error) from error
            raise ValueError(
                f"checkpoint {path} does not fit this model: {_first_line(error)}. Likely another "
                "recipe, class count or backbone trained in this directory: choose another "
                "--model_dir, or take the weights alone with --fine_tune_checkpoint."
            ) from error
        if int(self._seed) != seed:
            raise ValueError(
                f"the run in {self.model_dir} began with --seed={int(self._seed)}, this call has "
                f"--seed={seed}: a resumed run cannot be exact with another seed. Give the first "
                "seed, or another --model_dir."
            )
        self.trainer.loss_scale.restored()
        return path

    def save(self) -> str:
        """Writes a checkpoint named after the step; returns its path.

        Raises:
          RuntimeError: the processes of the run do not have the same weights any more.
        """
        step = int(self.trainer.step)
        self.trainer.share_statistics()
        self.trainer.check_agreement()
        existing = f"{self.model_dir / CHECKPOINT_PREFIX}-{step}"
        if existing in self.manager.checkpoints or not self._communicator.is_chief:
            return existing
        return self.manager.save(checkpoint_number=step)

    def keep_best(self, metrics: dict[str, float], name: str, *, higher_is_better: bool) -> bool:
        """Copies the current state to `best/` if its metric beats the one kept there.

        Args:
          metrics: of the evaluation at the current step.
          name: which of them decides.
          higher_is_better: the direction.

        Returns:
          Whether it was kept. A metric that is undefined (-1 in COCO's numbers, or not a number)
          never is: nothing could beat it, and it says nothing about the weights.

        Raises:
          KeyError: `metrics` has no such name.
        """
        kept = self._communicator.is_chief and self._keep_if_better(metrics, name, higher_is_better)
        return self._communicator.gather([kept])[0]

    def best_metrics(self) -> dict[str, float] | None:
        """Returns the metrics of the checkpoint in `best/` with its `step`; None without one."""
        record = self.model_dir / BEST_DIR / "metrics.json"
        return json.loads(record.read_text()) if record.exists() else None

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
        # The new best is complete before the old one goes; `_mend_best` ends a swap that was cut.
        step = int(self.trainer.step)
        fresh, replaced = self.model_dir / _NEW_BEST, self.model_dir / _OLD_BEST
        shutil.rmtree(fresh, ignore_errors=True)
        manager = tf.train.CheckpointManager(
            self.checkpoint, str(fresh), max_to_keep=1, checkpoint_name=CHECKPOINT_PREFIX
        )
        manager.save(checkpoint_number=step)
        (fresh / "metrics.json").write_text(json.dumps({"step": step, **metrics}, indent=1))
        shutil.rmtree(replaced, ignore_errors=True)
        if best_dir.exists():
            best_dir.rename(replaced)
        fresh.rename(best_dir)
        shutil.rmtree(replaced, ignore_errors=True)
        return True


def check_classes(path: str | Path, label_map: LabelMap) -> None:
    """Refuses to go on from a run whose classes are others, or the same in another order.

    With as many classes every weight fits, and nothing else would tell.

    Args:
      path: run directory, or a checkpoint in one. Where no run is yet, nothing is refused.
      label_map: of the data.

    Raises:
      ValueError: the names of the classes differ.
    """
    path = Path(path)
    holder = path if path.is_dir() else path.parent
    folder = holder.parent if holder.name == BEST_DIR else holder
    saved = folder / LABEL_MAP_NAME
    if not saved.exists() or not any(holder.glob(f"{CHECKPOINT_PREFIX}-*.index")):
        return
    trained = LabelMap.from_pbtxt(saved)
    if trained.names != label_map.names:
        raise ValueError(
            f"the run in {folder} has {trained.describe()}; the data has {label_map.describe()}. "
            "A run goes on with the classes that it began with, in their order: give the data of "
            "the run, or another --model_dir with --fine_tune_checkpoint, which takes over the "
            "weights of classes by their names."
        )


def find_checkpoint(path: str | Path) -> str:
    """Finds a checkpoint.

    Args:
      path: a run directory (its latest checkpoint), its `best` directory, or a checkpoint prefix.

    Returns:
      The checkpoint's prefix.

    Raises:
      FileNotFoundError: there is none.
    """
    path = Path(path)
    if Path(f"{path}.index").exists():
        return str(path)
    latest = None
    if path.is_dir():
        latest = tf.train.latest_checkpoint(str(path)) if _has_list(path) else None
        latest = latest or (_written(path) or [None])[-1]
    if latest is None:
        raise FileNotFoundError(
            f"no checkpoint at {path}: expected a run directory with '{CHECKPOINT_PREFIX}-STEP"
            ".index' files, its 'best' directory, or the prefix of one checkpoint."
        )
    return latest


def _has_list(directory: Path) -> bool:
    """Whether the file `checkpoint`, TensorFlow's list, names a checkpoint that is there."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:  # Empty after a crash of the machine, or edited.
        return False
    names = {Path(path).name for path in _written(directory)}
    return state is not None and Path(state.model_checkpoint_path).name in names


def _written(directory: Path) -> list[str]:
    """Prefixes of the checkpoints in a directory whose files are there, by step."""
    steps = {}
    for index in directory.glob(f"{CHECKPOINT_PREFIX}-*.index"):
        step = index.stem.removeprefix(f"{CHECKPOINT_PREFIX}-")
        if step.isdigit() and any(directory.glob(f"{index.stem}.data-*")):
            steps[int(step)] = str(index.with_suffix(""))
    return [steps[step] for step in sorted(steps)]


def _mend_list(directory: Path) -> None:
    """Write the list of checkpoints anew where it is lost: a run must not begin again for that."""
    paths = _written(directory)
    if _has_list(directory) or not (paths or (directory / "checkpoint").exists()):
        return
    (directory / "checkpoint").unlink(missing_ok=True)
    if paths:
        times = [os.path.getmtime(f"{path}.index") for path in paths]
        tf.compat.v1.train.update_checkpoint_state(
            str(directory), paths[-1], paths, all_model_checkpoint_timestamps=times
        )


def _mend_best(directory: Path) -> None:
    """Puts the best checkpoint back where a kill came between the two renames of its exchange."""
    if (directory / _OLD_BEST).exists() and not (directory / BEST_DIR).exists():
        # The new one was complete before the old one was moved away.
        (directory / _NEW_BEST).rename(directory / BEST_DIR)
    for leftover in (_NEW_BEST, _OLD_BEST):
        shutil.rmtree(directory / leftover, ignore_errors=True)


def _is_damage(error: Exception) -> bool:
    """Tell files that cannot be read from a checkpoint of something else."""
    return bool(re.search(r"bytes than requested|sstable|No such file|[Cc]hecksum", str(error)))


def damaged(path: str, error: Exception) -> ValueError:
    """Returns the error to raise for files that cannot be read.

    Args:
      path: prefix of the checkpoint's files.
      error: of TensorFlow.
    """
    directory, name = Path(path).parent, Path(path).name
    others = [Path(other).name for other in _written(directory) if Path(other).name != name]
    advice = (
        f"Download or copy {name}.* there again, whole; in a run without another checkpoint remove "
        "them, and it begins anew."
    )
    if others:
        advice = f"Remove the files {name}.* of {directory}; {others[-1]} is used then."
    elif directory.name == BEST_DIR:
        advice = f"Remove {directory}; the run's latest checkpoint is used then."
    return ValueError(f"checkpoint {path} is damaged: {_first_line(error)}. {advice}")


def named_weights(detector: tf.Module) -> dict[str, tf.Variable]:
    """Names all weights and moving statistics, such as `stem_conv/kernel`.

    Checkpoints are keyed by these names and not by the attributes of Python objects, so that a
    change of the code does not orphan them.

    Raises:
      ValueError: two variables share a name.
    """
    weights: dict[str, tf.Variable] = {}
    for variable in detector.variables:
        name = variable.name.removesuffix(":0")
        if name in weights:
            raise ValueError(f"two variables are named {name!r}; name the layers differently.")
        weights[name] = variable
    return weights


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300]
