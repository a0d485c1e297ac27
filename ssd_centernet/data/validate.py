"""Checks of boxes and image files, and the report of what was repaired or dropped."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

# How many items of each kind the report names.
LISTED = 5
# COCO's coordinates have two decimals: rounding alone may push x + width over the border.
ROUNDING_PIXELS = 0.01
# A resized copy keeps its aspect ratio up to rounding of the sides.
ASPECT_TOLERANCE = 0.02
EXIF_ORIENTATION = 0x0112
# Orientations under which width and height change places.
SIDEWAYS = (5, 6, 7, 8)
JPEG_QUALITY = 95

_READ_AS_IS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}


class Report:
    """Counts of what was repaired or dropped, each with its reason and its first items."""

    KINDS = ("dropped images", "repaired images", "dropped boxes", "repaired boxes", "notes")

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, dict]] = {kind: {} for kind in self.KINDS}

    def add(self, kind: str, reason: str, item: object) -> None:
        """Count one item.

        Args:
            kind: one of `Report.KINDS`.
            reason: a fixed phrase; items of one reason are counted together.
            item: where the user can find it: a file name or an id.
        """
        entry = self._entries[kind].setdefault(reason, {"count": 0, "first": []})
        entry["count"] += 1
        if len(entry["first"]) < LISTED:
            entry["first"].append(item)

    def count(self, kind: str, reason: str) -> int:
        """Return how many items of a kind and reason were counted."""
        return self._entries[kind].get(reason, {"count": 0})["count"]

    def to_dict(self) -> dict:
        """Return kind -> reason -> dict(count, first), without empty kinds."""
        return {kind: reasons for kind, reasons in self._entries.items() if reasons}


def format_report(report: dict) -> str:
    """Format `Report.to_dict()` as text, one line per reason."""
    if not report:
        return "All images and boxes are good."
    lines = []
    for kind, reasons in report.items():
        lines.append(f"{kind}:")
        for reason, entry in sorted(reasons.items()):
            more = ", ..." if entry["count"] > len(entry["first"]) else ""
            first = ", ".join(str(item) for item in entry["first"])
            lines.append(f"  {entry['count']:>7}  {reason} ({first}{more})")
    return "\n".join(lines)


# --- boxes -----------------------------------------------------------------------------------


@dataclass
class Box:
    """One valid object: `bbox` is (x, y, width, height) and `area` its pixels^2 in the image."""

    bbox: tuple[float, float, float, float]
    area: float
    category_id: int
    is_crowd: bool


@dataclass
class CheckedBox:
    """A box, or None with the reason why it was dropped; `repairs` says what was changed."""

    box: Box | None
    dropped: str = ""
    repairs: list[str] = field(default_factory=list)


def check_box(
    annotation: dict, *, width: int, height: int, scale: tuple[float, float] = (1.0, 1.0)
) -> CheckedBox:
    """Check one COCO annotation against its image; repair what has only one right answer.

    A box is dropped if it is not four finite numbers, has no area, or lies outside the image. It is
    clipped if it crosses the border. A missing `iscrowd` is 0, and a missing or non-positive `area`
    is width * height of the box.

    Args:
        annotation: a dict with `bbox` [x, y, width, height] in pixels, `category_id`, and perhaps
            `area` and `iscrowd`.
        width, height: size of the image, pixels.
        scale: factors in x and y from the annotation's pixels to those of the image.

    Returns:
        The valid box, or None with a reason, and the repairs made.
    """
    numbers = _four_numbers(annotation.get("bbox"))
    if numbers is None:
        return CheckedBox(None, "bbox is not four numbers [x, y, width, height]")
    if not all(math.isfinite(n) for n in numbers):
        return CheckedBox(None, "bbox is not finite")
    left, top = numbers[0] * scale[0], numbers[1] * scale[1]
    box_width, box_height = numbers[2] * scale[0], numbers[3] * scale[1]
    if box_width <= 0 or box_height <= 0:
        return CheckedBox(None, "zero or negative width or height")
    x1, x2 = max(left, 0.0), min(left + box_width, float(width))
    y1, y2 = max(top, 0.0), min(top + box_height, float(height))
    if x2 <= x1 or y2 <= y1:
        return CheckedBox(None, "outside the image")
    result = CheckedBox(None)
    overhang = max(-left, left + box_width - width, -top, top + box_height - height)
    if overhang > ROUNDING_PIXELS:
        result.repairs.append("clipped to the image")
    if overhang > 0:
        left, top, box_width, box_height = x1, y1, x2 - x1, y2 - y1
    area = _number(annotation.get("area"))
    if area is None or not math.isfinite(area) or area <= 0:
        result.repairs.append("area missing or not positive: set to width * height")
        area = box_width * box_height
    else:
        # A mask is never larger than the part of its box that lies in the image.
        area *= scale[0] * scale[1]
        area = min(area, box_width * box_height) if overhang > 0 else area
    if annotation.get("iscrowd") is None:
        result.repairs.append("iscrowd missing: set to 0")
    result.box = Box(
        (left, top, box_width, box_height),
        area,
        int(annotation["category_id"]),
        bool(annotation.get("iscrowd") or 0),
    )
    return result


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _four_numbers(values: object) -> tuple[float, float, float, float] | None:
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        return None
    numbers = tuple(_number(v) for v in values)
    return None if any(n is None for n in numbers) else numbers


# --- images ----------------------------------------------------------------------------------


@dataclass
class CheckedImage:
    """An image file as it will be stored, or the reason why it was dropped.

    `scale` converts pixels of the annotations to pixels of the stored image, in x and y.
    """

    encoded: bytes = b""
    format: str = ""
    width: int = 0
    height: int = 0
    scale: tuple[float, float] = (1.0, 1.0)
    dropped: str = ""
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_image(
    source: str | os.PathLike | bytes,
    *,
    listed_width: int,
    listed_height: int,
    max_pixels: int,
    decode,
    upright: bool = False,
) -> CheckedImage:
    """Read an image file and decide how to store it.

    JPEG and PNG are stored byte for byte, whatever the name of the file; one channel stays one
    channel. CMYK JPEGs and other formats are encoded again. The size in the header is checked
    against `max_pixels` before decoding.

    Boxes of COCO refer to the stored pixels, so an EXIF orientation tag is ignored, as decoders do,
    unless the annotation file lists the size of the turned picture: then the picture is turned. If
    the listed size differs in another way, the file's size is used. With the same aspect ratio (a
    resized copy), boxes are scaled. With another one the picture was cropped or is a different one:
    no box can be trusted, and the image is dropped.

    Args:
        source: the file, or its content.
        listed_width, listed_height: size in the annotation file, 0 if it has none.
        max_pixels: most pixels that an image may have.
        decode: a function of the stored bytes that raises ValueError if training could not
            decode them.
        upright: whether boxes refer to the picture turned by its EXIF orientation, whatever its
            listed size.

    Returns:
        The image to store, or the reason why it was dropped.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError:
        return CheckedImage(dropped="cannot be read")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                return CheckedImage(dropped=f"more than max_pixels = {max_pixels} pixels")
            result = _stored_form(image, data, (listed_width, listed_height), upright)
    except Image.DecompressionBombError:
        return CheckedImage(dropped=f"more than max_pixels = {max_pixels} pixels")
    except UnidentifiedImageError:
        return CheckedImage(dropped="not an image")
    except Exception:  # Pillow's plug-ins raise struct.error, SyntaxError and more on bad files.
        return CheckedImage(dropped="truncated or corrupt")
    try:
        decode(result.encoded)
    except ValueError:
        return CheckedImage(dropped="truncated or corrupt")
    _compare_sizes(result, listed_width, listed_height)
    return result


