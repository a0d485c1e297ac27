"""What a recipe says about a training: the one place that its settings are read from.

`train` runs what this says; every command that promises to do "as `train` does" (show_inputs,
show_anchors, make_static, benchmark, doctor, `training_data` for `fit`) asks the same object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import gin
import tensorflow as tf

from ssd_centernet.building import build_detector, check_normalization
from ssd_centernet.config import expectations as may_be
from ssd_centernet.config.contradictions import refuse_contradictions
from ssd_centernet.data.augment.compose import Composition, composed
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.mixture import (
    DataDir,
    Mixture,
    folders_of,
    merged_label_map,
    training_source,
)
from ssd_centernet.data.notes import training_notes
from ssd_centernet.data.pipeline import evaluation_batches, resize_only, training_batches
from ssd_centernet.data.shards import RecordSource
from ssd_centernet.evaluation.detector import fitting_batch_size
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.normalization import synchronize, warm_up_averages
from ssd_centernet.models.detector import Detector
from ssd_centernet.runtime.distribution import Communicator, SingleProcess, connect
from ssd_centernet.runtime.precision import needs_loss_scale
from ssd_centernet.training.length import LOSS_PREFIX, LoopOptions, RunLength, intervals, run_length
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate
from ssd_centernet.training.trainer import Trainer


@gin.configurable("train")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold the settings of a training, and make the parts that they describe.

    In gin these are the parameters of `train`: `train.batch_size = 8`. `Recipe()` takes what the
    parsed gin files bind, and the defaults below.

    Attributes:
        batch_size: images per step of this process.
        steps: length of the run in steps; wins over `epochs`. Of gin's settings the later one wins.
        epochs: length of the run in passes over the training images.
        optimizer: constructor of a Keras optimizer.
        schedule: constructor of a learning-rate schedule, see `training/schedules.py`.
        batches: `training_batches` or a function like it; bind `@training_batches` to set options.
        compose: steps on whole pictures before `augment`: `Mosaic` or a tuple of them in order.
        augment: chain of `data/augment/`; None resizes and normalises only.
        augment_on: who makes its pixels: "host", the input pipeline, or "device", the step.
        weight_decay: coefficient of the L2 objective.
        decay_exclude: regular expressions of variable names that do not decay.
        freeze: regular expressions of variable names that are not updated.
        freeze_random: what becomes of them where no checkpoint sets them: True holds them at their
            random values, False trains them, None is an error.
        layer_rates: pattern of variable names -> share of the rate at which they learn, such as
            {'stem_': 0.1, 'group': 0.3}; the first that matches counts.
        clip_norm: largest global norm of the gradients.
        ema_decay: decay of an average of the weights, which is evaluated, exported and kept in
            best/, such as 0.9998; None for no average.
        jit_compile: whether XLA compiles the step, of one process.
        resume_from: a run or checkpoint of this library that a fresh run directory goes on from, as
            if the run had always been there; wins over `fine_tune_checkpoint`.
        loss_scale: constructor of the factor that float16 alone needs, such as `@LossScale`.
        fine_tune_checkpoint: weights that a fresh run begins with: a run directory of this library,
            a published checkpoint (docs/training.md lists what can be read), or the name of
            published weights, which are fetched (docs/weights.md).
        fine_tune_checkpoint_type: "classification" takes the backbone, "detection" also neck and
            head but for classes that it does not know, "full" everything; None: what it holds.
        fine_tune_exclude: regular expressions of variable names that begin fresh all the same.
        fine_tune_channels: "RGB" or "BGR", the order that the checkpoint's first convolution reads,
            where it is not that of its format.
        published_weights: what the publisher of the recipe begins with, a name of docs/weights.md;
            a run that is given no weights says so.
        keep_empty: whether images without objects are trained on.
        crowd: what the pipeline does with crowd regions: "object", "drop" or "ignore".
        data_weights: share of each of several data directories in an epoch; None takes all once.
        repeat_threshold: share of the images below which a class is rare: images with it come
            max(1, sqrt(repeat_threshold / share)) times in an epoch; None repeats none.
        train_split: prefix of the training shards; of several folders with other names one each,
            with commas between them.
        eval_split: prefix of the evaluation shards; of a recipe, coco_val is the split val of the
            data set that is trained on, whatever its name; None for no evaluation.
        eval_batch_size: images per step of the evaluation; None means batch_size.
        targets_in_pipeline: whether the input pipeline matches anchors, on the CPU, or the step.
        log_every: interval of log lines, in steps or as "2 epochs".
        checkpoint_every: interval of checkpoints.
        evaluate_every: interval of evaluations; 0 for none.
        keep_checkpoints: how many stay.
        keep_best: metric that decides what is kept in best/; None for nothing.
        early_stop_patience: evaluations without a better result before the run stops.
        recovery: whether a loss that is not finite lets the run go back to its last checkpoint,
            once, with half of the learning rate; else it ends.
        pictures: images that TensorBoard and pictures/ show: as they are fed, when a run begins,
            and with the predictions of every evaluation; 0 for none.
        profile: (first, last) step to trace for TensorBoard, counted from 0 where this call begins.
        use_performance: whether the speed is written to summary/summary.json at the end.
        tracker: 'mlflow' or 'wandb', which gets the numbers of the log too; None for neither.
        seed: of initial weights, shuffling and augmentation.
        device: auto, cpu, gpu, tpu, hpu, mlu or npu.
        use_horovod: whether this is one of several processes that train one model.
        gradient_compression: "fp16" sends gradients between processes in half precision.
        accumulate_steps: batches whose gradients are averaged for one update.
        sync_batch_norm: True takes batch statistics over all processes, a number over such groups.

    Raises:
        ValueError: a setting is of another kind than it can be, or two do not fit each other; names
            the value got and what was expected.
    """

    batch_size: Annotated[int, may_be.COUNT] = 32
    steps: Annotated[int | None, may_be.ABOVE_ZERO] = None
    epochs: Annotated[float | None, may_be.ABOVE_ZERO] = None
    optimizer: Annotated[Callable, may_be.constructor("Adam")] = Momentum
    schedule: Annotated[Callable, may_be.constructor("ConstantRate")] = ConstantRate
    batches: Annotated[Callable, may_be.constructor("training_batches")] = training_batches
    compose: Annotated[Any | None, may_be.PICTURE_STEPS] = None
    augment: Annotated[Callable | None, may_be.CHAIN] = None
    augment_on: Annotated[str, may_be.one_of("host", "device")] = "host"
    weight_decay: Annotated[float, may_be.FACTOR] = 0.0
    decay_exclude: Annotated[Sequence[str], may_be.PATTERNS] = ("_norm/",)
    freeze: Annotated[Sequence[str], may_be.PATTERNS] = ()
    freeze_random: Annotated[bool | None, may_be.SWITCH] = None
    layer_rates: Annotated[Mapping[str, float] | None, may_be.FACTORS] = None
    clip_norm: Annotated[float | None, may_be.ABOVE_ZERO] = None
    ema_decay: Annotated[float | None, may_be.BELOW_ONE] = None
    jit_compile: Annotated[bool, may_be.SWITCH] = False
    resume_from: Annotated[str | None, may_be.PATH] = None
    loss_scale: Annotated[Callable, may_be.constructor("LossScale")] = LossScale
    fine_tune_checkpoint: Annotated[str | None, may_be.PATH] = None
    fine_tune_checkpoint_type: str | None = None
    fine_tune_exclude: Annotated[Sequence[str], may_be.PATTERNS] = ()
    fine_tune_channels: str | None = None
    published_weights: Annotated[str | None, may_be.TEXT] = None
    keep_empty: Annotated[bool, may_be.SWITCH] = False
    crowd: str = "object"
    data_weights: Annotated[Sequence[float] | None, may_be.WEIGHTS] = None
    repeat_threshold: Annotated[float | None, may_be.ABOVE_ZERO] = None
    train_split: Annotated[str, may_be.TEXT] = "coco_train"
    eval_split: Annotated[str | None, may_be.TEXT] = "coco_val"
    eval_batch_size: Annotated[int | None, may_be.COUNT] = None
    targets_in_pipeline: Annotated[bool, may_be.SWITCH] = True
    log_every: Annotated[int | str, may_be.DURATION] = 100
    checkpoint_every: Annotated[int | str, may_be.DURATION] = "1 epoch"
    evaluate_every: Annotated[int | str, may_be.DURATION] = "5 epochs"
    keep_checkpoints: Annotated[int, may_be.COUNT] = 5
    keep_best: Annotated[str | None, may_be.TEXT] = "AP"
    early_stop_patience: Annotated[int | None, may_be.COUNT] = None
    recovery: Annotated[bool, may_be.SWITCH] = False
    pictures: Annotated[int, may_be.COUNT_OR_ZERO] = 4
    profile: Sequence[int] | None = None
    use_performance: Annotated[bool, may_be.SWITCH] = False
    tracker: Annotated[str | None, may_be.one_of("mlflow", "wandb")] = None
    seed: Annotated[int, may_be.SEED] = 0
    device: str = "auto"
    use_horovod: Annotated[bool, may_be.SWITCH] = False
    gradient_compression: Annotated[str, may_be.one_of("none", "fp16")] = "none"
    accumulate_steps: Annotated[int, may_be.COUNT] = 1
    sync_batch_norm: Annotated[bool | int, may_be.PROCESS_GROUP] = False

    def __post_init__(self):
        """Refuse what would fail, or mean something else, after hours of training."""
        may_be.check(self, prefix="train")
        refuse_contradictions(self)

    def replace(self, **settings: Any) -> Recipe:
        """Return the recipe with other values for some settings."""
        return dataclasses.replace(self, **settings)

    @property
    def begins_restored(self) -> bool:
        """Tell whether a run begins with the weights of a checkpoint."""
        return bool(self.fine_tune_checkpoint or self.resume_from)

    def connect(self) -> Communicator:
        """Find the processes that train together; before TensorFlow touches a device."""
        group = None if self.sync_batch_norm in (False, True) else self.sync_batch_norm
        return connect(self.use_horovod, compression=self.gradient_compression, group_size=group)

    def detector(self, label_map: LabelMap | None = None, **classes: int) -> Detector:
        """Build the detector, with fresh weights.

        Args:
            label_map: of the data.
            **classes: `num_classes` or `default_num_classes` of `build_detector`.
        """
        return build_detector(label_map=label_map, **classes)

    def count_images(self, data_dir: DataDir) -> int:
        """Count the images of an epoch over all processes."""
        return self._source(data_dir).count()

    def _source(self, data_dir: DataDir) -> RecordSource | Mixture:
        choice = self.train_split, 0, 1, self.keep_empty, self.crowd
        return training_source(data_dir, *choice, **self._mixed())

    def rendering(self) -> DeviceRendering | None:
        """Return what takes the chain apart, where the device makes the pixels."""
        return DeviceRendering(self.augment) if self.augment_on == "device" else None

    def _mixed(self) -> dict[str, Any]:
        """Return the settings that only a mixture has: other functions may not know them."""
        mixed = {"data_weights": self.data_weights, "repeat_threshold": self.repeat_threshold}
        return {name: value for name, value in mixed.items() if value is not None}

    def notes(self, detector: Detector, data_dir: DataDir, batches: tf.data.Dataset) -> list[str]:
        """Say what of the training split is left out, or taken although it looks odd, with counts.

        Args:
            detector: what is trained.
            data_dir: directory that `ssd_centernet convert` wrote.
            batches: of `training_batches`.

        Returns:
            A sentence each; nothing where all is used.
        """
        rows = batches.element_spec["boxes"].shape[1]
        limit, source = detector.object_limit(), self._source(data_dir)
        before = detector.pipeline_targets(self.targets_in_pipeline) is not None
        return training_notes(source, rows, limit, before, self.compose)

    def length(self, images: int, *, processes: int = 1) -> RunLength:
        """Work out how long a run is.

        Args:
            images: of an epoch over all processes, see `count_images`.
            processes: that train together.

        Raises:
            ValueError: no length is set, or there is no image.
        """
        batch_size = self.batch_size * self.accumulate_steps * processes
        return run_length(images, batch_size, steps=self.steps, epochs=self.epochs)

    def loop_options(self, length: RunLength) -> LoopOptions:
        """Say in steps when the loop logs, saves, evaluates and stops."""
        return LoopOptions(
            total_steps=length.total_steps,
            **intervals(self, length),
            keep_best=self.keep_best,
            higher_is_better=not str(self.keep_best).startswith(LOSS_PREFIX),
            early_stop_patience=self.early_stop_patience,
            recovery=self.recovery,
        )

    def training_batches(
        self,
        detector: Detector,
        data_dir: DataDir,
        *,
        label_map: LabelMap | None = None,
        rank: int = 0,
        world_size: int = 1,
        start_example: int = 0,
        for_step: bool = False,
        **options: Any,
    ) -> tf.data.Dataset:
        """Make the endless batches that a training with this recipe is fed.

        Args:
            detector: what is trained: its input's size, its normalisation, its targets.
            data_dir: directory that `ssd_centernet convert` wrote, or several.
            label_map: of the data; None reads it.
            rank: number of this process.
            world_size: number of processes.
            start_example: images of this process that were already consumed.
            for_step: whether the step may make the pixels (`augment_on`); all others get images.
            **options: of `batches` that are no settings of a recipe, such as `cache`.

        Returns:
            Batches as `data.pipeline.training_batches` describes them.

        Raises:
            FileNotFoundError: no such data.
            ValueError: settings that do not fit the data or the detector.
        """
        chain = self.augment or resize_only(detector.preprocessing)
        check_normalization(chain, detector)
        rendering = self.rendering() if for_step else None
        if rendering:
            shown = Composition(self.compose, image_size=detector.image_size)
            rendering.check_fit(shown.largest_canvas(self._source(data_dir).largest_picture()))
        folders = folders_of(data_dir)
        return self.batches(
            folders[0] if len(folders) == 1 else folders,
            image_size=detector.image_size,
            split=self.train_split,
            label_map=label_map or merged_label_map(folders)[0],
            batch_size=self.batch_size,
            augment=rendering.ship if rendering else chain,
            make_targets=detector.pipeline_targets(self.targets_in_pipeline),
            keep_empty=self.keep_empty,
            crowd=self.crowd,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            start_example=start_example,
            **self._mixed(),
            **composed(self, data_dir, processes=world_size),
            **options,
        )

    def evaluation_batches(
        self,
        detector: Detector,
        data_dir: str | Path,
        *,
        images: int,
        label_map: LabelMap | None = None,
        communicator: Communicator | None = None,
    ) -> tf.data.Dataset:
        """Make the batches of one pass over the evaluation split.

        Args:
            detector: whose preprocessing the images go through.
            data_dir: directory that `ssd_centernet convert` wrote.
            images: of the split; a split that is smaller than a batch makes the batch smaller.
            label_map: of the data; None reads it.
            communicator: connects the processes that evaluate together.

        Returns:
            Batches as `data.pipeline.evaluation_batches` describes them.

        Raises:
            FileNotFoundError: no such data.
        """
        communicator = communicator or SingleProcess()
        wanted = self.eval_batch_size or self.batch_size
        return evaluation_batches(
            str(data_dir),
            split=self.eval_split,
            label_map=label_map or load_label_map(data_dir),
            batch_size=fitting_batch_size(wanted, images, communicator.size),
            preprocess=detector.preprocessing,
            make_targets=detector.pipeline_targets(self.targets_in_pipeline),
            rank=communicator.rank,
            world_size=communicator.size,
        )

    def trainer(
        self,
        detector: Detector,
        length: RunLength,
        *,
        communicator: Communicator | None = None,
        fits_length: bool = True,
    ) -> Trainer:
        """Build the step with its optimizer, schedule and state; in the scope of its device.

        Args:
            detector: what is trained; its batch norms are joined where `sync_batch_norm` says so.
            length: of the run.
            communicator: connects the processes that train together.
            fits_length: whether schedule and averages follow the length of the run; not in a run
                that began when they did not.

        Returns:
            The trainer at step 0.
        """
        communicator, rendering = communicator or SingleProcess(), self.rendering()
        if self.sync_batch_norm and communicator.size > 1:
            synchronize(detector, communicator.mean_of_group, communicator.group_size)
        # Built under every precision, so that its settings count as used where it has no effect.
        scale, schedule = self.loss_scale(), self.schedule()
        if not fits_length and getattr(schedule, "span_run", False) is None:
            schedule.span_run = False
        trainer = Trainer(
            detector,
            self.optimizer(),
            schedule=schedule,
            length=length,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            decay_exclude=self.decay_exclude,
            freeze=() if self.freeze_random is False and not self.begins_restored else self.freeze,
            layer_rates=self.layer_rates,
            clip_norm=self.clip_norm,
            loss_scale=scale if needs_loss_scale(detector.dtype_policy.name) else None,
            accumulate_steps=self.accumulate_steps,
            ema_decay=self.ema_decay,
            jit_compile=self.jit_compile,
            render=rendering and rendering.render,
            communicator=communicator,
        )
        if fits_length:
            warm_up_averages(detector, lambda: trainer.step, length.total_steps)
        return trainer
