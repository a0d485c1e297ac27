"""Train a recipe: from its settings to a run directory, in the order of execution."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from ssd_centernet import __version__, config, run_directory
from ssd_centernet._keras import keras, keras_version
from ssd_centernet.config.text import bindings_of
from ssd_centernet.data import shards
from ssd_centernet.data.mixture import DataDir, folders_of, merged_label_map
from ssd_centernet.data_service.records import absolute_folders
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.detector import split_ground_truth
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.plain_text import counted
from ssd_centernet.preview.anchor_report import warn_of_forced_matches
from ssd_centernet.recipe import Recipe
from ssd_centernet.runs import beginning
from ssd_centernet.runs.changed_settings import describe_changes, saved_settings
from ssd_centernet.runs.lock import run_lock
from ssd_centernet.runs.settings import RunSettings
from ssd_centernet.runs.splits import describe_splits, settle_splits
from ssd_centernet.runs.teaching import open_teacher
from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.engine import Engine
from ssd_centernet.training.checkpoints import MisfitError, RunCheckpoints
from ssd_centernet.training.image_sizes import in_words
from ssd_centernet.training.length import RunLength
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.loop import TrainLoop
from ssd_centernet.training.observers import make_observers
from ssd_centernet.training.pictures import PictureBoard
from ssd_centernet.training.split_evaluation import SplitEvaluation
from ssd_centernet.training.statistics import EarlyStatistics, describe_averages
from ssd_centernet.training.step_input import StepInput, open_feed
from ssd_centernet.training.tracking import start_tracking
from ssd_centernet.training.trainer import Trainer
from ssd_centernet.weights import restore


def train(
    model_dir: str | Path,
    data_dir: DataDir,
    recipe: Recipe | None = None,
    *,
    prepare: Callable[[str, str | None, Callable[[str], None]], None] | None = None,
    sized: Callable[[Communicator], tuple[Recipe, str]] | None = None,
    data_service: Sequence[str] = (),
) -> str:
    """Train a recipe; go on where `model_dir` holds a checkpoint.

    Args:
        model_dir: directory of the run; `run_directory.py` lists what it gets.
        data_dir: directory that `ssd_centernet convert` wrote, or several, which are mixed; the
            first one is evaluated on.
        recipe: the settings; None takes those that gin has parsed.
        prepare: writes `data_dir`, where it is not there yet: called by the first process with the
            split to train on, that to evaluate on or None, and a function that prints; the others
            wait.
        sized: finds the batch size of a new run, once the data is there: called by every process,
            it returns the recipe with the size and a sentence that says why.
        data_service: addresses of workers (`ssd_centernet data_worker`) that make the batches of
            the steps in the place of this process; the batches are the same.

    Returns:
        Why the run ended: "finished", "stopped early" or the name of a signal.

    Raises:
        ValueError: settings that do not fit each other or the data; see the message.
        NonFiniteLossError: a loss was not finite.
        BlockingIOError: another process trains in `model_dir`.
        Stopped: a signal came before a step was done (a KeyboardInterrupt): nothing is to be saved.
        LostProcessError: another process of the run ended, stopped or cannot be reached.
    """
    recipe = recipe or Recipe()
    engine = recipe.start_engine()
    communicator, strategy = engine.communicator, engine.strategy
    if prepare is not None:
        if communicator.is_chief:
            prepare(recipe.train_split, recipe.eval_split, functools.partial(print, flush=True))
        communicator.barrier()
    if data_service:  # Which look for it in folders of their own.
        data_dir = absolute_folders(data_dir)
    recipe, why_size = (recipe, None) if sized is None else sized(communicator)
    recipe = settle_splits(recipe, data_dir, model_dir=model_dir)
    label_map, of_labels = merged_label_map(data_dir)
    for earlier in filter(None, (model_dir, recipe.resume_from)):
        run_directory.check_classes(earlier, label_map)
    images = recipe.count_images(data_dir)
    length = recipe.length(images, processes=communicator.size)
    options = recipe.loop_options(length)
    earlier = filter(None, (model_dir, recipe.resume_from))
    fits = not any(map(beginning.began_without, earlier))
    trainer, taught_by = _build(recipe, length, label_map, engine, fits)
    with run_lock(model_dir, needed=communicator.is_chief):
        checkpoints = RunCheckpoints(
            trainer, model_dir, seed=recipe.seed, keep=recipe.keep_checkpoints
        )
        log = TrainLog(model_dir, length, write_files=communicator.is_chief)
        first = [why_size, taught_by, *(f"note: {one}" for one in checkpoints.notes)]
        for note in filter(None, first):
            log.say(note)
        resumed = _begin(recipe, checkpoints, log)
        begin_at = functools.partial(
            recipe.training_batches,
            trainer.detector,
            data_dir,
            label_map=label_map,
            rank=communicator.rank,
            world_size=communicator.size,
        )
        batches = begin_at(start_example=trainer.position)
        # All that the run uses is built: a setting that nothing asked for is a mistake.
        config.assert_all_used()
        folders = folders_of(data_dir)
        settings = RunSettings(model_dir, label_map, recipe, folders=folders, resumed=resumed)
        board = PictureBoard(log, label_map, number=recipe.pictures)
        evaluation = None
        if options.evaluate_every:
            evaluation = _evaluation(recipe, trainer, log, board, label_map, data_dir)
        notes = [*of_labels, *settings.other_data()]
        notes += recipe.notes(trainer.detector, data_dir, batches)
        _announce(recipe, trainer, log, images, folders, bool(evaluation), notes)
        observers = make_observers(
            model_dir, trainer, log.say, recipe.profile, recipe.use_performance
        )
        splits = [*recipe.train_split.split(","), *([recipe.eval_split] if evaluation else [])]
        feed = open_feed(recipe.batches, data_service, log.say, data_dir, recipe.train_split)
        first = batches if recipe.augment_on == "host" else None
        fed = StepInput(begin_at, trainer, strategy, feed, first)
        try:
            with shards.failures_named(data_dir, splits):
                board.show_inputs(trainer, batches)
                differences = _record(settings, recipe, trainer, log, resumed, images, fits)
                return TrainLoop(
                    trainer,
                    fed,
                    options=options,
                    checkpoints=checkpoints,
                    log=log,
                    evaluate=evaluation,
                    settled=_evaluated_state(trainer, begin_at, log.say),
                    strategy=strategy,
                    observers=observers,
                    begins=functools.partial(settings.save, log.say),
                    differences=differences,
                ).run()
        finally:
            fed.close()
            checkpoints.finish()
            log.close()


def _build(
    recipe: Recipe,
    length: RunLength,
    label_map: LabelMap,
    engine: Engine,
    fits_length: bool,
) -> tuple[Trainer, str | None]:
    """Build detector and trainer; return the trainer and a line on its teacher, if any."""
    # Before the seed: a teacher's weights are drawn too, and then read.
    teacher = open_teacher(recipe, engine)
    keras.utils.set_random_seed(recipe.seed)
    with engine.scope():
        trainer = recipe.trainer(
            recipe.detector(label_map),
            length,
            communicator=engine.communicator,
            fits_length=fits_length,
            teacher=teacher and teacher.detector,
        )
    return trainer, teacher and f"teacher: {teacher.checkpoint}"


def _begin(recipe: Recipe, checkpoints: RunCheckpoints, log: TrainLog) -> str | None:
    """Give all processes the state that the run begins with; see `_find_beginning`."""
    resumed = None
    if checkpoints.trainer.communicator.is_chief:
        resumed = _find_beginning(recipe, checkpoints, log)
    checkpoints.trainer.communicator.broadcast(checkpoints.trainer.state)
    return resumed


def _find_beginning(recipe: Recipe, checkpoints: RunCheckpoints, log: TrainLog) -> str | None:
    """Resume, or begin with given weights, or from scratch, in this order.

    Returns:
        Prefix of the checkpoint that was resumed.
    """
    resumed = _resume(checkpoints)
    if resumed is None and recipe.resume_from:
        resumed = _resume(checkpoints, run_directory.find_checkpoint(recipe.resume_from))
    if resumed is not None:
        step = int(checkpoints.trainer.step)
        log.resume_at(step)
        log.say(f"resuming from {resumed} at step {step}")
        if checkpoints.change:
            log.say(f"note: {checkpoints.change}")
    elif recipe.fine_tune_checkpoint:
        table = restore(
            checkpoints.trainer.detector,
            recipe.fine_tune_checkpoint,
            kind=recipe.fine_tune_checkpoint_type,
            exclude=recipe.fine_tune_exclude,
            channels=recipe.fine_tune_channels,
            say=log.say,
        )
        if checkpoints.trainer.average is not None:
            checkpoints.trainer.average.restart()
        _check_frozen(recipe, checkpoints.trainer.detector, table.fresh)
        log.say(table.report())
        log.keep(run_directory.INITIAL_WEIGHTS_NAME, str(table))
    else:
        _check_frozen(recipe, checkpoints.trainer.detector, None)
        log.say(beginning.from_random(recipe.published_weights))
        if recipe.freeze and recipe.freeze_random:
            log.say(f"note: train.freeze = {tuple(recipe.freeze)} holds layers at random weights")
    return resumed


def _resume(checkpoints: RunCheckpoints, path: str | None = None) -> str | None:
    """Resume a checkpoint; where it does not fit, say which settings are other than its run's."""
    try:
        return checkpoints.resume(path)
    except MisfitError as error:
        before = saved_settings(path or checkpoints.model_dir)
        after = bindings_of(config.operative_config())
        # Of the recipe, whatever the data are; the split that is trained on is told elsewhere.
        after.pop("train.train_split", None)
        changed = describe_changes(before, after)
        if changed:
            _, lines = changed.split("\n", maxsplit=1)
            raise ValueError(f"{error} Other than when it was trained:\n{lines}") from error
        raise


