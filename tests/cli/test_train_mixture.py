"""`train` with several data directories, and with splits of other names."""

import json
import shutil

import pytest
from absl import flags

from ssd_centernet.cli import train
from ssd_centernet.data.mixture import merged_label_map
from ssd_centernet.labels import LabelMap
from tests.cli.command_line import parsed
from tests.data.foreign import record, write, write_labels
from tests.tiny import TINY_RECIPE


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.gin"
    path.write_text(f"{TINY_RECIPE}\ntrain.batch_size = 2\ntrain.evaluate_every = 2\n")
    return path


@pytest.fixture
def folders(tmp_path):
    """Data sets as the TPU tools name their files; the second one with a class of its own."""
    for folder, names in (("one", ("cat", "dog")), ("two", ("emu", "cat"))):
        for split, count in (("train", 6), ("val", 3)):
            items = [record(n, texts=names) for n in range(1, count + 1)]
            write(tmp_path / folder / f"{split}-00000-of-00001.tfrecord", items)
        write_labels(tmp_path / folder, names)
    return tmp_path / "one", tmp_path / "two"


def run(recipe, folders, model_dir, *arguments, steps=2):
    places = [f"--data_dir={folder}" for folder in folders]
    files = [f"--gin_file={recipe}", f"--model_dir={model_dir}", "--device=cpu"]
    splits = ["--train_split=train", "--eval_split=val", f"--num_steps={steps}"]
    with parsed("train", [*files, *places, *splits, *arguments]):
        return train.main(["train"])


def test_several_data_directories_are_mixed(recipe, folders, tmp_path, capsys):
    assert run(recipe, folders, tmp_path / "run", "--data_weights=2,1") == 0
    said = capsys.readouterr().out
    assert f"note: {folders[1]} adds the classes emu" in said
    assert f"note: an epoch has 12 images ({folders[0]}: 8, {folders[1]}: 4)" in said
    assert "12 training images, 6 steps an epoch" in said
    saved = LabelMap.from_pbtxt(tmp_path / "run" / "mscoco_label_map.pbtxt")
    assert saved == merged_label_map(folders)[0] == LabelMap(["cat", "dog", "emu"])
    (begin, *_) = map(json.loads, (tmp_path / "run" / "sessions.jsonl").read_text().splitlines())
    assert begin["data_dir"] == str(folders[0]) and begin["mixed_with"] == [str(folders[1])]
    # The first folder is evaluated on, with the classes of all.
    assert "AP" in said and (tmp_path / "run" / "best" / "metrics.json").exists()
    # It goes on as any run does, also with another number of steps.
    assert run(recipe, folders, tmp_path / "run", "--data_weights=2,1", steps=3) == 0
    said = capsys.readouterr().out
    assert "resuming from" in said and " was " not in said
    # With data in another order it goes on too, and says so.
    assert run(recipe, folders, tmp_path / "run", "--data_weights=1,1", steps=4) == 0
    told = "note: data_weights was [2.0, 1.0] and is [1.0, 1.0] now: only with the same data does"
    assert told in capsys.readouterr().out


def test_a_run_that_goes_on_with_another_folder_says_so(recipe, folders, tmp_path, capsys):
    other = shutil.copytree(folders[0], tmp_path / "other")
    assert run(recipe, folders[:1], tmp_path / "run") == 0
    assert "note: data_dir" not in capsys.readouterr().out
    assert run(recipe, [other], tmp_path / "run", steps=3) == 0
    assert f"note: data_dir was {folders[0]} and is {other} now" in capsys.readouterr().out


def test_rare_classes_and_one_folder(recipe, folders, tmp_path, capsys):
    setting = "--gin_params=train.repeat_threshold = 1.0"
    assert run(recipe, folders[:1], tmp_path / "run", setting) == 0
    said = capsys.readouterr().out
    # Every class is in every image: none is rare, and an epoch is as long as before.
    assert "images of rare classes come more often, up to 1.0 times: an epoch has 6 images" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=eval"], "--data_dir is given 2 times, but an evaluation takes one"),
        (["--static"], "--data_dir is given 2 times, but --static takes one"),
        (["--data_weights=a,b"], "--data_weights=a,b: expected a number for each"),
    ],
)
def test_what_takes_one_data_directory(recipe, folders, tmp_path, arguments, message):
    with pytest.raises(flags.Error, match=message):
        run(recipe, folders, tmp_path / "run", *arguments)


def test_a_split_of_another_name_is_proposed(recipe, folders, tmp_path):
    arguments = [f"--gin_file={recipe}", f"--model_dir={tmp_path / 'run'}", "--device=cpu"]
    with parsed("train", [*arguments, f"--data_dir={folders[0]}", "--num_steps=1"]):
        with pytest.raises(FileNotFoundError, match="Give --train_split=train, or convert"):
            train.main(["train"])
    arguments += ["--train_split=train", "--num_steps=1"]
    with parsed("train", [*arguments, f"--data_dir={folders[0]}"]):
        with pytest.raises(FileNotFoundError, match="Give --eval_split=val, .*--mode=train"):
            train.main(["train"])
