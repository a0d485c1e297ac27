"""What docs/distributed.md promises of processes that TensorFlow joins; as real processes."""

import json
import shutil
import signal
import time

import psutil
import pytest

from tests.distributed.conftest import WORKERS as SHARED
from tests.distributed.conftest import environment
from tests.engines.conftest import WORKERS
from tests.engines.test_mirrored import assert_alike, assert_all_evaluated, records, variables
from tests.process import CLI, Running, run, slowness
from tests.tiny import TINY_RECIPE

LAUNCH = (
    "import sys; from ssd_centernet.runtime.launcher import launch; "
    "sys.exit(launch(sys.argv[2:], num_processes=int(sys.argv[1]), engine='tf', max_restarts=1))"
)


def launched(processes, python, *worker, status: int | None = 0, **variables):
    command = (python, "-c", LAUNCH, processes, python, *worker)
    return run(*command, env=environment(**variables), status=status)


def test_collectives_and_batch_norm_of_groups(warm):
    ended = launched(4, warm, SHARED / "collectives.py", "fp16", 2)
    for rank in range(4):
        assert f"rank {rank} of 4 is content" in ended.stdout, str(ended)


def test_steps_are_those_of_one_process_with_the_whole_batch(warm):
    ended = launched(2, warm, WORKERS / "together.py")
    for rank in range(2):
        assert f"process {rank} of 2 is content" in ended.stdout, str(ended)


@pytest.fixture(scope="session")
def fixed(tmp_path_factory):
    """10 steps of 6 images over all processes, and an evaluation."""
    path = tmp_path_factory.mktemp("recipe") / "fixed.gin"
    path.write_text(
        f"""{TINY_RECIPE}
train.batches = @fixed_batches
train.steps = 10
train.checkpoint_every = 5
train.log_every = 1
train.evaluate_every = 10
train.sync_batch_norm = True
train.ema_decay = 0.75
train.clip_norm = 20.0
"""
    )
    return path


def train(recipe, data_dir, model_dir, processes, python, **variables):
    """Train with the same images for any number of processes."""
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", "--device=cpu"]
    flags += [f"--model_dir={model_dir}", f"--gin_params=train.batch_size = {6 // processes}"]
    worker = (SHARED / "train_fixed.py", *flags)
    if processes == 1:
        return run(python, *worker, env=environment(**variables))
    return launched(processes, python, *worker, **variables)


@pytest.fixture(scope="session")
def trained(fixed, data_dir, tmp_path_factory, warm):
    """Train the same run once with each asked number of processes and return its directory."""
    done = {}

    def trained_by(processes):
        if processes not in done:
            done[processes] = tmp_path_factory.mktemp(f"run{processes}") / "run"
            train(fixed, data_dir, done[processes], processes, warm)
        return done[processes]

    return trained_by


def test_several_processes_train_and_evaluate_as_one(trained):
    alone, together = trained(1), trained(2)
    assert_alike(variables(together / "ckpt-10"), variables(alone / "ckpt-10"))
    pairs = zip(records(alone, "train"), records(together, "train"), strict=True)
    for ours, theirs in pairs:
        assert ours["step"] == theirs["step"]
        assert theirs["total"] == pytest.approx(ours["total"], rel=1e-4)
    (expected,), (found,) = records(alone, "eval"), records(together, "eval")
    assert found["AP"] == pytest.approx(expected["AP"], abs=0.01)
    assert_all_evaluated(together)
    # The first process alone writes.
    written = [len(list(one.rglob("events.out.tfevents*"))) for one in (alone, together)]
    assert written[0] == written[1] > 0


def test_a_killed_process_restarts_the_run_exactly(trained, fixed, data_dir, tmp_path, warm):
    mark = {"FAIL": "1:7:kill", "FAIL_MARK": tmp_path / "killed"}
    ended = train(fixed, data_dir, tmp_path / "run", 2, warm, **mark)
    assert (
        "a process was lost" in ended.stdout and "starting again, 1 of 1 times" in ended.stdout
    ), str(ended)
    assert "resuming from" in ended.stdout and "at step 5" in ended.stdout, str(ended)
    found, expected = variables(tmp_path / "run" / "ckpt-10"), variables(trained(2) / "ckpt-10")
    assert_alike(found, expected, atol=0.0)


