"""Time tf-models-official's RetinaNet R50-FPN beside this library, on the same records in one run.

    python benchmarks/compare_model_garden.py --data_dir=DATA --parts=input,fp32,bf16,eval

Every contestant is a process of its own, so that its peak memory is its own; the processes take
turns, one window each, so that whatever else the machine does hits all alike. Prints one JSON line
for each contestant (medians) and then the ratios, each beside its aim.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_REPOSITORY = Path(__file__).resolve().parents[1]
_RECIPE = "ssd300_resnet34"
_PEER_SIZE = 384

# Contestants of each part: name -> (function below, its settings). The first two are ours at the
# recipe's size and the peer; the third is ours at the peer's size, for memory.
OURS, PEER, OURS_AT_PEER_SIZE = "SSD300 ResNet-34", "RetinaNet-384 R50-FPN", "SSD-384 ResNet-34"


def contestants(part: str) -> dict[str, tuple[str, dict]]:
    """Return the contestants of a part: name -> (function, settings)."""
    if part == "eval":
        return {
            "CocoEvaluator": ("ours_eval", {}),
            "hotcoco alone": ("hotcoco_eval", {}),
            "faster-coco-eval alone": ("faster_eval", {}),
        }
    if part == "input":
        ours, peer, settings = "ours_input", "peer_input", {}
    else:
        ours, peer, settings = "ours_step", "peer_step", {"dtype": part}
    return {
        OURS: (ours, {**settings, "size": 300}),
        PEER: (peer, {**settings, "size": _PEER_SIZE}),
        OURS_AT_PEER_SIZE: (ours, {**settings, "size": _PEER_SIZE}),
    }


# (part, what, contestant, the one it is divided by, aim, whether the ratio should be at least it)
RATIOS = (
    ("input", "images_per_second", OURS, PEER, 4.0, True),
    ("input", "images_per_second", OURS_AT_PEER_SIZE, PEER, None, True),
    ("fp32", "images_per_second", OURS, PEER, 3.6, True),
    ("fp32", "images_per_second", OURS_AT_PEER_SIZE, PEER, None, True),
    ("fp32", "peak_rss_mb", OURS_AT_PEER_SIZE, PEER, 0.7, False),
    ("fp32", "peak_rss_mb", OURS, PEER, None, False),
    ("bf16", "images_per_second", OURS, PEER, 4.8, True),
    ("bf16", "images_per_second", OURS_AT_PEER_SIZE, PEER, None, True),
    ("bf16", "peak_rss_mb", OURS_AT_PEER_SIZE, PEER, 0.7, False),
    ("bf16", "peak_rss_mb", OURS, PEER, None, False),
    ("eval", "images_per_second", "CocoEvaluator", "hotcoco alone", 1.0, True),
    ("eval", "peak_rss_mb", "CocoEvaluator", "hotcoco alone", None, False),
    ("eval", "images_per_second", "CocoEvaluator", "faster-coco-eval alone", None, True),
)

# --- contestants: each returns its work (units -> images done) -------------------------------


def ours_input(options: dict):
    """Read the recipe's training batches."""
    from ssd_centernet.benchmark import input as input_part
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.recipe import Recipe

    _parse_recipe(options)
    batch_size = options["batch_size"]
    recipe = Recipe().replace(batch_size=batch_size)
    detector = recipe.detector(load_label_map(options["data_dir"]))
    return input_part.reading(recipe.training_batches(detector, options["data_dir"]), batch_size)


def ours_step(options: dict):
    """Train the recipe's detector on its first batch."""
    from ssd_centernet.benchmark import step

    _parse_recipe(options)
    from ssd_centernet.recipe import Recipe

    recipe = Recipe().replace(batch_size=options["batch_size"])
    return step.prepare(recipe, options["data_dir"])[0]


def peer_input(options: dict):
    """Read the peer's training batches: its decoder, parser and targets."""
    from ssd_centernet.benchmark.input import reading

    _, task = _peer(options)
    return reading(_peer_batches(task, options), options["batch_size"])


