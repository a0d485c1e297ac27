"""Conversion of annotations in any format that `data.readers` reads."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from ssd_centernet.data.box_units import WHOLE
from ssd_centernet.data.convert import convert_coco, read_split
from ssd_centernet.data.directory import LABEL_MAP_NAME, load_label_map
from ssd_centernet.data.names import COCO, known_name
from ssd_centernet.data.readers import detect_format, read_annotations
from ssd_centernet.data.readers.pictures import holds_only_pictures, read_pictures
from ssd_centernet.data.readers.source import AnnotationSource
from ssd_centernet.data.validate import format_report, wrapped
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted

_NAMES_SHOWN = 20


def convert_annotations(
    annotations: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    image_dir: str | os.PathLike | None = None,
    annotation_format: str = "auto",
    image_list: str | os.PathLike | None = None,
    first_pixel: int | None = None,
    split: str = "train",
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
    box_units: str = "auto",
    name: str | None = COCO,
    **options,
) -> dict:
    """Convert one split of a data set to TFRecord shards; see `convert_coco` for what is written.

    In all formats but coco, classes have names and no ids. The first split numbers the names from
    1; later ones use the label map that it left in `output_dir`, so that all agree.

    Args:
        annotations: json, csv or yaml file, or folder; see `data.readers`. A folder of pictures
            alone, or COCO json without annotations, is a test set: with a label map it becomes
            records without objects.
        output_dir: folder to write to.
        image_dir: folder of the images; None lets the reader find it; COCO json needs it.
        annotation_format: 'auto', or one of `data.readers.FORMATS`.
        image_list: text file with one image per line: only these are converted.
        first_pixel: number of the leftmost pixel in voc and csv, 0 or 1; None is 1 and 0.
        split: name of the split.
        label_map: the categories to keep.
        drop_unknown_categories: leave out boxes of categories outside the label map.
        box_units: as in `convert_coco`; for coco, voc and csv.
        name: as in `convert_coco`.
        **options: other arguments of `convert_coco`.

    Returns:
        The content of `coco_<split>.info.json`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: as for the readers and `convert_coco`.
    """
    name = name or known_name(output_dir)
    own = f"{name}_{split.removeprefix('coco_')}"  # Of no name where nothing is shared yet.
    shared = label_map or _shared_label_map(output_dir, own)
    source = _read(
        annotations,
        annotation_format=annotation_format,
        split=split,
        image_dir=image_dir,
        image_list=image_list,
        label_map=shared,
        drop_unknown=drop_unknown_categories,
        first_pixel=first_pixel,
        box_units=box_units,
    )
    return convert_coco(
        annotations if source is None else source,
        image_dir if source is None else source.image_dir,
        output_dir,
        split=split,
        # A reader has numbered the categories, and left unknown ones out.
        label_map=shared if source is None else None,
        drop_unknown_categories=drop_unknown_categories,
        box_units=box_units,
        name=name,
        **options,
    )


def check_annotations(
    annotations: str | os.PathLike,
    *,
    label_map: LabelMap,
    image_dir: str | os.PathLike | None = None,
    split: str = "train",
) -> None:
    """Refuse a split that could not be converted with some categories; open no picture for it.

    Args:
        annotations, image_dir, split: as in `convert_annotations`.
        label_map: the categories of the other splits.

    Raises:
        ValueError, FileNotFoundError: as for the readers and `convert_coco`.
    """
    source = _read(annotations, split=split, image_dir=image_dir, label_map=label_map)
    if source is None:
        read_split(annotations, image_dir, label_map=label_map)
    else:
        read_split(source, source.image_dir)


def _read(
    annotations: str | os.PathLike,
    *,
    annotation_format: str = "auto",
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    first_pixel: int | None = None,
    box_units: str = "auto",
    **options,
) -> AnnotationSource | None:
    """Read a test set, or annotations in any format; None for COCO json."""
    if annotation_format == "auto" and _is_test_set(annotations):
        return read_pictures(annotations, label_map=label_map, image_list=image_list)
    return read_annotations(
        annotations,
        annotation_format=annotation_format,
        image_list=image_list,
        label_map=label_map,
        first_pixel=_first_pixel(annotations, annotation_format, box_units, first_pixel),
        **options,
    )


def _is_test_set(annotations: str | os.PathLike) -> bool:
    """Tell whether annotations are in no format, as they are pictures alone."""
    try:
        detect_format(annotations)
    except ValueError:
        return holds_only_pictures(annotations)
    return False


def told(info: dict, output_dir: str | os.PathLike) -> str:
    """Say what a conversion wrote: its report, the counts, and how often each class occurs.

    Args:
        info: of `convert_annotations`.
        output_dir: the folder that it wrote to.
    """
    files = f"{info['name']}_{info['split']}.record-*"
    lines = [
        format_report(info["report"]),
        wrapped(
            f"{os.path.join(output_dir, files)}: {counted(info['num_images'], 'image')} "
            f"({info['num_empty']} without objects), {counted(info['num_objects'], 'object')} "
            f"({counted(info['num_crowd'], 'crowd region')}), "
            f"{counted(info['num_shards'], 'shard')}.",
            indent=2,
        ),
    ]
    if cut := info.get("tiles"):
        lines.append(
            wrapped(
                f"The images are tiles of {cut['size']} pixels, {cut['overlap']} or more in "
                f"common, cut out of {counted(cut['num_pictures'], 'picture')}; an object counts "
                "in each tile that shows it. An evaluation on them is one of tiles."
            )
        )
    counts = info.get("objects_per_class", {})
    if not info["num_objects"]:
        lines.append(
            wrapped(
                "No image has an object: there is nothing to learn or to score. `ssd_centernet "
                "evaluate` writes the detections of these images all the same."
            )
        )
        lines.append(wrapped(f"Classes: {_shortened(load_label_map(output_dir).names)}."))
    elif counts:
        ordered = sorted(counts, key=counts.get, reverse=True)
        of_class = [f"{name} {counts[name]}" for name in ordered]
        lines.append(wrapped(f"Objects per class: {_shortened(of_class)}."))
    return "\n".join(lines)


def _shortened(parts: Sequence[str]) -> str:
    """Join the first parts; the last two of many too, as they tell most about rare classes."""
    if len(parts) <= _NAMES_SHOWN:
        return ", ".join(parts)
    first = ", ".join(parts[: _NAMES_SHOWN - 2])
    return f"{first}, ..., {', '.join(parts[-2:])} ({len(parts)} in all)"


def read_label_map(path: str | os.PathLike) -> LabelMap:
    """Read a label map: a pbtxt, or a text file (.txt, .names) with one class name per line.

    Raises:
        ValueError: the file is not a label map; the message names it.
    """
    if not os.fspath(path).lower().endswith((".txt", ".names")):
        return LabelMap.from_pbtxt(path)
    try:
        return LabelMap([line.strip() for line in read_text(path).splitlines() if line.strip()])
    except ValueError as error:
        raise ValueError(f"Label map {os.fspath(path)}: {error}") from error


def _first_pixel(
    annotations: str | os.PathLike, annotation_format: str, box_units: str, first_pixel: int | None
) -> int | None:
    """Return the number of the first pixel; raise an error if a format has no other unit."""
    if box_units not in WHOLE:
        return first_pixel
    kind = detect_format(annotations) if annotation_format == "auto" else annotation_format
    if kind not in ("coco", "voc", "csv"):
        raise ValueError(
            f"box_units is {box_units}, but {kind} itself says the unit of its boxes: leave it out."
        )
    # Counted from 1, fractions would be moved by the whole width of their picture.
    return 0 if kind in ("voc", "csv") else first_pixel


def _shared_label_map(output_dir: str | os.PathLike, prefix: str) -> LabelMap | None:
    """Return the label map of the other splits of a folder, or None if there are none."""
    folder = os.fspath(output_dir)
    own = os.path.join(folder, f"{prefix}.info.json")
    others = set(glob.glob(os.path.join(glob.escape(folder), "*.info.json"))) - {own}
    path = os.path.join(folder, LABEL_MAP_NAME)
    return LabelMap.from_pbtxt(path) if others and os.path.exists(path) else None
