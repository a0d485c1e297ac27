"""A tiny converted data set and a tiny detector, which train in no time."""

import json

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records
from ssd_centernet.data.fake import random_batch
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.ssd import SSD
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate, RunLength
from ssd_centernet.training.trainer import Trainer

LABELS = LabelMap(("square", "bar"), (1, 3))

TINY_NETWORK = """
build_detector.model = @SSD
SSD.backbone = @ResNet()
ResNet.blocks = (1,)
ResNet.widths = (8,)
ResNet.strides = (1,)
ResNet.stem_width = 8
SSD.image_size = (64, 64)
SSD.neck = @SSDExtraLevels()
SSDExtraLevels.widths = ((8, 8),)
SSDExtraLevels.strides = (2,)
SSD.anchors = @DefaultBoxes()
DefaultBoxes.scales = (90, 180, 280)
DefaultBoxes.aspect_ratios = ((2,), (2,))
"""

TINY_RECIPE = f"""{TINY_NETWORK}
train.augment = @SSDAugment()
SSDAugment.image_size = (64, 64)
SSDAugment.compiled = False
train.batch_size = 4
train.optimizer = @Momentum
train.schedule = @ConstantRate
ConstantRate.learning_rate = 0.01
train.weight_decay = 5e-4
train.log_every = 2
train.checkpoint_every = 5
train.evaluate_every = 0
train.pictures = 0
"""

# 64 pixels, two levels, and every detection kept, so that random weights detect something.
RUN_RECIPE = f"""{TINY_NETWORK}
SSD.criterion = @MultiBoxLoss()
SSD.decoder = @SSDDecoder()
SSDDecoder.score_threshold = 0.01
train.augment = @SSDAugment()
SSDAugment.image_size = (64, 64)
SSDAugment.compiled = False
train.batch_size = 4
train.steps = 3
train.schedule = @ConstantRate
ConstantRate.learning_rate = 0.001
train.evaluate_every = 3
"""


def _scene(rng, size):
    image = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
    kind = int(rng.integers(2))
    height, width = (30, 30) if kind == 0 else (16, 44)
    top, left = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
    image[top : top + height, left : left + width] = (220, 40, 40) if kind == 0 else (40, 40, 220)
    return image, (top, left, top + height, left + width), kind


def write_split(folder, split, count, seed):
    """Write `count` scenes as two shards with their annotations."""
    rng = np.random.default_rng(seed)
    truth = {"images": [], "annotations": [], "categories": LABELS.to_categories()}
    writers = [tf.io.TFRecordWriter(f"{folder}/{split}.record-{n:05d}-of-00002") for n in range(2)]
    for number in range(1, count + 1):
        size = (80 + 8 * (number % 3), 96)
        image, (top, left, bottom, right), kind = _scene(rng, size)
        box = np.array([[top / size[0], left / size[1], bottom / size[0], right / size[1]]])
        category = LABELS.ids[kind]
        example = {
            "encoded": tf.io.encode_jpeg(image).numpy(),
            "format": "jpeg",
            "filename": f"{number}.jpg",
            "source_id": number,
            "height": size[0],
            "width": size[1],
            "boxes": box,
            "labels": [category],
        }
        writers[number % 2].write(records.encode_example(example))
        bbox = [int(left), int(top), int(right - left), int(bottom - top)]
        truth["images"].append({"id": number, "height": size[0], "width": size[1]})
        truth["annotations"].append(
            {"id": number, "image_id": number, "category_id": category, "bbox": bbox}
            | {"area": bbox[2] * bbox[3], "iscrowd": 0}
        )
    for writer in writers:
        writer.close()
    (folder / f"{split}.annotations.json").write_text(json.dumps(truth))


def write_data_set(folder):
    """Write 12 training and 5 validation images of two classes, in two shards each."""
    write_split(folder, "coco_train", 12, seed=1)
    write_split(folder, "coco_val", 5, seed=2)
    LABELS.to_pbtxt(folder / "mscoco_label_map.pbtxt")
    return folder


def tiny_detector(num_classes=2):
    """Build the recipe's detector in Python."""
    return SSD(
        ResNet((1,), widths=(8,), strides=(1,), stem_width=8),
        num_classes=num_classes,
        image_size=(64, 64),
        neck=SSDExtraLevels(((8, 8),), strides=(2,)),
        anchors=DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
    )


def tiny_trainer(detector=None, **options):
    """Build a trainer for batches of two images."""
    options = {"batch_size": 2, "schedule": ConstantRate(0.01), **options}
    return Trainer(
        detector or tiny_detector(),
        options.pop("optimizer", Momentum()),
        length=RunLength(steps_per_epoch=5, total_steps=20, global_batch_size=2),
        **options,
    )


def tiny_batch(seed=0, size=2):
    """Make a batch of random images with one object each."""
    batch = random_batch((64, 64), [1] * size, num_classes=2, seed=seed)
    # An object that anchors of both levels match: every weight has something to learn.
    boxes = tf.tile(tf.constant([[[0.2, 0.2, 0.7, 0.7]]]), [size, 1, 1])
    ids = tf.range(71, 71 + size, dtype=tf.int64)
    return {**batch, "boxes": boxes, "classes": tf.zeros([size, 1], tf.int32), "source_id": ids}
