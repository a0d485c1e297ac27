"""Time a save of a training's checkpoint with its digests and without them, in turn.

    python benchmarks/save.py --recipe=ssd300_resnet34 --rounds=20

A thread writes the digests while the training goes on; so steps behind the save are timed as well.
Prints medians and quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence

import tensorflow as tf

from ssd_centernet import checkpoint_files, config
from ssd_centernet.data.fake import random_batch
from ssd_centernet.recipe import Recipe
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.length import RunLength
from ssd_centernet.training.trainer import Trainer


def make_trainer(recipe_name: str, num_classes: int) -> tuple[Trainer, dict]:
    """Return the trainer of a recipe on the CPU, and a batch of two random images for it."""
    config.parse([recipe_name])
    recipe = Recipe().replace(batch_size=2, accumulate_steps=1, device="cpu")
    detector = recipe.detector(num_classes=num_classes)
    length = RunLength(1, total_steps=1_000_000, global_batch_size=2)
    batch = random_batch(detector.image_size, [2, 3], num_classes=num_classes)
    return recipe.trainer(detector, length), batch


def measure(
    recipe_name: str, *, num_classes: int, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Time `rounds` saves of each kind, each with `steps` steps behind it.

    Returns:
        What was timed -> seconds, one for each round.
    """
    trainer, batch = make_trainer(recipe_name, num_classes)
    step = tf.function(lambda: trainer.train_step(batch), autograph=False)
    step()  # Traces; the optimizer has its slots from now on.
    write = checkpoint_files.write_digest
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = RunCheckpoints(trainer, folder, seed=0)
        for number in range(2 * rounds + 2):
            with_digests = bool(number % 2)
            checkpoint_files.write_digest = write if with_digests else (lambda prefix: None)
            began = time.perf_counter()
            path = checkpoints.save()
            saved = time.perf_counter()
            for _ in range(steps):
                step()
            ended = time.perf_counter()
            if number >= 2:  # The first of each kind opens files.
                kind = "with digests" if with_digests else "without"
                times.setdefault(f"save {kind}", []).append(saved - began)
                times.setdefault(f"save and {steps} steps {kind}", []).append(ended - began)
        checkpoints.finish()
        checkpoint_files.write_digest = write
        size = sum(part.stat().st_size for part in checkpoint_files.parts_of(path))
        began = time.perf_counter()
        write(path)
        times[f"digests of {size / 1e6:.1f} MB alone"] = [time.perf_counter() - began]
    return times


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="ssd_demo")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--classes", type=int, default=80)
    given = parser.parse_args(argv)
    options = {"num_classes": given.classes, "rounds": given.rounds, "steps": given.steps}
    for what, seconds in measure(given.recipe, **options).items():
        low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        print(f"{what:34} {1e3 * middle:8.1f} ms  ({1e3 * low:.1f} to {1e3 * high:.1f})")


if __name__ == "__main__":
    main()
