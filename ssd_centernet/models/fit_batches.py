"""What batches `fit` and `evaluate` of a detector take, and what they say of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

_OBJECTS = ("boxes", "classes")


def refuse_ground_truth(y: Any, method: str) -> None:
    """Refuse a ground truth beside the batches.

    Args:
        y: what was given beside the batches.
        method: of the detector that got it.

    Raises:
        ValueError: there is one.
    """
    if y is not None:
        raise ValueError(
            f"{method}(x, y) got a y, but a detector's ground truth is part of its batches, "
            "dictionaries with 'image', 'boxes' and 'classes'; ssd_centernet.training_data makes "
            "them from converted data."
        )


def check_batches(batches: Any, input_shape: Sequence[int | None], name: str) -> None:
    """Check the batches before Keras does; `checked` checks the rest in the step.

    Args:
        batches: a data set, or what gives batches.
        input_shape: of the network, with the batch.
        name: of the argument.

    Raises:
        ValueError: says what is missing, or what is expected.
    """
    if isinstance(batches, tf.data.Dataset):
        checked(batches.element_spec, input_shape)
    elif isinstance(batches, list | tuple) or not hasattr(batches, "__iter__"):
        raise ValueError(
            f"{name} is a {type(batches).__name__}; expected a tf.data.Dataset whose batches are "
            "dictionaries with 'image', 'boxes' and 'classes', such as training_data makes."
        )


def checked(batch: Any, input_shape: Sequence[int | None]) -> dict[str, Any]:
    """Return a batch, or its specification, that a step can use.

    Args:
        batch: a dictionary, or a tuple of one.
        input_shape: of the network, with the batch.

    Raises:
        ValueError: says what is missing, or which image is expected.
    """
    if isinstance(batch, tuple) and len(batch) == 1:
        (batch,) = batch  # As Keras hands on arrays, and a batch of train_on_batch.
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"a batch is a {type(batch).__name__}, as fit gets it from (image, label) pairs; "
            "expected a dictionary with 'image', 'boxes' and 'classes'. Convert pairs with "
            "dataset.map(lambda image, label: {'image': image, **label})."
        )
    needed = ("image",) if batch.get("targets") is not None else ("image", *_OBJECTS)
    missing = [name for name in needed if name not in batch]
    if missing:
        raise ValueError(
            f"a batch has no {' and no '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, sorted(batch)))}. docs/architecture.md lists the fields, and "
            "ssd_centernet.training_data makes such batches from converted data."
        )
    image = batch["image"]
    dtype = tf.as_dtype(image.dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"'image' of a batch is {dtype.name}; expected the network's input, "
            "float32 images that are resized and normalised: make them with "
            "detector.preprocessing(image). Only detect() takes uint8."
        )
    if not tf.TensorShape(input_shape).is_compatible_with(image.shape):
        raise ValueError(
            f"'image' of a batch has shape {tuple(image.shape)}, but the network takes "
            f"{tuple(input_shape)}: resize the images with "
            "detector.preprocessing(image) or in the augmentation."
        )
    return dict(batch)
