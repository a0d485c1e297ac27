"""What lies in the directory of a run: the name of each file, and its checkpoints.

RUN/config.gin                the settings, which evaluate, predict and export read
RUN/mscoco_label_map.pbtxt    the classes
RUN/initial_weights.txt       what the run began with, weight by weight
RUN/ckpt-STEP.*               checkpoints; `checkpoint` is TensorFlow's list of them
RUN/best/                     the best checkpoint, and its metrics.json
RUN/metrics.jsonl             windows of training and evaluations, one JSON object a line
RUN/sessions.jsonl            when processes began and ended to train here
RUN/train/, RUN/eval/         events for TensorBoard
RUN/pictures/                 the last pictures of inputs and predictions
RUN/evaluation/               metrics.json, detections.json, per_class.csv, report.html
RUN/predictions/              what was found in image files: detections.json and drawings
RUN/summary/summary.json      the speed of the last call
RUN/data/                     records of annotations that the run was given as they are
RUN/.lock                     held by the process that trains here
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.labels import LabelMap

if TYPE_CHECKING:  # What only reads names and numbers of a run needs no tensorflow.
    import tensorflow as tf

CONFIG_NAME = "config.gin"
INITIAL_WEIGHTS_NAME = "initial_weights.txt"
CHECKPOINT_PREFIX = "ckpt"
BEST_DIR = "best"
NEW_BEST_DIR, OLD_BEST_DIR = f".{BEST_DIR}.new", f".{BEST_DIR}.old"
BEST_METRICS_NAME = "metrics.json"
METRICS_NAME = "metrics.jsonl"
SESSIONS_NAME = "sessions.jsonl"
# Kinds of lines in metrics.jsonl, and folders of events for TensorBoard.
TRAIN_KIND, EVAL_KIND = "train", "eval"
PICTURES_DIR = "pictures"
INPUTS_NAME, PREDICTIONS_NAME = "inputs.png", "predictions.png"
EVALUATION_DIR = "evaluation"
EVALUATION_METRICS_NAME = "metrics.json"
DETECTIONS_NAME, PER_CLASS_NAME = "detections.json", "per_class.csv"
REPORT_NAME = "report.html"
PREDICTIONS_DIR = "predictions"
SUMMARY_DIR, SUMMARY_NAME = "summary", "summary.json"
_WILDCARDS = "*?[]\\"
FAKE_DATA_DIR = "fake_data"
CONVERTED_DATA_DIR = "data"
LOCK_NAME = ".lock"


def choose_checkpoint(model_dir: str | Path, checkpoint: str | None = None) -> str:
    """Find the checkpoint of a run that somebody asks for.

    Args:
        model_dir: directory of the run.
        checkpoint: `best`, `latest`, the path of a checkpoint or of another run, or the name of a
            checkpoint of this run such as `ckpt-500`; None is the best one, or the latest where
            none was kept as the best.

    Returns:
        The checkpoint's prefix.

    Raises:
        FileNotFoundError: there is no such run or checkpoint; lists those there are.
    """
    model_dir = Path(model_dir)
    if not model_dir.is_dir():
        raise FileNotFoundError(
            f"there is no run directory {model_dir}: --model_dir must be what `ssd_centernet "
            "train` was given."
        )
    best = model_dir / BEST_DIR
    if checkpoint is None:
        checkpoint = "best" if best.is_dir() else "latest"
    places = {"best": [best], "latest": [model_dir]}
    for place in places.get(checkpoint, [Path(checkpoint), model_dir / checkpoint]):
        try:
            return find_checkpoint(place)
        except FileNotFoundError:
            continue
    found = sorted(path.stem for path in model_dir.glob("*.index"))
    if not found and not (model_dir / CONFIG_NAME).exists() and not best.is_dir():
        raise FileNotFoundError(
            f"{model_dir} is not a run directory: it has no {CONFIG_NAME} and no checkpoint. Give "
            "the folder that `ssd_centernet train` was given as --model_dir."
        )
    found += ["best"] if best.is_dir() else []
    raise FileNotFoundError(
        f"there is no checkpoint {checkpoint!r} in {model_dir}; there is: "
        f"{', '.join(found) or 'none, did the training reach its first checkpoint?'}. Set "
        "--checkpoint to 'best', 'latest' or one of these."
    )


def find_checkpoint(path: str | Path) -> str:
    """Find a checkpoint.

    Args:
        path: a run directory (its latest checkpoint), its `best` directory, or a checkpoint prefix.

    Returns:
        The checkpoint's prefix.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if Path(f"{path}.index").exists():
        return str(path)
    latest = None
    if path.is_dir():
        latest = _last_of_list(path) if _has_list(path) else None
        latest = latest or (_written(path) or [None])[-1]
    if latest is None:
        raise FileNotFoundError(
            f"no checkpoint at {path}: expected a run directory with '{CHECKPOINT_PREFIX}-STEP"
            ".index' files, its 'best' directory, or the prefix of one checkpoint."
        )
    return latest


