"""What share of the ground truth a recipe's anchors or heatmap can match, by the objects' size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.records import parse_example
from ssd_centernet.data.shards import find_shards
from ssd_centernet.drawing import chart, visualize
from ssd_centernet.models.detector import Detector
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.preview.fed_images import (
    FORCED,
    MATCHED,
    UNMATCHED,
    FedImage,
    box_states,
    matched_anchors,
    matching_threshold,
)

# Areas in pixels of the original image at which COCO's evaluation divides objects.
COCO_SIZES = (("small", 0.0), ("medium", 32.0**2), ("large", 96.0**2))
STATES = (MATCHED, FORCED, UNMATCHED)
_LARGEST = 12  # Octaves of sides in pixels that are told apart.
_COLORS = ("#2e8c46", "#e18214", "#c82d2d")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """Hold how each object of a data set is matched; arrays have one entry an object.

    Attributes:
        states: index into `STATES`: 0, an anchor reaches the threshold, or a peak of its own;
            1, only the anchor that each object is given, or a peak shared within its class;
            2, neither.
        areas: COCO's area, pixels^2 of the original image.
        sides: square root of height times width, pixels of the network's input.
        best: IoU with the best anchor; with a heatmap 0.
        levels: the level of the best of its matched anchors; -1 without one.
        shares_cell: whether another object, of any class, has the same cell of the heatmap.
        below_cell: whether height or width is less than a cell of the heatmap.
        num_images: how many images were read.
    """

    states: np.ndarray
    areas: np.ndarray
    sides: np.ndarray
    best: np.ndarray
    levels: np.ndarray
    shares_cell: np.ndarray
    below_cell: np.ndarray
    num_images: int


@dataclasses.dataclass(frozen=True)
class Row:
    """Hold one line of the table: a group of objects and how many are in each of `STATES`."""

    group: str
    counts: tuple[int, int, int]
    best: float

    @property
    def total(self) -> int:
        """The number of objects."""
        return sum(self.counts)


def describe_anchors(
    detector: Detector,
    data_dir: str | Path,
    *,
    split: str = "coco_train",
    crowd: str = "object",
    max_images: int | None = None,
    output: str | Path | None = None,
) -> str:
    """Match the ground truth of a split with the targets of a detector, and count.

    Args:
        detector: what is to be trained.
        data_dir: folder of converted data.
        split: what the names of the record files start with.
        crowd: what the training will do with crowd regions, as in `training_batches`.
        max_images: only the first so many images with objects; None takes all.
        output: PNG file for a chart of the shares by size; None writes none.

    Returns:
        The table, for reading.

    Raises:
        ValueError: no object in the split.
        FileNotFoundError: no such data.
    """
    if output is not None:
        chart.check_installed()
    examples = _examples(str(data_dir), split, load_label_map(data_dir), crowd)
    matches = match_objects(detector, examples.take(-1 if max_images is None else max_images))
    heading = (
        f"{split} of {data_dir}: {len(matches.states)} objects in {matches.num_images} images, "
        f"input {detector.image_size[0]} x {detector.image_size[1]} pixels"
    )
    if output is not None:
        visualize.save_png(output, _chart(matches, heading, _is_heatmap(detector)))
    return f"{heading}\n{format_report(detector, matches)}"


def _examples(data_dir: str, split: str, label_map, crowd: str) -> tf.data.Dataset:
    """Return the objects of each image that has some, without the pixels."""

    def load(serialized: tf.Tensor) -> dict:
        example = parse_example(serialized, label_map)
        objects = {name: example[name] for name in ("boxes", "classes", "is_crowd", "area")}
        if crowd == "object":
            objects["is_crowd"] = tf.zeros_like(objects["is_crowd"])
        else:
            kept = ~objects["is_crowd"]
            objects = {name: tf.boolean_mask(value, kept) for name, value in objects.items()}
        return objects | {"height": example["height"], "width": example["width"]}

    records = tf.data.TFRecordDataset(find_shards(data_dir, split))
    return records.map(load).filter(lambda one: tf.size(one["classes"]) > 0)


def match_objects(detector: Detector, examples) -> Matches:
    """Make the targets of each image and read out of them what became of each object.

    Args:
        detector: whose `make_targets` is asked.
        examples: dicts with `boxes` [N, 4] yxyx fractions of the image, `classes`, `is_crowd`,
            `area` [N], `height` and `width`, as tensors.

    Raises:
        ValueError: there is no object.
    """
    columns: dict[str, list[np.ndarray]] = {}
    threshold, count = matching_threshold(detector), 0
    for example in examples:
        count += 1
        extent = detector.preprocessing.extent(example["height"], example["width"])
        boxes = example["boxes"] * tf.concat([extent, extent], axis=0)
        targets = detector.make_targets(
            boxes, example["classes"], example["is_crowd"], extent=extent
        )
        found = _of_image(detector, targets, boxes.numpy(), example["classes"].numpy(), threshold)
        found["areas"] = example["area"].numpy()
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    if not count:
        raise ValueError("the split has no image with an object: there is nothing to match.")
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    return Matches(num_images=count, **joined)


def _of_image(
    detector: Detector, targets: dict, boxes: np.ndarray, classes: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    matched = matched_anchors(detector, targets, boxes, classes)
    one = FedImage(
        source_id=0,
        image=np.zeros([1, 1, 3], np.uint8),
        boxes=boxes,
        classes=classes,
        is_crowd=np.zeros(len(boxes), bool),
        **matched,
    )
    states = np.array([STATES.index(state) for state in box_states(one, threshold)])
    sides = (boxes[:, 2:] - boxes[:, :2]) * detector.image_size
    found = {
        "states": states,
        "sides": np.sqrt(np.maximum(sides.prod(axis=1), 0.0)),
        "best": np.zeros(len(boxes)),
        "levels": np.full(len(boxes), -1),
        "shares_cell": np.zeros(len(boxes), bool),
        "below_cell": np.zeros(len(boxes), bool),
    }
    if one.heat is not None:
        grid = np.array(one.heat.shape)
        found["below_cell"] = ((boxes[:, 2:] - boxes[:, :2]) * grid < 1.0).any(axis=1)
        found["shares_cell"] = _shared_cells(targets, one.owners, len(boxes))
        return found
    found["best"] = box_ops.iou(tf.constant(boxes), detector.anchor_boxes).numpy().max(axis=1)
    level_of = _level_of_anchor(detector)[np.flatnonzero(targets["classes"].numpy() > 0)]
    for index in np.flatnonzero(states < STATES.index(UNMATCHED)):
        mine = np.flatnonzero(one.owners == index)
        found["levels"][index] = level_of[mine[one.overlaps[mine].argmax()]]
    return found


def _shared_cells(targets: dict, owners: np.ndarray, count: int) -> np.ndarray:
    """Tell which objects have a cell that another object has too, whatever its class."""
    cells = targets["cells"].numpy()[targets["weights"].numpy() > 0]
    _, inverse, numbers = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    shared = np.zeros(count, bool)
    known = owners >= 0
    shared[owners[known]] = (numbers[inverse.reshape(-1)] > 1)[known]
    return shared


def _level_of_anchor(detector: Detector) -> np.ndarray:
    numbers = [
        rows * columns * cells
        for (rows, columns), cells in zip(
            detector.feature_sizes, detector.anchors.boxes_per_cell, strict=True
        )
    ]
    return np.repeat(np.arange(len(numbers)), numbers)


def _is_heatmap(detector: Detector) -> bool:
    return not hasattr(detector, "anchors")


# --- the table -------------------------------------------------------------------------------


def rows_by_size(matches: Matches) -> list[Row]:
    """Return the lines for all objects, for COCO's sizes, and for octaves of sides at the input."""
    rows = [_row("all objects", matches, np.ones(len(matches.states), bool))]
    ends = [area for _, area in COCO_SIZES[1:]] + [np.inf]
    for (name, least), end in zip(COCO_SIZES, ends, strict=True):
        chosen = (matches.areas >= least) & (matches.areas < end)
        rows.append(_row(f"COCO {name}", matches, chosen))
    return rows + [_row(name, matches, chosen) for _, name, chosen in _octaves(matches)]


