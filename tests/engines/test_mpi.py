"""What docs/distributed.md promises of processes that OpenMPI's mpirun starts."""

import contextlib
import os
import re
import signal
import sys
import time

import psutil
import pytest

from ssd_centernet.runtime import launch_plans, mpi
from ssd_centernet.runtime.cluster import launched_rank
from ssd_centernet.runtime.engine import start_engine
from tests import process
from tests.distributed.conftest import WORKERS as SHARED
from tests.engines.conftest import WORKERS, environment
from tests.engines.test_mirrored import (
    assert_alike,
    assert_all_evaluated,
    at_step,
    records,
    variables,
)
from tests.engines.test_workers import endless, trained_steps
from tests.process import CLI, Running, run, slowness
from tests.tiny import TINY_RECIPE

# What the readme of the first system gives mpirun, for as many cores as are here.
BINDING = ("--map-by", "socket:PE=1", "--bind-to", "core")
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": 1, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": 1}


@pytest.fixture(scope="module")
def mpirun():
    process.need_mpirun()
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two processes cannot be bound to cores of their own: there is one core")
    return "mpirun"


@pytest.fixture(params=["tensorflow", "horovod"])
def joined(request):
    """Variables of processes that the one or the other joins."""
    if request.param == "horovod":
        process.need_horovod()
    return {"BY_HOROVOD": 1} if request.param == "horovod" else {}


def test_what_mpirun_starts_is_joined(mpirun, warm, joined):
    command = (mpirun, "-np", 2, *BINDING, warm, SHARED / "collectives.py", "fp16", 0)
    ended = run(*command, env=environment(**joined, **AS_ROOT))
    for rank in range(2):
        assert f"rank {rank} of 2 is content" in ended.stdout, str(ended)


def test_all_skip_a_step_that_overflows_or_has_a_loss_that_is_not_finite(mpirun, warm, joined):
    # With Horovod the steps of one process with the whole batch too.
    command = (mpirun, "-np", 2, *BINDING, warm, WORKERS / "together.py")
    ended = run(*command, *([] if joined else ["faults"]), env=environment(**joined, **AS_ROOT))
    for rank in range(2):
        assert f"process {rank} of 2 is content" in ended.stdout, str(ended)


LAUNCH = (
    "import sys; from ssd_centernet.runtime.launcher import launch; "
    "sys.exit(launch(sys.argv[1:], num_processes=2, engine='mpi', max_restarts=1))"
)


def test_a_halted_process_is_ended_and_the_run_begins_again(mpirun, warm, joined, tmp_path):
    began = time.monotonic()
    command = (warm, "-c", LAUNCH, warm, SHARED / "lost.py", "a graph", "halt")
    soon = {"HOROVOD_GLOO_TIMEOUT_SECONDS": 3}
    ended = run(*command, env=environment(LOST_ONCE=tmp_path / "halted", **soon, **joined))
    assert time.monotonic() - began < 60 * slowness()
    assert ended.text.count("process 0 lost another one in a graph") == 1, str(ended)
    assert "a process was lost (status 75)" in ended.stdout, str(ended)
    assert "starting again, 1 of 1 times" in ended.stdout, str(ended)
    assert not psutil.pid_exists(int((tmp_path / "halted").read_text()))


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory, warm):
    """A run of 8 updates in one process, its recipe, and how others train it."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = folder / "recipe.gin"
    recipe.write_text(
        f"""{TINY_RECIPE}
