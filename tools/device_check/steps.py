"""One process of the check: a recipe's first steps on a device, beside those of the CPU.

Weights and pictures are drawn by NumPy, so that they are the same on each device. What is compared:
targets (matching, or heatmaps' objects), raw outputs, detections of the same raw outputs, and the
losses of each step. The CPU also takes the steps with weights that are off by what each precision
rounds away: how far these go is what the network makes of rounding, on whatever device.

python -m tools.device_check.steps --recipe=ssd_demo --device=cpu --output=reference.json
python -m tools.device_check.steps --recipe=ssd_demo --device=gpu --precision=bf16 \
    --reference=reference.npz --output=bf16.json
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.benchmark.measure import peak_memory
from ssd_centernet.benchmark.step import batch_with_targets, make_trainer
from ssd_centernet.data.fake import random_batch
from ssd_centernet.files import write_atomically
from ssd_centernet.layers.normalization import norms_of
from ssd_centernet.models.moving_statistics import estimate_statistics
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.device import select_device
from ssd_centernet.training.trainer import NonFiniteLossError
from tools.device_check import placement
from tools.device_check.plan import gin_files

_CLASSES = 5
_SEED = 20
# For the statistics of batch norms.
_BATCHES = 4
# What moves every weight of the CPU's own trials, relative, by precision: half a unit in the last
# place; of float32 two units, as its sums of thousands of products lose more.
_OFF = {"fp32": 2.0**-22, "tf32": 2.0**-11, "bf16": 2.0**-8}
# Scores that are so near may be in any order.
_NEAR = 1e-5
# A first factor that no recipe's gradients overflow with: steps that are skipped compare nothing.
_SCALE = "LossScale.initial = 128.0"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps and write what came out.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0.
    """
    values = _arguments(argv)
    keras.utils.set_random_seed(_SEED)
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    precision = values.precision
    # What NVIDIA's tensor cores make of float32 unless they are told not to.
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    strategy = select_device(values.device)
    dtype = "fp32" if precision == "tf32" else precision
    files = gin_files(values.recipe, narrow=values.narrow)
    config.parse(files, [f'build_detector.dtype = "{dtype}"', _SCALE])
    recipe = Recipe().replace(batch_size=values.batch_size, accumulate_steps=1)
    with strategy.scope():
        detector = recipe.detector(num_classes=_CLASSES)
        trainer = make_trainer(recipe.replace(jit_compile=False), detector)
    config.clear()
    _draw_weights(detector.variables)
    batch = batch_with_targets(detector, values.batch_size, seed=_SEED)
    found = {"recipe": values.recipe, "precision": precision, "image_size": detector.image_size}
    found |= {"batch_size": values.batch_size, "weights": _count(detector.trainable_variables)}
    found["device"] = trainer.train_variables[0].device.rpartition("device:")[2]
    reference = None
    if values.reference:
        with np.load(values.reference) as file:
            reference = dict(file)
    averages = [] if values.deterministic else _averages(detector, values.batch_size, reference)
    arrays, outputs = _forward(detector, batch)
    arrays |= {f"average {number}": value for number, value in enumerate(averages)}
    found["compared"] = {} if reference is None else _compare(detector, outputs, arrays, reference)
    is_reference = not values.reference and not values.deterministic
    begin = [variable.numpy() for variable in trainer.state] if is_reference else []
    step = _compiled(trainer, batch, strategy)
    steps = _steps(trainer, step, values.steps)
    target = Path(values.output)
    if is_reference:
        # Only the reference keeps its arrays.
        write_atomically(target.with_suffix(".npz"), _packed(arrays))
        found["off"] = {
            name: _off(trainer, step, begin, share, batch, arrays, values.steps)
            for name, share in _OFF.items()
        }
    found |= {**steps, **peak_memory()}
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--reference", help="arrays (.npz) that the CPU has written")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--narrow", action="store_true", help="few channels and small images")
    parser.add_argument("--deterministic", action="store_true")
    return parser.parse_args(argv)


