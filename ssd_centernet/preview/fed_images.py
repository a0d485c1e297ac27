"""Pictures of the network's real inputs: augmented images with the matches of their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.drawing import visualize
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.matches import MATCHED, UNMATCHED, WEAK, Matches
from ssd_centernet.plain_text import counted

# Colours of the objects on pictures, and their names in a legend.
COLORS = {MATCHED: (64, 220, 96), WEAK: (255, 170, 40), UNMATCHED: (255, 64, 64)}
_COLOR_NAMES = {MATCHED: "green", WEAK: "orange", UNMATCHED: "red"}
UNIT_COLOR = (120, 200, 255)
_HEAT = (255, 90, 0)
_DOT = 0.005  # Half the side of a dot, as a fraction of the picture.
_LEGEND_WIDTH = 100  # Characters of a line.


@dataclasses.dataclass(frozen=True, kw_only=True)
class FedImage:
    """Hold one network input, not normalised, and the matches of its objects.

    Attributes:
        source_id: id of the image in the data set.
        image: uint8 [h, w, 3], at the size of the network's input.
        boxes: float32 [N, 4], yxyx fractions of it, without padding.
        classes: int32 [N].
        is_crowd: bool [N].
        matches: the detector's explanation of the targets.
    """

    source_id: int
    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray
    matches: Matches


def show_inputs(
    detector: Detector,
    batches: Iterable[Mapping],
    output: str | Path,
    *,
    heading: str,
    num_images: int = 16,
    cell_size: int = 448,
    sizes: Sequence[Sequence[int]] = (),
) -> list[FedImage]:
    """Draw the first input images of a training.

    Args:
        detector: the detector to train.
        batches: result of `Recipe.training_batches`.
        output: PNG file to write.
        heading: first line of the sheet.
        num_images: number of images, at least 1.
        cell_size: side of an image on the sheet in pixels.
        sizes: those of the images in pixels, (height, width), where a training has several: of each
            the first ones are drawn, in the order of the batches.

    Returns:
        The images drawn.

    Raises:
        ValueError: the settings do not fit the data.
    """
    fed: list[FedImage] = []
    shares = _shares(num_images, sizes or [detector.image_size])
    for batch in batches:
        size = tuple(batch["image"].shape[1:3])
        if shares[size]:
            described = describe_batch(detector, batch, limit=shares[size])
            shares[size] -= len(described)
            fed += described
        if not any(shares.values()):
            break
    names = detector.class_names or [str(index) for index in range(detector.num_classes)]
    sheet = input_sheet(fed, names, heading=heading, cell_size=cell_size)
    visualize.save_png(output, sheet)
    return fed


def _shares(number: int, sizes: Sequence[Sequence[int]]) -> dict[tuple[int, int], int]:
    """Deal a number of images to sizes as evenly as possible; the first ones get the rest."""
    each, rest = divmod(number, len(sizes))
    return {tuple(size): each + (place < rest) for place, size in enumerate(sizes)}


def input_sheet(
    fed: Sequence[FedImage],
    names: Sequence[str],
    *,
    heading: str,
    cell_size: int = 448,
) -> np.ndarray:
    """Draw network inputs with their objects and matches on one sheet.

    Args:
        fed: at least one image.
        names: names of the classes.
        heading: first line of the sheet; the legend comes below it.
        cell_size: side of an image on the sheet in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    sizes = [one.image.shape[:2] for one in fed]
    several = len(set(sizes)) > 1
    prefixes = [f"{height} x {width}, " if several else "" for height, width in sizes]
    return visualize.contact_sheet(
        [draw_input(one, names, size=cell_size) for one in fed],
        cell_size=cell_size,
        titles=[prefix + input_title(one) for prefix, one in zip(prefixes, fed, strict=True)],
        heading=f"{heading}\n{legend(fed[0].matches)}",
    )


def draw_batch(detector: Detector, batch: Mapping, *, size: int = 448) -> list[np.ndarray]:
    """Draw the images of a batch with their objects and the matches of the detector.

    Args:
        detector: the detector whose targets are drawn.
        batch: a batch of `training_data` or `validation_data`; missing targets are made here.
        size: pixels of the longer side.

    Returns:
        uint8 [H, W, 3] per image. Objects are green if the targets match them well (an anchor
        reaches the matching threshold, or the object has its own peak), orange if they match them
        only just (the anchor that each object gets, or a shared peak), and red if not at all. The
        matched anchors or the heatmap are drawn too.
    """
    names = detector.class_names or [str(index) for index in range(detector.num_classes)]
    return [draw_input(one, names, size=size) for one in describe_batch(detector, batch)]


