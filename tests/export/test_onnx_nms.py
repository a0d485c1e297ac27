"""ONNX with its own operation for the suppression: what the detector detects, without loops."""

import collections

import numpy as np
import pytest

from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.export.parity import ParityError
from ssd_centernet.export.pictures import rendered_pictures
from tests.export.lively import lively_detector

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("recipe", ["ssd300_resnet34", "ssd320_resnet50_fpn"])
def test_any_size_and_batch(recipe, tmp_path):
    detector = lively_detector(recipe)
    pictures = rendered_pictures(2)
    card = export(detector, tmp_path / "out", formats=["onnx_nms"], images=pictures)
    entry = card["formats"]["onnx_nms"]
    assert entry["parity"]["compared"] > 50 and entry["parity"]["share"] >= 0.995
    assert entry["file"] == "model_nms.onnx" and entry["image_size"] == "any"
    model = onnx.load(tmp_path / "out" / "model_nms.onnx")
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert kinds["NonMaxSuppression"] == 1 and not {"Loop", "If", "Scan"} & set(kinds)
    (opset,) = [one.version for one in model.opset_import if one.domain == ""]
    assert opset == 17 and {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    images = np.random.default_rng(2).integers(0, 256, (3, 50, 70, 3), np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model_nms.onnx")
    names = ["boxes", "scores", "classes", "count"]
    found = dict(zip(names, session.run(names, {"images": images}), strict=True))
    want = detector.detect(images, **card["thresholds"])
    assert found["count"].tolist() == want["count"].numpy().tolist() and found["count"].min() > 0
    np.testing.assert_allclose(found["scores"], want["scores"], atol=1e-5)
    assert found["classes"].dtype == np.int32 and found["boxes"].shape == want["boxes"].shape


def test_a_fixed_size_and_batch(tmp_path):
    detector = lively_detector("ssd300_resnet34")
    options = {"input_size": (90, 130), "batch_size": 2, "images": rendered_pictures(2)}
    export(detector, tmp_path / "out", formats=["onnx_nms"], **options)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model_nms.onnx")
    assert session.get_inputs()[0].shape == [2, 90, 130, 3]
    most = detector.decoder.max_detections
    shapes = {one.name: one.shape for one in session.get_outputs()}
    assert shapes == {
        "boxes": [2, most, 4],
        "scores": [2, most],
        "classes": [2, most],
        "count": [2],
    }
    found = ExportedDetector(tmp_path / "out" / "model_nms.onnx").detect(rendered_pictures(1)[0])
    assert len(found["scores"]) > 0


def test_a_decoder_that_suppresses_nothing_is_told(tmp_path):
    detector = lively_detector("centernet_resnet101_fpn")
    with pytest.raises(ValueError, match="CenterNetDecoder suppresses no boxes. Export onnx,"):
        export(detector, tmp_path / "out", formats=["onnx_nms"], images=rendered_pictures(1))
    assert not list(tmp_path.iterdir())


def test_another_threshold_in_the_file_is_refused(tmp_path, monkeypatch):
    """The check of an export looks at this form too."""
    from ssd_centernet.ops import standard_nms

    combined = standard_nms._combined

    def wrong(*values, iou_threshold, **limits):
        return combined(*values, iou_threshold=0.2, **limits)

    monkeypatch.setattr(standard_nms, "_combined", wrong)
    detector = lively_detector("ssd300_resnet34")
    with pytest.raises(ParityError, match="onnx_nms does not detect what the model detects"):
        export(detector, tmp_path / "out", formats=["onnx_nms"], images=rendered_pictures(2))
