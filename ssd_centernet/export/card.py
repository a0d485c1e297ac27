"""The model card: what somebody must know who has the exported files alone."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ssd_centernet import __version__
from ssd_centernet.files import read_object
from ssd_centernet.models.detector import Detector
from ssd_centernet.run_directory import (
    BEST_METRICS_NAME,
    EVALUATION_DIR,
    EVALUATION_METRICS_NAME,
)

CARD_NAME = "model_card.json"
_PACKAGES = ("tensorflow", "tf_keras", "numpy", "tf2onnx", "onnxruntime", "ai-edge-litert")
_PACKAGES += ("openvino", "nncf")
_OUTPUTS = {
    "boxes": "float32 [N, D, 4], (ymin, xmin, ymax, xmax) as fractions of the image given; "
    "outside 0..1 where the recipe does not clip",
    "scores": "float32 [N, D], descending",
    "classes": "int32 [N, D], lines of labels.txt from 0; background is none of them",
    "count": "int32 [N]; rows from there on are to be ignored",
}


def describe(detector: Detector) -> dict[str, Any]:
    """Describe a detector: its parts, size, classes and preprocessing.

    Args:
        detector: with its weights.

    Returns:
        What can be written as JSON.
    """
    preprocessing = detector.preprocessing
    size = list(detector.image_size)
    fit = (
        f"fitted into {size} with the aspect ratio kept, black at the bottom and the right"
        if preprocessing.keep_aspect
        else f"stretched to {size} (height, width)"
    )
    centres = "without" if preprocessing.resize == "legacy_bilinear" else "with"
    steps = [
        f"{fit}, bilinear {centres} half-pixel centres, not antialiased",
        *(["rounded to whole numbers"] if preprocessing.round_pixels else []),
        f"channels in the order {preprocessing.channels}",
        f"(pixels / {preprocessing.scale:g} - mean) / std",
    ]
    parts = {name: type(getattr(detector, name)).__name__ for name in detector.PARTS}
    return {
        "model": type(detector).__name__,
        "parts": parts,
        "parameters": sum(int(np.prod(weight.shape)) for weight in detector.weights),
        "input_size": size,
        "num_classes": detector.num_classes,
        "preprocessing": {
            "inside": "all exported files do this themselves; files with a fixed image size take "
            "images that have it",
            "steps": steps,
            "keep_aspect": preprocessing.keep_aspect,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "outputs": _OUTPUTS,
    }


def run_facts(
    model_dir: str | Path, checkpoint: str, *, averaged: bool = False, trained: bool = False
) -> dict[str, Any]:
    """Tell what the files of a run say about a checkpoint.

    Args:
        model_dir: directory of the run.
        checkpoint: its prefix.
        averaged: whether it holds averages of the weights beside those that were trained.
        trained: whether the weights that were trained are meant all the same.

    Returns:
        `checkpoint`, `step`, `weights` ("ema" for averages, "raw" for those that were trained),
        and `evaluations`: per file the metrics measured on these weights; empty where none was.
    """
    model_dir, prefix = Path(model_dir), Path(checkpoint)
    step = prefix.name.rpartition("-")[2]
    step = int(step) if step.isdigit() else None
    evaluations = {}
    for path in (
        prefix.parent / BEST_METRICS_NAME,
        model_dir / EVALUATION_DIR / EVALUATION_METRICS_NAME,
    ):
        content = read_object(path) or {}
        # The evaluation names what it measured; beside a best checkpoint lie its own metrics.
        measured = content.get("weights") == "raw" if averaged else trained
        if content and measured == trained and _is_of(content, prefix, step):
            name = path.relative_to(model_dir) if path.is_relative_to(model_dir) else path
            metrics = content.get("metrics", content)
            metrics = metrics.items() if isinstance(metrics, dict) else ()
            evaluations[str(name)] = {
                **({"split": content["split"]} if "split" in content else {}),
                **{
                    key: v
                    for key, v in metrics
                    if key.startswith("A") and isinstance(v, int | float)
                },
            }
    weights = "ema" if averaged and not trained else "raw"
    return {"checkpoint": checkpoint, "step": step, "weights": weights, "evaluations": evaluations}


def versions() -> dict[str, str | None]:
    """Tell the versions of this library and of what wrote or checked the files."""
    found: dict[str, str | None] = {"ssd_centernet": __version__, "git": _revision()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def file_sizes(folder: Path) -> dict[str, int]:
    """List the files of an export with their sizes in bytes; of a SavedModel its whole folder."""
    sizes = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        sizes[path.name] = sum(file.stat().st_size for file in files)
    return sizes


def _is_of(content: dict, prefix: Path, step: int | None) -> bool:
    if "checkpoint" in content:
        return Path(str(content["checkpoint"])).resolve() == prefix.resolve()
    return content.get("step") == step


def _revision() -> str | None:
    """Return the commit of the checkout that this package is imported from, None outside one."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip() or None
