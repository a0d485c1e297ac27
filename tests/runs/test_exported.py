"""Exported files are evaluated and drawn with as they will run."""

import importlib.util
import json

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import evaluate_detections_file
from ssd_centernet.export import exported as exported_files
from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.export.parity import FLOAT, Found, compare
from ssd_centernet.export.portable import TFLiteRunner
from ssd_centernet.files import write_atomically
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.predict.image_files import find_images, read_image
from ssd_centernet.predict.tiled import TiledDetector
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.exported import SplitMeasure, evaluate_exported
from ssd_centernet.runs.opened import open_run
from tests.export.lively import enliven
from tests.process import CLI, run
from tests.scripts.in_process import command


@pytest.fixture(scope="module")
def lively_run(model_dir):
    """The run, with random weights whose scores differ from each other."""
    opened = open_run(model_dir, device="cpu")
    enliven(opened.detector)
    return opened


@pytest.fixture(scope="module")
def folder(lively_run, tmp_path_factory):
    """The exported run."""
    folder = tmp_path_factory.mktemp("exported") / "files"
    # Random weights find very much.
    there = {package for package, _ in FILES.values() if importlib.util.find_spec(package)}
    if not importlib.util.find_spec("tf2onnx"):
        there = {"tensorflow"}
    formats = [name for package, name in FILES.values() if package in there]
    options = {"formats": formats, "pairs": 4096}
    export(lively_run.detector, folder, label_map=lively_run.label_map, **options)
    return folder


# File -> the package that it needs, and the format that `export` calls it.
FILES = {
    "saved_model": ("tensorflow", "saved_model"),
    "saved_model_portable": ("tensorflow", "saved_model_portable"),
    "model.tflite": ("tensorflow", "tflite"),
    "model_nms.onnx": ("onnxruntime", "onnx_nms"),
    "model.xml": ("openvino", "openvino"),
}


@pytest.fixture
def photos(pictures):
    return [read_image(path) for path in find_images([pictures[0] / "val"])]


def test_a_saved_model_has_the_metrics_of_its_run(lively_run, folder, data_dir):
    calls = []
    model = ExportedDetector(folder / "saved_model")
    assert model.frame is None and model.label_map == lively_run.label_map
    ours = evaluate_exported(
        model, data_dir, "coco_val", progress=lambda done, total: calls.append((done, total))
    )
    theirs = evaluate_run(lively_run, data_dir)
    assert calls == [(number, 7) for number in range(1, 8)]
    assert ours.result.num_images == 7 and ours.losses == {}
    assert theirs.result.metrics["ARmax100"] > 0.01
    for name, value in theirs.result.metrics.items():
        assert ours.result.metrics[name] == pytest.approx(value, abs=2e-3), name


def test_the_first_images_alone_can_count(lively_run, folder, data_dir):
    """Images that are left out are no misses; the measure of an export does the same."""
    model = ExportedDetector(folder / "model.tflite")
    three = evaluate_exported(model, data_dir, "coco_val", count=3).result
    every = evaluate_exported(model, data_dir, "coco_val", count=50).result
    assert three.num_images == 3 and every.num_images == 7
    assert 0 < three.num_detections < every.num_detections
    assert three.metrics["AP"] != every.metrics["AP"]
    measure = SplitMeasure(
        data_dir=str(data_dir),
        split="coco_val",
        label_map=lively_run.label_map,
        keep_aspect=False,
        count=3,
    )
    assert measure(TFLiteRunner(folder / "model.tflite"), (64, 64)) == (three.metrics["AP"], 3)


def test_a_file_of_one_size_takes_images_of_any(folder, photos):
    model, whole = (
        ExportedDetector(folder / "model.tflite"),
        ExportedDetector(folder / "saved_model"),
    )
    assert model.frame == (64, 64)
    for image in photos[:2]:
        assert image.shape[:2] != model.frame
        fitted, extent = exported_files.fit_image(image, model.frame, False)
        assert extent.tolist() == [1.0, 1.0]
        pair = [Found(full=True, **one) for one in (model.detect(image), whole.detect(fitted))]
        result = compare([tuple(pair)], FLOAT, score_threshold=0.01)
        assert result.compared > 20 and result.share > 0.95


