"""Checks of batches: the first one before Keras makes a graph, later ones in the graph."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras

# Fractions may lie a little outside 0..1, pixels lie far outside.
FARTHEST = 4.0
# The least difference of brightness by which 0..1 is told from a plain picture.
_CONTRAST = 0.3


def look_at(batches: Any, check) -> Any:
    """Hand the first batch to a check, and return what still yields all of them.

    Args:
        batches: a `tf.data.Dataset`, a Keras `Sequence`, or an iterator; others are not looked at.
        check: called with the first batch, eager tensors or arrays.

    Returns:
        The same batches; of an iterator one that begins with the batch that was taken.
    """
    if isinstance(batches, tf.data.Dataset):
        for batch in batches.take(1):
            check(batch)
    elif isinstance(batches, keras.utils.Sequence):
        if len(batches):
            check(batches[0])
    elif hasattr(batches, "__next__"):
        for batch in batches:
            check(batch)
            return itertools.chain([batch], batches)
    return batches


def check_values(batch: Mapping[str, Any], *, num_classes: int, preprocessing: Any) -> None:
    """Check that images are normalised and boxes are fractions.

    Args:
        batch: with the fields that `fit` needs.
        num_classes: C.
        preprocessing: of the detector, to know which numbers its images can have; None for a model
            without one.

    Raises:
        ValueError: one sentence with the value got, what is expected and how to get it.
    """
    image = np.asarray(batch["image"], np.float32)
    if image.size:
        _check_image(image, preprocessing)
    if batch.get("targets") is not None:
        return
    boxes = np.asarray(batch["boxes"], np.float32)
    classes = np.asarray(batch["classes"])
    valid = batch.get("valid")
    valid = np.ones(classes.shape, bool) if valid is None else np.asarray(valid, bool)
    if boxes.shape != (*classes.shape, 4) or valid.shape != classes.shape:
        raise ValueError(
            f"'boxes' of a batch has shape {boxes.shape}, 'classes' {classes.shape} and 'valid' "
            f"{valid.shape}; expected [B, M, 4], [B, M] and [B, M]."
        )
    place = [int(index) for index in np.argwhere(valid & _outside(boxes))[:1].ravel()]
    if place:
        raise ValueError(
            f"'boxes' of a batch are not fractions: box {place[1]} of image {place[0]} is "
            f"{_listed(boxes[tuple(place)])}; divide pixels by the height and the width of the "
            "image, in the order [ymin, xmin, ymax, xmax]."
        )
    backwards = valid & (boxes[..., :2] > boxes[..., 2:]).any(axis=-1)
    place = [int(index) for index in np.argwhere(backwards)[:1].ravel()]
    if place:
        raise ValueError(
            f"'boxes' of a batch end before they begin: box {place[1]} of image {place[0]} is "
            f"{_listed(boxes[tuple(place)])}; expected fractions [ymin, xmin, ymax, xmax], not "
            "sizes."
        )
    flat = valid & (boxes[..., :2] == boxes[..., 2:]).any(axis=-1)
    place = [int(index) for index in np.argwhere(flat)[:1].ravel()]
    if place:
        raise ValueError(
            f"'boxes' of a batch hold one without area: box {place[1]} of image {place[0]} is "
            f"{_listed(boxes[tuple(place)])}; leave it out or, if it is padding, give 'valid' "
            "bool [B, M], which is False there."
        )
    wrong = valid & ((classes < 0) | (classes >= num_classes))
    if wrong.any():
        raise ValueError(
            f"'classes' of a batch must be in 0..{num_classes - 1} for num_classes={num_classes}, "
            f"background not counted, got {int(classes[wrong][0])}; mark padding in 'valid'."
        )


def prepared(batch: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """Convert the user's ground truth to the types in docs/architecture.md and check it."""
    if batch.get("targets") is not None:
        return batch
    boxes, classes = tf.cast(batch["boxes"], tf.float32), tf.cast(batch["classes"], tf.int32)
    valid = batch.get("valid")
    valid = tf.ones_like(classes, tf.bool) if valid is None else tf.cast(valid, tf.bool)
    counted = tf.where(valid, classes, 0)
    farthest = tf.reduce_max(tf.where(valid[..., tf.newaxis], tf.abs(boxes), 0.0))
    sides = tf.where(valid[..., tf.newaxis], boxes[..., 2:] - boxes[..., :2], 1.0)
    checks = [
        tf.debugging.assert_positive(
            tf.reduce_min(sides),
            "'boxes' of a batch hold one without area, or one that ends before it begins; expected "
            "fractions in the order ymin, xmin, ymax, xmax, and False in 'valid' for padding.",
        ),
        tf.debugging.assert_less(
            farthest,
            FARTHEST,
            "'boxes' of a batch are not fractions: divide pixels by the height and the width of "
            "the image. The largest number is",
        ),
        tf.debugging.assert_non_negative(
            tf.reduce_min(counted),
            "'classes' of a batch has a number below 0; mark padding in 'valid'.",
        ),
        tf.debugging.assert_less(
            tf.reduce_max(counted),
            num_classes,
            f"'classes' of a batch must be in 0..{num_classes - 1} for num_classes={num_classes}, "
            "background not counted. The largest is",
        ),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return {**batch, "boxes": tf.identity(boxes), "classes": classes, "valid": valid}


def told(error: tf.errors.InvalidArgumentError) -> str | None:
    """Return the sentence of our own check in a graph, without the graph's trace; else None."""
    text = str(error).replace("\\'", "'")
    found = re.search(r"\[('(?:boxes|classes)' of a batch[^\]]*)\]", text)
    if found is None:
        return None
    value = re.search(r"\[x \(.*?\) = \] \[(.*?)\]", text)
    return f"{found[1]} {value[1]}." if value and found[1].endswith(" is") else found[1]


def _outside(boxes: np.ndarray) -> np.ndarray:
    return ~(np.abs(boxes) < FARTHEST).all(axis=-1)  # NaN too.


def _listed(values: np.ndarray) -> str:
    return f"[{', '.join(f'{value:g}' for value in values.tolist())}]"


def _check_image(image: np.ndarray, preprocessing: Any) -> None:
    smallest, largest = float(image.min()), float(image.max())
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise ValueError(
            "'image' of a batch holds numbers that are not finite (NaN or infinite): does the "
            "augmentation divide by zero?"
        )
    if preprocessing is None:
        return
    ends = [preprocessing.normalize(tf.fill([1, 1, 3], level)).numpy() for level in (0.0, 255.0)]
    low, high = float(ends[0].min()), float(ends[1].max())
    room = 0.5 * (high - low)
    beyond = largest > high + room or smallest < low - room
    # All of it at or above the mean colour, and yet as wide as bytes, or as wide as 0..1.
    positive = smallest >= 0.0 > low
    as_bytes = positive and largest > high + 0.02 * room
    contrast = np.ptp(image.reshape(-1, image.shape[-1]), axis=0).max()
    as_unit = positive and high > 1.2 and largest <= 1.0 and contrast > _CONTRAST
    if beyond or as_bytes or as_unit:
        raise ValueError(
            f"'image' of a batch is not normalised: its numbers lie in {smallest:.4g}.."
            f"{largest:.4g}, those of this detector's input in {low:.4g}..{high:.4g}. Make images "
            "with detector.preprocessing(image) from pixels 0..255, or take them from "
            "training_data or batches."
        )
