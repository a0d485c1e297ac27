"""What `doctor --model_dir` says of run directories, whole ones and broken ones."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ssd_centernet.runs.inspection import inspect_run
from ssd_centernet.runs.lock import run_lock
from ssd_centernet.training.checkpoints import RunCheckpoints
from tests.cli.test_evaluate import without_tensorflow
from tests.process import cli
from tests.runs.test_broken_logs import BROKEN_OBJECTS, UNREADABLE
from tests.tiny import tiny_trainer
from tests.training.test_train import run

DATA = "data-00000-of-00001"


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run that was trained, evaluated and saved twice."""
    from tests.tiny import TINY_RECIPE

    top = tmp_path_factory.mktemp("trained")
    (top / "tiny.gin").write_text(TINY_RECIPE)
    settings = ("train.steps = 4", "train.evaluate_every = 2", "train.checkpoint_every = 2")
    run(top / "tiny.gin", data_dir, top / "run", *settings)
    return top / "run"


@pytest.fixture
def folder(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _state(folder):
    return sorted(
        (path.as_posix(), path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    )


def _found(folder):
    """Return name -> findings; nothing in the directory may change."""
    before = _state(folder)
    found = {}
    for one in inspect_run(folder):
        found.setdefault(one.name, []).append(one)
    assert _state(folder) == before
    return found


def _text(found, name, status="ok"):
    assert {one.status for one in found[name]} == {status}, found[name]
    return " | ".join(one.text for one in found[name])


def test_a_whole_run_is_explained_without_tensorflow(folder):
    ended = without_tensorflow("doctor", f"--model_dir={folder}", status=0)
    lines = ended.stdout.splitlines()
    paths = str(folder.parent)
    assert max(len(line) for line in lines if paths not in line and "trained on" not in line) <= 80
    text = " ".join(ended.stdout.split())
    for part in (
        "SSD with ResNet, images of 64 x 64",
        "training finished, at step 4 of 4, 1 session",
        "2 evaluations; the last at step 4: AP",
        "checkpoint ckpt-4, the latest:",
        "whole (as its digests say)",
        "the same command goes on from ckpt-4 (step 4)",
        "trained on ",
        " free; a save may take ",
        "0 warnings, 0 failed",
    ):
        assert part in text, ended.stdout
    assert "others" not in text and "leftovers" not in text
    report = json.loads(without_tensorflow("doctor", "--json", f"--model_dir={folder}").stdout)
    assert report["ok"] and {"status", "name", "text", "advice"} == set(report["checks"][0])


def test_damage_leftovers_and_strangers_are_named(folder):
    content = (folder / f"ckpt-4.{DATA}").read_bytes()
    (folder / f"ckpt-4.{DATA}").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "ckpt-2.sha256").unlink()
    (folder / "ckpt-9.index").touch()
    (folder / "ckpt-9_temp").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / f"ckpt-8.{DATA}").write_bytes(bytes(5000))
    (folder / "evaluation" / ".metrics.json.ssd-0123456789.tmp").write_bytes(bytes(2000))
    (folder / "a\x1b[31m\n.txt").touch()
    (folder / "notes").mkdir()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('\n{"kind": "eval", "st')
    found = _found(folder)
    damaged, whole, half = found["checkpoint"]
    assert damaged.status == "warn" and "is not the file that was written" in damaged.text
    assert whole.status == "ok" and "whole (every tensor can be read)" in whole.text
    assert half.status == "warn" and "ckpt-9 has not all its files" in half.text
    assert "goes on from ckpt-2 (step 2)" in _text(found, "resume", "warn")
    left = _text(found, "leftovers", "warn")
    assert "ckpt-9_temp, evaluation/.metrics.json.ssd-0123456789.tmp: 2.0 kB" in left
    assert "ckpt-8" in _text(found, "set aside", "warn")
    assert "'a\\x1b[31m\\n.txt', notes/: no part of a run" in _text(found, "others")
    assert any("1 line cannot be read" in one.text for one in found["log"])


def test_a_run_that_cannot_go_on_fails_and_says_what_to_do(folder):
    for path in folder.glob("ckpt-*.index"):
        os.truncate(path, 30)
    ended = cli("doctor", f"--model_dir={folder}", status=1)
    assert "FAIL resume" in ended.stdout and "backup" in ended.stdout and not ended.stderr
    for words, message in (
        ([f"--model_dir={folder / 'none'}"], "there is no run directory"),
        ([f"--model_dir={folder}", "--device=cpu"], "--device cannot be used with --model_dir"),
    ):
        refused = without_tensorflow("doctor", *words, status=None)
        assert refused.status and message in refused.stderr and "Traceback" not in refused.text


def test_a_run_that_is_being_trained_and_one_that_has_not_begun(folder, tmp_path):
    (folder / "ckpt-9_temp").mkdir()
    with run_lock(folder):
        found = _found(folder)
    assert f"process {os.getpid()} trains here now" in _text(found, "lock")
    assert "leftovers" not in found and "while the run goes on" in _text(found, "resume")
    (tmp_path / "new").mkdir()
    found = _found(tmp_path / "new")
    assert "begins anew: there is no checkpoint yet" in _text(found, "resume")
    assert "missing" in _text(found, "settings", "FAIL")


STATES = ("config.gin", "mscoco_label_map.pbtxt", "checkpoint", "ckpt-4.index", "ckpt-4.sha256")
STATES += ("best/metrics.json", "evaluation/metrics.json", ".lock", "metrics.jsonl")
STATES += ("sessions.jsonl", "evaluation/detections.json", f"best/ckpt-2.{DATA}")


@pytest.mark.parametrize(
    "kind", ["empty", "zero bytes", "not utf-8", "deep", "other types", "a folder"]
)
def test_files_of_any_content_end_in_findings(folder, kind):
    """One file at a time, so that each is looked at beside others that are whole."""
    for name in STATES:
        path = folder / name
        if not path.exists():  # The best may be that of the other step.
            continue
        path.rename(folder / "kept")
        if BROKEN_OBJECTS[kind] is None:
            path.mkdir()
        else:
            path.write_bytes(BROKEN_OBJECTS[kind])
        found = _found(folder)
        assert found["resume"][0].text, name
        assert not any("Error" in one.text for ones in found.values() for one in ones), found
        path.rmdir() if path.is_dir() else path.unlink()
        (folder / "kept").rename(path)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_lines_that_cannot_be_read_are_counted(tmp_path, kind):
    for name in ("metrics.jsonl", "sessions.jsonl"):
        (tmp_path / name).write_bytes(b"\n" + UNREADABLE[kind] + b"\n")
    found = _found(tmp_path)
    assert [one.text.partition(" line")[0] for one in found["log"]] == [
        "metrics.jsonl: 1",
        "sessions.jsonl: 1",
    ]


def test_what_it_says_of_a_resume_is_what_a_resume_does(folder):
    os.truncate(folder / "ckpt-4.index", 40)
    said = _found(folder)["resume"][0].text
    checkpoints = RunCheckpoints(tiny_trainer(), folder, seed=0)
    assert Path(checkpoints.manager.latest_checkpoint).name == "ckpt-2" and "ckpt-2" in said
