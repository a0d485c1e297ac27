"""A run directory explained: what lies there, whether it is whole, what a training would do."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_centernet import checkpoint_files, run_directory
from ssd_centernet.checkpoint_files import BEST_DIR, LIST_NAME, UNFINISHED
from ssd_centernet.config.text import read_bindings
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.splits import list_splits
from ssd_centernet.files import is_temporary, leftovers, read_object
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted
from ssd_centernet.runs.lock import is_training
from ssd_centernet.runs.logs import RunLog
from ssd_centernet.training.log_files import numbers_of, recorded_recoveries, unreadable_lines
from ssd_centernet.training.mending import find_beginning

_SHOWN = 6
# Names in a run's directory that have a line of their own, or need none.
_KNOWN = {
    *(run_directory.CONFIG_NAME, LABEL_MAP_NAME, run_directory.INITIAL_WEIGHTS_NAME, LIST_NAME),
    *(run_directory.METRICS_NAME, run_directory.SESSIONS_NAME, run_directory.LOCK_NAME),
    *(run_directory.TRAIN_KIND, run_directory.EVAL_KIND, run_directory.PICTURES_DIR, BEST_DIR),
    *(run_directory.EVALUATION_DIR, run_directory.PREDICTIONS_DIR, run_directory.SUMMARY_DIR),
    *(run_directory.CONVERTED_DATA_DIR, run_directory.FAKE_DATA_DIR, run_directory.DAMAGED_DIR),
    "plugins",  # Profiles, as TensorBoard looks for them.
}


class Finding(NamedTuple):
    """What is said of one thing: `status` is ok, warn or FAIL; `advice` says what to do."""

    status: str
    name: str
    text: str
    advice: str = ""


def inspect_run(model_dir: str | os.PathLike) -> Iterator[Finding]:
    """Look at everything in a run's directory; nothing is changed.

    Args:
        model_dir: directory of the run; it may be damaged, and a training may be writing there.

    Yields:
        What was found, most important first.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    directory = Path(model_dir)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"there is no run directory {directory}: --model_dir must be what `ssd_centernet "
            "train` was given."
        )
    for name, look in _LOOKS.items():
        try:
            yield from look(directory)
        except Exception as error:  # Whatever is broken must not hide the other findings.
            text = f"cannot be read: {checkpoint_files.first_line(error)}"
            yield Finding("FAIL", name, text, "Look at the message, and at who may read the files.")


def _settings(directory: Path) -> Iterator[Finding]:
    path = directory / run_directory.CONFIG_NAME
    what = None
    try:
        bindings = read_bindings(path)
    except FileNotFoundError:
        what = f"{path.name} is missing"
    except (ValueError, RecursionError) as error:
        what = checkpoint_files.first_line(error)
    else:
        if "build_detector.model" not in bindings:
            what = f"{path.name} says nothing of a model; was it cut short?"
    if what is None:
        yield Finding("ok", "settings", f"{path.name}: {_network(bindings)}")
    else:
        advice = "Copy it there from a backup, or let the training go on: it writes the file anew."
        yield Finding("FAIL", "settings", what, advice)


def _classes(directory: Path) -> Iterator[Finding]:
    path = directory / LABEL_MAP_NAME
    if path.exists():
        names = LabelMap.from_pbtxt(path).names
        yield Finding("ok", "classes", f"{len(names)}: {_joined(names)}")
    else:
        advice = "Copy it there from the data that the run was trained on."
        yield Finding("FAIL", "classes", f"{path.name} is missing", advice)


def _network(bindings: dict[str, str]) -> str:
    """Say what the settings build, as far as they say it in the usual places."""
    model = bindings.get("build_detector.model", "").lstrip("@")
    found = [bindings.get(f"{model}.{name}", "") for name in ("backbone", "image_size")]
    found = [bindings.get(value.lstrip("%"), value).strip("@()") for value in found]
    told = [model or "no model", *(f"with {value}" for value in found[:1] if value)]
    size = f", images of {found[1].replace(', ', ' x ')}" if found[1] else ""
    return f"{' '.join(told)}{size}, {len(bindings)} settings"


