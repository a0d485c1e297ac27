"""What a run's metrics.jsonl tells a resumed run about the evaluations before it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

METRICS_NAME = "metrics.jsonl"
SESSIONS_NAME = "sessions.jsonl"
UNDEFINED = -1.0  # What COCO's metrics are where there is nothing to find.


def recorded_evaluations(model_dir: str | Path, *, until_step: int) -> list[dict[str, float]]:
    """Reads the evaluations of a run.

    Args:
      model_dir: directory of the run.
      until_step: of the checkpoint that is resumed from: what was recorded behind it will be done
        again, as the steps before it will.

    Returns:
      One record of metrics with `step` for each step that was evaluated, by step; of several at
      one step the last.
    """
    path = Path(model_dir) / METRICS_NAME
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # A kill may cut a line.
                continue
            if isinstance(record, dict) and record.get("kind") == "eval":
                found[record.get("step")] = record
    return [found[step] for step in sorted(found) if step <= until_step]


def evaluations_without_best(
    records: Sequence[Mapping[str, float]], name: str, *, higher_is_better: bool
) -> int:
    """Counts the evaluations behind the best one.

    Args:
      records: of `recorded_evaluations`.
      name: of the metric that decides.
      higher_is_better: its direction.

    Returns:
      0 when the last one is the best; an undefined metric is never the best.
    """
    best, count = None, 0
    for record in records:
        value = record.get(name, math.nan)
        count += 1
        if beats(value, best, higher_is_better=higher_is_better):
            best, count = value, 0
    return count


def beats(value: float, best: float | None, *, higher_is_better: bool) -> bool:
    """Tells whether a metric is better than the best so far.

    Args:
      value: of the metric.
      best: the best so far; None when there is none.
      higher_is_better: the metric's direction.

    Returns:
      False for an undefined value (-1 in COCO's numbers, or not a number): nothing could beat it,
      and it says nothing about the weights.
    """
    if math.isnan(value) or value == UNDEFINED:
        return False
    return best is None or (value > best if higher_is_better else value < best)
