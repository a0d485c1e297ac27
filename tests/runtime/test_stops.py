"""SIGTERM in every phase of the commands: answered within ten seconds, with nothing left behind."""

import json
import os
import signal
import time

import pytest

from tests.process import Running, cli, environment, slowness
from tests.tiny import RUN_RECIPE
from tests.training.test_train import assert_same_bits

PROMISE = 10.0  # Of a machine that does nothing else, as all seconds here.
NO_STEP = "no step was done"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.gin"
    path.write_text(RUN_RECIPE.replace("train.evaluate_every = 3", "train.evaluate_every = 2"))
    return path


def stop_in(place, how, command, *, python, mark, numbers=(signal.SIGTERM,), **variables):
    """Run a command until it halts in a place, and stop it there; return its end and seconds."""
    program = (python, "-m", "tests.runtime.halted", place, how, mark)
    with Running(*program, *command, env=environment(**variables)) as running:
        running.wait_until(mark.exists)
        # The warm python asks another process to do it.
        for number in numbers:
            os.kill(int(mark.read_text()), number)
            time.sleep(0.1)
        began = time.monotonic()
        ended = running.finish()
        seconds = (time.monotonic() - began) / slowness()
    assert seconds < PROMISE, f"{seconds} s: {ended}"
    assert "Traceback" not in ended.text, str(ended)
    return ended, seconds


