"""Conversion of a COCO data set to TFRecord shards, with all that training needs beside them."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import os
import re
from collections.abc import Iterator

import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.output import SplitOutput
from ssd_centernet.data.readers.coco import CocoImage, CocoIndex, read_coco
from ssd_centernet.data.readers.source import AnnotationSource, EncodedImages
from ssd_centernet.data.records import encode_example
from ssd_centernet.data.validate import LISTED, Box, CheckedImage, check_box, check_image
from ssd_centernet.labels import LabelMap

# Pillow's own bound against decompression bombs: a quarter of a gigabyte of RGB.
DEFAULT_MAX_PIXELS = 89_478_485
# Raised when the same input would give other records.
FORMAT_VERSION = 1
MAX_SHARDS = 1000


def convert_coco(
    annotations: str | os.PathLike | AnnotationSource,
    image_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    split: str = "train",
    num_shards: int | None = None,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    keep_empty: bool = True,
    keep_crowd: bool = True,
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
    max_missing: float = 0.05,
    max_images: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
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
        num_shards: number of shards, 1..1000; None makes about one per 400 images, from 8 to 256.
        workers: threads that read and check images; None starts one per processor.
        max_pixels: larger images are dropped before they are decoded.
        keep_empty: keep images without any valid object. In evaluation a detection on them is a
            false positive.
        keep_crowd: keep crowd regions, which evaluation ignores rather than counts.
        label_map: the categories to keep; None takes those of the annotation file.
        drop_unknown_categories: leave out boxes of categories outside the label map.
        max_missing: share 0..1 of the listed images that may be missing.
        max_images: convert only this many images, the first ones with objects, such as 16 for a
            test of overfitting; None converts all.
        overwrite: replace the files of an earlier conversion with other input.
        progress: show a progress bar on stderr.

    Returns:
        The content of `coco_<split>.info.json`: `num_images`, `num_objects`, `num_crowd`,
        `num_empty`, `max_objects_per_image`, `num_shards`, `shards`, `report` and `input`.

    Raises:
        FileNotFoundError: if the annotations or the image folder do not exist, or more images are
            missing than `max_missing` allows.
        FileExistsError: if the output folder holds another conversion and `overwrite` is off.
        ValueError: if an option is out of range, the annotations are not usable (see
            `read_coco`), the label map differs from the one in the output folder, or no image
            is left.

    Source: docs/reference/ssd_resnet34.md, section 7.1 (fields, round robin of kept images)
    """
    if not re.fullmatch(r"[A-Za-z0-9_.]+", split):
        raise ValueError(f"split must be of letters, digits, '_' or '.', got {split!r}.")
    if num_shards is not None and not 1 <= num_shards <= MAX_SHARDS:
        raise ValueError(f"num_shards must be in 1..{MAX_SHARDS}, got {num_shards}.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be 1 or more, got {max_images}.")
    if max_pixels < 1 or not 0 <= max_missing <= 1 or (workers is not None and workers < 1):
        raise ValueError(
            "max_pixels and workers must be 1 or more and max_missing in 0..1, got "
            f"max_pixels={max_pixels}, workers={workers}, max_missing={max_missing}."
        )
    index = read_coco(
        annotations,
        image_dir,
        label_map=label_map,
        drop_unknown_categories=drop_unknown_categories,
    )
    if max_images is not None:
        index.images[:] = [image for image in index.images if image.annotations][:max_images]
    encoded = annotations.encoded if isinstance(annotations, AnnotationSource) else None
    files = _stat_images(index.images, image_dir, max_missing, encoded)
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
        "max_images": max_images,
    }
    os.makedirs(output_dir, exist_ok=True)
    output = SplitOutput(
        output_dir, prefix=f"coco_{split.removeprefix('coco_')}", num_shards=num_shards
    )
    with output.locked():
        finished = output.finished_info()
        if finished is not None and finished.get("input") == options:
            return finished
        output.check_replaceable(finished, overwrite)
        output.check_label_map(index.label_map, overwrite)
        with output.partial_folder() as folder, _pillow_limit(None):
            writer = _SplitWriter(output, folder, index, keep_empty, keep_crowd)
            contents = _contents(index.images, image_dir, encoded)
            images = _checked_images(index, contents, files, max_pixels, workers or os.cpu_count())
            with contextlib.closing(writer):
                for image, checked in tqdm(
                    images, output.prefix, total=len(files), disable=not progress, unit="image"
                ):
                    writer.add(image, checked)
            info = writer.info(options)
            if not info["num_images"]:
                read = isinstance(annotations, AnnotationSource)
                source = annotations.name if read else os.fspath(annotations)
                raise ValueError(
                    f"No image of {source} could be used: {info['report']}. "
                    f"Check that {os.fspath(image_dir)} holds the images of this split."
                )
            output.commit(folder, info, writer.ground_truth(), index.label_map)
    return info


# --- reading ---------------------------------------------------------------------------------


def _stat_images(
    images: list[CocoImage], image_dir, max_missing: float, encoded: EncodedImages | None
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
            "missing. Check image_dir (is it the folder of this split?), or raise max_missing."
        )
    return files


def _contents(
    images: list[CocoImage], image_dir, encoded: EncodedImages | None
) -> Iterator[str | bytes]:
    """Yield the path of each image, or its bytes if the annotations hold them."""
    if encoded is None:
        yield from (os.path.join(image_dir, image.file_name) for image in images)
        return
    stream = encoded.read()
    for image in images:
        yield next(data for name, data in stream if name == image.file_name)


