"""Conversion of annotations in any format that `data.readers` reads."""

from __future__ import annotations

import glob
import os

from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.readers import read_annotations
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap


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
    **options,
) -> dict:
    """Convert one split of a data set to TFRecord shards; see `convert_coco` for what is written.

    In all formats but coco, classes have names and no ids. The first split numbers the names from
    1; later ones use the label map that it left in `output_dir`, so that all agree.

    Args:
        annotations: json, csv or yaml file, or folder; see `data.readers`.
        output_dir: folder to write to.
        image_dir: folder of the images; None lets the reader find it; COCO json needs it.
        annotation_format: 'auto', or one of `data.readers.FORMATS`.
        image_list: text file with one image per line: only these are converted.
        first_pixel: number of the leftmost pixel in voc and csv, 0 or 1; None is 1 and 0.
        split: name of the split.
        label_map: the categories to keep.
        drop_unknown_categories: leave out boxes of categories outside the label map.
        **options: other arguments of `convert_coco`.

    Returns:
        The content of `coco_<split>.info.json`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: as for the readers and `convert_coco`.
    """
    shared = label_map or _shared_label_map(output_dir, split)
    source = read_annotations(
        annotations,
        annotation_format=annotation_format,
        split=split,
        image_dir=image_dir,
        image_list=image_list,
        label_map=shared,
        drop_unknown=drop_unknown_categories,
        first_pixel=first_pixel,
    )
    return convert_coco(
        annotations if source is None else source,
        image_dir if source is None else source.image_dir,
        output_dir,
        split=split,
        # A reader has numbered the categories, and left unknown ones out.
        label_map=shared if source is None else None,
        drop_unknown_categories=drop_unknown_categories,
        **options,
    )


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


def _shared_label_map(output_dir: str | os.PathLike, split: str) -> LabelMap | None:
    """Return the label map of the other splits of a folder, or None if there are none."""
    folder = os.fspath(output_dir)
    own = os.path.join(folder, f"coco_{split.removeprefix('coco_')}.info.json")
    others = set(glob.glob(os.path.join(glob.escape(folder), "*.info.json"))) - {own}
    path = os.path.join(folder, LABEL_MAP_NAME)
    return LabelMap.from_pbtxt(path) if others and os.path.exists(path) else None