def _training(directory: Path) -> Iterator[Finding]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lines that cannot be read are told below.
        run = RunLog.read(directory.name, directory)
    of = f" of {run.total_steps:,}" if run.total_steps else ""
    begun = sum(one.get("event") == "begin" for one in run.sessions)
    count = f", {begun} session{'s' * (begun != 1)}" if begun else ""
    yield Finding("ok", "training", f"{run.state}, at step {run.steps:,}{of}{count}")
    if run.windows or run.evaluations:
        text = f"{len(run.windows)} windows, {len(run.evaluations)} evaluations"
        if run.last:
            text += f"; the last at step {run.last['step']:,}: AP {run.last.get('AP', -1):.3f}"
        if run.best:
            text += f"; best at step {run.best['step']:,}: AP {run.best.get('AP', -1):.3f}"
        yield Finding("ok", "log", text)
    for one in recorded_recoveries(directory):
        text = f"not finite at step {one['step']:,}; went back to step {one['to_step']:,}"
        yield Finding("warn", "training", text, "Begin such a run with a lower --learning_rate.")
    for name in (run_directory.METRICS_NAME, run_directory.SESSIONS_NAME):
        if lines := unreadable_lines(directory / name):
            text = f"{name}: {counted(len(lines), 'line')} cannot be read: {_joined(lines)}"
            yield Finding(
                "warn", "log", text, "They are left out everywhere; nothing is to be done."
            )


def _lock(directory: Path) -> Iterator[Finding]:
    if not is_training(directory):
        yield Finding("ok", "lock", "no process of this machine trains here")
        return
    text = (directory / run_directory.LOCK_NAME).read_text(encoding="utf-8", errors="replace")
    yield Finding("ok", "lock", f"process {text.strip() or 'unknown'} trains here now")


def _checkpoints(directory: Path) -> Iterator[Finding]:
    latest, _ = checkpoint_files.listed(directory)
    prefixes = checkpoint_files.written(directory)
    for prefix in reversed(prefixes):
        role = ", the latest" if Path(prefix).name == latest else ""
        yield _checkpoint("checkpoint", prefix, role)
    known = {Path(prefix).name for prefix in prefixes}
    halves = {
        path.name.partition(".")[0]
        for path in directory.glob(f"{checkpoint_files.CHECKPOINT_PREFIX}-*.*")
        if path.suffix != checkpoint_files.DIGEST_SUFFIX
    }
    for name in sorted(halves - known):
        if checkpoint_files.step_of(name) is not None:
            advice = "Copy the others there again, or remove it; a training makes no use of it."
            yield Finding("warn", "checkpoint", f"{name} has not all its files", advice)


def _checkpoint(kind: str, prefix: str, role: str) -> Finding:
    name = Path(prefix).name
    parts = checkpoint_files.parts_of(prefix)
    size = _bytes(sum(part.stat().st_size for part in parts))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(parts[0].stat().st_mtime))
    text = f"{name}{role}: {size}, {when}"
    what = checkpoint_files.find_damage(prefix)
    if what is not None:
        advice = "A training sets it aside; copy it there again if there is a whole one."
        return Finding("warn", kind, f"{text}, damaged: {what}", advice)
    how = (
        "as its digests say" if checkpoint_files.has_digest(prefix) else "every tensor can be read"
    )
    return Finding("ok", kind, f"{text}, whole ({how})")


def _best(directory: Path) -> Iterator[Finding]:
    folder = directory / BEST_DIR
    prefixes = checkpoint_files.written(folder)
    if not prefixes:
        if folder.is_dir():
            yield Finding("warn", "best", f"{BEST_DIR}/ holds no checkpoint", f"Remove {folder}.")
        return
    found = _checkpoint("best", prefixes[-1], "")
    scores = numbers_of(read_object(folder / run_directory.BEST_METRICS_NAME))
    score = f", AP {scores['AP']:.3f}" if "AP" in scores else ""
    yield found._replace(text=f"{BEST_DIR}/{found.text}{score}")


def _results(directory: Path) -> Iterator[Finding]:
    folder = directory / run_directory.EVALUATION_DIR
    if folder.is_dir():
        content = read_object(folder / run_directory.EVALUATION_METRICS_NAME)
        score = numbers_of((content or {}).get("metrics")).get("AP")
        if content is None or score is None:
            name = run_directory.EVALUATION_METRICS_NAME
            advice = "Evaluate again: `ssd_centernet evaluate`."
            yield Finding("warn", "evaluation", f"{name} is missing or cannot be read", advice)
        else:
            of = [str(content[name]) for name in ("checkpoint", "split") if name in content]
            text = f"AP {score:.3f}" + (f" of {' on '.join(of)}" if of else "")
            yield Finding("ok", "evaluation", f"{text}; {_joined(_names(folder))}")
    folder = directory / run_directory.PREDICTIONS_DIR
    if folder.is_dir():
        drawings = len(list(folder.glob("*.png")))
        yield Finding("ok", "predictions", f"{drawings} drawings in {folder.name}/")


