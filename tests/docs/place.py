"""A working directory that has what the pages assume, and a shell in it."""

import os
import sys
from pathlib import Path

import tensorflow as tf

from ssd_centernet.data.synthetic import make_synthetic
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.weights import tf1_variables
from tests.docs.own_data import write_own_data
from tests.docs.pages import PAGES, files
from tests.process import environment

NUM_TRAIN, NUM_VAL, NUM_PHOTOS = 6, 3, 2


def make_place(top: Path) -> Path:
    """Make coco/ in five forms, photos/, published weights and the files that pages show.

    Returns the directory.
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
    _write_backbone(top / "weights" / "resnet34_mlperf")
    for page in PAGES:
        for name, text in files(page).items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text, encoding="utf-8")
    return top


def _write_backbone(folder: Path) -> None:
    folder.mkdir(parents=True)
    variables = tf1_variables(ResNet())
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-28152"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.convert_to_tensor(v) for v in variables.values()],
    )
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-28152"\n')
    (folder / "model.ckpt-28152.meta").write_bytes(b"")


def shell(bin_dir: Path, python=sys.executable) -> dict[str, str]:
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
        SSD_CENTERNET_WEIGHTS=str(bin_dir.parent / "place" / "weights"),
    )
