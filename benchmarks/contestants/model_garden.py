"""tf-models-official: RetinaNet R50-FPN and CenterNet, their train steps and their input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

_OBJECTS = 7


def _retinanet(options: dict):
    """Return the COCO experiment of RetinaNet at another size, with its task."""
    from official.vision.configs import retinanet as configs
    from official.vision.tasks import retinanet as tasks

    experiment = configs.retinanet_resnetfpn_coco()
    experiment.task.init_checkpoint = None
    experiment.task.annotation_file = None
    experiment.task.model.input_size = [options["size"], options["size"], 3]
    return experiment, tasks.RetinaNetTask(experiment.task)


def _centernet(options: dict):
    """Return the COCO experiment of CenterNet with two stacks, and its task."""
    from official.projects.centernet.configs import centernet as configs
    from official.projects.centernet.modeling.backbones import hourglass  # noqa: F401, it registers
    from official.projects.centernet.tasks import centernet as tasks

    experiment = configs.centernet_hourglass_coco()
    experiment.task.annotation_file = None
    experiment.task.model.input_size = [options["size"], options["size"], 3]
    # As in its published experiment: every augmentation, in the form of the Object Detection API.
    parser = experiment.task.train_data.parser
    parser.odapi_augmentation = True
    parser.aug_scale_min, parser.aug_scale_max = 0.6, 1.3
    for what in ("saturation", "brightness", "hue", "contrast"):
        setattr(parser, f"aug_rand_{what}", True)
    return experiment, tasks.CenterNetTask(experiment.task)


def _batches(task, options: dict):
    data = task.task_config.train_data
    data.input_path = str(Path(options["data_dir"]) / "coco_train.record-*")
    data.global_batch_size = options["batch_size"]
    data.shuffle_buffer_size = 1024  # As ours.
    data.dtype = "bfloat16" if options.get("dtype") == "bf16" else "float32"
    return task.build_inputs(data)


def _reading(dataset, batch_size: int):
    iterator = iter(dataset)

    def work(units: int) -> int:
        for _ in range(units):
            next(iterator)
        return units * batch_size

    return work


def _stepping(experiment, task, batch, options: dict, *, finite: bool = True):
    """Return the work of compiled train steps on a batch, as the task does them.

    Args:
        experiment: with the optimizer.
        task: with the network.
        batch: of images and labels.
        options: of the contestant.
        finite: whether a loss that is no number is an error.
    """
    is_mixed = options["dtype"] == "bf16"
    experiment.runtime.mixed_precision_dtype = "bfloat16" if is_mixed else "float32"
    if is_mixed:
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = task.build_model()
    model.build([None, options["size"], options["size"], 3])
    optimizer = task.create_optimizer(experiment.trainer.optimizer_config, experiment.runtime)
    metrics = task.build_metrics(training=True)

    @tf.function
    def step():
        task.train_step(batch, model, optimizer, metrics)

    def work(units: int) -> int:
        for _ in range(units):
            step()
        loss = float(metrics[0].result())
        if finite and not np.isfinite(loss):
            raise RuntimeError(f"the loss is {loss}: its time would mean nothing.")
        return units * options["batch_size"]

    return work


def retinanet_step(options: dict):
    """Train RetinaNet on the first batch of its own pipeline."""
    experiment, task = _retinanet(options)
    batch = next(iter(_batches(task, options).take(1)))
    return _stepping(experiment, task, batch, options)


def retinanet_input(options: dict):
    """Read RetinaNet's training batches: its decoder, parser and targets."""
    _, task = _retinanet(options)
    return _reading(_batches(task, options), options["batch_size"])


def centernet_step(options: dict):
    """Train CenterNet on noise with seven objects an image.

    Its reader fills up a batch with objects that are none, whose cells a CPU refuses to gather. So
    the batch has room for its objects alone, which also makes the targets cheaper.
    """
    experiment, task = _centernet(options)
    model, count, size = task.task_config.model, options["batch_size"], options["size"]
    model.max_num_instances = _OBJECTS
    rng = np.random.default_rng(0)
    extent = rng.uniform(0.1, 0.7, (count, _OBJECTS, 2))
    corner = rng.uniform(0.0, 1.0, (count, _OBJECTS, 2)) * (1.0 - extent)
    boxes = size * np.concatenate([corner, corner + extent], axis=-1)
    dtype = tf.bfloat16 if options["dtype"] == "bf16" else tf.float32
    images = tf.cast(rng.normal(0.0, 1.0, (count, size, size, 3)), dtype)
    labels = {
        "boxes": tf.constant(boxes, tf.float32),
        "classes": tf.constant(rng.integers(1, 81, (count, _OBJECTS)), tf.float32),
        "unpad_image_shapes": tf.constant([[size, size, 3]] * count, tf.float32),
        "groundtruths": {"num_detections": tf.constant([_OBJECTS] * count, tf.int32)},
    }
    # In BF16 on a CPU its second loss is NaN, from random weights. That changes no time.
    return _stepping(experiment, task, (images, labels), options, finite=False)


def centernet_input(options: dict):
    """Read CenterNet's training batches, without targets, which its step makes."""
    _, task = _centernet(options)
    return _reading(_batches(task, options), options["batch_size"])
