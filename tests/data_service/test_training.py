"""Trainings whose batches workers make."""

import json

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet import train as train_module
from ssd_centernet.benchmark import input as input_part
from ssd_centernet.data_service.feed import LostWorkersError
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from ssd_centernet.training.logging import TrainLog
from tests.cli.command_line import parsed
from tests.tiny import TINY_RECIPE
from tests.training.test_train import tensors

STEPS = "train.steps = 40"


def train_in(folder, data_dir, *params, addresses=()):
    """Train the tiny recipe in a directory."""
    recipe = folder.with_suffix(".gin")
    recipe.write_text(TINY_RECIPE)
    config.parse([recipe], params)
    try:
        return train(folder, data_dir, data_service=addresses)
    finally:
        config.clear()


@pytest.fixture
def run(data_dir, tmp_path):
    """Train in a directory; `run(name, setting, ..., addresses=...)`."""

    def begin(name, *params, addresses=(), data_dir=data_dir):
        return train_in(tmp_path / name, data_dir, *params, addresses=addresses)

    return begin


@pytest.fixture(scope="module")
def local(data_dir, tmp_path_factory):
    """A run without workers."""
    folder = tmp_path_factory.mktemp("run") / "local"
    train_in(folder, data_dir, STEPS)
    return folder


def assert_same(one, other):
    """Compare checkpoints bit for bit, but for how many there were before."""
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    differ = [name for name in one if not np.array_equal(one[name], other[name])]
    assert [name for name in differ if not name.startswith("save_counter")] == []


def test_a_run_with_workers_is_the_run_without(
    run, local, workers, data_dir, tmp_path, monkeypatch
):
    """Also with another number of them, and a folder that is named as it is seen from here."""
    monkeypatch.chdir(data_dir.parent)
    run("served", "train.steps = 3", addresses=workers[:1], data_dir=data_dir.name)
    run("served", STEPS, addresses=workers)
    assert_same(local, tmp_path / "served")


def test_so_it_is_with_pixels_made_on_the_device(run, workers, tmp_path):
    settings = ("train.steps = 6", "train.augment_on = 'device'")
    run("local", *settings)
    run("served", *settings, addresses=workers)
    assert_same(tmp_path / "local", tmp_path / "served")


def test_a_run_that_loses_its_workers_is_saved_and_goes_on_exactly(
    run, local, start, tmp_path, monkeypatch
):
    settings = (STEPS, "train.log_every = 40", "train.checkpoint_every = 40")
    window, begin, feeds = TrainLog.window, train_module.open_feed, []

    def remembered(*arguments):
        feeds.append(begin(*arguments))
        return feeds[-1]

    with start(1) as workers:
        addresses = [one.address for one in workers]

        def kill(*arguments, **options):
            """After the first step; nobody waits for a worker that comes back."""
            window(*arguments, **options)
            feeds[0]._patience = 0.0
            while workers:
                workers.pop().kill()

        monkeypatch.setattr(train_module, "open_feed", remembered)
        monkeypatch.setattr(TrainLog, "window", kill)
        with pytest.raises(LostWorkersError, match="give the same command, which goes on exactly"):
            run("served", *settings, addresses=addresses)
    (saved,) = (tmp_path / "served").glob("ckpt-*.index")
    step = int(saved.name.removeprefix("ckpt-").removesuffix(".index"))
    assert 0 < step < 40
    end = json.loads((tmp_path / "served" / "sessions.jsonl").read_text().splitlines()[-1])
    assert (end["step"], end["reason"]) == (step, "LostWorkersError")
    run("served", *settings)
    assert_same(local, tmp_path / "served")


def test_what_workers_cannot_make_is_refused(run, workers):
    settings = ("train.batches = @fake_batches", "train.steps = 1")
    with pytest.raises(ValueError, match="train.batches is fake_batches, which cannot be made in"):
        run("fake", *settings, addresses=workers)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--static", "--data_service=localhost:1"], "--static and --data_service are two sources"),
        (["--data_service="], "--data_service= is empty"),
        (["--data_service=localhost"], "expected grpc://HOST:PORT"),
    ],
)
def test_flags_that_contradict_it_are_refused(given, told, tmp_path):
    from absl import flags

    from ssd_centernet.cli import train as command

    places = [f"--model_dir={tmp_path}/run", f"--data_dir={tmp_path}", "--gin_file=ssd_demo"]
    with parsed("train", [*places, *given]), pytest.raises(flags.Error, match=told):
        command.main(["train"])


def test_the_benchmark_reads_from_workers_too(data_dir, workers, tmp_path):
    (tmp_path / "tiny.gin").write_text(TINY_RECIPE)
    config.parse([tmp_path / "tiny.gin"])
    quick = {"windows": 1, "seconds": 0.05, "batch_size": 2}
    lines = input_part.run(Recipe(), data_dir, data_service=workers, **quick)
    rates = {line["name"]: line for line in lines}
    assert rates["the same by 2 workers"]["images_per_second"] > 0
    assert rates["the same by 2 workers / augment and targets"]["ratio"] > 0
