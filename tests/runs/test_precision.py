"""Runs side by side: the numbers of a comparison, from files as training and evaluation leave."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.runs.logs import RunLog, smoothed
from ssd_centernet.runs.planned import check_settings, plan_runs
from ssd_centernet.runs.precision import Comparison


def write_run(folder, losses, *, ap=0.25, every=1, scales=None, skipped=0, text=""):
    """Write what a run of `every` steps a window leaves and return its log."""
    (folder / "evaluation").mkdir(parents=True)
    lines = []
    for i, loss in enumerate(losses):
        row = {"kind": "train", "step": (i + 1) * every, "total": loss, "images_per_second": 8.0}
        if scales is not None:
            row |= {"loss_scale": scales[i], "skipped_steps": skipped}
        lines.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + text)
    metrics = {"metrics": dict.fromkeys(METRIC_NAMES, ap) | {"APl": -1.0}, "losses": {"box": 1.0}}
    metrics |= {"checkpoint": f"{folder}/ckpt-{len(losses) * every}", "split": "coco_val"}
    (folder / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    return RunLog.read(folder.name, folder)


def test_smoothing_by_hand(tmp_path):
    logged = write_run(tmp_path / "fp32", [4.0, 2.0, 6.0, 8.0]).curve("total")
    np.testing.assert_allclose(smoothed(*logged, np.arange(1, 5), 2.0), [3.0, 4.0, 7.0, 7.0])
    # Half a window on either side; at the ends the last whole one.
    np.testing.assert_allclose(smoothed(*logged, np.array([2]), 1.0), [4.0])
    np.testing.assert_allclose(smoothed(*logged, np.array([4]), 8.0), [5.0])


def test_windows_of_several_steps_count_as_many(tmp_path):
    logged = write_run(tmp_path / "fp32", [4.0, 2.0], every=10).curve("total")
    np.testing.assert_allclose(smoothed(*logged, np.array([10, 15]), 10.0), [3.0, 2.0])


def test_rows_of_a_killed_run_are_replaced_by_those_of_its_resume(tmp_path):
    again = [{"kind": "train", "step": s, "total": 9.0} for s in (2, 4)]
    text = '{"kind": "eval", "step": 4}\n{"kind": "train", "st'
    text += "\n" + "\n".join(map(json.dumps, again)) + "\n"
    run = write_run(tmp_path / "fp32", [4.0, 2.0, 6.0], text=text)
    steps, losses = run.curve("total")
    assert steps.tolist() == [1, 2, 4] and losses.tolist() == [4.0, 9.0, 9.0]


def test_distances_by_hand(tmp_path):
    single = write_run(tmp_path / "fp32", [8.0] * 40, ap=0.25)
    half = write_run(tmp_path / "bf16", [8.0] * 20 + [8.8] * 20, ap=0.24)
    comparison = Comparison([single, half])
    distance = comparison.distances["bf16"]
    assert comparison.span == 2.0  # A twentieth of 40 steps.
    assert distance.largest == pytest.approx(0.1)
    assert distance.at_step == 21
    assert distance.at_end == pytest.approx(0.1)
    # 19 steps of 0, one half way, 20 of 0.1.
    assert distance.mean == pytest.approx((0.05 + 20 * 0.1) / 40)
    table = comparison.table()
    assert "8.8000 (+10.00%)" in table and "10.00% at step 21" in table
    assert "0.2400 (-0.0100)" in table
    assert "loss scale" not in table
    assert "8.0 (x1.00)" in table


def test_runs_are_compared_at_the_steps_that_all_have_logged(tmp_path):
    single = write_run(tmp_path / "fp32", [8.0, 6.0, 4.0, 2.0], every=10)
    half = write_run(tmp_path / "bf16", [7.0, 3.0], every=20)
    comparison = Comparison([single, half])
    assert comparison.steps.tolist() == [20, 40]
    # Over windows of 20 steps both have the same means.
    assert comparison.span == 20.0
    assert comparison.distances["bf16"].at_end == pytest.approx(0.0)


def test_files_say_everything(tmp_path):
    single = write_run(tmp_path / "fp32", [8.0] * 10)
    half = write_run(tmp_path / "fp16", [8.0] * 10, scales=[4.0] * 5 + [2.0] * 5, skipped=1)
    out = tmp_path / "out"
    paths = Comparison([single, half]).save(out, title="a recipe", settings={"seed": 3})
    assert sorted(paths) == [str(out / "comparison.json"), str(out / "loss_curves.png")]
    content = json.loads((out / "comparison.json").read_text())
    assert content["settings"] == {"seed": 3}
    assert content["baseline"] == "fp32"
    assert content["step"] == list(range(1, 11))
    assert content["runs"]["fp16"]["loss_scale"] == 2.0
    assert content["runs"]["fp16"]["skipped_steps"] == 1
    assert content["runs"]["fp32"]["loss_scale"] is None
    assert content["runs"]["fp32"]["metrics"]["AP"] == 0.25
    assert content["runs"]["fp32"]["eval_losses"] == {"box": 1.0}
    assert content["runs"]["fp16"]["windows"] == {"step": content["step"], "loss": [8.0] * 10}
    difference = content["differences"]["fp16"]
    assert difference["largest_relative_distance"] == 0.0
    assert difference["metrics"]["AP"] == 0.0
    assert difference["metrics"]["APl"] is None  # There is none where nothing is large.
    assert "loss scale" in Comparison([single, half]).table()
    with Image.open(out / "loss_curves.png") as picture:
        # A third panel for the loss scale.
        assert picture.size[0] == 1000 and picture.size[1] > 850


def test_one_run_alone_is_shown_too(tmp_path):
    comparison = Comparison([write_run(tmp_path / "bf16", [3.0, 2.0])])
    assert "bf16" in comparison.table()
    assert comparison.picture("alone").shape[1] == 1000


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run to compare"):
        Comparison([])
    long, short = (write_run(tmp_path / name, [1.0] * n) for name, n in (("fp32", 4), ("bf16", 3)))
    with pytest.raises(ValueError, match=r"different steps \(fp32 4, bf16 3\)"):
        Comparison([long, short])
    with pytest.raises(ValueError, match="no window of training"):
        Comparison([write_run(tmp_path / "empty", [])])
    (tmp_path / "bf16" / "evaluation" / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no evaluation; expected that of its last step"):
        Comparison([RunLog.read("bf16", tmp_path / "bf16")])


def test_plan_of_runs():
    runs = plan_runs(["fp32", "fp16"], seed=7, control=True)
    assert [(run.name, run.dtype, run.seed) for run in runs] == [
        ("fp32", "fp32", 7),
        ("fp16", "fp16", 7),
        ("fp32_seed8", "fp32", 8),
    ]


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    check_settings(tmp_path, {"seed": 1, "num_steps": 4})
    # Nothing is trained yet: the setting was a mistake and is mended.
    check_settings(tmp_path, {"seed": 1, "num_steps": 5})
    (tmp_path / "fp32").mkdir()
    (tmp_path / "fp32" / "ckpt-3.index").touch()
    check_settings(tmp_path, {"seed": 1, "num_steps": 5})
    with pytest.raises(ValueError, match=r"--num_steps was 5, is 6.*another --output_dir"):
        check_settings(tmp_path, {"seed": 1, "num_steps": 6})
