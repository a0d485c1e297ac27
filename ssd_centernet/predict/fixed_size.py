"""Detection on images of all sizes by graphs of one size."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ssd_centernet.models.detector import Detector


def fixed_size_step(detector: Detector, batch_size: int) -> tuple[Callable, Callable]:
    """Make the functions that detect on images of all sizes with only two traces.

    Args:
        detector: a detector with its weights.
        batch_size: batch size of the second function.

    Returns:
        `prepare(uint8 [H, W, 3]) -> (float32 [h, w, 3], extent [2], ...)`, one trace for every
        size, with an image and an extent more for each scale of the decoder's `test_time`; and
        `detect(float32 [batch_size, h, w, 3], extents [batch_size, 2], ...) -> Detections`.
    """

    views_of = getattr(detector, "views_of", lambda image: [])

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)
    def prepare(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        extent = detector.preprocessing.extent(*tf.unstack(tf.shape(image)[:2]))
        views = [(detector.preprocessing(image), extent), *views_of(image)]
        return tuple(part for view in views for part in view)

    specs = [tf.TensorSpec([batch_size, *shape], tf.float32) for shape in _shapes_of(prepare)]

    @tf.function(input_signature=specs, autograph=False)
    def detect(images: tf.Tensor, extents: tf.Tensor, *more: tf.Tensor) -> dict:
        views = list(zip(more[::2], more[1::2], strict=True))
        return detector.detect_prepared(images, extents, **({"views": views} if views else {}))

    return prepare, detect


def empty_batch(prepare: Callable, batch_size: int) -> list[np.ndarray]:
    """Return what `detect` of `fixed_size_step` takes, for black images.

    Args:
        prepare: of `fixed_size_step`.
        batch_size: that of `detect`.
    """
    # Each image is followed by its extent, which nothing may be divided by if it were 0.
    makers = itertools.cycle((np.zeros, np.ones))
    shapes = _shapes_of(prepare)
    return [
        make((batch_size, *shape), np.float32) for make, shape in zip(makers, shapes, strict=False)
    ]


def _shapes_of(prepare: Callable) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in prepare.get_concrete_function().structured_outputs]