def has_checkpoint(directory: str | Path) -> bool:
    """Tell whether a directory holds a checkpoint of a run."""
    return any(Path(directory).glob(f"{CHECKPOINT_PREFIX}-*.index"))


def check_classes(path: str | Path, label_map: LabelMap) -> None:
    """Refuse to go on from a run whose classes are others, or the same in another order.

    With as many classes every weight fits, and nothing else would tell.

    Args:
        path: run directory, or a checkpoint in one. Where no run is yet, nothing is refused.
        label_map: of the data.

    Raises:
        ValueError: the names of the classes differ.
    """
    path = Path(path)
    holder = path if path.is_dir() else path.parent
    folder = holder.parent if holder.name == BEST_DIR else holder
    saved = folder / LABEL_MAP_NAME
    if not saved.exists() or not has_checkpoint(holder):
        return
    trained = LabelMap.from_pbtxt(saved)
    if trained.names != label_map.names:
        raise ValueError(
            f"the run in {folder} has {trained.describe()}; the data has {label_map.describe()}. "
            "A run goes on with the classes that it began with, in their order: give the data of "
            "the run, or another --model_dir with --fine_tune_checkpoint, which takes over the "
            "weights of classes by their names."
        )


def named_weights(detector: tf.Module) -> dict[str, tf.Variable]:
    """Names all weights and moving statistics, such as `stem_conv/kernel`.

    Checkpoints are keyed by these names and not by the attributes of Python objects, so that a
    change of the code does not orphan them.

    Raises:
        ValueError: two variables share a name.
    """
    weights: dict[str, tf.Variable] = {}
    for variable in detector.variables:
        name = variable.name.removesuffix(":0")
        if name in weights:
            raise ValueError(f"two variables are named {name!r}; name the layers differently.")
        weights[name] = variable
    return weights


def refuse_wildcards(folder: str | Path, flag: str, consequence: str) -> None:
    """Refuse a folder in which TensorFlow would not find its own files again.

    Args:
        folder: to write to.
        flag: that names it.
        consequence: what could not be done with it.

    Raises:
        ValueError: its name holds a wildcard.
    """
    found = sorted(set(str(folder)) & set(_WILDCARDS))
    if found:
        raise ValueError(
            f"{flag}={str(folder)!r} holds {' '.join(found)}, which TensorFlow takes for wildcards "
            f"when it looks for its files: {consequence}. Choose a name without * ? [ ] and "
            "backslash; spaces are allowed."
        )


def open_name(prefix: str) -> tuple[str, tempfile.TemporaryDirectory | None]:
    """Find a name under which TensorFlow reads a checkpoint, whatever its folder is called.

    TensorFlow looks for the files of a checkpoint as for a pattern, in which * ? [ ] mean others.

    Args:
        prefix: of the checkpoint's files.

    Returns:
        The prefix, or one of links to the files; and the folder of these links, which must not be
        given up before all is read, or None.
    """
    if not set(prefix) & set(_WILDCARDS):
        return prefix, None
    folder = tempfile.TemporaryDirectory(prefix="checkpoint")
    directory, name = Path(prefix).absolute().parent, Path(prefix).name
    for path in directory.iterdir():
        if path.name.startswith(f"{name}."):
            (Path(folder.name) / f"linked{path.name.removeprefix(name)}").symlink_to(path)
    return str(Path(folder.name) / "linked"), folder


