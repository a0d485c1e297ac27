"""Run the parts of a check one after the other, each in a process with a limit."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ssd_centernet.files import remove_folder, remove_leftovers, write_atomically
from tools.device_check import verdicts
from tools.device_check.plan import ROOT, Part, Settings

RESULT_NAME, PAGE_NAME = "result.json", "result.html"
_FORMAT, _LOCK_NAME = 1, ".lock"
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
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
            ResultError: the folder holds a check with other settings, or another file, or cannot be
                written to.
        """
        self.path = folder / RESULT_NAME
        self._settings, self.parts = settings, {}
        self._begun = _now()
        make(folder / "parts")
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


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Answer signals after the block: a process that is being started is not known yet."""
    came: list[int] = []
    answers = {one: signal.getsignal(one) for one in _STOPPING}
    answers = {one: answer for one, answer in answers.items() if callable(answer)}
    for one in answers:
        signal.signal(one, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for one, answer in answers.items():
            signal.signal(one, answer)
    if came:
        answers[came[0]](came[0], None)


def read(path: Path) -> dict[str, Any]:
    """Read the file of a check.

    Raises:
        ResultError: it is no such file.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read ({error}); expected {RESULT_NAME}.") from error
    if wrong := _wrong(held):
        raise ResultError(
            f"{path} is no result of a check that this version writes ({wrong}): give the "
            f"{RESULT_NAME} of a check, or another --output."
        )
    return held


def _wrong(held: Any) -> str:
    """Say what of a file is not as a check writes it; '' if all is."""
    if not isinstance(held, dict):
        return f"{type(held).__name__}, expected an object"
    if held.get("format") != _FORMAT:
        return f"format {held.get('format')}, expected {_FORMAT}"
    kinds = {"begun": str, "changed": str, "settings": dict, "parts": dict}
    if missing := [name for name, kind in kinds.items() if not isinstance(held.get(name), kind)]:
        return f"without {', '.join(missing)}"
    settings = {field.name for field in dataclasses.fields(Settings)}
    if missing := sorted(settings - set(held["settings"])):
        return f"settings without {', '.join(missing)}"
    keys = {"status", "seconds", "found"}
    for name, one in held["parts"].items():
        if not isinstance(one, dict) or not keys <= set(one):
            return f"part '{name}' without its results"
    return ""


def make(folder: Path) -> None:
    """Make a folder.

    Raises:
        ResultError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"{folder} cannot be made ({error.strerror}): give another --output, a folder that you "
            "can write to."
        ) from error


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other checks; a killed process lets go of it.

    Raises:
        ResultError: another check runs there, or it cannot be written to.
    """
    make(folder)
    try:
        lock = open(folder / _LOCK_NAME, "a+", encoding="utf-8")
    except OSError as error:
        raise ResultError(
            f"{folder} cannot be written to ({error.strerror}): give another --output."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ResultError(
                f"another check runs in {folder} (process {lock.read().strip() or 'unknown'}): "
                "wait for it, stop it, or give another --output."
            ) from error
        except OSError:  # A file system without locks: check without.
            pass
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Stopped(KeyboardInterrupt):  # noqa: N818  # a request, not an error
    """A signal asks the check to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        """Note the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` at the first signal that asks to end; later ones wait for the part's end.

    A part has a group of its own, which no signal to the check reaches. Signals that are ignored,
    as by nohup, stay so.
    """
    chosen = [one for one in _STOPPING if signal.getsignal(one) != signal.SIG_IGN]

    def stop(number: int, _frame: object) -> None:
        for one in chosen:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    before = {one: signal.signal(one, stop) for one in chosen}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


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
            result = run_part(part, results.path.parent)
        results.keep(part.name, result)
        line = f"[{number}/{len(waiting)}] {part.name}: {result['status']}"
        line += f", {result['seconds']:.0f} s" if result["seconds"] else ""
        told = verdicts.cause(result)
        say(line + (f" ({told})" if told else ""))


def run_part(part: Part, folder: Path) -> dict[str, Any]:
    """Run one part to its end, or to its limit.

    Args:
        part: what to run.
        folder: of the check; `logs` in it gets what the part prints.

    Returns:
        Its result, see `Results.parts`.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{part.name.replace(' ', '_')}.txt"
    for stale in filter(None, (part.output,)):
        Path(stale).unlink(missing_ok=True)
    if part.folder and Path(part.folder).exists():
        remove_folder(Path(part.folder))
    begin, before = time.monotonic(), _processor_seconds()
    with open(log, "wb") as errors, open(log.with_suffix(".out.txt"), "wb") as printed:
        process = None
        try:
            # A group of its own: what it has started ends with it.
            with _undisturbed():
                process = subprocess.Popen(
                    part.command,
                    cwd=ROOT,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=errors,
                    start_new_session=True,
                )
            status = process.wait(part.limit)
        except OSError as error:
            said = _without_places(str(error), folder)
            return {"status": "failed", "seconds": 0.0, "said": said, "found": None}
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process is not None:
                _end(process)
    seconds = round(time.monotonic() - begin, 1)
    printed = log.with_suffix(".out.txt")
    found = _without_places(_found(part, printed), folder)
    spent = round(_processor_seconds() - before, 1)
    result = {"status": "ended", "seconds": seconds, "cpu_seconds": spent, "found": found}
    if status is None:
        result["status"] = "time limit"
        result["said"] = f"{_last(log, folder)}\nended after {part.limit:g} s (--limit)".strip()
    elif status != 0 or (found is None and part.reads):
        result["status"] = "failed"
        reason = f"ended by signal {-status}" if status < 0 else f"status {status}"
        result["said"] = f"{reason}\n{_last(log, folder) or _last(printed, folder)}".strip()
    return result


def _processor_seconds() -> float:
    """Return the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    kept = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONFAULTHANDLER": "1"}
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
            return _loaded(Path(part.output).read_text(encoding="utf-8"))
        text = printed.read_text(encoding="utf-8", errors="replace")
        if part.reads == "lines":
            return [_loaded(one) for one in text.splitlines() if one.startswith("{")] or None
        return _loaded(text[text.index("{") :]) if part.reads else None
    except (OSError, ValueError, KeyError):
        return None


def _loaded(text: str) -> Any:
    """Read JSON; NaN and infinities, which are none of its numbers, become None."""
    return json.loads(text, parse_constant=lambda _: None)


def _last(path: Path, folder: Path) -> str:
    """Return the last lines of a file, without the folders of whoever ran it."""
    text = _without_places(path.read_text(encoding="utf-8", errors="replace"), folder)
    lines = text.splitlines()[-_LINES:]
    return "\n".join(line[:_WIDTH] for line in lines if line.strip())


def _without_places(value: Any, folder: Path) -> Any:
    """Shorten the folders of whoever ran it, which are nobody's business, in all texts of a value.

    Args:
        value: as JSON takes it.
        folder: of the check.
    """
    if isinstance(value, dict):
        return {key: _without_places(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one, folder) for one in value]
    if not isinstance(value, str):
        return value
    places = {Path.home(): "~", ROOT: ".", folder: "OUTPUT"}
    if sys.prefix != sys.base_prefix:
        places[Path(sys.prefix)] = "VENV"
    places |= {place.resolve(): short for place, short in places.items()}
    # A folder within another comes first.
    for place in sorted(places, key=lambda one: len(one.parts), reverse=True):
        if len(place.parts) > 1:
            value = value.replace(str(place), places[place])
    return value


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
