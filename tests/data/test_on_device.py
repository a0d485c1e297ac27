"""Pixels made in the step are those that the input pipeline makes."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.cli import train
from ssd_centernet.data.augment.centernet import CropPadAugment, SquareCropAugment
from ssd_centernet.data.augment.common import Augmentation
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.augment.ssd_fpn import SSDFPNAugment
from ssd_centernet.data.augment.ssd_vgg import SSDVGGAugment
from ssd_centernet.data.shards import RecordSource
from ssd_centernet.native import library
from tests.cli.command_line import parsed
from tests.data.chains import make_example, pixels
from tests.data.foreign import picture, record, write
from tests.training.test_train import assert_same_bits, run, tensors

SIZE = (48, 56)
PLAIN = {"compiled": False}
CHAINS = {
    "ssd": SSDAugment(SIZE, **PLAIN),
    "ssd_whole": SSDAugment(SIZE, crop=False, jitter=False, **PLAIN),
    "ssd_fpn": SSDFPNAugment(SIZE, **PLAIN),
    "ssd_vgg": SSDVGGAugment(SIZE, **PLAIN),
    "ssd_vgg_plain": SSDVGGAugment(SIZE, distort=False, **PLAIN),
    "square_crop": SquareCropAugment(SIZE, **PLAIN),
    "square_crop_without_colors": SquareCropAugment(SIZE, jitter=False, **PLAIN),
    "scaled_crop": SquareCropAugment(SIZE, square_crop=False, **PLAIN),
    "crop_pad": CropPadAugment(SIZE, **PLAIN),
    "crop_pad_of_large_areas": CropPadAugment(SIZE, max_padding=0, areas=(0.9, 1.0), **PLAIN),
}
# Grey levels, of 255: positions and colours round in another order.
TOLERANCE = 0.1


def shipped(rendering, number):
    """Ship `number` pictures of several sizes, and make each by the chain itself too."""
    batch, images, examples = [], [], []
    for index in range(number):
        sizes = [(60, 80), (90, 64), (33, 100), (100, 100), (2, 3)]
        example = make_example(encoding="PNG", image=pixels(*sizes[index % len(sizes)]))
        seed = tf.constant([5, index], tf.int64)
        with library.use(False):
            examples.append(rendering._chain(dict(example), seed))
        one = rendering.ship(example, seed)
        images.append(examples[-1].pop("image"))
        batch.append({key: one.pop(key) for key in ("pixels", "pixel_sizes", "view")})
        # Boxes and all else are those of the chain.
        tf.nest.map_structure(np.testing.assert_array_equal, one, examples[-1])
    return tf.nest.map_structure(lambda *values: tf.stack(values), *batch), tf.stack(images)


# XLA takes a second for each; these have all kinds of sampling but one.
COMPILED = [(name, True) for name in ("ssd", "crop_pad", "ssd_vgg")]


@pytest.mark.parametrize(("name", "compiled"), [*((name, False) for name in CHAINS), *COMPILED])
def test_pixels_are_those_of_the_chain(name, compiled):
    chain = CHAINS[name]
    rendering = DeviceRendering(chain, window_size=(100, 104))
    batch, expected = shipped(rendering, 10)
    assert batch["pixels"].shape == (10, 100, 104, 3) and batch["pixels"].dtype == tf.uint8
    render = tf.function(rendering.render, autograph=False, jit_compile=compiled)
    found = render({**batch, "source_id": tf.range(10)})
    assert found.keys() == {"image", "source_id"}
    assert found["image"].shape == (10, *SIZE, 3)
    unit = max(chain.std) * (255.0 if isinstance(chain, SSDAugment) else chain.scale)
    np.testing.assert_allclose(found["image"] * unit, expected * unit, atol=TOLERANCE)


def test_a_picture_that_needs_more_is_told():
    rendering = DeviceRendering(CHAINS["ssd_whole"], window_size=(64, 64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="DeviceRendering.window_size"):
        rendering.ship(make_example(height=60, width=80), tf.constant([0, 0]))


@pytest.mark.parametrize("data", ["records", "mixture", "fake", "noise"])
def test_frames_that_are_too_small_end_a_training_before_it_begins(
    data, tiny_recipe, data_dir, tmp_path
):
    text = "train.augment_on = 'device'\nDeviceRendering.window_size = (48, 700)\n"
    tiny_recipe.write_text(f"{tiny_recipe.read_text()}\n{text}")
    flags = [f"--gin_file={tiny_recipe}", f"--model_dir={tmp_path / 'run'}", "--num_steps=2"]
    folders = {"mixture": (data_dir, shutil.copytree(data_dir, tmp_path / "copy")), "noise": ()}
    flags += [f"--data_dir={folder}" for folder in folders.get(data, (data_dir,))]
    flags += ["--use_fake_data"] * (data in ("fake", "noise"))
    # Noise is as large as COCO's pictures.
    height, width = (480, 640) if data == "noise" else (94, 91)
    words = (
        f"window_size = (48, 700), (height, width), but the pictures to train on have up to "
        f"{height} rows and {width} columns: set DeviceRendering.window_size = ({height}, 700)"
    )
    with parsed("train", flags), pytest.raises(ValueError, match=re.escape(words)):
        train.main(["train"])
    assert not (tmp_path / "run" / "config.gin").exists()


def test_pictures_that_are_not_trained_on_need_no_frame(tmp_path):
    places = {"encoded": [picture(90, 20)], "height": [90], "width": [20]}
    empty = {"encoded": [picture(99, 99)], "height": [99], "width": [99]}
    empty |= {"boxes": (), "labels": [], "texts": []}
    write(tmp_path / "train.tfrecord", [record(1), record(2, **places), record(3, **empty)])
    source = RecordSource(str(tmp_path), "train", 0, 1, False, "object")
    assert source.largest_picture() == (90, 40)
    assert RecordSource(str(tmp_path), "train", 0, 1, True, "object").largest_picture() == (99, 99)


@pytest.mark.parametrize("size", [(0, 64), (64, -3), 64, (64,)])
def test_frames_without_a_size_are_refused(size):
    with pytest.raises(ValueError, match="DeviceRendering.window_size: "):
        DeviceRendering(CHAINS["ssd"], window_size=size)


class Renders(Augmentation):
    """A chain that draws apart, in another way than the compiled one."""

    def plan(self, example, size, seed):
        return example, {"window": tf.concat([[0, 0], size], axis=0)}


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (lambda example, seed: example, "is no chain of the kind of SSDAugment"),
        (SSDVGGAugment(SIZE, distort_last=True, **PLAIN), "SSDVGGAugment has a setting"),
        (Renders(), "Renders has a setting"),
        (None, "is no chain of the kind of SSDAugment"),
    ],
)
def test_a_chain_that_cannot_be_taken_apart_is_refused(chain, words):
    with pytest.raises(ValueError, match=words):
        DeviceRendering(chain)


def losses(model_dir):
    lines = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [line["total"] for line in lines if line["kind"] == "train"]


def test_a_run_trains_the_same_and_resumes_exactly(tiny_recipe, data_dir, tmp_path):
    settings = ("train.log_every = 1", "train.checkpoint_every = 2", "train.batch_size = 2")
    device = (*settings, "train.augment_on = 'device'", "DeviceRendering.window_size = (96, 96)")
    run(tiny_recipe, data_dir, tmp_path / "host", *settings, "train.steps = 4")
    run(tiny_recipe, data_dir, tmp_path / "device", *device, "train.steps = 4")
    host, found = losses(tmp_path / "host"), losses(tmp_path / "device")
    assert len(host) == 4
    np.testing.assert_allclose(found, host, rtol=1e-3)
    run(tiny_recipe, data_dir, tmp_path / "parts", *device, "train.steps = 2")
    run(tiny_recipe, data_dir, tmp_path / "parts", *device, "train.steps = 4")
    assert_same_bits(tmp_path / "device", tmp_path / "parts")
    assert "weights/stem_conv.Skernel/.ATTRIBUTES/VARIABLE_VALUE" in tensors(tmp_path / "device")
