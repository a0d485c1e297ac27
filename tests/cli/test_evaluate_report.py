"""The page that `evaluate --report` writes, of a file without tensorflow and of a run."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.test_evaluate import without_tensorflow
from tests.evaluation.pages import Document
from tests.process import cli
from tests.scripts.in_process import command
from tests.warm import without_ours


def _write_files(folder, pictures):
    """Detections beside the objects of the rendered validation images; returns their flags."""
    annotations = Path(pictures[1]["val"])
    content = json.loads(annotations.read_text())
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"]}
        | {"score": 0.9 - 0.001 * i}
        for i, a in enumerate(content["annotations"][1:])
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    return [f"--detections={folder / 'rows.json'}", f"--annotations={annotations}"]


def test_report_of_a_file_needs_no_tensorflow(pictures, tmp_path):
    flags = [*_write_files(tmp_path, pictures), f"--output_dir={tmp_path / 'out'}", "--report"]
    done = without_tensorflow("evaluate", *flags, f"--image_dir={pictures[0] / 'val'}")
    path = tmp_path / "out" / "report.html"
    assert f"written: {path}" in done.stdout
    page = Document(path.read_text(encoding="utf-8"))
    ap = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]["AP"]
    assert f"AP {ap:.3f}" in page.text
    # The one object without its detection is missed, and its image is the one that is drawn.
    assert sum(link.startswith("data:image/jpeg") for link in page.links) == 1
    assert "0 wrong, 1 not found" in page.text


def test_report_without_images_lists_them(pictures, tmp_path):
    flags = [*_write_files(tmp_path, pictures), f"--output_dir={tmp_path / 'out'}", "--report"]
    without_tensorflow("evaluate", *flags)
    text = Document((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    assert "The pictures are not available" in text


def test_what_an_evaluation_replaces_is_told(pictures, tmp_path):
    out = tmp_path / "out"
    words = ["evaluate", *_write_files(tmp_path, pictures), f"--output_dir={out}"]
    assert "note: " not in command([*words, "--report"])
    assert "note: " not in command([*words, "--report"])
    said = command(words)
    assert f"note: {out / 'report.html'} was of an earlier evaluation and is removed" in said
    assert not (out / "report.html").exists() and "note: " not in command(words)


def test_numbers_of_another_split_are_replaced_with_a_word(model_dir, data_dir, tmp_path):
    out = tmp_path / "out"
    words = ["evaluate", f"--model_dir={model_dir}", f"--data_dir={data_dir}"]
    words += [f"--output_dir={out}", "--device=cpu"]
    assert "they replace" not in command([*words, "--split=val"])
    assert "they replace" not in command([*words, "--split=val"])
    said = command([*words, "--split=train"])
    assert re.search(r"are of coco_train now: they replace those of coco_val of 20\d\d-", said)
    assert json.loads((out / "metrics.json").read_text())["split"] == "coco_train"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--detections=a", "--annotations=b", "--report"], "--output_dir must be given"),
        (["--detections=a", "--annotations=b", "--image_dir=c"], "for the pictures of --report"),
        (["--model_dir=a", "--data_dir=b", "--image_dir=c"], "come from the records in --data_dir"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    done = without_tensorflow("evaluate", *flags, status=2)
    assert message in done.stderr and "Traceback" not in done.stderr


def test_report_of_a_run_has_pictures_of_the_records(model_dir, data_dir, tmp_path, warm):
    flags = [f"--model_dir={model_dir}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
    cli("evaluate", *flags, "--report", python=without_ours(warm))
    page = Document((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "ckpt-5 on coco_val" in page.text and "ConstantRate.learning_rate" in page.text
    assert re.search(r"numbers in its weights \d", page.text)
    assert sum(link.startswith("data:image/jpeg") for link in page.links) >= 5