def training(recipe, data_dir, model_dir, *more):
    places = [f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    return ["train", *places, "--num_steps=4", "--device=cpu", *more]


IN_TRAINING = {
    "start": ("ssd_centernet.recipe:Recipe.detector", "python"),
    "restore": ("ssd_centernet.train:restore", "python"),
    "pictures": ("ssd_centernet.training.pictures:PictureBoard.show_inputs", "python"),
    "trace": ("ssd_centernet.training.trainer:Trainer.train_step", "python"),
    "deaf trace": ("ssd_centernet.training.trainer:Trainer.train_step", "deaf"),
    "input": ("ssd_centernet.recipe:Recipe.training_batches", "input"),
}


@pytest.mark.parametrize("phase", IN_TRAINING)
def test_a_training_that_has_done_no_step_or_cannot_save_ends(
    phase, recipe, data_dir, model_dir, tmp_path, warm
):
    place, how = IN_TRAINING[phase]
    command = training(recipe, data_dir, tmp_path / "run", "--checkpoint_every=100")
    if phase == "restore":
        command.append(f"--fine_tune_checkpoint={model_dir}")
    # One of them waits as long as a user does.
    patience = {} if phase == "deaf trace" else {"PATIENCE": 2}
    ended, seconds = stop_in(place, how, command, python=warm, mark=tmp_path / "mark", **patience)
    assert ended.status == 143, str(ended)
    if how == "python":
        assert "ssd_centernet train: ended by SIGTERM." in ended.stderr and seconds < 6, str(ended)
        assert (NO_STEP in ended.stdout) == (phase == "trace")
    else:
        assert "SIGTERM: not answered in" in ended.stderr, str(ended)
    assert not list((tmp_path / "run").glob("ckpt*"))


IN_EVALUATION = {
    "detecting": ("ssd_centernet.evaluation.coco:CocoEvaluator.add", "python"),
    "metrics": ("ssd_centernet.evaluation.coco:CocoEvaluator.compute", "python"),
}


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory, warm):
    """A run of 4 steps with evaluations at 2 and 4."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "tiny.gin"
    path.write_text(RUN_RECIPE.replace("train.evaluate_every = 3", "train.evaluate_every = 2"))
    cli(*training(path, data_dir, folder / "run", "--checkpoint_every=2"), python=warm)
    return folder / "run"


@pytest.mark.parametrize("phase", IN_EVALUATION)
def test_an_evaluation_in_a_training_stops_and_is_made_up(
    phase, recipe, data_dir, tmp_path, undisturbed, warm
):
    command = training(recipe, data_dir, tmp_path / "run", "--checkpoint_every=100")
    ended, _ = stop_in(*IN_EVALUATION[phase], command, python=warm, mark=tmp_path / "mark")
    assert ended.status == 0, str(ended)
    assert "SIGTERM: saved" in ended.stdout and "with the evaluation that was" in ended.stdout
    assert evaluated(tmp_path / "run") == []
    again = cli(*command, python=warm)
    assert "the evaluation at step 2 is not recorded; it is made up now" in again.stdout
    assert_same_bits(undisturbed, tmp_path / "run")
    assert evaluated(tmp_path / "run") == evaluated(undisturbed)


def evaluated(model_dir):
    records = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [(one["step"], one["AP"], one["loss_box"]) for one in records if one["kind"] == "eval"]


def test_a_signal_while_predictions_are_drawn_leaves_the_evaluation(
    recipe, data_dir, tmp_path, undisturbed, warm
):
    command = training(recipe, data_dir, tmp_path / "run", "--checkpoint_every=100")
    place = "ssd_centernet.training.pictures:PictureBoard.show_predictions"
    ended, _ = stop_in(place, "python", command, python=warm, mark=tmp_path / "mark")
    assert ended.status == 0 and "SIGTERM: saved" in ended.stdout, str(ended)
    assert evaluated(tmp_path / "run") == evaluated(undisturbed)[:1]
    assert (tmp_path / "run" / "best" / "metrics.json").exists()


def _convert(pictures, model_dir, data_dir, output):
    folder, paths = pictures
    source = [f"--annotations={paths['val']}", f"--image_dir={folder / 'val'}"]
    return ["convert", *source, f"--output_dir={output}", "--split=val", "--num_shards=1"]


def _export(pictures, model_dir, data_dir, output):
    formats = "--formats=saved_model,tflite,onnx"
    return ["export", f"--model_dir={model_dir}", f"--output={output}", formats]


def _predict(pictures, model_dir, data_dir, output):
    images = pictures[0] / "val"
    return ["predict", f"--model_dir={model_dir}", f"--output_dir={output}", images]


def _evaluate(pictures, model_dir, data_dir, output):
    places = [f"--model_dir={model_dir}", f"--data_dir={data_dir}", f"--output_dir={output}"]
    return ["evaluate", *places, "--split=coco_val", "--report"]


def _benchmark(pictures, model_dir, data_dir, output):
    return ["benchmark", "--part=step", "--gin_file=ssd_demo", "--device=cpu", "--batch_size=1"]


def _make_synthetic(pictures, model_dir, data_dir, output):
    return ["make_synthetic", f"--output_dir={output}", "--num_train=2", "--num_val=2"]


OF_COMMANDS = {
    "conversion, a thread of it": (_convert, "ssd_centernet.data.checking:_decode", "python"),
    "conversion": (_convert, "ssd_centernet.data.output:SplitOutput.commit", "python"),
    "export of a SavedModel": (_export, "ssd_centernet.export.serving:save_serving", "python"),
    "export, in C++": (_export, "ssd_centernet.export.portable:save_tflite", "deaf"),
    "export, the comparison": (_export, "ssd_centernet.export.parity:compare", "python"),
    "prediction": (_predict, "ssd_centernet.predict.prediction:predict", "python"),
    "evaluation": (_evaluate, "ssd_centernet.evaluation.coco:CocoEvaluator.add", "python"),
    "metrics, in C++": (_evaluate, "ssd_centernet.evaluation.coco:CocoEvaluator.compute", "deaf"),
    "report": (_evaluate, "ssd_centernet.runs.evaluation:evaluation_page", "python"),
    "benchmark": (_benchmark, "ssd_centernet.training.trainer:Trainer.train_step", "python"),
    "rendering": (_make_synthetic, "ssd_centernet.data.synthetic:render_scene", "python"),
}


@pytest.mark.parametrize("phase", OF_COMMANDS)
def test_other_commands_end(phase, pictures, model_dir, data_dir, tmp_path, warm):
    arguments, place, how = OF_COMMANDS[phase]
    output = tmp_path / "output"
    command = arguments(pictures, model_dir, data_dir, output)
    options = {"python": warm, "mark": tmp_path / "mark", "PATIENCE": 2}
    ended, seconds = stop_in(place, how, command, **options)
    assert ended.status == 143, str(ended)
    if how == "deaf" or "thread" in phase:
        assert "SIGTERM: not answered in" in ended.stderr, str(ended)
        return
    assert f"ssd_centernet {command[0]}: ended by SIGTERM." in ended.stderr, str(ended)
    assert seconds < 6, str(ended)
    left = [one for one in tmp_path.rglob("*") if ".partial" in one.name or one.suffix == ".tmp"]
    assert not left, left


def test_a_second_signal_ends_a_command_in_c_at_once(model_dir, data_dir, tmp_path, warm):
    command = _export(None, model_dir, data_dir, tmp_path / "output")
    place, how = "ssd_centernet.export.serving:save_serving", "deaf"
    twice = (signal.SIGTERM, signal.SIGTERM)
    options = {"python": warm, "mark": tmp_path / "mark", "numbers": twice}
    ended, seconds = stop_in(place, how, command, **options)
    assert ended.status in (-signal.SIGTERM % 256, 128 + signal.SIGTERM) and seconds < 2, str(ended)
    assert "not answered" not in ended.stderr
