"""The share of the ground truth that a recipe can match, by the size of the objects."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.epochs import as_written
from ssd_centernet.data.records import parse_example
from ssd_centernet.data.shards import RecordSource, read_records
from ssd_centernet.data.splits import split_prefix
from ssd_centernet.drawing import chart, visualize
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.matches import MATCHED, UNMATCHED, WEAK, Terms
from ssd_centernet.plain_text import counted
from ssd_centernet.text_table import text_table

# Areas in pixels of the original image at which COCO's evaluation divides objects.
COCO_SIZES = (("small", 0.0), ("medium", 32.0**2), ("large", 96.0**2))
# More objects than this without an anchor that reaches the threshold are worth a warning.
_MOST_FORCED = 0.05
# Images that are matched for the warning, and objects that settings are fitted to.
_SAMPLED_IMAGES, _FITTED_OBJECTS = 200, 4000
_LARGEST = 12  # Number of octaves of sides in pixels.
_COLORS = {MATCHED: "#2e8c46", WEAK: "#e18214", UNMATCHED: "#c82d2d"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchedObjects:
    """Hold how each object of a data set is matched; arrays have one entry per object.

    Attributes:
        terms: the detector's names of the states.
        states, quality, groups, remarks: as in `models.matches.Matches`.
        areas: COCO's area, pixels^2 of the original image.
        sides: square root of height times width, pixels of the network's input.
        num_images: number of images read.
    """

    terms: Terms
    states: np.ndarray
    quality: np.ndarray | None
    groups: np.ndarray | None
    remarks: Mapping[str, np.ndarray]
    areas: np.ndarray
    sides: np.ndarray
    num_images: int


@dataclasses.dataclass(frozen=True)
class Row:
    """Hold one line of the table: a group of objects and their number in each state."""

    group: str
    counts: tuple[int, ...]
    quality: float

    @property
    def total(self) -> int:
        """Return the number of objects."""
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
        detector: the detector to train.
        data_dir: folder of converted data.
        split: prefix of the record files.
        crowd: treatment of crowd regions, as in `training_batches`.
        max_images: largest number of images with objects; None takes all.
        output: PNG file for a chart of the shares by size; None writes none.

    Returns:
        The table as text.

    Raises:
        ValueError: the split has no objects.
        FileNotFoundError: the data do not exist.
    """
    if output is not None:
        chart.check_installed()
    examples = _examples(str(data_dir), split, load_label_map(data_dir), crowd)
    matched = match_objects(detector, examples.take(-1 if max_images is None else max_images))
    heading = (
        f"{split_prefix(data_dir, split)} of {data_dir}: "
        f"{counted(len(matched.states), 'object')} in {counted(matched.num_images, 'image')}, "
        f"input {detector.image_size[0]} x {detector.image_size[1]} pixels"
    )
    if output is not None:
        visualize.save_png(output, _chart(matched, heading))
    return f"{heading}\n{format_report(matched)}"


