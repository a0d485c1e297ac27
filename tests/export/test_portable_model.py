"""A SavedModel for converters: the operations of TFLite, and the detections of the model."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.export.pictures import rendered_pictures
from tests.export.lively import lively_detector

# Of `saved_model`; TensorFlow.js's converter refuses both.
_UNKNOWN = {"CombinedNonMaxSuppression", "NextAfter"}


def operations(path) -> set[str]:
    """Return the kinds of operations of a SavedModel's first signature, those of loops too."""
    loaded = tf.saved_model.load(str(path))
    definition = loaded.signatures["serving_default"].graph.as_graph_def()
    kinds = {node.op for node in definition.node}
    return kinds | {node.op for one in definition.library.function for node in one.node_def}


@pytest.mark.parametrize("recipe", ["ssd300_resnet34", "centernet_resnet101_fpn"])
def test_its_operations_are_known_and_it_detects_what_the_model_detects(
    recipe, tmp_path, monkeypatch
):
    detector, pictures = lively_detector(recipe), rendered_pictures(2)
    decoder, callers = type(detector.decoder), set()
    call = decoder.call

    def watched(*arguments, **options):
        callers.update(frame.filename for frame in inspect.stack(0))
        return call(*arguments, **options)

    monkeypatch.setattr(decoder, "call", watched)
    formats = ["saved_model_portable"] + ["saved_model"] * (recipe == "ssd300_resnet34")
    card = export(detector, tmp_path / "out", formats=formats, images=pictures, batch_size=2)
    entry = card["formats"]["saved_model_portable"]
    assert entry["image_size"] == [96, 96] and entry["parity"]["compared"] > 0
    # AutoGraph would take longer to rewrite the parts than the rest of an export takes.
    assert callers and not [name for name in callers if "__autograph_generated_file" in name]
    assert not operations(tmp_path / "out" / "saved_model_portable") & _UNKNOWN
    if "saved_model" in formats:
        assert operations(tmp_path / "out" / "saved_model") >= _UNKNOWN
    # As a file of one size, it takes pictures of any.
    found = ExportedDetector(tmp_path / "out" / "saved_model_portable").detect(pictures[0])
    wanted = detector.detect(pictures[0])
    assert abs(len(found["scores"]) - int(wanted["count"][0])) <= 0.2 * int(wanted["count"][0])
    assert np.isfinite(found["boxes"]).all()
