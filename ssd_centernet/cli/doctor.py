"""Check an installation, or explain the directory of a run.

Examples:
  ssd_centernet doctor
  ssd_centernet doctor --model_dir=runs/ssd300

Of an installation: versions, devices, the COCO metrics and a train step of every recipe. Of a run:
its settings, state and logs, whether its checkpoints are whole, what a training would go on from,
what is left over of killed commands, and the room on the disk; nothing is changed.

Every line says `ok`, `warn` or `FAIL`, and what to do. The exit status is 1 if a line says FAIL.
--json prints the same for programs and for bug reports.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import flags

from ssd_centernet import __version__
from ssd_centernet.cli import _flags, _runs
from ssd_centernet.cli._errors import message_for_user

_LOW_MEMORY_GIB = 4
_LOW_DISK_GIB = 5

# Package -> what it serves, whether a run is impossible without it, and how it is installed.
_PACKAGES = {
    "tensorflow": ("everything", True, 'pip install "tensorflow>=2.10,<2.22"'),
    "tf_keras": ("everything (TensorFlow >= 2.16)", True, 'pip install "tf_keras>=2.16,<2.22"'),
    "numpy": ("everything", True, "pip install numpy"),
    "gin-config": ("recipes", True, 'pip install "gin-config>=0.5,<0.6"'),
    "pillow": ("pictures and data sets", True, "pip install pillow"),
    "tensorboard": ("training", False, 'pip install "ssd_centernet[train]"'),
    "pycocotools": ("evaluation", False, 'pip install "ssd_centernet[train]"'),
    "faster-coco-eval": ("quick evaluation", False, 'pip install "ssd_centernet[train]"'),
    "hotcoco": ("quickest evaluation", False, 'pip install "ssd_centernet[train]"'),
    "matplotlib": ("charts and report pages", False, 'pip install "ssd_centernet[train]"'),
    "tf-models-official": ("backbones of the Model Garden", None, ""),
    "uvicorn": ("the server, `serve`", None, ""),
    "horovod": ("training on several devices", None, ""),
}

# Vector units that TensorFlow's CPU kernels make use of.
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


class Line(NamedTuple):
    """One finding: `status` is ok, warn or FAIL; `advice` says what to do about it."""

    status: str
    name: str
    text: str
    advice: str = ""


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_boolean("json", False, "Print one JSON object instead of lines.")
    flags.DEFINE_boolean("train_step", True, "Try one train step with random images.")
    flags.DEFINE_multi_string("recipe", None, "Recipe to try; repeatable (default: all).")
    _flags.define_model_dir("Folder of a run to explain, instead of the installation.")
    _flags.define_device()


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        1 when something failed, otherwise 0.
    """
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    if values.model_dir is not None:
        if given := [f"--{name}" for name in ("recipe", "device") if values[name].value]:
            raise flags.Error(
                f"{', '.join(given)} cannot be used with --model_dir, where nothing is trained: "
                "leave it out, or leave out --model_dir to check the installation."
            )
        from ssd_centernet.runs.inspection import inspect_run

        return _report(inspect_run(values.model_dir), _format_of_run)
    checks: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("system", _system),
        ("packages", _packages),
        ("keras", _keras),
        ("devices", lambda: _devices(values.device)),
        ("metrics", _metrics),
    ]
    if values.train_step:
        checks.append(("train step", lambda: _train_steps(values.recipe)))
    return _report((line for pair in checks for line in _guarded(*pair)), _format)


def _report(found: Iterable[Line], layout: Callable[[Line], str]) -> int:
    """Print each line as soon as it is found and return the exit status."""
    values, lines = flags.FLAGS, []
    for line in found:
        lines.append(line)
        if not values.json:
            print(layout(line), flush=True)
    failed = sum(line.status == "FAIL" for line in lines)
    if values.json:
        print(
            json.dumps({"ok": not failed, "checks": [line._asdict() for line in lines]}, indent=1)
        )
    else:
        warned = sum(line.status == "warn" for line in lines)
        print(f"{len(lines)} checks, {warned} warnings, {failed} failed")
    return 1 if failed else 0


