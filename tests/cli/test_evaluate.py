"""Scoring a file of detections through the command line, which needs no tensorflow."""

import json
import re

import pytest

from ssd_centernet.evaluation.backends import CHOICES
from tests.cli.command_line import parsed
from tests.process import python

# Prevents any import of tensorflow, then runs the command line.
_WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
from ssd_centernet.cli.main import run
run(["ssd_centernet", *sys.argv[1:]])
"""


def without_tensorflow(*arguments, status=0):
    """Run `ssd_centernet` where tensorflow cannot be imported."""
    return python(_WITHOUT_TENSORFLOW, *arguments, status=status)


@pytest.fixture
def scored_files(tmp_path):
    """Two images with an object each, and detections that are exactly these."""
    truth = {
        "images": [{"id": i, "height": 50, "width": 60} for i in (1, 2)],
        "categories": [{"id": 5, "name": "cup"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5, "bbox": [4, 6, 20, 10 * i]}
            | {"area": 200 * i, "iscrowd": 0}
            for i in (1, 2)
        ],
    }
    rows = [
        {"image_id": i, "category_id": 5, "bbox": [4, 6, 20, 10 * i], "score": 0.9} for i in (1, 2)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "perfect.json").write_text(json.dumps(rows))
    (tmp_path / "empty.json").write_text("[]")
    return tmp_path


def test_every_library_can_be_chosen():
    with parsed("evaluate", ["--backend=hotcoco"]) as values:
        assert tuple(values["backend"].parser.enum_values) == CHOICES


def test_detections_file_is_scored_without_tensorflow(scored_files):
    output = scored_files / "out"
    done = without_tensorflow(
        "evaluate",
        f"--detections={scored_files / 'perfect.json'}",
        f"--annotations={scored_files / 'truth.json'}",
        f"--output_dir={output}",
    )
    assert re.search(r"^AP +1\.000", done.stdout, re.MULTILINE)
    assert re.search(r"^cup +1\.000 +1\.000 +2 +2$", done.stdout, re.MULTILINE)
    assert json.loads((output / "metrics.json").read_text())["metrics"]["AP50"] == 1.0
    assert (output / "per_class.csv").exists() and (output / "detections.json").exists()


def test_empty_detections_file_scores_zero_and_says_why(scored_files):
    done = without_tensorflow(
        "evaluate",
        f"--detections={scored_files / 'empty.json'}",
        f"--annotations={scored_files / 'truth.json'}",
    )
    assert re.search(r"^AP +0\.000", done.stdout, re.MULTILINE)
    assert "AP is near zero: There are no detections on 2 images" in done.stdout
    assert "written" not in done.stdout


def test_undefined_ap_is_not_called_near_zero(scored_files, tmp_path):
    truth = json.loads((scored_files / "truth.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "annotations": []}))
    arguments = [f"--detections={scored_files / 'perfect.json'}"]
    done = without_tensorflow("evaluate", *arguments, f"--annotations={tmp_path / 'truth.json'}")
    assert "AP is undefined: the ground truth has 2 images but no object" in done.stdout
    assert "near zero" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--detections=a.json"], 2, "--annotations must be given"),
        (["--detections=a", "--annotations=b", "--model_dir=c"], 2, "--model_dir cannot be used"),
        (["--detections=a", "--annotations=b", "--weights=raw"], 2, "--weights cannot be used"),
        (["--detections=a", "--annotations=b", "--device=cpu"], 2, "--device cannot be used"),
        (["--detections=none.json", "--annotations=none.json"], 1, "none.json: No such file"),
        ([], 2, "--model_dir must be given"),
        (["stray"], 2, r"Unexpected arguments \['stray'\]"),
    ],
)
def test_wrong_command_lines_of_evaluate(arguments, code, message):
    done = without_tensorflow("evaluate", *arguments, status=code)
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr


def test_a_limit_above_cocos_counts_all_objects_of_a_crowded_image(scored_files, tmp_path):
    truth = json.loads((scored_files / "truth.json").read_text())
    boxes = [[4 + i % 50, 2 + i // 50, 1, 1] for i in range(150)]
    truth["annotations"] = [
        {"id": i + 1, "image_id": 1, "category_id": 5, "bbox": box, "area": 1, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    rows = [{"image_id": 1, "category_id": 5, "bbox": box, "score": 0.5} for box in boxes]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    # As Windows writes it, with a byte order mark.
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8-sig")
    files = [f"--detections={tmp_path / 'rows.json'}", f"--annotations={tmp_path / 'truth.json'}"]
    usual = without_tensorflow("evaluate", *files).stdout
    assert re.search(r"^ARmax100 +0\.667", usual, re.MULTILINE)
    assert re.search(r"^note: 1 image has more than 100 objects of a class", usual, re.MULTILINE)
    assert "66.6 % of the objects can be found at all, and AP cannot pass 0.67" in usual
    output = tmp_path / "out"
    limit = ["--max_detections=150", "--backend=pycocotools"]
    whole = without_tensorflow("evaluate", *files, *limit, f"--output_dir={output}")
    assert "matched by pycocotools" in whole.stdout
    assert re.search(r"^AP +1\.000", whole.stdout, re.MULTILINE)
    assert re.search(r"^ARmax150 +1\.000", whole.stdout, re.MULTILINE)
    assert json.loads((output / "metrics.json").read_text())["max_detections"] == 150
    refused = without_tensorflow("evaluate", *files, "--max_detections=10", status=2)
    assert "--max_detections is 10, expected 11 or more" in refused.stderr
    assert "recall at 1 and at 10 detections" in refused.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff[]", "is not valid JSON"),
        (b'[{"image_id": 1', "is not valid JSON"),
        (b"{}", "expected a list"),
    ],
)
def test_detections_that_cannot_be_read_are_named(scored_files, content, message):
    path = scored_files / "rows.json"
    path.write_bytes(content)
    files = [f"--detections={path}", f"--annotations={scored_files / 'truth.json'}"]
    done = without_tensorflow("evaluate", *files, status=1)
    assert message in done.stderr and "rows.json" in done.stderr and "Traceback" not in done.stderr
