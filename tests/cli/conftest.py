"""A rendered data set, and a run directory made without training."""

import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.building import build_detector
from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.synthetic import make_synthetic
from ssd_centernet.run_directory import named_weights
from tests.training.conftest import TINY_NETWORK

# 64 pixels, two levels, and every detection kept, so that random weights detect something.
RECIPE = f"""{TINY_NETWORK}
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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A rendered COCO data set: 4 training and 7 validation images."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = make_synthetic(folder, num_train=4, num_val=7, image_size=(60, 100))
    return folder, paths


@pytest.fixture(scope="session")
def data_dir(pictures, tmp_path_factory):
    folder, paths = pictures
    output = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        convert_coco(
            paths[split], folder / split, output, split=split, num_shards=2, progress=False
        )
    return output


@pytest.fixture(scope="session")
def model_dir(data_dir, tmp_path_factory):
    """A run directory with random weights: checkpoints 5 and 10, and 5 as the best."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.gin"
    recipe.write_text(RECIPE)
    config.parse([recipe])
    labels = load_label_map(data_dir)
    keras.utils.set_random_seed(3)
    detector = build_detector(label_map=labels)
    checkpoint = tf.train.Checkpoint(weights=named_weights(detector))
    for place, steps in ((folder, (5, 10)), (folder / "best", (5,))):
        manager = tf.train.CheckpointManager(
            checkpoint, str(place), max_to_keep=5, checkpoint_name="ckpt"
        )
        for step in steps:
            manager.save(checkpoint_number=step)
    config.save_operative(folder / "config.gin")
    labels.to_pbtxt(folder / "mscoco_label_map.pbtxt")
    return folder
