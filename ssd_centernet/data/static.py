"""Training batches computed once, written to files and read back as they are.

Each worker (rank) has its own folder, `worker_0`, `worker_1`, ..., with one file per batch and
`static.json`, which describes them and is written last: if it is there, the worker is complete.
Reading needs no decoding, augmentation or matching; after the last file the same images come again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import gin
import tensorflow as tf

from ssd_centernet.data import shards
from ssd_centernet.files import (
    mend_folder,
    put_folder,
    read_object,
    remove_leftovers,
    temporary_folder,
    write_atomically,
)
from ssd_centernet.labels import LabelMap

INFO_NAME = "static.json"
_READERS = 4
# Keys of nested fields stand in the files as TARGETS/classes.
_TARGETS = "targets"


def worker_folder(directory: str | os.PathLike, worker: int) -> Path:
    """Return the folder of a worker's files."""
    return Path(directory) / f"worker_{worker}"


def write_static_batches(
    batches: Iterable[dict],
    directory: str | os.PathLike,
    *,
    steps: int,
    label_map: LabelMap,
    worker: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int], Any] = lambda done: None,
) -> Path:
    """Write the first batches of a stream, one to a file, whole or not at all.

    Args:
        batches: training batches of static shape, see docs/architecture.md.
        directory: holds the folders of all workers.
        steps: number of batches, at least 1.
        label_map: the classes of the batches.
        worker: number of this worker, from 0.
        workers: number of workers that share the data.
        overwrite: whether to replace batches that are already there.
        progress: called with the number of batches written.

    Returns:
        The worker's folder: `train-BATCH-000001.tfrecord`, ... and `static.json`.

    Raises:
        ValueError: `steps` or `worker` out of range, or the stream ended early.
        FileExistsError: the folder exists, and `overwrite` is off.

    Source: docs/reference/ssd_resnet34.md, section 7.6
    """
    shards.check_range("steps", steps, 1)
    if not 0 <= worker < workers:
        raise ValueError(f"worker is {worker}; expected 0 <= worker < workers ({workers}).")
    folder = worker_folder(directory, worker)
    mend_folder(folder)
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f"{folder} exists already. Batches of two recipes must not be mixed: choose another "
            "output_dir, or set overwrite (--overwrite) to replace it."
        )
    remove_leftovers(directory, [folder.name])
    with temporary_folder(folder) as partial:
        info = _write(islice(iter(batches), steps), partial, steps, progress)
        info |= {"worker": worker, "workers": workers, "labels": label_map.to_categories()}
        write_atomically(partial / INFO_NAME, json.dumps(info, indent=1))
        put_folder(partial, folder)
    return folder


