"""Files of OpenVINO, in float32 and in integers. `pip install ".[openvino]"` lets these run."""

import json
import subprocess
import sys

import pytest

from ssd_centernet.benchmark import formats
from ssd_centernet.export import runtimes
from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.export.pictures import rendered_pictures
from tests.export.lively import lively_detector
from tests.process import environment


def openvino(name="openvino"):
    """The package, imported as the library does it, which then reports nothing."""
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    try:
        return runtimes.import_openvino(name)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("ssd300_resnet34", {}),
        ("ssd320_resnet50_fpn", {"batch_size": 2}),
        ("ssd300_vgg16", {"input_size": (130, 90)}),
        ("centernet_resnet101_fpn", {"input_size": (90, 130)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_same_detections(recipe, options, tmp_path):
    openvino()
    detector = lively_detector(recipe)
    pictures = rendered_pictures(2)
    card = export(detector, tmp_path / "out", formats=["openvino"], images=pictures, **options)
    entry = card["formats"]["openvino"]
    assert entry["parity"]["compared"] > 50 and entry["parity"]["share"] >= 0.995
    assert entry["image_size"] == list(options.get("input_size", detector.image_size))
    assert set(card["bytes"]) == {"model.xml", "model.bin", "labels.txt"}
    model = formats.model_of_file(tmp_path / "out" / "model.xml")
    assert model.name == "openvino" and model.size == sum(
        card["bytes"][name] for name in ("model.xml", "model.bin")
    )
    (line,) = formats.measure_models([model], threads=1, windows=1, seconds=0.01)
    assert line["batch_size"] == options.get("batch_size", 1) and line["peak_rss_mb"] < 300


@pytest.mark.parametrize("recipe", ["ssd300_resnet34", "centernet_resnet101_fpn"])
def test_integers(recipe, tmp_path):
    openvino("nncf")
    detector = lively_detector(recipe)
    pictures = rendered_pictures(6)
    asked = []

    def measure(run, frame):
        asked.append(frame)
        return 0.5, len(pictures)

    card = export(
        detector,
        tmp_path / "out",
        formats=["openvino_int8"],
        images=pictures,
        calibration=pictures,
        measure=measure,
        input_size=(90, 130),
    )
    entry = card["formats"]["openvino_int8"]
    assert entry["ap"]["file"] == 0.5 and asked == [(90, 130)] * 2
    assert entry["calibration_images"] == 6 and entry["parity"]["share"] > 0.3
    kinds = {
        operation.get_type_name()
        for operation in openvino().Core().read_model(tmp_path / "out" / "model_int8.xml").get_ops()
    }
    assert "FakeQuantize" in kinds
    found = ExportedDetector(tmp_path / "out" / "model_int8.xml").detect(pictures[0])
    assert len(found["scores"]) > 0


def test_weights_that_are_missing_are_named(tmp_path):
    openvino()
    detector = lively_detector("ssd300_resnet34")
    export(detector, tmp_path / "out", formats=["openvino"], images=rendered_pictures(1))
    (tmp_path / "out" / "model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.bin is missing: it holds the weights"):
        ExportedDetector(tmp_path / "out" / "model.xml")


_IMPORTS = """
import json, sys
from ssd_centernet.export import runtimes
for name in {names}:
    runtimes.import_openvino(name)
print(json.dumps([name for name in sys.modules if name.startswith("openvino_telemetry")]))
"""


def test_nothing_is_reported_to_the_makers():
    openvino()
    names = ["openvino", "nncf"] if runtimes.importlib.util.find_spec("nncf") else ["openvino"]
    code = _IMPORTS.format(names=names)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == []


def test_a_package_that_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r'needs: pip install "ssd_centernet\[openvino\]"'):
        runtimes.import_openvino("openvino")
    assert "openvino_telemetry" not in sys.modules  # Not as one that cannot be imported either.