def mend_list(directory: Path) -> None:
    """Write the list of checkpoints anew where it is lost: a run must not begin again for that."""
    import tensorflow as tf

    paths = _written(directory)
    if _has_list(directory) or not (paths or (directory / "checkpoint").exists()):
        return
    (directory / "checkpoint").unlink(missing_ok=True)
    if paths:
        times = [os.path.getmtime(f"{path}.index") for path in paths]
        tf.compat.v1.train.update_checkpoint_state(
            str(directory), paths[-1], paths, all_model_checkpoint_timestamps=times
        )


def mend_best(directory: Path) -> None:
    """Put the best checkpoint back where a kill came between the two renames of its exchange."""
    if (directory / OLD_BEST_DIR).exists() and not (directory / BEST_DIR).exists():
        # The new one was complete before the old one was moved away.
        (directory / NEW_BEST_DIR).rename(directory / BEST_DIR)
    for leftover in (NEW_BEST_DIR, OLD_BEST_DIR):
        shutil.rmtree(directory / leftover, ignore_errors=True)


def damaged(path: str, error: Exception) -> ValueError:
    """Return the error to raise for files that cannot be read.

    Nothing is to be deleted for it: what cannot be read here may be whole.

    Args:
        path: prefix of the checkpoint's files.
        error: of TensorFlow.
    """
    directory, name = Path(path).parent, Path(path).name
    others = [Path(other).name for other in _written(directory) if Path(other).name != name]
    advice = (
        f"Download or copy {name}.* there again, whole; in a run without another checkpoint move "
        "them to another folder, and it begins anew."
    )
    if others:
        advice = f"Move the files {name}.* out of {directory}; {others[-1]} is used then."
    elif directory.name == BEST_DIR:
        advice = f"Move {directory} to another folder; the run's latest checkpoint is used then."
    state = _state(path)
    return ValueError(f"checkpoint {path} is damaged: {first_line(error)} ({state}). {advice}")


def _state(prefix: str) -> str:
    """Say whether all files of a checkpoint are there."""
    parts = list(Path(prefix).parent.glob(f"{glob.escape(Path(prefix).name)}.data-*-of-*"))
    count = {int(part.name.rpartition("-")[2]) for part in parts}
    if not Path(f"{prefix}.index").exists() or not count:
        return "a file is missing"
    if len(parts) < max(count):
        return f"{len(parts)} of {max(count)} data files are there"
    empty = [part.name for part in (Path(f"{prefix}.index"), *parts) if not part.stat().st_size]
    return f"{empty[0]} is empty" if empty else "all its files are there; was the copy cut short?"


def is_damage(error: Exception) -> bool:
    """Tell files that cannot be read from a checkpoint of something else."""
    return bool(re.search(r"bytes than requested|sstable|No such file|[Cc]hecksum", str(error)))


def _last_of_list(directory: Path) -> str:
    """Return the checkpoint that TensorFlow's list calls the latest."""
    import tensorflow as tf

    # TensorFlow's own search takes the name of the folder for a pattern.
    state = tf.train.get_checkpoint_state(str(directory))
    return str(directory / Path(state.model_checkpoint_path).name)


def _has_list(directory: Path) -> bool:
    """Whether the file `checkpoint`, TensorFlow's list, names a checkpoint that is there."""
    import tensorflow as tf

    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:  # Empty after a crash of the machine, or edited.
        return False
    names = {Path(path).name for path in _written(directory)}
    return state is not None and Path(state.model_checkpoint_path).name in names


def _written(directory: Path) -> list[str]:
    """Prefixes of the checkpoints in a directory whose files are there, by step."""
    steps = {}
    for index in directory.glob(f"{CHECKPOINT_PREFIX}-*.index"):
        step = index.stem.removeprefix(f"{CHECKPOINT_PREFIX}-")
        if step.isdigit() and any(directory.glob(f"{index.stem}.data-*")):
            steps[int(step)] = str(index.with_suffix(""))
    return [steps[step] for step in sorted(steps)]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return str(error).strip().splitlines()[0][:300]
