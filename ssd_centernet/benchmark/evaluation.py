"""Measure how fast the COCO metrics are with each of the two libraries."""

from __future__ import annotations

import statistics
from typing import Any

from ssd_centernet.benchmark import measure
from ssd_centernet.evaluation.benchmark import benchmark_evaluation


def run(num_images: int = 2000, *, repeats: int = 1) -> list[dict[str, Any]]:
    """Measure the evaluation of random detections, 100 an image.

    Args:
        num_images: images.
        repeats: runs of each library, which take turns.

    Returns:
        A line for each library with the median `seconds`, and how many times as fast the faster
        one is; `equal_bits` says that its 12 numbers are those of pycocotools.
    """
    runs = [benchmark_evaluation(num_images) for _ in range(repeats)]
    lines = []
    for attempts in zip(*runs, strict=True):
        seconds = [attempt["seconds"] for attempt in attempts]
        lines.append(
            {
                **attempts[0],
                "name": attempts[0]["backend"],
                "seconds": statistics.median(seconds),
                "lowest": min(seconds),
                "highest": max(seconds),
                "windows": len(seconds),
                "equal_bits": all(attempt["equal_bits"] for attempt in attempts),
                **measure.peak_memory(),
                **measure.environment(),
            }
        )
    if len(lines) > 1:
        times = {line["name"]: line["seconds"] for line in lines}
        slow, fast = max(times, key=times.get), min(times, key=times.get)
        lines.append(
            {
                "part": "eval",
                "name": f"time of {slow} / time of {fast}",
                "ratio": round(times[slow] / max(times[fast], 1e-9), 3),
            }
        )
    return lines