def _write(batches: Iterable[dict], folder: Path, steps: int, progress: Callable) -> dict:
    """Write the files of a worker and return their description."""
    fields: dict[str, dict] = {}
    written = 0
    for batch in batches:
        flat = _flat(batch)
        size = int(flat["image"].shape[0])
        features = {}
        for name, tensor in flat.items():
            value = tf.io.serialize_tensor(tensor).numpy()
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            fields[name] = {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
        example = tf.train.Example(features=tf.train.Features(feature=features))
        written += 1
        path = folder / _file_name(size, written)
        with tf.io.TFRecordWriter(os.fspath(path)) as writer:
            writer.write(example.SerializeToString())
        progress(written)
    if written < steps:
        raise ValueError(
            f"the stream ended after {written} batches, expected {steps}. "
            "Set fewer steps, or repeat the stream."
        )
    return {"batch_size": size, "steps": written, "fields": fields}


def _file_name(batch_size: int, number: int) -> str:
    return f"train-{batch_size}-{number:06d}.tfrecord"


def _flat(batch: dict) -> dict[str, tf.Tensor]:
    flat = {name: value for name, value in batch.items() if name != _TARGETS}
    flat |= {f"{_TARGETS}/{name}": value for name, value in batch.get(_TARGETS, {}).items()}
    return flat


def _nested(flat: dict[str, tf.Tensor]) -> dict:
    batch = {name: value for name, value in flat.items() if "/" not in name}
    targets = {
        name.removeprefix(f"{_TARGETS}/"): value for name, value in flat.items() if "/" in name
    }
    return {**batch, _TARGETS: targets} if targets else batch


@gin.register
def static_batches(
    data_dir: str,
    *,
    batch_size: int,
    label_map: LabelMap,
    image_size: tuple[int, int] | None = None,
    make_targets: Callable | None = None,
    rank: int = 0,
    world_size: int = 1,
    start_example: int = 0,
    directory: str | None = None,
    **unused: Any,
) -> tf.data.Dataset:
    """Make the endless stream of batches that `ssd_centernet make_static` wrote.

    It replaces `training_batches`: rank r reads the folder `worker_r`, in the order in which the
    batches were made, again and again. Augmentation, seed and order are those of the files.

    Args:
        data_dir: folder that holds the workers' folders, when `directory` is not given.
        batch_size: images per batch of this process; that of the files.
        label_map: the classes of the run; those of the files.
        image_size: (height, width) that the network expects; that of the files.
        make_targets: as in `training_batches`; says which targets the files must hold.
        rank: number of this process.
        world_size: number of processes, at most the number of workers.
        start_example: examples of this process already consumed, >= 0.
        directory: folder that holds the workers' folders.
        **unused: other options of `training_batches`; the files fix them.

    Returns:
        Dataset of batches as `training_batches` gives them.

    Raises:
        FileNotFoundError: no complete files of this worker.
        ValueError: files of another batch size, image size, label map or kind of targets, or images
            of several sizes are asked for.

    Source: docs/reference/ssd_resnet34.md, section 7.6
    """
    if unused.get("at_sizes"):
        raise ValueError(
            "train.image_sizes draws a size for each batch, but files of make_static have one: "
            "set it to None, or train.batches = @training_batches."
        )
    folder = worker_folder(directory or data_dir, rank)
    info = _read_info(folder, rank, world_size)
    fields = info["fields"]
    _check(folder, info, batch_size, label_map, image_size)
    _check_targets(folder, fields, make_targets)
    names = _file_names(folder, info)
    _check_first(names[0], folder / INFO_NAME, fields)
    paths = tf.constant(names)
    first = start_example // batch_size
    order = tf.data.Dataset.range(first, tf.int64.max).map(lambda i: paths[i % len(names)])
    # Each file has one record, so that reading several at once leaves their order as it is.
    records = order.interleave(
        tf.data.TFRecordDataset,
        cycle_length=_READERS,
        num_parallel_calls=_READERS,
        deterministic=True,
    )
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in fields}

    def parse(serialized: tf.Tensor) -> dict:
        values = tf.io.parse_single_example(serialized, features)
        return _nested(
            {
                name: tf.ensure_shape(tf.io.parse_tensor(values[name], at["dtype"]), at["shape"])
                for name, at in fields.items()
            }
        )

    options = tf.data.Options()
    # Ranks are told apart here; a distribution strategy must not do it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    batches = records.map(parse, num_parallel_calls=2, deterministic=True)
    return batches.prefetch(2).with_options(options)


def _read_info(folder: Path, rank: int, world_size: int) -> dict:
    info = read_object(folder / INFO_NAME)
    if info is None and not (folder / INFO_NAME).exists():
        found = sorted(path.parent.name for path in folder.parent.glob(f"worker_*/{INFO_NAME}"))
        raise FileNotFoundError(
            f"there are no static batches in {folder} for rank {rank} of {world_size}; there: "
            f"{', '.join(found) or 'none'}. Write them with `ssd_centernet make_static "
            f"--workers={world_size}`, set static_batches.directory to their folder, or train "
            "without --static."
        )
    if info is None or not _is_whole(info):
        raise ValueError(_damaged(folder / INFO_NAME))
    if world_size > info["workers"]:
        raise ValueError(
            f"the static batches of {folder.parent} are for {info['workers']} worker(s), but the "
            f"run has {world_size} processes. Write them again: make_static --workers={world_size}."
        )
    return info


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged: it is not what make_static wrote there. Copy the folder again, or "
        "write it again with `ssd_centernet make_static --overwrite`."
    )


