"""What docs/distributed.md promises of processes that are halted, killed or told to end."""

import json
import os
import re
import signal
import sys
import time

import psutil
import pytest

from tests.distributed.conftest import environment, run_worker, train_arguments
from tests.process import CLI, Running, slowness
from tests.tiny import TINY_RECIPE

LAUNCH = (
    "import sys; from ssd_centernet.runtime.launcher import launch; "
    "sys.exit(launch(sys.argv[1:], num_processes=2, max_restarts=0))"
)


@pytest.mark.parametrize("operation", ["a graph", "mean variables", "gather", "barrier"])
def test_a_halted_process_is_told_from_a_failure_in_every_operation(operation, warm):
    started = time.monotonic()
    ended = run_worker(
        *(2, "lost", operation, "halt"), python=warm, status=None, HOROVOD_GLOO_TIMEOUT_SECONDS=2
    )
    assert f"process 0 lost another one in {operation}" in ended.stdout, str(ended)
    assert "did not answer for 2 seconds (HOROVOD_GLOO_TIMEOUT_SECONDS)" in ended.stdout
    assert time.monotonic() - started < 60 * slowness()


@pytest.mark.parametrize("operation", ["a graph", "gather", "barrier"])
def test_processes_that_are_disconnected_say_so_at_once(operation, warm):
    started = time.monotonic()
    ended = run_worker(*(2, "lost", operation, "disconnect"), python=warm, status=None)
    assert time.monotonic() - started < 30 * slowness()
    assert ended.status == 75, str(ended)
    # The first that notices says it; the launcher may end the other one before that does.
    assert re.search(rf"process [01] lost another one in {operation}:", ended.stdout), str(ended)
    assert "Traceback" not in ended.text, str(ended)


