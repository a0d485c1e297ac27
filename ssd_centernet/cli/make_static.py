"""Compute training batches once and write them to files, to train without an input pipeline.

Writes OUTPUT_DIR/worker_0, worker_1, ...: one folder for each process of the run, one file for
each batch, augmented and with its targets: the batches that a run with the same settings begins
with. `ssd_centernet train --static` reads them again and again, without decoding anything.

Example:

  ssd_centernet make_static --gin_file=ssd300_resnet34 --data_dir=data/coco --batch_size=128 \\
      --num_steps=100
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags, _runs

if TYPE_CHECKING:
    from ssd_centernet.recipe import Recipe


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    _flags.define_train_split()
    flags.DEFINE_alias("split", "train_split")
    flags.DEFINE_string(
        "output_dir", None, "Where to write (default: DATA_DIR, where --static looks)."
    )
    _flags.define_batch_size()
    flags.DEFINE_integer(
        "num_steps",
        None,
        "Batches of each worker (default: one pass over the images).",
        lower_bound=1,
    )
    flags.DEFINE_integer("workers", 1, "Number of processes of the run.", lower_bound=1)
    _flags.define_seed()
    flags.DEFINE_boolean("overwrite", False, "Replace batches that are already there.")


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        0.
    """
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir")
    _flags.check_folders("output_dir")
    _flags.complete_splits("train_split")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import settle_splits
    from ssd_centernet.runtime.device import select_device

    select_device("cpu")  # Where the pipeline runs anyway.
    names = ("batch_size", "seed", "train_split")
    bindings = _flags.flag_bindings({name: f"train.{name}" for name in names})
    config.parse(
        values.gin_file,
        values.gin_params,
        flag_params=bindings,
        allow_import=values.allow_import,
    )
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or _runs.progress_bar(total, "batch")
        bar.update(done - bar.n)

    folders = write_workers(
        settle_splits(Recipe(), values.data_dir),
        values.data_dir,
        values.output_dir or values.data_dir,
        steps=values.num_steps,
        workers=values.workers,
        overwrite=values.overwrite,
        progress=progress,
    )
    config.assert_all_used(allow=("train",), overrides_only=True)
    if bar is not None:
        bar.close()
    for folder in folders:
        print(f"written: {folder}")
    return 0


def write_workers(
    recipe: Recipe,
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    steps: int | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Path]:
    """Write the first training batches of a recipe for every process of a run.

    They are those that a run with the same settings and `workers` processes begins with.

    Args:
        recipe: the settings.
        data_dir: folder of converted data.
        output_dir: gets `worker_0`, `worker_1`, ...
        steps: batches of each worker; None is a pass over the images.
        workers: number of processes of the run.
        overwrite: whether batches that are already there are replaced.
        progress: is told how many batches are done of how many.

    Returns:
        The folders of the workers.

    Raises:
        FileNotFoundError: no such data.
        ValueError: settings that do not fit the data.
        FileExistsError: there are batches, and `overwrite` is off.
    """
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.data.static import write_static_batches

    recipe.check_one_size("make_static")
    label_map = load_label_map(data_dir)
    detector = recipe.detector(label_map)
    if steps is None:
        steps = math.ceil(recipe.count_images(data_dir) / (recipe.batch_size * workers))
    return [
        write_static_batches(
            recipe.training_batches(
                detector, data_dir, label_map=label_map, rank=worker, world_size=workers
            ),
            output_dir,
            steps=steps,
            label_map=label_map,
            worker=worker,
            workers=workers,
            overwrite=overwrite,
            progress=lambda n, before=worker * steps: progress(before + n, workers * steps),
        )
        for worker in range(workers)
    ]
