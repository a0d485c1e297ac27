"""Sources of a report's pictures: a folder of images, or record files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_centernet.data.images import check_image, decode_with_pillow
from ssd_centernet.data.orientation import decide_turning
from ssd_centernet.data.readers.coco_files import find_files
from ssd_centernet.data.validate import Report
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.labels import LabelMap

Loader = Callable[[Sequence[int]], Mapping[int, np.ndarray]]


def images_of_folder(image_dir: str | os.PathLike, annotations: str | os.PathLike) -> Loader:
    """Return a reader of the image files that annotations name.

    Args:
        image_dir: folder of the images.
        annotations: COCO annotations that give each image a `file_name`.

    Returns:
        A function from image ids to uint8 [H, W, 3] of those that can be read.

    Raises:
        NotADirectoryError: the folder does not exist.
    """
    folder = Path(image_dir).resolve()
    if not folder.is_dir():
        raise NotADirectoryError(
            f"--image_dir={image_dir} is not a folder; expected the folder that file_name in the "
            "annotations is relative to."
        )

    def load(image_ids: Sequence[int]) -> dict[int, np.ndarray]:
        truth = CocoGroundTruth.load(annotations)
        sizes = dict(
            zip(
                truth.image_ids.tolist(),
                zip(truth.widths.tolist(), truth.heights.tolist(), strict=True),
                strict=True,
            )
        )
        names = {} if truth.identity is None else truth.identity.images_by_name()
        found = find_files(list(names), folder, Report(), os.fspath(annotations))
        files = {
            image_id: (folder / name, sizes[image_id])
            for image_id, name in zip(names.values(), found, strict=True)
            if (folder / name).is_file()
        }
        # Boxes are drawn on the pictures: both have to be in one frame.
        upright = decide_turning(files.values()).upright
        images = {}
        for image_id in image_ids:
            path, size = files.get(image_id, (None, (0, 0)))
            image = None if path is None else _decode(path, size, upright)
            if image is not None:
                images[image_id] = image
        return images

    return load


def images_of_records(data_dir: str | os.PathLike, split: str, label_map: LabelMap) -> Loader:
    """Return a reader of images from the record files of a split.

    Args:
        data_dir: folder of converted data.
        split: beginning of the names of its record files.
        label_map: label map of the data.

    Returns:
        A function from image ids to uint8 [H, W, 3] of those that were found.
    """

    def load(image_ids: Sequence[int]) -> dict[int, np.ndarray]:
        # Scoring a file of detections does not need tensorflow.
        import tensorflow as tf

        from ssd_centernet.data import records, shards

        wanted = set(image_ids)
        examples = shards.read_records(shards.find_shards(data_dir, split)).map(
            lambda serialized: _id_and_content(records.parse_example(serialized, label_map))
        )
        examples = examples.filter(
            lambda image_id, _: tf.reduce_any(image_id == tf.constant(image_ids, tf.int64))
        )
        images = {}
        for image_id, content in examples.as_numpy_iterator():
            image = _decode(content)
            if image is not None:
                images[int(image_id)] = image
            if len(images) == len(wanted):
                break
        return images

    return load


def _id_and_content(example: dict) -> tuple:
    return example["source_id"], example["encoded"]


def _decode(
    source: Path | bytes, listed: tuple[int, int] = (0, 0), upright: bool = False
) -> np.ndarray | None:
    """Return uint8 [H, W, 3] of the listed size, or None if the data are not an image."""
    checked = check_image(source, listed_width=listed[0], listed_height=listed[1], upright=upright)
    if not checked.encoded:
        return None
    pixels = decode_with_pillow(checked.encoded)
    if checked.scale == (1.0, 1.0):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(listed))
