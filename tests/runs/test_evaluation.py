"""The evaluation of a run: every image once, and of its own classes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import METRIC_NAMES, evaluate_detections_file
from ssd_centernet.labels import LabelMap
from ssd_centernet.runs.evaluation import (
    RunEvaluation,
    check_same_classes,
    evaluate_run,
    save_evaluation,
)
from ssd_centernet.runs.opened import open_run


def test_every_image_counts_once_whatever_the_batch_size(model_dir, data_dir):
    run = open_run(model_dir, device="cpu")
    truth = json.loads((data_dir / "coco_val.annotations.json").read_text())
    ids = sorted(image["id"] for image in truth["images"])
    assert len(ids) == 7
    results = {}
    for batch_size in (1, 3, 7, 16):
        calls = []
        evaluated = evaluate_run(
            run,
            data_dir,
            batch_size=batch_size,
            progress=lambda done, total, calls=calls: calls.append((done, total)),
        )
        steps = -(-7 // batch_size)
        assert calls == [(min(7, (n + 1) * batch_size), 7) for n in range(steps)]
        assert not evaluated.result.notes
        assert sorted(set(evaluated.result.rows.image_ids.tolist())) == ids
        results[batch_size] = evaluated
    reference = results.pop(1)
    assert tuple(reference.result.metrics) == METRIC_NAMES
    assert reference.result.metrics["ARmax100"] > 0.01
    for batch_size, other in results.items():
        assert other.result.metrics == reference.result.metrics, batch_size
        for name in ("image_ids", "category_ids"):
            np.testing.assert_array_equal(
                getattr(other.result.rows, name), getattr(reference.result.rows, name)
            )
        np.testing.assert_allclose(other.result.rows.scores, reference.result.rows.scores, 1e-5)
        np.testing.assert_allclose(other.result.rows.boxes, reference.result.rows.boxes, 1e-4, 1e-3)
    assert set(reference.losses) == {"class", "box"}
    for batch_size in (7, 16):  # All images in one batch; a larger one is made to fit.
        box = results[batch_size].losses["box"]
        np.testing.assert_allclose(box, reference.losses["box"], rtol=1e-5)


def test_saved_detections_score_the_same_again(model_dir, data_dir, tmp_path):
    run = open_run(model_dir, device="cpu")
    evaluated = evaluate_run(run, data_dir, batch_size=4)
    paths = save_evaluation(evaluated, tmp_path / "out", checkpoint="here", split="coco_val")
    assert sorted(paths) == ["detections.json", "metrics.json", "per_class.csv"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(paths)
    saved = json.loads(Path(paths["metrics.json"]).read_text())
    assert saved["metrics"] == evaluated.result.metrics
    assert (saved["checkpoint"], saved["num_images"]) == ("here", 7)
    assert saved["losses"] == evaluated.losses
    again = evaluate_detections_file(
        paths["detections.json"], data_dir / "coco_val.annotations.json"
    )
    assert again.metrics == evaluated.result.metrics


def test_data_of_other_classes_is_refused(model_dir, data_dir, tmp_path):
    run = open_run(model_dir, device="cpu")
    for file in data_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    names = list(run.label_map.names)
    LabelMap([names[0], "cube", *names[2:]], run.label_map.ids).to_pbtxt(
        tmp_path / "mscoco_label_map.pbtxt"
    )
    with pytest.raises(ValueError, match=f"class 1 is '{names[1]}'.*'cube'.*--data_dir"):
        evaluate_run(run, tmp_path)


def test_first_difference_of_label_maps_is_named():
    trained = LabelMap(["a", "b"], [1, 2])
    check_same_classes(trained, LabelMap(["a", "b"], [1, 2]), "x")
    with pytest.raises(ValueError, match=r"class 1 is 'b' \(id 2\).*'b' \(id 3\)"):
        check_same_classes(trained, LabelMap(["a", "b"], [1, 3]), "x")
    with pytest.raises(ValueError, match="the data has more of them"):
        check_same_classes(trained, LabelMap(["a", "b", "c"]), "x")
    # Of several data sets that were mixed, each has some of the classes.
    check_same_classes(trained, LabelMap(["b"], [2]), "x")
    with pytest.raises(ValueError, match="class 0 is 'a' .id 1. in the run and 'b' .id 1. in the"):
        check_same_classes(trained, LabelMap(["b"]), "x")


def test_losses_are_of_targets_from_the_input_pipeline(model_dir, data_dir):
    run = open_run(model_dir, device="cpu")
    evaluation = RunEvaluation(run, data_dir, batch_size=4)
    whole, filled = evaluation._batches
    for batch in (whole, filled):
        plain = {name: value for name, value in batch.items() if name != "targets"}
        outputs = run.detector(batch["image"], training=False)
        # Matching 200 padded rows of each image costs as much as the network.
        ours = run.detector.compute_losses(outputs, batch)
        padded = run.detector.compute_losses(outputs, plain)
        assert "targets" in batch and set(ours) == {"class", "box"}
        if batch is whole:
            assert {name: float(part) for name, part in ours.items()} == {
                name: float(part) for name, part in padded.items()
            }
    assert (filled["source_id"].numpy() == -1).sum() == 1
    assert all(len(value) == 4 for value in filled["targets"].values())