def peer_step(options: dict):
    """Train the peer on its first batch, as its task does it."""
    import tensorflow as tf
    import tf_keras

    experiment, task = _peer(options)
    if options["dtype"] == "bf16":
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = task.build_model()
    optimizer = task.create_optimizer(experiment.trainer.optimizer_config, experiment.runtime)
    metrics = task.build_metrics(training=True)
    batch = next(iter(_peer_batches(task, options).take(1)))

    @tf.function
    def step():
        task.train_step(batch, model, optimizer, metrics)

    def work(units: int) -> int:
        for _ in range(units):
            step()
        loss = float(metrics[0].result())  # Waits for an asynchronous device.
        if not np.isfinite(loss):
            raise RuntimeError(f"the peer's loss is {loss}: its time would mean nothing.")
        return units * options["batch_size"]

    return work


def ours_eval(options: dict):
    """Score arrays with `CocoEvaluator`."""
    from ssd_centernet.benchmark.evaluation import evaluator_batches, random_scene
    from ssd_centernet.evaluation.coco import CocoEvaluator, CocoGroundTruth

    truth, rows = random_scene()
    ground_truth, count = CocoGroundTruth.load(truth), len(truth["images"])
    (batch,) = evaluator_batches(rows, count, batch_size=count)

    def work(units: int) -> int:
        for _ in range(units):
            evaluator = CocoEvaluator(ground_truth, backend="hotcoco")
            evaluator.add(*batch)
            evaluator.compute()
        return units * count

    return work


def hotcoco_eval(options: dict):
    """Score the same rows with hotcoco alone, in the quickest form that it takes."""
    from hotcoco import COCO, COCOeval

    return _bare_eval(COCO, COCOeval)


def faster_eval(options: dict):
    """Score the same rows with faster-coco-eval alone, in the quickest form that it takes."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _bare_eval(COCO, COCOeval_faster)


def _bare_eval(dataset_class: type, evaluation_class: type):
    """Score rows that are one array already, with the ground truth read before."""
    import contextlib
    import io

    from ssd_centernet.benchmark.evaluation import random_scene

    truth, rows = random_scene()
    ground_truth = dataset_class(truth)

    def work(units: int) -> int:
        for _ in range(units):
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation = evaluation_class(ground_truth, ground_truth.loadRes(rows), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
        return units * len(truth["images"])

    return work


def _parse_recipe(options: dict) -> None:
    from ssd_centernet import config

    settings = [f"IMAGE_SIZE = ({options['size']}, {options['size']})"]
    if "dtype" in options:
        settings.append(f"build_detector.dtype = {options['dtype']!r}")
    config.parse([_RECIPE], settings)


def _peer(options: dict):
    """Return the peer's COCO experiment at another size, with its task."""
    from official.vision.configs import retinanet as configs
    from official.vision.tasks import retinanet as tasks

    experiment = configs.retinanet_resnetfpn_coco()
    experiment.task.init_checkpoint = None
    experiment.task.annotation_file = None
    experiment.task.model.input_size = [options["size"], options["size"], 3]
    is_mixed = options.get("dtype") == "bf16"
    experiment.runtime.mixed_precision_dtype = "bfloat16" if is_mixed else "float32"
    return experiment, tasks.RetinaNetTask(experiment.task)


def _peer_batches(task, options: dict):
    data = task.task_config.train_data
    data.input_path = str(Path(options["data_dir"]) / "coco_train.record-*")
    data.global_batch_size = options["batch_size"]
    data.shuffle_buffer_size = 1024  # As ours.
    data.dtype = "bfloat16" if options.get("dtype") == "bf16" else "float32"
    return task.build_inputs(data)


# --- the process of a contestant -------------------------------------------------------------


