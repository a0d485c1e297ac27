"""The root that builds a recipe's detector."""

import tensorflow as tf

from ssd_centernet.building import build_detector
from tests.tiny import tiny_detector


def test_no_layer_is_converted_by_autograph():
    # Keras asks this when it calls a layer, and converts the layer unless it is off.
    found = []

    def model(num_classes, class_names):
        found.append(tf.__internal__.autograph.control_status_ctx().status.name)
        return tiny_detector(num_classes)

    build_detector(model, num_classes=2)
    assert found == ["DISABLED"]
