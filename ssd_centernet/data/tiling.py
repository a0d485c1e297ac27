"""Tiles as training data: pictures cut into parts, with the objects that each part shows."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ssd_centernet.data.images import CheckedImage, encode_pixels
from ssd_centernet.data.validate import Box, Report
from ssd_centernet.ops.tiles import Tiles, visible_shares

LEAST_VISIBLE = 0.5


@dataclasses.dataclass(frozen=True)
class Cutting:
    """Say how pictures are cut, and which objects a tile has.

    An object belongs to every tile that shows at least `min_visible` of its box, cut at the border.
    Where a tile shows less, the part becomes a crowd region: no object that a detector must find,
    and no background either. What is narrower than a pixel is left out.

    Attributes:
        tiles: size and overlap.
        min_visible: share of the box, above 0 and at most 1.
        keep_crowd: whether crowd regions are kept; if not, parts are left out.
    """

    tiles: Tiles
    min_visible: float = LEAST_VISIBLE
    keep_crowd: bool = True

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            ValueError: it is out of range.
        """
        if not 0.0 < self.min_visible <= 1.0:
            raise ValueError(
                "tiles_min_visible must be a share above 0 and at most 1 of an object's box, got "
                f"{self.min_visible} (--tiles_min_visible)."
            )

    def to_dict(self) -> dict:
        """Return the settings for `info.json`."""
        return {**dataclasses.asdict(self.tiles), "min_visible": self.min_visible}

    def cut_picture(self, checked: CheckedImage) -> CheckedImage:
        """Put tiles in the place of the bytes of a picture that is larger than one."""
        height, width = checked.height, checked.width
        if checked.dropped or self.tiles.fit_in_one(height, width):
            return checked
        windows = [tuple(window) for window in self.tiles.grid(height, width).windows.tolist()]
        parts = _crop(checked.encoded, checked.format, windows)
        return dataclasses.replace(
            checked, encoded=b"", tiles=list(zip(windows, parts, strict=True))
        )

    def split_boxes(
        self, boxes: Sequence[Box], checked: CheckedImage, report: Report, places: Sequence[str]
    ) -> Iterator[tuple[CheckedImage, tuple[int, int, int, int], list[Box]]]:
        """Yield each tile as a picture, its window, and its boxes.

        Args:
            boxes: of the whole picture, in its pixels.
            checked: of `cut_picture`; one that was not cut is its own tile.
            report: counts what is cut.
            places: where the user finds each box.

        Yields:
            What is stored of a tile, its window (ymin, xmin, ymax, xmax) and boxes in its pixels.
        """
        if not checked.tiles:
            yield checked, (0, 0, checked.height, checked.width), list(boxes)
            return
        corners = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        corners[:, 2:] += corners[:, :2]
        kept = np.zeros(len(boxes), bool)
        for window, encoded in checked.tiles:
            parts, shares = visible_shares(corners, np.array(window))
            found = []
            for number in np.flatnonzero(shares > 0):
                box = self._part(boxes[number], parts[number], shares[number])
                if box is None:
                    continue
                if self.keep_crowd or not box.is_crowd:
                    found.append(box)
                kept[number] |= box.is_crowd == boxes[number].is_crowd
                self._count(boxes[number], box, shares[number], report, places[number])
            top, left, bottom, right = window
            name = hashlib.blake2b(f"{checked.digest} {window}".encode(), digest_size=8)
            stored = CheckedImage(
                encoded=encoded,
                format=checked.format,
                width=right - left,
                height=bottom - top,
                digest=name.hexdigest(),
            )
            yield stored, window, found
        for number in np.flatnonzero(~kept):
            reason = f"no tile shows a share of {self.min_visible:g} of it: take larger tiles"
            report.add("dropped boxes", reason, places[number])

    def _part(self, box: Box, part: np.ndarray, share: float) -> Box | None:
        """Return what a tile shows of a box, or None of too little."""
        if share == 1:
            x, y = part[1], part[0]
            return dataclasses.replace(box, bbox=(float(x), float(y), *box.bbox[2:]))
        height, width = part[2:] - part[:2]
        if min(height, width) < 1:
            return None
        return dataclasses.replace(
            box,
            bbox=(float(part[1]), float(part[0]), float(width), float(height)),
            area=float(box.area * share),
            is_crowd=box.is_crowd or share < self.min_visible,
        )

    def _count(self, whole: Box, part: Box, share: float, report: Report, place: str) -> None:
        if whole.is_crowd or share == 1:
            return
        if part.is_crowd:
            becomes = "a crowd region" if self.keep_crowd else "left out, as crowd regions are"
            reason = f"objects of which a tile shows less than {self.min_visible:g}: {becomes}"
        else:
            reason = f"objects of which a tile shows {self.min_visible:g} or more: cut"
        report.add("notes", reason, place)


def _crop(encoded: bytes, kind: str, windows: Sequence[Sequence[int]]) -> list[bytes]:
    """Cut windows out of a stored picture; one channel stays one channel."""
    with Image.open(io.BytesIO(encoded)) as image:
        grey = image.mode == "1" or image.mode.startswith("L")
        pixels = image.convert("L" if grey else "RGB")
        parts = (pixels.crop((left, top, right, low)) for top, left, low, right in windows)
        return [encode_pixels(part, kind)[0] for part in parts]
