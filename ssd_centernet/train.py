"""The root of training: from a configured recipe to a trained run directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet import __version__, config, run_directory
from ssd_centernet._keras import keras, keras_version
from ssd_centernet.building import build_detector
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import count_examples, training_batches
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.normalization import synchronize
from ssd_centernet.models.detector import Detector
from ssd_centernet.preview.fed_images import resize_only
from ssd_centernet.runs.lock import run_lock
from ssd_centernet.runtime.device import (
    claim_device,
    prefetch_to_device,
    refuse_shared_devices,
    select_device,
)
from ssd_centernet.runtime.distribution import connect
from ssd_centernet.runtime.precision import needs_loss_scale
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.loop import LOSS_PREFIX, LoopOptions, TrainLoop
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.observers import make_observers
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.pictures import PictureBoard
from ssd_centernet.training.schedules import ConstantRate, RunLength
from ssd_centernet.training.settings import check_settings
from ssd_centernet.training.split_evaluation import SplitEvaluation
from ssd_centernet.training.trainer import Trainer
from ssd_centernet.weights import restore


def to_steps(length: int | str, steps_per_epoch: int, *, setting: str = "a duration") -> int:
    """Convert a duration to steps.

    Args:
        length: a number of steps, or text such as "500 steps", "2.5 epochs".
        steps_per_epoch: length of an epoch.
        setting: what is set to it, for the message.

    Returns:
        Steps, at least 0.

    Raises:
        ValueError: the text is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(steps?|epochs?)?\s*", str(length))
    if not found:
        raise ValueError(
            f"{setting} is {length!r}, expected a number of steps or text such as '500 steps' or "
            "'2.5 epochs'."
        )
    value, unit = float(found[1]), found[2] or "steps"
    return max(1, round(value * steps_per_epoch)) if unit[0] == "e" and value else int(value)


