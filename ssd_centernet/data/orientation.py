"""Orientation tags of pictures, and whether the boxes of a file of annotations are turned by them.

A picture with such a tag has two frames: its pixels as stored, and the picture as it is shown. Only
listed sizes tell which of them the boxes refer to, and only for pictures on their side; where no
size is listed, boxes that fit one of them alone. What they
tell holds for the whole file, so that a picture turned by 180 degrees is treated alike.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

ORIENTATION_TAG = 0x0112
# Orientations under which width and height change places.
SIDEWAYS = (5, 6, 7, 8)
# Orientation -> what shows the stored pixels upright, and what undoes it.
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
_PNG = b"\x89PNG\r\n\x1a\n"
# Words that stand before an orientation in the head of a JPEG or in a chunk of a PNG.
_WORDS = (b"Exif\0", b"tiff:Orientation", b"Raw profile type exif")
# Boxes beyond the border by no more are rounded, as in `box_units`.
_SLACK_PIXELS, _SLACK_SHARE = 1.5, 0.005
# Votes are asked of this many files at a time.
_CHUNK = 512


@dataclass(frozen=True)
class Turning:
    """What a file of annotations says about pictures with an orientation tag.

    Attributes:
        upright: whether boxes refer to the pictures as they are shown.
        turned, stored: number of pictures whose listed size is that of the picture as shown, and
            of its stored pixels.
    """

    upright: bool = False
    turned: int = 0
    stored: int = 0

    @property
    def is_mixed(self) -> bool:
        """Whether listed sizes contradict each other."""
        return bool(self.turned and self.stored)


def orientation_of(image: Image.Image, data: bytes = b"") -> int:
    """Return the orientation of an opened picture that was not decoded yet.

    Args:
        image: of Pillow.
        data: the whole file, which saves unpacking a PNG to look for a tag after its pixels.

    Returns:
        1..8; 1 where there is no usable tag.
    """
    # Pillow unpacks a PNG to find a tag that may stand after the pixels.
    if image.format == "PNG" and data and not any(w in data for w in (b"eXIf", *_WORDS)):
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # A damaged tag block says nothing about the pixels.
        return 1
    return orientation if orientation in _TURNS else 1


def read_orientation(path: str | os.PathLike) -> int:
    """Return the orientation of a picture file, 1..8; 1 if it has none or cannot be read."""
    try:
        if not _may_have_tag(path):
            return 1
        with Image.open(path) as image:
            return orientation_of(image)
    except Exception:  # Why a file cannot be read is told where it is read whole.
        return 1


def shown_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of a picture file as it is shown; zeros if it is no picture."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return 0, 0
        with Image.open(path) as image:
            # Pillow would unpack every PNG to look for a tag.
            orientation = orientation_of(image) if _may_have_tag(path) else 1
            width, height = stored_size(image, orientation)
    except Exception:  # Why a file cannot be read is told where it is read whole.
        return 0, 0
    return (height, width) if orientation in SIDEWAYS else (width, height)


def frame_of_boxes(path: str | os.PathLike, boxes: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return the size of the only frame that boxes fit, of a picture on its side.

    Args:
        path: of the picture.
        boxes: x, y, width, height of each, pixels.

    Returns:
        Width and height of the stored pixels or of the picture as it is shown; zeros where the
        boxes fit both or none, or the picture is not on its side.
    """
    orientation = read_orientation(path) if boxes else 1
    if orientation not in SIDEWAYS:
        return 0, 0
    try:
        with Image.open(path) as image:
            stored = stored_size(image, orientation)
    except Exception:  # Why a file cannot be read is told where it is read whole.
        return 0, 0
    right, bottom = (max(box[side] + box[side + 2] for box in boxes) for side in (0, 1))
    slack = max(_SLACK_PIXELS, _SLACK_SHARE * max(stored))
    fitting = [
        size
        for size in (stored, stored[::-1])
        if right <= size[0] + slack and bottom <= size[1] + slack
    ]
    return fitting[0] if len(fitting) == 1 else (0, 0)


def list_frames(images: Iterable[Any], image_dir: str | os.PathLike) -> None:
    """List the size that the boxes of an image tell, where none is listed.

    Args:
        images: with `file_name`, `width`, `height` and `annotations`, as of COCO.
        image_dir: folder of the files.
    """
    for image in images:
        if image.width and image.height:
            continue
        boxes = [box for one in image.annotations if _is_box(box := one.get("bbox"))]
        size = frame_of_boxes(os.path.join(image_dir, image.file_name), boxes)
        if min(size):
            image.width, image.height = size


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list | tuple)
        and len(box) == 4
        and all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    )