def _check_frozen(recipe: Recipe, detector: Detector, fresh: Sequence[str] | None) -> None:
    beginning.check_frozen(
        detector,
        fresh,
        freeze=recipe.freeze,
        allowed=recipe.freeze_random is not None,
        published=recipe.published_weights,
    )


def _evaluated_state(trainer: Trainer, begin_at: Callable, say: Callable) -> Callable:
    """Join what opens the state that is evaluated: averages of the weights, then statistics."""
    statistics = EarlyStatistics(trainer, functools.partial(begin_at, one_size=True), say)
    if trainer.average is None:
        return statistics

    @contextlib.contextmanager
    def averaged() -> Iterator[None]:
        with trainer.average.in_use(), statistics():
            yield

    return averaged


def _evaluation(
    recipe: Recipe,
    trainer: Trainer,
    log: TrainLog,
    board: PictureBoard,
    label_map: LabelMap,
    data_dir: DataDir,
) -> SplitEvaluation:
    """Read the evaluation split of the first data set once, for all evaluations of the run."""
    data_dir = folders_of(data_dir)[0]
    try:
        ground_truth = split_ground_truth(data_dir, recipe.eval_split, label_map)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no data to evaluate on: {error} Or train without evaluations: --mode=train."
        ) from error
    batches = recipe.evaluation_batches(
        trainer.detector,
        data_dir,
        images=ground_truth.num_images,
        label_map=label_map,
        communicator=trainer.communicator,
    )
    pictured = functools.partial(board.show_predictions, data_dir=data_dir, split=recipe.eval_split)
    evaluator = CocoEvaluator(ground_truth, category_ids=label_map.ids)
    options = {"show": pictured, "split": recipe.eval_split}
    return SplitEvaluation(trainer, log, evaluator, batches, **options)


