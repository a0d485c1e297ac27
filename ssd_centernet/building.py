"""The root that builds a recipe's detector, and what must fit it."""

from __future__ import annotations

import numbers
from collections.abc import Callable

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.labels import LabelMap
from ssd_centernet.memory import without_collector
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.quantized import Quantize
from ssd_centernet.models.quantized import quantize as let_round
from ssd_centernet.runtime.precision import policy_scope


class UnknownClassesError(ValueError):
    """A recipe leaves the number of classes to the data, and there is none."""


@gin.configurable
def build_detector(
    model: Callable[..., Detector] = gin.REQUIRED,
    *,
    num_classes: int | None = None,
    dtype: str = "fp32",
    quantize: Quantize | None = None,
    label_map: LabelMap | None = None,
    default_num_classes: int | None = None,
) -> Detector:
    """Build the detector of a recipe.

    Args:
        model: constructor of the detector with its parts bound, such as `@SSD`.
        num_classes: C, without background; None takes it from the label map.
        dtype: "fp32", "bf16" or "fp16"; weights are stored in float32 under each.
        quantize: `@Quantize()` computes and trains the network as its file of 8-bit integers will;
            None rounds nothing.
        label_map: names the classes.
        default_num_classes: C where neither says it, as a measurement without data needs one.

    Returns:
        The detector, with fresh weights.

    Raises:
        ValueError: `num_classes` and the label map disagree, or neither is given; the detector has
            no form of integers that `quantize` asks for.
    """
    if label_map is not None:
        if num_classes is not None:
            label_map.check_num_classes(num_classes, source="NUM_CLASSES of the recipe")
        num_classes = label_map.num_classes
    if num_classes is None:
        num_classes = default_num_classes
    if num_classes is None:
        raise UnknownClassesError("num_classes is unknown: set NUM_CLASSES, or give a label map.")
    if not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise ValueError(
            f"num_classes is {num_classes!r}; expected a whole number from 1 on, background not "
            "counted."
        )
    names = None if label_map is None else label_map.names
    # Parts are traced without AutoGraph in a training too. Keras would convert `call` of each of
    # our layers, once more for each network that it stands in.
    model = tf.autograph.experimental.do_not_convert(model)
    with policy_scope(dtype), without_collector():
        detector = model(num_classes=num_classes, class_names=names)
    let_round(detector, quantize)
    return detector


def check_normalization(augment: Callable, detector: Detector) -> None:
    """Refuse to train on images that are normalised in another way than `detect` will.

    Args:
        augment: chain of `data/augment/`.
        detector: what is trained.

    Raises:
        ValueError: mean or deviation of the augmentation and of the preprocessing differ.
    """
    for name in ("mean", "std", "scale", "channels"):
        trained = getattr(augment, name, None)
        used = getattr(detector.preprocessing, name)
        if trained is not None and not np.array_equal(trained, used):
            raise ValueError(
                f"the augmentation normalises with {name}={trained}, the detector's "
                f"preprocessing with {used}: what is trained must be what is detected with. "
                f"Set {type(augment).__name__}.{name} and Preprocessing.{name} to the same."
            )