def endless(recipe, data_dir, model_dir):
    recipe.write_text(TINY_RECIPE)
    flags = [f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--num_steps=1000000", "--checkpoint_every=20", "--device=cpu"]
    return (*CLI, "launch", "--num_processes=2", "--", "train", *flags)


def begun(model_dir) -> int:
    path = model_dir / "sessions.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(line)["event"] == "begin" for line in lines)


def trains(model_dir, times):
    """Tell whether a run has begun so many times and has taken steps since."""
    path = model_dir / "metrics.jsonl"
    # It comes with its first line.
    lines = path.read_text().count("\n") if path.exists() else 0
    known = trains.known.setdefault(times, lines)
    return begun(model_dir) == times and lines > known + 3


def ranks(launch) -> dict[int, psutil.Process]:
    """Return the training processes below a launcher, by rank."""
    found = {}
    for one in psutil.Process(launch.process.pid).children(recursive=True):
        try:
            rank = one.environ().get("HOROVOD_RANK")
        except psutil.Error:
            continue
        if rank is not None:
            found[int(rank)] = one
    return found


def test_a_halted_process_and_a_killed_horovodrun_restart_and_a_killed_launch_ends(
    data_dir, tmp_path
):
    trains.known = {}
    model_dir = tmp_path / "run"
    command = endless(tmp_path / "recipe.gin", data_dir, model_dir)
    with Running(*command, env=environment(HOROVOD_GLOO_TIMEOUT_SECONDS=3)) as launch:
        launch.wait_until(lambda: trains(model_dir, 1))
        halted = ranks(launch)[1]
        halted.send_signal(signal.SIGSTOP)
        launch.wait_until(lambda: begun(model_dir) == 2)
        assert not psutil.pid_exists(halted.pid), "the halted process is still there"

        launch.wait_until(lambda: trains(model_dir, 2))
        below = psutil.Process(launch.process.pid).children(recursive=True)
        psutil.Process(launch.process.pid).children()[0].kill()
        launch.wait_until(lambda: begun(model_dir) == 3)
        assert not [one for one in below if one.is_running()], "processes of before are left"

        launch.wait_until(lambda: trains(model_dir, 3))
        below = psutil.Process(launch.process.pid).children(recursive=True)
        launch.signal(signal.SIGKILL)
        ended = launch.finish()
        _, alive = psutil.wait_procs(below, timeout=20 * slowness())
        assert not alive, [one.cmdline() for one in alive]
    said = ended.stderr
    assert re.search(r"a process was lost \(status 75\) after .* starting again, 1 of 3", said), (
        said
    )
    assert re.search(r"horovodrun itself was ended by SIGKILL .*starting again, 2 of 3", said), said
    assert "failed" not in said, said


def test_a_second_signal_leaves_no_process(data_dir, tmp_path):
    command = endless(tmp_path / "recipe.gin", data_dir, tmp_path / "run")
    with Running(*command, env=environment()) as launch:
        launch.wait_until(lambda: len(ranks(launch)) == 2)
        below = psutil.Process(launch.process.pid).children(recursive=True)
        # One that answers nothing.
        ranks(launch)[1].send_signal(signal.SIGSTOP)
        launch.signal(signal.SIGTERM)
        launch.wait_until(lambda: "once more" in launch.text())
        launch.signal(signal.SIGTERM)
        began = time.monotonic()
        launch.finish(status=128 + signal.SIGTERM)
        assert time.monotonic() - began < 5 * slowness()
        _, alive = psutil.wait_procs(below, timeout=5 * slowness())
        assert not alive, [one.cmdline() for one in alive]


def test_several_processes_stop_in_an_evaluation_and_save(data_dir, tmp_path, warm):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    more = ["--num_steps=4", "--evaluate_every=2", "--checkpoint_every=100"]
    command = train_arguments(recipe, data_dir, tmp_path / "run", 2, *more)
    place = "ssd_centernet.evaluation.coco:CocoEvaluator.add"
    mark = tmp_path / "mark"
    halted = (warm, "-m", "tests.runtime.halted", place, "python", mark)
    with Running(warm, "-c", LAUNCH, *halted, *command, env=environment()) as launch:
        launch.wait_until(mark.exists)
        os.kill(int(mark.read_text()), signal.SIGTERM)
        ended = launch.finish()
    assert "SIGTERM: saved" in ended.stdout and "with the evaluation that was" in ended.stdout, (
        ended
    )
    assert (tmp_path / "run" / "ckpt-2.index").exists()
    assert '"kind": "eval"' not in (tmp_path / "run" / "metrics.jsonl").read_text()


BEFORE_A_STEP = {
    "restore": ("ssd_centernet.train:restore", "python"),
    "trace": ("ssd_centernet.training.trainer:Trainer.train_step", "python"),
    "deaf trace": ("ssd_centernet.training.trainer:Trainer.train_step", "deaf"),
}


@pytest.mark.parametrize("phase", BEFORE_A_STEP)
def test_several_processes_that_have_done_no_step_end_in_time(phase, data_dir, tmp_path, warm):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    command = train_arguments(recipe, data_dir, tmp_path / "run", 2, "--num_steps=4")
    if phase == "restore":
        # Whatever it says: the halt comes before it is opened.
        (tmp_path / "begin.npz").touch()
        command.append(f"--fine_tune_checkpoint={tmp_path / 'begin.npz'}")
    place, how = BEFORE_A_STEP[phase]
    halted = (warm, "-m", "tests.runtime.halted", place, how, tmp_path / "mark")
    with Running(sys.executable, "-c", LAUNCH, *halted, *command, env=environment()) as launch:
        launch.wait_until((tmp_path / "mark").exists)
        # One process has come so far; the other may be on its way.
        below = psutil.Process(launch.process.pid).children(recursive=True)
        launch.signal(signal.SIGTERM)
        began = time.monotonic()
        ended = launch.finish(status=128 + signal.SIGTERM)
        assert time.monotonic() - began < 10 * slowness(), str(ended)
        _, alive = psutil.wait_procs(below, timeout=2 * slowness())
        assert not alive, [one.cmdline() for one in alive]
    assert "Traceback" not in ended.text, str(ended)
    assert not list((tmp_path / "run").glob("ckpt*")), str(ended)


def test_a_process_that_is_waited_for_is_told_of_and_ended_where_asked(data_dir, tmp_path, warm):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    command = train_arguments(recipe, data_dir, tmp_path / "run", 2, "--num_steps=4")
    place = "ssd_centernet.training.loop:TrainLoop._agree"
    halted = (warm, "-m", "tests.runtime.halted", place, "python", tmp_path / "mark")
    env = environment(HOROVOD_STALL_CHECK_TIME_SECONDS=1, HOROVOD_STALL_SHUTDOWN_TIME_SECONDS=3)
    with Running(warm, "-c", LAUNCH, *halted, *command, env=env) as launch:
        ended = launch.finish()
    assert ended.status == 75, str(ended)
    assert re.search(r"process \d has waited 1 seconds for .* in gather", ended.stderr), str(ended)
    assert re.search(r"process \d ends: it has waited 3 seconds", ended.stderr), str(ended)
