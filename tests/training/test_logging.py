"""What a window of the log says, by a clock that the test turns."""

import io
import json
import sys

import pytest

from ssd_centernet.training import logging
from ssd_centernet.training.log_files import duration, recorded_metrics, recorded_sessions
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.schedules import RunLength

METRICS = {"class": 2.0, "box": 1.0, "total": 3.0, "learning_rate": 0.1}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    return now


def test_saves_in_the_middle_of_a_window_do_not_change_its_pace(tmp_path, clock):
    console = io.StringIO()
    log = TrainLog(tmp_path, RunLength(10, 100, 4), console=console)
    clock[0] += 5.0
    with log.paused():
        clock[0] += 60.0
    clock[0] += 5.0
    record = log.window(20, {**METRICS, "data_wait_seconds": 2.5})
    log.close()
    # 20 steps of 4 images in 10 seconds of work.
    assert record["images_per_second"] == pytest.approx(8.0)
    assert record["data_wait_share"] == pytest.approx(0.25)
    assert record["eta_seconds"] == pytest.approx(40.0)
    assert record["epoch"] == 2.0
    assert "[input bound: waits 25%]" in console.getvalue()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 20


def test_the_lines_of_a_window_fit_a_terminal(tmp_path, clock):
    console = io.StringIO()
    log = TrainLog(tmp_path, RunLength(1000, 120_000, 32), console=console)
    clock[0] += 3600.0
    parts = {"heatmap": 1234.5678, "offset": 0.25, "size": 12.5, "loss_scale": 2.0**15}
    log.window(100, {**METRICS, **parts, "skipped_steps": 3, "data_wait_seconds": 3000.0})
    log.close()
    lines = console.getvalue().splitlines()
    assert lines[0].startswith("step    100/120000  epoch 0.10  loss 3.0000  lr 0.1  0.9 images/s")
    assert all(line.startswith(" " * 20) for line in lines[1:])
    assert max(map(len, lines)) <= 80
    text = " ".join(console.getvalue().split())
    for field in ("heatmap 1234.5678", "size 12.5000", "scale 32768 (skipped 3)", "waits 83%"):
        assert field in text


@pytest.mark.parametrize("name", ["sessions.jsonl", "metrics.jsonl"])
def test_half_a_line_of_a_killed_process_takes_no_other_with_it(tmp_path, clock, name):
    (tmp_path / name).write_text('{"event": "begin", "st')
    log = TrainLog(tmp_path, RunLength(10, 100, 4), console=io.StringIO())
    log.session("begin", 0, data_dir="here")
    clock[0] += 1.0
    log.window(2, METRICS)
    log.session("end", 2, reason="finished")
    log.close()
    with pytest.warns(UserWarning, match="1 of its lines cannot be read and are left out: line 1"):
        begun, ended = recorded_sessions(tmp_path)
        windows, _ = recorded_metrics(tmp_path)
    assert begun["data_dir"] == "here" and ended["reason"] == "finished"
    assert [one["step"] for one in windows] == [2]


def test_durations_are_readable():
    assert [duration(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_tensorboard_is_asked_for_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'tensorboard.* pip install "ssd_centernet\[train\]"'):
        TrainLog(tmp_path / "run", RunLength(10, 100, 4))
    assert not (tmp_path / "run").exists()
    TrainLog(tmp_path / "run", RunLength(10, 100, 4), write_files=False)
