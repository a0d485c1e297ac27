import json

import numpy as np
import pytest
import tensorflow as tf

from tests.distributed.conftest import cli, run_worker, train_arguments
from tests.tiny import TINY_RECIPE


def variables(prefix) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def windows(model_dir) -> list[dict]:
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["kind"] == "train"]


def differences(one, other) -> list[str]:
    """What two runs do not have in common to the last bit: steps first, then checkpoints."""
    found, measured = [], ("total", "gradient_norm")
    # A run that began again has some steps twice: the last one is what it went on from.
    ours, theirs = ({line["step"]: line for line in windows(run)} for run in (one, other))
    for step in sorted(ours.keys() | theirs.keys()):
        values = [[run.get(step, {}).get(name) for name in measured] for run in (ours, theirs)]
        if values[0] != values[1]:
            found.append(f"step {step}: {values[0]} and {values[1]}")
    checkpoints = sorted(path.stem for path in one.glob("ckpt-*.index"))
    assert checkpoints, f"no checkpoint in {one}"
    for checkpoint in checkpoints:
        ours, theirs = (variables(run / checkpoint) for run in (one, other))
        assert ours.keys() == theirs.keys(), checkpoint
        for name, value in ours.items():
            if (value != theirs[name]).any():
                apart = np.abs(value - theirs[name]).max()
                found.append(f"{checkpoint}: {name}, by {apart} of {np.abs(value).max()}")
    return found


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_as_one_with_all_their_images(trained, processes):
    alone, together = trained(1), trained(processes)
    expected, found = (variables(one / "ckpt-10") for one in (alone, together))
    assert expected.keys() == found.keys()
    # With the averages of the weights, beside those that are trained.
    assert {name.split("/")[0] for name in expected} >= {"weights", "trained", "optimizer"}
    for name, value in expected.items():
        scale = np.abs(value).max() + 1e-6
        np.testing.assert_allclose(found[name] / scale, value / scale, atol=2e-4, err_msg=name)
    for ours, theirs in zip(windows(alone), windows(together), strict=True):
        assert ours["step"] == theirs["step"]
        assert theirs["total"] == pytest.approx(ours["total"], rel=1e-5)
        assert theirs["gradient_norm"] == pytest.approx(ours["gradient_norm"], rel=1e-4)


def test_the_learned_weights_are_not_the_first_ones(trained):
    before, after = (variables(trained(2) / f"ckpt-{step}") for step in (5, 10))
    kernels = [name for name in before if "kernel" in name and "momentum" not in name]
    assert kernels
    assert all(np.abs(before[name] - after[name]).max() > 1e-4 for name in kernels)


def test_only_the_first_process_writes(trained):
    model_dir = trained(3)
    assert [one["step"] for one in windows(model_dir)] == list(range(1, 11))
    assert sum(1 for _ in model_dir.rglob("events.out.tfevents*")) == 1


def test_processes_that_drift_apart_are_found(fixed_recipe, data_dir, tmp_path, warm):
    arguments = train_arguments(fixed_recipe, data_dir, tmp_path / "run", 2)
    ended = run_worker(2, "train_drifting", *arguments, python=warm, status=None)
    assert ended.status != 0
    assert "differ in 1 of" in ended.stderr, str(ended)
    assert not list((tmp_path / "run").glob("ckpt-*"))


@pytest.fixture(scope="module")
def learned(data_dir, tmp_path_factory, warm):
    """A run of one process that has learned to find something."""
    folder = tmp_path_factory.mktemp("learned")
    recipe = folder / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    cli(
        "train",
        f"--gin_file={recipe}",
        f"--data_dir={data_dir}",
        f"--model_dir={folder / 'run'}",
        "--num_steps=120",
        "--log_every=60",
        "--checkpoint_every=120",
        "--device=cpu",
        python=warm,
    )
    return folder / "run"


def test_evaluation_counts_every_image_once_over_any_number_of_processes(learned, data_dir, warm):
    results = []
    for processes in (1, 2, 3):
        command = ["evaluate", f"--model_dir={learned}", f"--data_dir={data_dir}", "--device=cpu"]
        command += ["--split=coco_train", "--batch_size=2"]
        if processes > 1:
            command = ["launch", f"--num_processes={processes}", "--", *command]
        ended = cli(*command, python=warm)
        assert ended.stdout.count("written:") == 3, str(ended)
        results.append(json.loads((learned / "evaluation" / "metrics.json").read_text()))
    first = results[0]
    assert first["num_images"] == 12
    assert first["metrics"]["ARmax100"] > 0.05
    for other in results[1:]:
        assert other["metrics"] == first["metrics"]
        assert other["num_images"] == 12


def test_a_process_that_knows_nothing_of_the_others_is_refused(
    fixed_recipe, data_dir, tmp_path, warm
):
    arguments = train_arguments(fixed_recipe, data_dir, tmp_path / "run", 1)
    arguments[1] = "--gin_file=ssd_demo"
    ended = cli(*arguments, python=warm, status=1, HOROVOD_SIZE=2)
    assert "--use_horovod is not given" in ended.stderr
    assert not (tmp_path / "run").exists()
