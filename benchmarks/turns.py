"""Processes that take turns, what their windows say, and the ratios of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rows import Contestant, Ratio, Row

ROOT = Path(__file__).resolve().parents[1]
_SERVING = Path(__file__).resolve().parent / "contestants" / "serving.py"


class NotMeasured(Exception):
    """A contestant is not installed, or failed (`failed`)."""

    def __init__(self, reason: str, *, failed: bool):
        """Keep the reason."""
        super().__init__(reason)
        self.failed = failed


class Process:
    """A contestant's process, stopped except in its windows."""

    def __init__(self, contestant: Contestant, python: Path, options: dict):
        """Start it; it prepares itself in the background."""
        self.name = contestant.name
        self.windows: list[dict[str, float]] = []
        self.versions: dict[str, str] = {}
        self._errors = tempfile.TemporaryFile("w+")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        options = {**contestant.options, **options, "packages": contestant.packages}
        self._process = subprocess.Popen(
            [str(python), str(_SERVING), contestant.target, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def wait_until_warm(self) -> None:
        """Wait for the first answer; then stop."""
        ready = self._answer()
        if "missing" in ready:
            raise NotMeasured(f"{self.name}: {ready['missing']}", failed=False)
        self.versions = ready["versions"]
        self._signal(signal.SIGSTOP)

    def window(self) -> None:
        """Let it work for one window."""
        self._signal(signal.SIGCONT)
        self.windows.append(self._ask("window"))
        self._signal(signal.SIGSTOP)

    def end(self) -> float:
        """Let it end, and return its peak memory in MB."""
        self._signal(signal.SIGCONT)
        return self._ask("end")["peak_mb"]

    def stop(self) -> None:
        """End it, and what it started, whatever they do."""
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _ask(self, request: str) -> dict:
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        sys.stderr.writelines(self._errors.readlines()[-25:])
        reason = f"{self.name}: it ended with status {self._process.returncode}"
        raise NotMeasured(reason, failed=True)


@contextlib.contextmanager
def processes() -> Iterator[list[Process]]:
    """Hold processes, and end them all."""
    started: list[Process] = []
    try:
        yield started
    finally:
        for process in started:
            process.stop()


def measure(row: Row, options: dict, pythons: dict[str, Path], windows: int) -> dict:
    """Measure the contestants of a row in turn.

    Args:
        row: what.
        options: of all contestants.
        pythons: environment -> interpreter.
        windows: of each contestant.

    Returns:
        `contestants`, name -> figures and windows, and `not_measured`, a list of (reason, failed).
    """
    options = {**options, "seconds": options["seconds"] * row.seconds}
    missing: list[tuple[str, bool]] = []
    with processes() as started:
        warm, waiting = [], []
        for contestant in row.contestants:
            python = pythons[contestant.environment]
            if not python.exists():
                reason = f"{contestant.name}: {python.parents[1]} is missing; make it with "
                missing.append((reason + "bash scripts/setup.sh peers", False))
                continue
            # All import and build at once; the measuring comes when all are there.
            process = Process(contestant, python, options)
            started.append(process)
            waiting.append(process)
        for process in waiting:
            try:
                process.wait_until_warm()
                warm.append(process)
            except NotMeasured as error:
                missing.append((str(error), error.failed))
        for _ in range(windows):
            for process in list(warm):
                try:
                    process.window()
                except NotMeasured as error:
                    missing.append((str(error), error.failed))
                    warm.remove(process)
        found = {process.name: _figures(process) for process in warm}
    return {"contestants": found, "not_measured": missing}


def _figures(process: Process) -> dict:
    rates = [one["images"] / one["wall"] for one in process.windows]
    costs = [1000.0 * one["cpu"] / one["images"] for one in process.windows]
    return {
        "images_per_second": _rounded(statistics.median(rates)),
        "lowest": _rounded(min(rates)),
        "highest": _rounded(max(rates)),
        "cpu_ms_per_image": _rounded(statistics.median(costs)),
        "images_per_window": process.windows[0]["images"],
        "windows": [[round(r, 5), round(c, 5)] for r, c in zip(rates, costs, strict=True)],
        "peak_mb": process.end(),
        "versions": process.versions,
    }


def ratios(row: Row, contestants: dict[str, dict]) -> list[dict]:
    """Compare the contestants of a row.

    Args:
        row: with its ratios.
        contestants: of `measure`.

    Returns:
        For each possible ratio `ours`, `other`, `wall` and `cpu`, medians over neighbouring
        windows, `memory`, the goals, and what was `reached`: yes, no, or by which time.
    """
    return [
        _line(ratio, contestants[ratio.ours], other, contestants[other])
        for ratio in row.ratios
        for other in ratio.others
        if ratio.ours in contestants and other in contestants
    ]


def _line(ratio: Ratio, ours: dict, name: str, other: dict) -> dict:
    wall, cpu = [], []
    for (rate, cost), (their_rate, their_cost) in zip(
        ours["windows"], other["windows"], strict=True
    ):
        wall.append(rate / their_rate)
        cpu.append(their_cost / cost)
    if ratio.cost:
        wall, cpu = ([1.0 / value for value in values] for values in (wall, cpu))
    line = {
        "ours": ratio.ours,
        "other": name,
        "wall": round(statistics.median(wall), 3),
        "lowest": round(min(wall), 3),
        "highest": round(max(wall), 3),
        "cpu": round(statistics.median(cpu), 3),
        "memory": round(ours["peak_mb"] / other["peak_mb"], 3),
        "cost": ratio.cost,
        "goal": ratio.goal,
        "memory_goal": ratio.memory,
    }
    if ratio.goal is not None:
        reached = [
            what
            for what in ("wall", "cpu")
            if (line[what] <= ratio.goal if ratio.cost else line[what] >= ratio.goal)
        ]
        words = {"wall": "by the clock alone", "cpu": "by processor time alone"}
        line["reached"] = {0: "no", 2: "yes"}.get(len(reached)) or words[reached[0]]
    if ratio.memory is not None:
        line["memory_reached"] = "yes" if line["memory"] <= ratio.memory else "no"
    return line


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
