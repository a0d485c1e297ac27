"""Evaluation of a detector over a split: detections of every image, scored, with losses beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.directory import annotations_path
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.runtime.distribution import Communicator, SingleProcess


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
        return detector.decode(outputs, batch["extent"]), parts

    return step


def split_ground_truth(data_dir: str | Path, split: str, label_map: LabelMap) -> CocoGroundTruth:
    """Load a split's ground truth, from the records themselves where no annotations lie beside.

    Args:
        data_dir: folder with the record files.
        split: what their names start with.
        label_map: of the data.

    Returns:
        The ground truth of every image of the split, those without objects included.
    """
    path = annotations_path(data_dir, split)
    if path is not None:
        return CocoGroundTruth.load(path)
    examples = tf.data.TFRecordDataset(shards.find_shards(str(data_dir), split)).map(
        lambda serialized: records.parse_example(serialized, label_map)
    )
    return CocoGroundTruth.from_examples(
        examples.as_numpy_iterator(), names=label_map.names, ids=label_map.ids
    )


def fitting_batch_size(batch_size: int, images: int, processes: int) -> int:
    """Return a batch size with which a small split has whole batches, as losses need them.

    Args:
        batch_size: wanted, images per batch of one process.
        images: of the split.
        processes: that share the images out.

    Returns:
        `batch_size`, or the images of one process where these are fewer.
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
        batches: of `data.pipeline.evaluation_batches`: every image once, fillers with source id -1;
            of several processes, each has its share.
        evaluator: for the split's ground truth; it is reset first.
        step: of `detection_step`, to share its trace between evaluations.
        progress: called with the number of images after every batch.
        communicator: of the processes that evaluate together; all call this function.

    Returns:
        The result, None on all processes but the first; and the means of the loss parts over
        batches without fillers.
    """
    communicator = communicator or SingleProcess()
    step = step or detection_step(detector)
    evaluator.reset()
    losses = []
    for batch in batches:
        detections, parts = step(batch)
        source_ids = batch["source_id"].numpy()
        evaluator.add(
            source_ids,
            batch["height"].numpy(),
            batch["width"].numpy(),
            {name: value.numpy() for name, value in detections.items()},
        )
        if (source_ids != -1).all():
            losses.append({name: float(value) for name, value in parts.items()})
        if progress is not None:
            progress(int((source_ids != -1).sum()))
    # Once, at the end: processes may have different numbers of batches.
    evaluator.join(communicator.gather)
    losses = communicator.gather(losses)
    means = {name: float(np.mean([one[name] for one in losses])) for name in (losses or [{}])[0]}
    return evaluator.compute() if communicator.is_chief else None, means
