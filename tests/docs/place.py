"""A working directory that has what the pages assume, and a shell in it."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet._keras import keras
from ssd_centernet.data.synthetic import make_synthetic
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.predict.video_files import VideoWriter
from ssd_centernet.weights import tf1_variables
from tests.docs.own_data import write_own_data
from tests.docs.pages import PAGES, files
from tests.process import environment
from tools import trees

NUM_TRAIN, NUM_VAL, NUM_PHOTOS = 6, 3, 2


def make_place(top: Path, published: dict) -> Path:
    """Make coco/ in five forms, photos/, published weights and the files that pages show.

    Args:
        top: the directory.
        published: arguments of the ResNet whose weights take the place of those that are
            published for a ResNet-34.

    Returns:
        The directory.
    """
    coco = top / "coco"
    make_synthetic(coco, num_train=NUM_TRAIN, num_val=NUM_VAL, image_size=(60, 90))
    for split in ("train", "val"):
        (coco / split).rename(coco / f"{split}2017")
        annotations = coco / "annotations" / f"instances_{split}.json"
        annotations.rename(annotations.with_name(f"instances_{split}2017.json"))
    write_own_data(top)
    (top / "photos").mkdir()
    for image in sorted((coco / "val2017").iterdir())[:NUM_PHOTOS]:
        (top / "photos" / image.name).write_bytes(image.read_bytes())
    _write_video(top / "street.mp4")
    # The same in each run: with some weights, a network of two steps scores all boxes alike.
    keras.utils.set_random_seed(0)
    _write_backbone(top / "weights" / "resnet34_mlperf", ResNet(**published))
    write_package_of_trees(top / "deepforest-2.1.0-py3-none-any.whl")
    write_animals(top)
    for page in PAGES:
        for name, text in files(page).items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text, encoding="utf-8")
    return top


def _write_video(path: Path) -> None:
    writer = VideoWriter(path, 10.0)
    for level in range(0, 240, 60):
        writer.add(np.full((60, 90, 3), level, np.uint8))
    writer.close()


def _write_backbone(folder: Path, backbone: ResNet) -> None:
    folder.mkdir(parents=True)
    variables = tf1_variables(backbone)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-28152"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.convert_to_tensor(v) for v in variables.values()],
    )
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-28152"\n')
    (folder / "model.ckpt-28152.meta").write_bytes(b"")


def write_package_of_trees(path: Path) -> None:
    """Write a package with what tools/trees.py reads of DeepForest: bright squares on noise."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as package:
        for name in trees.PICTURES.values():
            pixels, objects = random.integers(0, 99, [400, 390, 3], np.uint8), ""
            for x, y in random.integers(1, 350, [12, 2]):
                pixels[y - 1 : y + 29, x - 1 : x + 29] = 255
                box = {"xmin": x, "ymin": y, "xmax": x + 29, "ymax": y + 29}
                numbers = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
                objects += f"<object><name>Tree</name><bndbox>{numbers}</bndbox></object>"
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            package.writestr(f"{name}.png", png.getvalue())
            package.writestr(f"{name}.xml", f"<annotation>{objects}</annotation>")


def write_animals(top: Path) -> None:
    """Write what tools/animals.py reads of two clones, one picture cut off at its end."""
    random = np.random.default_rng(0)
    for annotations, pictures, name in [
        ("raccoon_dataset/annotations", "raccoon_dataset/images", "raccoon"),
        ("kangaroo/annots", "kangaroo/images", "kangaroo"),
    ]:
        for folder in (annotations, pictures):
            (top / folder).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 99, [80, 120, 3], np.uint8)
            pixels[20:60, 30:90] = 255
            photo = io.BytesIO()
            Image.fromarray(pixels).save(photo, "JPEG")
            data = photo.getvalue()
            kept = data[: len(data) - 20 * (number == 5)]
            (top / pictures / f"{number}.jpg").write_bytes(kept)
            box = {"xmin": 31, "ymin": 21, "xmax": 90, "ymax": 60}
            numbers = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
            object_ = f"<object><name>{name}</name><bndbox>{numbers}</bndbox></object>"
            path = top / annotations / f"{number}.xml"
            path.write_text(f"<annotation>{object_}</annotation>", encoding="utf-8")


def shell(bin_dir: Path, python: str | Path, place: Path) -> dict[str, str]:
    """Return the environment of a shell in which `ssd_centernet` and `python` are those given."""
    bin_dir.mkdir()
    programs = {"python": "", "ssd_centernet": "-m ssd_centernet "}
    programs["horovodrun"] = "-m horovod.runner.launch "
    for name, arguments in programs.items():
        script = bin_dir / name
        script.write_text(f'#!/bin/sh\nexec "{python}" {arguments}"$@"\n')
        script.chmod(0o755)
    return environment(
        PATH=f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        SSD_CENTERNET_WEIGHTS=str(place / "weights"),
    )
