"""One set of detections from those of the tiles of a picture."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable

import numpy as np

from ssd_centernet.ops.tiles import Grid

METHODS = ("nms", "wbf")
# Number of the tile of what was found on the whole picture, and of what was joined of parts.
WHOLE, JOINED = -1, -2
# A part of less than this share of the best part's score does not make the box larger.
_LEAST_PART = 0.5


def merge_tiles(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    tiles: np.ndarray,
    grid: Grid,
    *,
    method: str = "nms",
    iou_threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge detections of overlapping tiles, and of the whole picture, class by class.

    A box that a border of its tile cuts, or that was found on the whole picture, is left out where
    another tile holds it whole: that tile has seen as much of it, and more. Of the boxes that no
    tile holds whole, those of two tiles which agree on what both tiles show are parts of one
    object, and become the box around them. Then of two boxes of different tiles that overlap by
    more than `iou_threshold` the worse one goes (`nms`), or both become their mean (`wbf`). What
    one tile alone has found stays as the detector left it.

    Args:
        boxes: float [N, 4], yxyx in pixels of the picture.
        scores: float [N].
        classes: int [N].
        tiles: int [N], the tile that each was found on, `WHOLE` for the whole picture.
        grid: the tiles.
        method: 'nms', or 'wbf', after Weighted boxes fusion: Ensembling boxes from different object
            detection models (arXiv:1910.13302), section 3: a fused box is the mean of its boxes,
            weighted by their scores; its score is their mean, less where only some of the tiles
            that hold it whole have found it.
        iou_threshold: two boxes with a greater IoU are one object, 0..1.

    Returns:
        `(boxes, scores, classes)`: float64 [M, 4], scores [M] descending and classes [M], M <= N.

    Raises:
        ValueError: `method` is not one of the two.
    """
    if method not in METHODS:
        raise ValueError(f"tiles are merged by {' or '.join(METHODS)}, got {method!r}.")
    merging = _Merging(boxes, scores, classes, tiles, grid, iou_threshold)
    merging.join_parts()
    return merging.suppress() if method == "nms" else merging.fuse()


