"""Windows of work measured in turn, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from ssd_centernet.runtime.versions import installed_versions

# Does so many units, waits until they are done, and returns how many images they had.
Work = Callable[[int], int]


def time_window(work: Work, units: int) -> float:
    """Measure one window.

    Args:
        work: what to measure.
        units: how many units of it.

    Returns:
        Images per second.
    """
    start = time.perf_counter()
    images = work(units)
    return images / (time.perf_counter() - start)


def units_for(work: Work, seconds: float, *, warm_up: int = 1) -> int:
    """Warm work up and find how many units of it fill a window.

    Args:
        work: what is to be measured.
        seconds: wished length of a window.
        warm_up: units done before the one that is timed.

    Returns:
        Units, at least 1.
    """
    work(warm_up)
    units, elapsed = 1, 0.0
    # A single unit may be too short to be timed.
    while True:
        start = time.perf_counter()
        work(units)
        elapsed = time.perf_counter() - start
        if elapsed >= min(0.2, seconds):
            return max(1, round(seconds * units / elapsed))
        units *= 2


def alternate(
    works: Mapping[str, Work],
    *,
    windows: int = 5,
    seconds: float = 3.0,
    warm_up: int = 1,
    settle: int = 0,
) -> dict[str, list[float]]:
    """Measure several kinds of work in alternating windows: A, B, A, B, ...

    Args:
        works: what to measure, by name.
        windows: windows of each, at least 1.
        seconds: length of a window, about.
        warm_up: units of each that are done first and not counted.
        settle: units done at the start of every window before its clock starts, which use up what
            background threads prepared while another kind of work was measured.

    Returns:
        Images per second of every window, by name.

    Raises:
        ValueError: `windows` or `seconds` is out of range.
    """
    if windows < 1 or seconds <= 0:
        raise ValueError(
            f"got windows={windows} and seconds={seconds}; expected at least one window of more "
            "than 0 seconds (--windows, --seconds)."
        )
    units = {name: units_for(work, seconds, warm_up=warm_up) for name, work in works.items()}
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(windows):
        for name, work in works.items():
            if settle:
                work(settle)
            rates[name].append(time_window(work, units[name]))
    return rates


def summary(rates: Sequence[float]) -> dict[str, Any]:
    """Summarise the windows of one kind of work.

    Args:
        rates: images per second of each window, at least one.

    Returns:
        `images_per_second` (the median), `lowest`, `highest` and `windows`.
    """
    return {
        "images_per_second": _rounded(statistics.median(rates)),
        "lowest": _rounded(min(rates)),
        "highest": _rounded(max(rates)),
        "windows": len(rates),
    }


def ratio(rates: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Compare two kinds of work that were measured in turn.

    Args:
        rates: images per second of each window.
        others: those of the other kind, as many; the i-th windows of both are neighbours in time.

    Returns:
        `ratio`: the median over neighbours of rate / other rate; `lowest` and `highest` of them.
    """
    ratios = [rate / other for rate, other in zip(rates, others, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def peak_memory() -> dict[str, float]:
    """Return the most memory that this process has had so far, in MB of 10^6 bytes.

    Returns:
        `peak_rss_mb` of the host and, where TensorFlow tells it, `peak_device_mb` of the first
        accelerator.
    """
    result = {"peak_rss_mb": round(_peak_rss() / 1e6, 1)}
    for device in tf.config.list_logical_devices():
        if device.device_type == "CPU":
            continue
        try:
            peak = tf.config.experimental.get_memory_info(device.name)["peak"]
        except (ValueError, RuntimeError, tf.errors.OpError):
            continue  # Not every plug-in counts.
        result["peak_device_mb"] = round(peak / 1e6, 1)
        break
    return result


def environment(*packages: str) -> dict[str, Any]:
    """Return what a figure depends on beside the code.

    Args:
        *packages: more that were measured, beside TensorFlow, Keras and NumPy.

    Returns:
        `device`; `cores`, those that this process may use; `threads`, those that TensorFlow runs
        an operation on: one a core, unless TF_NUM_INTRAOP_THREADS says otherwise; and `versions`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # TensorFlow reads it when it starts its threads.
    asked = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    asked = int(asked) if asked.isdigit() else 0
    return {
        "device": tf.config.list_logical_devices()[-1].device_type,
        "cores": cores,
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or asked or cores,
        "versions": installed_versions(*packages),
    }


def _peak_rss() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for row in status.read_text(encoding="utf-8").splitlines():
            if row.startswith("VmHWM:"):
                return int(row.split()[1]) * 1024
    import resource  # Not on every system.

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
