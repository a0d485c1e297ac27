"""Batches of several sizes: which size has its turn, and that a batch is of one alone."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import pipeline
from ssd_centernet.data.augment.joining import Mosaic
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.loading import AtSize, SizeDraw
from ssd_centernet.data_service.parts import make_queue
from tests.data.test_pipeline import LABELS, data_dir  # noqa: F401

SIZES = ((24, 32), (32, 24), (40, 40))
CHAIN = SSDAugment((24, 24), compiled=False)


def targets_at(size):
    """Return as many rows as the image has, each of them the largest box's height."""

    def make(boxes, classes, is_crowd, extent):
        del classes, is_crowd, extent
        rows = np.zeros(size, np.float32)
        return {"rows": rows + tf.reduce_max(boxes[:, 2] - boxes[:, 0])}

    return make


def at_sizes(chain=CHAIN, sizes=SIZES):
    return [AtSize(one, chain.at_size(one), targets_at(one)) for one in sizes]


def batches(folder, number, **changes):
    options = {"label_map": LABELS, "batch_size": 2, "augment": CHAIN, "max_boxes": 6, "seed": 3}
    options |= {"at_sizes": at_sizes(), "native": False, **changes}
    made = pipeline.training_batches(folder, **options)
    return list(itertools.islice(made.as_numpy_iterator(), number))


def sizes_of(made):
    return [one["image"].shape[1:3] for one in made]


def assert_same(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def made(data_dir):  # noqa: F811
    return batches(data_dir, 24)


def test_each_batch_has_one_size_and_each_size_has_its_turn(made):
    assert set(sizes_of(made)) == set(SIZES)
    for batch in made:
        size = batch["image"].shape[1:3]
        assert batch["image_size"].tolist() == [list(size)] * 2
        assert batch["targets"]["rows"].shape == (2, *size)
    # No order: neighbours are alike, and unlike.
    alike = [one == other for one, other in itertools.pairwise(sizes_of(made))]
    assert any(alike) and not all(alike)


def test_an_image_is_that_of_the_chain_at_its_size(made, data_dir):  # noqa: F811
    """Order and draws are those of a training at one size; only the size is another."""
    for size in SIZES:
        alone = batches(data_dir, 24, augment=CHAIN.at_size(size), at_sizes=(), image_size=size)
        for one, other in zip(made, alone, strict=True):
            assert one["source_id"].tolist() == other["source_id"].tolist()
            if one["image"].shape[1:3] == size:
                np.testing.assert_array_equal(one["image"], other["image"])
                np.testing.assert_array_equal(one["boxes"], other["boxes"])


@pytest.mark.parametrize("start", [2, 10, 24])
def test_a_stream_that_begins_later_goes_on_exactly(made, data_dir, start):  # noqa: F811
    number = start // 2
    assert_same(batches(data_dir, 24 - number, start_example=start), made[number:])


def test_processes_draw_the_same_sizes(data_dir):  # noqa: F811
    ranks = [sizes_of(batches(data_dir, 8, rank=rank, world_size=2)) for rank in range(2)]
    assert ranks[0] == ranks[1] and len(set(ranks[0])) > 1
    assert ranks[0] == sizes_of(batches(data_dir, 8))
    assert ranks[0] != sizes_of(batches(data_dir, 8, seed=4))


def test_the_batches_of_an_update_have_one_size(made, data_dir):  # noqa: F811
    joined = sizes_of(batches(data_dir, 24, batches_per_size=2))
    assert joined[::2] == joined[1::2] and joined[::2] == sizes_of(made)[:12]
    halved = sizes_of(batches(data_dir, 12, batches_per_size=2, start_example=24))
    assert halved == joined[12:]


def test_a_part_of_the_stream_has_the_sizes_of_its_batches(made, data_dir):  # noqa: F811
    for first in range(3):
        part = batches(data_dir, 4, part=(first, 3))
        assert_same(part, made[first:12:3])


def test_workers_take_one_size(data_dir):  # noqa: F811
    options = {"label_map": LABELS, "batch_size": 2, "augment": CHAIN, "at_sizes": at_sizes()}
    made = pipeline.training_batches(data_dir, **options)
    with pytest.raises(ValueError, match="--data_service hands batches of one shape on"):
        make_queue(made.element_spec)


def test_sizes_are_drawn_evenly():
    draw = SizeDraw(seed=5, batch_size=1)
    drawn = [int(draw.index(np.int64(number), 3)) for number in range(300)]
    assert min(np.bincount(drawn)) > 75 and len(np.bincount(drawn)) == 3


@pytest.mark.parametrize(
    "changes",
    [{"deterministic": False}, {"cache": True}, {"compose": Mosaic(off_for_last=0.0)}],
    ids=["not in order", "cached", "joined"],
)
def test_batches_are_of_one_size_whatever_reads_them(data_dir, changes, made):  # noqa: F811
    found = batches(data_dir, 4, **changes)
    assert sizes_of(found) == sizes_of(made)[:4]
    for batch in found:
        assert np.isfinite(batch["image"]).all()


def test_a_device_renders_what_the_pipeline_would(made, data_dir):  # noqa: F811
    rendering = DeviceRendering(CHAIN, window_size=(64, 64))
    forms = [(one, rendering.at_size(one)) for one in SIZES]
    shipped = [AtSize(one, form.ship, targets_at(one)) for one, form in forms]
    for batch, other in zip(batches(data_dir, 6, at_sizes=shipped), made[:6], strict=True):
        size = tuple(batch["image_size"][0])
        assert "image" not in batch and size == other["image"].shape[1:3]
        image = dict(forms)[size].render(batch)["image"]
        np.testing.assert_allclose(image, other["image"], atol=2e-2)


def test_chains_have_another_size_and_nothing_else():
    other = CHAIN.at_size((40, 48))
    assert other.image_size == (40, 48) and CHAIN.image_size == (24, 24)
    assert {**vars(other), "image_size": None} == {**vars(CHAIN), "image_size": None}