@gin.configurable
def train(
    model_dir: str | Path,
    data_dir: str | Path,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    epochs: float | None = None,
    optimizer: Callable = Momentum,
    schedule: Callable = ConstantRate,
    batches: Callable = training_batches,
    augment: Callable | None = None,
    weight_decay: float = 0.0,
    decay_exclude: Sequence[str] = ("_norm/",),
    freeze: Sequence[str] = (),
    clip_norm: float | None = None,
    resume_from: str | None = None,
    loss_scale: Callable = LossScale,
    fine_tune_checkpoint: str | None = None,
    fine_tune_checkpoint_type: str | None = None,
    fine_tune_exclude: Sequence[str] = (),
    fine_tune_channels: str | None = None,
    keep_empty: bool = False,
    crowd: str = "object",
    train_split: str = "coco_train",
    eval_split: str | None = "coco_val",
    eval_batch_size: int | None = None,
    targets_in_pipeline: bool = True,
    log_every: int | str = 100,
    checkpoint_every: int | str = "1 epoch",
    evaluate_every: int | str = "5 epochs",
    keep_checkpoints: int = 5,
    keep_best: str | None = "AP",
    early_stop_patience: int | None = None,
    pictures: int = 4,
    profile: Sequence[int] | None = None,
    use_performance: bool = False,
    seed: int = 0,
    device: str = "auto",
    use_horovod: bool = False,
    gradient_compression: str = "none",
    accumulate_steps: int = 1,
    sync_batch_norm: bool | int = False,
) -> str:
    """Train the configured detector; goes on by itself where `model_dir` holds a checkpoint.

    Args:
        model_dir: directory of the run: checkpoints, config.gin, metrics.jsonl, events, best/.
        data_dir: directory that `ssd_centernet convert` wrote.
        batch_size: images a step of this process.
        steps: length of the run in steps; wins over `epochs`. Of gin's settings the later one wins.
        epochs: length of the run in passes over the training images.
        optimizer: constructor of a Keras optimizer.
        schedule: constructor of a learning-rate schedule, see `training/schedules.py`.
        batches: `training_batches` or a function like it; bind `@training_batches` to set its
            options, such as `training_batches.shuffle_buffer`.
        augment: chain of `data/augment/`; None resizes and normalises only.
        weight_decay: coefficient of the L2 objective.
        decay_exclude: regular expressions of variable names that do not decay.
        freeze: regular expressions of variable names that are not updated.
        clip_norm: largest global norm of the gradients.
        resume_from: a run or checkpoint of this library that a fresh `model_dir` goes on from, as
            if the run had always been here; wins over `fine_tune_checkpoint`.
        loss_scale: constructor of the factor that float16 needs, without effect in float32 and
            bfloat16; bind `@LossScale` to set its options.
        fine_tune_checkpoint: weights that a fresh run begins with: a run directory of this library,
            or a published checkpoint; docs/training.md lists what can be read.
        fine_tune_checkpoint_type: "classification" takes the backbone, "detection" also neck and
            head but for classes that it does not know, "full" everything; None: what it holds.
        fine_tune_exclude: regular expressions of variable names that begin fresh all the same.
        fine_tune_channels: "RGB" or "BGR", the order that the checkpoint's first convolution reads,
            where it is not that of its format.
        keep_empty: whether images without objects are trained on.
        crowd: what the pipeline does with crowd regions: "object", "drop" or "ignore".
        train_split: prefix of the training shards.
        eval_split: prefix of the evaluation shards; None for no evaluation.
        eval_batch_size: images a step of the evaluation; None means batch_size.
        targets_in_pipeline: whether anchors are matched by the input pipeline (on the CPU, beside
            the device) or in the step.
        log_every: distance of log lines, in steps or as "2 epochs".
        checkpoint_every: distance of checkpoints.
        evaluate_every: distance of evaluations; 0 for none.
        keep_checkpoints: how many stay.
        keep_best: metric that decides what is kept in best/; None for nothing.
        early_stop_patience: evaluations without a better result before the run stops.
        pictures: images that TensorBoard and pictures/ show: as they are fed, when a run begins,
            and with the predictions of every evaluation; 0 for none.
        profile: (first, last) step to trace for TensorBoard, counted from 0 where this call begins.
        use_performance: whether the speed is written to summary/summary.json at the end.
        seed: of initial weights, shuffling and augmentation.
        device: auto, cpu, gpu, tpu, hpu, mlu or npu.
        use_horovod: whether this is one of several processes that train one model.
        gradient_compression: "fp16" sends gradients between processes in half precision.
        accumulate_steps: batches whose gradients are averaged for one update.
        sync_batch_norm: True takes batch statistics over all processes, a number over groups of so
            many consecutive ones.

    Returns:
        Why the run ended: "finished", "stopped early" or the name of a signal.

    Raises:
        ValueError: settings that do not fit each other or the data; see the message.
        NonFiniteLossError: a loss was not finite.
        BlockingIOError: another process trains in `model_dir`.
    """
    check_settings(locals())
    group = None if sync_batch_norm in (False, True) else sync_batch_norm
    communicator = connect(use_horovod, compression=gradient_compression, group_size=group)
    strategy = select_device(device, index=communicator.local_rank)
    refuse_shared_devices(communicator.gather([claim_device(strategy, communicator.local_rank)]))
    label_map = _load_label_map(data_dir, (model_dir, resume_from))
    images = count_examples(data_dir, split=train_split, keep_empty=keep_empty, crowd=crowd)
    global_batch_size = batch_size * accumulate_steps * communicator.size
    run = run_length(images, global_batch_size, steps=steps, epochs=epochs)
    every = functools.partial(to_steps, steps_per_epoch=run.steps_per_epoch)
    options = LoopOptions(
        total_steps=run.total_steps,
        log_every=every(log_every, setting="train.log_every"),
        checkpoint_every=every(checkpoint_every, setting="train.checkpoint_every"),
        evaluate_every=every(evaluate_every, setting="train.evaluate_every") if eval_split else 0,
        keep_best=keep_best,
        higher_is_better=not str(keep_best).startswith(LOSS_PREFIX),
        early_stop_patience=early_stop_patience,
    )
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        detector = build_detector(label_map=label_map)
        if sync_batch_norm and communicator.size > 1:
            synchronize(detector, communicator.mean_of_group, communicator.group_size)
        scale = loss_scale()  # Built under every precision: its settings are no mistake in another.
        trainer = Trainer(
            detector,
            optimizer(),
            schedule=schedule(),
            run=run,
            batch_size=batch_size,
            weight_decay=weight_decay,
            decay_exclude=decay_exclude,
            freeze=freeze,
            clip_norm=clip_norm,
            loss_scale=scale if needs_loss_scale(detector.dtype_policy.name) else None,
            accumulate_steps=accumulate_steps,
            communicator=communicator,
        )
    with run_lock(model_dir, needed=communicator.is_chief):
        checkpoints = RunCheckpoints(trainer, model_dir, seed=seed, keep=keep_checkpoints)
        log = TrainLog(model_dir, run, write_files=communicator.is_chief)
        how = (fine_tune_checkpoint_type, fine_tune_exclude, fine_tune_channels)
        _begin(checkpoints, log, resume_from, fine_tune_checkpoint, *how)
        check_normalization(augment, detector)
        dataset = batches(
            str(data_dir),
            image_size=detector.image_size,
            split=train_split,
            label_map=label_map,
            batch_size=batch_size,
            augment=augment or resize_only(detector),
            make_targets=detector.make_targets if targets_in_pipeline else None,
            keep_empty=keep_empty,
            crowd=crowd,
            seed=seed,
            rank=communicator.rank,
            world_size=communicator.size,
            start_example=int(trainer.examples_seen) // communicator.size,
        )
        # All that the run uses is built: a setting that nothing asked for is a mistake.
        config.assert_all_used()
        _save_settings(Path(model_dir), label_map, needed=communicator.is_chief)
        board = PictureBoard(log, label_map, number=pictures)
        evaluation = SplitEvaluation(trainer, log, board, label_map, data_dir, split=eval_split)
        _announce(log, trainer, images, steps, epochs, data_dir)
        board.show_inputs(trainer, dataset)
        try:
            return TrainLoop(
                trainer,
                prefetch_to_device(dataset, strategy),
                options=options,
                checkpoints=checkpoints,
                log=log,
                evaluate=evaluation.prepare(eval_batch_size or batch_size, options.evaluate_every),
                strategy=strategy,
                observers=make_observers(model_dir, trainer, log.say, profile, use_performance),
            ).run()
        finally:
            log.close()


