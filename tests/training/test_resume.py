"""What a resumed run owes: evaluations that a kill prevented, and the count of early stopping."""

import json
import shutil
import signal

import pytest

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.labels import LabelMap
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runs.logs import RunLog
from ssd_centernet.training.log_files import evaluations_without_best, recorded_evaluations
from tests.process import CLI, Running
from tests.training.test_train import run


def evaluated(model_dir):
    lines = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == "eval"]


def forget_evaluation(model_dir, step):
    """Leave what a kill in the evaluation at a step leaves."""
    path = model_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if (json.loads(line)["kind"], json.loads(line)["step"]) != step]
    path.write_text("".join(kept))
    shutil.rmtree(model_dir / "evaluation")
    shutil.rmtree(model_dir / "best")


def test_an_evaluation_that_a_kill_prevented_is_made_up(tiny_recipe, data_dir, tmp_path, capsys):
    model_dir = tmp_path / "run"
    settings = ("train.evaluate_every = 2", "train.checkpoint_every = 2")
    run(tiny_recipe, data_dir, model_dir, "train.steps = 4", *settings)
    forget_evaluation(model_dir, ("eval", 4))
    assert evaluated(model_dir) == [2]
    assert run(tiny_recipe, data_dir, model_dir, "train.steps = 4", *settings) == "finished"
    assert "the evaluation at step 4 is not recorded; it is made up now" in capsys.readouterr().out
    assert evaluated(model_dir) == [2, 4]
    assert (model_dir / "evaluation" / "metrics.json").exists()
    assert json.loads((model_dir / "best" / "metrics.json").read_text())["step"] == 4
    # In the middle of a longer run too, before the next step, and only once.
    forget_evaluation(model_dir, ("eval", 4))
    run(tiny_recipe, data_dir, model_dir, "train.steps = 5", *settings)
    run(tiny_recipe, data_dir, model_dir, "train.steps = 5", *settings)
    assert evaluated(model_dir) == [2, 4, 5]


def test_a_run_does_not_go_on_with_other_classes(tiny_recipe, data_dir, tmp_path):
    run(tiny_recipe, data_dir, tmp_path / "run", "train.steps = 1")
    names = list(LabelMap.from_pbtxt(data_dir / LABEL_MAP_NAME).names)
    other = shutil.copytree(data_dir, tmp_path / "other")
    LabelMap(names[::-1]).to_pbtxt(other / LABEL_MAP_NAME)
    for where in ("run", "new"):  # In its directory, and from there into another.
        settings = ("train.steps = 2", f"train.resume_from = {str(tmp_path / 'run')!r}")
        with pytest.raises(ValueError, match="goes on with the classes that it began with"):
            run(tiny_recipe, other, tmp_path / where, *settings)
    assert LabelMap.from_pbtxt(tmp_path / "run" / LABEL_MAP_NAME).names == tuple(names)


def test_a_split_smaller_than_a_batch_has_losses(tiny_recipe, data_dir, tmp_path):
    settings = ("train.steps = 1", "train.evaluate_every = 1", "train.eval_batch_size = 500")
    run(tiny_recipe, data_dir, tmp_path / "r", *settings, "train.keep_best = 'loss_box'")
    assert json.loads((tmp_path / "r" / "best" / "metrics.json").read_text())["loss_box"] > 0


def test_a_best_that_was_not_copied_before_a_kill_is_copied(tiny_recipe, data_dir, tmp_path):
    settings = ("train.steps = 2", "train.evaluate_every = 2", "train.keep_best = 'loss_box'")
    run(tiny_recipe, data_dir, tmp_path / "r", *settings)
    shutil.rmtree(tmp_path / "r" / "best")
    run(tiny_recipe, data_dir, tmp_path / "r", *settings)
    assert find_checkpoint(tmp_path / "r" / "best").endswith("ckpt-2")
    assert evaluated(tmp_path / "r") == [2, 2]