def fit_settings(
    detector: Detector,
    data_dir: str | Path,
    *,
    split: str = "coco_train",
    crowd: str = "object",
    max_images: int | None = None,
) -> dict[str, Any] | None:
    """Compute settings with which a detector's targets match more objects of a split.

    Args:
        detector: the detector to train.
        data_dir: folder of converted data.
        split: prefix of the record files.
        crowd: treatment of crowd regions, as in `training_batches`.
        max_images: largest number of images with objects; None takes all.

    Returns:
        Setting -> value; None where the detector matches nothing by force.

    Raises:
        ValueError: the split has no objects.
        FileNotFoundError: the data do not exist.
    """
    examples = _examples(str(data_dir), split, load_label_map(data_dir), crowd)
    found = [
        _in_input(detector, example)[0].numpy()
        for example in examples.take(-1 if max_images is None else max_images)
    ]
    if not found:
        raise ValueError(f"{split} of {data_dir} has no image with an object: nothing to fit to.")
    boxes = np.concatenate(found)
    # Spread over the split: its images may be sorted.
    boxes = boxes[:: max(1, len(boxes) // _FITTED_OBJECTS)]
    return detector.fit_to_objects(boxes)


def warn_of_forced_matches(
    detector: Detector, data_dir: str | Path, *, split: str, crowd: str
) -> str | None:
    """Say how many objects no anchor reaches, where these are many.

    Args:
        detector: the detector to train.
        data_dir: folder of converted data.
        split: prefix of the record files.
        crowd: treatment of crowd regions, as in `training_batches`.

    Returns:
        A sentence with the share among the first images; None where it is 5 % or less, or where
        nothing is matched by force.
    """
    if not detector.matches_by_force:
        return None
    examples = _examples(str(data_dir), split, load_label_map(data_dir), crowd)
    try:
        matched = match_objects(detector, examples.take(_SAMPLED_IMAGES))
    except ValueError:  # No object: another sentence tells that.
        return None
    forced = matched.states != MATCHED
    if forced.mean() <= _MOST_FORCED:
        return None
    small = matched.sides < 32.0
    of_small = (
        f", {100 * forced[small].mean():.0f} % of those below 32 pixels" if any(small) else ""
    )
    return (
        f"no anchor fits {100 * forced.mean():.0f} % of {counted(len(forced), 'object')} in "
        f"{counted(matched.num_images, 'image')} of {split}{of_small}: each of them teaches one "
        "anchor at most. `ssd_centernet show_anchors --fit` computes anchors for the data"
    )


def _in_input(detector: Detector, example: Mapping) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the boxes of an image as fractions of the network's input, and the image's extent."""
    extent = detector.preprocessing.extent(example["height"], example["width"])
    return example["boxes"] * tf.concat([extent, extent], axis=0), extent


def _examples(data_dir: str, split: str, label_map, crowd: str) -> tf.data.Dataset:
    """Return the objects of each image that has any, without pixels."""

    @as_written
    def load(serialized: tf.Tensor) -> dict:
        example = parse_example(serialized, label_map)
        objects = {name: example[name] for name in ("boxes", "classes", "is_crowd", "area")}
        if crowd == "object":
            objects["is_crowd"] = tf.zeros_like(objects["is_crowd"])
        else:
            kept = ~objects["is_crowd"]
            objects = {name: tf.boolean_mask(value, kept) for name, value in objects.items()}
        return objects | {"height": example["height"], "width": example["width"]}

    source = RecordSource(data_dir, split, 0, 1, keep_empty=True, crowd=crowd)
    source.check(label_map)
    has_objects = as_written(lambda one: tf.size(one["classes"]) > 0)
    return read_records(source.files).map(load).filter(has_objects)


def match_objects(detector: Detector, examples) -> MatchedObjects:
    """Make the targets of each image and let the detector explain how each object is matched.

    Args:
        detector: the detector with `make_targets` and `explain_targets`.
        examples: dicts with `boxes` [N, 4] yxyx fractions of the image, `classes`, `is_crowd`,
            `area` [N], `height` and `width`, as tensors.

    Raises:
        ValueError: there are no objects.
    """
    found, areas, sides = [], [], []
    for example in examples:
        boxes, extent = _in_input(detector, example)
        objects = (boxes, example["classes"], example["is_crowd"])
        targets = detector.make_targets(*objects, extent=extent)
        boxes, *others = (field.numpy() for field in objects)
        found.append(detector.explain_targets(targets, boxes, *others, extent=extent))
        lengths = (boxes[:, 2:] - boxes[:, :2]) * detector.image_size
        sides.append(np.sqrt(np.maximum(lengths.prod(axis=1), 0.0)))
        areas.append(example["area"].numpy())
    if not found:
        raise ValueError(
            "the split has no image with an object, so there is nothing to match. "
            "Check the split and its annotations."
        )

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(one, name) for one in found]
        return None if values[0] is None else np.concatenate(values)

    return MatchedObjects(
        terms=found[0].terms,
        states=joined("states"),
        quality=joined("quality"),
        groups=joined("groups"),
        remarks={
            phrase: np.concatenate([one.remarks[phrase] for one in found])
            for phrase in found[0].remarks
        },
        areas=np.concatenate(areas),
        sides=np.concatenate(sides),
        num_images=len(found),
    )


# --- the table -------------------------------------------------------------------------------


def rows_by_size(matched: MatchedObjects) -> list[Row]:
    """Return the lines for all objects, for COCO's sizes, and for octaves of sides at the input."""
    rows = [_row("all objects", matched, np.ones(len(matched.states), bool))]
    ends = [area for _, area in COCO_SIZES[1:]] + [np.inf]
    for (name, least), end in zip(COCO_SIZES, ends, strict=True):
        chosen = (matched.areas >= least) & (matched.areas < end)
        rows.append(_row(f"COCO {name}", matched, chosen))
    return rows + [_row(name, matched, chosen) for _, name, chosen in _octaves(matched)]


def _octaves(matched: MatchedObjects) -> list[tuple[int, str, np.ndarray]]:
    """Return exponent, name and members of each octave that has objects."""
    exponents = np.floor(np.log2(np.maximum(matched.sides, 1.0))).clip(0, _LARGEST).astype(int)
    return [
        (e, f"side {2**e if e else 0} to {2 ** (e + 1)} px", exponents == e)
        for e in range(_LARGEST + 1)
        if (exponents == e).any()
    ]


def _row(group: str, matched: MatchedObjects, chosen: np.ndarray) -> Row:
    counts = [int(np.sum(matched.states[chosen] == state)) for state in matched.terms.states]
    known = matched.quality is not None and chosen.any()
    return Row(group, tuple(counts), float(np.median(matched.quality[chosen])) if known else np.nan)


def format_report(matched: MatchedObjects) -> str:
    """Format the table and its legend.

    Args:
        matched: result of `match_objects`.

    Returns:
        Lines of at most 100 characters.
    """
    terms, rows = matched.terms, rows_by_size(matched)
    for group, name in enumerate(terms.groups):
        rows.append(_row(name, matched, matched.groups == group))
    heads = [name for name, _ in terms.states.values()]
    cells = [["", "objects", *heads, *([f"median {terms.quality}"] if terms.quality else [])]]
    for row in rows:
        shares = [_share(count, row.total) for count in row.counts]
        best = [f"{row.quality:.2f}" if row.total else "-"] if terms.quality else []
        cells.append([row.group, str(row.total), *shares, *best])
    lines = [text_table(cells, rule=False), ""]
    for note in (*terms.notes, "px: pixels of the network's input."):
        lines += textwrap.wrap(note, 100)
    total = len(matched.states)
    for phrase, true in matched.remarks.items():
        count = int(true.sum())
        lines.append(f"{phrase}: {counted(count, 'object')} ({_share(count, total)})")
    return "\n".join(lines)


def _share(count: int, total: int) -> str:
    return f"{100.0 * count / total:.1f} %" if total else "-"


def _chart(matched: MatchedObjects, heading: str) -> np.ndarray:
    members = {e: chosen for e, _, chosen in _octaves(matched)}
    octaves = range(min(members), max(members) + 1)
    nobody = np.zeros(len(matched.states), bool)
    rows = [_row("", matched, members.get(e, nobody)) for e in octaves]
    # A value is valid until the next octave; the last octave needs an end.
    x = [2.0**e for e in (*octaves, octaves[-1] + 1)]
    heading = f"Objects matched by the targets\n{heading}"
    x_label = "side of the object in the network's input, pixels"
    with chart.stacked_axes(300, 160, heading=heading, x_label=x_label) as (shares, numbers):
        shares.set_xscale("log", base=2)
        shares.set_title("Share of objects")
        for column, (state, (label, _)) in enumerate(matched.terms.states.items()):
            y = [100.0 * row.counts[column] / row.total if row.total else np.nan for row in rows]
            style = {"color": _COLORS[state], "drawstyle": "steps-post"}
            shares.plot(x, [*y, y[-1]], label=label, **style)
        chart.scale_values(shares, "linear", " %")
        numbers.set_title("Objects")
        totals = [float(row.total) for row in rows]
        numbers.plot(x, [*totals, totals[-1]], color="#5a626e", drawstyle="steps-post")
        chart.scale_values(numbers, "linear")
    return chart.pixels([shares])
