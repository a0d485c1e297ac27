"""Logs and states of a run as crashes and editors leave them: what cannot be read is left out."""

import json
import math
import warnings

import pytest

from ssd_centernet.export.card import run_facts
from ssd_centernet.runs.logs import read_runs
from ssd_centernet.runs.own_data import data_of_run
from ssd_centernet.runs.report import runs_page, text_report
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.log_files import (
    beats,
    recorded_evaluations,
    recorded_metrics,
    recorded_sessions,
)
from tests.runs.test_report import begin, curve, end, evaluated, write_run
from tests.tiny import tiny_trainer
from tests.training.test_train import run

UNREADABLE = {
    "half a line": b'{"kind": "train", "st',
    "a list": b"[1, 2]",
    "null": b"null",
    "zero bytes": b"\0\0\0\0",
    "not utf-8": b'{"kind": "train", "step": 30, "note": "\xff\xfe"}',
    "deep": b"[" * 5000,
    "no step": b'{"kind": "train", "event": "begin", "time": 1.0}',
    "step of text": b'{"kind": "eval", "event": "end", "time": 1.0, "step": "30"}',
    "step null": b'{"kind": "eval", "event": "end", "time": 1.0, "step": null}',
    "step true": b'{"kind": "eval", "event": "end", "time": 1.0, "step": true}',
    "step below zero": b'{"kind": "train", "event": "end", "time": 1.0, "step": -3}',
    "step with a fraction": b'{"kind": "train", "event": "end", "time": 1.0, "step": 3.5}',
    "step beyond all": b'{"kind": "train", "event": "end", "time": 1.0, "step": 1'
    + b"0" * 40
    + b"}",
    "number of 9000 digits": b'{"kind": "train", "step": ' + b"9" * 9000 + b"}",
    "half a surrogate": b'{"kind": "eval", "event": "end", "time": 1, "step": 3, "a": "\\ud800"}',
}
# Lines that can be read, with values that mean nothing.
ODD_VALUES = {
    "numbers of text": {"total": "1.0", "AP": "high", "epoch": "two", "images_per_second": "fast"},
    "not a number": dict.fromkeys(("total", "AP", "epoch", "images_per_second"), math.nan),
    "infinite": dict.fromkeys(("total", "AP", "epoch", "learning_rate"), math.inf),
    "nested": {"total": [1.0], "AP": {"AP": 0.5}, "box": None, "time": [3]},
    "true": {"total": True, "AP": True, "time": False},
    "huge": {"total": 10**400, "AP": -(10**30), "box": 10**400},
    "time beyond all dates": {"time": 1e300},
    "time that is none": {"time": math.nan},
}
ODD_FACTS = {
    "no event": {"event": None},
    "an event of lists": {"event": ["begin"]},
    "no time": {"time": None},
    "time of text": {"time": "now"},
    "time beyond all dates": {"time": 1e300},
    "time that is none": {"time": math.nan},
    "reason of numbers": {"event": "end", "reason": 3},
    "counts of text": dict.fromkeys(("total_steps", "steps_per_epoch", "global_batch_size"), "x"),
    "counts of zero": dict.fromkeys(("total_steps", "steps_per_epoch", "global_batch_size"), 0),
    "true counts": dict.fromkeys(("total_steps", "steps_per_epoch", "global_batch_size"), True),
    "huge counts": dict.fromkeys(("total_steps", "steps_per_epoch"), 10**400),
    "data of lists": {"data_dir": ["a"], "mixed_with": "b", "versions": [1]},
}
BROKEN_OBJECTS = {
    "empty": b"",
    "cut": b'{"step": 20, "AP": 0.',
    "a list": b"[1, 2]",
    "null": b"null",
    "zero bytes": b"\0\0\0\0",
    "not utf-8": b'{"\xff\xfe": 1}',
    "deep": b"[" * 5000,
    "numbers of text": b'{"step": "20", "AP": "0.5", "checkpoint": 5, "metrics": {"AP": "x"}}',
    "other types": b'{"step": [], "AP": null, "checkpoint": "ckpt-20", "metrics": [], "losses": 3}',
    "a step beyond all": b'{"checkpoint": "ckpt-1' + b"0" * 40 + b'", "metrics": {}, "step": 10}',
    "half a surrogate": b'{"checkpoint": "\\ud800", "metrics": {"A\\ud800": 0.5}}',
    "a folder": None,
}
ROWS = [*curve(4), evaluated(20, 0.4, loss_box=0.5), evaluated(40, 0.3, loss_box=0.4)]
SESSIONS = [begin(), end(40, 1090.0)]


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", ROWS, SESSIONS)