def _checked_images(
    index: CocoIndex,
    contents: Iterator[str | bytes],
    files: list[tuple],
    max_pixels: int,
    workers: int,
) -> Iterator[tuple[CocoImage, CheckedImage]]:
    """Yield the images in order; threads read a bounded number of images ahead."""

    def check(image: CocoImage, content: str | bytes, size: int) -> CheckedImage:
        if size < 0:
            return CheckedImage(dropped="listed but missing")
        return check_image(
            content,
            listed_width=image.width,
            listed_height=image.height,
            max_pixels=max_pixels,
            decode=_decode,
            upright=index.upright,
        )

    # Threads, not processes: hashing and decoding release the interpreter lock, and a spawned
    # process would spend seconds on importing tensorflow.
    waiting: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for image, content, (_, size, _) in zip(index.images, contents, files, strict=True):
            waiting.append((image, pool.submit(check, image, content, size)))
            if len(waiting) > 4 * workers:
                image, future = waiting.popleft()
                yield image, future.result()
        while waiting:
            image, future = waiting.popleft()
            yield image, future.result()


def _decode(encoded: bytes) -> None:
    """Decode as training would; the smallest JPEG scale still reads every byte of the stream."""
    try:
        with tf.device("cpu"):
            if encoded[:2] == b"\xff\xd8":
                tf.io.decode_jpeg(encoded, channels=3, ratio=8)
            else:
                tf.io.decode_png(encoded, channels=3)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message) from error


@contextlib.contextmanager
def _pillow_limit(limit: int | None) -> Iterator[None]:
    """Switch off Pillow's own pixel limit; `max_pixels` replaces it."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


# --- writing ---------------------------------------------------------------------------------


class _SplitWriter:
    """Write kept images to the shards in turn and collect the ground truth."""

    def __init__(
        self, output: SplitOutput, folder: str, index: CocoIndex, keep_empty: bool, keep_crowd: bool
    ) -> None:
        self._label_map, self._report = index.label_map, index.report
        self._keep_empty, self._keep_crowd = keep_empty, keep_crowd
        self._shards = [os.path.join(folder, name) for name in output.shard_names()]
        self._writers = [tf.io.TFRecordWriter(shard) for shard in self._shards]
        self._counts = [0] * len(self._shards)
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._max_objects = self._num_empty = 0

    def add(self, image: CocoImage, checked: CheckedImage) -> None:
        """Write one image, or count the reason why it is dropped."""
        report, name = self._report, image.file_name
        if checked.dropped:
            report.add("dropped images", checked.dropped, name)
            return
        boxes = self._valid_boxes(image, checked)
        if not boxes and not self._keep_empty:
            report.add("dropped images", "no valid object", name)
            return
        for reason in checked.repairs:
            report.add("repaired images", reason, name)
        for reason in checked.notes:
            report.add("notes", reason, name)
        self._num_empty += not boxes
        self._max_objects = max(self._max_objects, len(boxes))
        shard = len(self._images) % len(self._shards)
        self._writers[shard].write(self._record(image, checked, boxes))
        self._counts[shard] += 1
        self._collect(image, checked, boxes)

    def _valid_boxes(self, image: CocoImage, checked: CheckedImage) -> list[Box]:
        boxes = []
        for annotation in image.annotations:
            result = check_box(
                annotation, width=checked.width, height=checked.height, scale=checked.scale
            )
            item = f"annotation {annotation.get('id')} of {image.file_name}"
            if result.box is not None and result.box.is_crowd and not self._keep_crowd:
                result.box, result.dropped = None, "crowd region"
            if result.box is None:
                self._report.add("dropped boxes", result.dropped, item)
                continue
            for reason in result.repairs:
                self._report.add("repaired boxes", reason, item)
            boxes.append(result.box)
        return boxes

    def _record(self, image: CocoImage, checked: CheckedImage, boxes: list[Box]) -> bytes:
        width, height = checked.width, checked.height
        corners = [
            (y / height, x / width, (y + h) / height, (x + w) / width)
            for x, y, w, h in (box.bbox for box in boxes)
        ]
        names, to_class = self._label_map.names, self._label_map.to_class
        return encode_example(
            {
                "encoded": checked.encoded,
                "format": checked.format,
                "filename": image.file_name,
                "source_id": image.image_id,
                "height": height,
                "width": width,
                "boxes": corners,
                "labels": [box.category_id for box in boxes],
                "texts": [names[to_class(box.category_id)] for box in boxes],
                "is_crowd": [box.is_crowd for box in boxes],
                "area": [box.area for box in boxes],
            }
        )

    def _collect(self, image: CocoImage, checked: CheckedImage, boxes: list[Box]) -> None:
        entry = {
            "id": image.image_id,
            "width": checked.width,
            "height": checked.height,
            "file_name": image.file_name,
        }
        if image.original_id != image.image_id:
            entry["original_id"] = image.original_id
        self._images.append(entry)
        for box in boxes:
            self._annotations.append(
                {
                    # From 1: evaluators take annotation 0 for "no match".
                    "id": len(self._annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": box.category_id,
                    "bbox": list(box.bbox),
                    "area": box.area,
                    "iscrowd": int(box.is_crowd),
                }
            )

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def info(self, options: dict) -> dict:
        """Return the content of info.json; the writer must be closed."""
        return {
            "num_images": len(self._images),
            "num_objects": len(self._annotations),
            "num_crowd": sum(a["iscrowd"] for a in self._annotations),
            "num_empty": self._num_empty,
            "max_objects_per_image": self._max_objects,
            "num_shards": len(self._shards),
            "shards": [
                {"file": os.path.basename(p), "num_images": n, "bytes": os.path.getsize(p)}
                for p, n in zip(self._shards, self._counts, strict=True)
            ],
            "label_map": LABEL_MAP_NAME,
            "report": self._report.to_dict(),
            "input": options,
        }

    def ground_truth(self) -> dict:
        """Return the ground truth for a COCO evaluation of this split."""
        return {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._label_map.to_categories(),
        }
