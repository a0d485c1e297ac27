"""Run directories: which checkpoint is taken, and what does not fit."""

from pathlib import Path

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet.run_directory import choose_checkpoint
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
