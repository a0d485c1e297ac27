"""The input pipeline with and without compiled operations."""

import numpy as np
import pytest

from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.native import library
from ssd_centernet.ops import matching

ANCHORS = np.stack(np.meshgrid(*[np.linspace(0, 0.75, 4)] * 2), axis=-1).reshape(-1, 2)
ANCHORS = np.concatenate([ANCHORS, ANCHORS + 0.25], axis=1).astype(np.float32)


def make_targets(boxes, classes, is_crowd, extent):
    del is_crowd, extent
    matches, labels, codes = matching.find_targets(boxes, classes, ANCHORS)
    return {"matches": matches, "classes": labels, "boxes": codes}


def batch(data_dir, native):
    batches = training_batches(
        str(data_dir),
        label_map=load_label_map(data_dir),
        batch_size=4,
        augment=SSDAugment((32, 48), compiled=False),
        make_targets=make_targets,
        max_boxes=20,
        native=native,
    )
    return next(iter(batches))


def test_batches_are_the_same_in_both_forms(data_dir):
    graph, compiled = batch(data_dir, False), batch(data_dir, True)
    for key in ("boxes", "classes", "valid", "area", "source_id", "extent"):
        np.testing.assert_array_equal(graph[key], compiled[key])
    for key in ("matches", "classes"):
        np.testing.assert_array_equal(graph["targets"][key], compiled["targets"][key])
    np.testing.assert_allclose(graph["targets"]["boxes"], compiled["targets"]["boxes"], atol=1e-5)
    error = np.abs(graph["image"].numpy() - compiled["image"].numpy())
    assert 0 < error.max() < 2e-5  # Of pixels on the 0..1 scale, over a deviation of 0.22.
    assert library.active() is None


def test_what_is_asked_for_and_not_there_is_an_error(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_CENTERNET_NATIVE", str(tmp_path))
    library.load.cache_clear()
    with pytest.raises(ValueError, match="native is True, but the operations are not compiled"):
        batch(data_dir, True)
    assert batch(data_dir, None)["image"].shape == (4, 32, 48, 3)
    monkeypatch.undo()
    library.load.cache_clear()