def _load_label_map(data_dir: str, runs: Sequence[str | None]) -> LabelMap:
    """Load the classes of the data, which must be those of the runs that it goes on with."""
    label_map = load_label_map(data_dir)
    for path in filter(None, runs):
        run_directory.check_classes(path, label_map)
    return label_map


def run_length(
    images: int, global_batch_size: int, *, steps: int | None, epochs: float | None
) -> RunLength:
    """Work out how long a run is.

    Args:
        images: of an epoch over all processes.
        global_batch_size: images a step over all processes.
        steps: wins over `epochs`.
        epochs: passes over the images, whole steps are counted.

    Returns:
        The run's length; an epoch is ceil(images / global batch) steps.

    Raises:
        ValueError: neither length is given, the one that counts is not above 0, or no image.
    """
    if steps is None and epochs is None:
        raise ValueError("how long to train is not set: give --num_steps or --epochs.")
    name, length = ("--num_steps", steps) if steps is not None else ("--epochs", epochs)
    if not 0 < length < math.inf:
        raise ValueError(
            f"{name} is {length}; a run is longer than 0. Leave it out for the recipe's."
        )
    if images < 1:
        raise ValueError(
            "there is no image to train on: the training split is empty, or none of its images has "
            "an object and the recipe leaves such images out. Check the annotations that were "
            "converted, or set train.keep_empty = True to train on images without objects."
        )
    steps_per_epoch = math.ceil(images / global_batch_size)
    total = int(steps) if steps is not None else max(1, round(float(epochs) * steps_per_epoch))
    return RunLength(steps_per_epoch, total, global_batch_size)


