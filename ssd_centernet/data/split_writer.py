"""What becomes of one split: kept images in shards, and an account of all that was read."""

from __future__ import annotations

import contextlib
import glob
import json
import os

import numpy as np
import tensorflow as tf

from ssd_centernet.data.box_units import WHOLE, to_pixels
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.images import NO_SIZE, CheckedImage
from ssd_centernet.data.output import SplitOutput
from ssd_centernet.data.raw_boxes import RawBoxes, place_of
from ssd_centernet.data.readers.coco import CocoImage, CocoIndex
from ssd_centernet.data.readers.source import note_classes
from ssd_centernet.data.records import encode_example
from ssd_centernet.data.tiling import Cutting
from ssd_centernet.data.validate import (
    MISSING,
    WITH_IMAGE,
    WITH_MISSING,
    Box,
    check_box,
    count_lost,
    format_report,
)
from ssd_centernet.data.values import read_box, read_number

_DIGEST_DIGITS = 16


class SplitWriter:
    """Write kept images to the shards in turn; collect the ground truth and the account.

    Args:
        output: names of the files.
        folder: folder of the new shards.
        index: what was read; its report goes on counting.
        source: name of the annotations in messages.
        keep_empty, keep_crowd, box_units: as in `convert_coco`.
        notes_on_classes: whether the reader has looked at the names and numbers of classes.
        cutting: how pictures are cut into tiles, or None.
    """

    def __init__(
        self,
        output: SplitOutput,
        folder: str,
        index: CocoIndex,
        *,
        source: str,
        keep_empty: bool,
        keep_crowd: bool,
        box_units: str,
        notes_on_classes: bool,
        cutting: Cutting | None = None,
    ) -> None:
        self._label_map, self._report = index.label_map, index.report
        self._keep_empty, self._keep_crowd = keep_empty, keep_crowd
        self._source, self._units = source, box_units
        self._has_notes_on_classes = notes_on_classes
        self._shards = [os.path.join(folder, name) for name in output.shard_names()]
        self._writers = [tf.io.TFRecordWriter(shard) for shard in self._shards]
        self._counts = [0] * len(self._shards)
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._max_objects = self._num_empty = 0
        self._raw = RawBoxes()
        self._digests: list[str] = []
        self._cutting, self._num_pictures = cutting, 0

    def add(self, image: CocoImage, checked: CheckedImage) -> None:
        """Write one image, or count the reason why it is dropped."""
        report, name = self._report, image.file_name
        if checked.dropped:
            report.add("dropped images", checked.dropped, name)
            reason = WITH_MISSING if checked.dropped == MISSING else WITH_IMAGE
            report.add("dropped boxes", reason, name, count=len(image.annotations))
            return
        boxes, places = self._valid_boxes(image, checked)
        if self._cutting is None:
            stored = self._store(image, checked, boxes)
        else:
            parts = self._cutting.split_boxes(boxes, checked, report, places)
            # A list, as all are to be stored.
            cut = bool(checked.tiles)
            stored = any([self._store_tile(image, *part, cut) for part in parts])
        if not stored:
            return
        self._num_pictures += 1
        for reason in checked.repairs:
            report.add("repaired images", reason, name)
        for reason in checked.notes:
            # Without boxes nothing depends on the size.
            if reason != NO_SIZE or image.annotations:
                report.add("notes", reason, name)

    def _store(
        self, image: CocoImage, checked: CheckedImage, boxes: list[Box], **facts: object
    ) -> bool:
        """Write a picture, unless it is empty and these are left out; `facts` go to its entry."""
        if not boxes and not self._keep_empty:
            self._report.add("dropped images", "no valid object", image.file_name)
            return False
        self._num_empty += not boxes
        self._max_objects = max(self._max_objects, len(boxes))
        shard = len(self._images) % len(self._shards)
        self._writers[shard].write(self._record(image, checked, boxes))
        self._counts[shard] += 1
        self._digests.append(checked.digest)
        self._collect(image, checked, boxes, facts)
        return True

    def _store_tile(
        self, image: CocoImage, tile: CheckedImage, window: tuple, boxes: list[Box], cut: bool
    ) -> bool:
        """Write a tile under a name that says where it lies in its picture."""
        top, left, bottom, right = window
        place, name = [left, top, right - left, bottom - top], image.file_name
        if cut:
            name += f"#xywh={','.join(map(str, place))}"
        number = len(self._images) + 1
        picture = CocoImage(number, number, name, *place[2:])
        origin = {"id": image.original_id, "file_name": image.file_name}
        return self._store(picture, tile, boxes, tile=place, tile_of=origin)

    def _valid_boxes(self, image: CocoImage, checked: CheckedImage) -> tuple[list[Box], list[str]]:
        boxes, places = [], []
        for annotation in image.annotations:
            item = place_of(annotation, image)
            scale = checked.scale
            if self._units in WHOLE and (bbox := read_box(annotation.get("bbox"))):
                annotation, scale = _scaled(annotation, bbox, self._units, checked), (1.0, 1.0)
                self._report.add("repaired boxes", f"{self._units} scaled to pixels", item)
            self._raw.add(annotation, image, (checked.width, checked.height), scale)
            result = check_box(annotation, width=checked.width, height=checked.height, scale=scale)
            if result.box is not None and result.box.is_crowd and not self._keep_crowd:
                result.box, result.dropped = None, "crowd region"
            if result.box is None:
                self._report.add("dropped boxes", result.dropped, item)
                continue
            for reason in result.repairs:
                self._report.add("repaired boxes", reason, item)
            boxes.append(result.box)
            places.append(item)
        return boxes, places

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

    def _collect(
        self, image: CocoImage, checked: CheckedImage, boxes: list[Box], facts: dict
    ) -> None:
        entry = {
            "id": image.image_id,
            "width": checked.width,
            "height": checked.height,
            "file_name": image.file_name,
        }
        if image.original_id != image.image_id:
            entry["original_id"] = image.original_id
        self._images.append(entry | facts)
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
        """Close the shards."""
        for writer in self._writers:
            writer.close()

    def check(self, max_dropped: float) -> None:
        """Refuse what was read if it cannot be right, or if too much of it was lost.

        Args:
            max_dropped: largest share 0..1 of the boxes or images that may be dropped.

        Raises:
            ValueError: boxes are not in pixels, see `check_units`; no image or no box is left; or
                more was dropped than allowed.
        """
        if self._units != "pixels":
            self._raw.check(self._source, self._report, scaled=self._units in WHOLE)
        self._check_losses(max_dropped)

    def _check_losses(self, max_dropped: float) -> None:
        report = self._report.to_dict()
        dropped = {kind: report[kind] for kind in report if kind.startswith("dropped")}
        reasons = f"\n{format_report(dropped)}\n" if dropped else " "
        if not self._images:
            raise ValueError(
                f"No image of {self._source} could be used, and nothing was written.{reasons}"
                "Check that image_dir holds the images of this split."
            )
        lost_images = count_lost(report, "dropped images")
        lost_boxes = count_lost(report, "dropped boxes")
        if not self._annotations and "dropped boxes" in report:
            raise ValueError(
                f"No box of {self._source} is left, and nothing was written.{reasons}"
                "Correct the annotations or the settings that leave boxes out."
            )
        for lost, kept, what in (
            (lost_boxes, len(self._annotations), "boxes"),
            (lost_images, len(self._images), "images"),
        ):
            share = lost / max(lost + kept, 1)
            if share > max_dropped:
                more, with_image = "", self._report.count("dropped boxes", WITH_IMAGE)
                if what == "boxes" and with_image:
                    more = f" ({with_image} of them with their images)"
                raise ValueError(
                    f"{lost} of {lost + kept} {what} of {self._source} would be dropped{more}, "
                    f"more than a share of max_dropped = {max_dropped:g}. Nothing was written."
                    f"{reasons}Correct what is said above; or, if the loss is right, set "
                    f"max_dropped to {min(1.0, np.ceil(share * 100) / 100):g} or more "
                    "(--max_dropped)."
                )

    def info(self, options: dict, output: SplitOutput) -> dict:
        """Return the content of info.json; the writer must be closed.

        Args:
            options: what decides about the records.
            output: tells the other splits of the folder, for pictures that are in both.
        """
        names = self._label_map.names
        counts = dict.fromkeys(names, 0)
        for annotation in self._annotations:
            if not annotation["iscrowd"]:
                counts[names[self._label_map.to_class(annotation["category_id"])]] += 1
        if self._annotations and not self._has_notes_on_classes:
            note_classes(counts, self._report)
        self._note_equal_pictures(output)
        return {
            "num_images": len(self._images),
            "num_objects": len(self._annotations),
            "num_crowd": sum(a["iscrowd"] for a in self._annotations),
            "num_empty": self._num_empty,
            "max_objects_per_image": self._max_objects,
            "objects_per_class": counts,
            "num_shards": len(self._shards),
            "shards": [
                {"file": os.path.basename(p), "num_images": n, "bytes": os.path.getsize(p)}
                for p, n in zip(self._shards, self._counts, strict=True)
            ],
            "label_map": LABEL_MAP_NAME,
            **self._tiles(),
            "report": self._report.to_dict(),
            "input": options,
            # One string: a list of so many would fill pages of a file that people read.
            "picture_digests": "".join(self._digests),
        }

    def _tiles(self) -> dict:
        if self._cutting is None:
            return {}
        return {"tiles": self._cutting.to_dict() | {"num_pictures": self._num_pictures}}

    def _note_equal_pictures(self, output: SplitOutput) -> None:
        names = [image["file_name"] for image in self._images]
        first: dict[str, str] = {}
        for digest, name in zip(self._digests, names, strict=True):
            if first.setdefault(digest, name) != name:
                reason = "equal pictures in this split"
                self._report.add("notes", reason, f"{first[digest]} = {name}")
        for prefix, other in _other_digests(output):
            common = [digest for digest in first if digest in other]
            if not common:
                continue
            there = _file_names(output.directory, prefix)
            for digest in common:
                position = other[digest]
                name = there[position] if position < len(there) else "(unknown)"
                self._report.add(
                    "notes",
                    f"pictures that are in {prefix} too: evaluation would "
                    "score what was trained on",
                    f"{first[digest]} = {name}",
                )

    def ground_truth(self) -> dict:
        """Return the ground truth for a COCO evaluation of this split."""
        return {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._label_map.to_categories(),
        }