def _of_anchors(recipe: Recipe, trainer: Trainer, data_dir: str) -> list[str]:
    """Say before the first step whether many objects are matched by force."""
    if int(trainer.step) or not trainer.communicator.is_chief:
        return []
    split = recipe.train_split.split(",")[0]
    crowd = {"split": split, "crowd": recipe.crowd}
    with tf.device("CPU:0"):
        note = warn_of_forced_matches(trainer.detector, data_dir, **crowd)
    return [note] if note else []


def _record(
    settings: RunSettings,
    recipe: Recipe,
    trainer: Trainer,
    log: TrainLog,
    resumed: str | None,
    images: int,
    fits_length: bool,
) -> str | None:
    """Record that a process begins; return what is other than in the run, to every process.

    Until then a mistake leaves nothing behind that looks like a run.
    """
    if trainer.communicator.is_chief and recipe.tracker is not None:
        log.follow(start_tracking(recipe.tracker, settings.model_dir, settings.bindings))
    at_end = int(trainer.step) >= trainer.length.total_steps
    facts = {
        **dataclasses.asdict(trainer.length),
        "images": images,
        "processes": trainer.communicator.size,
        "devices": trainer.communicator.replicas,
        "fits_length": fits_length,
        "device": _device_of(trainer),
        "precision": trainer.detector.dtype_policy.name,
        "versions": {
            "ssd_centernet": __version__,
            "tensorflow": tf.__version__,
            "keras": keras_version(),
            "python": platform.python_version(),
        },
    }
    log.session("begin", int(trainer.step), **settings.facts(at_end, facts))
    if trainer.communicator.is_chief and resumed:
        settings.save_missing()
    differences = settings.differences() if trainer.communicator.is_chief else None
    return trainer.communicator.gather([differences])[0]


