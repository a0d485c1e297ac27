"""What an impatient user types: each mistake is told in a line, and before any work."""

import json
import re
import shutil

import pytest

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.pipeline import count_examples
from ssd_centernet.training.schedules import StepDecay, WarmupCosine, WarmupCosineSteps
from tests.cli.command_line import parsed_recipe
from tests.scripts.in_process import command
from tests.tiny import TINY_NETWORK


def refused(*words, status=2):
    """The line that a command line is refused with."""
    said = [line for line in command(words, status=status).splitlines() if line.strip()]
    told = [line for line in said if line.startswith(f"ssd_centernet {words[0]}: ")]
    assert len(told) == 1 and "Traceback" not in "\n".join(said), said
    return told[0].partition(": ")[2]


def training(tiny_recipe, data_dir, run, *words, **options):
    given = (f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", f"--model_dir={run}")
    return refused("train", *given, *words, **options)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--num_steps=1e5", "flag --num_steps=1e5: expected a whole number"),
        ("--seed=abc", "flag --seed=abc: expected a whole number"),
        ("--epochs=ten", "flag --epochs=ten: expected a number"),
        ("--static=maybe", "flag --static=maybe: expected true or false"),
        ("--epochs=nan", "--epochs=nan: expected a number."),
        ("--epochs=inf", "--epochs=inf: expected a finite number."),
        ("--learning_rate=nan", "--learning_rate=nan: expected a number."),
        ("--base_lr=inf", "--base_lr=inf: expected a finite number."),
    ],
)
def test_numbers_that_are_none(tiny_recipe, data_dir, tmp_path, word, told):
    assert training(tiny_recipe, data_dir, tmp_path / "run", word) == told