def _octaves(matches: Matches) -> list[tuple[int, str, np.ndarray]]:
    """Return exponent, name and members of each octave that has objects."""
    exponents = np.floor(np.log2(np.maximum(matches.sides, 1.0))).clip(0, _LARGEST).astype(int)
    return [
        (e, f"side {2**e if e else 0} to {2 ** (e + 1)} px", exponents == e)
        for e in range(_LARGEST + 1)
        if (exponents == e).any()
    ]


def _row(group: str, matches: Matches, chosen: np.ndarray) -> Row:
    counts = np.bincount(matches.states[chosen], minlength=len(STATES))
    best = float(np.median(matches.best[chosen])) if chosen.any() else float("nan")
    return Row(group, tuple(int(count) for count in counts), best)


def format_report(detector: Detector, matches: Matches) -> str:
    """Format the table, and below it what the numbers mean.

    Args:
        detector: whose anchors or heatmap it is.
        matches: of `match_objects`.

    Returns:
        Lines of at most 100 characters.
    """
    heatmap = _is_heatmap(detector)
    rows = rows_by_size(matches)
    if not heatmap:
        for level, (height, width) in enumerate(detector.feature_sizes):
            rows.append(_row(f"level of {height} x {width}", matches, matches.levels == level))
    heads = ("own peak", "shared peak", "never") if heatmap else ("reached", "forced", "never")
    lines = [_line("", ["objects", *heads] + ([] if heatmap else ["median best IoU"]))]
    for row in rows:
        shares = [_share(count, row.total) for count in row.counts]
        best = [] if heatmap else [f"{row.best:.2f}" if row.total else "-"]
        lines.append(_line(row.group, [str(row.total), *shares, *best]))
    return "\n".join([*lines, "", *(_heatmap_notes if heatmap else _notes)(detector, matches)])