def test_a_run_killed_in_its_evaluation_evaluates_when_resumed(tiny_recipe, data_dir, tmp_path):
    model_dir = tmp_path / "run"
    flags = [f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--num_steps=2", "--evaluate_every=2", "--device=cpu"]
    with Running(*CLI, "train", *flags) as training:
        # The last checkpoint is written before the last evaluation begins.
        training.wait_until((model_dir / "ckpt-2.index").exists)
        training.signal(signal.SIGKILL)
        training.finish(status=-signal.SIGKILL)
    if evaluated(model_dir):
        pytest.skip("the evaluation was over before the kill")
    run(tiny_recipe, data_dir, model_dir, "train.steps = 2", "train.evaluate_every = 2")
    assert evaluated(model_dir) == [2]


def test_patience_is_counted_over_a_resume(tiny_recipe, data_dir, tmp_path, capsys):
    model_dir = tmp_path / "run"
    settings = ("train.evaluate_every = 1", "train.early_stop_patience = 3")
    settings += ("ConstantRate.learning_rate = 0.0", "train.keep_best = 'loss_box'")
    still = "train.freeze = ()"
    assert run(tiny_recipe, data_dir, model_dir, "train.steps = 3", still, *settings) == "finished"
    # Moving statistics change the loss; what counts is what was recorded.
    records = recorded_evaluations(model_dir, until_step=3)
    rows = [{**record, "loss_box": 1.0 + record["step"]} for record in records]
    (model_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    best = model_dir / "best" / "metrics.json"
    best.write_text(json.dumps({**json.loads(best.read_text()), "loss_box": 1e-9}))
    assert evaluations_without_best(rows, "loss_box", higher_is_better=False) == 2
    settings = ("train.steps = 9", *settings)
    assert run(tiny_recipe, data_dir, model_dir, *settings) == "stopped early"
    assert "stopped early: 3 evaluations" in capsys.readouterr().out
    assert evaluated(model_dir) == [1, 2, 3, 4]
    # A stopped run stays stopped, and says how it would go on.
    rows.append({"kind": "eval", "step": 4, "loss_box": 9.0})
    (model_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(tiny_recipe, data_dir, model_dir, *settings) == "stopped early"
    assert "To go on, raise train.early_stop_patience" in capsys.readouterr().out
    assert find_checkpoint(model_dir).endswith("ckpt-4")


def test_evaluations_are_read_up_to_the_checkpoint(tmp_path):
    rows = [("train", 1, 0.9), ("eval", 2, 0.1), ("eval", 4, 0.3), ("eval", 2, 0.2)]
    text = "".join(json.dumps({"kind": k, "step": s, "AP": v}) + "\n" for k, s, v in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "eval", "st')
    records = recorded_evaluations(tmp_path, until_step=3)
    assert [(record["step"], record["AP"]) for record in records] == [(2, 0.2)]
    assert len(recorded_evaluations(tmp_path, until_step=4)) == 2
    assert recorded_evaluations(tmp_path / "none", until_step=4) == []


ODD_LINES = ["[1, 2]", "null", "{", "[" * 3000, '{"kind": "eval"}', '{"kind": "eval", "step": "2"}']
ODD_LINES += ['{"kind": "train", "step": null}', '{"kind": "eval", "step": true}', "\x00\x00"]


def test_lines_of_a_log_that_cannot_be_read_are_left_out(tmp_path):
    good = {"kind": "eval", "step": 2, "AP": 0.2}
    lines = [json.dumps(good), *ODD_LINES, json.dumps(good | {"step": 4, "AP": "none"})]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"jsonl: 9 of its lines cannot .*: line 2, 3"):
        records = recorded_evaluations(tmp_path, until_step=9)
    assert records == [good, {"kind": "eval", "step": 4}]
    with pytest.warns(UserWarning, match="9 of its lines cannot be read"):
        log = RunLog.read("run", tmp_path)
    assert log.best["AP"] == 0.2 and log.steps == 4


def test_a_run_goes_on_where_a_crash_emptied_its_state_files(tiny_recipe, data_dir, tmp_path):
    model_dir = tmp_path / "run"
    settings = ("train.evaluate_every = 1", "train.keep_best = 'loss_box'")
    run(tiny_recipe, data_dir, model_dir, "train.steps = 2", *settings)
    best = json.loads((model_dir / "best" / "metrics.json").read_text())
    # No later evaluation is as good, so best/ must stay what it is.
    metrics = model_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "eval" and row["step"] == best["step"]:
            row["loss_box"] = 1e-9
    metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"kind": "eval", "st')
    (model_dir / "best" / "metrics.json").write_bytes(b"")
    run(tiny_recipe, data_dir, model_dir, "train.steps = 3", *settings)
    assert find_checkpoint(model_dir / "best").endswith(f"ckpt-{best['step']}")
    # The half line is on a line of its own: what was logged after it can be read.
    with pytest.warns(UserWarning, match="1 of its lines cannot be read"):
        assert recorded_evaluations(model_dir, until_step=3)[-1]["step"] == 3


@pytest.mark.parametrize(
    ("values", "higher", "count"),
    [
        ([], True, 0),
        ([0.1, 0.3, 0.2, 0.3], True, 2),
        ([0.3, 0.2, 0.4], False, 1),
        ([-1.0, -1.0], True, 2),
        ([-1.0, 0.0, float("nan")], True, 1),
    ],
)
def test_evaluations_behind_the_best(values, higher, count):
    records = [{"AP": value} for value in values]
    assert evaluations_without_best(records, "AP", higher_is_better=higher) == count
