"""What docs/distributed.md promises of several devices of one process."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests import process
from tests.engines.conftest import WORKERS, cli, environment


@pytest.mark.parametrize(
    "checks", ["gradients batches variables norms", "optimizers", "training faults"]
)
def test_devices(checks, warm):
    ended = process.run(warm, WORKERS / "replicas.py", *checks.split(), env=environment())
    assert ended.stdout.count(": content") == len(checks.split()), str(ended)


def variables(prefix) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def records(model_dir, kind) -> list[dict]:
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["kind"] == kind]


def flags(recipe, data_dir, model_dir, devices, *more) -> list:
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--device=cpu", *more]
    # As users may say it: both ways mean the same.
    return flags + (
        [f"--devices={devices}"] if devices != 2 else ["--strategy=mirrored", "--devices=2"]
    )


@pytest.fixture(scope="session")
def trained(recipe, data_dir, tmp_path_factory, warm):
    """Train the same run once with each asked number of devices and return its directory."""
    done = {}

    def train(devices):
        if devices not in done:
            model_dir = tmp_path_factory.mktemp(f"run{devices}") / "run"
            ended = cli(*flags(recipe, data_dir, model_dir, devices), python=warm)
            told = f"shared by {devices} devices" in ended.stdout
            assert told == (devices > 1), str(ended)
            done[devices] = model_dir
        return done[devices]

    return train


def assert_alike(found, expected, atol=2e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = np.abs(value).max() + 1e-6
        np.testing.assert_allclose(found[name] / scale, value / scale, atol=atol, err_msg=name)


@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_train_as_one_with_the_whole_batch(trained, devices):
    alone, together = trained(1), trained(devices)
    expected, found = (variables(one / "ckpt-10") for one in (alone, together))
    assert {name.split("/")[0] for name in expected} >= {"weights", "trained", "optimizer"}
    assert_alike(found, expected)
    before = variables(together / "ckpt-5")
    kernels = [name for name in before if "kernel" in name and "momentum" not in name]
    assert kernels
    assert all(np.abs(before[name] - found[name]).max() > 1e-4 for name in kernels)
    pairs = zip(records(alone, "train"), records(together, "train"), strict=True)
    for ours, theirs in pairs:
        assert ours["step"] == theirs["step"]
        assert theirs["total"] == pytest.approx(ours["total"], rel=1e-4)
        assert theirs["gradient_norm"] == pytest.approx(ours["gradient_norm"], rel=1e-3)
    (expected,), (found,) = records(alone, "eval"), records(together, "eval")
    assert found["AP"] == pytest.approx(expected["AP"], abs=0.01)
    assert_all_evaluated(together)


def assert_all_evaluated(model_dir, images=5):
    """Assert that each image was evaluated once: twice is an error, and a missing one is noted."""
    metrics = json.loads((model_dir / "evaluation" / "metrics.json").read_text())
    assert metrics["num_images"] == images and "never added" not in str(metrics["notes"]), metrics


def at_step(step, model_dir, folder):
    """Copy a run as it was when its checkpoint of a step was written."""
    shutil.copytree(model_dir, folder)
    (folder / "checkpoint").unlink()
    for path in folder.glob("ckpt-*"):
        if int(path.name.removeprefix("ckpt-").partition(".")[0]) > step:
            path.unlink()
    shutil.rmtree(folder / "best", ignore_errors=True)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    (folder / "metrics.jsonl").write_text("".join(kept))
    return folder


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_run_goes_on_exactly_and_on_another_number_of_devices(
    trained, recipe, data_dir, tmp_path, warm, devices
):
    run = at_step(5, trained(2), tmp_path / "run")
    ended = cli(*flags(recipe, data_dir, run, devices), python=warm)
    assert "resuming from" in ended.stdout and "at step 5" in ended.stdout, str(ended)
    found, expected = variables(run / "ckpt-10"), variables(trained(2) / "ckpt-10")
    assert_alike(found, expected, atol=0.0 if devices == 2 else 2e-4)


@pytest.mark.parametrize(
    "more, said",
    [
        (["--devices=4"], "train.batch_size is 6, which 4 devices cannot share evenly"),
        (["--strategy=mirrored"], "Give --devices=N too"),
        (["--strategy=one", "--devices=2"], "with --strategy=one a process has one device"),
        (["--devices=2", "--use_horovod"], "with --strategy=horovod a process has one device"),
        (["--strategy=mirrored", "--use_horovod"], "--use_horovod is given, and --strategy"),
        (["--devices=2", "--batch_size=auto"], "measures one device, and 2 share a batch"),
        (
            ["--devices=2", "--gin_params=train.jit_compile = True"],
            "train.jit_compile is True for 2 processes or devices",
        ),
        (
            ["--devices=2", "--gin_params=build_detector.quantize = @Quantize()"],
            "build_detector.quantize trains on one device of a process, and there are several",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    recipe, data_dir, tmp_path, warm, more, said
):
    command = flags(recipe, data_dir, tmp_path / "run", 1, *more)[:-1]
    ended = cli(*command, python=warm, status=1)
    assert said in ended.stderr and "Traceback" not in ended.text, str(ended)
    assert not (tmp_path / "run").exists()


TOGETHER = {
    "bf16": ["build_detector.dtype = 'bf16'"],
    # Compared with the same run that computes nothing again.
    "computed again": ["train.rematerialize = True", "train.sync_batch_norm = True"],
    "taught": ["train.teacher = @Teacher()"],
    # Compared with the same run on one device.
    "several sizes": ["train.image_sizes = ((64, 64), (96, 80))", "train.accumulate_steps = 2"],
}


@pytest.mark.parametrize("what", TOGETHER)
def test_other_settings_of_the_step_go_with_several_devices(
    trained, recipe, data_dir, tmp_path, warm, what
):
    """A checkpoint is written only where all devices have the same weights, bit for bit."""
    model_dir, lines = tmp_path / "run", ["train.steps = 5", *TOGETHER[what]]
    if what == "taught":
        lines.append(f"Teacher.run = '{trained(1)}'")
    more = [f"--gin_params={line}" for line in lines]
    ended = cli(*flags(recipe, data_dir, model_dir, 2, *more), python=warm)
    found = variables(model_dir / "ckpt-5")
    assert all(np.isfinite(value).all() for value in found.values()), str(ended)
    assert ("teacher_class" in ended.stdout) == (what == "taught")
    if what == "several sizes":
        alone = tmp_path / "alone"
        cli(*flags(recipe, data_dir, alone, 1, *more), python=warm)
        assert_alike(found, variables(alone / "ckpt-5"))
    if what == "computed again":
        plain = tmp_path / "plain"
        more = [f"--gin_params={line}" for line in (lines[0], lines[2])]
        cli(*flags(recipe, data_dir, plain, 2, *more), python=warm)
        assert_alike(found, variables(plain / "ckpt-5"), atol=1e-3)
