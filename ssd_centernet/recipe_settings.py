"""The settings of a training: what each is called, what it may be, and its default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from ssd_centernet.config import expectations as may_be
from ssd_centernet.config.contradictions import refuse_contradictions
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.runtime.engine import STRATEGIES
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate
from ssd_centernet.training.teacher import Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeSettings:
    """Hold the settings of a training; `Recipe` makes the parts that they describe.

    Attributes:
        batch_size: images per step of this process.
        steps: length of the run in steps; wins over `epochs`. Of gin's settings the later one wins.
        epochs: length of the run in passes over the training images.
        optimizer: constructor of a Keras optimizer.
        schedule: constructor of a learning-rate schedule, see `training/schedules.py`.
        batches: `training_batches` or a function like it; bind `@training_batches` to set options.
        compose: steps on whole pictures before `augment`: `Mosaic` or a tuple of them in order.
        augment: chain of `data/augment/`; None resizes and normalises only.
        image_sizes: sizes (height, width) in pixels, such as ((256, 256), (320, 320)), of which one
            is drawn for each update (multi-scale training); None trains at the network's own, at
            which a run is evaluated and exported in any case.
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
        teacher: a run whose scores and boxes are learned beside the objects, `@Teacher()`.
        jit_compile: whether XLA compiles the step, of one process with one device.
        rematerialize: True keeps no activations inside of the backbone's blocks and computes them
            again for the gradients: less memory, more time; patterns choose blocks by their names.
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
        deterministic: whether all operations give the same bits each time; on a CPU they do.
        device: auto, cpu, gpu, tpu, hpu, mlu or npu.
        strategy: auto, one, mirrored, multi_worker, horovod, hccl or tpu: what joins devices.
        devices: number that share a batch of this process; None is all for mirrored, else one.
        use_horovod: the same as the strategy horovod.
        gradient_compression: "fp16" sends gradients between processes in half precision.
        accumulate_steps: batches whose gradients are averaged for one update.
        loop_in_graph: whether the steps between two lines of the log are a loop of TensorFlow's
            graph; False leaves it to Python, as Gaudi's own lines do on Gaudi2.
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
    image_sizes: Annotated[Sequence[Sequence[int]] | None, may_be.IMAGE_SIZES] = None
    augment_on: Annotated[str, may_be.one_of("host", "device")] = "host"
    weight_decay: Annotated[float, may_be.FACTOR] = 0.0
    decay_exclude: Annotated[Sequence[str], may_be.PATTERNS] = ("_norm/",)
    freeze: Annotated[Sequence[str], may_be.PATTERNS] = ()
    freeze_random: Annotated[bool | None, may_be.SWITCH] = None
    layer_rates: Annotated[Mapping[str, float] | None, may_be.FACTORS] = None
    clip_norm: Annotated[float | None, may_be.ABOVE_ZERO] = None
    ema_decay: Annotated[float | None, may_be.BELOW_ONE] = None
    teacher: Annotated[Teacher | None, may_be.TEACHER] = None
    jit_compile: Annotated[bool, may_be.SWITCH] = False
    rematerialize: Annotated[bool | str | Sequence[str], may_be.SWITCH_OR_PATTERNS] = False
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
    deterministic: Annotated[bool, may_be.SWITCH] = False
    device: str = "auto"
    strategy: Annotated[str, may_be.one_of(*STRATEGIES)] = "auto"
    devices: Annotated[int | None, may_be.COUNT] = None
    use_horovod: Annotated[bool, may_be.SWITCH] = False
    gradient_compression: Annotated[str, may_be.one_of("none", "fp16")] = "none"
    accumulate_steps: Annotated[int, may_be.COUNT] = 1
    loop_in_graph: Annotated[bool, may_be.SWITCH] = True
    sync_batch_norm: Annotated[bool | int, may_be.PROCESS_GROUP] = False

    def __post_init__(self):
        """Refuse what would fail, or mean something else, after hours of training."""
        may_be.check(self, prefix="train")
        refuse_contradictions(self)