def _data(directory: Path) -> Iterator[Finding]:
    folder = directory / run_directory.CONVERTED_DATA_DIR
    if folder.is_dir():
        splits = ", ".join(
            f"{name} ({counted(len(files), 'file')})" for name, files in list_splits(folder).items()
        )
        yield Finding("ok", "data", f"{folder.name}/: {splits or 'no records'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = RunLog.read(directory.name, directory).facts.get("data_dir")
    if given is not None and Path(given) != folder.absolute():
        there = Path(given).is_dir()
        advice = "Give --data_dir where the data is now."
        text = f"trained on {given}" + ("" if there else ", which is not there")
        yield Finding("ok" if there else "warn", "data", text, advice)


def _leftovers(directory: Path) -> Iterator[Finding]:
    if is_training(directory):
        return  # What looks left over is being written.
    found = []
    for folder in [directory, *(path for path in directory.iterdir() if path.is_dir())]:
        found += leftovers(folder, older_than=0.0)  # None that a running command holds.
        found += [path for path in folder.iterdir() if _is_unfinished(path.name)]
    if found:
        names = sorted(path.relative_to(directory).as_posix() for path in found)
        text = f"{_joined(names)}: {_bytes(sum(map(_size, found)))} of killed commands"
        yield Finding(
            "warn", "leftovers", text, "The next training here removes what it knows to be."
        )
    folder = directory / run_directory.DAMAGED_DIR
    if folder.is_dir():
        text = f"{folder.name}/ holds {_joined(_names(folder))}: {_bytes(_size(folder))}"
        advice = f"These could not be read when the run went on. Remove {folder} to have the room."
        yield Finding("warn", "set aside", text, advice)


def _is_unfinished(name: str) -> bool:
    parts = (run_directory.NEW_BEST_DIR, run_directory.OLD_BEST_DIR)
    return name in parts or UNFINISHED.fullmatch(name) is not None


def _others(directory: Path) -> Iterator[Finding]:
    names = [
        name
        for name in _names(directory)
        if name.rstrip("/") not in _KNOWN
        and not _is_unfinished(name.rstrip("/"))
        and not is_temporary(name.rstrip("/"))
        and checkpoint_files.step_of(name.partition(".")[0]) is None
    ]
    if names:
        yield Finding("ok", "others", f"{_joined(names)}: no part of a run, and left alone")


def _room(directory: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(directory).free
    sizes = [
        sum(part.stat().st_size for part in checkpoint_files.parts_of(prefix))
        for prefix in checkpoint_files.written(directory)
    ]
    # It is complete before an old one goes, and so is the best one.
    needed = 2 * max(sizes, default=0)
    text = f"{_bytes(free)} free" + (f"; a save may take {_bytes(needed)}" if needed else "")
    advice = "Make room, or lower train.keep_checkpoints: a training stops when the disk is full."
    yield Finding("warn" if free < needed or free < 2**28 else "ok", "disk", text, advice)


def _resume(directory: Path) -> Iterator[Finding]:
    if is_training(directory):
        text = "nothing to resume while the run goes on"
        yield Finding("ok", "resume", text)
        return
    beginning = find_beginning(directory)
    if beginning.lost is not None:
        told, _, advice = beginning.lost.partition("Copy them")
        yield Finding("FAIL", "resume", told, f"Copy them{advice}")
    elif beginning.checkpoint is None:
        yield Finding("ok", "resume", "the same command begins anew: there is no checkpoint yet")
    else:
        step = checkpoint_files.step_of(beginning.checkpoint)
        text = f"the same command goes on from {beginning.checkpoint} (step {step:,})"
        yield Finding("warn" if beginning.bad or beginning.gone else "ok", "resume", text)


def _names(folder: Path) -> list[str]:
    return sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())


def _joined(values: Sequence) -> str:
    """List the first of some names or numbers, with what a terminal would obey made visible."""
    texts = [str(value) for value in values[:_SHOWN]]
    texts = [text if text.isprintable() else ascii(text) for text in texts]
    return ", ".join(texts) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _size(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


_LOOKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "settings": _settings,
    "classes": _classes,
    "training": _training,
    "lock": _lock,
    "checkpoint": _checkpoints,
    "best": _best,
    "resume": _resume,
    "evaluation": _results,
    "data": _data,
    "leftovers": _leftovers,
    "others": _others,
    "disk": _room,
}