def describe_batch(detector: Detector, batch: Mapping, limit: int | None = None) -> list[FedImage]:
    """Turn a training batch back into images, and let the detector explain its targets.

    Args:
        detector: the detector of the batch's targets, or its form at another size.
        batch: a batch of `training_batches` (see docs/architecture.md); missing targets are made
            here.
        limit: number of images to take at most; None takes all.

    Returns:
        One description per image.
    """
    batch = tf.nest.map_structure(lambda values: values[:limit], dict(batch))
    detector = detector.at_size(batch["image"].shape[1:3])
    images = detector.preprocessing.denormalize(batch["image"])
    extent = batch.get("extent")
    objects = (batch[name] for name in ("boxes", "classes", "is_crowd", "valid"))
    made = batch.get("targets") or detector.make_targets(*objects, extent=extent)
    described = []
    for index, image in enumerate(images):
        valid = batch["valid"][index].numpy()
        objects = {
            name: batch[name][index].numpy()[valid] for name in ("boxes", "classes", "is_crowd")
        }
        matches = detector.explain_targets(
            {name: value[index] for name, value in made.items()},
            **objects,
            extent=None if extent is None else extent[index],
        )
        source_id = int(batch["source_id"][index])
        described.append(FedImage(source_id=source_id, image=image, **objects, matches=matches))
    return described


def draw_input(one: FedImage, names: Sequence[str], *, size: int = 448) -> np.ndarray:
    """Draw one network input with its objects and matches.

    Args:
        one: the image.
        names: names of the classes.
        size: pixels of the longer side.

    Returns:
        uint8 [H, W, 3].
    """
    picture, matches = visualize.fit(one.image, size), one.matches
    if matches.heat is not None:
        picture = visualize.overlay(picture, matches.heat, color=_HEAT)
    units = [UNIT_COLOR] * len(matches.owners)
    if matches.boxes is not None:
        picture = visualize.draw_boxes(picture, matches.boxes, colors=units, line_width=1)
    if matches.points is not None:
        dots = np.concatenate([matches.points - _DOT, matches.points + _DOT], axis=-1)
        picture = visualize.draw_boxes(picture, dots, colors=units, line_width=2)
    return visualize.draw_boxes(
        picture,
        one.boxes,
        labels=_labels(one, names),
        colors=[COLORS[state] for state in matches.states],
        is_crowd=one.is_crowd,
        line_width=2,
    )


def _labels(one: FedImage, names: Sequence[str]) -> list[str]:
    """Return the class of each object, and the number of its units if these are drawn."""
    labels, matches = [names[index] for index in one.classes], one.matches
    if matches.boxes is None and matches.points is None:
        return labels
    counts = [int(np.sum(matches.owners == index)) for index in range(len(labels))]
    return [f"{name} {count}" for name, count in zip(labels, counts, strict=True)]


def legend(matches: Matches) -> str:
    """Return the legend of a picture's colours.

    Args:
        matches: matches of any image.

    Returns:
        One or more lines.
    """
    terms = matches.terms
    entries = [f"{_COLOR_NAMES[state]}: {text}" for state, (_, text) in terms.states.items()]
    for drawn, how in ((matches.boxes, "thin blue"), (matches.points, "blue dots")):
        if drawn is not None:
            entries.append(f"{how}: matched {terms.unit}s, their number beside the class")
    if matches.heat is not None:
        entries.append(f"warm colours: {terms.heat}")
    lines = [""]
    for entry in [*entries, "hatched: crowd region"]:
        longer = f"{lines[-1]}   {entry}".strip()
        lines[-1:] = [longer] if len(longer) <= _LEGEND_WIDTH else [lines[-1], entry]
    return "\n".join(lines)


def input_title(one: FedImage) -> str:
    """Return the line below an image: its source id, and the numbers of objects and bad matches."""
    return f"{one.source_id}: {count_matches([one], leave_out=(MATCHED,))}"


def count_matches(fed: Sequence[FedImage], *, leave_out: Sequence[int] = ()) -> str:
    """Count the objects, their matched units, and the objects of each state.

    Args:
        fed: at least one image.
        leave_out: states to leave out; those without objects are left out too.

    Returns:
        Such as "3 objects, 21 anchors; forced: 1, never: 1".
    """
    terms = fed[0].matches.terms
    states = np.concatenate([one.matches.states for one in fed])
    text = counted(len(states), "object")
    if terms.unit:
        text += f", {counted(sum(len(one.matches.owners) for one in fed), terms.unit)}"
    counts = {
        name: int(np.sum(states == state))
        for state, (name, _) in terms.states.items()
        if state not in leave_out
    }
    told = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
    return f"{text}; {told}" if told else text