def _guarded(name: str, check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    try:
        yield from check()
    except Exception as error:  # Whatever is broken must not hide the other findings.
        yield Line("FAIL", name, f"{type(error).__name__}: {error}", "See the message.")


def _format(line: Line) -> str:
    text = " ".join(line.text.split())
    advice = f"\n     {'':<20} -> {line.advice}" if line.advice and line.status != "ok" else ""
    return f"{line.status:<4} {line.name:<20} {text}{advice}"


def _format_of_run(line: Line) -> str:
    """Lay a line out for a terminal of 80 columns."""
    text = " ".join(line.text.split())
    told = [text] + ([f"-> {line.advice}"] if line.advice and line.status != "ok" else [])
    head = f"{line.status:<4} {line.name:<11} "
    rows = [
        textwrap.fill(
            one,
            80,
            initial_indent=" " * len(head),
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for one in told
    ]
    return head + "\n".join(rows)[len(head) :]


def _system() -> Iterator[Line]:
    version = platform.python_version()
    supported = (3, 10) <= sys.version_info[:2] < (3, 14)
    yield Line(
        "ok" if supported else "FAIL",
        "python",
        f"{version} ({sys.executable}), ssd_centernet {__version__}",
        "Use Python 3.10 to 3.13.",
    )
    yield Line("ok", "system", platform.platform())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = _cpu_flags()
    yield Line("ok", "cpu", f"{cores} cores, {platform.machine()}, {' '.join(found) or '-'}")
    memory = _meminfo()
    if memory:
        total, free = memory
        low = free < _LOW_MEMORY_GIB
        yield Line(
            "warn" if low else "ok",
            "memory",
            f"{free:.1f} of {total:.1f} GiB free",
            "Close other programs, or train with a smaller --batch_size.",
        )
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Line(
        "warn" if free < _LOW_DISK_GIB else "ok",
        "disk",
        f"{free:.1f} GiB free in {Path.cwd()}",
        "Records of COCO take 20 GB and a run's checkpoints up to 2 GB.",
    )


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    rows = [row for row in text.splitlines() if row.lower().startswith(("flags", "features"))]
    present = set(rows[0].partition(":")[2].split()) if rows else set()
    return [flag for flag in _CPU_FLAGS if flag in present]


def _meminfo() -> tuple[float, float] | None:
    """Return total and available memory in GiB, or None where Linux does not tell."""
    try:
        rows = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kib = {row.split(":")[0]: int(row.split()[1]) for row in rows if ":" in row}
    return kib["MemTotal"] / 2**20, kib.get("MemAvailable", kib["MemFree"]) / 2**20


def _packages() -> Iterator[Line]:
    for name, (purpose, required, advice) in _PACKAGES.items():
        version = _version(name)
        if version is None:
            if required is None:
                yield Line("ok", name, f"not installed; only for {purpose}")
                continue
            # Up to 2.15 TensorFlow has Keras 2 inside; whether it works is the check after this.
            status = "FAIL" if required and name != "tf_keras" else "warn"
            yield Line(status, name, f"not installed; for {purpose}", advice)
        else:
            yield Line("ok", name, version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "tensorflow" or importlib.util.find_spec(package) is None:
            return None
    # Vendors give theirs other names, such as tensorflow-cpu; what counts is the module.
    import tensorflow

    return tensorflow.__version__


def _keras() -> Iterator[Line]:
    import tensorflow as tf

    from ssd_centernet._keras import keras_version  # Raises with advice when the minors differ.

    yield Line("ok", "keras", f"Keras {keras_version()} works with tensorflow {tf.__version__}")


def _devices(name: str | None) -> Iterator[Line]:
    from ssd_centernet.runtime.device import describe_devices, select_device

    select_device(name)  # Raises with advice when there is no such device.
    seen = describe_devices()
    yield Line("ok", "devices", f"{', '.join(seen)}; --device={name or 'auto'} works")


def _metrics() -> Iterator[Line]:
    """Score a ground truth against itself with every installed evaluator: AP must be 1."""
    import numpy as np

    from ssd_centernet.evaluation.coco import CocoEvaluator
    from ssd_centernet.evaluation.ground_truth import CocoGroundTruth

    boxes = [[10.0, 20.0, 100.0, 50.0], [30.0, 60.0, 40.0, 120.0]]  # x, y, width, height.
    size = 200
    annotations = [
        {"id": i + 1, "image_id": i + 1, "category_id": 3 + i, "bbox": box, "iscrowd": 0}
        | {"area": box[2] * box[3]}
        for i, box in enumerate(boxes)
    ]
    truth = {
        "images": [{"id": i + 1, "height": size, "width": size} for i in range(len(boxes))],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
    }
    detections = {
        "boxes": np.array([[[y, x, y + h, x + w]] for x, y, w, h in boxes], np.float32) / size,
        "scores": np.ones([2, 1], np.float32),
        "classes": np.array([[0], [1]], np.int32),
        "count": np.ones([2], np.int32),
    }
    for backend, package in (
        ("pycocotools", "pycocotools"),
        ("faster_coco_eval", "faster-coco-eval"),
        ("hotcoco", "hotcoco"),
    ):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # Reported above.
        evaluator = CocoEvaluator(CocoGroundTruth.load(truth), backend=backend)
        evaluator.add(np.array([1, 2]), np.full(2, size), np.full(2, size), detections)
        precision = float(evaluator.compute().metrics["AP"])
        yield Line(
            "ok" if abs(precision - 1) < 1e-6 else "FAIL",
            f"AP by {package}",
            f"ground truth scored against itself gives AP {precision:.3f}",
            f"It must be 1.000: reinstall it (pip install --force-reinstall {package}).",
        )


def _train_steps(names: list[str] | None) -> Iterator[Line]:
    from ssd_centernet import config

    names = names or config.recipes()
    if not names:
        yield Line("warn", "train step", "no recipe is installed", "Install the package again.")
    for name in names:
        yield from _guarded(f"step {name}", lambda name=name: _train_step(name))


def _train_step(name: str) -> Iterator[Line]:
    """Build a recipe's detector and train it for one step on a random image."""
    import numpy as np

    from ssd_centernet import config
    from ssd_centernet.data.fake import random_batch
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.training.length import RunLength

    config.parse([name])
    recipe = Recipe().replace(batch_size=1, accumulate_steps=1)
    try:
        detector = recipe.detector(num_classes=3)
    except ImportError as error:
        text = message_for_user(error) or str(error)
        yield Line("warn", f"step {name}", text, "The other recipes do without it.")
        return
    trainer = recipe.trainer(detector, RunLength(1, total_steps=1, global_batch_size=1))
    batch = random_batch(detector.image_size, [2], num_classes=3)
    start = time.perf_counter()
    metrics = {name: float(value) for name, value in trainer.train_step(batch).items()}
    seconds = time.perf_counter() - start
    finite = all(np.isfinite(value) for value in metrics.values())
    yield Line(
        "ok" if finite else "FAIL",
        f"step {name}",
        f"loss {metrics['total']:.3f}, {seconds:.1f} s without compilation",
        "A loss of random weights must be finite; check the device's driver and plug-in.",
    )
