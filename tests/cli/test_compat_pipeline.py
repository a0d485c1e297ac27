"""Pipeline configurations of the originals: what is read, what is the recipe's, what is told."""

import os
import re

import gin
import pytest
from absl import flags

from ssd_centernet.cli.originals.lines import translate_line
from ssd_centernet.cli.originals.pipeline import read_pipeline
from ssd_centernet.cli.originals.text_proto import merge, read_text_proto
from tests.cli import pipelines
from tests.cli.command_line import parsed_recipe
from tests.cli.vendor_lines import split


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory with no data, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("DEVICE", "DATASET", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def _write(tmp_path, text, **words):
    records = tmp_path / "coco2017_tfrecords" / "tfrecords"
    records.mkdir(parents=True, exist_ok=True)
    for name in ("coco_train.record-00000-of-00001", "coco_val.record-00000-of-00001"):
        (records / name).touch()
    text = text.replace("RECORDS", os.fspath(records))
    for old, new in words.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "pipeline.config"
    path.write_text(text)
    return path, records


@pytest.mark.parametrize(
    ("text", "recipe", "name", "line"),
    [
        (pipelines.SSD, "ssd320_resnet50_fpn", "ssd320_full_8mlus", "model_main.py"),
        (pipelines.CENTERNET, "centernet_resnet101_fpn", "mlu_centernet_config", "centernet.py"),
    ],
)
def test_the_published_files_say_what_their_names_stand_for(text, recipe, name, line, tmp_path):
    path, records = _write(tmp_path, text)
    whole, named = read_pipeline(path), read_pipeline(f"{name}.config")
    assert whole.recipe == named.recipe == recipe
    assert (whole.batch_size, whole.num_steps) == (named.batch_size, named.num_steps)
    assert not any("without effect" in note for note in whole.notes), whole.notes
    same = {k: v for k, v in whole.parameters.items() if named.parameters.get(k) != v}
    assert set(same) <= {f"StepDecay.{n}" for n in ("base_learning_rate", "boundaries", "factor")}
    plan = translate_line([line, f"--pipeline_config_path={path}", "--model_dir=m", "--do_train"])
    assert f"--data_dir={records}" in plan.command
    with parsed_recipe(plan.command[1:]):
        assert gin.query_parameter("train.steps") == whole.num_steps


def test_settings_of_the_file_that_are_others(tmp_path):
    path, _ = _write(
        tmp_path,
        pipelines.SSD,
        **{
            "height: 320 width: 320": "height: 256 width: 384",
            "iou_threshold: 0.6": "iou_threshold: 0.5",
            "max_aspect_ratio: 3.0": "max_aspect_ratio: 2.0",
            "num_classes: 90": "num_classes: 3",
            "freeze_batchnorm: true": "freeze_batchnorm: false",
            "momentum_optimizer_value: 0.9": "momentum_optimizer_value: 0.8",
        },
    )
    found = read_pipeline(path, "train_config { batch_size: 4 data_augmentation_options {} }")
    assert found.batch_size == 4
    assert found.parameters["IMAGE_SIZE"] == (256, 384)
    assert found.parameters["SigmoidSSDDecoder.iou_threshold"] == 0.5
    assert found.parameters["Momentum.momentum"] == 0.8
    assert found.parameters["WarmupCosineSteps.warmup_learning_rate"] == 0.0693312
    unused = found.notes[-1]
    assert "model.ssd.num_classes: 3" in unused and "freeze_batchnorm: False" in unused
    arguments = ["--gin_file=ssd320_resnet50_fpn", "--model_dir=m", "--data_dir=d"]
    arguments += [f"--gin_params={name} = {value!r}" for name, value in found.parameters.items()]
    with parsed_recipe(arguments):
        from ssd_centernet.building import build_detector
        from ssd_centernet.recipe import Recipe

        assert gin.query_parameter("IMAGE_SIZE/gin.macro.value") == (256, 384)
        assert Recipe() and build_detector  # Each parameter is one that there is.


def test_initial_weights_are_those_given_or_those_of_the_file(tmp_path):
    path, _ = _write(tmp_path, pipelines.SSD, WEIGHTS=os.fspath(tmp_path))
    line = ["model_main.py", f"--pipeline_config_path={path}", "--model_dir=m", "--do_train"]
    assert "--fine_tune_checkpoint=" in translate_line(line).command
    (tmp_path / "model.ckpt.index").touch()
    words = translate_line([*line, "--fine_tune_checkpoint="]).command
    assert f"--fine_tune_checkpoint={tmp_path}/model.ckpt" in words
    assert "--fine_tune_checkpoint_type=classification" in words
    words = translate_line([*line, "--fine_tune_checkpoint=other"]).command
    assert "--fine_tune_checkpoint=other" in words
    words = translate_line([*line, "--hparams_overrides=load_pretrained=false"]).command
    assert "fine_tune" not in " ".join(words)
    with pytest.raises(flags.Error, match="expected load_pretrained=false"):
        translate_line([*line, "--hparams_overrides=batch=3"])


def test_a_checkpoint_of_ours_is_resumed_and_another_gives_its_weights(tmp_path):
    line = "centernet.py --pipeline_config_path=mlu_centernet_config.config --model_dir=m"
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.gin").touch()
    words = translate_line([*split(line), "--finetune_ckpt=ours/ckpt-3"]).command
    assert "--resume_from=ours/ckpt-3" in words
    plan = translate_line(
        [*split(line), "--fine_tune_ckpt=None"]
    )  # Its default, as the readme has it.
    assert not any("fine_tune" in word or "None" in word for word in plan.command)
    plan = translate_line([*split(line), "--fine_tune_ckpt=theirs/ckpt-3"])
    assert "--fine_tune_checkpoint=theirs/ckpt-3" in plan.command
    assert any("not its step and optimizer" in note for note in plan.notes)


def test_text_protos():
    text = """a: 1 b { c: 'x' "y" d: [1, -2.5e1] } b: { } e < f: -.5 >; g: NAME # no
    h: true, h: false"""
    found = read_text_proto(text, "here")
    assert found["a"] == [1] and found["b"] == [{"c": ["xy"], "d": [1, -25.0]}, {}]
    assert found["e"] == [{"f": [-0.5]}] and found["g"] == ["NAME"] and found["h"] == [True, False]
    merge(found, {"e": [{"k": [2]}], "a": [3]})
    assert found["e"] == [{"f": [-0.5], "k": [2]}] and found["a"] == [3]
    for text, message in {
        "a: 1\nb {": "line 2: got 'the end of the file', expected the name of a field or '}'",
        "a 1": "line 1: got '1', expected `:` or `{`",
        "a: }": "line 1: got '}', expected a value",
        "a: 1\n\n=": "line 3: '=' cannot be read",
        "a: [1": "expected a value",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            read_text_proto(text, "here")
