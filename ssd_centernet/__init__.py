"""Single-stage object detectors on TensorFlow and Keras 2.

`import ssd_centernet` is light: a public name imports its module (and so tensorflow) when it is
first asked for.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_PUBLIC: dict[str, str] = {
    "CenterNet": "ssd_centernet.models.centernet",
    "CocoEvaluator": "ssd_centernet.evaluation.coco",
    "CocoGroundTruth": "ssd_centernet.evaluation.ground_truth",
    "Detector": "ssd_centernet.models.detector",
    "LabelMap": "ssd_centernet.labels",
    "SSD": "ssd_centernet.models.ssd",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