def test_boxes_of_padded_images_are_those_of_the_image(tmp_path, monkeypatch):
    seen = []

    def find(image):
        seen.append(image)
        box = np.array([[0.25, 0.5, 0.5, 1.0]], np.float32)
        return [Found(boxes=box, scores=np.ones(1), classes=np.zeros(1, int), full=False)]

    find.frame = (64, 64)
    monkeypatch.setattr(exported_files, "_runner", lambda path: find)
    # A card of an older version says it in words.
    steps = {"steps": ["fitted into [64, 64] with the aspect ratio kept"]}
    card = {"labels": [{"class": 0, "name": "cat"}], "preprocessing": steps}
    write_atomically(tmp_path / "model_card.json", json.dumps(card))
    model = ExportedDetector(tmp_path / "model.tflite")
    assert model.label_map.names == ("cat",)
    found = model.detect(np.full((50, 100, 3), 200, np.uint8))
    assert (seen[0][:32] == 200).all() and not seen[0][32:].any()
    np.testing.assert_allclose(found["boxes"], [[0.5, 0.5, 1.0, 1.0]])


@pytest.mark.parametrize("name", FILES)
def test_commands_take_a_file(name, folder, data_dir, pictures, tmp_path, warm):
    path, out, drawn = folder / name, tmp_path / "evaluation", tmp_path / "drawn"
    if not path.exists():
        pytest.skip(f"{FILES[name][0]} and tf2onnx are not both installed")
    line = (warm, "-m", "ssd_centernet", "evaluate", f"--model={path}", f"--data_dir={data_dir}")
    said = run(*line, f"--output_dir={out}").stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["split"] == "coco_val" and "7 images" in said and metrics["num_detections"] > 0
    truth = data_dir / "coco_val.annotations.json"
    again = evaluate_detections_file(out / "detections.json", truth)
    assert again.metrics == pytest.approx(metrics["metrics"])
    assert metrics["metrics"]["ARmax100"] > 0.01
    photos = pictures[0] / "val"
    said = command(["predict", f"--model={path}", f"--output_dir={drawn}", photos])
    assert f"{path}: 7 images, " in said and len(list(drawn.glob("*.png"))) == 7
    # Each picture as it is, and not as the conversion stores it; the same file and pixels.
    rows = json.loads((drawn / "detections.json").read_text())
    model = ExportedDetector(path)
    first = json.loads((drawn / "images.json").read_text())["images"][0]
    found = model.detect(read_image(first["path"]))
    mine = [row["score"] for row in rows if row["image_id"] == first["id"]]
    np.testing.assert_allclose(mine, found["scores"], atol=1e-5)


def test_a_file_detects_in_tiles_as_its_run_does(lively_run, folder, photos):
    model = ExportedDetector(folder / "model.tflite")
    for image in photos[:2]:
        options = {"tiles": Tiles(64, 16), "whole_picture": False, "iou_threshold": 1.0}
        pair = [TiledDetector(one, **options).detect(image) for one in (model, lively_run.detector)]
        assert len(pair[0]["scores"]) > len(model.detect(image)["scores"])
        founds = tuple(Found(full=True, **one) for one in pair)
        result = compare([founds], FLOAT, score_threshold=0.01)
        assert result.compared > 20 and result.share > 0.9
    assert TiledDetector(model, 64).label_map == lively_run.label_map


def test_what_is_no_file_of_an_export_is_told(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*gone.tflite: expected a file of"):
        ExportedDetector(tmp_path / "gone.tflite")
    with pytest.raises(ValueError, match=r"Files in it: model\.tflite, .*saved_model_portable\."):
        ExportedDetector(folder)
    alone = tmp_path / "model.tflite"
    alone.write_bytes((folder / "model.tflite").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"model_card\.json is missing or damaged"):
        ExportedDetector(alone)
    for flag in ("--model_dir=runs/x", "--batch_size=2", "--report", "--device=cpu"):
        line = (*CLI, "evaluate", f"--model={alone}", "--data_dir=data", flag)
        assert flag.split("=")[0] in run(*line, status=2).stderr