def _draw_weights(variables: Sequence[tf.Variable]) -> None:
    """Draw random weights anew, spread as they are; constants such as zeros and ones stay."""
    rng = np.random.default_rng(_SEED)
    for variable in variables:
        values = variable.numpy()
        deviation = float(values.std()) if values.size > 1 else 0.0
        if deviation > 0.0:
            # Rounded: the draws of two devices may differ in their last bits.
            drawn = rng.standard_normal(values.shape) * float(f"{deviation:.1e}")
            variable.assign(drawn.astype(values.dtype))


def _averages(detector, batch_size: int, reference: dict | None) -> list[np.ndarray]:
    """Give batch norms the statistics of some pictures, on the CPU, and return them.

    With those that they begin with, the maps of a deep network grow until float16 cannot hold them.
    """
    norms = norms_of(detector)
    variables = [one for norm in norms for one in (norm.moving_mean, norm.moving_variance)]
    if reference is None and norms:
        counts = [0] * batch_size
        size, classes = detector.image_size, {"num_classes": detector.num_classes}
        seeds = range(_SEED + 1, _SEED + 1 + _BATCHES)
        batches = [random_batch(size, counts, max_boxes=1, seed=one, **classes) for one in seeds]
        estimate_statistics(detector, norms, batches)
    elif reference is not None:
        for number, variable in enumerate(variables):
            variable.assign(reference[f"average {number}"])
    return [variable.numpy() for variable in variables]


def _forward(detector, batch: dict) -> tuple[dict[str, np.ndarray], Any]:
    """Return targets and raw outputs as arrays by name, and the latter as they are."""
    outputs = tf.function(lambda x: detector(x, training=False), autograph=False)(batch["image"])
    named = {"target": batch["targets"] or {}, "output": outputs}
    arrays = {}
    for kind, values in named.items():
        flat = tf.nest.flatten(values)
        arrays |= {f"{kind} {number}": value.numpy() for number, value in enumerate(flat)}
    return arrays, outputs


def _compare(detector, own: Any, arrays: dict, reference: dict) -> dict[str, Any]:
    """Compare with the arrays of the CPU."""
    targets = [name for name in reference if name.startswith("target")]
    outputs = [name for name in reference if name.startswith("output")]
    # The decoder gets the CPU's outputs: near ties of other ones would change the order.
    given = tf.nest.pack_sequence_as(own, [tf.constant(reference[name]) for name in outputs])
    decoded = _decoded(detector, given)
    with tf.device("CPU:0"):
        wanted = _decoded(detector, given)
    boxes, scores = _apart(decoded, wanted)
    return {
        "targets": max((_difference(arrays[one], reference[one]) for one in targets), default=0.0),
        "outputs": max(_distance(arrays[one], reference[one]) for one in outputs),
        "detections": int(wanted["count"].sum()),
        "counts_differ": int(np.abs(decoded["count"] - wanted["count"]).sum()),
        "boxes": boxes,
        "scores": scores,
    }


def _apart(decoded: dict, wanted: dict) -> tuple[float, float]:
    """Return how far boxes and scores are from those that are wanted, whatever the order of ties.

    Scores are compared by their places. A box is compared with the nearest one among those of the
    same class and a near score; the last ones, where a tie decides which are kept, with none.
    """
    boxes = scores = 0.0
    for image, count in enumerate(wanted["count"]):
        got, want = (
            {key: value[image, :count] for key, value in one.items() if key != "count"}
            for one in (decoded, wanted)
        )
        scores = max(scores, float(np.abs(got["scores"] - want["scores"]).max(initial=0.0)))
        full = count == wanted["scores"].shape[1]
        least = want["scores"][-1] + _NEAR if full else -np.inf
        for box, score, kind in zip(want["boxes"], want["scores"], want["classes"], strict=True):
            if score <= least:
                break
            like = (np.abs(got["scores"] - score) <= _NEAR) & (got["classes"] == kind)
            gaps = np.abs(got["boxes"][like] - box).max(axis=1, initial=0.0)
            boxes = max(boxes, float(gaps.min(initial=1.0)))
    return boxes, scores


