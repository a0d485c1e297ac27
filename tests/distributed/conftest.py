"""Real processes under Horovod's launcher, and a tiny run that they train."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import TINY_RECIPE, write_data_set

ROOT = Path(__file__).resolve().parents[2]
WORKERS = Path(__file__).parent / "workers"


@pytest.fixture(scope="session", autouse=True)
def _horovod():
    """Skip where Horovod was not built, unless the one who runs the tests asked for it."""
    if importlib.util.find_spec("horovod") is None:
        message = "Horovod is not installed: bash scripts/install_horovod.sh"
        if os.environ.get("REQUIRE_HOROVOD") == "1":
            pytest.fail(message)
        pytest.skip(message)


@dataclasses.dataclass
class Ended:
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"status {self.status}\n{self.out}\n--- stderr\n{self.err}"


def environment(**variables) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_USE_LEGACY_KERAS": "1",  # As the command line does: a second less a process.
        **{name: str(value) for name, value in variables.items()},
    }


def run(command: list, *, timeout: float = 300.0, **variables) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [str(part) for part in command],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def run_worker(processes: int, name: str, *arguments, **variables) -> Ended:
    """Run a script of workers/ in several processes, without restarts."""
    launcher = (
        "import sys; from ssd_centernet.runtime.launcher import launch; "
        "sys.exit(launch(sys.argv[2:], num_processes=int(sys.argv[1]), max_restarts=0))"
    )
    worker = [sys.executable, WORKERS / f"{name}.py", *arguments]
    return run([sys.executable, "-c", launcher, processes, *worker], **variables)


def cli(*arguments, **variables) -> Ended:
    """Run `ssd_centernet`."""
    return run([sys.executable, "-m", "ssd_centernet", *arguments], **variables)


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
def trained(fixed_recipe, data_dir, tmp_path_factory):
    """Train the same run once with each asked number of processes and return its directory."""
    done: dict[int, Path] = {}

    def train(processes: int) -> Path:
        if processes not in done:
            model_dir = tmp_path_factory.mktemp(f"run{processes}") / "run"
            arguments = train_arguments(fixed_recipe, data_dir, model_dir, processes)
            if processes == 1:
                ended = run([sys.executable, WORKERS / "train_fixed.py", *arguments])
            else:
                ended = run_worker(processes, "train_fixed", *arguments)
            assert ended.status == 0, ended.text
            done[processes] = model_dir
        return done[processes]

    return train
