"""Trainings whose batches workers make."""

import json

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet.benchmark import input as input_part
from ssd_centernet.data_service import feed as feed_module
from ssd_centernet.data_service.feed import LostWorkersError
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from ssd_centernet.training.logging import TrainLog
from tests.cli.command_line import parsed
from tests.tiny import TINY_RECIPE
from tests.training.test_train import tensors


@pytest.fixture
def run(data_dir, tmp_path):
    """Train the tiny recipe in a directory; `run(name, setting, ..., addresses=...)`."""
    recipe = tmp_path / "tiny.gin"
    recipe.write_text(TINY_RECIPE)

    def begin(name, *params, addresses=()):
        config.parse([recipe], params)
        try:
            return train(tmp_path / name, data_dir, data_service=addresses)
        finally:
            config.clear()

    return begin


def assert_same(one, other):
    """Compare checkpoints bit for bit, but for how many there were before."""
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    differ = [name for name in one if not np.array_equal(one[name], other[name])]
    assert [name for name in differ if not name.startswith("save_counter")] == []


@pytest.fixture(scope="module")
def workers(start):
    """Two workers."""
    with start(2) as both:
        yield [one.address for one in both]


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_a_run_with_workers_is_the_run_without(augment_on, run, workers, tmp_path):
    """Also where it goes on with another number of workers."""
    setting = f"train.augment_on = {augment_on!r}"
    run("local", "train.steps = 8", setting)
    if augment_on == "host":
        run("served", "train.steps = 3", setting, addresses=workers[:1])
    run("served", "train.steps = 8", setting, addresses=workers)
    assert_same(tmp_path / "local", tmp_path / "served")


def test_a_run_that_loses_its_workers_is_saved_and_goes_on_exactly(
    run, start, tmp_path, monkeypatch
):
    monkeypatch.setattr(feed_module, "PATIENCE", 4.0)
    steps = 150
    settings = (f"train.steps = {steps}", "train.log_every = 50", "train.checkpoint_every = 150")
    window = TrainLog.window

    with start(2) as both:

        def kill(*arguments, **options):
            """After the first step."""
            window(*arguments, **options)
            while both:
                both.pop().kill()

        monkeypatch.setattr(TrainLog, "window", kill)
        addresses = [one.address for one in both]
        with pytest.raises(LostWorkersError, match="give the same command, which goes on exactly"):
            run("served", *settings, addresses=addresses)
    (saved,) = (tmp_path / "served").glob("ckpt-*.index")
    step = int(saved.name.removeprefix("ckpt-").removesuffix(".index"))
    assert 0 < step < steps
    end = json.loads((tmp_path / "served" / "sessions.jsonl").read_text().splitlines()[-1])
    assert (end["step"], end["reason"]) == (step, "LostWorkersError")
    run("served", *settings)
    run("local", *settings)
    assert_same(tmp_path / "local", tmp_path / "served")


def test_what_workers_cannot_make_is_refused(run, workers):
    settings = ("train.batches = @fake_batches", "train.steps = 1")
    with pytest.raises(ValueError, match="train.batches is fake_batches, which cannot be made in"):
        run("fake", *settings, addresses=workers)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--static", "--data_service=localhost:1"], "--static and --data_service are two sources"),
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
