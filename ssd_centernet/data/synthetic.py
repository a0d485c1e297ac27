"""A rendered COCO data set: shapes with textures that a detector learns on a CPU in minutes.

It has what real data sets have: images of many sizes, one-channel JPEGs, empty images, occlusion,
objects cut by the border, crowd regions, and category ids with a gap.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence

import numpy as np

from ssd_centernet.data.synthetic_scenes import CATEGORY_IDS, EASY, HARD, render_scene
from ssd_centernet.files import remove_leftovers, write_atomically

DEFAULT_SHAPES = ("disc", "square", "triangle")

# Raised when the same arguments would give other pictures.
GENERATOR_VERSION = 1
JPEG_QUALITY = 90


def make_synthetic(
    output_dir: str | os.PathLike,
    *,
    num_train: int = 1000,
    num_val: int = 200,
    image_size: tuple[int, int] = (160, 256),
    shapes: Sequence[str] | None = None,
    hard: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, str]:
    """Render a COCO data set of shapes into `train/`, `val/` and `annotations/`.

    The pictures depend on the arguments alone. Most objects are 15 to 70 % as long as the shorter
    side of the image. Boxes and areas are those of the visible pixels, as in COCO. A second call
    with the same arguments returns at once, and after an interruption the next call begins again.

    Args:
        output_dir: folder to write to; made if needed.
        num_train, num_val: number of images of each split.
        image_size: smallest and largest side of an image, pixels.
        shapes: names from `synthetic_scenes.CATEGORY_IDS`, at least one; None means disc, square
            and triangle, and all ten of hard scenes.
        hard: render up to 24 smaller objects, which hide more of each other, of less contrast, in
            pictures with noise, many of them out of focus. Shapes are the rarer the later their
            place in `shapes`.
        seed: seed of all randomness.
        overwrite: whether to replace a data set rendered with other arguments.

    Returns:
        Split name -> path of its annotation file, `annotations/instances_<split>.json`.

    Raises:
        ValueError: if a size, count or shape is out of range.
        FileExistsError: if the folder holds other data and `overwrite` is off.
    """
    if shapes is None:
        shapes = tuple(CATEGORY_IDS) if hard else DEFAULT_SHAPES
    _check_arguments(num_train, num_val, image_size, shapes, seed)
    info = {
        "description": "Synthetic shapes, rendered by ssd_centernet",
        "generator_version": GENERATOR_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "shapes": list(shapes),
        "seed": seed,
        **({"hard": True} if hard else {}),
    }
    folder = os.path.join(os.fspath(output_dir), "annotations")
    paths = {split: os.path.join(folder, f"instances_{split}.json") for split in ("train", "val")}
    # Shows that what lies here is an interrupted rendering of ours, which may be replaced.
    marker = os.path.join(os.fspath(output_dir), ".rendering")
    if all(_info_of(path) == info for path in paths.values()):
        with contextlib.suppress(FileNotFoundError):
            os.remove(marker)
        return paths
    _clear(output_dir, paths, overwrite or os.path.exists(marker))
    os.makedirs(folder, exist_ok=True)
    open(marker, "w").close()
    remove_leftovers(folder, [os.path.basename(path) for path in paths.values()])
    for number, (split, first_id, count) in enumerate(
        (("train", 1, num_train), ("val", num_train + 1, num_val))
    ):
        images_dir = os.path.join(output_dir, split)
        os.makedirs(images_dir)
        content = _render_split(
            images_dir, [seed, number], first_id=first_id, count=count, info=info
        )
        write_atomically(paths[split], json.dumps(content))
    os.remove(marker)
    return paths


def _render_split(
    images_dir: str, seeds: list[int], *, first_id: int, count: int, info: dict
) -> dict:
    """Write the images of a split and return the content of its annotation file."""
    images, annotations, shapes = [], [], info["shapes"]
    style = HARD if info.get("hard") else EASY
    for index in range(count):
        # A generator of its own for each image: the number of images changes none of them.
        rng = np.random.default_rng([*seeds, index])
        scene = render_scene(rng, info["image_size"], shapes, style)
        image_id = first_id + index
        name = f"{image_id:06d}.jpg"
        scene.picture().save(os.path.join(images_dir, name), quality=JPEG_QUALITY)
        height, width = scene.owner.shape
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for annotation in scene.annotations():
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [
        {"id": CATEGORY_IDS[s], "name": s, "supercategory": "shape"}
        for s in sorted(shapes, key=CATEGORY_IDS.get)
    ]
    return {
        "info": info,
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def _check_arguments(
    num_train: int, num_val: int, image_size, shapes: Sequence[str], seed: int
) -> None:
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if num_train < 1 or num_val < 1:
        raise ValueError(f"num_train and num_val must be 1 or more, got {num_train}, {num_val}.")
    if not 32 <= image_size[0] <= image_size[1] <= 4096:
        raise ValueError(
            f"image_size must be (smallest, largest) side in 32..4096 pixels, got {image_size}."
        )
    unknown = [s for s in shapes if s not in CATEGORY_IDS]
    if unknown or not shapes or len(set(shapes)) != len(shapes):
        raise ValueError(
            f"shapes must be distinct names from {', '.join(CATEGORY_IDS)}, got {list(shapes)}."
        )


def _info_of(path: str) -> dict | None:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("info")
    except (OSError, ValueError, AttributeError):
        return None


def _clear(output_dir, paths: dict[str, str], overwrite: bool) -> None:
    """Remove the files of an earlier call; refuse to remove anything else."""
    folders = [os.path.join(output_dir, split) for split in paths]
    found = [p for p in (*paths.values(), *folders) if os.path.exists(p)]
    if found and not overwrite:
        raise FileExistsError(
            f"{found[0]} exists and was not rendered with the same arguments. "
            "Choose another output_dir, or set overwrite (--overwrite) to replace train/, val/ and "
            "annotations."
        )
    for path in paths.values():
        if os.path.exists(path):
            os.remove(path)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
