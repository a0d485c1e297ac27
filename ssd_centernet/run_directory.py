"""What lies in the directory of a run: the name of each file, and its checkpoints.

RUN/config.gin                the settings, which evaluate, predict and export read
RUN/mscoco_label_map.pbtxt    the classes
RUN/initial_weights.txt       what the run began with, weight by weight
RUN/ckpt-STEP.*               checkpoints; `checkpoint` is TensorFlow's list of them
RUN/ckpt-STEP.sha256          digests of a checkpoint's files
RUN/best/                     the best checkpoint, and its metrics.json
RUN/metrics.jsonl             windows of training and evaluations, one JSON object a line
RUN/sessions.jsonl            when processes began and ended to train here
RUN/tracker.json              what a tracker of experiments calls the run (--tracker)
RUN/train/, RUN/eval/         events for TensorBoard
RUN/pictures/                 the last pictures of inputs and predictions
RUN/evaluation/               metrics.json, detections.json, per_class.csv, report.html; and
                              checkpoints.jsonl, the numbers of one checkpoint a line
RUN/predictions/              what was found in image files: detections.json and drawings
RUN/summary/summary.json      the speed of the last call
RUN/data/                     records of annotations that the run was given as they are
RUN/damaged/                  files of checkpoints that could not be read when the run went on
RUN/.lock                     held by the process that trains here
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_centernet import checkpoint_files
from ssd_centernet.checkpoint_files import BEST_DIR, CHECKPOINT_PREFIX
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.labels import LabelMap

if TYPE_CHECKING:  # What only reads names and numbers of a run needs no tensorflow.
    import tensorflow as tf

CONFIG_NAME = "config.gin"
INITIAL_WEIGHTS_NAME = "initial_weights.txt"
NEW_BEST_DIR, OLD_BEST_DIR = f".{BEST_DIR}.new", f".{BEST_DIR}.old"
DAMAGED_DIR = "damaged"
BEST_METRICS_NAME = "metrics.json"
METRICS_NAME = "metrics.jsonl"
SESSIONS_NAME = "sessions.jsonl"
TRACKER_NAME = "tracker.json"
# Kinds of lines in metrics.jsonl, and folders of events for TensorBoard.
TRAIN_KIND, EVAL_KIND = "train", "eval"
PICTURES_DIR = "pictures"
INPUTS_NAME, PREDICTIONS_NAME = "inputs.png", "predictions.png"
EVALUATION_DIR = "evaluation"
EVALUATION_METRICS_NAME = "metrics.json"
EVALUATED_CHECKPOINTS_NAME = "checkpoints.jsonl"
DETECTIONS_NAME, PER_CLASS_NAME = "detections.json", "per_class.csv"
REPORT_NAME = "report.html"
PREDICTIONS_DIR = "predictions"
SUMMARY_DIR, SUMMARY_NAME = "summary", "summary.json"
FAKE_DATA_DIR = "fake_data"
CONVERTED_DATA_DIR = "data"
LOCK_NAME = ".lock"
# Two renames take far less.
_EXCHANGE_SECONDS = 0.2


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
    above = model_dir.parent
    if (above / CONFIG_NAME).is_file() and not (model_dir / CONFIG_NAME).exists():
        if model_dir.name == BEST_DIR or Path(f"{model_dir}.index").is_file():
            raise FileNotFoundError(
                f"{model_dir} is a checkpoint of the run {above}: give --model_dir={above} "
                f"--checkpoint={model_dir.name}."
            )
    if not model_dir.is_dir():
        raise FileNotFoundError(
            f"there is no run directory {model_dir}: --model_dir must be what `ssd_centernet "
            "train` was given."
        )
    best = _best_dir(model_dir)
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
    if not found:
        raise FileNotFoundError(
            f"there is no checkpoint in {model_dir}: did the training reach its first one "
            "(train.checkpoint_every)?"
        )
    raise FileNotFoundError(
        f"there is no checkpoint {checkpoint!r} in {model_dir}, which has {', '.join(found)}: set "
        "--checkpoint to one of these, or leave it out."
    )


def _best_dir(model_dir: Path) -> Path:
    """Return the folder of the best checkpoint, also between the two renames of its exchange."""
    best, new = model_dir / BEST_DIR, model_dir / NEW_BEST_DIR
    if best.is_dir() or not (model_dir / OLD_BEST_DIR).is_dir():
        return best
    # The new one is complete. A training that was killed here leaves it so.
    time.sleep(_EXCHANGE_SECONDS)
    return best if best.is_dir() or not new.is_dir() else new


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
        found = {Path(prefix).name: prefix for prefix in checkpoint_files.written(path)}
        last, _ = checkpoint_files.listed(path)
        latest = found.get(last or "") or next(reversed(found.values()), None)
    if latest is None:
        raise FileNotFoundError(
            f"no checkpoint at {path}: expected a run directory with '{CHECKPOINT_PREFIX}-STEP"
            ".index' files, its 'best' directory, or the prefix of one checkpoint."
        )
    return latest


def list_checkpoints(directory: str | Path) -> dict[int, str]:
    """Return step -> prefix of the checkpoints in a directory whose files are there, by step.

    One whose index TensorFlow is still writing is left out.
    """
    found = {checkpoint_files.step_of(path): path for path in checkpoint_files.written(directory)}
    return {step: path for step, path in found.items() if checkpoint_files.has_whole_index(path)}


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
    found = sorted(set(str(folder)) & set(checkpoint_files.WILDCARDS))
    if found:
        raise ValueError(
            f"{flag}={str(folder)!r} holds {' '.join(found)}, which TensorFlow takes for wildcards "
            f"when it looks for its files: {consequence}. Choose a name without * ? [ ] and "
            "backslash; spaces are allowed."
        )
