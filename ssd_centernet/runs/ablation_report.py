"""What the runs of a study say: means over seeds, differences from `base`, and what they cost."""

from __future__ import annotations

import json
import math
import os
import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.files import write_atomically
from ssd_centernet.runs.ablation import StudyRun
from ssd_centernet.runs.logs import doubts
from ssd_centernet.runs.significance import (
    LEVEL,
    NOISE,
    holm,
    mean_and_deviation,
    paired_difference,
    verdicts,
)
from ssd_centernet.text_table import text_table
from ssd_centernet.training.log_files import UNDEFINED

REPORT_NAME, PAGE_NAME = "ablation.json", "ablation.md"
LAST, BEST = "last", "best"
# A table of single values has a column for each seed, as far as a terminal shows them.
_MOST_COLUMNS = 6
_NOTHING = "-"
_COLUMNS = 80
_PERCENT = f"{100 * LEVEL:.0f} %"


class Ablation:
    """Compare the variants of a study with the first of them.

    Attributes:
        runs: of the study, finished or not.
        names: of the variants, the one that the others are compared with first.
        seeds: of the study.
        metric: one of COCO's numbers; more is better.
        evaluation: `LAST`, the evaluation of the last step, or `BEST`, that of the highest AP.
        values: name -> seed -> the metric of a finished run.
        differences: name -> its difference from the first, over the seeds that both have.
        verdicts: name -> `better`, `worse` or `within the noise`; None where one pair is there.
    """

    def __init__(self, runs: Sequence[StudyRun], *, metric: str = "AP", evaluation: str = LAST):
        """Count what is there.

        Args:
            runs: of all variants and seeds; the first is of the variant to compare with.
            metric: one of `METRIC_NAMES`.
            evaluation: `LAST` or `BEST`.
        """
        self.runs = tuple(runs)
        self.names = tuple(dict.fromkeys(run.variant for run in runs))
        self.seeds = tuple(dict.fromkeys(run.seed for run in runs))
        self.metric, self.evaluation = metric, evaluation
        self.values = {
            name: {
                run.seed: value for run in self._of(name) if (value := self._value(run)) is not None
            }
            for name in self.names
        }
        self.differences = {
            name: paired_difference(*zip(*pairs, strict=True))
            for name in self.names[1:]
            if (pairs := self._pairs(name))
        }
        known = verdicts(list(self.differences.values()))
        self.verdicts = dict(zip(self.differences, known, strict=True))

    def text(self) -> str:
        """Return the tables and notes for a terminal."""
        parts = [
            f"{self._title()}\n\n{text_table(self._results(), words=(0, 5))}",
            *([text_table(self._singles())] if self._has_singles else []),
            text_table(self._costs()),
            "\n".join(textwrap.fill(note, _COLUMNS) for note in self.notes()),
        ]
        return "\n\n".join(filter(None, parts))

    def markdown(self) -> str:
        """Return the same as Markdown."""
        tables = [self._results(), self._singles(), self._costs()]
        notes = "\n".join(f"* {note}" for note in self.notes())
        return "\n\n".join(
            filter(None, [f"{self._title()}:", *map(_markdown_table, tables), notes])
        )

    def to_dict(self) -> dict:
        """Return everything as JSON takes it; what is not known is None."""
        corrected = self._corrected()
        return {
            "metric": self.metric,
            "evaluation": self.evaluation,
            "level": LEVEL,
            "baseline": self.names[0],
            "seeds": list(self.seeds),
            "variants": {name: self._of_variant(name) for name in self.names},
            "differences": {
                name: {
                    "seeds": [seed for seed in self.seeds if self._has_pair(name, seed)],
                    "mean": one.mean,
                    "deviation": one.deviation,
                    "interval": one.interval and list(one.interval),
                    "p": one.p,
                    "p_of_all": corrected.get(name),
                    "verdict": self.verdicts[name],
                }
                for name, one in self.differences.items()
            },
            "notes": self.notes(),
        }

    def save(self, directory: str | os.PathLike, **facts) -> list[str]:
        """Write `ablation.json` and `ablation.md`, each whole or not at all.

        Args:
            directory: of the study; created if missing.
            **facts: what the JSON file says beside the numbers.

        Returns:
            The paths written.
        """
        content = json.dumps({**facts, **self.to_dict()}, indent=1, allow_nan=False)
        return [
            write_atomically(Path(directory) / REPORT_NAME, content + "\n", tidy=True),
            write_atomically(Path(directory) / PAGE_NAME, self.markdown() + "\n", tidy=True),
        ]

    def notes(self) -> list[str]:
        """Say what the numbers do not say for themselves, a sentence or two each."""
        begun = [run.log for run in self.runs if run.log is not None and run.complete]
        return [
            *self._of_seeds(),
            *self._of_comparisons(),
            *self._of_missing(),
            *self._of_images(),
            *(doubts(begun) if begun else []),
        ]

    def _title(self) -> str:
        when = "after the last step" if self.evaluation == LAST else "of each run's best evaluation"
        seeds = f"{len(self.seeds)} seed" + ("s" if len(self.seeds) > 1 else "")
        return f"{self.metric} {when}, {seeds}; differences from {self.names[0]} on the same seed"

    def _results(self) -> list[list[str]]:
        head = ["variant", "n", "mean", "sd", f"difference ({_PERCENT})", "verdict"]
        return [head, *map(self._result, self.names)]

    def _result(self, name: str) -> list[str]:
        values = list(self.values[name].values())
        mean, deviation = mean_and_deviation(values) if values else (None, None)
        cells = [name, str(len(values)), _number(mean), _number(deviation)]
        one = self.differences.get(name)
        if one is None:
            return [*cells, _NOTHING, ""]
        half = "" if one.half_width is None else f" ± {one.half_width:.4f}"
        return [*cells, f"{one.mean:+.4f}{half}", self.verdicts[name] or "no verdict"]

    @property
    def _has_singles(self) -> bool:
        return 1 < len(self.seeds) <= _MOST_COLUMNS

    def _singles(self) -> list[list[str]]:
        head = [f"{self.metric} by seed", *map(str, self.seeds)]
        return [
            head,
            *(
                [name, *(_number(self.values[name].get(seed)) for seed in self.seeds)]
                for name in self.names
            ),
        ]

    def _costs(self) -> list[list[str]]:
        head = ["mean of a run", "images", "steps", "ms a step", "minutes", "processor"]
        rows = []
        for name in self.names:
            cost = self._cost(name)
            whole = [_number(cost[key], "{:.0f}") for key in ("images", "steps")]
            rest = ("milliseconds_a_step", "minutes", "processor_minutes")
            rows.append([name, *whole, *(_number(cost[key], "{:.1f}") for key in rest)])
        return [head, *rows]

    def _cost(self, name: str) -> dict[str, float | None]:
        runs = [run for run in self._of(name) if run.complete]
        asked: dict[str, Callable[[StudyRun], float | None]] = {
            "images": lambda run: run.log.images_seen,
            "steps": lambda run: run.log.steps,
            "milliseconds_a_step": _milliseconds,
            "minutes": lambda run: run.log.minutes,
            "processor_minutes": lambda run: run.processor_minutes,
        }
        return {
            key: _mean_of_all([function(run) for run in runs]) for key, function in asked.items()
        }

    def _of_variant(self, name: str) -> dict:
        values = list(self.values[name].values())
        mean, deviation = mean_and_deviation(values) if values else (None, None)
        runs = [_told_run(run) for run in self._of(name)]
        return {"mean": mean, "deviation": deviation, **self._cost(name), "runs": runs}

    def _of_seeds(self) -> list[str]:
        told, pairs = [], [one.count for one in self.differences.values()]
        if len(self.seeds) == 1 or set(pairs) == {1}:
            told.append(
                "One seed says nothing about chance: no verdict. Add seeds to the study, and give "
                "the same command again."
            )
        elif 2 in pairs:
            told.append(
                "Two pairs hardly know their own spread: their interval is 3.6 times as wide as "
                "that of three pairs with the same spread."
            )
        if self.evaluation == BEST:
            told.append(
                "The best of several evaluations is above what a run has at its end, as chance "
                "helps to choose it."
            )
        return told

    def _of_comparisons(self) -> list[str]:
        told = []
        compared = [name for name, verdict in self.verdicts.items() if verdict]
        if len(compared) > 1:
            told.append(
                f"{len(compared)} comparisons: the verdicts hold for all of them together with "
                f"{_PERCENT} (Holm's correction), each interval for itself."
            )
        single = [
            name
            for name in compared
            if self.differences[name].leaves_out_zero and self.verdicts[name] == NOISE
        ]
        if single:
            told.append(
                f"Alone, {', '.join(single)} would differ from {self.names[0]}; among "
                f"{len(compared)} comparisons chance does this too often. More seeds decide it."
            )
        return told

    def _of_missing(self) -> list[str]:
        missing = [f"{run.name} ({run.state})" for run in self.runs if not run.complete]
        undefined = [run.name for run in self.runs if run.complete and self._value(run) is None]
        told = [f"Without a result yet: {', '.join(missing)}."] if missing else []
        if undefined:
            told.append(f"{self.metric} is not defined for {', '.join(undefined)}.")
        return told

    def _of_images(self) -> list[str]:
        ended = [run for run in self.runs if run.complete and run.log.images_seen]
        seen = {run.name: run.log.images_seen for run in ended}
        if len(set(seen.values())) < 2:
            return []
        least, most = min(seen, key=seen.get), max(seen, key=seen.get)
        return [
            f"Not all runs saw as many images: {least} {seen[least]}, {most} {seen[most]}. A "
            "difference may be that of their lengths."
        ]

    def _of(self, name: str) -> list[StudyRun]:
        return [run for run in self.runs if run.variant == name]

    def _has_pair(self, name: str, seed: int) -> bool:
        return seed in self.values[name] and seed in self.values[self.names[0]]

    def _pairs(self, name: str) -> list[tuple[float, float]]:
        own, base = self.values[name], self.values[self.names[0]]
        return [(own[seed], base[seed]) for seed in self.seeds if self._has_pair(name, seed)]

    def _value(self, run: StudyRun) -> float | None:
        if not run.complete:
            return None
        record = run.log.last if self.evaluation == LAST else run.log.best
        value = record.get(self.metric, UNDEFINED)
        return value if math.isfinite(value) and value != UNDEFINED else None

    def _corrected(self) -> dict[str, float]:
        known = {name: one.p for name, one in self.differences.items() if one.p is not None}
        return dict(zip(known, holm(list(known.values())), strict=True))


def _told_run(run: StudyRun) -> dict:
    """Return what JSON has of a run."""
    told = {"seed": run.seed, "state": run.state, "complete": run.complete}
    if run.log is None:
        return told
    return {
        **told,
        "model_dir": run.log.directory,
        "steps": run.log.steps,
        "images": run.log.images_seen,
        "milliseconds_a_step": _milliseconds(run),
        "minutes": _finite(run.log.minutes),
        "processor_minutes": run.processor_minutes,
        LAST: _evaluation(run.log.last),
        BEST: _evaluation(run.log.best),
    }


def _evaluation(record: dict | None) -> dict | None:
    if record is None:
        return None
    return {name: _finite(record[name]) for name in ("step", *METRIC_NAMES) if name in record}


def _milliseconds(run: StudyRun) -> float | None:
    """Return the median time of a step, without evaluations and checkpoints."""
    if not run.log.batch_size or not run.log.images_per_second > 0:
        return None
    return 1000.0 * run.log.batch_size / run.log.images_per_second


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean, None where a value is not known: it would be the mean of others."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None, form: str = "{:.4f}") -> str:
    return _NOTHING if value is None else form.format(value)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *others])
