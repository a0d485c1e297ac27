"""Conversion of a COCO data set to TFRecord shards, with all that training needs beside them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable

from tqdm import tqdm

from ssd_centernet.data import names
from ssd_centernet.data.box_units import UNITS
from ssd_centernet.data.checking import checked_images, encoded_contents
from ssd_centernet.data.decoder_lines import held_lines
from ssd_centernet.data.images import DEFAULT_MAX_PIXELS, pillow_limit
from ssd_centernet.data.names import COCO
from ssd_centernet.data.orientation import decide_turning, list_frames
from ssd_centernet.data.output import SplitOutput
from ssd_centernet.data.raw_boxes import RawBoxes
from ssd_centernet.data.readers.coco import CocoImage, CocoIndex, read_coco
from ssd_centernet.data.readers.source import AnnotationSource, EncodedImages
from ssd_centernet.data.split_writer import SplitWriter
from ssd_centernet.data.tiling import LEAST_VISIBLE, Cutting
from ssd_centernet.data.validate import LISTED
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops.tiles import Tiles

# Raised when the same input would give other records.
FORMAT_VERSION = 2
MAX_SHARDS = 1000


def convert_coco(
    annotations: str | os.PathLike | AnnotationSource,
    image_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    split: str = "train",
    name: str | None = COCO,
    num_shards: int | None = None,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    keep_empty: bool = True,
    keep_crowd: bool = True,
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
    max_missing: float = 0.05,
    max_dropped: float = 0.1,
    box_units: str = "auto",
    max_images: int | None = None,
    tiles: Tiles | None = None,
    tiles_min_visible: float = LEAST_VISIBLE,
    overwrite: bool = False,
    progress: bool = True,
    when_read: Callable[[LabelMap], None] | None = None,
) -> dict:
    """Convert one split of a COCO data set to TFRecord shards.

    Writes into `output_dir`: `coco_<split>.record-00000-of-0000N`, `coco_<split>.annotations.json`
    (the ground truth of an evaluation, without masks), `mscoco_label_map.pbtxt`, and at the end
    `coco_<split>.info.json`: without it the shards count as unfinished. Shards are written to a
    hidden folder and moved when all are complete. A second call with the same input returns at
    once. Kept images go to the shards in turn, in the order of the annotation file.

    Args:
        annotations: COCO json file with boxes, or annotations of another format as
            `data.readers` reads them.
        image_dir: folder of the images that `file_name` is relative to.
        output_dir: folder to write to; made if needed, shared by the splits of a data set.
        split: name of the split, 'train' or 'coco_train'; files begin with `coco_<split>`.
        name: what files begin with instead of `coco`; None takes the name of the data set that is
            in the folder already, or a `names.new_name`, as the command does.
        num_shards: number of shards, 1..1000; None makes about one per 400 images, from 8 to 256.
        workers: threads that read and check images; None starts one per processor.
        max_pixels: larger images are dropped before they are decoded.
        keep_empty: keep images without any valid object. In evaluation a detection on them is a
            false positive.
        keep_crowd: keep crowd regions, which evaluation ignores rather than counts.
        label_map: the categories to keep; None takes those of the annotation file.
        drop_unknown_categories: leave out boxes of categories outside the label map.
        max_missing: share 0..1 of the listed images that may be missing.
        max_dropped: share 0..1 of the images or of the boxes that may be dropped. Missing images,
            second copies, and what another setting leaves out, do not count.
        box_units: 'auto' refuses boxes that seem to be in another unit or order than x, y, width,
            height in pixels; 'pixels' takes them as they are and clips them; 'fractions' and
            'percent' scale them by the size of the picture.
        max_images: convert only this many images, the first ones with objects, such as 16 for a
            test of overfitting; None converts all.
        tiles: cut larger pictures into these, each of which becomes a picture of its own, called
            `FILE_NAME#xywh=LEFT,TOP,WIDTH,HEIGHT`; see `data.tiling`. None keeps pictures whole.
        tiles_min_visible: share of an object's box, above 0 and at most 1, that a tile must show;
            of less it has a crowd region.
        overwrite: replace the files of an earlier conversion with other input.
        progress: show a progress bar on stderr.
        when_read: called with the categories when the annotations are read and no picture is yet,
            such as to look at another split first; not where the conversion is there already.

    Returns:
        The content of `coco_<split>.info.json`: `num_images`, `num_objects`, `num_crowd`,
        `num_empty`, `max_objects_per_image`, `objects_per_class` (crowd regions not counted),
        `num_shards`, `shards`, `report`, `input`, `picture_digests`, `name`, `split`, and `tiles`
        where pictures are cut.

    Raises:
        FileNotFoundError: if the annotations or the image folder do not exist, or more images are
            missing than `max_missing` allows.
        FileExistsError: if the output folder holds another conversion and `overwrite` is off, or
            another split of another name has the same files.
        ValueError: if an option is out of range, the annotations are not usable (see
            `read_coco`), boxes are in another unit or order (see `box_units.check_units`), the
            label map differs from the one in the output folder, no image or no box is left, or
            more was dropped than `max_dropped` allows.

    Source: docs/reference/ssd_resnet34.md, section 7.1 (fields, round robin of kept images)
    """
    name = name or names.known_name(output_dir)
    for setting, value in (("split", split), ("name", name or COCO)):
        names.check_name(setting, value)
    if num_shards is not None and not 1 <= num_shards <= MAX_SHARDS:
        raise ValueError(f"num_shards must be in 1..{MAX_SHARDS}, got {num_shards}.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be 1 or more, got {max_images}.")
    _check_ranges(max_pixels, max_missing, max_dropped, workers, box_units)
    cutting = None if tiles is None else Cutting(tiles, tiles_min_visible, keep_crowd)
    is_read = isinstance(annotations, AnnotationSource)
    source = annotations.name if is_read else os.fspath(annotations)
    encoded = annotations.encoded if is_read else None
    index, files = read_split(
        annotations,
        image_dir,
        label_map=label_map,
        drop_unknown_categories=drop_unknown_categories,
        max_images=max_images,
        max_missing=max_missing,
        box_units=box_units,
    )
    if num_shards is None:
        num_shards = max(min(8, len(index.images)), min(256, len(index.images) // 400), 1)
    options = {
        "format_version": FORMAT_VERSION,
        "annotations_sha256": index.sha256,
        "images_sha256": hashlib.sha256(repr(files).encode()).hexdigest(),
        "categories": index.label_map.to_categories(),
        "num_shards": num_shards,
        "max_pixels": max_pixels,
        "keep_empty": keep_empty,
        "keep_crowd": keep_crowd,
        "drop_unknown_categories": drop_unknown_categories,
        "box_units": box_units,
        "max_images": max_images,
    } | ({} if cutting is None else {"tiles": cutting.to_dict()})
    os.makedirs(output_dir, exist_ok=True)
    role = split.removeprefix("coco_")
    name = name or names.new_name(output_dir, index.label_map)
    output = SplitOutput(output_dir, prefix=f"{name}_{role}", num_shards=num_shards)
    with output.locked():
        finished = output.finished_info()
        output.check_owner(finished, name, role)
        if finished is not None and finished.get("input") == options:
            output.remove_partial()
            return finished | {"name": name, "split": role}
        _check_version(finished, output, overwrite)
        output.check_replaceable(finished, overwrite)
        output.check_label_map(index.label_map, overwrite)
        if when_read is not None:
            when_read(index.label_map)
        workers = workers or os.cpu_count()
        if encoded is None:
            _decide_turning(index, image_dir, workers)
        held = held_lines()
        with output.partial_folder() as folder, pillow_limit(None), held as said:
            writer = SplitWriter(
                output,
                folder,
                index,
                source=source,
                keep_empty=keep_empty,
                keep_crowd=keep_crowd,
                box_units=box_units,
                notes_on_classes=is_read,
                cutting=cutting,
            )
            contents = encoded_contents(index.images, image_dir, encoded)
            images = checked_images(index, contents, files, max_pixels, workers, said, cutting)
            shown = {"total": len(files), "disable": not progress, "unit": "image"}
            with contextlib.closing(writer):
                for image, checked in tqdm(images, output.prefix, file=said.stream, **shown):
                    writer.add(image, checked)
            writer.check(max_dropped)
            info = writer.info(options, output) | {"image_dir": os.path.abspath(image_dir)}
            info |= {"name": name, "split": role}
            output.commit(folder, info, writer.ground_truth(), index.label_map, overwrite)
    return info


def _check_ranges(
    max_pixels: int, max_missing: float, max_dropped: float, workers: int | None, box_units: str
) -> None:
    """Raise an error for options out of range."""
    if max_pixels < 1 or not 0 <= max_missing <= 1 or (workers is not None and workers < 1):
        raise ValueError(
            "max_pixels and workers must be 1 or more and max_missing in 0..1, got "
            f"max_pixels={max_pixels}, workers={workers}, max_missing={max_missing}."
        )
    if box_units not in UNITS or not 0 <= max_dropped <= 1:
        raise ValueError(
            f"box_units must be one of {', '.join(UNITS)} and max_dropped in 0..1, got "
            f"box_units={box_units}, max_dropped={max_dropped}."
        )


def _check_version(finished: dict | None, output: SplitOutput, overwrite: bool) -> None:
    """Raise an error that says why a conversion of an earlier version is not this one."""
    version = (finished or {}).get("input", {}).get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION and not overwrite:
        raise FileExistsError(
            f"{output.directory} holds {output.prefix} as an earlier version of this program wrote "
            "it. Training and evaluation read it as it is; this version checks more and reads some "
            "pictures differently. To convert again, set overwrite (--overwrite)."
        )


# --- reading ---------------------------------------------------------------------------------


def read_split(
    annotations: str | os.PathLike | AnnotationSource,
    image_dir: str | os.PathLike,
    *,
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
    max_images: int | None = None,
    max_missing: float = 0.05,
    box_units: str = "auto",
) -> tuple[CocoIndex, list[tuple]]:
    """Read the annotations of a split, and look for its images without opening them.

    Args:
        annotations, image_dir: as in `convert_coco`, like all others.

    Returns:
        What was read, and (name, bytes, time of change) of each image; size -1 where there is no
        file.

    Raises:
        FileNotFoundError, ValueError: as in `convert_coco`, for all but what pictures hold.
    """
    index = read_coco(
        annotations,
        image_dir,
        label_map=label_map,
        drop_unknown_categories=drop_unknown_categories,
    )
    is_read = isinstance(annotations, AnnotationSource)
    source = annotations.name if is_read else os.fspath(annotations)
    if is_read:
        _tell_places(index, annotations.content["annotations"])
    if max_images is not None:
        index.images[:] = [image for image in index.images if image.annotations][:max_images]
    if box_units == "auto":
        _check_listed(index, source)
    encoded = annotations.encoded if is_read else None
    return index, _stat_images(index.images, image_dir, max_missing, encoded, source)


def _tell_places(index: CocoIndex, annotations: list[dict]) -> None:
    """Give annotations the places where their reader found them: files and lines."""
    places = {annotation["id"]: annotation.get("where") for annotation in annotations}
    for image in index.images:
        for annotation in image.annotations:
            annotation["where"] = places.get(annotation["id"])


def _check_listed(index: CocoIndex, source: str) -> None:
    """Check the unit of boxes by the listed sizes, before any picture is read."""
    raw = RawBoxes()
    for image in index.images:
        for annotation in image.annotations:
            raw.add(annotation, image, (image.width, image.height))
    raw.check(source, index.report)


def _decide_turning(index: CocoIndex, image_dir, workers: int) -> None:
    """Decide whether the boxes of the whole file refer to pictures turned by their tags."""
    if index.upright:
        return
    list_frames(index.images, image_dir)
    turning = decide_turning(
        (
            (os.path.join(image_dir, image.file_name), (image.width, image.height))
            for image in index.images
        ),
        workers,
    )
    index.upright = turning.upright
    if turning.is_mixed:
        index.report.add(
            "notes",
            "listed sizes are of pictures turned by EXIF and of stored ones: each is taken as it "
            "is listed, the others as most are",
            f"{turning.turned} turned, {turning.stored} stored",
        )


def _stat_images(
    images: list[CocoImage],
    image_dir,
    max_missing: float,
    encoded: EncodedImages | None,
    source: str,
) -> list[tuple]:
    """Return (name, bytes, time of change) of each image; size -1 where there is no file."""
    if encoded is not None:
        return [(image.file_name, *encoded.stats[image.file_name]) for image in images]
    files, missing = [], []
    for image in images:
        try:
            stat = os.stat(os.path.join(image_dir, image.file_name))
            files.append((image.file_name, stat.st_size, stat.st_mtime_ns))
        except OSError:
            missing.append(image.file_name)
            files.append((image.file_name, -1, 0))
    if len(missing) > max_missing * len(images):
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} listed images are not in {os.fspath(image_dir)}, for "
            f"example {', '.join(missing[:LISTED])}; at most a share of {max_missing} may be "
            "missing. Check image_dir (is it the folder of this split?) and the names in "
            f"{source}, or raise max_missing."
        )
    return files