def _scaled(annotation: dict, bbox: tuple, unit: str, checked: CheckedImage) -> dict:
    """Return an annotation in pixels, its area too."""
    x, y, w, h = to_pixels(bbox, unit, checked.width, checked.height)
    share = (read_number(annotation.get("area")) or 0.0) / WHOLE[unit] ** 2
    # The area of a mask; what is larger than the box is in another unit, or no area.
    area = share * checked.width * checked.height
    return {**annotation, "bbox": [x, y, w, h], "area": area if 0 < area < w * h else w * h}


def _other_digests(output: SplitOutput) -> list[tuple[str, dict[str, int]]]:
    """Return the prefix of each other split of the folder, and digest -> number of its image."""
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(output.directory), "*.info.json"))):
        prefix = os.path.basename(path).removesuffix(".info.json")
        if prefix == output.prefix:
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            with open(path, encoding="utf-8") as file:
                # Folders of earlier versions have none.
                joined = json.load(file).get("picture_digests", "")
            parts = range(0, len(joined), _DIGEST_DIGITS)
            digests = {joined[i : i + _DIGEST_DIGITS]: i // _DIGEST_DIGITS for i in parts}
            found.append((prefix, digests))
    return found


def _file_names(directory: str, prefix: str) -> list[str]:
    try:
        with open(os.path.join(directory, f"{prefix}.annotations.json"), encoding="utf-8") as file:
            return [str(image["file_name"]) for image in json.load(file)["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
