"""Run the parts of a check one after the other, each in a process with a limit."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ssd_centernet.files import remove_folder, remove_leftovers, write_atomically
from tools.device_check.plan import ROOT, Part

RESULT_NAME, PAGE_NAME = "result.json", "result.html"
_FORMAT = 1
# Last lines of what a part printed that are kept, and characters of each.
_LINES, _WIDTH = 12, 400
# Seconds in which a process may end by itself after it was asked to.
_GRACE = 10.0


class ResultError(ValueError):
    """A folder holds results that the command cannot go on with; says what to do."""


class Results:
    """The results of a check, which stand in a file after each part.

    Attributes:
        parts: name -> `status` ('ended', 'failed', 'time limit', 'not run'), `seconds`,
            `cpu_seconds` (processor time), `found` (what the part has written or printed) and,
            where it did not end well, `said`.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        """Begin, or go on with what a folder holds.

        Args:
            folder: created if missing.
            settings: of the check.

        Raises:
            ResultError: the folder holds a check with other settings, or another file.
        """
        self.path = folder / RESULT_NAME
        self._settings, self.parts = settings, {}
        self._begun = _now()
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        if not self.path.exists():
            return
        held = read(self.path)
        other = {name for name, value in settings.items() if held["settings"].get(name) != value}
        # A part of the parts, or another limit, goes on with what is there.
        if other := sorted(other - {"kinds", "limit"}):
            told = ", ".join(
                f"{name} {held['settings'].get(name)}, now {settings[name]}" for name in other
            )
            raise ResultError(
                f"{folder} holds a check with other settings ({told}): give the same, or another "
                "--output."
            )
        self.parts, self._begun = held["parts"], held["begun"]

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Add the result of a part, and write the file."""
        self.parts[name] = result
        write_atomically(self.path, json.dumps(self.to_dict(), indent=1) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        head = {"format": _FORMAT, "begun": self._begun, "changed": _now()}
        return {**head, "settings": self._settings, "parts": self.parts}


def read(path: Path) -> dict[str, Any]:
    """Read the file of a check.

    Raises:
        ResultError: it is no such file.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        right = held["format"] == _FORMAT and isinstance(held["parts"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} cannot be read ({error}); expected {RESULT_NAME}.") from error
    if not right:
        raise ResultError(f"{path} is of another form than this version writes; check again.")
    return held


def run_all(parts: Iterable[Part], results: Results, say: Callable[[str], None]) -> None:
    """Run the parts that have no result yet.

    Args:
        parts: in their order.
        results: get what comes out.
        say: prints a line.
    """
    waiting = [part for part in parts if part.name not in results.parts]
    for number, part in enumerate(waiting, 1):
        missing = [
            name for name in part.needs if results.parts.get(name, {}).get("status") != "ended"
        ]
        if part.skipped or missing:
            reason = part.skipped or f"needs '{missing[0]}', which did not end well"
            result = {"status": "not run", "seconds": 0.0, "said": reason, "found": None}
        else:
            result = run_part(part, results.path.parent / "logs")
        results.keep(part.name, result)
        told = result["said"].splitlines()[-1:] if result.get("said") else []
        line = f"[{number}/{len(waiting)}] {part.name}: {result['status']}"
        line += f", {result['seconds']:.0f} s" if result["seconds"] else ""
        say(line + "".join(f" ({text})" for text in told))


def run_part(part: Part, logs: Path) -> dict[str, Any]:
    """Run one part to its end, or to its limit.

    Args:
        part: what to run.
        logs: folder that gets what it prints.

    Returns:
        Its result, see `Results.parts`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{part.name.replace(' ', '_')}.txt"
    for stale in filter(None, (part.output,)):
        Path(stale).unlink(missing_ok=True)
    if part.folder and Path(part.folder).exists():
        remove_folder(Path(part.folder))
    begin, before = time.monotonic(), _processor_seconds()
    with open(log, "wb") as errors, open(log.with_suffix(".out.txt"), "wb") as printed:
        try:
            # A group of its own: what it has started ends with it.
            process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            return {"status": "failed", "seconds": 0.0, "said": str(error), "found": None}
        try:
            status = process.wait(part.limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = round(time.monotonic() - begin, 1)
    found = _found(part, log.with_suffix(".out.txt"))
    spent = round(_processor_seconds() - before, 1)
    result = {"status": "ended", "seconds": seconds, "cpu_seconds": spent, "found": found}
    if status is None:
        result["status"] = "time limit"
        result["said"] = f"{_last(log)}\nended after {part.limit:g} s (--limit)".strip()
    elif status != 0 or (found is None and part.reads):
        result["status"] = "failed"
        reason = f"ended by signal {-status}" if status < 0 else f"status {status}"
        result["said"] = f"{reason}\n{_last(log) or _last(log.with_suffix('.out.txt'))}".strip()
    return result


def _processor_seconds() -> float:
    """Return the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    kept = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONFAULTHANDLER": "1"}
    return {**os.environ, **kept}


def _end(process: subprocess.Popen) -> None:
    """End a process and what it has started; one that the kernel holds is left behind."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if number == signal.SIGTERM and not _group_lives(process.pid):
                return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _found(part: Part, printed: Path) -> Any:
    """Read what a part has written or printed; None if there is nothing to read."""
    try:
        if part.reads == "log":
            text = (Path(part.folder) / "metrics.jsonl").read_text(encoding="utf-8")
            return [one for one in map(_loaded, text.splitlines()) if one["kind"] == "train"]
        if part.output:
            return _loaded(_without_places(Path(part.output).read_text(encoding="utf-8")))
        text = _without_places(printed.read_text(encoding="utf-8", errors="replace"))
        if part.reads == "lines":
            return [_loaded(one) for one in text.splitlines() if one.startswith("{")] or None
        return _loaded(text[text.index("{") :]) if part.reads else None
    except (OSError, ValueError, KeyError):
        return None


def _loaded(text: str) -> Any:
    """Read JSON; NaN and infinities, which are none of its numbers, become None."""
    return json.loads(text, parse_constant=lambda _: None)


def _last(path: Path) -> str:
    """Return the last lines of a file, without the folders of whoever ran it."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:]
    return _without_places("\n".join(line[:_WIDTH] for line in lines if line.strip()))


def _without_places(text: str) -> str:
    """Shorten the folders of whoever ran it, which are nobody's business."""
    for place, short in ((ROOT, "."), (Path.home(), "~")):
        if len(place.parts) > 1:
            text = text.replace(str(place), short)
    return text


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
