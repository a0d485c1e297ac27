"""Batches for `fit` in Python: of converted data, or of images and boxes in memory."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.data.arrays import write_arrays
from ssd_centernet.data.batch_shapes import FILLER_ID
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.mixture import DataDir, merged_label_map
from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.data.shards import NoImageError
from ssd_centernet.data.validate import format_report
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.given_images import as_batch, as_list
from ssd_centernet.recipe import Recipe

# Folders of images that were in memory; they go when Python ends.
_FOLDERS: list[tempfile.TemporaryDirectory] = []
# Options of `training_data` that are settings of a recipe; the others are of its `batches`.
_SETTINGS = (
    "train_split",
    "batch_size",
    "keep_empty",
    "crowd",
    "seed",
    "data_weights",
    "repeat_threshold",
)


class TrainingData(NamedTuple):
    """Hold what `fit` needs of a split.

    Attributes:
        batches: an endless data set that goes on from epoch to epoch.
        steps_per_epoch: batches in one pass over the images.
    """

    batches: tf.data.Dataset
    steps_per_epoch: int


def training_data(
    data_dir: DataDir,
    detector: Detector,
    *,
    recipe: str | os.PathLike | None = None,
    batch_size: int = 8,
    split: str | None = None,
    settings: str | Sequence[str] = (),
    allow_import: Sequence[str] | None = None,
    **options: Any,
) -> TrainingData:
    """Make batches to `fit` a detector on, as `ssd_centernet train` makes them.

    Args:
        data_dir: folder that `ssd_centernet convert` or `convert_annotations` wrote, or several of
            them, which are mixed; build the detector with the classes of all.
        detector: what is to be trained: its input's size, its normalisation, its targets.
        recipe: whose augmentation is used, and whose way with empty images and crowd regions;
            None resizes and normalises only.
        batch_size: images per step.
        split: prefix of the record files; None is that of the recipe, which is
            'coco_train' where it does not say.
        settings: gin bindings that win over the recipe's: 'SSDAugment.no_crop_probability = 0.9'.
        allow_import: as in `load`, where the recipe is the `config.gin` of a run.
        **options: of `data.pipeline.training_batches`, such as `seed`, `keep_empty`, `cache`.

    Returns:
        The endless batches and how many of them are an epoch.

    Raises:
        FileNotFoundError: no such data or recipe.
        ValueError: the data has other classes than the detector, or images would be normalised in
            another way than the detector's.
    """
    label_map = label_map_for(detector, data_dir)
    if recipe is None and settings:
        raise ValueError(f"settings={as_lines(settings)} need a recipe that they change.")
    with own_configuration():
        bindings = [*size_setting(detector.image_size), *as_lines(settings)]
        config.parse([recipe] if recipe else [], bindings, allow_import=allow_import)
        options |= {"batch_size": batch_size} | ({"train_split": split} if split else {})
        chosen = {name: options.pop(name) for name in _SETTINGS if name in options}
        of_recipe = Recipe().replace(**chosen)
        of_recipe.check_one_size("fit")
        batches = of_recipe.training_batches(detector, data_dir, label_map=label_map, **options)
    steps_per_epoch = math.ceil(of_recipe.count_images(data_dir) / batch_size)
    for note in of_recipe.notes(detector, data_dir, batches):
        warnings.warn(note, stacklevel=2)
    # Without this Keras would run the first epoch for ever instead of asking for its length.
    endless = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return TrainingData(endless, steps_per_epoch)


def batches(
    images: Any,
    boxes: Sequence,
    classes: Sequence,
    detector: Detector,
    *,
    units: str,
    order: str,
    is_crowd: Sequence | None = None,
    recipe: str | os.PathLike | None = None,
    batch_size: int = 8,
    settings: str | Sequence[str] = (),
    **options: Any,
) -> TrainingData:
    """Make batches to `fit` a detector on from images and boxes in memory.

    They are those of `training_data` on the same data, augmentation and targets included. Images
    are kept in a temporary folder until Python ends.

    Args:
        images: N images as `detect` takes them: arrays uint8 [H, W, 3] of any sizes, pictures of
            Pillow or paths, or one array [N, H, W, 3].
        boxes: for each image an array [M, 4] of any M, or None.
        classes: for each image M names of the detector's classes, or numbers 0..C-1.
        detector: what is to be trained.
        units: 'pixels' of the image, or 'fractions' of its width and height.
        order: 'xyxy' (left, top, right, bottom), 'yxyx' (top, left, bottom, right), 'xywh' (left,
            top, width, height) or 'cxcywh' (centre, width, height).
        is_crowd: for each image M booleans, or None where no box is a crowd region.
        recipe: as in `training_data`.
        batch_size: images per step.
        settings: as in `training_data`.
        **options: as in `training_data`.

    Returns:
        The endless batches and how many of them are an epoch.

    Raises:
        ValueError: an image is not uint8 RGB, a class is unknown, or boxes are not in these units
            or this order; names the image, the box and its numbers. Or no image has a box.
    """
    pictures = as_list(images)
    pictures = as_batch(images) if pictures is None else pictures
    names = detector.class_names or tuple(str(number) for number in range(detector.num_classes))
    folder = tempfile.TemporaryDirectory(prefix="ssd_centernet_")
    _FOLDERS.append(folder)
    info = write_arrays(
        folder.name,
        [picture.numpy() for picture in pictures],
        boxes,
        classes,
        label_map=LabelMap(names),
        units=units,
        order=order,
        is_crowd=is_crowd,
    )
    if info["report"]:
        warnings.warn(format_report(info["report"]), stacklevel=2)
    options |= {"recipe": recipe, "batch_size": batch_size, "settings": settings}
    try:
        return training_data(folder.name, detector, split="coco_train", **options)
    except NoImageError:
        crowd = "" if is_crowd is None else " that is no crowd region"
        raise ValueError(
            f"none of the {len(pictures)} images has a box{crowd}, so there is nothing to train "
            "on. Give boxes and classes, or keep_empty=True to train on images without any."
        ) from None


def validation_data(
    data_dir: str | os.PathLike,
    detector: Detector,
    *,
    batch_size: int = 8,
    split: str = "coco_val",
    **options: Any,
) -> tf.data.Dataset:
    """Make one pass over a split, every image once, for `validation_data` of `fit`.

    Args:
        data_dir: folder of converted data.
        detector: whose preprocessing the images go through.
        batch_size: images per batch; the last one holds what is left.
        split: prefix of the record files.
        **options: of `data.pipeline.evaluation_batches`, such as `max_boxes`.

    Returns:
        Batches (see docs/architecture.md) without targets.

    Raises:
        FileNotFoundError: no such data.
        ValueError: the data has other classes than the detector.
    """
    batches = evaluation_batches(
        str(data_dir),
        split=split,
        label_map=label_map_for(detector, data_dir),
        batch_size=batch_size,
        preprocess=detector.preprocessing,
        **options,
    )

    def without_fillers(batch: dict) -> dict:
        real = batch["source_id"] != FILLER_ID
        return {name: tf.boolean_mask(value, real) for name, value in batch.items()}

    return batches.map(without_fillers).prefetch(2)


@contextlib.contextmanager
def own_configuration() -> Iterator[None]:
    """Read recipes in a block without what the caller has set with gin, which comes back after."""
    config.register_all()  # First, so that names which the caller also uses are known.
    with config.set_aside():
        yield


def size_setting(image_size: int | tuple[int, int] | None) -> list[str]:
    """Return the binding of the macro that every installed recipe has.

    Raises:
        ValueError: no such size.
    """
    if image_size is None:
        return []
    size = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(size) != 2 or not all(isinstance(side, Integral) and side > 0 for side in size):
        raise ValueError(
            f"image_size is {image_size!r}, expected (height, width) in whole pixels, such as "
            "(300, 400), or one number for both."
        )
    return [f"IMAGE_SIZE = ({int(size[0])}, {int(size[1])})"]


def as_lines(settings: str | Sequence[str]) -> list[str]:
    """Return settings as a list; a text alone is one of them."""
    return [settings] if isinstance(settings, str) else list(settings)


def label_map_for(detector: Detector, data_dir: DataDir) -> LabelMap:
    """Return the label map of some data.

    Raises:
        ValueError: its classes are not those of the detector.
    """
    several = not isinstance(data_dir, str | os.PathLike)
    found = merged_label_map(data_dir)[0] if several else load_label_map(data_dir)
    names = detector.class_names
    if names is None and detector.num_classes == found.num_classes:
        return found
    if names != found.names:
        have = f"{detector.num_classes} without names" if names is None else ", ".join(names)
        raise ValueError(
            f"the classes of {data_dir} are {', '.join(found.names)}; the detector has {have}. "
            "Build it with label_map=load_label_map(data_dir), or give data of its own classes."
        )
    return found
