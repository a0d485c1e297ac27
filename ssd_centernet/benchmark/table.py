"""Measurements as a table for people; programs read the same lines as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ssd_centernet.text_table import text_table

# What a line measures -> how its unit is written.
_UNITS = {"images_per_second": "images/s", "seconds": "s", "ratio": ""}
# More numbers of a line: key -> what it is called, with its unit.
_MORE = {
    "ms_per_image": ("per image", "ms"),
    "latency_ms": ("latency of a batch, mean", "ms"),
    "latency_ms_p90": ("latency of a batch, 90 %", "ms"),
    "latency_ms_p95": ("latency of a batch, 95 %", "ms"),
    "latency_ms_p99": ("latency of a batch, 99 %", "ms"),
    "images_per_second_alone": ("one process alone", "images/s"),
    "efficiency": ("share of the speed alone, per process", ""),
    "step_milliseconds_alone": ("step of one process alone", "ms"),
    "step_milliseconds": ("step of all", "ms"),
    "all_reduce_milliseconds": ("averaging as much as the gradients", "ms"),
    "gradient_megabytes": ("gradients", "MB"),
    "add_seconds": ("adding the images", "s"),
    "AP": ("AP", ""),
    "peak_rss_mb": ("most memory", "MB"),
    "peak_device_mb": ("most memory of the device", "MB"),
}
_BOUND = {
    "input": "The input bounds the training; docs/faq.md says what makes it faster.",
    "step": "The step bounds the training: the input makes {:.1f} times the images it takes.",
    "both": "Input and step take about the same: neither alone bounds the training.",
}
_RANGE = ("lowest", "highest")
_LABELS = {"num_images": "images", "num_detections": "detections"}
_TITLE = ("recipe", "dtype", "batch_size", "image_size", "augment_on", "device", "threads")


def format_lines(lines: Sequence[dict[str, Any]]) -> str:
    """Lay measurements below each other.

    Args:
        lines: of one part, each with `name` (or `processes`) and one of `images_per_second`,
            `seconds` and `ratio`.

    Returns:
        What was measured on what, the median of each figure with its lowest and highest window,
        and what else was measured; below the table where it is the same for all.
    """
    rows = [["", "median", "lowest", "highest", ""]]
    for line in lines:
        unit = next((unit for unit in _UNITS if unit in line), None)
        if unit is not None:
            range_ = [_number(line.get(key)) for key in _RANGE]
            name = line.get("name") or f"{line['processes']} processes"
            rows.append([name, _number(line[unit]), *range_, _UNITS[unit]])
        for key, (name, sign) in _MORE.items():
            if key in line and not _is_shared(key, lines):
                rows.append([f"  {name}", _number(line[key]), "", "", sign])
    # A measurement without windows has no range.
    used = [i for i, column in enumerate(zip(*rows, strict=True)) if i == 0 or any(column[1:])]
    rows = [[row[i] for i in used] for row in rows]
    shared = [
        f"{name}: {_number(lines[0][key])} {sign}".rstrip()
        for key, (name, sign) in _MORE.items()
        if _is_shared(key, lines)
    ]
    words = (0, used.index(4)) if 4 in used else (0,)
    bound = [_BOUND[x["bound_by"]].format(x["ratio"]) for x in lines if "bound_by" in x]
    return "\n".join([_title(lines[0]), "", text_table(rows, words=words), *shared, *bound])


def _is_shared(key: str, lines: Sequence[dict[str, Any]]) -> bool:
    """Tell whether several lines have the number, and all of those the same."""
    values = [line[key] for line in lines if key in line]
    return len(values) > 1 and len(set(values)) == 1


def _title(line: dict[str, Any]) -> str:
    said = {key: line[key] for key in _TITLE if key in line}
    if "image_size" in said:
        said["image_size"] = " x ".join(map(str, said["image_size"]))
    if "batch_size" in said:
        said["batch_size"] = f"batch {said['batch_size']}"
    if said.pop("augment_on", "host") == "device":
        said["augment_on"] = "pixels made in the step"
    if "threads" in said:
        said["threads"] = f"{said['threads']} threads"
    if "tensorflow" in line.get("versions", {}):
        said["tensorflow"] = f"TensorFlow {line['versions']['tensorflow']}"
    counts = [f"{line[key]:,} {name}" for key, name in _LABELS.items() if key in line]
    title = f"{line['part']}: {', '.join([*map(str, said.values()), *counts])}"
    return textwrap.fill(title, 80, subsequent_indent="  ")


def _number(value: float | None) -> str:
    """Write a number with four digits that count."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"
