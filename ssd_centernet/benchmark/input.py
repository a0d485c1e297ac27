"""How fast the input pipeline is, beside the least that any pipeline from JPEG must do."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from ssd_centernet.benchmark import measure, records
from ssd_centernet.data import shards
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.records import parse_example
from ssd_centernet.plain_text import counted
from ssd_centernet.recipe import Recipe
from ssd_centernet.training.step_input import open_feed

# What the pipeline makes by where `train.augment_on` has the pixels made.
PIPELINE = {"host": "augment and targets", "device": "windows and targets"}
CEILING = "decode and resize"

# Batches that prefetching may hold at the start of a window.
SETTLE = 4
# Those that a worker, and the way from it, may hold.
_OF_A_WORKER = 10


def ceiling_batches(
    data_dir: str | Path, batch_size: int, *, size: tuple[int, int], split: str = records.SPLIT
) -> tf.data.Dataset:
    """Make batches by parsing, decoding and resizing alone.

    Args:
        data_dir: folder with the record files.
        batch_size: images per batch.
        size: (height, width) of the images.
        split: prefix of the record files.

    Returns:
        Endless dataset of uint8 [B, height, width, 3].
    """
    label_map = load_label_map(data_dir)

    def load(serialized: tf.Tensor) -> tf.Tensor:
        encoded = parse_example(serialized, label_map)["encoded"]
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.cast(tf.image.resize(tf.ensure_shape(image, [None, None, 3]), size), tf.uint8)

    paths = shards.find_shards(data_dir, split)
    packed = shards.compression(paths)
    dataset = (
        tf.data.Dataset.from_tensor_slices(paths)
        .interleave(
            lambda path: tf.data.TFRecordDataset(path, compression_type=packed),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .repeat()
    )
    dataset = dataset.map(load, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    return dataset.prefetch(2)


def reading(dataset: tf.data.Dataset, batch_size: int) -> measure.Work:
    """Return the work of taking batches from a dataset, without looking at them."""
    iterator: Iterator = iter(dataset)

    def work(units: int) -> int:
        for _ in range(units):
            next(iterator)
        return units * batch_size

    return work


def run(
    recipe: Recipe,
    data_dir: str | Path | None = None,
    *,
    batch_size: int | None = None,
    windows: int = 5,
    seconds: float = 3.0,
    data_service: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Measure the input pipeline of a recipe, as `train` reads it.

    Args:
        recipe: the settings.
        data_dir: folder with record files; None writes 64 random pictures to a temporary folder.
            A short data set is repeated, so that epochs do not end all the time.
        batch_size: images per batch, 32 by default.
        windows: windows of each pipeline.
        seconds: length of a window.
        data_service: addresses of workers (`ssd_centernet data_worker`) that make the same batches
            by turns; they must be able to read `data_dir`.

    Returns:
        A line for the whole pipeline, one for decoding and resizing alone, and their ratio; with
        workers also a line for their batches and the ratio to the pipeline of this process.
    """
    recipe = recipe.replace(batch_size=batch_size or 32)
    batch_size, split, name = recipe.batch_size, recipe.train_split, PIPELINE[recipe.augment_on]
    remote = f"the same by {counted(len(data_service), 'worker')}"
    with tempfile.TemporaryDirectory() as folder:
        if data_dir is None:
            data_dir = Path(folder) / "records"
            records.write_records(data_dir, split=split, size=records.fitting_size(recipe))
        links = Path(folder) / "links"
        links.mkdir()
        source = Path(records.long_epoch(data_dir, links, split=split)).absolute()
        recipe.check_one_size("a benchmark")
        detector = recipe.detector(load_label_map(source))
        dataset = recipe.training_batches(detector, source, for_step=True)
        size = tuple(detector.image_size)
        ceiling = ceiling_batches(source, batch_size, size=size, split=split)
        ready = SETTLE + _OF_A_WORKER * len(data_service)
        works = {name: reading(dataset, batch_size), CEILING: reading(ceiling, batch_size)}
        say = functools.partial(print, file=sys.stderr)
        feed = open_feed(recipe.batches, data_service, say, source, split)
        if feed is not None:

            def make(first: int, part: tuple[int, int]) -> tf.data.Dataset:
                options = {"start_example": first, "part": part, "for_step": True}
                return recipe.training_batches(detector, source, **options)

            works[remote] = reading(feed.batches(make), batch_size)
        rates = measure.alternate(
            works,
            windows=windows,
            seconds=seconds,
            warm_up=ready,
            settle=ready,
        )
        if feed is not None:
            feed.close()
    common = {
        "batch_size": batch_size,
        "dtype": "fp32",
        "image_size": list(size),
        "augment_on": recipe.augment_on,
    }
    lines = [{"part": "input", "name": one, **measure.summary(rates[one])} for one in rates]
    lines = [{**line, **common, **measure.peak_memory()} for line in lines]
    pairs = [(name, CEILING), *([(remote, name)] if data_service else [])]
    for one, other in pairs:
        ratio = measure.ratio(rates[one], rates[other])
        lines.append({"part": "input", "name": f"{one} / {other}", **ratio})
    return lines