def serve(function: str, options: dict) -> None:
    """Measure a window whenever the parent asks for one, and the peak memory at the end."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever libraries print must not reach the parent.
    from ssd_centernet.benchmark import measure

    work = globals()[function](options)
    settle = 4 if function.endswith("input") else 0
    units = measure.units_for(work, options["seconds"], warm_up=max(settle, 1))
    print(json.dumps({"units": units, "images": units * work(1)}), file=channel)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        if settle:
            work(settle)
        cpu = time.process_time()
        rate = measure.time_window(work, units)
        print(json.dumps({"rate": rate, "cpu": time.process_time() - cpu}), file=channel)
    report = {**measure.peak_memory(), **measure.environment()}
    print(json.dumps(report), file=channel)
    channel.flush()
    os._exit(0)  # Leaving pipelines are not worth waiting for.


class Contestant:
    """The parent's end of a contestant's process."""

    def __init__(self, name: str, function: str, options: dict):
        """Start the process and wait until it is warm."""
        self.name = name
        self.rates: list[float] = []
        self._errors = tempfile.TemporaryFile("w+")
        paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps([function, options])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.cpu: list[float] = []
        ready = self._answer()
        self.units, self._images = ready["units"], ready["images"]

    def window(self) -> None:
        """Let it work for one window."""
        answer = self._ask("window")
        self.rates.append(answer["rate"])
        self.cpu.append(1000.0 * answer["cpu"] / self._images)

    def end(self) -> dict:
        """Stop it and return its peak memory and environment."""
        report = self._ask("end")
        self._process.wait()
        return report

    def stop(self) -> None:
        """Stop it whatever it does."""
        self._process.kill()
        self._process.wait()

    def _ask(self, request: str) -> dict:
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        tail = "".join(self._errors.readlines()[-15:])
        raise RuntimeError(f"{self.name} ended with status {self._process.returncode}:\n{tail}")


def compare(part: str, options: dict, windows: int) -> list[dict]:
    """Measure the contestants of a part in turn and print a line for each."""
    rivals: list[Contestant] = []
    try:
        for name, (function, settings) in contestants(part).items():
            rivals.append(Contestant(name, function, {**options, **settings}))
        for _ in range(windows):
            for rival in rivals:
                rival.window()
        lines = []
        for rival in rivals:
            line = {
                "part": part,
                "name": rival.name,
                "images_per_second": float(f"{statistics.median(rival.rates):.4g}"),
                "lowest": float(f"{min(rival.rates):.4g}"),
                "highest": float(f"{max(rival.rates):.4g}"),
                "cpu_ms_per_image": float(f"{statistics.median(rival.cpu):.4g}"),
                "windows": windows,
                "units_per_window": rival.units,
                "batch_size": options["batch_size"] if part != "eval" else None,
                **rival.end(),
            }
            print(json.dumps(line), flush=True)
            lines.append({**line, "rates": rival.rates})
        return lines
    finally:
        for rival in rivals:
            rival.stop()


def ratio_lines(lines: Sequence[dict]) -> list[dict]:
    """Return the ratios that `lines` allow, with their aims."""
    found = {(line["part"], line["name"]): line for line in lines}
    result = []
    for part, what, name, other, aim, at_least in RATIOS:
        if (part, name) not in found or (part, other) not in found:
            continue
        ours, theirs = found[part, name], found[part, other]
        if what == "peak_rss_mb":
            ratio = ours[what] / theirs[what]
        else:
            # Neighbouring windows share the state of the machine.
            pairs = zip(ours["rates"], theirs["rates"], strict=True)
            ratio = statistics.median(rate / rival for rate, rival in pairs)
        line = {"part": part, "ratio_of": what, "name": f"{name} / {other}"}
        line["ratio"] = round(ratio, 3)
        if what != "peak_rss_mb":
            # Of processor time: other programs on the machine hardly move it.
            line["cpu_ratio"] = round(theirs["cpu_ms_per_image"] / ours["cpu_ms_per_image"], 3)
        if aim is not None:
            line |= {"aim": aim, "reached": ratio >= aim if at_least else ratio <= aim}
        result.append(line)
    return result


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", help="folder of converted data; random pictures by default")
    parser.add_argument("--parts", default="input,fp32,bf16,eval", help="which, in this order")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a window, about")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if arguments.worker:
        serve(*json.loads(arguments.worker))
        return
    sys.path.insert(0, str(_REPOSITORY))
    from ssd_centernet.benchmark import records

    start, lines = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        data_dir, links = arguments.data_dir, Path(folder) / "links"
        if data_dir is None:
            data_dir = str(Path(folder) / "records")
            records.write_records(data_dir)
        links.mkdir()
        options = {
            "data_dir": str(records.long_epoch(data_dir, links)),
            "batch_size": arguments.batch_size,
            "seconds": arguments.seconds,
        }
        for part in arguments.parts.split(","):
            lines += compare(part, options, arguments.windows)
    for line in ratio_lines(lines):
        print(json.dumps(line), flush=True)
    print(json.dumps({"seconds": round(time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