def stored_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Return width and height of the stored pixels of a picture that was just opened."""
    width, height = image.size
    # Pillow shows a TIFF as it is turned, its size too.
    if image.format == "TIFF" and orientation in SIDEWAYS and hasattr(image, "tag_v2"):
        if image.tag_v2.get(256) == height and width != height:
            return height, width
    return width, height


def is_upright(image: Image.Image) -> bool:
    """Tell whether Pillow has turned a decoded picture by itself, as it does with TIFFs."""
    return image.format == "TIFF" and ORIENTATION_TAG not in getattr(image, "tag_v2", {1: 1})


def turn(pixels: Image.Image, orientation: int, back: bool = False) -> Image.Image:
    """Return a copy of a decoded picture, turned as its tag says.

    Args:
        pixels: the picture.
        orientation: 1..8.
        back: whether the picture is upright, and its stored pixels are wanted.
    """
    return pixels.transpose(_TURNS[orientation][back]) if orientation in _TURNS else pixels


def is_shown_turned(
    orientation: int, stored: tuple[int, int], listed: tuple[int, int], upright: bool
) -> bool:
    """Tell whether a picture is to be turned by its tag.

    Args:
        orientation: 1..8.
        stored: width and height of the stored pixels.
        listed: width and height in the annotations, zeros if they have none.
        upright: what `decide_turning` found for the file.

    Returns:
        What the listed size says; where it says nothing, what holds for the file.
    """
    if orientation not in _TURNS:
        return False
    vote = _vote(orientation, stored, listed)
    return upright if vote is None else vote


def decide_turning(
    files: Iterable[tuple[str | os.PathLike, tuple[int, int]]], workers: int | None = None
) -> Turning:
    """Find out from listed sizes whether boxes refer to pictures as stored or as shown.

    Only the heads of files are read.

    Args:
        files: path of each picture, and its listed (width, height), zeros if unknown.
        workers: threads; None starts one per processor.

    Returns:
        The majority of the pictures that are on their side; as stored without any.
    """
    listed = [(path, size) for path, size in files if min(size) > 0 and size[0] != size[1]]
    chunks = [listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        votes = [vote for chunk in pool.map(_votes, chunks) for vote in chunk]
    turned = sum(votes)
    stored = len(votes) - turned
    return Turning(turned > stored, turned, stored)


def _votes(files: Sequence[tuple[str | os.PathLike, tuple[int, int]]]) -> list[bool]:
    votes = []
    for path, listed in files:
        try:
            if not _may_have_tag(path):
                continue
            with Image.open(path) as image:
                orientation = orientation_of(image)
                vote = _vote(orientation, stored_size(image, orientation), listed)
        except Exception:  # Why a file cannot be read is told where it is read whole.
            continue
        if vote is not None:
            votes.append(vote)
    return votes


def _vote(orientation: int, stored: tuple[int, int], listed: tuple[int, int]) -> bool | None:
    """Return whether a listed size is that of the turned picture; None where it cannot tell."""
    if orientation not in SIDEWAYS or stored[0] == stored[1] or min(listed) <= 0:
        return None
    if listed == stored:
        return False
    return True if listed == stored[::-1] else _vote_of_copy(stored, listed)


def _vote_of_copy(stored: tuple[int, int], listed: tuple[int, int]) -> bool | None:
    """Tell by the aspect ratio of a resized copy, where width and height differ enough."""
    same = abs(listed[0] * stored[1] / (listed[1] * stored[0]) - 1)
    other = abs(listed[0] * stored[0] / (listed[1] * stored[1]) - 1)
    if min(same, other) > 0.02 or abs(same - other) < 0.1:
        return None
    return other < same


def _may_have_tag(path: str | os.PathLike) -> bool:
    """Tell from the head of a file whether it can have an orientation, without Pillow."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb", buffering=4096) as file:
        head = file.read(12)
        if head[:2] == b"\xff\xd8":
            file.seek(2)
            return _jpeg_may_have_tag(file)
        if head[:8] == _PNG:
            file.seek(8)
            return _png_may_have_tag(file)
    return head[:2] in (b"II", b"MM") or head[:4] == b"RIFF" or head[4:8] == b"ftyp"


def _has_word(part: bytes) -> bool:
    return any(word in part for word in _WORDS)


def _jpeg_may_have_tag(file) -> bool:
    while True:
        marker = file.read(4)
        # The scan begins: what describes the picture stands before it.
        if len(marker) < 4 or marker[0] != 0xFF or marker[1] in (0xDA, 0xD9):
            return False
        size = int.from_bytes(marker[2:], "big") - 2
        if marker[1] != 0xE1:
            file.seek(size, 1)
        elif _has_word(file.read(size)):
            return True


def _png_may_have_tag(file) -> bool:
    while True:
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return False
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return True
        if head[4:] in (b"iTXt", b"tEXt", b"zTXt"):
            if _has_word(file.read(size)):
                return True
            file.seek(4, 1)
        else:
            file.seek(size + 4, 1)
