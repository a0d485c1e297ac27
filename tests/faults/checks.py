"""What must be as after an undisturbed run, and what must hold in each state that a kill leaves."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.harness import Check, Content, files_of
from tests.faults.states import State

# --- what must be as after an undisturbed run --------------------------------------------------


def below(state: State, folder: str) -> Content:
    """Return the files of a folder."""
    return {name: data for name, data in files_of(state).items() if name.startswith(f"{folder}/")}


def exported(state: State) -> Content:
    """Return an export without what TensorFlow draws by lot."""
    files = files_of(state)
    # The card says how large the files are, with that one.
    card = json.loads(files["model/model_card.json"])
    del card["bytes"]
    return {**files, "model/model_card.json": card, "model/saved_model/fingerprint.pb": None}


def reported(state: State) -> Content:
    """Return pages without the minute in which each was written."""
    minute = re.compile(rb"As of \d{4}-\d\d-\d\d \d\d:\d\d:")
    return {name: minute.sub(b"As of a minute:", data) for name, data in files_of(state).items()}


def archived(state: State) -> Content:
    """Return what zip archives hold, without the times in them."""
    found = {}
    for name, data in files_of(state).items():
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        found[name] = config, weights
    return found


def trained(state: State) -> Content:
    """Return weights, evaluations and settings of a run, without times and logs of sessions."""
    from ssd_centernet.training.log_files import recorded_metrics

    files = {
        name: data
        for name, data in files_of(state).items()
        if not name.startswith(("train/", "eval/", "ckpt-", "best/ckpt-"))
        and Path(name).name not in ("sessions.jsonl", "checkpoint")
    }
    with _written(state) as folder:
        windows, evaluations = recorded_metrics(folder)
        files |= {
            str(path.relative_to(folder)): _variables(path.with_suffix(""))
            for path in folder.rglob("ckpt-*.index")
        }
    timeless = [{k: v for k, v in one.items() if k != "time"} for one in evaluations]
    files["metrics.jsonl"] = ([one["step"] for one in windows][-1:], timeless)
    return files


# The only run of the study.
STUDIED = "base/seed0"


def studied(state: State) -> Content:
    """Return the run of a study as `trained` does, and its tables without what it took.

    What a killed study took was measured by nobody.
    """
    files = files_of(state)
    content = json.loads(files["ablation.json"])
    for one in (*content["variants"].values(), *content["variants"]["base"]["runs"]):
        for name in ("minutes", "processor_minutes"):
            del one[name]
    return {
        **trained(state.below(STUDIED)),
        "ablation.json": content,
        "ablation.md": files["ablation.md"].partition(b"| mean of a run")[0],
    }


def _variables(checkpoint: Path) -> Content | str:
    """Return the values of a checkpoint without TensorFlow's count of how often it was saved."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
    except tf.errors.OpError as error:
        return f"unreadable: {error}"
    names = sorted(reader.get_variable_to_shape_map())
    values = {name: reader.get_tensor(name) for name in names if "save_counter" not in name}
    return {
        name: value.tobytes() if hasattr(value, "tobytes") else value
        for name, value in values.items()
        if not name.startswith("_CHECKPOINTABLE")
    }


# --- what must hold in every state -------------------------------------------------------------


def together(seal: str, *, always: bool = False) -> Check:
    """Make a check that files beside one another are of the same call.

    Args:
        seal: where it is there, all files of its folder are of the call that wrote it.
        always: whether it must be there at every moment.
    """
    folder = str(Path(seal).parent)

    def check(state: State, start: State, end: State) -> str | None:
        files = files_of(state)
        if seal not in files:
            return f"there is no {seal} any more" if always else None

        def held(one: State) -> Content:
            return files_of(one) if folder == "." else below(one, folder)

        got, wholes = held(state), (held(start), held(end))
        if got in wholes or any(_is_within(got, one, seal) for one in wholes):
            return None
        told = {name: _which(data, name, start, end) for name, data in got.items()}
        return f"{seal} stands beside files of another call: {told}"

    return check


def _is_within(got: Content, one: Content, seal: str) -> bool:
    """Whether all that one call wrote is there; drawings of an earlier one may be left."""
    return all(got.get(name) == data for name, data in one.items()) and seal in one


def _which(data: bytes, name: str, start: State, end: State) -> str:
    found = [
        word for word, state in (("old", start), ("new", end)) if files_of(state).get(name) == data
    ]
    return " and ".join(found) or "neither"


def evaluation_is_whole(state: State, start: State, end: State) -> str | None:
    """Check that the numbers of a run's evaluation are those of the detections beside them."""
    files = files_of(state)
    if "evaluation/metrics.json" not in files:
        return None
    told = json.loads(files["evaluation/metrics.json"])["num_detections"]
    there = len(json.loads(files.get("evaluation/detections.json", b"[]")))
    return None if told == there else f"metrics.json of {told} detections beside {there}"


def pictures_are_whole(state: State, start: State, end: State) -> str | None:
    """Check that the pictures of an annotation file are those that it was written for."""
    files = files_of(state)
    for split in ("train", "val"):
        truth = f"annotations/instances_{split}.json"
        if truth not in files:
            continue
        for whole in map(files_of, (start, end)):
            if whole.get(truth) == files[truth]:
                break
        names = [f"{split}/{one['file_name']}" for one in json.loads(files[truth])["images"]]
        other = [name for name in names if files.get(name) != whole[name]]
        if other:
            return f"{truth} is there without its pictures {other}"
    return None


def records_are_of_one(split: str) -> Check:
    """Make a check that what is read of a split is all old, all new, or refused."""

    def check(state: State, start: State, end: State) -> str | None:
        got = _read(state, split)
        if got is None or got in (_read(start, split), _read(end, split)):
            return None
        return f"records of two conversions are read: {got}"

    return check


def _read(state: State, split: str) -> object:
    """Read records with their classes and the ground truth; None where they are refused."""
    from ssd_centernet.cli._errors import message_for_user
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.data.shards import RecordSource, read_records
    from ssd_centernet.evaluation.detector import split_ground_truth

    with _written(state) as folder:
        try:
            labels = load_label_map(folder)
            source = RecordSource(str(folder), split, 0, 1, True, "object")
            source.check(labels)
            truth = split_ground_truth(folder, split, labels)
            parse = source.parser(labels)
            found = {}
            for record in read_records(source.files):
                one = parse(record)
                names = [labels.names[number] for number in one["classes"].numpy()]
                boxes = one["boxes"].numpy().tolist()
                found[int(one["source_id"])] = list(zip(names, boxes, strict=True))
            return found, truth.num_images, truth.num_objects
        except Exception as error:
            if message_for_user(error) is None:
                raise
            return None


@contextlib.contextmanager
def _written(state: State) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="state") as folder:
        state.write(Path(folder))
        yield Path(folder)
