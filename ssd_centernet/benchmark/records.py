"""Records to measure the input pipeline on."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.data import shards
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.directory import LABEL_MAP_NAME, load_label_map
from ssd_centernet.data.pipeline import count_examples
from ssd_centernet.data.records import encode_example
from ssd_centernet.labels import LabelMap
from ssd_centernet.recipe import Recipe

SPLIT = "coco_train"
SIZE = (480, 640)

# An epoch shorter than the shuffle buffer would measure how epochs begin.
LONG_EPOCH = 2000
_OBJECTS = 7


def write_records(
    folder: str | Path,
    *,
    num_images: int = 64,
    size: tuple[int, int] = SIZE,
    num_classes: int = 80,
    num_shards: int = 4,
    seed: int = 0,
    split: str = SPLIT,
) -> None:
    """Write random pictures that cost as much to decode as photographs, and a label map.

    Args:
        folder: where to; made if need be.
        num_images: pictures; JPEGs of about 60 KB at the default size.
        size: (height, width) of a picture.
        num_classes: classes.
        num_shards: files.
        seed: of the pictures and boxes.
        split: prefix of the record files.
    """
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = tuple(range(1, num_classes + 1))
    LabelMap(names=tuple(f"class {i}" for i in ids), ids=ids).to_pbtxt(folder / LABEL_MAP_NAME)
    for shard in range(num_shards):
        path = folder / f"{split}.record-{shard:05d}-of-{num_shards:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in range(shard, num_images, num_shards):
                writer.write(encode_example(_example(rng, index + 1, size, num_classes)))


def fitting_size(recipe: Recipe) -> tuple[int, int]:
    """Return COCO's size of a picture, or what fits into the frames that a recipe ships."""
    height, width = SIZE
    if recipe.augment_on == "device":
        most = DeviceRendering(recipe.augment).window_size
        height, width = min(height, most[0]), min(width, most[1])
    return height, width


def long_epoch(data_dir: str | Path, folder: str | Path, *, split: str = SPLIT) -> Path:
    """Make a small data set look long: link its files under as many names as it takes.

    Args:
        data_dir: folder with the record files.
        folder: an empty folder for the links.
        split: prefix of the record files.

    Returns:
        `data_dir` itself when its epochs are long enough, else `folder`, whose epochs have at
        least 2000 images.
    """
    files = shards.find_shards(str(data_dir), split)
    count = count_examples(str(data_dir), split=split)
    if not count or count >= LONG_EPOCH:
        return Path(data_dir)
    times = math.ceil(LONG_EPOCH / count)
    total = times * len(files)
    for index in range(total):
        target = Path(files[index % len(files)]).resolve()
        (Path(folder) / f"{split}.record-{index:05d}-of-{total:05d}").symlink_to(target)
    load_label_map(data_dir).to_pbtxt(Path(folder) / LABEL_MAP_NAME)
    return Path(folder)


def _example(
    rng: np.random.Generator, source_id: int, size: tuple[int, int], num_classes: int
) -> dict:
    height, width = size
    # Smooth noise with some grain compresses about as badly as a photograph.
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0.0, 9.0, (height, width, 1))
    picture = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    extent = rng.uniform(0.1, 0.7, (_OBJECTS, 2))
    corner = rng.uniform(0.0, 1.0, (_OBJECTS, 2)) * (1.0 - extent)
    return {
        "encoded": buffer.getvalue(),
        "format": "jpeg",
        "filename": f"{source_id:012d}.jpg",
        "source_id": source_id,
        "height": height,
        "width": width,
        "boxes": np.concatenate([corner, corner + extent], axis=1),
        "labels": rng.integers(1, num_classes + 1, _OBJECTS),
        "area": extent[:, 0] * extent[:, 1] * height * width,
        "is_crowd": np.zeros(_OBJECTS, bool),
    }
