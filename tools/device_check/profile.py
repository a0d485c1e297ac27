"""Which kernels took the time of the steps that a training has traced.

python -m tools.device_check.profile MODEL_DIR profile.json
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ssd_centernet.files import write_atomically

# Where TensorFlow's wheels keep the format of their traces: of 2.11 and later, and of 2.10.
_FORMATS = (
    "tensorflow.tsl.profiler.protobuf.xplane_pb2",
    "tensorflow.core.profiler.protobuf.xplane_pb2",
)
_SHOWN = 12


def summary(folder: Path) -> dict[str, Any]:
    """Read the trace below a folder.

    Args:
        folder: run directory of a training with `train.profile`.

    Returns:
        `file`; `plane`, the device that was read, or the host where the trace has no device;
        `busy_ms`; and `longest`: name, milliseconds and share of the kernels that took most.

    Raises:
        FileNotFoundError: there is no trace.
        ModuleNotFoundError: this TensorFlow has no format of traces.
    """
    files = sorted(folder.rglob("*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no trace (*.xplane.pb): was train.profile set?")
    space = _format().XSpace()
    space.ParseFromString(files[-1].read_bytes())
    devices = [plane for plane in space.planes if plane.name.startswith("/device:")]
    devices = [plane for plane in devices if any(line.events for line in plane.lines)]
    planes = devices or [plane for plane in space.planes if plane.name.startswith("/host:CPU")]
    spent: collections.Counter = collections.Counter()
    for plane in planes:
        names = {number: one.name for number, one in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if devices or _is_kernel(names[event.metadata_id]):
                    spent[_short(names[event.metadata_id])] += event.duration_ps
    total = sum(spent.values())
    return {
        "file": str(files[-1].relative_to(folder)),
        "bytes": files[-1].stat().st_size,
        "plane": planes[0].name if planes else None,
        "busy_ms": round(total / 1e9, 3),
        "longest": [
            {"name": name, "ms": round(value / 1e9, 3), "share": round(value / total, 4)}
            for name, value in spent.most_common(_SHOWN)
        ],
    }


def _format() -> ModuleType:
    """Return the module that reads traces."""
    for name in _FORMATS:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(
        f"this TensorFlow has no format of traces; expected one of {', '.join(_FORMATS)}."
    )


def _is_kernel(name: str) -> bool:
    """Tell whether an event of the host's plane is an operation: 'scope/name:Type'."""
    return re.fullmatch(r"[^:]+:_?[A-Za-z]\w*", name) is not None


def _short(name: str) -> str:
    """Leave the type of an operation, or the name of a kernel without its arguments."""
    return name.rpartition(":")[2] if _is_kernel(name) else name.partition("(")[0][:80]


if __name__ == "__main__":
    found = summary(Path(sys.argv[1]))
    write_atomically(sys.argv[2], json.dumps(found, indent=1) + "\n")