def _stored_form(
    image: Image.Image, data: bytes, listed: tuple[int, int], upright: bool
) -> CheckedImage:
    kind = _READ_AS_IS.get(image.format or "")
    result = CheckedImage(data, kind or "", image.width, image.height)
    orientation = _orientation(image)
    turned = orientation in SIDEWAYS and listed == (image.height, image.width) != image.size
    if upright and orientation in range(2, 9):
        turned = True
        result.repairs.append("turned by its EXIF orientation, as its boxes are")
    elif turned:
        result.repairs.append("turned by its EXIF orientation, as its listed size is")
    elif orientation not in (0, 1):
        result.notes.append("EXIF orientation ignored: boxes refer to the stored pixels")
    if kind is None:
        result.repairs.append(f"{image.format} encoded again")
    elif image.mode == "CMYK":
        result.repairs.append("CMYK JPEG encoded again as RGB")
    if not (turned or kind is None or image.mode == "CMYK"):
        return result
    stored = ImageOps.exif_transpose(image) if turned else image
    lossy = image.format in ("JPEG", "MPO", "WEBP")
    result.encoded, result.format = _encode(stored, "jpeg" if lossy else "png")
    result.width, result.height = stored.size
    return result


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # A damaged tag block says nothing about the pixels.
        return 1


def _encode(image: Image.Image, kind: str) -> tuple[bytes, str]:
    stream = io.BytesIO()
    pixels = image if image.mode in ("L", "RGB") else image.convert("RGB")
    # Only pixels go in: a copied orientation tag would turn the picture a second time.
    pixels.save(stream, kind.upper(), **({"quality": JPEG_QUALITY} if kind == "jpeg" else {}))
    return stream.getvalue(), kind


def _compare_sizes(result: CheckedImage, listed_width: int, listed_height: int) -> None:
    if (listed_width, listed_height) == (result.width, result.height):
        return
    if listed_width <= 0 or listed_height <= 0:
        result.notes.append("width or height missing in the annotations: taken from the file")
        return
    scale = (result.width / listed_width, result.height / listed_height)
    # One pixel of rounding is allowed for on either side, which matters for small pictures.
    slack = ASPECT_TOLERANCE + 1 / min(listed_width, listed_height, result.width, result.height)
    if abs(scale[0] / scale[1] - 1.0) > slack:
        result.dropped = "aspect ratio differs from the listed one: cropped, or another picture"
        return
    result.scale = scale
    result.repairs.append("size differs from the listed one: boxes scaled to the file's pixels")