def _decoded(detector, outputs) -> dict[str, np.ndarray]:
    found = tf.function(detector.decode, autograph=False)(outputs)
    return {name: value.numpy() for name, value in found.items()}


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference; of whole numbers and marks the share that differs."""
    if got.shape != want.shape:
        return float("inf")
    if want.dtype.kind == "f":
        return float(np.abs(got - want).max(initial=0.0))
    return float(np.mean(got != want))


def _distance(got: np.ndarray, want: np.ndarray) -> float:
    """How far outputs are from those of the CPU, as a share of what these vary by."""
    if not np.isfinite(got).all():
        return float("inf")
    got, want = got.astype(np.float64), want.astype(np.float64)
    spread = np.sqrt(np.mean((want - want.mean()) ** 2))
    return float(np.sqrt(np.mean((got - want) ** 2)) / max(spread, 1e-12))


def _compiled(trainer, batch: dict, strategy) -> Callable[[], dict[str, tf.Tensor]]:
    """Return a train step on one batch that stays on the device."""
    with tf.device(trainer.train_variables[0].device):
        batch = tf.nest.map_structure(tf.identity, batch)

    @tf.function(autograph=False)
    def step():
        return strategy.run(trainer.compiled_step, args=(batch,))

    return step


def _off(trainer, step, begin, share: float, batch, arrays, number: int) -> dict[str, Any]:
    """Begin anew with weights that are off, and return what the outputs and the losses become.

    Args:
        trainer: goes on from `begin`.
        step: of it.
        begin: values of its state.
        share: each weight moves by at most so much of itself.
        batch: of the step.
        arrays: what `_forward` returned with the weights themselves.
        number: of steps.
    """
    for variable, value in zip(trainer.state, begin, strict=True):
        variable.assign(value)
    rng = np.random.default_rng(_SEED)
    for variable in trainer.train_variables:
        moved = 1.0 + share * rng.uniform(-1.0, 1.0, variable.shape)
        variable.assign((variable.numpy() * moved).astype(np.float32))
    own, _ = _forward(trainer.detector, batch)
    outputs = [name for name in arrays if name.startswith("output")]
    found = {"outputs": max(_distance(own[one], arrays[one]) for one in outputs)}
    losses = [{name: float(value) for name, value in step().items()} for _ in range(number)]
    return found | {"losses": losses, "skipped": 0}


def _steps(trainer, step, number: int) -> dict[str, Any]:
    """Train on one batch, and tell the losses, the time and where operations ran."""
    losses, seconds, failed = [], [], None
    begin = time.perf_counter()
    with placement.watched() as places:
        first = step()
        trainer.step.numpy()
    first_seconds = time.perf_counter() - begin
    losses.append({name: float(value) for name, value in first.items()})
    for _ in range(number - 1):
        begin = time.perf_counter()
        values = step()
        trainer.step.numpy()
        seconds.append(time.perf_counter() - begin)
        losses.append({name: float(value) for name, value in values.items()})
    try:
        trainer.raise_if_failed()
    except NonFiniteLossError as error:
        failed = str(error)
    return {
        "losses": losses,
        "failed": failed,
        "skipped": int(trainer.loss_scale.skipped),
        "first_seconds": round(first_seconds, 2),
        "step_seconds": round(statistics.median(seconds), 5) if seconds else None,
        "digest": _digest([*trainer.detector.variables, *trainer.optimizer.variables]),
        "places": places.counts(),
    }


def _digest(variables: Sequence[tf.Variable]) -> str:
    found = hashlib.sha256()
    for variable in variables:
        found.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return found.hexdigest()


def _count(variables: Sequence[tf.Variable]) -> int:
    return int(sum(np.prod(variable.shape) for variable in variables))


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
