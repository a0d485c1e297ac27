"""Run directories: which checkpoint is taken, and what does not fit."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.export.export import export
from ssd_centernet.run_directory import choose_checkpoint
from ssd_centernet.runs import opened
from ssd_centernet.runs.opened import open_run
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.weights import restore
from tests.tiny import tiny_trainer


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


@pytest.mark.parametrize("name", ["exp [lr=0.01]", "what?", "all *", "a[b]c"])
def test_a_run_whose_folder_has_wildcards_in_its_name_is_read_as_it_is(model_dir, tmp_path, name):
    # A folder that the name as a pattern would find as well must not be read instead.
    for folder in (name, "exp l", "whats", "all 1", "abc"):
        shutil.copytree(model_dir, tmp_path / folder, dirs_exist_ok=True)
    for other in ("exp l", "whats", "all 1", "abc"):
        for file in (tmp_path / other).rglob("ckpt-*"):
            file.write_bytes(b"")
    image = np.full((1, 20, 30, 3), 90, np.uint8)
    want = open_run(model_dir, device="cpu").detector.detect(image)
    found = open_run(tmp_path / name, device="cpu")
    assert found.checkpoint == str(tmp_path / name / "best" / "ckpt-5")
    np.testing.assert_array_equal(found.detector.detect(image)["scores"], want["scores"])
    fresh = open_run(model_dir, device="cpu").detector
    for weight in fresh.trainable_variables:
        weight.assign(tf.zeros_like(weight))
    restore(fresh, tmp_path / name)
    np.testing.assert_array_equal(fresh.detect(image)["scores"], want["scores"])
    latest = open_run(tmp_path / name, checkpoint="latest", device="cpu")
    assert latest.checkpoint == str(tmp_path / name / "ckpt-10")
    with pytest.raises(ValueError, match="holds .*, which TensorFlow takes for wildcards"):
        RunCheckpoints(tiny_trainer(), tmp_path / name, seed=0)
    with pytest.raises(ValueError, match="--output='.*a SavedModel there could not be loaded"):
        export(fresh, tmp_path / "models [1]")


def test_what_cannot_be_read_is_never_to_be_deleted(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "run")
    index = tmp_path / "run" / "best" / "ckpt-5.index"
    index.write_bytes(index.read_bytes()[:40])
    with pytest.raises(ValueError, match="ckpt-5 is damaged: .*Move .*best to another") as told:
        open_run(tmp_path / "run", device="cpu")
    (tmp_path / "run" / "ckpt-10.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00001 is empty\). Move the files ckpt-10") as empty:
        open_run(tmp_path / "run", checkpoint="latest", device="cpu")
    for text in (str(told.value), str(empty.value)):
        assert not re.search("[Rr]emove|[Dd]elete", text)


def _exchange(run, name):
    """Do what a training does with its best checkpoint, and with the oldest of the others."""
    if name == "best":
        (run / "best").rename(run / ".best.old")
        (run / ".best.new").rename(run / "best")
        shutil.rmtree(run / ".best.old")
    else:
        for path in run.glob(f"{name}.*"):
            path.unlink()


@pytest.mark.parametrize("moment", ["after it was chosen", "while it is read"])
@pytest.mark.parametrize("asked", ["best", "latest", "ckpt-10"])
def test_a_checkpoint_that_a_training_replaces_meanwhile(
    model_dir, tmp_path, monkeypatch, asked, moment
):
    run = Path(shutil.copytree(model_dir, tmp_path / "run"))
    (run / ".best.new").mkdir()
    for path in (run / "best").glob("ckpt-5.*"):
        shutil.copy(path, run / ".best.new" / path.name.replace("ckpt-5", "ckpt-9"))
    waiting = [lambda: _exchange(run, "best" if asked == "best" else "ckpt-10")]

    def load(path):
        reader = tf_load(path)
        exchange()
        return reader

    def restore_all(*arguments, **kwargs):
        exchange()
        return ours(*arguments, **kwargs)

    def exchange():
        if waiting:
            waiting.pop()()

    tf_load, ours = tf.train.load_checkpoint, opened._restore_all
    if moment == "while it is read":
        monkeypatch.setattr(tf.train, "load_checkpoint", load)
    else:
        monkeypatch.setattr(opened, "_restore_all", restore_all)
    if asked == "ckpt-10":
        with pytest.raises(
            FileNotFoundError, match=r"no checkpoint 'ckpt-10' in .*, which has ckpt-5"
        ):
            open_run(run, checkpoint=asked, device="cpu")
        return
    found = open_run(run, checkpoint=asked, device="cpu").checkpoint
    assert found == str(run / ("best/ckpt-9" if asked == "best" else "ckpt-5"))
    assert not waiting


def test_the_best_checkpoint_is_found_between_the_renames_of_its_exchange(model_dir, tmp_path):
    run = Path(shutil.copytree(model_dir, tmp_path / "run"))
    shutil.copytree(run / "best", run / ".best.new")
    (run / "best").rename(run / ".best.old")
    assert choose_checkpoint(run) == str(run / ".best.new" / "ckpt-5")
    assert open_run(run, device="cpu").checkpoint == str(run / ".best.new" / "ckpt-5")
