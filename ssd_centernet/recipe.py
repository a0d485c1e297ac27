"""What a recipe says about a training: the one place that its settings are read from.

`train` runs what this says; every command that promises to do "as `train` does" (show_inputs,
show_anchors, make_static, benchmark, doctor, `training_data` for `fit`) asks the same object.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gin
import tensorflow as tf

from ssd_centernet.building import build_detector, check_normalization
from ssd_centernet.data.augment.compose import Composition, composed
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.loading import resize_only
from ssd_centernet.data.mixture import (
    DataDir,
    Mixture,
    folders_of,
    merged_label_map,
    training_source,
)
from ssd_centernet.data.notes import training_notes
from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.data.shards import RecordSource
from ssd_centernet.evaluation.detector import fitting_batch_size
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.normalization import synchronize, warm_up_averages
from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe_settings import RecipeSettings
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.runtime.engine import Engine, start_engine
from ssd_centernet.runtime.precision import needs_loss_scale
from ssd_centernet.runtime.tpu import check_precision
from ssd_centernet.training import image_sizes
from ssd_centernet.training.length import LOSS_PREFIX, LoopOptions, RunLength, intervals, run_length
from ssd_centernet.training.teacher import Lessons
from ssd_centernet.training.trainer import Trainer


@gin.configurable("train")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(RecipeSettings):
    """Make the parts of a training that its settings describe.

    In gin the settings are the parameters of `train`: `train.batch_size = 8`. `Recipe()` takes what
    the parsed gin files bind, and the defaults of `RecipeSettings`.

    Raises:
        ValueError: a setting is of another kind than it can be, or two do not fit each other; names
            the value got and what was expected.
    """

    def replace(self, **settings: Any) -> Recipe:
        """Return the recipe with other values for some settings."""
        return dataclasses.replace(self, **settings)

    @property
    def begins_restored(self) -> bool:
        """Tell whether a run begins with the weights of a checkpoint."""
        return bool(self.fine_tune_checkpoint or self.resume_from)

    def start_engine(self) -> Engine:
        """Find the devices and processes that train together; before TensorFlow touches any."""
        group = None if self.sync_batch_norm in (False, True) else self.sync_batch_norm
        options = {"use_horovod": self.use_horovod, "compression": self.gradient_compression}
        options |= {"device": self.device, "devices": self.devices, "group_size": group}
        options["deterministic"] = self.deterministic
        return start_engine(self.strategy, **options)

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

    def _at_sizes(self, detector: Detector, rendering: DeviceRendering | None) -> list[tuple]:
        """Return what `image_sizes.sized_parts` does; nothing where one size is trained at."""
        sizes = self.image_sizes or ()
        return image_sizes.sized_parts(detector, sizes, self.augment, rendering)

    def check_one_size(self, who: str) -> None:
        """Refuse `image_sizes` where only one size can be taken.

        Args:
            who: takes it, such as "fit".

        Raises:
            ValueError: there are several sizes.
        """
        if self.image_sizes is not None:
            raise ValueError(
                f"train.image_sizes draws one of {image_sizes.in_words(self.image_sizes)} pixels "
                f"for each batch, but {who} takes batches of one size, that of the network: set "
                'it to None (--gin_params="train.image_sizes = None").'
            )

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
            loop_in_graph=self.loop_in_graph,
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
        one_size: bool = False,
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
            one_size: whether all images have the size of the detector, whatever `image_sizes` says.
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
        forms = [] if one_size else self._at_sizes(detector, rendering)
        if rendering:
            for form in [detector, *(one for one, *_ in forms)]:
                shown = Composition(self.compose, image_size=form.image_size)
                rendering.check_fit(shown.largest_canvas(self._source(data_dir).largest_picture()))
        if forms:
            in_pipeline = self.targets_in_pipeline
            options["at_sizes"] = [image_sizes.loading(*one, in_pipeline) for one in forms]
            options["batches_per_size"] = self.accumulate_steps
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
            views_of=detector.views_of,
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
        teacher: Detector | None = None,
    ) -> Trainer:
        """Build the step with its optimizer, schedule and state; in the scope of its device.

        Args:
            detector: what is trained; its batch norms are joined where `sync_batch_norm` says so.
            length: of the run.
            communicator: connects the processes that train together.
            fits_length: whether schedule and averages follow the length of the run; not in a run
                that began when they did not.
            teacher: what `self.teacher` names, with its weights; None leaves it out.

        Returns:
            The trainer at step 0.

        Raises:
            ValueError: statistics are to be joined that stay as they are.
        """
        check_precision(tf.distribute.get_strategy(), detector.dtype_policy.name)
        communicator, rendering = communicator or SingleProcess(), self.rendering()
        lessons = teacher and Lessons(self.teacher, detector, teacher)
        if self.sync_batch_norm and detector.quantized is not None:
            raise ValueError(
                "train.sync_batch_norm joins statistics that stay as they are with "
                "build_detector.quantize: set it to False."
            )
        if self.sync_batch_norm and communicator.size * communicator.replicas > 1:
            synchronize(detector, communicator.mean_of_group, communicator.group_size)
        # Built under every precision, so that its settings count as used where it has no effect.
        scale, schedule = self.loss_scale(), self.schedule()
        if not fits_length and getattr(schedule, "span_run", False) is None:
            schedule.span_run = False
        optimizer = self.optimizer()
        # Where there is a GPU, Keras compiles the update of each variable by itself: hundreds of
        # programs, which hold the first step up for a minute and the others for longer than one.
        optimizer.jit_compile = False
        trainer = Trainer(
            detector,
            optimizer,
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
            rematerialize=self.rematerialize,
            render=rendering and rendering.render,
            lessons=lessons,
            forms=[
                image_sizes.Form(one, made and made.render, lessons and lessons.at_size(one))
                for one, _, made in self._at_sizes(detector, rendering)
            ],
            communicator=communicator,
        )
        if fits_length:
            warm_up_averages(detector, lambda: trainer.step, length.total_steps)
        return trainer
