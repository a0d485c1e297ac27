"""A run that an older version trained still goes on, evaluates, exports and is shown."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.data import records, shards
from ssd_centernet.export.export import export
from ssd_centernet.export.serving import ServingRunner
from ssd_centernet.ops.image import decode_image
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.logs import read_runs
from ssd_centernet.runs.opened import open_run
from ssd_centernet.runs.report import text_report
from ssd_centernet.train import train
from tests.tiny import write_data_set

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "old_run"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
OLD_DETECTIONS = json.loads((FIXTURE / "run" / "evaluation" / "detections.json").read_text())


@pytest.fixture(scope="module")
def old_data(tmp_path_factory):
    """The data that the run was trained on, made anew."""
    return write_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture
def old_run(tmp_path):
    return shutil.copytree(FIXTURE / "run", tmp_path / "run")


def test_it_goes_on_as_the_old_code_would_have(old_run, old_data, capsys):
    config.parse(
        [FIXTURE / "recipe.gin"],
        ["train.epochs = 84", "train.log_every = 3", "train.seed = 7", "train.device = 'cpu'"],
    )
    assert train(old_run, old_data) == "finished"
    assert f"resuming from {old_run / 'ckpt-240'} at step 240" in capsys.readouterr().out
    rows = [json.loads(line) for line in (old_run / "metrics.jsonl").read_text().splitlines()]
    new = [row for row in rows if row["step"] > 240]
    assert [(row["kind"], row["step"]) for row in new] == [
        (row["kind"], row["step"]) for row in EXPECTED["continued"]
    ]
    for row, expected in zip(new, EXPECTED["continued"], strict=True):
        for name in expected.keys() - {"kind", "step"}:
            # An average precision jumps where two scores change places.
            near = {"abs": 0.05} if name == "AP" else {"rel": 1e-3}
            assert row[name] == pytest.approx(expected[name], **near), name
    assert find_checkpoint(old_run).endswith("ckpt-252")


def test_it_is_evaluated_as_the_old_code_did(old_run, old_data):
    run = open_run(old_run, device="cpu")
    assert run.checkpoint == str(old_run / "best" / "ckpt-240")
    evaluated = evaluate_run(run, old_data)
    assert evaluated.losses == pytest.approx(EXPECTED["losses"], rel=1e-4)
    assert evaluated.result.metrics == pytest.approx(EXPECTED["metrics"], abs=0.01)


def test_its_exported_file_detects_what_the_old_code_did(old_run, old_data, tmp_path):
    run = open_run(old_run, device="cpu")
    examples = [
        records.parse_example(one, run.label_map)
        for one in tf.data.TFRecordDataset(shards.find_shards(str(old_data), "coco_val"))
    ]
    images = {int(one["source_id"]): decode_image(one["encoded"]).numpy() for one in examples}
    assert sorted(images) == [1, 2, 3, 4, 5]
    export(
        run.detector,
        tmp_path / "out",
        formats=["saved_model"],
        label_map=run.label_map,
        images=list(images.values()),
    )
    serve = ServingRunner(tmp_path / "out" / "saved_model")
    assert len(OLD_DETECTIONS) == 6
    for number, image in images.items():
        old = [row for row in OLD_DETECTIONS if row["image_id"] == number]
        found = serve(image)[0]
        assert [run.label_map.ids[one] for one in found.classes] == [
            row["category_id"] for row in old
        ]
        np.testing.assert_allclose(found.scores, [row["score"] for row in old], rtol=1e-3)
        top, left, bottom, right = (found.boxes * np.tile(image.shape[:2], 2)).T
        corners = np.stack([left, top, right - left, bottom - top], axis=1)
        np.testing.assert_allclose(corners, [row["bbox"] for row in old], atol=0.05)


def test_it_is_shown_with_its_sessions_and_its_best_evaluation(old_run):
    (run,) = read_runs([old_run])
    text = text_report([run])
    assert run.steps == 240 and run.epochs == 80
    assert (run.best["step"], run.best["AP"]) == (240, pytest.approx(0.60384, abs=1e-5))
    assert "finished" in text and "0.604" in text