def check_normalization(augment: Callable | None, detector: Detector) -> None:
    """Refuse to train on images that are normalised in another way than `detect` will.

    Args:
        augment: chain of `data/augment/`, or None.
        detector: what is trained.

    Raises:
        ValueError: mean or deviation of the augmentation and of the preprocessing differ.
    """
    for name in ("mean", "std", "scale", "channels"):
        trained = getattr(augment, name, None)
        used = getattr(detector.preprocessing, name)
        if trained is not None and not np.array_equal(trained, used):
            raise ValueError(
                f"the augmentation normalises with {name}={trained}, the detector's "
                f"preprocessing with {used}: what is trained must be what is detected with. "
                f"Set {type(augment).__name__}.{name} and Preprocessing.{name} to the same."
            )


def _save_settings(model_dir: Path, label_map: LabelMap, *, needed: bool) -> None:
    """Save what evaluate, predict and export need to build the same detector."""
    if needed:
        config.save_operative(model_dir / run_directory.CONFIG_NAME)
        label_map.to_pbtxt(model_dir / run_directory.LABEL_MAP_NAME)


def _announce(log: TrainLog, trainer: Trainer, images: int, steps, epochs, data_dir) -> None:
    """Tell what kind of run begins, and whether its schedule fits."""
    run, processes = trainer.run, trainer.communicator.size
    log.session(
        "begin",
        int(trainer.step),
        **dataclasses.asdict(run),
        images=images,
        processes=processes,
        device=_device_of(trainer),
        precision=trainer.detector.dtype_policy.name,
        data_dir=os.path.abspath(data_dir),
        versions={
            "ssd_centernet": __version__,
            "tensorflow": tf.__version__,
            "keras": keras_version(),
            "python": platform.python_version(),
        },
    )
    # A schedule of the user's own need not know how to describe itself.
    misfit = trainer.schedule.describe(run) if hasattr(trainer.schedule, "describe") else None
    if misfit:
        log.say(misfit)
    asked = f"train.epochs = {epochs}" if steps is None else f"train.steps = {steps}"
    log.say(
        f"{images} training images, {run.steps_per_epoch} steps an epoch, "
        f"{run.total_steps} steps in all ({asked}), batch {run.global_batch_size}, "
        + (f"{processes} processes, " if processes > 1 else "")
        + f"{len(trainer.train_variables)} variables to train on {_device_of(trainer)}"
    )


def _device_of(trainer: Trainer) -> str:
    """Return where the weights are, such as 'CPU:0'."""
    return trainer.train_variables[0].device.rpartition("device:")[2]


def _begin(
    checkpoints: RunCheckpoints, log: TrainLog, resume_from, path, kind, exclude, channels
) -> None:
    """Give all processes the state that the run begins with."""
    if checkpoints.trainer.communicator.is_chief:
        _find_beginning(checkpoints, log, resume_from, path, kind, exclude, channels)
    checkpoints.trainer.communicator.broadcast(checkpoints.trainer.state)


def _find_beginning(
    checkpoints: RunCheckpoints, log: TrainLog, resume_from, path, kind, exclude, channels
) -> None:
    """Resume, or initialises from given weights, or starts from scratch, in this order."""
    resumed = checkpoints.resume()
    if resumed is None and resume_from:
        resumed = checkpoints.resume(run_directory.find_checkpoint(resume_from))
    if resumed is not None:
        step = int(checkpoints.trainer.step)
        log.resume_at(step)
        log.say(f"resuming from {resumed} at step {step}")
    elif path:
        detector = checkpoints.trainer.detector
        table = restore(detector, path, kind=kind, exclude=exclude, channels=channels)
        log.say(table.report())
        log.keep(run_directory.INITIAL_WEIGHTS_NAME, str(table))
    else:
        log.say("starting from random weights")
