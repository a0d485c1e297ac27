"""Checks of detections and limits; errors say what was expected and what to change."""

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth

_EXAMPLES_SHOWN = 5


def check_shapes(source_ids: np.ndarray, fields: dict[str, np.ndarray]) -> None:
    """Raise an error if the shapes of detections do not fit together."""
    shapes = {name: value.shape for name, value in fields.items()}
    batch = (len(source_ids),)
    slots = shapes["scores"]
    expected = {"boxes": (*slots, 4), "scores": slots, "classes": slots, "count": batch}
    if len(slots) != 2 or slots[:1] != batch or shapes != expected:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"The detections of {batch[0]} images have shapes {got}; expected boxes [B, D, 4], "
            "scores [B, D], classes [B, D] and count [B] with B the number of source ids."
        )


def checked_limit(max_detections: int) -> int:
    """Return the limits of detections; raise an error if the largest is not above COCO's others."""
    if max_detections <= 10:
        raise ValueError(
            f"max_detections is {max_detections}, expected 11 or more: beside this limit COCO "
            "reports recall at 1 and at 10 detections (ARmax1, ARmax10). Use 100 for COCO's "
            "numbers."
        )
    return int(max_detections)


def check_known_images(image_ids: np.ndarray, truth: CocoGroundTruth, who: str) -> None:
    """Raise an error for image ids outside the ground truth; the message begins with `who`."""
    unknown = np.unique(image_ids[truth.positions(image_ids) < 0])
    if len(unknown):
        raise ValueError(
            f"{who}: {len(unknown)} image ids are not in the ground truth, for example "
            f"{unknown[:_EXAMPLES_SHOWN].tolist()}; it has {truth.num_images} images, for example "
            f"{truth.image_ids[:_EXAMPLES_SHOWN].tolist()}. Are these the annotations of the same "
            "split?"
        )


def check_known_categories(ids: np.ndarray, truth: CocoGroundTruth, who: str) -> None:
    """Raise an error for category ids outside the ground truth; the message begins with `who`."""
    unknown = np.setdiff1d(ids, np.array(truth.category_ids, np.int64))
    if len(unknown):
        known = list(truth.category_ids)
        raise ValueError(
            f"{who}: category ids {unknown[:_EXAMPLES_SHOWN].tolist()} are not in the "
            f"ground truth; it has {len(known)}, for example {known[:_EXAMPLES_SHOWN]}. "
            "COCO results have the data set's category ids (COCO: 1..90 with gaps), not class "
            "numbers from 0; use the label map written by the same conversion."
        )
