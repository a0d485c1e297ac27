"""Pictures of a running training: its input images, and its detections in some images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.drawing import visualize
from ssd_centernet.evaluation.result import CocoResult, DetectionRows
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops
from ssd_centernet.preview.fed_images import describe_batch, input_sheet
from ssd_centernet.run_directory import (
    EVAL_KIND,
    INPUTS_NAME,
    PICTURES_DIR,
    PREDICTIONS_NAME,
    TRAIN_KIND,
)
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.trainer import Trainer

# Detections below it are drawn only if there would be fewer of them than objects.
MIN_SCORE = 0.3
MOST_DRAWN = 12
# Longer side of a picture; it bounds what an evaluation adds to the event files.
_SIDE = 384
# Number of records searched for images with objects.
_LOOKED_AT = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownImage:
    """Hold an image of the evaluation split with its objects.

    Attributes:
        source_id: id of the image.
        image: uint8 [h, w, 3], scaled for display.
        size: (height, width) of the original image in pixels.
        truth: `boxes` float32 [N, 4] yxyx fractions, `classes` int32 [N], `is_crowd` bool [N].
    """

    source_id: int
    image: np.ndarray
    size: tuple[int, int]
    truth: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class PictureBoard:
    """Put pictures of a run into TensorBoard, and the last ones into the run's directory.

    This does not affect training: inputs are read by a separate iterator, and detections are those
    of the evaluation.
    """

    def __init__(self, log: TrainLog, label_map: LabelMap, *, number: int):
        """Set the destination of pictures.

        Args:
            log: log of the run; with the log of a process that writes no files there are no
                pictures.
            label_map: gives the names of the classes.
            number: number of images to show, 0 for none.
        """
        self._log = log
        self._label_map = label_map
        self._number = number if log.folder is not None else 0
        self._shown: list[ShownImage] | None = None

    def show_inputs(self, trainer: Trainer, dataset: tf.data.Dataset) -> None:
        """Draw the first images of a new run as the step gets them.

        Args:
            trainer: trainer of the run; nothing is drawn if it has already made steps.
            dataset: training batches from the beginning of the run.
        """
        if not self._number or int(trainer.step):
            return
        detector, fed = trainer.detector, []
        # On the host: drawing is not worth a trace or memory of an accelerator.
        with tf.device("CPU:0"):
            for batch in dataset:
                fed += describe_batch(detector, batch, self._number - len(fed))
                if len(fed) >= self._number:
                    break
        sizes = sorted({one.image.shape[:2] for one in fed})
        shown = ", ".join(map(str, sizes))
        heading = f"first input of the network: {shown} pixels, augmented"
        sheet = input_sheet(fed, self._label_map.names, heading=heading, cell_size=_SIDE)
        self._log.picture(TRAIN_KIND, "inputs", 0, sheet)
        visualize.save_png(self._log.folder / PICTURES_DIR / INPUTS_NAME, sheet)

    def show_predictions(
        self, step: int, result: CocoResult, data_dir: str | Path, split: str
    ) -> None:
        """Draw an evaluation's detections beside the objects, always on the same images.

        Args:
            step: step of the evaluation.
            result: result of the evaluation.
            data_dir: folder of the data.
            split: split of the evaluation; its first images with objects are shown.
        """
        if not self._number:
            return
        if self._shown is None:
            self._shown = first_images(data_dir, split, self._label_map, self._number)
        pictures = []
        for one in self._shown:
            found = found_in(one, result.rows, self._label_map)
            pictures.append(
                visualize.compare(
                    one.image,
                    dict(one.truth),
                    found,
                    names=self._label_map.names,
                    min_score=drawn_from(found["scores"], len(one.truth["boxes"])),
                )
            )
            self._log.picture(EVAL_KIND, f"predictions/{one.source_id}", step, pictures[-1])
        sheet = visualize.contact_sheet(
            pictures,
            columns=1 if len(pictures) < 3 else 2,
            cell_size=tuple(max(picture.shape[side] for picture in pictures) for side in (0, 1)),
            titles=[f"image {one.source_id}" for one in self._shown],
            heading=f"step {step}: AP {max(result.metrics['AP'], 0.0):.3f} of {split}",
        )
        visualize.save_png(self._log.folder / PICTURES_DIR / PREDICTIONS_NAME, sheet)


def first_images(
    data_dir: str | Path, split: str, label_map: LabelMap, number: int
) -> list[ShownImage]:
    """Read the first images of a split that have objects.

    Args:
        data_dir: folder of the data.
        split: prefix of the record files.
        label_map: label map of the data.
        number: number of images, at least 1.

    Returns:
        The images; fewer if the split is smaller, and some without objects if few of its first
        images have any.
    """
    examples = shards.read_records(shards.find_shards(data_dir, split)).map(
        lambda serialized: records.parse_example(serialized, label_map)
    )
    kept: list[dict] = []
    for example in islice(examples.as_numpy_iterator(), _LOOKED_AT * number):
        kept.append(example)
        # Those with objects first; sorting keeps the order among equals.
        kept = sorted(kept, key=lambda one: not len(one["boxes"]))[:number]
        if len(kept) == number and len(kept[-1]["boxes"]):
            break
    return [_shown(example) for example in kept]


def _shown(example: Mapping[str, np.ndarray]) -> ShownImage:
    image = image_ops.decode_image(tf.constant(example["encoded"])).numpy()
    return ShownImage(
        source_id=int(example["source_id"]),
        image=visualize.fit(np.round(image).astype(np.uint8), _SIDE),
        size=(int(example["height"]), int(example["width"])),
        truth={name: example[name] for name in ("boxes", "classes", "is_crowd")},
    )


def found_in(one: ShownImage, rows: DetectionRows, label_map: LabelMap) -> dict[str, np.ndarray]:
    """Select the detections of one image from those of an evaluation.

    Args:
        one: the image.
        rows: detections of the evaluation.
        label_map: label map from category ids to classes.

    Returns:
        `boxes` [D, 4] yxyx fractions of the image, `scores` [D] descending, `classes` [D].
    """
    here = np.flatnonzero(rows.image_ids == one.source_id)
    # Stable: equal scores stay in the order of the evaluation, so pictures do not flicker.
    here = here[np.argsort(-rows.scores[here], kind="stable")]
    left, top, width, height = rows.boxes[here].T
    corners = np.stack([top, left, top + height, left + width], axis=-1)
    classes = [label_map.to_class(int(number)) for number in rows.category_ids[here]]
    return {
        "boxes": corners / np.tile(one.size, 2),
        "scores": rows.scores[here],
        "classes": np.array(classes, np.int64),
    }


def drawn_from(scores: Sequence[float], num_objects: int) -> float:
    """Choose the lowest score of the detections to draw.

    A new detector gives low scores to everything, or high ones: at least as many of its best
    detections are shown as there are objects, and not so many that they cannot be told apart.

    Args:
        scores: [D], descending.
        num_objects: number of objects in the image.

    Returns:
        `MIN_SCORE`; a lower score if fewer than `num_objects` reach it; a higher one if more than
        `MOST_DRAWN` and more than twice the number of objects do.
    """
    if not len(scores):
        return MIN_SCORE
    least = scores[min(max(num_objects, 1), len(scores)) - 1]
    most = scores[min(max(MOST_DRAWN, 2 * num_objects), len(scores)) - 1]
    return float(max(min(MIN_SCORE, least), most))