def _announce(
    recipe: Recipe,
    trainer: Trainer,
    log: TrainLog,
    images: int,
    folders: Sequence[str],
    is_evaluated: bool,
    notes: Sequence[str],
) -> None:
    """Tell what kind of run begins, whether its schedule fits, and what is odd."""
    length, processes = trainer.length, trainer.communicator.size
    for line in describe_splits(recipe, folders, is_evaluated):
        log.say(line)
    # A schedule of the user's own need not know how to describe itself.
    misfit = trainer.schedule.describe(length) if hasattr(trainer.schedule, "describe") else None
    if misfit:
        log.say(misfit)
    if warmed_up := describe_averages(trainer.detector):
        log.say(warmed_up)
    if recipe.image_sizes is not None:
        log.say(f"each update has images of {in_words(recipe.image_sizes)} pixels, as it is drawn")
    devices = trainer.communicator.replicas
    if recipe.sync_batch_norm and processes * devices == 1:
        log.say("note: train.sync_batch_norm (--distributed_bn) has no effect on one process")
    if length.global_batch_size > images:
        log.say(
            f"note: a step takes {counted(length.global_batch_size, 'image')}, and there are "
            f"{images}: it takes some of them several times. --batch_size sets a smaller batch"
        )
    asked = f"epochs = {recipe.epochs}" if recipe.steps is None else f"steps = {recipe.steps}"
    log.say(
        f"{counted(images, 'training image')}, {counted(length.steps_per_epoch, 'step')} an epoch, "
        f"{counted(length.total_steps, 'step')} in all (train.{asked}), "
        f"batch {length.global_batch_size}, "
        + (f"{processes} processes, " if processes > 1 else "")
        + (f"shared by {devices} devices, " if devices > 1 else "")
        + f"{len(trainer.train_variables)} variables to train on {_device_of(trainer)}"
    )
    for note in [*notes, *_of_anchors(recipe, trainer, folders[0])]:
        log.say(f"note: {note}")


def _device_of(trainer: Trainer) -> str:
    """Return where the weights are, such as 'CPU:0'."""
    return trainer.train_variables[0].device.rpartition("device:")[2]


if __name__ == "__main__":
    raise SystemExit("This is a module of the library. The command: python -m ssd_centernet train")