def _put(path, content):
    """Write what a crash leaves: content, or a folder in place of the file."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def _append(path, *lines):
    path.write_bytes(path.read_bytes() + b"".join(line + b"\n" for line in lines))


def _reported(folder):
    """Read a run as `report` does; return it with its warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (read,) = read_runs([folder])
        text_report([read])
    return read, [str(one.message) for one in told if one.category is UserWarning]


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["metrics.jsonl", "sessions.jsonl"])
def test_a_line_that_cannot_be_read_is_left_out_and_told_once(folder, name, kind):
    _append(folder / name, UNREADABLE[kind])
    number = len((folder / name).read_bytes().splitlines())
    read, told = _reported(folder)
    assert (read.state, read.steps, read.best["AP"], read.minutes) == ("finished", 40, 0.4, 1.5)
    assert told == [
        f"{folder / name}: 1 of its lines cannot be read and are left out: line {number}"
    ]
    with pytest.warns(UserWarning) if name == "metrics.jsonl" else warnings.catch_warnings():
        assert [one["step"] for one in recorded_evaluations(folder, until_step=40)] == [20, 40]


@pytest.mark.parametrize("kind", ODD_VALUES)
@pytest.mark.parametrize("of", ["train", "eval"])
def test_values_of_a_log_that_are_no_numbers_stop_nothing(folder, of, kind):
    row = {"kind": of, "step": 50, "total": 1.0, "time": 1080.0, **ODD_VALUES[kind]}
    _append(folder / "metrics.jsonl", json.dumps(row).encode())
    read, told = _reported(folder)
    assert read.steps == 50 and read.best["AP"] in (0.4, math.inf) and not told
    assert read.minutes == 1.5
    for record in recorded_evaluations(folder, until_step=50):
        assert isinstance(beats(record.get("AP", math.nan), 0.4, higher_is_better=True), bool)


@pytest.mark.parametrize("kind", ODD_FACTS)
@pytest.mark.filterwarnings("ignore:.*cannot be read and are left out")
def test_facts_of_a_session_that_are_none_are_left_out(folder, kind):
    line = json.dumps({**begin(40, 1090.0), **ODD_FACTS[kind]})
    _append(folder / "sessions.jsonl", line.encode(), json.dumps(end(40, 1120.0)).encode())
    read, _ = _reported(folder)
    assert read.steps == 40 and read.total_steps in (None, 40) and math.isfinite(read.minutes)
    assert data_of_run(folder) is None


@pytest.mark.parametrize("kind", BROKEN_OBJECTS)
def test_states_that_are_no_objects_count_as_absent(folder, kind):
    for name in ("evaluation/metrics.json", "evaluation/detections.json", "best/metrics.json"):
        _put(folder / name, BROKEN_OBJECTS[kind])
    _put(folder / "summary" / "summary.json", BROKEN_OBJECTS[kind])
    read, told = _reported(folder)
    assert [one["step"] for one in read.evaluations] == [20, 40] and not told
    found = run_facts(folder, str(folder / "best" / "ckpt-20"))["evaluations"]
    assert not any(found.values())
    # The log says as well what the best checkpoint scored.
    (folder / "best" / "ckpt-20.index").touch()
    trainer = tiny_trainer()
    trainer.step.assign(40)
    checkpoints = RunCheckpoints(trainer, folder / "new", seed=0)
    checkpoints.model_dir = folder
    assert checkpoints.best_metrics()["AP"] == 0.4


def test_a_page_is_made_of_all_of_it(folder):
    odd = [
        {"kind": of, "step": 50, **values}
        for of in ("train", "eval")
        for values in ODD_VALUES.values()
    ]
    _append(
        folder / "metrics.jsonl", *UNREADABLE.values(), *(json.dumps(one).encode() for one in odd)
    )
    facts = [{**begin(40, 1090.0), **values} for values in ODD_FACTS.values()]
    _append(
        folder / "sessions.jsonl",
        *UNREADABLE.values(),
        *(json.dumps(one).encode() for one in facts),
    )
    (folder / "config.gin").write_bytes(b"((((" * 3000)
    read, _ = _reported(folder)
    assert "Runs" in runs_page([read])


@pytest.mark.filterwarnings("ignore:.*cannot be read and are left out")
def test_a_run_goes_on_beside_all_of_it(tiny_recipe, data_dir, tmp_path):
    folder = tmp_path / "run"
    settings = ("train.evaluate_every = 1", "train.keep_best = 'loss_box'")
    run(tiny_recipe, data_dir, folder, "train.steps = 1", *settings)
    odd = [
        {"kind": of, "step": 1, "loss_box": values.get("AP", "x"), **values}
        for of in ("train", "eval")
        for values in ODD_VALUES.values()
    ]
    _append(
        folder / "metrics.jsonl", *(json.dumps(one).encode() for one in odd), *UNREADABLE.values()
    )
    facts = [{**begin(1, 1090.0), **values} for values in ODD_FACTS.values()]
    _append(
        folder / "sessions.jsonl",
        *UNREADABLE.values(),
        *(json.dumps(one).encode() for one in facts),
    )
    for name in ("best/metrics.json", "evaluation/metrics.json", "evaluation/detections.json"):
        _put(folder / name, b'{"step": "1", "loss_box": "low"}')
    assert run(tiny_recipe, data_dir, folder, "train.steps = 2", *settings) == "finished"
    windows, evaluations = recorded_metrics(folder)
    assert windows[-1]["step"] == evaluations[-1]["step"] == 2
    assert recorded_sessions(folder)[-1]["reason"] == "finished"
