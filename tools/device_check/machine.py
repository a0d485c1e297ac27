"""What machine this is: devices, versions, and the code that is checked.

python -m tools.device_check.machine gpu machine.json
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf

from ssd_centernet import __version__
from ssd_centernet.benchmark.measure import environment
from ssd_centernet.files import write_atomically
from ssd_centernet.runtime import ascend
from ssd_centernet.runtime.device import describe_devices, select_device
from tools.device_check.plan import ROOT

# What asks a vendor's driver for its version, where it is installed.
_DRIVERS = (
    ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
    ("hl-smi", "-Q", "name,driver_version,memory.total", "-f", "csv,noheader"),
    ("cnmon", "version"),
    ("npu-smi", "info", "-m"),
)


def facts(device: str) -> dict[str, Any]:
    """Describe the machine; raises an error with advice if there is no such device.

    Args:
        device: as `--device` of the commands.
    """
    strategy = select_device(device)
    kind = "CPU"
    if ascend.opened_npu() is not None:
        kind = "NPU"
    elif isinstance(strategy, tf.distribute.TPUStrategy):
        kind = "TPU"
    elif isinstance(strategy, tf.distribute.OneDeviceStrategy):
        (chosen,) = strategy.extended.worker_devices
        kind = tf.DeviceSpec.from_string(chosen).device_type
    physical = tf.config.list_physical_devices(kind)
    details = tf.config.experimental.get_device_details(physical[0]) if physical else {}
    built = tf.sysconfig.get_build_info()
    return {
        "kind": kind,
        "devices": len(physical),
        "seen": describe_devices(),
        "name": details.get("device_name") or (_processor() if kind == "CPU" else kind),
        "compute_capability": details.get("compute_capability"),
        "processor": _processor(),
        "memory_gib": _memory(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "built_with": {
            name: built[name] for name in ("cuda_version", "cudnn_version") if built.get(name)
        },
        "drivers": dict(filter(None, map(_asked, _DRIVERS))),
        "library": __version__,
        "commit": _commit(),
        **{name: value for name, value in environment().items() if name != "device"},
    }


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _asked(command: tuple[str, ...]) -> tuple[str, str] | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return command[0], f"no answer: {type(error).__name__}"
    return command[0], (done.stdout or done.stderr).strip()[:2000]


def _commit() -> str | None:
    """Return the commit of the checkout, with a mark if files were changed."""
    git = ("git", "-C", str(ROOT))
    try:
        named = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
        changed = subprocess.run((*git, "status", "--porcelain"), capture_output=True, text=True)
    except OSError:
        return None
    if named.returncode:
        return None
    return named.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


if __name__ == "__main__":
    found = facts(sys.argv[1])
    write_atomically(sys.argv[2], json.dumps(found, indent=1) + "\n")
