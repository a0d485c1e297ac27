"""Pictures of what the network is really fed: augmented images with matched anchors or peaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.drawing import visualize
from ssd_centernet.models.detector import Detector
from ssd_centernet.ops import boxes as box_ops

MATCHED, FORCED, UNMATCHED = (64, 220, 96), (255, 170, 40), (255, 64, 64)
_ANCHOR = (120, 200, 255)
_LEGEND = (
    "green: anchors reach the matching threshold   orange: only the anchor that each object is "
    "given\nred: no anchor   thin blue: matched anchors, their number beside the class   hatched: "
    "crowd region"
)
_PEAK_LEGEND = (
    "green: a peak of its own   orange: shares its peak with another object of its class\n"
    "red: no peak   warm colours: the heatmap, largest of all classes   hatched: crowd region"
)
_HEAT = (255, 90, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FedImage:
    """Hold one network input, un-normalised, and what the criterion makes of it.

    Attributes:
        source_id: of the data set's image.
        image: uint8 [h, w, 3], at the size of the network's input.
        boxes: float32 [N, 4], yxyx fractions of it, without padding.
        classes: int32 [N].
        is_crowd: bool [N].
        anchors: float32 [P, 4], the matched anchors; with a heatmap the boxes at its peaks.
        owners: int [P], the object that each of them is matched to.
        overlaps: float32 [P], IoU of each with its object; with a heatmap 0 where another object
            of the class has the same peak, else 1.
        heat: float32 [rows, columns] in [0, 1], the heatmap's largest value over the classes; None
            where the detector has anchors.
    """

    source_id: int
    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray
    anchors: np.ndarray
    owners: np.ndarray
    overlaps: np.ndarray
    heat: np.ndarray | None = None


def show_inputs(
    detector: Detector,
    batches: Iterable[Mapping],
    output: str | Path,
    *,
    heading: str,
    num_images: int = 16,
    cell_size: int = 448,
) -> list[FedImage]:
    """Draw the first images that a training is fed.

    Args:
        detector: what is trained.
        batches: of `Recipe.training_batches`.
        output: PNG file to write.
        heading: first line of the sheet.
        num_images: how many images, at least 1.
        cell_size: side of an image on the sheet in pixels.

    Returns:
        What was drawn.

    Raises:
        ValueError: settings that do not fit the data.
    """
    fed: list[FedImage] = []
    for batch in batches:
        fed += describe_batch(detector, batch)
        if len(fed) >= num_images:
            break
    fed = fed[:num_images]
    names = detector.class_names or [str(index) for index in range(detector.num_classes)]
    sheet = input_sheet(detector, fed, names, heading=heading, cell_size=cell_size)
    visualize.save_png(output, sheet)
    return fed


def input_sheet(
    detector: Detector,
    fed: Sequence[FedImage],
    names: Sequence[str],
    *,
    heading: str,
    cell_size: int = 448,
) -> np.ndarray:
    """Draw network inputs with their matched anchors or peaks on one sheet.

    Args:
        detector: whose targets they are.
        fed: at least one image.
        names: of the classes.
        heading: first line of the sheet; what the colours mean comes below it.
        cell_size: side of an image on the sheet in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    threshold = matching_threshold(detector)
    legend = _LEGEND if fed[0].heat is None else _PEAK_LEGEND
    return visualize.contact_sheet(
        [draw_input(one, names, threshold, size=cell_size) for one in fed],
        cell_size=cell_size,
        titles=[input_title(one) for one in fed],
        heading=f"{heading}\n{legend}",
    )


def draw_batch(detector: Detector, batch: Mapping, *, size: int = 448) -> list[np.ndarray]:
    """Draw the images of a batch with their objects and what the detector matches to them.

    Args:
        detector: whose targets are drawn.
        batch: of `training_data` or `validation_data`; targets that it lacks are made here.
        size: pixels of the longer side.

    Returns:
        uint8 [H, W, 3] an image: objects in green where an anchor reaches the matching threshold,
        in orange where only the anchor that each object is given is matched, in red without any;
        and the matched anchors, or the heatmap.
    """
    if batch.get("targets") is None:
        objects = (batch[name] for name in ("boxes", "classes", "is_crowd", "valid"))
        batch = {**batch, "targets": detector.make_targets(*objects, extent=batch.get("extent"))}
    names = detector.class_names or [str(index) for index in range(detector.num_classes)]
    threshold = matching_threshold(detector)
    described = describe_batch(detector, batch)
    return [draw_input(one, names, threshold, size=size) for one in described]


def describe_batch(detector: Detector, batch: Mapping) -> list[FedImage]:
    """Turn a training batch back into images and matched anchors.

    Args:
        detector: whose targets the batch has.
        batch: of `training_batches` (see docs/architecture.md); targets are made where it has none.

    Returns:
        One description an image.
    """
    images = detector.preprocessing.denormalize(batch["image"])
    objects = (batch[name] for name in ("boxes", "classes", "is_crowd", "valid"))
    made = batch.get("targets") or detector.make_targets(*objects, extent=batch.get("extent"))
    described = []
    for index, image in enumerate(images):
        valid = batch["valid"][index].numpy()
        objects = {
            name: batch[name][index].numpy()[valid] for name in ("boxes", "classes", "is_crowd")
        }
        targets = {name: value[index] for name, value in made.items()}
        described.append(
            FedImage(
                source_id=int(batch["source_id"][index]),
                image=image,
                **objects,
                **matched_anchors(detector, targets, objects["boxes"], objects["classes"]),
            )
        )
    return described