class _Merging:
    """Boxes in order of their scores, found by tile and class."""

    def __init__(self, boxes, scores, classes, tiles, grid: Grid, threshold: float) -> None:
        self._grid, self._threshold = grid, threshold
        self._windows = np.concatenate([grid.windows, [[0, 0, 0, 0]]]).astype(np.float64)
        self._windows[WHOLE] = [0, 0, grid.rows[-1, 1], grid.columns[-1, 1]]
        order = np.argsort(-np.asarray(scores), kind="stable")
        self.scores, self.classes = np.asarray(scores)[order], np.asarray(classes)[order]
        self.tiles = np.asarray(tiles, np.int64)[order]
        windows = self._windows[self.tiles]
        self.boxes = np.clip(
            np.asarray(boxes, np.float64)[order], windows[:, [0, 1] * 2], windows[:, [2, 3] * 2]
        )
        whole = self.tiles == WHOLE
        self._cut = ~whole & grid.are_cut(self.boxes, np.where(whole, 0, self.tiles))
        self._alive = ~((self._cut | whole) & (grid.count_holding(self.boxes) > 0))
        self._index()

    def _index(self) -> None:
        """List the boxes that are left by tile and class."""
        found = collections.defaultdict(list)
        for place in np.flatnonzero(self._alive).tolist():
            found[int(self.tiles[place]), int(self.classes[place])].append(place)
        self._of = {key: np.array(places, np.int64) for key, places in found.items()}

    def _candidates(self, tiles: Iterable[int], kind: int) -> np.ndarray:
        """Return the places of all that is left of a class in tiles, best first."""
        lists = [self._of[tile, kind] for tile in tiles if (tile, kind) in self._of]
        found = np.sort(np.concatenate(lists)) if lists else np.zeros(0, np.int64)
        return found[self._alive[found]]

    def _around(self, box: np.ndarray) -> list[int]:
        """Return the tiles that a box reaches into, and those that are none."""
        top, left, bottom, right = self._grid.touched(box[np.newaxis])[0].tolist()
        width = len(self._grid.columns)
        rows = (range(row * width + left, row * width + right) for row in range(top, bottom))
        return [*itertools.chain.from_iterable(rows), WHOLE, JOINED]

    # --- parts of objects ------------------------------------------------------------------

    def join_parts(self) -> None:
        """Put the box around its parts in the place of boxes that borders cut."""
        joined = []
        for place in np.flatnonzero(self._cut & self._alive):
            if not self._alive[place]:
                continue
            others = self._agreeing(place)
            if ((others < place) & ~self._cut[others]).any():  # A better box, and not a part.
                self._alive[place] = False
                continue
            members = self._collect(place, others)
            if len(members) > 1:
                around = np.concatenate(
                    [self.boxes[members, :2].min(axis=0), self.boxes[members, 2:].max(axis=0)]
                )
                joined.append((place, around))
        for place, around in joined:  # Not before: all parts are compared as they were found.
            self.boxes[place], self.tiles[place] = around, JOINED
        self._index()

    def _agreeing(self, place: int) -> np.ndarray:
        """Find what is left in other tiles and looks the same in what both tiles show."""
        own = self.tiles[place]
        found = self._candidates(self._around(self._windows[own]), int(self.classes[place]))
        found = found[self.tiles[found] != own]
        mine, theirs = self._windows[own], self._windows[self.tiles[found]]
        low, high = np.maximum(mine[:2], theirs[:, :2]), np.minimum(mine[2:], theirs[:, 2:])
        common = (np.tile(low, 2), np.tile(high, 2))
        return found[
            _ious(np.clip(self.boxes[place], *common), np.clip(self.boxes[found], *common))
            > self._threshold
        ]

    def _collect(self, place: int, others: np.ndarray) -> list[int]:
        """Take the parts of an object: from each tile the best one; what else agrees goes too."""
        members, tiles, waiting = [place], {self.tiles[place]}, [others]
        least = _LEAST_PART * self.scores[place]
        while waiting:
            for other in waiting.pop(0):
                if not self._alive[other] or other == place:
                    continue
                self._alive[other] = False
                if self.tiles[other] in tiles or self.scores[other] < least:
                    continue
                members.append(other)
                tiles.add(self.tiles[other])
                if self._cut[other]:
                    waiting.append(self._agreeing(other))
        return members

    # --- objects that several tiles hold ---------------------------------------------------

    def _may_repeat(self) -> np.ndarray:
        """Tell which boxes other tiles or boxes of no tile can have found too."""
        top, left, bottom, right = self._grid.touched(self.boxes).T
        free = np.unique(self.classes[self._alive & (self.tiles < 0)])
        return ((bottom - top) * (right - left) > 1) | np.isin(self.classes, free)

    def _are_of_one_tile(self, tile: int, others: np.ndarray) -> np.ndarray:
        return (others == tile) & (tile >= 0)

    def suppress(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keep the best of the boxes that overlap."""
        for place in np.flatnonzero(self._may_repeat()):
            if not self._alive[place]:
                continue
            box = self.boxes[place]
            others = self._candidates(self._around(box), int(self.classes[place]))
            others = others[others > place]
            repeats = _ious(box, self.boxes[others]) > self._threshold
            repeats &= ~self._are_of_one_tile(self.tiles[place], self.tiles[others])
            self._alive[others[repeats]] = False
        return self.boxes[self._alive], self.scores[self._alive], self.classes[self._alive]

    def fuse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put the weighted mean in the place of the boxes that overlap."""
        fused, sums = self.boxes.copy(), np.array(self.scores, np.float64)
        members: dict[int, list[int]] = {}
        repeat = self._may_repeat()
        for place in np.flatnonzero(self._alive):
            near = self._clusters(place, fused, members) if repeat[place] else []
            if not len(near):
                members[place] = [place]
                continue
            first = near[0]
            members[first].append(place)
            self._alive[place] = False
            weights = self.scores[members[first]].astype(np.float64)
            # Boxes of score 0 count alike.
            weights = weights if weights.sum() > 0 else np.ones_like(weights)
            fused[first] = np.average(self.boxes[members[first]], axis=0, weights=weights)
            sums[first] += self.scores[place]
        places = np.array(list(members), np.int64)
        counts = np.array([len(one) for one in members.values()])
        views = np.maximum(self._grid.count_holding(fused[places]), 1)
        scores = sums[places] / counts * np.minimum(counts, views) / views
        order = np.argsort(-scores, kind="stable")
        return fused[places][order], scores[order], self.classes[places][order]

    def _clusters(self, place: int, fused: np.ndarray, members: dict) -> np.ndarray:
        """Return the clusters that a box belongs to, the nearest first."""
        found = self._candidates(self._around(self.boxes[place]), int(self.classes[place]))
        tile = self.tiles[place]
        found = [
            one
            for one in found.tolist()
            if one in members and not self._are_of_one_tile(tile, self.tiles[members[one]]).any()
        ]
        overlaps = _ious(self.boxes[place], fused[found])
        near = np.array(found, np.int64)[overlaps > self._threshold]
        return near[np.argsort(-overlaps[overlaps > self._threshold], kind="stable")]


def _ious(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes [4] or [N, 4] with boxes [N, 4], row by row; 0 without any area."""
    low = np.maximum(ours[..., :2], theirs[:, :2])
    high = np.minimum(ours[..., 2:], theirs[:, 2:])
    common = np.maximum(high - low, 0.0).prod(axis=-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(axis=-1) for one in (ours, theirs)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