def test_empty_words_of_a_shell(tiny_recipe, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training(tiny_recipe, "", "run").startswith("--data_dir must be given.")
    assert training(tiny_recipe, data_dir, "").startswith("--model_dir must be given.")
    assert refused("train", "--gin_file=", "--data_dir=").startswith(
        "--gin_file, --model_dir, --data_dir must be given."
    )
    assert refused("evaluate", "--model_dir=") == "--model_dir must be given."


@pytest.mark.parametrize("mode", ["train", "train_and_post_eval"])
def test_a_mode_that_has_the_last_word(tiny_recipe, mode, capsys):
    for every, told in (("1", True), ("0", False)):
        words = [f"--gin_file={tiny_recipe}", "--data_dir=d", f"--mode={mode}"]
        with parsed_recipe([*words, f"--evaluate_every={every}"]):
            said = capsys.readouterr().err
        assert said.startswith(f"--evaluate_every=1 has no effect: --mode={mode} is") == told


@pytest.mark.parametrize(
    ("word", "setting", "value"),
    [
        ("--threadpool_size=3", "training_batches.threadpool_size", 3),
        ("--learning_rate=0.25", "ConstantRate.learning_rate", 0.25),
    ],
)
def test_a_recipe_without_a_line_of_the_part_that_a_flag_sets(
    data_dir, tmp_path, word, setting, value
):
    (tmp_path / "bare.gin").write_text(f"{TINY_NETWORK}\ntrain.batch_size = 4\n")
    run = tmp_path / "run"
    given = (f"--gin_file={tmp_path / 'bare.gin'}", f"--data_dir={data_dir}", f"--model_dir={run}")
    command(["train", *given, "--num_steps=1", "--mode=train", word])
    assert f"{setting} = {value}\n" in (run / "config.gin").read_text()


def test_a_rate_below_0(tiny_recipe, data_dir, tmp_path):
    place = "--gin_params=ConstantRate.learning_rate = -1"
    told = training(tiny_recipe, data_dir, tmp_path, "--num_steps=1", place, status=1)
    assert told.startswith(
        "ConstantRate.learning_rate must be a number of 0 or more, got -1 (--gin"
    )
    for schedule in (StepDecay, WarmupCosine, WarmupCosineSteps):
        with pytest.raises(ValueError, match=f"{schedule.__name__}.base_learning_rate must be"):
            schedule(base_learning_rate=float("nan"))


def test_a_resume_with_another_optimizer_names_it(tiny_recipe, data_dir, tmp_path):
    given = (f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", f"--model_dir={tmp_path / 'r'}")
    command(["train", *given, "--num_steps=1", "-b2"])
    other = ("--num_steps=2", "-b", "2", "--gin_params=train.optimizer = @Adam")
    said = command(["train", *given, *other], status=1)
    assert "does not fit this model" in said and said.endswith(
        "Other than when it was trained:\n  train.optimizer: @Momentum -> @Adam\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "--model_dir=a"], "Give instead: run directories after the command"),
        (["evaluate", "--gin_file=a"], "Not needed: the run of --model_dir has its settings"),
        (["export", "--gin_file=a"], "Not needed: the run of --model_dir has its settings"),
    ],
)
def test_flags_of_other_commands_get_a_hint(words, told):
    assert told in refused(*words) and "Did you mean" not in refused(*words)


def test_a_folder_to_write_to_that_is_a_file(tiny_recipe, data_dir, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "inside"):
        told = f"{path}: {file} is a file, expected a folder."
        assert training(tiny_recipe, data_dir, path) == f"--model_dir={told}"
        assert (
            refused("evaluate", "--model_dir=a", f"--output_dir={path}") == f"--output_dir={told}"
        )
        assert refused("export", "--model_dir=a", f"--output={path}") == f"--output={told}"
        for words in (
            ("predict", "--model_dir=a", "b.jpg"),
            ("make_synthetic",),
            ("make_static", "--gin_file=a", "--data_dir=b"),
            ("convert", "--annotations=a.json", "--format=coco"),
            ("ablate", "--study=a.toml"),
            ("compare_precision", "--gin_file=a", "--data_dir=b"),
        ):
            assert refused(*words, f"--output_dir={path}") == f"--output_dir={told}"


@pytest.mark.parametrize("words", [("make_synthetic",), ("convert", "--annotations=a.json")])
def test_an_empty_folder_to_write_to_is_not_the_current_one(words):
    """As of a shell's variable that is not set."""
    assert refused(*words, "--output_dir=") == "--output_dir must be given."


def test_a_data_set_that_is_there_names_the_argument_and_the_flag(tmp_path):
    (tmp_path / "train").mkdir()
    told = refused("make_synthetic", f"--output_dir={tmp_path}", status=1)
    assert "or set overwrite (--overwrite) to replace train/, val/ and annotations" in told


def test_a_file_in_a_run_where_results_would_go(tmp_path):
    run = f"--model_dir={tmp_path}"
    for name, words in (("evaluation", ("evaluate",)), ("predictions", ("predict", "b.jpg"))):
        (tmp_path / name).write_text("")
        told = refused(*words, run, status=1)
        assert told.endswith(
            f"{tmp_path / name} is a file, expected a folder for the results. Move it away, or "
            "give --output_dir."
        )
        # With another place it is none of the command's business.
        assert "for the results" not in refused(*words, run, f"--output_dir={run}o", status=1)


def test_a_checkpoint_in_the_place_of_its_run(tmp_path):
    (tmp_path / "best").mkdir()
    for name in ("config.gin", "ckpt-3.index", "best/ckpt-3.index"):
        (tmp_path / name).write_text("")
    for name in ("best", "ckpt-3"):
        told = refused("evaluate", f"--model_dir={tmp_path / name}", "--data_dir=d", status=1)
        assert told.endswith(f"give --model_dir={tmp_path} --checkpoint={name}.")


def test_a_run_in_the_place_of_others(tiny_recipe, data_dir, tmp_path):
    (tmp_path / "config.gin").write_text("")
    told = refused("train", f"--gin_file={tmp_path}", "--data_dir=d", "--model_dir=m", status=1)
    assert told.endswith(f"its settings are the gin file {tmp_path / 'config.gin'}.")
    shutil.copy(data_dir / LABEL_MAP_NAME, tmp_path)
    for name in ("ckpt-3.index", "ckpt-3.data-00000-of-00001"):
        (tmp_path / name).write_text("")
    told = training(tiny_recipe, tmp_path, tmp_path / "new", status=1)
    assert "No record files of split 'coco_train'" in told and "Splits found there" not in told


def test_what_a_benchmark_makes_no_use_of():
    for flag in ("gin_file=a", "gin_params=a.b = 1", "allow_import=a"):
        told = refused("benchmark", "--part=eval", f"--{flag}")
        assert f"--{flag.partition('=')[0]} has no effect on --part=eval; it is for train" in told
    assert "it is for eval. Leave" in refused("benchmark", "--part=step", "--images=3")
    told = refused("benchmark", "--part=step", "--model_dir=a")
    assert "it is for --formats; the settings of a run are --gin_file=RUN/config.gin." in told
    told = refused("benchmark", "--part=input", "--device=cpu")
    assert "training, step, inference, postprocess and scaling. Leave it out." in told
    assert refused("benchmark", "--part=step", "--seconds=nan") == (
        "--seconds=nan: expected a number."
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--formats=all", "--part=eval", "--dtype=bf16"], "--part, --dtype cannot be used with"),
        (["--formats=all"], "Give one of --model_dir, a run to export, and --model, a file"),
        (["--formats=all", "--model=a", "--model_dir=b"], "Give one of --model_dir, a run to"),
        (["--model=a", "--checkpoint=latest"], "--checkpoint is for --model_dir; leave"),
        (["--model=a", "--formats=onnx"], "--formats=onnx chooses of a folder that `export` has"),
        (["--model=a", "--seconds=inf"], "--seconds=inf: expected a finite number."),
    ],
)
def test_formats_that_cannot_be_compared(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused("benchmark", *words)


def test_losses_that_all_count_nothing(tiny_recipe, data_dir, tmp_path):
    off = [f"--gin_params=MultiBoxLoss.{name}_loss_weight = 0" for name in ("class", "box")]
    recipe = tmp_path / "mine.gin"
    recipe.write_text(f"{tiny_recipe.read_text()}\nSSD.criterion = @MultiBoxLoss()\n")
    told = training(recipe, data_dir, tmp_path / "run", "--num_steps=1", *off, status=1)
    assert "MultiBoxLoss.box_loss_weight are 0: nothing would be learnt" in told


def test_settings_without_effect_are_noted(tiny_recipe, data_dir, tmp_path):
    given = (f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", f"--model_dir={tmp_path / 'r'}")
    images = count_examples(str(data_dir))
    more = ("--num_steps=1", f"--batch_size={images + 1}", "--distributed_bn")
    said = command(["train", *given, *more])
    assert "note: train.sync_batch_norm (--distributed_bn) has no effect on one process" in said
    assert f"note: a step takes {images + 1} images, and there are {images}: it takes some" in said
    said = command(["train", *given, "--num_steps=2", f"--batch_size={images}"])
    assert "has no effect on one process" not in said and "several times" not in said
    assert f"train.batch_size: {images + 1} -> {images}\n  train.sync_batch_norm: True -> F" in said
    # What was asked of an export and has no effect on its only format.
    words = ("export", given[2], f"--output={tmp_path / 'out'}", "--input_size=80,90")
    assert "--input_size=80,90 has no effect on a SavedModel" in refused(*words, status=1)
    assert not (tmp_path / "out").exists()
    said = command(["export", given[2], f"--output={tmp_path / 'out'}", "--num_check_images=1"])
    assert re.search(r"labels.txt \(\d+ bytes\)", said)
    assert json.loads((tmp_path / "out" / "model_card.json").read_text())["weights"] == "raw"


def test_weights_that_are_almost_called_so(tiny_recipe, data_dir, tmp_path):
    named = "--fine_tune_checkpoint=resnet34_mlperff"
    told = training(tiny_recipe, data_dir, tmp_path / "run", "--num_steps=1", named, status=1)
    assert told.startswith(
        "No checkpoint at resnet34_mlperff (did you mean the published weights resnet34_mlperf?): "
    )


def test_a_file_that_is_not_there_is_told_without_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused("ablate", "--study=nostudy.yaml", "--output_dir=x", status=1)
    assert told == "nostudy.yaml: No such file or directory."
    (tmp_path / "s.yaml").write_text("base: {gin_file: ssd_demo}\nseed: [0, 1]\n")
    told = refused("ablate", "--study=s.yaml", "--output_dir=x", status=1)
    assert told == "s.yaml, line 2: the study: nothing is named 'seed'. Did you mean seeds."


def test_arguments_of_functions_are_called_as_their_flags(tmp_path):
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "a.jpg").write_bytes(b"")
    given = (f"--annotations={tmp_path / 'instances.json'}", "--output_dir=x", "--split=train")
    assert refused("convert", *given, status=1) == (
        "COCO json does not say where its images are: give their --image_dir, such as "
        f"{tmp_path}, which holds images."
    )


def test_a_start_that_fails_leaves_no_run(tiny_recipe, data_dir, tmp_path):
    """Neither settings nor a log, which other commands take for a run."""
    words = ("--num_steps=1", "--eval_split=test", "--evaluate_every=1")
    training(tiny_recipe, data_dir, tmp_path / "a", *words, status=1)
    unused = "--gin_params=SSDDecoder.score_threshold = 0.5"
    training(tiny_recipe, data_dir, tmp_path / "b", "--num_steps=1", unused, status=1)
    left = {path.name for name in "ab" for path in (tmp_path / name).glob("*")}
    assert not left & {"config.gin", "metrics.jsonl", "sessions.jsonl", "mscoco_label_map.pbtxt"}
    assert "is not a run" in refused("report", tmp_path / "a", status=1)
    given = (f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", "--mode=train")
    command(["train", *given, f"--model_dir={tmp_path / 'c'}", "--num_steps=1"])
    said = command(["report", *(tmp_path / name for name in "abc")])
    for name in "ab":
        assert f"{tmp_path / name}: left out, as no training that was begun there" in said
    assert len([line for line in said.splitlines() if line.startswith("c ")]) == 1


@pytest.mark.parametrize("name", ["show_inputs", "show_anchors"])
def test_a_picture_is_called_png(name, tiny_recipe, data_dir, tmp_path):
    given = (f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", "--output=inputs.txt")
    told = "flag --output=inputs.txt: expected the name of a PNG file, which ends with .png."
    assert refused(name, *given).removeprefix("flag ") == told.removeprefix("flag ")
