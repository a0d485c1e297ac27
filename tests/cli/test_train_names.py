"""Data sets with names: which of a folder a run is trained and evaluated on, and keeps."""

import json

import pytest

from ssd_centernet.cli import _runs, evaluate, show_anchors, show_inputs, train
from ssd_centernet.config.text import read_bindings
from ssd_centernet.data.splits import same_role
from ssd_centernet.preview.anchor_report import describe_anchors
from tests.cli.command_line import parsed
from tests.tiny import LABELS, TINY_RECIPE, tiny_detector, write_split


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.gin"
    settings = "train.batch_size = 2\ntrain.evaluate_every = 2\ntrain.pictures = 0"
    path.write_text(f"{TINY_RECIPE}\n{settings}\n")
    return path


def data_set(folder, *names):
    """A folder with the splits train and val of each name."""
    folder.mkdir()
    LABELS.to_pbtxt(folder / "mscoco_label_map.pbtxt")
    for name in names:
        for split, count in (("train", 4), ("val", 2)):
            write_split(folder, f"{name}_{split}", count, seed=len(name))
    return folder


@pytest.fixture
def run(recipe, tmp_path, capsys):
    """Train in a folder; returns what is said of the data."""

    def begin(data, *flags, model_dir=tmp_path / "run", steps=2):
        files = [f"--gin_file={recipe}", f"--model_dir={model_dir}", "--device=cpu"]
        with parsed("train", [*files, f"--data_dir={data}", f"--num_steps={steps}", *flags]):
            assert train.main(["train"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line for line in lines if line.startswith(("data: ", "note: "))]

    return begin


def splits_of_run(model_dir):
    bound = read_bindings(model_dir / "config.gin")
    return [bound[f"train.{name}"].strip("'") for name in ("train_split", "eval_split")]


def evaluated(model_dir, capsys, *flags):
    with parsed("evaluate", [f"--model_dir={model_dir}", "--device=cpu", *flags]):
        assert evaluate.main(["evaluate"]) == 0
    return capsys.readouterr().out


def test_the_log_names_both_splits_which_are_of_one_data_set(run, tmp_path):
    data = data_set(tmp_path / "data", "coco", "birds")
    words = "data: {0}_train of {1} to train on, {0}_val of {1} to evaluate on"
    assert words.format("coco", data) in run(data)
    chosen = run(data, "--train_split=birds_train", model_dir=tmp_path / "birds")
    assert words.format("birds", data) in chosen
    assert splits_of_run(tmp_path / "birds") == ["birds_train", "birds_val"]
    (begun, *_) = map(json.loads, (tmp_path / "birds/sessions.jsonl").read_text().splitlines())
    assert [begun[name] for name in ("train_split", "eval_split")] == ["birds_train", "birds_val"]


def test_two_data_sets_are_taken_when_flags_say_so_and_told(run, tmp_path):
    data = data_set(tmp_path / "data", "coco", "birds")
    told = run(data, "--train_split=birds_train", "--eval_split=coco_val")
    assert f"data: birds_train of {data} to train on, coco_val of {data} to evaluate on" in told
    assert any("birds_train and coco_val are of two data sets" in line for line in told)
    assert not any("two data sets" in line for line in run(data, model_dir=tmp_path / "one"))


def test_a_recipe_that_evaluates_on_its_training_split_does_so_in_every_data_set(run, tmp_path):
    data = data_set(tmp_path / "data", "coco", "birds")
    more = tmp_path / "more.gin"
    more.write_text("train.eval_split = 'coco_train'\n")
    told = run(data, "--train_split=birds_train", f"--gin_file={more}")
    assert f"data: birds_train of {data} to train on, birds_train of {data} to evaluate on" in told


def test_a_run_keeps_its_splits_when_another_data_set_comes_beside(run, tmp_path, capsys):
    data = data_set(tmp_path / "data", "birds")
    run(data)
    assert splits_of_run(tmp_path / "run") == ["birds_train", "birds_val"]
    for split in ("fish_train", "fish_val"):
        write_split(data, split, 3, seed=9)
    # A new run does not know which one is meant, and is told both.
    with pytest.raises(FileNotFoundError, match="--train_split=birds_train or --train_split=fish_"):
        run(data, model_dir=tmp_path / "new")
    assert f"on birds_val of {data}" in evaluated(tmp_path / "run", capsys)
    told = run(data, steps=3)
    assert f"data: birds_train of {data} to train on, birds_val of {data} to evaluate on" in told
    assert not any("train_split was" in line for line in told)
    # Its settings as a recipe name the same records.
    files = [f"--gin_file={tmp_path / 'run' / 'config.gin'}", f"--data_dir={data}"]
    with parsed("show_inputs", [*files, f"--output={tmp_path / 'inputs.png'}"]):
        assert show_inputs.main(["show_inputs"]) == 0
    said = capsys.readouterr().out
    # Each is drawn once, though more are asked for.
    assert "inputs.png: 4 images, " in said
    assert "they are all that birds_train has to train on" in said
    told = run(data, "--train_split=fish_train", steps=4)
    assert any("train_split was birds_train and is fish_train now" in line for line in told)


def test_a_run_is_evaluated_on_the_split_of_its_role_in_another_folder(run, tmp_path, capsys):
    run(data_set(tmp_path / "birds", "birds"))
    other = data_set(tmp_path / "fish", "fish")
    said = evaluated(tmp_path / "run", capsys, f"--data_dir={other}")
    assert f"on fish_val of {other}" in said
    # What a flag says is not changed into something else.
    with pytest.raises(FileNotFoundError, match="'birds_val', but of fish_train, fish_val: give"):
        evaluated(tmp_path / "run", capsys, f"--data_dir={other}", "--split=birds_val")


def test_a_short_name_that_may_mean_two_splits_lists_them(tmp_path):
    data = data_set(tmp_path / "data", "birds", "fish")
    with pytest.raises(FileNotFoundError, match="several splits 'val': birds_val, fish_val: give"):
        _runs.whole_split(str(data), "val")
    assert _runs.whole_split(str(data), "fish_val") == "fish_val"


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (["birds_val"], "birds_val", "birds_val"),
        (["fish_val"], "birds_val", "fish_val"),
        (["fish_val", "pets_val"], "birds_val", "birds_val"),
        (["fish_val"], "my_birds_val", "fish_val"),
        # Records of other tools are chosen by a flag.
        (["val"], "coco_val", "coco_val"),
        (["coco_val"], "val", "coco_val"),
    ],
)
def test_the_split_that_has_a_role(tmp_path, names, split, found):
    for name in names:
        (tmp_path / f"{name}.record").write_bytes(b"")
    assert same_role(tmp_path, split) == found


def test_what_is_looked_at_before_a_training_has_the_names_of_the_files(recipe, tmp_path, capsys):
    data = data_set(tmp_path / "data", "birds")
    for command, module in (("show_inputs", show_inputs), ("show_anchors", show_anchors)):
        output = [f"--output={tmp_path / 'sheet.png'}"] if command == "show_inputs" else []
        with parsed(command, [f"--gin_file={recipe}", f"--data_dir={data}", *output]):
            assert module.main([command]) == 0
        said = capsys.readouterr().out
        assert "birds_train" in said and "coco_train" not in said
    assert describe_anchors(tiny_detector(), data).startswith(f"birds_train of {data}: ")


def test_a_validation_that_is_missing_is_told_by_its_own_name(run, tmp_path):
    data = data_set(tmp_path / "data", "birds")
    for path in data.glob("birds_val*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="No record files of split 'birds_val' in"):
        run(data)
    told = run(data, "--mode=train")
    assert told[0] == f"data: birds_train of {data}, without evaluations"
