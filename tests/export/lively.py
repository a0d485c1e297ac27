"""Narrow networks whose scores differ from each other, as those of trained ones do."""

import re

import numpy as np
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.building import build_detector
from tests.narrow import NARROW, SIZE


def lively_detector(recipe, *params, num_classes=3):
    """Build a recipe's detector with few channels, and enliven it."""
    config.parse([recipe], [f"IMAGE_SIZE = {SIZE}", *NARROW[recipe], *params])
    detector = build_detector(num_classes=num_classes)
    config.clear()
    return enliven(detector)


def enliven(detector):
    """Give random weights that keep signals alive, so that scores and boxes depend on images."""
    rng = np.random.default_rng(7)
    for variable in detector.variables:
        if "kernel" in variable.name:
            fan_in = int(np.prod(variable.shape[:-1]))
            variable.assign(rng.normal(0.0, (2.0 / fan_in) ** 0.5, variable.shape))
        elif "gamma" in variable.name:
            variable.assign(rng.uniform(0.7, 1.3, variable.shape))
        elif "bias" in variable.name:
            variable.assign_add(rng.normal(0.0, 0.1, variable.shape))
        elif "beta" in variable.name or "moving_mean" in variable.name:
            variable.assign(rng.normal(0.0, 0.1, variable.shape))
    pixels = tf.cast(rng.integers(0, 255, (2, 80, 120, 3)), tf.uint8)
    outputs = detector(detector.preprocessing(pixels))
    outputs = outputs[-1] if isinstance(outputs, list) else outputs
    for key, spread in (("class_logits", 2.0), ("center", 2.0), ("box_codes", 1.0), ("size", 2.0)):
        if key in outputs:
            _spread(detector.head, key, float(tf.math.reduce_std(outputs[key])), spread)
    return detector


# How the last layers behind an output are named, before the numbers of levels and stacks.
_LAST = {
    "class_logits": r"class(\d+|_predictor)",
    "box_codes": r"box(\d+|_predictor)",
    "center": r"center\d+",
    "size": r"size\d+",
}


def _spread(head, output, measured, wanted):
    """Scale the last kernels behind an output, so that it spreads as wanted."""
    last = [
        variable
        for variable in head.variables
        if re.search(rf"(^|/){_LAST[output]}/kernel", variable.name)
    ]
    assert last, f"no layer is named {_LAST[output]}"
    for variable in last:
        variable.assign(variable * (wanted / measured))
