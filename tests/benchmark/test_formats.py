"""The table of formats: of a run, of an export's folder and of one file."""

import json
import os
import shutil

import numpy as np
import pytest

from ssd_centernet.benchmark import alone, formats
from ssd_centernet.export import runtimes
from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.export.formats import FORMATS
from ssd_centernet.export.pictures import rendered_pictures
from ssd_centernet.runs.exported import evaluate_exported
from ssd_centernet.runs.opened import open_run
from tests.scripts.in_process import command

_QUICK = ["--windows=1", "--seconds=0.01"]


@pytest.mark.slow(minutes=2)
def test_a_run_is_measured_beside_its_files(model_dir, data_dir):
    """The table of docs/export.md, of a network with random weights and two images."""
    names = ["keras", "saved_model", "tflite", "tflite_int8"]
    words = [f"--model_dir={model_dir}", f"--data_dir={data_dir}", "--images=2", *_QUICK]
    words += [f"--formats={','.join(names)}", "--gin_params=export.pairs = 2000", "--json"]
    said = command(["benchmark", *words]).splitlines()
    of = {one["format"]: one for one in (json.loads(line) for line in said if line[:1] == "{")}
    assert list(of) == names
    for name, line in of.items():
        assert line["images"] == 2 and 0 <= line["AP"] <= 1
        assert 0 < line["latency_ms_p50"] <= line["latency_ms_p95"] and line["calls"] >= 3, name
        assert line["cpu_ms"] > 0 and line["batch_size"] == 1
        assert line["empty_rss_mb"] < line["peak_rss_mb"], name
    # TensorFlow is in the memory of what needs it alone.
    assert of["tflite"]["peak_rss_mb"] < 200 < of["saved_model"]["peak_rss_mb"]
    assert of["tflite_int8"]["bytes"] < of["tflite"]["bytes"]
    assert of["saved_model"]["AP"] == pytest.approx(of["keras"]["AP"], abs=1e-6)


def test_all_formats_are_the_model_and_those_of_an_export():
    assert formats.chosen_formats(["all"]) == ["keras", *FORMATS]
    assert formats.chosen_formats(["onnx", "keras"]) == ["onnx", "keras"]
    with pytest.raises(ValueError, match="--formats=coreml: expected names out of keras, saved_"):
        formats.chosen_formats(["onnx", "coreml"])


def test_a_format_that_cannot_be_made_leaves_the_others(model_dir, tmp_path):
    run = open_run(model_dir, gin_params=["export.pairs = 2000"], allow=("export",))
    names = ["tflite_full_int8", "saved_model"]
    found = dict(formats.exported_models(run, names, tmp_path))
    assert "the ranges of integers are measured on training pictures" in str(
        found["tflite_full_int8"]
    )
    model = found["saved_model"]
    assert model.frame == (64, 64) and model.size > 1000 and model.load().frame is None


@pytest.fixture(scope="module")
def exported(model_dir, data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "out"
    words = [f"--model_dir={model_dir}", f"--output={folder}", f"--data_dir={data_dir}"]
    words += ["--formats=tflite,tflite_int8", "--num_check_images=2"]
    command(["export", *words, "--gin_params=export.pairs = 2000"])
    return folder


def test_a_folder_and_a_file(exported, data_dir):
    said = command(["benchmark", f"--model={exported}", *_QUICK, "--threads=1"]).splitlines()
    (title,) = [line for line in said if line.startswith("formats: ")]
    assert "batch 1, 64 x 64 pixels, 1 threads of" in title and "AP" not in title
    rows = [line.split() for line in said if line.startswith("tflite")]
    assert [row[0] for row in rows] == ["tflite", "tflite_int8"]
    size = os.path.getsize(exported / "model.tflite")
    assert rows[0][1] == f"{size / 1e6:.2f}" and len(rows[0]) == 6
    one = [f"--model={exported / 'model.tflite'}", f"--data_dir={data_dir}", "--json", *_QUICK]
    (line,) = [
        json.loads(line) for line in command(["benchmark", *one]).splitlines() if line[:1] == "{"
    ]
    assert line["format"] == "tflite" and line["bytes"] == size
    found = evaluate_exported(
        formats.model_of_file(exported / "model.tflite").load(), data_dir, "coco_val"
    ).result
    assert line["AP"] == found.metrics["AP"] and line["images"] == found.num_images


def test_without_litert_tensorflow_runs_the_file(exported, monkeypatch):
    path = exported / "model.tflite"
    picture = rendered_pictures(1)[0][:64, :64]
    want = ExportedDetector(path).detect(picture)
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    signature = runtimes.tflite_signature(path)
    assert type(signature).__module__.startswith("tensorflow.")
    found = signature(images=picture[np.newaxis])
    np.testing.assert_allclose(found["scores"][0, : len(want["scores"])], want["scores"], atol=1e-5)


def test_what_a_folder_does_not_have(exported):
    said = command(["benchmark", f"--model={exported}", "--formats=onnx"], status=2)
    assert f"{exported} has no onnx, but tflite, tflite_int8." in said


def test_a_process_that_fails_is_told_in_a_line(exported, tmp_path):
    model = formats.model_of_file(shutil.copytree(exported, tmp_path / "b") / "model.tflite")
    model.path.write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"model\.tflite could not be measured: its process end"):
        formats.measure_models([model], threads=1, windows=1, seconds=0.01)


def test_calls_go_through_the_pictures_and_are_timed():
    seen = []
    pictures = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    found = alone.measure(lambda picture: seen.append(picture.item()), pictures, seconds=0.0)
    assert seen == [0, 1, 2, 0, 1, 0, 1, 2] and len(found["milliseconds"]) == 3
    assert found["cpu_milliseconds"] >= 0
