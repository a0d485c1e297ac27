"""What a command line that is wrong or incomplete is told, and what to type next."""

import re
import sys

import pytest

from ssd_centernet import config
from tests.cli.command_line import parsed, parsed_recipe
from tests.process import cli, environment, run
from tests.tiny import write_split
from tests.warm import without_ours


@pytest.mark.parametrize(
    ("command", "flag", "hint"),
    [
        ("train", "--lr=0.1", "'lr'. Give instead: --learning_rate."),
        ("train", "--num_classes=3", "Not needed: the data has the classes"),
        ("train", "--nc=3", "Not needed: the data has the classes"),
        ("evaluate", "--imgsz=320", "IMAGE_SIZE = (512, 512)"),
        ("train", "--only_check_args", "Not needed: flags and recipe are checked"),
    ],
)
def test_flags_of_other_tools_get_a_hint(command, flag, hint):
    ended = cli(command, flag, status=2)
    assert hint in ended.stderr and "Traceback" not in ended.stderr
    assert "Did you mean" not in ended.stderr


def test_the_debugger_that_is_named_stops_at_an_error():
    said = cli("train", "--pdb", status=2).stderr
    command = re.search(r"Give instead: python (.*) COMMAND FLAGS (--debug),", said)
    arguments = ["train", "--gin_file=no_such_recipe", "--model_dir=run", "--data_dir=data"]
    ended = run(sys.executable, *command[1].split(), *arguments, command[2], env=environment())
    assert "Uncaught exception. Entering post mortem debugging" in ended.stdout, str(ended)


def test_a_misspelt_flag_gets_the_near_one():
    assert "Did you mean: batch_size" in cli("train", "--batchsize=3", status=2).stderr


def test_train_without_flags_names_all_that_is_missing():
    said = cli("train", status=2).stderr
    assert "--gin_file, --model_dir, --data_dir must be given. For example:" in said
    assert "--annotations=FILE" in said
    said = cli("train", "--annotations=a.json", status=2).stderr
    assert "--gin_file, --model_dir must be given." in said


@pytest.mark.parametrize("recipe", config.recipes())
def test_every_recipe_takes_a_learning_rate(recipe):
    import gin

    with parsed_recipe([f"--gin_file={recipe}", "--learning_rate=0.125", "--data_dir=d"]):
        part, known = config.bound_part("train.schedule", default="ConstantRate")
        rate = "learning_rate" if "base_learning_rate" not in known else "base_learning_rate"
        assert gin.query_parameter(f"{part}.{rate}") == 0.125


def test_the_short_name_of_a_split_means_the_whole_one(tmp_path):
    from ssd_centernet.cli import _flags

    for name in ("coco_train", "coco_test", "val"):
        write_split(tmp_path, name, 2, seed=1)
    for command, flag in (
        ("train", "train_split"),
        ("train", "eval_split"),
        ("show_inputs", "split"),
        ("show_anchors", "split"),
        ("make_static", "split"),
        ("benchmark", "split"),
    ):
        for given, meant in (("test", "coco_test"), ("coco_test",) * 2, ("val", "val"), ("x", "x")):
            with parsed(command, [f"--{flag}={given}", f"--data_dir={tmp_path}"]) as values:
                name = "train_split" if command in ("show_inputs", "make_static") else flag
                _flags.complete_splits(name)
                assert values[flag].value == meant, (command, given)


def test_the_next_command_is_told_after_a_conversion(tmp_path, warm):
    rows = ["image,xmin,ymin,xmax,ymax,class", "a.png,1,1,9,9,dog"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    for split, told in (
        (
            "train",
            f"next: ssd_centernet convert --annotations=VAL_ANNOTATIONS --output_dir={tmp_path}",
        ),
        # One image is few: the recipe, its layer and its weights for small sets.
        (
            "val",
            "next: ssd_centernet train --gin_file=ssd320_efficientnet_lite0 "
            "--gin_file=optim/finetune --fine_tune_checkpoint=efficientnet_lite0 "
            f"--data_dir={tmp_path}/out ",
        ),
    ):
        ended = cli(
            "convert",
            f"--annotations={tmp_path / 'boxes.csv'}",
            f"--output_dir={tmp_path / 'out'}",
            f"--split={split}",
            python=without_ours(warm),
        )
        assert told in ended.stdout