def matched_anchors(
    detector: Detector, targets: Mapping[str, tf.Tensor], boxes: np.ndarray, classes: np.ndarray
) -> dict[str, np.ndarray]:
    """Read out of the targets of one image which anchors learn which object.

    The box codes are decoded as the network's outputs would be, so that a wrong code shows as an
    anchor without an object.

    Args:
        detector: whose `anchor_boxes` the targets speak of; of a heatmap it is not asked.
        targets: of `make_targets`.
        boxes: float32 [N, 4], the objects.
        classes: int32 [N].

    Returns:
        `anchors` [P, 4], `owners` [P] and `overlaps` [P] of the matched anchors; the owner is -1
        where no object of the anchor's class has the coded box. With targets that are a heatmap,
        those of its peaks, and `heat`.
    """
    if "heatmap" in targets:
        return _peaks(targets, boxes, classes)
    labels = targets["classes"].numpy()
    positive = np.flatnonzero(labels > 0)
    anchors = tf.gather(detector.anchor_boxes, positive)
    coded = box_ops.decode(
        tf.gather(targets["boxes"], positive), anchors, detector.criterion.scale_factors
    ).numpy()
    owners = _owners(coded, boxes, labels[positive, np.newaxis] == classes + 1)
    overlaps = box_ops.iou(anchors, tf.constant(coded)).numpy().diagonal()
    return {"anchors": anchors.numpy(), "owners": owners, "overlaps": overlaps}


def _owners(coded: np.ndarray, boxes: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return int [P], the object whose box each coded one [P, 4] is, -1 where there is none."""
    distance = np.abs(coded[:, np.newaxis] - boxes).max(axis=-1)
    distance = np.where(allowed, distance, np.inf)
    padded = np.concatenate([distance, np.full((len(coded), 1), 1e-3)], axis=1)
    owners = padded.argmin(axis=1)
    return np.where(owners == len(boxes), -1, owners)


def _peaks(
    targets: Mapping[str, tf.Tensor], boxes: np.ndarray, classes: np.ndarray
) -> dict[str, np.ndarray]:
    """Read out of CenterNet's targets of one image which peaks learn which object."""
    heatmap = targets["heatmap"].numpy()
    used = targets["weights"].numpy() > 0
    cells = targets["cells"].numpy()[used]
    centers = cells + targets["offsets"].numpy()[used]
    half = targets["sizes"].numpy()[used] / 2.0
    coded = np.concatenate([centers - half, centers + half], axis=-1)
    coded = (coded / np.tile(heatmap.shape[:2], 2)).astype(np.float32)
    is_peak = heatmap[cells[:, 0], cells[:, 1]] == 1.0  # [P, C]
    owners = _owners(coded, boxes, is_peak[:, classes.astype(int)])
    place = [(*cell, classes[owner]) for cell, owner in zip(cells.tolist(), owners, strict=True)]
    alone = np.array([place.count(one) == 1 for one in place], np.float32)
    return {"anchors": coded, "owners": owners, "overlaps": alone, "heat": heatmap.max(axis=-1)}


def box_states(one: FedImage, threshold: float) -> list[tuple[int, int, int]]:
    """Choose the colour of each object by what its anchors reach.

    Args:
        one: the image.
        threshold: IoU from which on an anchor belongs to an object.

    Returns:
        `MATCHED`, `FORCED` or `UNMATCHED` for each of the N objects.
    """
    colors = []
    for index in range(len(one.boxes)):
        overlaps = one.overlaps[one.owners == index]
        if not len(overlaps):
            colors.append(UNMATCHED)
        else:
            # The codes round: a threshold met exactly must not turn orange.
            colors.append(MATCHED if overlaps.max() >= threshold - 1e-4 else FORCED)
    return colors


def draw_input(
    one: FedImage, names: Sequence[str], threshold: float, *, size: int = 448
) -> np.ndarray:
    """Draw one network input with its objects and matched anchors.

    Args:
        one: the image.
        names: of the classes.
        threshold: IoU from which on an anchor belongs to an object.
        size: pixels of the longer side.

    Returns:
        uint8 [H, W, 3].
    """
    picture = visualize.fit(one.image, size)
    if one.heat is not None:
        picture = visualize.overlay(picture, one.heat, color=_HEAT)
    else:
        picture = visualize.draw_boxes(
            picture, one.anchors, colors=[_ANCHOR] * len(one.anchors), line_width=1
        )
    return visualize.draw_boxes(
        picture,
        one.boxes,
        labels=_labels(one, names),
        colors=box_states(one, threshold),
        is_crowd=one.is_crowd,
        line_width=2,
    )


def _labels(one: FedImage, names: Sequence[str]) -> list[str]:
    """Return the class of each object, and how many anchors it has."""
    labels = [names[index] for index in one.classes]
    if one.heat is not None:
        return labels
    counts = [int(np.sum(one.owners == index)) for index in range(len(labels))]
    return [f"{name} {count}" for name, count in zip(labels, counts, strict=True)]


def input_title(one: FedImage) -> str:
    """Return the line below an image: its source id, objects and matched anchors or peaks."""
    objects = "1 object" if len(one.boxes) == 1 else f"{len(one.boxes)} objects"
    if one.heat is not None:
        shared = int(np.sum(one.overlaps == 0.0))
        return f"{one.source_id}: {objects}" + (f", {shared} share a peak" if shared else "")
    anchors = "1 anchor" if len(one.anchors) == 1 else f"{len(one.anchors)} anchors"
    return f"{one.source_id}: {objects}, {anchors}"


def matching_threshold(detector: Detector) -> float:
    """Return the IoU from which on an anchor of the detector belongs to an object."""
    # A peak that is shared counts as 0, one that is not as 1.
    return getattr(getattr(detector, "criterion", None), "matched_threshold", 0.5)