train.batches = @fixed_batches
train.steps = 8
train.checkpoint_every = 2
train.log_every = 1
train.evaluate_every = 8
train.sync_batch_norm = True
train.accumulate_steps = 2
train.ema_decay = 0.75
train.clip_norm = 20.0
"""
    )

    def words(model_dir, processes):
        flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", "--device=cpu"]
        flags += [f"--model_dir={model_dir}", f"--gin_params=train.batch_size = {6 // processes}"]
        return (SHARED / "train_fixed.py", *flags)

    run(warm, *words(folder / "run", 1), env=environment())
    return folder / "run", words


def test_a_run_that_loses_a_process_ends_as_that_of_one_process(
    mpirun, warm, joined, whole, tmp_path
):
    """It goes on from a checkpoint of one process, and then exactly from one of its own."""
    alone, words = whole
    model_dir, aside = at_step(2, alone, tmp_path / "run"), tmp_path / "aside"
    aside.mkdir()
    # After the checkpoint of update 6, whose first batch is the 11th, without leaving it.
    fail = {"FAIL": "1:12:kill", "FAIL_MARK": tmp_path / "killed"}
    fail["FAIL_ASIDE"] = f"{model_dir / 'ckpt-6'}:{aside}"
    more = ["--use_horovod"] if joined else []
    command = (warm, "-c", LAUNCH, warm, *words(model_dir, 2), *more)
    ended = run(*command, env=environment(**fail, **joined))
    steps = re.findall(r"at step (\d+)", "".join(re.findall(r"resuming from .*", ended.stdout)))
    assert steps == ["2", "4"] and "starting again, 1 of 1 times" in ended.stdout, str(ended)
    assert_alike(variables(model_dir / "ckpt-6"), variables(aside / "ckpt-6"), atol=0.0)

    assert_alike(variables(model_dir / "ckpt-8"), variables(alone / "ckpt-8"))
    told, expected = (
        {one["step"]: one for one in records(folder, "train")} for folder in (model_dir, alone)
    )
    assert told.keys() == expected.keys() == set(range(1, 9))
    for step, one in told.items():
        for name in ("total", "gradient_norm"):
            assert one[name] == pytest.approx(expected[step][name], rel=1e-3), (step, name)
    assert [one["step"] for one in records(model_dir, "eval")] == [8]
    assert_all_evaluated(model_dir)


def test_processes_are_bound_as_told_and_a_signal_saves(mpirun, data_dir, tmp_path):
    model_dir = tmp_path / "run"
    command = [*endless(tmp_path, data_dir)]
    place = command.index("--engine=tf")
    command[place : place + 1] = ["--engine=mpi", f"--launcher_args={' '.join(BINDING)}"]
    command.append("--gin_params=train.image_sizes = ((64, 64), (96, 80))")
    with Running(*command, env=environment()) as launch:
        launch.wait_until(lambda: len(trained_steps(model_dir)) > 2)
        below = psutil.Process(launch.process.pid).children(recursive=True)
        trains = [one for one in below if "ssd_centernet" in one.cmdline()[1:3]]
        cores = [one.cpu_affinity() for one in trains]
        assert len(cores) == 2 and all(len(one) == 1 for one in cores) and cores[0] != cores[1]
        began = time.monotonic()
        launch.signal(signal.SIGTERM)
        ended = launch.finish(status=143)
        assert time.monotonic() - began < 30 * slowness()
        _, alive = psutil.wait_procs(below, timeout=20 * slowness())
        assert not alive, [one.cmdline() for one in alive]
    assert "SIGTERM: saved" in ended.stdout and len(list(model_dir.glob("ckpt-*.index"))) == 1


def test_the_reason_of_a_process_that_fails_is_shown_last(mpirun, data_dir, tmp_path, warm):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(TINY_RECIPE + "train.batches = @fixed_batches\n")
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", "--device=cpu"]
    flags += [f"--model_dir={tmp_path / 'run'}", "--num_steps=8", "--batch_size=3"]
    command = (warm, "-c", LAUNCH, warm, SHARED / "train_fixed.py", *flags)
    ended = run(*command, env=environment(FAIL="1:3:raise"), status=1)
    _, told, last = ended.stdout.rpartition("process 1 failed: ")
    assert told and "is on fire" in last and "[1] " not in last, str(ended)
    # Lines of process 1 say so; what mpirun puts before each is not shown.
    assert re.search(r"^\[1\] .*on fire", ended.stderr, re.M) and "<stderr>" not in ended.text
    assert "starting again" not in ended.text


def test_mpirun_typed_by_hand_ends_what_a_halted_process_leaves(mpirun, tmp_path):
    """The others fail, and mpirun ends the halted one, says so last, and begins nothing again."""
    mark = tmp_path / "halted"
    command = (mpirun, "-np", 2, *BINDING, sys.executable, SHARED / "lost.py", "a graph", "halt")
    ended = run(*command, env=environment(LOST_ONCE=mark, **AS_ROOT), status=75)
    assert time.time() - mark.stat().st_mtime < 30 * slowness()
    with contextlib.suppress(psutil.NoSuchProcess):  # Told to end, it may still be at it.
        psutil.Process(int(mark.read_text())).wait(timeout=20 * slowness())
    # It may still be in the mean before the graph when the other one is halted.
    assert ended.text.count("process 0 lost another one in ") == 1, str(ended)
    assert "starting again" not in ended.text
    last = ended.stderr.rpartition("mpirun detected that one or more processes exited")[2]
    assert "Exit code:    75" in last and "ssd_centernet" not in last, str(ended)


def test_mpirun_typed_by_hand_gives_the_time_to_save_that_it_is_told(mpirun, data_dir, tmp_path):
    told = run("ompi_info", "--param", "odls", "base", "--level", "9").stdout
    assert 'odls_base_sigkill_timeout" (current value: "1"' in told  # Seconds, twice.
    patience = round(3 * slowness())
    given = ("--mca", "odls_base_sigkill_timeout", patience, "--tag-output", "--bind-to", "none")
    command, model_dir = endless(tmp_path, data_dir), tmp_path / "run"
    command = (*CLI, *command[command.index("train") :], "--log_every=100")
    with Running(mpirun, "-np", 2, *given, *command, env=environment(**AS_ROOT)) as typed:
        typed.wait_until(lambda: len(trained_steps(model_dir)) > 1)
        below = psutil.Process(typed.process.pid).children(recursive=True)
        began = time.time()
        typed.signal(signal.SIGTERM)
        ended = typed.finish(status=1)
        took = time.time() - began
        _, alive = psutil.wait_procs(below, timeout=20 * slowness())
        assert not alive
    (saved,) = model_dir.glob("ckpt-*.index")
    # It tells the processes after that time, and kills them after the same again.
    assert began + patience <= saved.stat().st_mtime <= began + 2 * patience, str(ended)
    assert took < 2 * patience + 10 * slowness()
    assert "[1,0]<stdout>:SIGTERM: saved" in ended.stdout, str(ended)
    assert "[1,1]<stdout>" not in ended.stdout  # Process 0 alone prints.


def test_launch_within_mpirun_is_refused(mpirun, tmp_path, warm):
    launch = (
        "launch",
        "--engine=mpi",
        "--num_processes=2",
        "--",
        "train",
        f"--model_dir={tmp_path}",
    )
    command = (mpirun, "-np", 1, warm, "-m", "ssd_centernet", *launch)
    ended = run(*command, env=environment(**AS_ROOT), status=2)
    assert "mpirun started this process" in ended.stderr, str(ended)
    assert not list(tmp_path.iterdir())


def test_lines_that_mpirun_passes_on_in_parts_are_joined(capsys):
    from ssd_centernet.runtime.launcher import _pass_on

    told = []
    lines = ["[1,0]<stdout>:begin [1,1]<stdout>:other\n", "[1,0]<stdout>:end\n", "of mpirun\n"]
    lines += ["[1]<stdout>:of horovodrun [0]<stdout>:kept\n", "[1,1]<stdout>:cut short"]
    _pass_on(lines, sys.stdout, told)
    expected = "[1] other\nbegin end\n[1] of horovodrun [0]<stdout>:kept\n[1] cut short\n"
    assert capsys.readouterr().out == expected
    assert told == ["of mpirun\n"]


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        # What horovodrun prints where a process of it was killed while it printed.
        (["[0]<stderr>:[1: E{}", "  File\n", "Error: one\n"], "[1: E\n"),
        (["[0]<stderr>:50 %{}", "[0]<stderr>:  File\n", "own\n"], "50 %{}  File\n"),
        (["[1]<stderr>:50 %{}", "[0]<stderr>:all\n", "  File\n"], "all\n[1] 50 %\n"),
        (["[1]<stderr>:{}", "[1]<stderr>:  File\n", "  File\n"], "[1] {}[1]   File\n"),
        (["[1]<stderr>:50 %{}"], "[1] 50 %{}"),
    ],
)
def test_the_launchers_traceback_is_no_end_of_a_line_that_has_none(lines, shown, capsys):
    from ssd_centernet.runtime.launcher import _pass_on

    header = "Traceback (most recent call last):\n"
    told = []
    _pass_on([line.format(header) for line in lines], sys.stdout, told)
    assert capsys.readouterr().out == shown.format(header)
    assert told == [line for line in lines if "<" not in line]


def test_places_of_processes_on_several_machines():
    found = mpi._places(["a", "a", "b", "a", "b"])
    assert [one["local_rank"] for one in found] == [0, 1, 0, 2, 1]
    assert [one["local_size"] for one in found] == [3, 3, 2, 3, 2]
    assert [one["cross_rank"] for one in found] == [0, 0, 1, 0, 1]
    assert [one["cross_size"] for one in found] == [2, 2, 2, 1, 2]
    assert [(one["rank"], one["size"], one["hostname"]) for one in found][4] == (4, 5, "b")


def test_what_cannot_be_started_or_joined_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install openmpi-bin"):
        launch_plans.mpi_plan(["true"], 2, None, [])
    other = tmp_path / "mpirun"
    other.write_text("#!/bin/sh\necho HYDRA build details\n")
    other.chmod(0o755)
    with pytest.raises(ValueError, match=r"is not OpenMPI's \(it says 'HYDRA build details'\)"):
        launch_plans.mpi_plan(["true"], 2, None, [])
    other.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.4'\n")
    monkeypatch.setenv("GC_KERNEL_PATH", "/usr/lib/habanalabs/libtpc_kernels.so")
    line = launch_plans.mpi_plan(["true"], 3, "a:2,b:1", []).line()
    assert line[line.index("-H") + 1] == "a:2,b:1" and "-x PATH" in " ".join(line)
    assert "-x GC_KERNEL_PATH" in " ".join(line)
    assert "--bind-to none" in " ".join(line)
    line = launch_plans.mpi_plan(["true"], 2, None, BINDING).line()
    assert " ".join(BINDING) in " ".join(line) and "none" not in line

    for name, value in {"RANK": 1, "SIZE": 2, "LOCAL_SIZE": 2}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert launched_rank() == 1
    with pytest.raises(ValueError, match="mpirun started 2 processes, which would each train"):
        start_engine("one", device="cpu")
    monkeypatch.setattr(mpi, "_NAMES", ("libc.so.6", "libof_no_machine.so"))
    with pytest.raises(RuntimeError, match="OpenMPI's library, and it does not load .*ompi_mpi"):
        mpi.join_for_tensorflow()
