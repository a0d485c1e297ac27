"""Detection on large pictures, in tiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssd_centernet.labels import LabelMap
from ssd_centernet.models.given_images import as_batch, as_list
from ssd_centernet.ops.tile_merging import METHODS, WHOLE, merge_tiles
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.predict.image_files import read_picture
from ssd_centernet.predict.prediction import finder

Detections = dict[str, np.ndarray]
_LONGEST_WHOLE = 4096
_ROWS_AT_ONCE = 16


class TiledDetector:
    """Detect small objects on large pictures: in tiles, at the scale of the picture.

    A picture no larger than a tile is detected on as without tiles. Of a larger one, tiles go
    through the detector a batch at a time, and so does the whole picture for objects that no tile
    holds; `ops.tile_merging.merge_tiles` says how one set of detections comes of all. Beside the
    picture, one batch of tiles is in memory.

    Attributes:
        tiles: how pictures are cut.
        label_map: names and ids of the classes, or None.
        merging: the settings of the merging: `merge`, `iou_threshold`, `whole_picture`.
        max_pixels: a picture file of more is not decoded: what TensorFlow's decoders can take.
    """

    max_pixels = 2**29 - 1

    def __init__(
        self,
        detector: Any,
        tiles: Tiles | int,
        *,
        merge: str = "nms",
        iou_threshold: float = 0.5,
        whole_picture: bool = True,
        batch_size: int = 8,
        label_map: LabelMap | None = None,
    ):
        """Take a detector.

        Args:
            detector: a `Detector` with its weights, or an exported file.
            tiles: how pictures are cut; a number is the size, with its usual overlap.
            merge: 'nms', or 'wbf' for weighted boxes fusion.
            iou_threshold: boxes of two tiles with a greater IoU are one object, 0..1.
            whole_picture: whether the whole picture is detected on too.
            batch_size: tiles in a step, 1 or more; an exported file takes one after the other.
            label_map: names and ids of the classes; None takes those of the detector, if it has
                them.

        Raises:
            ValueError: a setting is out of range.
        """
        self.tiles = tiles if isinstance(tiles, Tiles) else Tiles(tiles)
        if merge not in METHODS:
            raise ValueError(f"merge must be {' or '.join(METHODS)}, got {merge!r}.")
        if not 0.0 <= iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must be in 0..1, got {iou_threshold}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
        self.label_map = label_map or getattr(detector, "label_map", None)
        self.merging = {
            "merge": merge,
            "iou_threshold": iou_threshold,
            "whole_picture": whole_picture,
        }
        self._batch_size = batch_size
        self._find: Callable[[Sequence[np.ndarray]], list[Detections]]
        self._find = finder(detector, batch_size)

    def detect(self, image: Any) -> Detections:
        """Detect objects on one picture of any size.

        Args:
            image: uint8 [H, W, 3], the path of an image file, or a picture of Pillow.

        Returns:
            `boxes` float32 [n, 4], yxyx fractions of the picture; `scores` float32 [n],
            descending; `classes` int32 [n], 0..C-1. There is no limit of n.

        Raises:
            ValueError: it is none of these.
            OSError: a file cannot be read.
        """
        if isinstance(image, str | os.PathLike):
            image = read_picture(os.path.expanduser(image), max_pixels=self.max_pixels).pixels
        elif hasattr(image, "getbands"):
            image = as_list(image)[0].numpy()
        elif not _is_picture(image):  # Of what is one, a tensor would be a second copy.
            image = as_batch(image)
            if len(image) != 1:
                raise ValueError("detect() of tiles takes one picture at a time, got a batch.")
            image = image[0].numpy()
        height, width = image.shape[:2]
        if self.tiles.fit_in_one(height, width):
            return self._find([image])[0]
        grid = self.tiles.grid(height, width)
        windows = list(enumerate(grid.windows.tolist()))
        parts = []
        for first in range(0, len(windows), self._batch_size):
            batch = windows[first : first + self._batch_size]
            crops = [image[top:bottom, left:right] for _, (top, left, bottom, right) in batch]
            for (place, window), found in zip(batch, self._find(crops), strict=True):
                parts.append(_placed(found, place, window))
        if self.merging["whole_picture"]:
            smaller, window = _overview(image)
            parts.append(_placed(self._find([smaller])[0], WHOLE, window))
        boxes, scores, classes, tiles = (np.concatenate(part) for part in zip(*parts, strict=True))
        boxes, scores, classes = merge_tiles(
            boxes,
            scores,
            classes,
            tiles,
            grid,
            method=self.merging["merge"],
            iou_threshold=self.merging["iou_threshold"],
        )
        return {
            "boxes": (boxes / [height, width, height, width]).astype(np.float32),
            "scores": scores.astype(np.float32),
            "classes": classes.astype(np.int32),
        }


def _is_picture(image: Any) -> bool:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or not image.size:
        return False
    return image.dtype == np.uint8 and image.shape[2] == 3


def _overview(image: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return a picture in at most 4096 pixels a side, means of squares, and the window it shows.

    Networks read a picture as floating point numbers before they make it smaller, and leave pixels
    out where it is very much larger than they are.
    """
    height, width = image.shape[:2]
    step = -(-max(height, width) // _LONGEST_WHOLE)
    rows, columns = height // step, width // step
    if step == 1 or not min(rows, columns):
        return image, [0, 0, height, width]
    shown = image[: rows * step, : columns * step]
    smaller = np.empty((rows, columns, 3), np.uint8)
    for first in range(0, rows, _ROWS_AT_ONCE):
        part = shown[first * step : (first + _ROWS_AT_ONCE) * step]
        squares = part.reshape(-1, step, columns, step, 3)
        means = squares.mean(axis=(1, 3), dtype=np.float32)
        smaller[first : first + _ROWS_AT_ONCE] = np.rint(means)
    return smaller, [0, 0, rows * step, columns * step]


def _placed(found: Detections, place: int, window: list[int]) -> tuple[np.ndarray, ...]:
    """Return boxes of a tile in pixels of the picture, their scores, classes and tile."""
    top, left, bottom, right = window
    size = np.array([bottom - top, right - left, bottom - top, right - left], np.float64)
    boxes = np.asarray(found["boxes"], np.float64) * size + [top, left, top, left]
    return boxes, found["scores"], found["classes"], np.full(len(boxes), place)
