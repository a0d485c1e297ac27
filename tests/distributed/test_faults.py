"""Processes that die, fail, stop or have no data."""

import os
import shutil
import signal
import sys

import psutil
import pytest
import tensorflow as tf

from tests.distributed.conftest import (
    WORKERS,
    cli,
    environment,
    run_worker,
    train_arguments,
)
from tests.distributed.test_training import differences
from tests.process import CLI, Running, run, slowness
from tests.tiny import TINY_RECIPE

SUPERVISED = (
    "import sys; from ssd_centernet.runtime.launcher import launch; "
    "sys.exit(launch(sys.argv[1:], num_processes=2, max_restarts=2))"
)


def test_a_killed_process_costs_no_more_than_the_steps_since_the_checkpoint(
    trained, fixed_recipe, data_dir, tmp_path
):
    arguments = train_arguments(fixed_recipe, data_dir, tmp_path / "run", 2)
    worker = [sys.executable, WORKERS / "train_fixed.py"]
    command = [sys.executable, "-c", SUPERVISED, *worker]
    env = environment(FAIL="1:7:kill", FAIL_MARK=tmp_path / "killed")
    ended = run(*command, *arguments, env=env)
    assert "starting again, 1 of 2 times" in ended.stdout, str(ended)
    assert "resuming from" in ended.stdout and "at step 5" in ended.stdout, str(ended)
    found = differences(trained(2), tmp_path / "run")
    assert not found, "\n".join([*found, str(ended)])


def test_a_process_that_raises_ends_all_with_its_error(fixed_recipe, data_dir, tmp_path, warm):
    arguments = train_arguments(fixed_recipe, data_dir, tmp_path / "run", 2)
    command = [warm, "-c", SUPERVISED, warm, WORKERS / "train_fixed.py"]
    env = environment(FAIL="1:7:raise")
    ended = run(*command, *arguments, env=env, status=None)
    assert ended.status not in (0, 75), str(ended)
    assert "process 1 failed" in ended.stdout, str(ended)
    assert "the disk of this machine is on fire" in ended.stdout, str(ended)
    assert "process 0 failed" not in ended.stdout, str(ended)
    assert "starting again" not in ended.stdout, str(ended)


def test_a_process_that_ends_within_a_line_is_not_given_the_launchers_traceback(warm):
    # As Horovod does where it is ended while it logs.
    code = """
import os, sys, time
if os.environ["HOROVOD_RANK"] == "0":
    time.sleep(2)
    sys.stderr.write("half of a line")
    sys.stderr.flush()
    os._exit(3)
"""
    ended = run(sys.executable, "-c", SUPERVISED, warm, "-c", code, env=environment(), status=3)
    assert ended.stderr == "half of a line\n", str(ended)


def test_a_loss_that_is_not_finite_is_told_by_the_process_that_saw_it(
    fixed_recipe, data_dir, tmp_path, warm
):
    arguments = train_arguments(fixed_recipe, data_dir, tmp_path / "run", 2)
    # Shared batch statistics would carry it into the other process within the step.
    arguments.append("--gin_params=train.sync_batch_norm = False")
    ended = run_worker(2, "train_fixed", *arguments, python=warm, status=1, FAIL="1:6:nan")
    assert "process 1 failed: step 6 is not finite on process 1" in ended.stdout, str(ended)
    assert "process 0 failed: step 6 is finite on process 0" in ended.stdout, str(ended)


def test_a_stop_saves_and_leaves_no_process(data_dir, tmp_path):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    model_dir = tmp_path / "run"
    flags = [f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--num_steps=1000000", "--checkpoint_every=1000000", "--device=cpu"]
    metrics = model_dir / "metrics.jsonl"
    command = (*CLI, "launch", "--num_processes=2", "--", "train", *flags)
    with Running(*command, env=environment()) as launch:
        launch.wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2)
        below = psutil.Process(launch.process.pid).children(recursive=True)
        launch.signal(signal.SIGTERM)
        ended = launch.finish(status=128 + signal.SIGTERM)
        assert "SIGTERM: saved" in str(ended)
        assert len(list(model_dir.glob("ckpt-*.index"))) == 1
        _, alive = psutil.wait_procs(below, timeout=20 * slowness())
        assert not alive, [one.cmdline() for one in alive]


def split_into(folder, source, shards):
    """Copy a data set with its training images in the given shards."""
    shutil.copytree(source, folder)
    examples = []
    for path in sorted(folder.glob("coco_train.record-*")):
        examples += [bytes(one.numpy()) for one in tf.data.TFRecordDataset(str(path))]
        path.unlink()
    for number, share in enumerate(shards):
        name = f"coco_train.record-{number:05d}-of-{len(shards):05d}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for example in examples[share]:
                writer.write(example)
    return folder


@pytest.mark.parametrize(
    ("shards", "refusal"),
    [
        ([slice(None)], None),
        ([slice(0, 10), slice(10, 12)], None),
        ([slice(None), slice(0)], "no image for rank 1 of 2"),
    ],
    ids=["fewer-than-processes", "uneven", "empty"],
)
def test_shards_that_do_not_fit_the_processes(data_dir, tmp_path, shards, refusal, warm):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    folder = split_into(tmp_path / "data", data_dir, shards)
    ended = cli(
        *("launch", "--num_processes=2", "--", "train", f"--gin_file={recipe}"),
        *(f"--data_dir={folder}", f"--model_dir={tmp_path / 'run'}", "--device=cpu"),
        *("--num_steps=6", "--batch_size=2"),
        python=warm,
        status=0 if refusal is None else 1,
    )
    if refusal is None:
        assert os.path.exists(tmp_path / "run" / "ckpt-6.index")
    else:
        assert "process 1 failed: The record files" in ended.stderr, str(ended)
        assert refusal in ended.stderr