def test_a_run_goes_on_with_another_number_of_processes(trained, fixed, data_dir, tmp_path, warm):
    shutil.copytree(trained(2), tmp_path / "run")
    for path in [*(tmp_path / "run").glob("ckpt-10*"), tmp_path / "run" / "checkpoint"]:
        path.unlink()
    ended = train(fixed, data_dir, tmp_path / "run", 3, warm)
    assert "at step 5" in ended.stdout, str(ended)
    assert_alike(variables(tmp_path / "run" / "ckpt-10"), variables(trained(1) / "ckpt-10"))


def endless(folder, data_dir):
    recipe = folder / "recipe.gin"
    recipe.write_text(TINY_RECIPE)
    flags = [f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={folder / 'run'}"]
    flags += ["--num_steps=1000000", "--checkpoint_every=1000000", "--device=cpu"]
    return (*CLI, "launch", "--engine=tf", "--num_processes=2", "--", "train", *flags)


def trained_steps(model_dir) -> list[int]:
    """Return the steps of the log lines of a run, as they were written."""
    path = model_dir / "metrics.jsonl"
    return [one["step"] for one in records(model_dir, "train")] if path.exists() else []


def test_a_lost_launch_a_halted_process_and_a_signal(data_dir, tmp_path):
    """What begins again goes on from the last checkpoint; no process is left."""
    model_dir = tmp_path / "run"
    saved = []

    def until_it_trains(launch):
        before = len(trained_steps(model_dir))
        launch.wait_until(lambda: len(trained_steps(model_dir)) > before + 2)

    # The second goes on where the first has saved.
    for number in (signal.SIGKILL, signal.SIGTERM):
        with Running(*endless(tmp_path, data_dir), env=environment()) as launch:
            until_it_trains(launch)
            below = psutil.Process(launch.process.pid).children(recursive=True)
            assert len(below) == 3  # The processes and what started them.
            # docs/security.md warns of it: of any machine that reaches this one.
            assert {"0.0.0.0", "::"} & {address for one in below for address in _listens_on(one)}
            if saved:
                last, began = int(saved[0][0].split("-")[1].split(".")[0]), time.monotonic()
                _process(below, rank=1).send_signal(signal.SIGSTOP)
                launch.wait_until(lambda: "starting again, 1 of 3 times" in launch.text())
                assert time.monotonic() - began < 60 * slowness()
                assert not [one for one in below if one.is_running()], "processes are left"
                taken = len(trained_steps(model_dir))
                until_it_trains(launch)
                assert last < trained_steps(model_dir)[taken] <= trained_steps(model_dir)[taken - 1]
                below = psutil.Process(launch.process.pid).children(recursive=True)
            launch.signal(number)
            ended = launch.finish()
            _, alive = psutil.wait_procs(below, timeout=20 * slowness())
            assert not alive, [one.cmdline() for one in alive]
        assert ended.status == {signal.SIGKILL: -9, signal.SIGTERM: 143}[number], str(ended)
        saved.append([path.name for path in model_dir.glob("ckpt-*.index")])
    assert saved[0] and saved[1] and saved[0] != saved[1]
    assert "SIGTERM: saved" in ended.stdout, str(ended)


def _process(below: list[psutil.Process], rank: int) -> psutil.Process:
    told = (one.environ().get("TF_CONFIG") for one in below)
    of_rank = [json.loads(text)["task"]["index"] == rank if text else False for text in told]
    return below[of_rank.index(True)]


def _listens_on(one: psutil.Process) -> list[str]:
    found = one.net_connections(kind="inet")
    return [connection.laddr.ip for connection in found if connection.status == "LISTEN"]
