"""One model alone in a process: how long its calls take, and how much memory the process has.

    python -m ssd_centernet.benchmark.alone MODEL PICTURES.npy [--threads=N] [--seconds=S]

`formats.py` starts it. It imports what runs the model and nothing else, so that the memory is that
of a program of one's own: TensorFlow only for a SavedModel, and this library only for a run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssd_centernet.export import runtimes
from ssd_centernet.memory import used_memory

# The first calls plan their memory, and choose among kernels.
_WARM_UP = 5
_LEAST_CALLS = 3

# Takes uint8 [H, W, 3], gives whatever the model gives.
Call = Callable[[np.ndarray], object]


def main() -> int:
    """Print what was measured as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=1.0)
    # Of a run: its weights, and what it is opened with beside its settings.
    parser.add_argument("--checkpoint")
    parser.add_argument("--gin_params", action="append")
    parser.add_argument("--allow_import", action="append")
    values = parser.parse_args()
    pictures = np.load(values.pictures)
    empty = used_memory()
    began = time.perf_counter()
    call, batch = _open(values)
    loaded = time.perf_counter() - began
    result = {
        "batch_size": batch,
        "load_seconds": loaded,
        **measure(call, pictures, values.seconds),
    }
    print(json.dumps({**result, "empty_rss": empty, "peak_rss": used_memory(peak=True)}))
    return 0


def measure(call: Call, pictures: np.ndarray, seconds: float) -> dict:
    """Call a model for some seconds, on one picture after the other.

    Args:
        call: the model.
        pictures: uint8 [N, H, W, 3].
        seconds: at least three calls are made, however long they take.

    Returns:
        `milliseconds` of each call, and `cpu_milliseconds`: the processor time of all threads, the
        mean of a call.
    """
    for number in range(_WARM_UP):
        call(pictures[number % len(pictures)])
    times, worked, end = [], time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _LEAST_CALLS:
        picture = pictures[len(times) % len(pictures)]
        began = time.perf_counter()
        call(picture)
        times.append(1e3 * (time.perf_counter() - began))
    worked = time.process_time() - worked
    return {"milliseconds": times, "cpu_milliseconds": 1e3 * worked / len(times)}


def _open(values: argparse.Namespace) -> tuple[Call, int]:
    """Return the model as a function of one picture, and how many of it are in its batch."""
    if values.checkpoint:
        return _keras(values), 1
    return _OPENERS.get(values.model.suffix, _saved_model)(values.model, values.threads)


def _tflite(path: Path, threads: int) -> tuple[Call, int]:
    run = runtimes.tflite_signature(path, threads=threads)
    batch = int(run.get_input_details()["images"]["shape"][0])
    return lambda picture: run(images=np.repeat(picture[np.newaxis], batch, axis=0)), batch


def _onnx(path: Path, threads: int) -> tuple[Call, int]:
    session = runtimes.onnx_session(path, threads=threads)
    (given,) = session.get_inputs()
    batch = given.shape[0] if isinstance(given.shape[0], int) else 1

    def call(picture: np.ndarray):
        return session.run(None, {given.name: np.repeat(picture[np.newaxis], batch, axis=0)})

    return call, batch


def _openvino(path: Path, threads: int) -> tuple[Call, int]:
    model = runtimes.openvino_model(path, threads=threads)
    batch = int(model.inputs[0].shape[0])
    return lambda picture: model({"images": np.repeat(picture[np.newaxis], batch, axis=0)}), batch


_OPENERS = {".tflite": _tflite, ".onnx": _onnx, ".xml": _openvino}


def _saved_model(path: Path, threads: int) -> tuple[Call, int]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(os.fspath(path))
    signature = loaded.signatures["serving_default"]
    batch = signature.structured_input_signature[1]["images"].shape[0] or 1

    def call(picture: np.ndarray):
        # By `loaded`, which holds the weights: the signature alone would lose them.
        signature = loaded.signatures["serving_default"]
        images = tf.constant(np.repeat(picture[np.newaxis], batch, axis=0))
        return {name: value.numpy() for name, value in signature(images=images).items()}

    return call, batch


def _keras(values: argparse.Namespace) -> Call:
    import tensorflow as tf

    from ssd_centernet.export.parity import reference
    from ssd_centernet.runs.opened import open_run

    tf.config.threading.set_intra_op_parallelism_threads(values.threads)
    run = open_run(
        values.model,
        checkpoint=values.checkpoint,
        gin_params=values.gin_params,
        flag_params=["build_detector.dtype = 'fp32'"],
        device="cpu",
        allow=("export",),
        allow_import=values.allow_import,
    )
    return reference(run.detector, {})


if __name__ == "__main__":
    sys.exit(main())
