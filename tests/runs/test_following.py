"""Checkpoint after checkpoint is evaluated: those of a folder, and those that a training writes."""

import json
import shutil
import threading
import time

import pytest

from ssd_centernet.cli import evaluate
from ssd_centernet.run_directory import list_checkpoints
from ssd_centernet.runs import following
from ssd_centernet.runs.following import Watch, checkpoints_in_order, wait_for_run
from ssd_centernet.runs.logs import read_runs
from tests.cli.command_line import parsed
from tests.process import Running

QUICK = {"wait": True, "timeout": 30.0, "poll": 0.01}


@pytest.fixture
def run(model_dir, tmp_path):
    """A copy of the run with the checkpoints 5 and 10."""
    return shutil.copytree(model_dir, tmp_path / "run")


def lines_of(run):
    return [json.loads(line) for line in open(run / "evaluation" / "checkpoints.jsonl")]


def evaluated(run, data_dir, *arguments):
    """The exit status of an evaluation in this process."""
    words = [f"--model_dir={run}", f"--data_dir={data_dir}", "--device=cpu", *arguments]
    with parsed("evaluate", words):
        return evaluate.main(["evaluate"])


def session(run, event, **facts):
    with open(run / "sessions.jsonl", "a") as file:
        file.write(json.dumps({"event": event, "step": 10, "time": time.time(), **facts}) + "\n")


def add_checkpoint(run, step):
    for path in run.glob("ckpt-10.*"):
        shutil.copy(path, run / path.name.replace("ckpt-10", f"ckpt-{step}"))


def test_every_checkpoint_in_order_and_the_report_draws_them(run, data_dir, capsys):
    page = run / "evaluation" / "report.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("of an earlier evaluation")
    assert evaluated(run, data_dir, "--every_checkpoint") == 0
    said, notes = capsys.readouterr()
    # Once, and not at the second checkpoint.
    assert (said + notes).count("note: ") == (said + notes).count(f"{page} was of an earlier") == 1
    assert said.index("step 5: AP ") < said.index("step 10: AP ")
    assert "best of 2: step" in said
    assert " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = " in said
    rows = lines_of(run)
    assert [row["step"] for row in rows] == [5, 10]
    # Both are of the same weights, so that the second restore and the shared trace show.
    assert rows[0]["AP"] == rows[1]["AP"] >= 0 and rows[0]["split"] == "coco_val"
    last = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert last["checkpoint"].endswith("ckpt-10")
    (log,) = read_runs([run])
    steps, values = log.curve("AP", of_evaluations=True)
    assert steps.tolist() == [5, 10] and values.tolist() == [row["AP"] for row in rows]
    # Each time all are evaluated, unless it goes on where a waiting one was stopped.
    session(run, "end", reason="finished")
    assert evaluated(run, data_dir, "--wait") == 0
    assert "was left to evaluate" in capsys.readouterr().out and len(lines_of(run)) == 2
    assert evaluated(run, data_dir, "--wait", "--max_detections=50") == 0
    assert len(lines_of(run)) == 4


def test_new_checkpoints_are_waited_for_until_the_training_ends(run):
    told, found = [], []

    def train():
        for step in (15, 20):
            time.sleep(0.05)
            add_checkpoint(run, step)
        session(run, "end", reason="finished")

    session(run, "begin")
    thread = threading.Thread(target=train)
    thread.start()
    for prefix in checkpoints_in_order(run, Watch(say=told.append, **QUICK), done={5}):
        found.append(int(prefix.rpartition("-")[2]))
    thread.join()
    assert found == [10, 15, 20] and "has ended" in told[0]


def test_waiting_has_an_end(run, tmp_path):
    told = []
    # One that was stopped by a signal may go on.
    session(run, "end", reason="SIGTERM")
    watch = Watch(wait=True, timeout=0.05, poll=0.01, say=told.append)
    assert len(list(checkpoints_in_order(run, watch))) == 2
    assert "no new checkpoint" in told[0] and "--timeout" in told[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(TimeoutError, match="no checkpoint in .*empty after 0.05 s"):
        wait_for_run(tmp_path / "empty", watch)
    wait_for_run(tmp_path / "empty", Watch())  # Only --wait waits.


def test_a_checkpoint_that_goes_meanwhile_is_passed_over(run, data_dir, capsys, monkeypatch):
    def go_first(run_, prefix):
        if prefix.endswith("ckpt-5"):
            for path in run.glob("ckpt-5.*"):
                path.unlink()
        return restore(run_, prefix)

    restore = following.with_checkpoint
    monkeypatch.setattr(following, "with_checkpoint", go_first)
    assert evaluated(run, data_dir, "--every_checkpoint") == 0
    assert "ckpt-5 is gone" in capsys.readouterr().out
    assert [row["step"] for row in lines_of(run)] == [10]
    assert list(list_checkpoints(run)) == [10]


@pytest.mark.slow
def test_sigterm_ends_it(run, data_dir, warm):
    session(run, "begin")
    words = ("evaluate", f"--model_dir={run}", f"--data_dir={data_dir}", "--wait", "--device=cpu")
    with Running(warm, "-m", "ssd_centernet", *words) as running:
        log = run / "evaluation" / "checkpoints.jsonl"
        running.wait_until(lambda: log.exists() and len(lines_of(run)) == 2)
        running.signal(15, group=True)
        ended = running.finish()
    # The program that starts in no time dies of the signal itself; what it started answers it.
    assert ended.status in (-15, 128 + 15), str(ended)
    assert [row["step"] for row in lines_of(run)] == [5, 10]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every_checkpoint", "--checkpoint=best"], "leave out --checkpoint"),
        (["--wait", "--report"], "leave out --checkpoint and --report"),
        (["--timeout=3"], "--timeout belongs to --wait"),
        (["--every_checkpoint", "--timeout=3"], "--timeout belongs to --wait"),
    ],
)
def test_contradictions(words, message, run, data_dir):
    from absl import flags

    with pytest.raises(flags.Error, match=message):
        evaluated(run, data_dir, *words)
