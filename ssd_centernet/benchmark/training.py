"""How fast a training is as a whole, and which of its sides it waits for: the input or the step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from ssd_centernet.benchmark import input as input_part
from ssd_centernet.benchmark import measure, records
from ssd_centernet.benchmark import step as step_part
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.device import prefetch_to_device, select_device
from ssd_centernet.runtime.precision import precision_name
from ssd_centernet.training.loop import compile_steps

TOGETHER = "training"
# Nearer than this neither of both is what a training waits for.
_CLEARLY = 1.15


def run(
    recipe: Recipe,
    data_dir: str | Path | None = None,
    *,
    batch_size: int | None = None,
    windows: int = 5,
    seconds: float = 3.0,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Measure a training of a recipe, and by turns its input pipeline and its step alone.

    Args:
        recipe: the settings; gradients are not accumulated.
        data_dir: folder with record files; None writes 64 random pictures to a temporary folder.
            A short data set is repeated, so that epochs do not end all the time.
        batch_size: images per step, the recipe's by default.
        windows: windows of each.
        seconds: length of a window.
        device: as `train.device`.

    Returns:
        A line for the training, one for each of both sides, and their ratio with `bound_by`:
        "input", "step", or "both" where they take about the same.
    """
    recipe = recipe.replace(batch_size=batch_size or recipe.batch_size)
    strategy = select_device(device)
    with tempfile.TemporaryDirectory() as folder:
        if data_dir is None:
            data_dir = Path(folder) / "records"
            size = records.fitting_size(recipe)
            records.write_records(data_dir, split=recipe.train_split, size=size)
        links = Path(folder) / "links"
        links.mkdir()
        source = records.long_epoch(data_dir, links, split=recipe.train_split)
        with strategy.scope():
            detector = recipe.detector(load_label_map(source))
            trainer = step_part.make_trainer(recipe, detector)
        batches = recipe.training_batches(detector, source, for_step=True)
        fed = iter(prefetch_to_device(batches, strategy))
        steps = compile_steps(trainer, strategy, in_graph=recipe.loop_in_graph)

        def train(units: int) -> int:
            steps(fed, tf.constant(units, tf.int32))
            trainer.step.numpy()  # Waits for an asynchronous device.
            trainer.raise_if_failed()
            return units * recipe.batch_size

        batch = step_part.make_batch(recipe, detector, source)
        fast, slow = input_part.PIPELINE[recipe.augment_on], step_part.STEP[recipe.augment_on]
        rates = measure.alternate(
            {
                TOGETHER: train,
                fast: input_part.reading(batches, recipe.batch_size),
                slow: step_part.stepping(trainer, batch, strategy),
            },
            windows=windows,
            seconds=seconds,
            warm_up=input_part.SETTLE,
            settle=input_part.SETTLE,
        )
    common = {
        "batch_size": recipe.batch_size,
        "dtype": precision_name(detector.dtype_policy.name),
        "image_size": list(detector.image_size),
        "augment_on": recipe.augment_on,
        **measure.peak_memory(),
    }
    lines = [
        {"part": "training", "name": name, **measure.summary(rates[name]), **common}
        for name in rates
    ]
    ratio = measure.ratio(rates[fast], rates[slow])
    bound = {"name": "input / step", **ratio, "bound_by": bound_by(ratio["ratio"])}
    return [*lines, {"part": "training", **bound}]


def bound_by(ratio: float) -> str:
    """Tell what a training waits for.

    Args:
        ratio: images/s of the input by those of the step.
    """
    if ratio >= _CLEARLY:
        return "step"
    return "input" if ratio <= 1.0 / _CLEARLY else "both"
