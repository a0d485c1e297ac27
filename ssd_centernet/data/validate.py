"""Checks of boxes, and the report of what was repaired or dropped."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from ssd_centernet.data.values import read_box, read_flag, read_number

# How many items of each kind the report names.
LISTED = 5
# COCO's coordinates have two decimals: rounding alone may push x + width over the border.
ROUNDING_PIXELS = 0.01
_UNBROKEN = "\u2007"
MISSING = "listed but missing"
# Reasons for dropping that a setting asked for; for missing images there is max_missing.
# Of boxes: those whose image was dropped. Missing images have a limit of their own.
WITH_IMAGE, WITH_MISSING = "their image is dropped", "their image is missing"
ASKED_FOR = ("unknown category", "crowd region", "no valid object", MISSING, WITH_MISSING)
# Words in reasons for dropping what is there another time.
_COPIES = ("twice", "copy kept", "copies", "same as")


class Report:
    """Counts of what was repaired or dropped, each with its reason and its first items."""

    KINDS = ("dropped images", "repaired images", "dropped boxes", "repaired boxes", "notes")

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, dict]] = {kind: {} for kind in self.KINDS}

    def add(self, kind: str, reason: str, item: object, *, count: int = 1) -> None:
        """Count one item, or what there is of it.

        Args:
            kind: one of `Report.KINDS`.
            reason: a fixed phrase; items of one reason are counted together.
            item: where the user can find it: a file name or an id.
            count: how many there are; nothing is noted of none.
        """
        if not count:
            return
        entry = self._entries[kind].setdefault(reason, {"count": 0, "first": []})
        entry["count"] += count
        if len(entry["first"]) < LISTED:
            entry["first"].append(item)

    def count(self, kind: str, reason: str) -> int:
        """Return how many items of a kind and reason were counted."""
        return self._entries[kind].get(reason, {"count": 0})["count"]

    def to_dict(self) -> dict:
        """Return kind -> reason -> dict(count, first), without empty kinds."""
        return {kind: reasons for kind, reasons in self._entries.items() if reasons}


def format_report(report: dict) -> str:
    """Format `Report.to_dict()` as text, one entry per reason, in lines of 80 columns."""
    if not report:
        return "All images and boxes are good."
    lines = []
    for kind, reasons in report.items():
        lines.append(f"{kind}:")
        for reason, entry in sorted(reasons.items()):
            more = ", ..." if entry["count"] > len(entry["first"]) else ""
            # Lines break between items, not inside them.
            first = ", ".join(str(item).replace(" ", _UNBROKEN) for item in entry["first"])
            text = f"  {entry['count']:>7}  {reason} ({first}{more})"
            lines.append(wrapped(text, indent=11).replace(_UNBROKEN, " "))
    return "\n".join(lines)


def wrapped(text: str, *, indent: int = 0) -> str:
    """Break a long line into lines of 80 columns, the later ones with an indent."""
    return textwrap.fill(
        text,
        80,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def count_lost(report: dict, kind: str) -> int:
    """Count what was lost against the user's will: not asked for, and no second copy.

    Args:
        report: of `Report.to_dict()`.
        kind: 'dropped images' or 'dropped boxes'.
    """
    return sum(
        entry["count"]
        for reason, entry in report.get(kind, {}).items()
        if reason not in ASKED_FOR and not any(word in reason for word in _COPIES)
    )


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
    numbers = read_box(annotation.get("bbox"))
    if numbers is None:
        return CheckedBox(None, "bbox is not four numbers [x, y, width, height]")
    crowd = annotation.get("iscrowd")
    is_crowd = read_flag(crowd)
    if is_crowd is None and crowd is not None:
        return CheckedBox(None, "iscrowd is not 0 or 1")
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
    area = read_number(annotation.get("area"))
    if area is None or area <= 0:
        result.repairs.append("area missing or not positive: set to width * height")
        area = box_width * box_height
    else:
        # A mask is never larger than the part of its box that lies in the image.
        area *= scale[0] * scale[1]
        area = min(area, box_width * box_height) if overhang > 0 else area
    if crowd is None:
        result.repairs.append("iscrowd missing: set to 0")
    result.box = Box(
        (left, top, box_width, box_height),
        area,
        int(annotation["category_id"]),
        bool(is_crowd),
    )
    return result
