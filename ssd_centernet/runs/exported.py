"""The evaluation, one image after the other, of exported files and of detectors in tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.detector import split_ground_truth
from ssd_centernet.evaluation.diagnosis import diagnose
from ssd_centernet.evaluation.limits import COCO_LIMIT
from ssd_centernet.export.exported import FittedRun
from ssd_centernet.export.parity import Found
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops.image import decode_image
from ssd_centernet.predict.tiled import TiledDetector
from ssd_centernet.runs.evaluation import SplitResult, check_same_classes


def evaluate_exported(
    model: FittedRun | TiledDetector,
    data_dir: str | Path,
    split: str,
    *,
    max_detections: int = COCO_LIMIT,
    backend: str = "auto",
    count: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SplitResult:
    """Evaluate what detects on one image at a time on every image of a split.

    Args:
        model: an exported file or another function, or a detector in tiles, with its label map.
        data_dir: folder of converted data with the classes of the file.
        split: prefix of the record files.
        max_detections: most detections of one class that count in one image.
        backend: library that matches, as in `CocoEvaluator`.
        count: the first images of the split alone, which are then all that count; None for all.
        progress: called with (images done, images in all) after every image.

    Returns:
        Metrics and a hint; there are no losses.

    Raises:
        FileNotFoundError: no such data.
        ValueError: the data has other classes than the file.
    """
    data = load_label_map(data_dir)
    check_same_classes(model.label_map, data, data_dir)
    truth = split_ground_truth(data_dir, split, data)
    serialized = shards.read_records(shards.find_shards(data_dir, split))
    if count is not None and count < truth.num_images:
        serialized = serialized.take(count)
        first = serialized.map(lambda text: records.parse_example(text, data)["source_id"])
        truth = truth.subset(np.array(list(first.as_numpy_iterator())))
    evaluator = CocoEvaluator(
        truth,
        category_ids=model.label_map.ids,
        max_detections=max_detections,
        backend=backend,
    )
    keys = ("source_id", "height", "width")

    def read(serialized: tf.Tensor) -> dict:
        example = records.parse_example(serialized, data)
        image = decode_image(example["encoded"])
        return {"image": image, **{key: example[key] for key in keys}}

    # Pictures that are cut into tiles are large.
    in_tiles = isinstance(model, TiledDetector)
    examples = serialized.map(read).prefetch(1 if in_tiles else 4)
    with shards.failures_named(data_dir, [split]):
        for done, example in enumerate(examples.as_numpy_iterator(), 1):
            found = model.detect(example["image"])
            batch = {name: values[np.newaxis] for name, values in found.items()}
            batch["count"] = np.array([len(found["scores"])])
            # Of each tile the detector keeps so many, and of a picture any number.
            evaluator.add(*(example[key] for key in keys), batch, limited=not in_tiles)
            if progress is not None:
                progress(done, truth.num_images)
    result = evaluator.compute()
    return SplitResult(result=result, losses={}, hint=diagnose(result, truth))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitMeasure:
    """Measure AP on a split, for the check of an export.

    Attributes:
        data_dir: folder of converted data.
        split: prefix of the record files.
        label_map: of the run.
        keep_aspect: whether images are fitted in with their aspect ratio.
        count: the first images of the split that are used, at most.
    """

    data_dir: str
    split: str
    label_map: LabelMap
    keep_aspect: bool
    count: int

    def __call__(
        self, run: Callable[[np.ndarray], Sequence[Found]], frame: tuple[int, int]
    ) -> tuple[float, int]:
        """Return the AP of a function of images of the size `frame`, and the number of images."""
        model = FittedRun(run, frame=frame, label_map=self.label_map, keep_aspect=self.keep_aspect)
        result = evaluate_exported(model, self.data_dir, self.split, count=self.count).result
        return float(result.metrics["AP"]), result.num_images
