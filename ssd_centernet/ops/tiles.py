"""Tiles of a large picture: where they lie, and which of them hold a box whole."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

SMALLEST = 16
# Share of a tile's side within which a box counts as touching the border: predicted edges are not
# exact. Boxes that touch it by mistake lose nothing, as another tile holds them.
MARGIN = 0.02


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Say how large pictures are cut: squares with an overlap, evenly spaced.

    An object that is no longer and no wider than the overlap lies whole in at least one tile.

    Attributes:
        size: side of a tile in pixels of the picture, 16 or more.
        overlap: pixels that neighbours have in common at least, 0 to half the size; None is a fifth
            of the size.
    """

    size: int
    overlap: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: one is out of range; says which and why.
        """
        size, overlap = self.size, self.overlap
        if not _is_whole(size) or size < SMALLEST:
            raise ValueError(
                f"the size of tiles must be a whole number of pixels, {SMALLEST} or more, got "
                f"{size!r}: such as 640."
            )
        if overlap is None:
            object.__setattr__(self, "overlap", size // 5)
        elif not _is_whole(overlap) or not 0 <= overlap <= size // 2:
            raise ValueError(
                "the overlap of tiles must be a whole number of pixels from 0 to half their size, "
                f"{size // 2}, got {overlap!r}: take that of the largest objects that tiles should "
                "find, and larger tiles if half of them is too little."
            )

    @classmethod
    def parse(cls, text: str) -> Tiles:
        """Read SIZE or SIZE,OVERLAP, in pixels.

        Raises:
            ValueError: the text is something else, or a number is out of range.
        """
        numbers = [part.strip() for part in text.split(",")]
        if not 1 <= len(numbers) <= 2 or not all(_reads_whole(one) for one in numbers):
            raise ValueError(f"tiles are given as SIZE or SIZE,OVERLAP in pixels, got {text!r}.")
        return cls(*map(int, numbers))

    def fit_in_one(self, height: int, width: int) -> bool:
        """Tell whether a picture is no larger than a tile."""
        return max(height, width) <= self.size

    def grid(self, height: int, width: int) -> Grid:
        """Lay tiles over a picture.

        Args:
            height, width: of the picture, pixels.

        Returns:
            The fewest tiles that have the overlap. They are evenly spaced, so that neighbours may
            have more in common; a side shorter than a tile has one.
        """
        return Grid(self._intervals(height), self._intervals(width))

    def _intervals(self, length: int) -> np.ndarray:
        if length <= self.size:
            return np.array([[0, length]])
        number = math.ceil((length - self.overlap) / (self.size - self.overlap))
        # Rounded down, two starts lie apart by the mean distance rounded up at most.
        starts = np.arange(number) * (length - self.size) // (number - 1)
        return np.stack([starts, starts + self.size], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Tiles of one picture, in rows.

    Attributes:
        rows: int [R, 2], first pixel of each row of tiles, and the first one below it.
        columns: int [C, 2], the same of the columns.
    """

    rows: np.ndarray
    columns: np.ndarray

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def windows(self) -> np.ndarray:
        """The tiles as int [T, 4], yxyx in pixels, row by row."""
        rows = np.repeat(self.rows, len(self.columns), axis=0)
        columns = np.tile(self.columns, (len(self.rows), 1))
        return np.concatenate([rows, columns], axis=1)[:, [0, 2, 1, 3]]

    def count_holding(self, boxes: np.ndarray) -> np.ndarray:
        """Count the tiles that hold boxes whole: clear of all borders but the picture's own.

        Args:
            boxes: float [N, 4], yxyx in pixels of the picture, within it.

        Returns:
            int [N].
        """
        return _holding(self.rows, boxes[:, 0], boxes[:, 2]).sum(axis=1) * (
            _holding(self.columns, boxes[:, 1], boxes[:, 3]).sum(axis=1)
        )

    def are_cut(self, boxes: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """Tell which boxes touch a border of their tile that is none of the picture.

        Args:
            boxes: float [N, 4], as in `count_holding`, each within its tile.
            tiles: int [N], the number of the tile of each.

        Returns:
            bool [N].
        """
        row, column = np.divmod(tiles, len(self.columns))
        every = np.arange(len(boxes))
        whole = _holding(self.rows, boxes[:, 0], boxes[:, 2])[every, row]
        return ~(whole & _holding(self.columns, boxes[:, 1], boxes[:, 3])[every, column])

    def touched(self, boxes: np.ndarray) -> np.ndarray:
        """Find the tiles that boxes lie in or reach into.

        Args:
            boxes: float [N, 4], as in `count_holding`.

        Returns:
            int [N, 4]: first row, first column, and the row and column behind the last ones.
        """
        found = []
        for spans, low, high in (
            (self.rows, boxes[:, 0], boxes[:, 2]),
            (self.columns, boxes[:, 1], boxes[:, 3]),
        ):
            first = np.searchsorted(spans[:, 1], low, side="right")
            last = np.searchsorted(spans[:, 0], high, side="left")
            found.append((np.minimum(first, len(spans) - 1), np.maximum(last, first + 1)))
        (top, bottom), (left, right) = found
        return np.stack([top, left, bottom, right], axis=1)


def _holding(spans: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell which of S spans along an axis hold N stretches whole: bool [N, S]."""
    margin = MARGIN * (spans[:, 1] - spans[:, 0])
    near = np.where(spans[:, 0] == 0, 0.0, spans[:, 0] + margin)
    far = np.where(spans[:, 1] == spans[-1, 1], spans[:, 1], spans[:, 1] - margin)
    return (low[:, np.newaxis] >= near) & (high[:, np.newaxis] <= far)


def visible_shares(boxes: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes by a window.

    Args:
        boxes: float [N, 4], yxyx in pixels, with area.
        window: [4], yxyx in the same frame.

    Returns:
        What of the boxes is in the window, float [N, 4] in the frame of its corner, and its share
        of their area, float [N] in 0..1; exactly 1 for a box that lies inside.
    """
    low = np.maximum(boxes[:, :2], window[:2])
    high = np.minimum(boxes[:, 2:], window[2:])
    sides = np.maximum(high - low, 0.0)
    shares = sides.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    inside = (low == boxes[:, :2]).all(axis=1) & (high == boxes[:, 2:]).all(axis=1)
    return np.concatenate([low, high], axis=1) - np.tile(window[:2], 2), np.where(inside, 1, shares)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _reads_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 10
