"""Batches that were computed once, and one batch for ever: both take the place of the pipeline."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.cli.make_static import write_workers
from ssd_centernet.data.fake import fake_batches
from ssd_centernet.data.loading import resize_only
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.data.static import static_batches, write_static_batches
from ssd_centernet.labels import LabelMap
from ssd_centernet.recipe import Recipe
from tests.tiny import LABELS, tiny_detector
from tests.training.test_train import assert_same_bits, run

STATIC = "train.batches = @static_batches"


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


def options(detector, **changes):
    return {
        "label_map": LABELS,
        "batch_size": 2,
        "image_size": detector.image_size,
        "augment": resize_only(detector.preprocessing),
        "make_targets": detector.make_targets,
        "seed": 0,
        **changes,
    }


def take(dataset, count):
    return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in dataset.take(count)]


def assert_equal_batches(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.fixture
def written(detector, data_dir, tmp_path):
    """Three batches for each of two workers."""
    for worker in range(2):
        stream = training_batches(str(data_dir), **options(detector), rank=worker, world_size=2)
        two = {"worker": worker, "workers": 2}
        write_static_batches(stream, tmp_path, steps=3, label_map=LABELS, **two)
    return tmp_path


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_reads_its_own_batches_bit_for_bit_and_again(detector, data_dir, written, rank):
    ranks = {"rank": rank, "world_size": 2}
    live = take(training_batches(str(data_dir), **options(detector), **ranks), 3)
    static = static_batches(str(written), **options(detector), **ranks)
    assert_equal_batches(take(static, 7), [*live, *live, live[0]])
    # The specification must be that of the pipeline too: the step is traced for it.
    pipeline = training_batches(str(data_dir), **options(detector), **ranks)
    assert tf.nest.map_structure(lambda s: s.shape, static.element_spec) == (
        tf.nest.map_structure(lambda s: s.shape, pipeline.element_spec)
    )
    resumed = static_batches(str(written), **options(detector), **ranks, start_example=8)
    assert_equal_batches(take(resumed, 3), [live[1], live[2], live[0]])


def test_file_names_are_the_published_ones(written):
    names = sorted(path.name for path in (written / "worker_1").glob("*.tfrecord"))
    assert names == [f"train-2-00000{n}.tfrecord" for n in (1, 2, 3)]
    assert not list(written.glob(".*"))


def another_targets(detector):
    def make_targets(*objects, extent):
        return {"classes": detector.make_targets(*objects, extent=extent)["classes"][:5]}

    return make_targets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4}, "the batch size of the static batches .* is 2, but .* 4"),
        ({"image_size": (96, 64)}, "the image size of the static batches"),
        (
            {"label_map": LabelMap(("square", "disc"), (1, 3))},
            "the label map of the static batches",
        ),
        ({"make_targets": None}, "hold the targets"),
        ({"world_size": 3}, "make_static --workers=3"),
        ({"rank": 2, "world_size": 3}, "rank 2 of 3; there: worker_0, worker_1"),
    ],
)
def test_files_that_are_not_for_this_run_are_refused(detector, written, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        static_batches(str(written), **options(detector, **changes))


def test_other_anchors_and_missing_files_are_noticed(detector, written):
    other = options(detector, make_targets=another_targets(detector))
    with pytest.raises(ValueError, match="another recipe"):
        static_batches(str(written), **other)
    (written / "worker_0" / "train-2-000002.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match="000002.tfrecord is missing, one of 1 of 3"):
        static_batches(str(written), **options(detector))


def test_a_worker_appears_whole_or_not_at_all(detector, data_dir, tmp_path):
    stream = training_batches(str(data_dir), **options(detector))
    with pytest.raises(ValueError, match="ended after 1 batches, expected 2"):
        write_static_batches(stream.take(1), tmp_path, steps=2, label_map=LABELS)
    assert not list(tmp_path.iterdir())
    write_static_batches(stream, tmp_path, steps=1, label_map=LABELS)
    with pytest.raises(FileExistsError, match="overwrite"):
        write_static_batches(stream, tmp_path, steps=2, label_map=LABELS)
    write_static_batches(stream, tmp_path, steps=2, label_map=LABELS, overwrite=True)
    assert json.loads((tmp_path / "worker_0" / "static.json").read_text())["steps"] == 2
    with pytest.raises(ValueError, match="worker is 1"):
        write_static_batches(stream, tmp_path, steps=1, label_map=LABELS, worker=1)


def test_static_training_equals_training_bit_for_bit(tiny_recipe, data_dir, tmp_path):
    directory = tmp_path / "static"
    config.parse([tiny_recipe])
    try:
        write_workers(Recipe(), data_dir, directory, steps=4)
    finally:
        config.clear()
    place = f"static_batches.directory = {str(directory)!r}"
    run(tiny_recipe, data_dir, tmp_path / "live", "train.steps = 4", "train.checkpoint_every = 2")
    for steps in (2, 4):  # Stops in between, to be resumed.
        settings = (f"train.steps = {steps}", "train.checkpoint_every = 2", STATIC, place)
        assert run(tiny_recipe, data_dir, tmp_path / "resumed", *settings) == "finished"
    assert_same_bits(tmp_path / "live", tmp_path / "resumed")


def test_fake_data_is_the_first_batch_for_ever(detector, data_dir):
    live = take(training_batches(str(data_dir), **options(detector)), 1)
    fake = fake_batches(str(data_dir), **options(detector), start_example=4)
    assert_equal_batches(take(fake, 3), live * 3)


def test_training_on_fake_data(tiny_recipe, data_dir, tmp_path):
    # The options of the recipe's batches are those of the repeated one.
    fake = ("fake_batches.batches = @training_batches", "train.batches = @fake_batches")
    few = "training_batches.max_boxes = 3"
    assert run(tiny_recipe, data_dir, tmp_path, "train.steps = 3", *fake, few) == "finished"
    text = (tmp_path / "config.gin").read_text()
    assert "training_batches.max_boxes = 3" in text and "train.batches = @fake_batches" in text