def _line(group: str, texts: Sequence[str]) -> str:
    return (
        f"  {group:<20}"
        + "".join(f"{text:>13}" for text in texts[:4])
        + "".join(f"{text:>18}" for text in texts[4:])
    )


def _share(count: int, total: int) -> str:
    return f"{100.0 * count / total:.1f} %" if total else "-"


def _notes(detector: Detector, matches: Matches) -> list[str]:
    threshold = matching_threshold(detector)
    return [
        f"reached: an anchor has IoU {threshold:g} or more. forced: none has; it learns from the "
        "best one alone.",
        "never: other objects took every anchor it could have. px: of the network's input.",
        "A level counts the objects whose best matched anchor lies on it.",
    ]


def _heatmap_notes(detector: Detector, matches: Matches) -> list[str]:
    height, width = detector.output_size
    total = len(matches.states)
    small, shared = int(matches.below_cell.sum()), int(matches.shares_cell.sum())
    return [
        f"Heatmap of {height} x {width} cells, one for {detector.image_size[0] // height} pixels.",
        f"lower or narrower than a cell: {small} objects ({_share(small, total)})",
        f"in one cell with another object, of any class: {shared} objects "
        f"({_share(shared, total)});",
        "a cell's size and offset can be right for one of them alone.",
        "shared peak: another object of the same class is in the cell. never: no peak is drawn.",
        "px: of the network's input.",
    ]


def _chart(matches: Matches, heading: str, heatmap: bool) -> np.ndarray:
    members = {e: chosen for e, _, chosen in _octaves(matches)}
    octaves = range(min(members), max(members) + 1)
    nobody = np.zeros(len(matches.states), bool)
    rows = [_row("", matches, members.get(e, nobody)) for e in octaves]
    # An octave's value holds until the next one; the last one needs an end.
    x = [2.0**e for e in (*octaves, octaves[-1] + 1)]
    labels = ("own peak", "shared peak", "never") if heatmap else ("reached", "forced", "never")
    heading = f"What the targets match\n{heading}"
    x_label = "side of the object in the network's input, pixels"
    with chart.stacked_axes(300, 160, heading=heading, x_label=x_label) as (shares, numbers):
        shares.set_xscale("log", base=2)
        shares.set_title("Share of the objects")
        for state, label in enumerate(labels):
            y = [100.0 * row.counts[state] / row.total if row.total else np.nan for row in rows]
            style = {"color": _COLORS[state], "drawstyle": "steps-post"}
            shares.plot(x, [*y, y[-1]], label=label, **style)
        chart.scale_values(shares, "linear", " %")
        numbers.set_title("Objects")
        totals = [float(row.total) for row in rows]
        numbers.plot(x, [*totals, totals[-1]], color="#5a626e", drawstyle="steps-post")
        chart.scale_values(numbers, "linear")
    return chart.pixels([shares])
