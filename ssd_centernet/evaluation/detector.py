"""Evaluation of a detector on a split: detections of every image, their scores, and the losses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.directory import annotations_path, raw_annotations_path
from ssd_centernet.data.epochs import as_written
from ssd_centernet.data.scan import Summary
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.plain_text import counted
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.runtime.signals import Stopped, interruptible, unhurried

# For the images that other processes still have when a signal comes to one of them alone.
_OTHERS_SECONDS = 60.0


def detection_step(
    detector: Detector, *, with_losses: bool = False
) -> Callable[[dict], tuple[dict, dict]]:
    """Make the traced function of one evaluation batch.

    Args:
        detector: the model.
        with_losses: whether the loss parts are computed too.

    Returns:
        A function from a batch (see docs/architecture.md) to (Detections, loss parts).
    """

    @tf.function(autograph=False)
    def step(batch: dict) -> tuple[dict, dict]:
        outputs = detector(batch["image"], training=False)
        parts = detector.compute_losses(outputs, batch) if with_losses else {}
        views = {"views": batch["views"]} if "views" in batch else {}
        prepared = batch["image"], batch["extent"]
        return detector.detect_prepared(*prepared, outputs=outputs, **views), parts

    return step


def split_ground_truth(data_dir: str | Path, split: str, label_map: LabelMap) -> CocoGroundTruth:
    """Load a split's ground truth: the annotations beside the records, or the records themselves.

    Args:
        data_dir: folder with the record files.
        split: prefix of their names.
        label_map: label map of the data.

    Returns:
        The ground truth of every image of the split, also of those without objects.

    Raises:
        FileNotFoundError: no such data.
        ValueError: records, annotations and label map are not of one conversion.
    """
    source = shards.RecordSource(data_dir, split, 0, 1, keep_empty=True, crowd="ignore")
    source.check(label_map)
    if not any(len(one.boxes) for one in source.summaries):
        raise ValueError(
            f"the record files of {split!r} in {data_dir} hold no record (such as "
            f"{Path(source.files[0]).name}): a copy or a conversion was probably interrupted. "
            "Write them again, or give another --eval_split."
        )
    path, raw = annotations_path(data_dir, split), raw_annotations_path(data_dir, split)
    if path is not None or raw is not None:
        truth = CocoGroundTruth.load(path or raw)
        missing = _check_same_data(
            truth, source, label_map, str(path or raw), whole=path is not None
        )
        truth = dataclasses.replace(truth, notes={**truth.notes, **missing})
    else:
        parse = as_written(lambda serialized: records.parse_example(serialized, label_map))
        examples = shards.read_records(source.files).map(parse)
        truth = CocoGroundTruth.from_examples(
            _each_once(examples.as_numpy_iterator(), source.summaries),
            names=label_map.names,
            ids=label_map.ids,
        )
    flat = sum(int(one.flat.sum()) for one in source.summaries)
    notes = {"boxes of the records have no area and are left out": flat} if flat else {}
    # A detector that was trained on several data sets has classes that this one does not have.
    categories = tuple(label_map.to_categories())
    return dataclasses.replace(truth, categories=categories, notes={**truth.notes, **notes})


def _each_once(examples: Iterable[dict], held: Sequence[Summary]) -> Iterator[dict]:
    """Yield the examples of record files; refuse two images of one id."""
    places = ((one.path, record) for one in held for record in range(len(one.boxes)))
    seen: dict[int, tuple[str, int]] = {}
    for example, place in zip(examples, places, strict=True):
        image_id = int(example["source_id"])
        path, record = seen.setdefault(image_id, place)
        if (path, record) != place:
            raise ValueError(
                f"{place[0]}: record {place[1]} has the image/source_id {image_id}, which record "
                f"{record} of {path} has too; expected another one for each picture, as the "
                "evaluation takes each once. Were two data sets joined? Number the pictures anew."
            )
        yield example


def _check_same_data(
    truth: CocoGroundTruth,
    source: shards.RecordSource,
    label_map: LabelMap,
    path: str,
    *,
    whole: bool,
) -> dict[str, int]:
    """Refuse annotations whose classes, images or objects are not those of the records.

    Args:
        truth: the annotations.
        source: the records.
        label_map: of the data.
        path: of the annotations, for messages.
        whole: whether the records hold all of them; else they may hold fewer, which is told.

    Returns:
        What the records lack: sentence -> number.
    """
    again = "They are of two conversions: convert the split again with --overwrite."
    names = {category["id"]: category["name"] for category in truth.categories}
    known = dict(zip(label_map.ids, label_map.names, strict=True))
    for category_id, name in names.items():
        if known.get(category_id) != name:
            raise ValueError(
                f"{path} calls the category {category_id} {name!r}, but the label map calls it "
                f"{known.get(category_id)!r}. {again}"
            )
    held = source.summaries
    counts = {
        "images": (truth.num_images, sum(len(one.boxes) for one in held)),
        "objects": (len(truth.ids), sum(int((one.boxes + one.flat).sum()) for one in held)),
    }
    if not whole and all(listed >= found for listed, found in counts.values()):
        return {
            f"{what} of {path} are in no record": listed - found
            for what, (listed, found) in counts.items()
            if listed > found
        }
    for what, (listed, found) in counts.items():
        if listed != found:
            raise ValueError(
                f"{path} lists {listed} {what}, but the record files of {source.split} hold "
                f"{found}. {again}"
            )
    parts = [[-1 if label is None else label for label, _ in one.classes] for one in held]
    labels = np.concatenate(
        [np.array(ids, np.int64)[one.kinds] for ids, one in zip(parts, held, strict=True)]
    )
    if len(labels) == len(truth.ids) and (labels >= 0).all():
        for category_id in names:
            listed = int((truth.object_category_ids == category_id).sum())
            if listed != (found := int((labels == category_id).sum())):
                raise ValueError(
                    f"{path} lists {counted(listed, 'object')} of the category {category_id} "
                    f"({names[category_id]!r}), but the record files of {source.split} hold "
                    f"{found}. {again}"
                )
    return {}


def fitting_batch_size(batch_size: int, images: int, processes: int) -> int:
    """Return a batch size that gives a small split whole batches, which the losses need.

    Args:
        batch_size: images per batch of one process, as asked for.
        images: number of images of the split.
        processes: number of processes that share the images.

    Returns:
        `batch_size`, or the number of images of one process if that is smaller.
    """
    return max(1, min(batch_size, images // processes))


def evaluate_detector(
    detector: Detector,
    batches: Iterable[dict],
    evaluator: CocoEvaluator,
    *,
    step: Callable[[dict], tuple[dict, dict]] | None = None,
    progress: Callable[[int], None] | None = None,
    communicator: Communicator | None = None,
) -> tuple[CocoResult | None, dict[str, float]]:
    """Detect on every image of a split and score the detections.

    Args:
        detector: the model.
        batches: from `data.pipeline.evaluation_batches`: every image once, fillers with source id
            -1; each of several processes has its share.
        evaluator: for the split's ground truth; it is reset first.
        step: a function of `detection_step`, to share its trace between evaluations.
        progress: called with the number of images after every batch.
        communicator: connects the processes that evaluate together; all call this function.

    Returns:
        The result, with the seconds of `network` (input, losses and decoding with it) and `metric`,
        None on all processes but the first; and the means of the loss parts over batches without
        fillers.

    Raises:
        Stopped: a signal came on one of the processes; raised on all, or on the first alone when it
            computes the metrics.
    """
    communicator = communicator or SingleProcess()
    step = step or detection_step(detector)
    evaluator.reset()
    losses, stop, began = [], None, time.perf_counter()
    try:
        with interruptible():
            for batch in batches:
                losses += _evaluate_batch(step, batch, evaluator, progress)
    except Stopped as stopped:
        stop = stopped.number
    # No process may miss what all do together; others may have images left.
    with unhurried(_OTHERS_SECONDS if communicator.size > 1 else 0.0):
        stops = communicator.gather([stop])
    for number in stops:
        if number is not None:
            raise Stopped(number)
    # Once, at the end: processes may have different numbers of batches.
    evaluator.join(communicator.gather)
    losses = communicator.gather(losses)
    means = {name: float(np.mean([one[name] for one in losses])) for name in (losses or [{}])[0]}
    if not communicator.is_chief:
        return None, means
    detected = time.perf_counter()
    with interruptible():
        result = evaluator.compute()
    seconds = {"network": detected - began, "metric": time.perf_counter() - detected}
    return dataclasses.replace(result, seconds=seconds), means


def _evaluate_batch(
    step: Callable[[dict], tuple[dict, dict]],
    batch: dict,
    evaluator: CocoEvaluator,
    progress: Callable[[int], None] | None,
) -> list[dict[str, float]]:
    """Detect on a batch; return its loss parts, unless it has fillers."""
    detections, parts = step(batch)
    source_ids = batch["source_id"].numpy()
    evaluator.add(
        source_ids,
        batch["height"].numpy(),
        batch["width"].numpy(),
        {name: value.numpy() for name, value in detections.items()},
    )
    if progress is not None:
        progress(int((source_ids != -1).sum()))
    if (source_ids == -1).any():
        return []
    return [{name: float(value) for name, value in parts.items()}]
