"""The way of a new user through real processes, from rendered pictures to drawn predictions."""

import contextlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.evaluation.coco import METRIC_NAMES, evaluate_detections_file
from tests.process import Running, cli
from tests.tiny import RUN_RECIPE
from tests.warm import without_ours


def _side_by_side(python, *commands):
    """Run commands that do not wait for each other; return what they print, all ending well."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(Running(python, "-m", "ssd_centernet", *command))
            for command in commands
        ]
        return [one.finish(status=0).stdout for one in running]


@pytest.fixture(scope="module")
def way(tmp_path_factory, warm):
    """Everything, run once: a dict of folders and of what the commands printed.

    Each command imports the library itself; those of README run in fresh interpreters in
    tests/docs/test_pages.py.
    """
    python = without_ours(warm)
    top = tmp_path_factory.mktemp("way")
    pictures, data, run = top / "pictures", top / "data", top / "run"
    recipe = top / "tiny.gin"
    recipe.write_text(RUN_RECIPE)
    counts = ("--num_train=8", "--num_val=5", "--min_size=60", "--max_size=90")
    cli("make_synthetic", f"--output_dir={pictures}", *counts, python=python)
    _side_by_side(python, *(_convert(pictures, data, split) for split in ("train", "val")))
    training = ["train", f"--gin_file={recipe}", f"--data_dir={data}", f"--model_dir={run}"]
    sheet = top / "inputs.png"
    shown = ["show_inputs", f"--gin_file={recipe}", f"--data_dir={data}", f"--output={sheet}"]
    trained, inputs = _side_by_side(python, training, [*shown, "--num_images=4"])
    there = [f"--model_dir={run}", f"--data_dir={data}", "--device=cpu"]
    (top / "broken.jpg").write_text("no picture")
    files = [pictures / "val", top / "broken.jpg"]
    evaluated, predicted = _side_by_side(
        python,
        ["evaluate", *there, "--batch_size=3", f"--output_dir={top / 'scores'}"],
        ["predict", there[0], there[2], "--contact_sheet", *files, "--batch_size=2"],
    )
    before = (run / "evaluation" / "metrics.json").read_text()
    drawn = _contents(run / "predictions")
    # Both commands have begun from nothing above.
    again = cli(*training, "--mode=eval", "--batch_size=5", python=warm).stdout
    refused = [
        cli("predict", there[0], *given, python=warm, status=status).stderr
        for given, status in (
            ((pictures / "val", top / "missing.jpg", top / "gone"), 1),
            ((top / "broken.jpg",), 1),
            ((pictures / "val", f"--output_dir={recipe}"), 2),
        )
    ]
    assert _contents(run / "predictions") == drawn
    return {
        "top": top,
        "printed": {
            "train": trained,
            "show_inputs": inputs,
            "evaluate": evaluated,
            "predict": predicted,
            "eval mode": again,
        },
        "metrics of training": json.loads(before),
        "refused": refused,
    }


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _convert(pictures, data, split):
    annotations = pictures / "annotations" / f"instances_{split}.json"
    return [
        "convert",
        f"--annotations={annotations}",
        f"--image_dir={pictures / split}",
        f"--output_dir={data}",
        f"--split={split}",
        "--num_shards=2",
    ]


def _metrics(path):
    return json.loads(path.read_text())["metrics"]


def test_training_leaves_a_run_and_its_evaluation(way):
    run = way["top"] / "run"
    *_, finished, following = way["printed"]["train"].strip().splitlines()
    assert finished == f"finished: {run}"
    assert following.startswith(f"next: ssd_centernet evaluate --model_dir={run}")
    for name in ("config.gin", "mscoco_label_map.pbtxt", "metrics.jsonl", "ckpt-3.index", "best"):
        assert (run / name).exists(), name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"train", "eval"}
    assert way["metrics of training"]["num_images"] == 5


def test_evaluate_gives_the_numbers_that_training_gave(way):
    scores = way["top"] / "scores"
    assert sorted(p.name for p in scores.iterdir()) == [
        "detections.json",
        "metrics.json",
        "per_class.csv",
    ]
    metrics = _metrics(scores / "metrics.json")
    for name in METRIC_NAMES:
        assert metrics[name] == pytest.approx(way["metrics of training"]["metrics"][name]), name
    printed = way["printed"]["evaluate"]
    assert re.search(rf"^AP50 +{metrics['AP50']:.3f} ", printed, re.MULTILINE)
    for shape in ("disc", "square", "triangle"):
        assert re.search(rf"^{shape} ", printed, re.MULTILINE)
    assert "5 images" in printed and "/run/best/ckpt-3 on data_val" in printed


def test_eval_mode_of_train_is_evaluate(way):
    """Same table, other batch size; written where the run is."""
    tables = [
        re.findall(r"^[A-Z]\w+ +[\d.-]+  ", way["printed"][name], re.MULTILINE)
        for name in ("evaluate", "eval mode")
    ]
    assert len(tables[0]) == 12 and tables[0] == tables[1]
    content = json.loads((way["top"] / "run" / "evaluation" / "metrics.json").read_text())
    assert content["split"] == "data_val" and content["checkpoint"].endswith("ckpt-3")


def test_predictions_of_files_score_as_their_records(way):
    top = way["top"]
    truth = top / "pictures" / "annotations" / "instances_val.json"
    scored = evaluate_detections_file(top / "run" / "predictions" / "detections.json", truth)
    assert scored.num_detections > 0
    expected = _metrics(top / "scores" / "metrics.json")
    for name in METRIC_NAMES:
        assert scored.metrics[name] == pytest.approx(expected[name], abs=1e-6), name


def test_predict_draws_every_image_and_names_what_it_skipped(way):
    folder = way["top"] / "run" / "predictions"
    lists = json.loads((folder / "images.json").read_text())
    assert len(lists["images"]) == 5
    for image in lists["images"]:
        with Image.open(folder / image["drawing"]) as drawing:
            assert drawing.size == (image["width"], image["height"])
    assert (folder / "contact_sheet.png").exists()
    assert list(lists["unreadable"]) == [str(way["top"] / "broken.jpg")]
    assert "5 images" in way["printed"]["predict"]
    assert "1 file skipped" in way["printed"]["predict"]


def test_predict_reads_videos_and_says_how_fast(way, tmp_path, warm):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    from ssd_centernet.predict.video_files import VideoWriter

    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    writer = VideoWriter(clip, 10.0)
    for level in (20, 120, 220):
        writer.add(np.full((60, 80, 3), level, np.uint8))
    writer.close()
    given = ("predict", f"--model_dir={way['top'] / 'run'}", "--device=cpu", f"--output_dir={out}")
    said = cli(*given, clip, "--min_score=0", "--batch_size=2", python=warm, status=0).stdout
    assert re.search(rf"{clip}: 3 frames, \d+ detections of .*, [\d.]+ frames per second: ", said)
    assert said.rstrip().endswith(f"{out / 'clip.mp4'} and {out / 'clip.jsonl'}")
    rows = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    assert [(row["frame"], row["time"]) for row in rows] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    clip.write_bytes(clip.read_bytes()[:300])
    cut = cli(*given, clip, python=warm, status=1).stderr
    assert cut.count("\n") == 1 and "clip.mp4 cannot be opened as a video: it is cut off" in cut
    mixed = cli(*given, clip, way["top"] / "pictures", python=warm, status=2).stderr
    assert "clip.mp4 is a video and" in mixed and "give them in two calls" in mixed


def test_predict_fails_where_nothing_can_be_read(way):
    """What an earlier call wrote stays, which the fixture compares."""
    gone, broken, file = way["refused"]
    assert gone.count("\n") == 1 and "missing.jpg does not exist (nor does 1 other)" in gone
    assert "broken.jpg: " in broken and "None of 1 file could be read as an image" in broken
    assert "tiny.gin is a file, expected a folder." in file and "Traceback" not in broken


def test_show_inputs_draws_the_sheet(way):
    with Image.open(way["top"] / "inputs.png") as sheet:
        assert min(sheet.size) > 2 * 448
    found = re.search(
        r"4 images, (\d+) objects, (\d+) anchors; reached: \d+",
        way["printed"]["show_inputs"],
    )
    assert int(found[2]) >= int(found[1]) > 0
