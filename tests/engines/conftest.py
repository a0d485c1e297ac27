"""A tiny run that several devices train."""

from pathlib import Path

import pytest

from tests import process
from tests.process import Ended
from tests.tiny import TINY_RECIPE, write_data_set

WORKERS = Path(__file__).parent / "workers"


def environment(**variables) -> dict[str, str]:
    """Return the environment of a process, with Keras as the command line has it."""
    return process.environment(TF_USE_LEGACY_KERAS=1, **variables)


def cli(*arguments, python, status: int | None = 0, **variables) -> Ended:
    """Run `ssd_centernet`."""
    return process.cli(*arguments, python=python, env=environment(**variables), status=status)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A converted data set: 12 training and 5 validation images, in two shards each."""
    return write_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    """10 steps of 6 images, with what several devices must do together."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.gin"
    path.write_text(
        f"""{TINY_RECIPE}
train.batch_size = 6
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
