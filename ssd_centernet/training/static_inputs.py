"""The batches that a run would be fed, computed once and written to files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gin

from ssd_centernet.building import build_detector
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import count_examples, training_batches
from ssd_centernet.data.static import write_static_batches
from ssd_centernet.preview.fed_images import resize_only

_SHARED = ("keep_empty", "crowd", "seed")


def make_static(
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    steps: int | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Path]:
    """Write the first training batches of the parsed recipe for every process of a run.

    They are those that a run with the same settings and `workers` processes begins with.

    Args:
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
    label_map = load_label_map(data_dir)
    detector = build_detector(label_map=label_map)
    settings = gin.get_bindings("train")
    batch_size = settings.get("batch_size", 32)
    split = settings.get("train_split", "coco_train")
    shared = {name: settings[name] for name in _SHARED if name in settings}
    if steps is None:
        counted = {name: shared[name] for name in ("keep_empty", "crowd") if name in shared}
        images = count_examples(data_dir, split=split, **counted)
        steps = math.ceil(images / (batch_size * workers))
    in_pipeline = settings.get("targets_in_pipeline", True)
    folders: list[Path] = []
    for worker in range(workers):
        batches = settings.get("batches", training_batches)(
            str(data_dir),
            label_map=label_map,
            batch_size=batch_size,
            image_size=detector.image_size,
            augment=settings.get("augment") or resize_only(detector),
            make_targets=detector.make_targets if in_pipeline else None,
            split=split,
            rank=worker,
            world_size=workers,
            **shared,
        )
        folders.append(
            write_static_batches(
                batches,
                output_dir,
                steps=steps,
                label_map=label_map,
                worker=worker,
                workers=workers,
                overwrite=overwrite,
                progress=lambda n, before=worker * steps: progress(before + n, workers * steps),
            )
        )
    return folders
