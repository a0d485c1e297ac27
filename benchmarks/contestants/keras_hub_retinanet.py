"""KerasHub's RetinaNet R50-FPN with random weights: its train step on TensorFlow."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

_CLASSES, _OBJECTS = 80, 7


def train_step(options: dict):
    """Train on a batch of noise with seven objects an image."""
    if options["dtype"] == "bf16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    size, count = options["size"], options["batch_size"]
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(size, size, 3),
    )
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=7, use_p5=False, image_shape=(size, size, 3)
    )
    model = keras_hub.models.RetinaNetObjectDetector(backbone, num_classes=_CLASSES)
    # XLA makes a step of convolutions slower on a CPU; at a usual rate random weights diverge.
    model.compile(optimizer=keras.optimizers.SGD(1e-7, momentum=0.9), jit_compile=False)
    rng = np.random.default_rng(0)
    extent = rng.uniform(0.1, 0.7, (count, _OBJECTS, 2))
    corner = rng.uniform(0.0, 1.0, (count, _OBJECTS, 2)) * (1.0 - extent)
    images = rng.normal(0.0, 1.0, (count, size, size, 3)).astype(np.float32)
    labels = {
        "boxes": (size * np.concatenate([corner, corner + extent], axis=-1)).astype(np.float32),
        "labels": rng.integers(0, _CLASSES, (count, _OBJECTS)).astype(np.float32),
    }

    model.make_train_function()  # What `fit` calls.
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).cache().repeat())

    def work(units: int) -> int:
        for _ in range(units):
            logs = model.train_function(batches)
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            raise RuntimeError(f"the loss is {loss}: its time would mean nothing.")
        return units * count

    return work
