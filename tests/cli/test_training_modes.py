"""What else `train` does under flags of the published systems: fake and static data, inference."""

import json
import shutil

import pytest

from ssd_centernet.cli import make_static, train
from tests.cli.command_line import parsed
from tests.tiny import RUN_RECIPE


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.gin"
    path.write_text(RUN_RECIPE.replace("train.evaluate_every = 3", ""))
    return path


def call(module, *arguments):
    """Call a command in this process, as the program does."""
    name = module.__name__.rpartition(".")[2]
    with parsed(name, [str(word) for word in arguments]):
        return module.main([name])


def test_fake_data_need_no_data(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = (f"--gin_file={recipe}", f"--model_dir={run}", "--use_fake_data", "-b", "2")
    assert call(train, *arguments, "--steps=2") == 0
    assert "64 training images" in capsys.readouterr().out
    label_map = (run / "mscoco_label_map.pbtxt").read_text()
    assert label_map.count("item") == 80
    assert not (run / "evaluation").exists()
    assert sorted(path.name for path in run.glob("*noise*")) == []
    # The same command goes on, on the same noise.
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (run / "fake_data").iterdir())
    assert call(train, *arguments, "--steps=3") == 0
    after = sorted((path.name, path.stat().st_mtime_ns) for path in (run / "fake_data").iterdir())
    assert before == after


def test_without_fake_data_the_data_must_be_given(recipe, tmp_path):
    with pytest.raises(Exception, match="--data_dir must be given"):
        call(train, f"--gin_file={recipe}", f"--model_dir={tmp_path}")


def test_static_batches_of_two_workers(recipe, data_dir, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    common = (f"--gin_file={recipe}", f"--data_dir={data}")
    assert call(make_static, *common, "--batch_size=2", "--workers=2") == 0
    assert f"written: {data / 'worker_1'}" in capsys.readouterr().out
    info = json.loads((data / "worker_1" / "static.json").read_text())
    assert (info["batch_size"], info["steps"], info["workers"]) == (2, 1, 2)
    run = tmp_path / "run"
    arguments = (f"--model_dir={run}", "--static", "-b", "2", "-s", "3", "--no_validate")
    assert call(train, *common, *arguments) == 0
    text = (run / "config.gin").read_text()
    assert "train.batches = @static_batches" in text
    with pytest.raises(FileExistsError, match="overwrite"):
        call(make_static, *common, "--num_steps=2")
    assert call(make_static, *common, "--num_steps=2", "--batch_size=2", "--overwrite") == 0
    with pytest.raises(
        ValueError, match="the batch size of the static batches in .* is 2, but the run.s is 4"
    ):
        call(train, *common, "-b", "4", "--static", f"--model_dir={tmp_path / 'other'}")


def test_inference_draws_an_image(model_dir, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(model_dir, run)
    image = sorted((pictures[0] / "val").iterdir())[0]
    assert call(train, f"--inference={image}", f"--model_dir={run}", "-b", "1", "--k=2") == 0
    assert [path.stem for path in (run / "predictions").glob("*.png")] == [image.stem]
    said = capsys.readouterr()
    assert "1 image, " in said.out
    assert "these flags have no effect: --k=2.0" in said.err


def test_evaluation_under_the_names_of_the_originals(model_dir, data_dir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(model_dir, run)
    places = (f"--work-dir={run}", f"--data_path={data_dir}")
    assert call(train, *places, "--do_train=False", "--resnet_checkpoint=anything") == 0
    said = capsys.readouterr()
    assert "best/ckpt-5 on coco_val" in said.out
    assert "--fine_tune_checkpoint" in said.err
    # The folder of checkpoints means its latest, as it does there.
    assert call(train, *places, f"--checkpoint_dir={run}") == 0
    assert "run/ckpt-10 on coco_val" in capsys.readouterr().out
