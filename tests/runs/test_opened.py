"""Run directories, and the evaluation of a run."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet.evaluation.coco import METRIC_NAMES, evaluate_detections_file
from ssd_centernet.labels import LabelMap
from ssd_centernet.run_directory import choose_checkpoint
from ssd_centernet.runs.evaluation import check_same_classes, evaluate_run, save_evaluation
from ssd_centernet.runs.opened import open_run


def test_checkpoint_is_the_best_one_unless_told_otherwise(model_dir):
    def chosen(checkpoint):
        return Path(choose_checkpoint(model_dir, checkpoint)).relative_to(model_dir).as_posix()

    assert chosen(None) == chosen("best") == "best/ckpt-5"
    assert chosen("latest") == "ckpt-10"
    assert chosen("ckpt-5") == "ckpt-5"
    assert chosen(str(model_dir / "ckpt-10")) == "ckpt-10"


def test_missing_checkpoint_lists_what_there_is(model_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'ckpt-7'.*ckpt-10, ckpt-5, best.*--checkpoint"):
        choose_checkpoint(model_dir, "ckpt-7")
    with pytest.raises(FileNotFoundError, match="is not a run directory: it has no config.gin"):
        choose_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run directory"):
        choose_checkpoint(tmp_path / "none")


def test_override_takes_effect_and_one_without_effect_is_refused(model_dir):
    run = open_run(model_dir, gin_params=["SSDDecoder.max_detections = 3"], device="cpu")
    detections = run.detector.detect(np.zeros((1, 20, 30, 3), np.uint8))
    assert detections["boxes"].shape == (1, 3, 4)
    assert run.eval_split == "coco_val"
    with pytest.raises(config.ConfigError, match="train.batch_size"):
        open_run(model_dir, gin_params=["train.batch_size = 2"], device="cpu")


def test_weights_that_do_not_fit_are_refused(model_dir):
    with pytest.raises(ValueError, match="does not fit the settings.*missing in it"):
        open_run(model_dir, gin_params=["ResNet.blocks = (2,)"], device="cpu")
    with pytest.raises(ValueError, match="does not fit the settings.*have another shape"):
        open_run(model_dir, gin_params=["ResNet.stem_width = 4"], device="cpu")


def test_run_without_settings_or_classes_is_refused(model_dir, tmp_path):
    for file in model_dir.glob("ckpt-10*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match="no config.gin"):
        open_run(tmp_path, checkpoint="ckpt-10")
    (tmp_path / "config.gin").write_bytes((model_dir / "config.gin").read_bytes())
    with pytest.raises(FileNotFoundError, match="no mscoco_label_map.pbtxt"):
        open_run(tmp_path, checkpoint="ckpt-10")


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
    with pytest.raises(ValueError, match="the run has more of them"):
        check_same_classes(trained, LabelMap(["a"]), "x")