def _is_whole(info: dict) -> bool:
    """Tell whether a description has all that is read of it, of the right kinds."""
    try:
        fields = info["fields"].values()
        for at in fields:
            tf.as_dtype(at["dtype"])
        sides = [side for at in fields for side in at["shape"]]
        counts = [info[name] for name in ("workers", "steps", "batch_size")]
        return (
            all(type(number) is int and number >= 0 for number in (*sides, *counts))
            and min(counts) >= 1
            and len(info["fields"]["image"]["shape"]) == 4
            and bool(_names(info["labels"]))
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _file_names(folder: Path, info: dict) -> list[str]:
    """Return the paths of the files of a worker; refuse others than the description counts."""
    pattern = _file_name(info["batch_size"], 0).replace("000000", "*")
    found = len(list(folder.glob(pattern)))
    if found > info["steps"]:
        raise ValueError(
            f"{folder / INFO_NAME} counts {info['steps']} files, but {found} are there: they are "
            "of two calls, or it is damaged. Write them again with `make_static --overwrite`."
        )
    numbers = range(1, info["steps"] + 1)
    paths = (os.fspath(folder / _file_name(info["batch_size"], number)) for number in numbers)
    missing = next((path for path in paths if not os.path.exists(path)), None)
    if missing:
        raise FileNotFoundError(
            f"{missing} is missing, one of {info['steps'] - found} of {info['steps']} files that "
            f"{INFO_NAME} counts. A copy was probably interrupted: copy the folder again, or write "
            "it again with `make_static`."
        )
    return [os.fspath(folder / _file_name(info["batch_size"], number)) for number in numbers]


def _check_first(path: str, info_path: Path, fields: dict) -> None:
    """Refuse a description that is not that of the first file."""
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in fields}
    try:
        with tf.device("cpu"):
            record = next(iter(tf.data.TFRecordDataset(path)))
            values = tf.io.parse_single_example(record, features)
            for name, at in fields.items():
                found = tf.io.parse_tensor(values[name], at["dtype"]).shape.as_list()
                if found != at["shape"]:
                    raise ValueError(f"{name} has the shape {found}, not {at['shape']}")
    except (tf.errors.OpError, ValueError, StopIteration) as error:
        reason = str(getattr(error, "message", error)).split("\n")[0].rpartition("}} ")[2]
        reason = reason.split(" [Op:")[0]
        raise ValueError(
            f"{path} does not hold what {info_path} says: {reason or 'it is empty'}. One of the "
            "two is damaged: copy the folder again, or write it again with `make_static`."
        ) from error


def _check(
    folder: Path, info: dict, batch_size: int, label_map: LabelMap, image_size: tuple | None
) -> None:
    """Raise ValueError if the files are not for this run."""
    size = tuple(info["fields"]["image"]["shape"][1:3])
    wanted = {
        "batch size": (info["batch_size"], batch_size, "--batch_size"),
        "image size": (size, tuple(image_size or size), "IMAGE_SIZE"),
        "label map": (_names(info["labels"]), _names(label_map.to_categories()), "--data_dir"),
    }
    for name, (have, want, setting) in wanted.items():
        if have != want:
            raise ValueError(
                f"the {name} of the static batches in {folder} is {have}, but the run's is "
                f"{want}. Set {setting} to theirs, or write them again with make_static and the "
                "settings of the run."
            )


def _names(categories: list[dict]) -> str:
    """Return ids and names of categories, in their order, for people to compare."""
    return ", ".join(f"{one['id']} {one['name']!r}" for one in categories)


def _check_targets(folder: Path, fields: dict, make_targets: Callable | None) -> None:
    """Raise ValueError if the files hold other targets than the run's criterion makes."""
    have = {name: at["shape"][1:] for name, at in fields.items() if "/" in name}
    want = {}
    if make_targets is not None:
        none = (tf.zeros([0, 4]), tf.zeros([0], tf.int32), tf.zeros([0], tf.bool))
        made = make_targets(*none, extent=tf.ones([2]))
        want = {f"{_TARGETS}/{name}": value.shape.as_list() for name, value in made.items()}
    if have != want:
        raise ValueError(
            f"the static batches in {folder} hold the targets {have}, but the run needs {want}: "
            "they are of another recipe or of other anchors. Write them again with the run's "
            "recipe, or use theirs; train.targets_in_pipeline must be the same for both."
        )
