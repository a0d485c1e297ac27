"""Compare both forms of the input pipeline with decoding and resizing alone, by processor time.

    python benchmarks/input_forms.py --data_dir=DATA --recipes=ssd300_resnet34,ssd512_vgg16
    python benchmarks/input_forms.py --steps=Mosaic,MixUp
    python benchmarks/input_forms.py --cached

The pipelines of all recipes live in one process and take turns. A window begins and ends when every
buffer is full and nothing runs, so that it holds what making its images costs, and nothing else.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.benchmark import records
from ssd_centernet.benchmark.input import ceiling_batches
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.recipe import Recipe

FORMS = {"graph": False, "compiled": True}
CACHES = {"decoded": None, "decoded, reduced": 1.5}
CEILING = "decode and resize"
# Images of a batch, and batches of a window.
BATCH, WINDOW = 32, 8


def processor_seconds() -> float:
    """Return what this process has used of all processors so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def settle() -> None:
    """Wait until nothing runs in the background."""
    quiet = 0
    # Several times in a row: on a busy machine this process may just not have had its turn.
    while quiet < 5:
        before = processor_seconds()
        time.sleep(0.15)
        quiet = quiet + 1 if processor_seconds() - before < 0.004 else 0


def with_step(recipe_name: str, step: str, data_dir: Path) -> tf.data.Dataset:
    """Make the compiled pipeline of a recipe in which each picture goes through a step."""
    config.clear()
    every = [f"{step}.probability = 1.0", f"{step}.off_for_last = 0.0"]
    config.parse([recipe_name], [f"train.compose = @{step}()", *every])
    recipe = Recipe().replace(batch_size=BATCH)
    detector = recipe.detector(load_label_map(data_dir))
    options = {"num_parallel_calls": 2, "threadpool_size": 1}
    return recipe.training_batches(detector, data_dir, native=True, **options)


def pipelines(
    recipe_name: str, data_dir: Path, cache_dir: Path | None
) -> dict[str, tf.data.Dataset]:
    """Make the pipelines of a recipe, by name; with a folder for them also those of a cache."""
    config.clear()
    config.parse([recipe_name])
    recipe = Recipe().replace(batch_size=BATCH)
    detector = recipe.detector(load_label_map(data_dir))
    options = {"num_parallel_calls": 2, "threadpool_size": 1}
    made = {
        name: recipe.training_batches(detector, data_dir, native=native, **options)
        for name, native in FORMS.items()
    }
    for name, scale in CACHES.items() if cache_dir else ():
        cache = {"cache": "decoded", "cache_scale": scale, "cache_dir": str(cache_dir)}
        made[name] = recipe.training_batches(detector, data_dir, native=True, **cache, **options)
    size = tuple(detector.image_size)
    return {
        **made,
        CEILING: ceiling_batches(data_dir, BATCH, size=size, split=recipe.train_split),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="records; random pictures of 640x480 without it")
    parser.add_argument("--recipes", default="ssd300_resnet34")
    parser.add_argument("--steps", default="", help="steps of train.compose, each by itself")
    parser.add_argument("--cached", action="store_true", help="with cache = 'decoded' too")
    parser.add_argument("--windows", type=int, default=5)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = arguments.data_dir or Path(folder) / "records"
        if not arguments.data_dir:
            records.write_records(data_dir)
        links = Path(folder) / "links"
        links.mkdir()
        source = records.long_epoch(data_dir, links)
        streams, costs = {}, {}
        for recipe in arguments.recipes.split(","):
            made = pipelines(recipe, source, Path(folder) / "cache" if arguments.cached else None)
            steps = filter(None, arguments.steps.split(","))
            made |= {step: with_step(recipe, step, source) for step in steps}
            for name, dataset in made.items():
                streams[recipe, name] = iter(dataset)
                # The first time that a page of a mapped file is touched costs more than later on.
                first = records.LONG_EPOCH // BATCH if name in CACHES else 1
                for _ in range(first):
                    next(streams[recipe, name])
        for _ in range(arguments.windows):
            for key, stream in streams.items():
                settle()
                before = processor_seconds()
                for _ in range(WINDOW):
                    next(stream)
                settle()
                cost = (processor_seconds() - before) / (WINDOW * BATCH)
                costs.setdefault(key, []).append(1000 * cost)
    for (recipe, name), values in costs.items():
        share = statistics.median(costs[recipe, CEILING]) / statistics.median(values)
        print(
            f"{recipe:<24} {name:<18} {statistics.median(values):6.2f} ms  "
            f"({min(values):.2f} to {max(values):.2f})  {share:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
