"""Real processes under Horovod's launcher, and a tiny run that they train."""

import sys
from pathlib import Path

import pytest

from tests import process
from tests.process import Ended
from tests.tiny import TINY_RECIPE, write_data_set

WORKERS = Path(__file__).parent / "workers"


@pytest.fixture(scope="session", autouse=True)
def _horovod():
    process.need_horovod()


def environment(**variables) -> dict[str, str]:
    """Return the environment of a process that shares the cores with its neighbours."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    # Keras as the command line has it: a second less a process.
    ours = {**dict.fromkeys(names, 1), "TF_USE_LEGACY_KERAS": 1}
    return process.environment(**ours, **variables)


def run_worker(
    processes: int,
    name: str,
    *arguments,
    python=sys.executable,
    status: int | None = 0,
    **variables,
) -> Ended:
    """Run a script of workers/ in several processes, without restarts."""
    launcher = (
        "import sys; from ssd_centernet.runtime.launcher import launch; "
        "sys.exit(launch(sys.argv[2:], num_processes=int(sys.argv[1]), max_restarts=0))"
    )
    worker = [python, WORKERS / f"{name}.py", *arguments]
    command = (python, "-c", launcher, processes, *worker)
    return process.run(*command, env=environment(**variables), status=status)


def cli(*arguments, python=sys.executable, status: int | None = 0, **variables) -> Ended:
    """Run `ssd_centernet`."""
    return process.cli(*arguments, python=python, env=environment(**variables), status=status)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A converted data set: 12 training and 5 validation images, in two shards each."""
    return write_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def fixed_recipe(tmp_path_factory) -> Path:
    """A recipe for `workers/train_fixed.py`: 10 steps of 6 images over all processes."""
    path = tmp_path_factory.mktemp("recipe") / "fixed.gin"
    path.write_text(
        f"""{TINY_RECIPE}
train.batches = @fixed_batches
train.steps = 10
train.checkpoint_every = 5
train.log_every = 1
train.sync_batch_norm = True
train.ema_decay = 0.75
"""
    )
    return path


def train_arguments(recipe: Path, data_dir: Path, model_dir: Path, processes: int, *more) -> list:
    """Return the command line of a training with 6 images a step over all processes."""
    return [
        "train",
        f"--gin_file={recipe}",
        f"--data_dir={data_dir}",
        f"--model_dir={model_dir}",
        f"--gin_params=train.batch_size = {6 // processes}",
        "--device=cpu",
        *more,
        *(["--use_horovod"] if processes > 1 else []),
    ]


@pytest.fixture(scope="session")
def trained(fixed_recipe, data_dir, tmp_path_factory, warm):
    """Train the same run once with each asked number of processes and return its directory."""
    done: dict[int, Path] = {}

    def train(processes: int) -> Path:
        if processes not in done:
            model_dir = tmp_path_factory.mktemp(f"run{processes}") / "run"
            arguments = train_arguments(fixed_recipe, data_dir, model_dir, processes)
            if processes == 1:
                worker = (warm, WORKERS / "train_fixed.py")
                process.run(*worker, *arguments, env=environment())
            else:
                run_worker(processes, "train_fixed", *arguments, python=warm)
            done[processes] = model_dir
        return done[processes]

    return train
