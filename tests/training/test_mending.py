"""What a training finds in its directory: damaged checkpoints, lost lists, halves of a kill."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ssd_centernet.checkpoint_files import DamagedError, check_digest, has_digest
from ssd_centernet.run_directory import find_checkpoint, list_checkpoints
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.weights import restore
from tests.process import run as run_command
from tests.tiny import tiny_detector, tiny_trainer
from tests.training.test_train import run

DATA = "data-00000-of-00001"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints with their digests, as a training leaves them."""
    folder = tmp_path_factory.mktemp("saved")
    _save(folder, 1, 2)
    return folder


@pytest.fixture
def model_dir(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


def _save(folder, *steps, keep=5):
    trainer = tiny_trainer()
    checkpoints = RunCheckpoints(trainer, folder, seed=0, keep=keep)
    for step in steps:
        trainer.step.assign(step)
        checkpoints.save()
    checkpoints.finish()


def _opened(folder):
    """Return the notes of a training that goes on in a folder, and the step it goes on from."""
    checkpoints = RunCheckpoints(tiny_trainer(), folder, seed=0)
    resumed = checkpoints.resume()
    assert checkpoints.manager.latest_checkpoint == resumed
    return "\n".join(checkpoints.notes), int(checkpoints.trainer.step)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _damage(path, how):
    content = path.read_bytes()
    if how == "flipped":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    if how == "emptied":
        path.write_bytes(b"")


@pytest.mark.parametrize("digests", [True, False], ids=["digests", "no digests"])
@pytest.mark.parametrize("how", ["cut", "emptied", "flipped"])
@pytest.mark.parametrize("part", [DATA, "index"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(model_dir, part, how, digests):
    if not digests:
        for path in model_dir.glob("*.sha256"):
            path.unlink()
    _damage(model_dir / f"ckpt-2.{part}", how)
    if digests or how != "flipped":  # The byte in the middle is none of a weight.
        with pytest.raises(DamagedError, match=r"ckpt-2 is damaged: .* Move the files ckpt-2\."):
            restore(tiny_detector(), model_dir)
    notes, step = _opened(model_dir)
    assert step == 1
    assert "ckpt-2 is damaged (" in notes and "goes on from ckpt-1" in notes
    # It may be whole all the same, on another machine.
    kept = {f"ckpt-2.{DATA}", "ckpt-2.index", *(["ckpt-2.sha256"] if digests else [])}
    assert set(_names(model_dir / "damaged")) == kept
    assert find_checkpoint(model_dir).endswith("ckpt-1")
    _save(model_dir, 2)
    assert _opened(model_dir) == ("", 2)


@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_run_killed_in_its_first_save_begins_anew(
    tiny_recipe, data_dir, tmp_path, damage, capsys
):
    folder = tmp_path / "run"
    run(tiny_recipe, data_dir, folder, "train.steps = 2", "train.eval_split = None")
    first = (folder / "ckpt-2.index").read_bytes()
    # As a kill leaves it while TensorFlow writes the index: no list, no digest, no end.
    for name in ("checkpoint", "ckpt-2.sha256", "sessions.jsonl"):
        (folder / name).unlink()
    _damage(folder / "ckpt-2.index", damage)
    capsys.readouterr()
    run(tiny_recipe, data_dir, folder, "train.steps = 2", "train.eval_split = None")
    said = capsys.readouterr().out
    assert "ckpt-2 cannot be read (" in said and "and begins anew" in said
    assert "starting from random weights" in said
    assert _names(folder / "damaged") == [f"ckpt-2.{DATA}", "ckpt-2.index"]
    assert (folder / "ckpt-2.index").read_bytes() == first


def _only_one(folder):
    for path in folder.glob("ckpt-1.*"):
        path.unlink()


def _log(folder, step):
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": step}) + "\n")


def _end(folder, reason):
    record = {"event": "end", "step": 2, "time": 1.0, "reason": reason}
    (folder / "sessions.jsonl").write_text(json.dumps(record) + "\n")


ESTABLISHED = {
    "the list names it": lambda folder: None,
    "others were written": lambda folder: (folder / "checkpoint").unlink(),
    "more steps are logged": lambda folder: [
        (folder / "checkpoint").unlink(),
        _only_one(folder),
        _log(folder, 3),
    ],
    "it had ended": lambda folder: [
        (folder / "checkpoint").unlink(),
        _only_one(folder),
        _end(folder, "SIGTERM"),
    ],
    "the list names what is gone": lambda folder: [path.unlink() for path in folder.glob("ckpt-*")],
}


@pytest.mark.parametrize("evidence", ESTABLISHED)
def test_a_run_that_has_lost_all_checkpoints_does_not_begin_anew_unasked(model_dir, evidence):
    for path in model_dir.glob("*.index"):
        _damage(path, "cut")
    ESTABLISHED[evidence](model_dir)
    before = _names(model_dir)
    with pytest.raises(ValueError, match=r"no checkpoint left .* backup.* train\.resume_from"):
        _opened(model_dir)
    assert _names(model_dir) == before


@pytest.mark.parametrize("reason", ["ResourceExhaustedError", None])
def test_a_first_save_that_failed_is_no_loss(model_dir, reason):
    _only_one(model_dir)
    (model_dir / "checkpoint").unlink()
    _damage(model_dir / f"ckpt-2.{DATA}", "cut")
    _log(model_dir, 2)
    _end(model_dir, reason)
    notes, step = _opened(model_dir)
    assert step == 0 and "begins anew; the files are in" in notes


def test_a_list_that_names_what_is_gone_falls_back_with_a_word(model_dir):
    (model_dir / f"ckpt-2.{DATA}").unlink()
    notes, step = _opened(model_dir)
    assert step == 1 and "not all files of ckpt-2" in notes and "goes on from ckpt-1" in notes


def test_steps_without_any_checkpoint_are_told(tmp_path):
    _log(tmp_path, 7)
    notes, step = _opened(tmp_path)
    assert step == 0 and "no checkpoint in" in notes and "7 steps are logged" in notes


def test_a_moved_run_with_a_list_of_absolute_paths_goes_on(model_dir):
    text = "".join(
        f'{key}: "/gone/{name}"\n'
        for key, name in (
            ("model_checkpoint_path", "ckpt-2"),
            ("all_model_checkpoint_paths", "ckpt-1"),
            ("all_model_checkpoint_paths", "ckpt-2"),
        )
    )
    (model_dir / "checkpoint").write_text(text)
    assert _opened(model_dir) == ("", 2)
    # An earlier one that somebody has chosen stays chosen.
    (model_dir / "checkpoint").write_text(text.replace("ckpt-2", "ckpt-1", 1))
    assert _opened(model_dir) == ("", 1)


def test_what_a_killed_training_was_writing_is_removed(model_dir):
    evaluation = model_dir / "evaluation"
    (model_dir / "best").mkdir()
    evaluation.mkdir()
    kept = ["notes.tmp", ".vim.tmp", "ckpt-9_temporary", "checkpoint.tmp", "ckpt-2.index.bak"]
    for name in kept:
        (model_dir / name).touch()
    before = _names(model_dir)
    gone = ["ckpt-3_temp", "ckpt-4_temp_" + 32 * "a"]
    for name in gone:
        (model_dir / name).mkdir()
        (model_dir / name / f"part-00000-of-00001.{DATA}").touch()
    (model_dir / "best" / "ckpt-3_temp").mkdir()
    gone += [".config.gin.ssd-0123456789.tmp", "checkpoint.tmp" + 32 * "b"]
    for name in gone[2:]:
        (model_dir / name).touch()
    # Deleted or not yet written in the middle; the list names neither.
    unlisted = [f"ckpt-0.{DATA}", f"ckpt-3.{DATA}", "ckpt-0.sha256"]
    for path in unlisted:
        (model_dir / path).touch()
    # Another command may be writing in folders that it shares.
    old = evaluation / ".metrics.json.ssd-0123456789.tmp"
    new = evaluation / ".detections.json.ssd-0123456789.tmp"
    old.touch(), new.touch()
    os.utime(old, (0, 0))
    notes, step = _opened(model_dir)
    assert step == 2 and _names(model_dir) == before and _names(evaluation) == [new.name]
    assert _names(model_dir / "best") == []
    assert all(name in notes for name in [*gone, old.name])


def test_the_best_checkpoint_that_somebody_removed_in_part_comes_back(model_dir):
    (model_dir / ".best.old").mkdir()
    _opened(model_dir)
    assert (model_dir / "best").is_dir() and not (model_dir / ".best.old").exists()


def test_digests_come_and_go_with_their_checkpoints(tmp_path):
    _save(tmp_path, 1, 2, 3, keep=2)
    assert _names(tmp_path) == sorted(
        ["checkpoint", *(f"ckpt-{n}.{end}" for n in (2, 3) for end in (DATA, "index", "sha256"))]
    )
    for step in (2, 3):
        run_command("sha256sum", "--check", "--strict", f"ckpt-{step}.sha256", cwd=tmp_path)
    checkpoints = RunCheckpoints(tiny_trainer(), tmp_path, seed=0)
    for value in (0.1, 0.2):
        checkpoints.trainer.step.assign_add(4)
        checkpoints.keep_best({"AP": value}, "AP", higher_is_better=True)
    checkpoints.finish()
    assert check_digest(tmp_path / "best" / "ckpt-8")
    assert [path.name for path in (tmp_path / "best").glob("*.sha256")] == ["ckpt-8.sha256"]


def test_a_whole_checkpoint_of_another_run_is_not_taken_for_this_one(model_dir, tmp_path):
    _save(tmp_path / "other", 2)
    for part in (DATA, "index"):
        shutil.copy(tmp_path / "other" / f"ckpt-2.{part}", model_dir)
    with pytest.raises(DamagedError, match=r"ckpt-2\.\S+ is not the file that was written"):
        restore(tiny_detector(), model_dir)
    checkpoints = RunCheckpoints(tiny_trainer(), tmp_path / "third", seed=0)
    with pytest.raises(DamagedError, match="is not the file that was written"):
        checkpoints.resume(str(model_dir / "ckpt-2"))
    # Where no digest can be read, it says nothing: that is a checkpoint of an older version.
    (model_dir / "ckpt-2.sha256").write_text("half a l")
    assert not has_digest(model_dir / "ckpt-2")
    restore(tiny_detector(), model_dir)


def test_a_checkpoint_whose_index_is_being_written_is_not_listed(model_dir):
    assert list(list_checkpoints(model_dir)) == [1, 2]
    index = model_dir / "ckpt-2.index"
    content = index.read_bytes()
    for size in (0, 5, len(content) - 1):
        index.write_bytes(content[:size])
        assert list(list_checkpoints(model_dir)) == [1]
