"""Whether an exported file detects what the Keras model detects, on real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from ssd_centernet.models.detector import Detector


class ParityError(ValueError):
    """An exported file detects something else than the model that it was made of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Hold the detections of one image.

    Attributes:
        boxes: float32 [n, 4], yxyx, fractions of the image.
        scores: float32 [n], descending.
        classes: int [n].
        full: whether the list ends because no more detections fit in.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    full: bool

    @classmethod
    def first(cls, detections: dict) -> Found:
        """Take the first image of `Detections`, tensors or arrays."""
        values = {key: np.asarray(detections[key])[0] for key in ("boxes", "scores", "classes")}
        count = int(np.asarray(detections["count"]).reshape(-1)[0])
        full = count == len(values["scores"])
        return cls(full=full, **{key: value[:count] for key, value in values.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Bound what may differ.

    Attributes:
        score: difference of the scores of one detection, as a share of the score.
        coordinate: difference of a box's coordinates, in fractions of the image; a detection
            whose box differs more in every candidate is not found again.
        iou: or this overlap with it, whichever is looser; 1 leaves it to the coordinates.
        share: of the detections that are compared, how many must be found again.
        strong: detections are compared whose score is at least this share of the best score on
            all images; 0 compares all.
    """

    score: float
    coordinate: float
    iou: float = 1.0
    share: float = 1.0
    strong: float = 0.0


# Sums in another order: a millionth of an activation. One detection in 200 may be another one,
# where two boxes overlap by the threshold of the suppression to within rounding.
FLOAT = Tolerance(score=1e-3, coordinate=1e-4, share=0.995)
# Weights of 8 bits: what is looked at is whether the clear detections are still there.
INT8 = Tolerance(score=0.2, coordinate=0.0, iou=0.9, share=0.9, strong=0.5)


@dataclasses.dataclass
class Parity:
    """Count what was compared and by how much it differed.

    Attributes:
        comparisons: lists of detections compared, one an image; of a SavedModel one for each kind
            of input.
        compared: detections of both sides that were looked for on the other side.
        matched: those found there.
        score_difference: the largest of a matched pair, as a share of the score.
        coordinate_difference: the largest of a matched pair, fractions of the image.
        iou: the smallest of a matched pair.
    """

    comparisons: int = 0
    compared: int = 0
    matched: int = 0
    score_difference: float = 0.0
    coordinate_difference: float = 0.0
    iou: float = 1.0

    @property
    def share(self) -> float:
        """The share of compared detections that were found again; 0 without any."""
        return self.matched / self.compared if self.compared else 0.0

    def to_dict(self, tolerance: Tolerance) -> dict:
        """Return numbers and tolerances for the model card."""
        numbers = dataclasses.asdict(self)
        return {**numbers, "share": self.share, "tolerance": dataclasses.asdict(tolerance)}


def reference(detector: Detector, thresholds: dict[str, float]) -> Callable[[np.ndarray], Found]:
    """Make the function that detects with the Keras model, as `detector.detect` does.

    Args:
        detector: with its weights.
        thresholds: of `detect`.

    Returns:
        A function of a uint8 image [H, W, 3] of any size.
    """

    spec = tf.TensorSpec([1, None, None, 3], tf.uint8)

    @tf.function(input_signature=[spec], autograph=False)
    def detect(images):
        return detector.detect(images, **thresholds)

    return lambda image: Found.first(detect(image[np.newaxis]))


def compare(
    pairs: Iterable[tuple[Found, Found]], tolerance: Tolerance, *, score_threshold: float
) -> Parity:
    """Compare detections image by image.

    A detection is looked for on the other side: one of its class whose score and box are within
    the tolerance, each taken once. Detections that rounding may push over the edge are not: those
    whose score is within the tolerance of the threshold, or of the last one of a full list.

    Args:
        pairs: (of the model, of the file) for each image.
        tolerance: what may differ.
        score_threshold: below it neither side gives detections.

    Returns:
        The counts.
    """
    pairs = list(pairs)
    best = max(
        (float(found.scores.max(initial=0.0)) for pair in pairs for found in pair), default=0
    )
    result = Parity(comparisons=len(pairs))
    for ours, theirs in pairs:
        edges = [f.scores[-1] for f in (ours, theirs) if f.full and len(f.scores)]
        least = max([score_threshold, *edges]) * (1.0 + tolerance.score)
        least = max(least, tolerance.strong * best)
        for some, others in ((ours, theirs), (theirs, ours)):
            _look_for(some, others, least, tolerance, result)
    return result


def check(name: str, parity: Parity, tolerance: Tolerance) -> None:
    """Refuse a file that does not detect the same.

    Args:
        name: of the format.
        parity: of `compare`.
        tolerance: the one that it was compared with.

    Raises:
        ParityError: too few detections were found again, or there was none to compare.
    """
    if not parity.compared:
        raise ParityError(
            f"{name} cannot be checked: on the images of the check the model detects nothing above "
            "the score threshold, or more than it can give out with scores that are all alike, as "
            "before training. Give --check_images with something on them, lower --score_threshold, "
            "or train longer."
        )
    if parity.share < tolerance.share:
        raise ParityError(
            f"{name} does not detect what the model detects: of {parity.compared} detections in "
            f"{parity.comparisons} lists {parity.matched} were found again ({parity.share:.1%}), "
            f"expected {tolerance.share:.1%} with scores within {tolerance.score:.1%}. Nothing was "
            "exported. With tflite_int8 this is the price of 8-bit weights, with tflite_full_int8 "
            "that of 8-bit activations too, or of --calibration_images unlike these: give others, "
            "or export tflite_16x8 or tflite instead. "
            "With tflite and onnx a detector that is hardly trained, or a very low score "
            "threshold, can have more overlapping candidates than are looked at: set export.pairs "
            "higher (1024 by default). Else it is a defect of the conversion."
        )


# Below this AP of the model a loss of AP says little; whether detections are found again decides.
SAYS_LITTLE = 0.05


def check_ap(name: str, *, of_file: float, of_model: float, images: int, max_loss: float) -> None:
    """Refuse a file that is worth less than the model.

    Args:
        name: of the format.
        of_file: its AP, 0..1.
        of_model: that of the model on the same pixels.
        images: number of images that both were measured on.
        max_loss: how much less AP is accepted.

    Raises:
        ParityError: the file loses more.
    """
    loss = of_model - of_file
    if loss > max_loss:
        raise ParityError(
            f"{name} loses {100 * loss:.2f} points of AP: {of_file:.4f}, the model has "
            f"{of_model:.4f} on the same {images} images, and --max_ap_loss={max_loss:g} accepts "
            f"{100 * max_loss:g} points. Nothing was exported. Calibrate on more pictures "
            "(--num_calibration_images) or on such that are like the device's "
            "(--calibration_images), export tflite_16x8 or tflite instead, or give a higher "
            "--max_ap_loss if that is good enough."
        )


def _look_for(
    some: Found, others: Found, least: float, tolerance: Tolerance, result: Parity
) -> None:
    """Look for each detection of `some` among `others`, and count."""
    free = np.ones(len(others.scores), bool)
    for box, score, label in zip(some.boxes, some.scores, some.classes, strict=True):
        if score < least or not score > 0.0:
            continue
        result.compared += 1
        apart = np.abs(others.boxes - box).max(axis=1, initial=0.0)
        overlaps = _iou(others.boxes, box)
        differences = np.abs(others.scores - score) / score
        fits = free & (others.classes == label) & (differences <= tolerance.score)
        fits &= (apart <= tolerance.coordinate) | (overlaps >= tolerance.iou)
        if not fits.any():
            continue
        nearest = int(np.argmin(np.where(fits, differences + apart, np.inf)))
        free[nearest] = False
        result.matched += 1
        result.score_difference = max(result.score_difference, float(differences[nearest]))
        result.coordinate_difference = max(result.coordinate_difference, float(apart[nearest]))
        result.iou = min(result.iou, float(overlaps[nearest]))


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the overlap [n] of boxes [n, 4] with one [4]; 1 for equal boxes without area."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    intersection = np.prod(np.maximum(sides, 0.0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    union = areas - intersection
    equal = np.all(boxes == box, axis=1)
    return np.where(equal, 1.0, intersection / np.where(union > 0.0, union, 1.0))


def pairs_of(
    run: Callable[[np.ndarray], Sequence[Found]],
    detect: Callable[[np.ndarray], Found],
    images: Sequence[np.ndarray],
) -> list[tuple[Found, Found]]:
    """Detect with model and file; a file that takes several kinds of input gives several pairs."""
    pairs = []
    for image in images:
        ours = detect(image)
        pairs += [(ours, theirs) for theirs in run(image)]
    return pairs
