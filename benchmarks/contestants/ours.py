"""This library's contestants, and those that need its records and scenes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from contestants.likely import SPREAD, background_bias
from ssd_centernet import config
from ssd_centernet.benchmark import step
from ssd_centernet.benchmark.input import ceiling_batches, reading
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.device import select_device

_SMALL = Path(__file__).resolve().parents[2] / "scripts" / "smoke"


def _recipe(options: dict) -> Recipe:
    """Read the recipe of a contestant, with few channels if the networks are to be small."""
    name, settings = options["recipe"], []
    files = [name, *([_SMALL / f"{name}.gin"] if options["small"] else [])]
    if "dtype" in options:
        settings.append(f"build_detector.dtype = {options['dtype']!r}")
    if options.get("xla"):
        settings.append("train.jit_compile = True")
    if "size" in options and not options["small"]:
        settings.append(f"IMAGE_SIZE = ({options['size']}, {options['size']})")
    config.parse(files, settings)
    return Recipe().replace(batch_size=options["batch_size"])


def train_step(options: dict):
    """Train the detector of a recipe on a batch of noise with seven objects an image."""
    return step.prepare(_recipe(options), None, device=options.get("device"))[0]


def read_input(options: dict):
    """Read the training batches of a recipe."""
    recipe, data_dir = _recipe(options), options["data_dir"]
    detector = recipe.detector(load_label_map(data_dir))
    return reading(recipe.training_batches(detector, data_dir), recipe.batch_size)


def decode_and_resize(options: dict):
    """Read, parse, decode and resize alone: the least of any pipeline from JPEG."""
    size = (options["size"], options["size"])
    batches = ceiling_batches(options["data_dir"], options["batch_size"], size=size)
    return reading(batches, options["batch_size"])


def _likely_detector(options: dict):
    """Build an SSD with random weights that has something to detect on `_pictures`."""
    recipe = _recipe(options)
    if options.get("device"):
        select_device(options["device"])
    detector = recipe.detector(default_num_classes=step.NUM_CLASSES)
    pictures = _pictures(options["batch_size"], detector.image_size)
    inputs = detector.preprocessing(pictures[:1])
    classes = detector.num_classes + 1
    layers = detector.head.class_layers
    spread = float(np.std(detector(inputs, training=False)["class_logits"].numpy()))
    for layer in layers:
        layer.kernel.assign(layer.kernel * (SPREAD / spread))
    logits = detector(inputs, training=False)["class_logits"].numpy()[0]
    bias = background_bias(logits, detector.decoder.score_threshold)
    for layer in layers:
        values = layer.bias.numpy().reshape(-1, classes)
        values[:, 0] += bias
        layer.bias.assign(values.reshape(-1))
    return detector, pictures


def _pictures(count: int, size: tuple[int, int]) -> np.ndarray:
    """Make a picture of noise, so many times."""
    one = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    return np.repeat(one, count, axis=0)


def detect(options: dict):
    """Detect on pictures of the network's size, from uint8 to detections on the host."""
    detector, pictures = _likely_detector(options)

    def work(units: int) -> int:
        for _ in range(units):
            for value in detector.detect(pictures).values():
                value.numpy()
        return units * len(pictures)

    return work


def write_onnx(options: dict, path: str) -> None:
    """Write the ONNX file of the detector of `detect`, for batches of any number."""
    from ssd_centernet.export.portable import portable_function, save_onnx

    detector, _ = _likely_detector({**options, "batch_size": 1})
    function = portable_function(
        detector, frame=detector.image_size, batch_size=None, pairs=1024, thresholds={}
    )
    save_onnx(path, function, metadata={})


def detect_onnx(options: dict):
    """Do what `detect` does with the ONNX file that `export` writes, in onnxruntime."""
    import onnxruntime

    from ssd_centernet.export.portable import OUTPUTS

    path = Path(options["folder"]) / f"{options['recipe']}.onnx"
    if not path.exists():
        # In a process of its own: the conversion takes gigabytes, which are not the file's.
        code = "import json, sys; from contestants import ours; ours.write_onnx(json.loads("
        code += "sys.argv[1]), sys.argv[2])"
        places = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        command = [sys.executable, "-c", code, json.dumps(options), str(path)]
        subprocess.run(command, check=True, env=environment)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1:3]
    pictures = _pictures(options["batch_size"], size)

    def work(units: int) -> int:
        for _ in range(units):
            session.run(list(OUTPUTS), {"images": pictures})
        return units * len(pictures)

    return work


def score(options: dict):
    """Score arrays with `CocoEvaluator`."""
    from ssd_centernet.benchmark.evaluation import evaluator_batches, random_scene
    from ssd_centernet.evaluation.coco import CocoEvaluator, CocoGroundTruth

    count = options["images"]
    truth, rows = random_scene(count)
    ground_truth = CocoGroundTruth.load(truth)
    (batch,) = evaluator_batches(rows, count, batch_size=count)

    def work(units: int) -> int:
        for _ in range(units):
            evaluator = CocoEvaluator(ground_truth, backend="hotcoco")
            evaluator.add(*batch)
            evaluator.compute()
        return units * count

    return work


def hotcoco(options: dict):
    """Score the same rows with hotcoco alone, as one array, with the ground truth read before."""
    import contextlib
    import io

    from hotcoco import COCO, COCOeval

    from ssd_centernet.benchmark.evaluation import random_scene

    truth, rows = random_scene(options["images"])
    ground_truth = COCO(truth)

    def work(units: int) -> int:
        for _ in range(units):
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation = COCOeval(ground_truth, ground_truth.loadRes(rows), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
        return units * options["images"]

    return work


def network_alone(options: dict):
    """Read, run and decode the pictures of a split, and no more."""
    return _evaluation(options, "ALONE")


def whole_evaluation(options: dict):
    """Do all that an evaluation does: the network, losses, metric and files."""
    return _evaluation(options, "WHOLE")


def _evaluation(options: dict, which: str):
    import evaluate  # benchmarks/evaluate.py

    folder = tempfile.mkdtemp(dir=options["folder"])
    images = options["images"]
    name, small = options["recipe"], options["small"]
    files = [name, *([_SMALL / f"{name}.gin"] if small else [])]
    works = evaluate.contestants(files, folder, images, detections=200)
    work = works[getattr(evaluate, which)]

    def passes(units: int) -> int:
        for _ in range(units):
            work()
        return units * images

    return passes
