"""One XML file of Pascal VOC, as the published data and labelling tools write it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ssd_centernet.data.readers.source import SWAPPED, NamedBox
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_flag, read_number
from ssd_centernet.files import read_bytes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"'][^>]*\?>")


@dataclass
class VocFile:
    """What one file says: the picture's name and size (0 if unknown), and its boxes."""

    file_name: str
    width: int
    height: int
    boxes: list[NamedBox] = field(default_factory=list)


def read_voc_xml(file: Path, name: str, report: Report, first_pixel: int) -> VocFile:
    """Read an annotation file.

    Names of elements count without their namespace and in upper or lower case. Parts of an object
    have boxes of their own, which are not used.

    Args:
        file: the XML file.
        name: its name in messages.
        report: counts objects that are left out or repaired.
        first_pixel: number of the leftmost pixel.

    Raises:
        ValueError: the file is not XML, holds no VOC annotation, has a field twice with different
            values, or a flag that is neither 0 nor 1.
    """
    tree = parse_xml(file)
    for element in tree.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2].lower()
    size = _only(tree, "size", name)
    sides = [read_number(_text(size, side, name)) or 0 for side in ("width", "height")]
    content = VocFile(_text(tree, "filename", name), int(sides[0]), int(sides[1]))
    objects = list(tree.iter("object"))
    if tree.tag != "annotation":
        if not objects and size is None and not content.file_name:
            raise ValueError(
                f"{file} is no VOC annotation: its root is <{tree.tag}>, and it has no <object>, "
                "<size> or <filename>. Remove the file, or export the annotations as Pascal VOC."
            )
        report.add("notes", "root of the XML is not <annotation>: read as one", name)
    for number, one in enumerate(objects, 1):
        box = _object(one, f"object {number} of {name}", report, first_pixel)
        if box is not None:
            content.boxes.append(box)
    _count_others(tree, name, report)
    return content


def parse_xml(file: Path) -> ElementTree.Element:
    """Return the root of an XML file; raise ValueError if it is none."""
    data = read_bytes(file)
    try:
        # Parsed from bytes: the file itself says its encoding.
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        first = error
    declared = _DECLARED.match(data)
    try:
        if declared is None:
            raise first
        # The parser knows few encodings, Python many: GBK, Shift-JIS.
        text = data.decode(declared[1].decode("ascii"))
        return ElementTree.fromstring(text[text.index("?>") + 2 :].strip())
    except (ElementTree.ParseError, ValueError, LookupError):
        raise ValueError(
            f"{file} is not valid XML: {first}. Was it cut short, or written in an encoding that "
            "its first line does not name? Correct or remove the file."
        ) from first


def _only(parent: ElementTree.Element | None, tag: str, where: str) -> ElementTree.Element | None:
    """Return the only child of a name; the same one twice is one."""
    children = [] if parent is None else parent.findall(tag)
    if len(children) < 2:
        return children[0] if children else None
    written = {re.sub(r"\s+", "", ElementTree.tostring(child, "unicode")) for child in children}
    if len(written) > 1:
        raise ValueError(
            f"{where} has <{tag}> {len(children)} times, with different content: "
            f"{' and '.join(' '.join(''.join(c.itertext()).split()) for c in children)}. Which of "
            "them is right? Keep one."
        )
    return children[0]


def _text(parent: ElementTree.Element | None, tag: str, where: str) -> str:
    child = _only(parent, tag, where)
    return "" if child is None else " ".join((child.text or "").split())


def _object(
    one: ElementTree.Element, where: str, report: Report, first_pixel: int
) -> NamedBox | None:
    if read_flag(_text(one, "deleted", where)):  # LabelMe keeps what its users removed.
        report.add("notes", "marked as deleted: left out", where)
        return None
    label = _text(one, "name", where)
    corners, reason = _corners(one, where, report, first_pixel)
    if label.startswith(">"):  # <name>>cat</name> is XML, too.
        reason, corners = "class name that begins with '>': is a mark written twice?", None
    if not label or corners is None:
        report.add("dropped boxes", reason if label else "no class name", where)
        return None
    written = _text(one, "difficult", where)
    difficult = read_flag(written) if written else False
    if difficult is None:
        raise ValueError(
            f"{where} has <difficult> {written!r}. Expected 0, 1, true or false; 1 and true make "
            "the object a crowd region, which the evaluation leaves out."
        )
    if difficult:
        report.add("notes", "difficult: kept as a crowd region", where)
    if one.find("part/bndbox") is not None:
        report.add("notes", "object with parts that have boxes: the parts are not used", where)
    return NamedBox(corners, label, where, is_crowd=bool(difficult))


def _corners(
    one: ElementTree.Element, where: str, report: Report, first_pixel: int
) -> tuple[tuple | None, str]:
    """Return the corners in pixels from 0, or None and the reason."""
    box = _only(one, "bndbox", where)
    if box is not None:
        values = [read_number(_text(box, corner, where)) for corner in _CORNERS]
        if None in values:
            tags = [child.tag for child in box]
            if tags and not set(tags) & set(_CORNERS):
                return None, f"bndbox has {', '.join(tags)}, expected {', '.join(_CORNERS)}"
            return None, "bndbox is not four numbers"
        return _from_pixels(values, where, report, first_pixel), ""
    turned = _only(one, "robndbox", where)
    if turned is not None:
        values = [read_number(_text(turned, key, where)) for key in ("cx", "cy", "w", "h", "angle")]
        if None in values:
            return None, "robndbox is not five numbers"
        x, y, width, height, angle = values
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
        report.add("notes", "an oriented box: replaced by the box around it", where)
        return (x - across, y - down, x + across, y + down), ""
    polygon = _only(one, "polygon", where)
    if polygon is not None:
        points = list(_points(polygon))
        if len(points) < 3 or None in (value for point in points for value in point):
            return None, "polygon is not three points or more"
        report.add("notes", "a polygon: replaced by the box around it", where)
        xs, ys = zip(*points, strict=True)
        return (min(xs), min(ys), max(xs), max(ys)), ""
    return None, "no bndbox"


def _points(polygon: ElementTree.Element) -> Iterator[tuple[float | None, float | None]]:
    """Yield the corners of LabelMe's <pt><x/><y/></pt>, or of <x1/><y1/><x2/><y2/>."""
    for point in polygon.iter("pt"):
        yield read_number(point.findtext("x")), read_number(point.findtext("y"))
    for child in polygon:
        match = re.fullmatch(r"x(\d+)", child.tag)
        if match:
            yield read_number(child.text), read_number(polygon.findtext(f"y{match[1]}"))


def _from_pixels(values: list, where: str, report: Report, first_pixel: int) -> tuple:
    """Return corners in pixels from 0, the far ones just after the last pixel."""
    left, top, right, bottom = values
    if left > right or top > bottom:
        left, right = min(left, right), max(left, right)
        top, bottom = min(top, bottom), max(top, bottom)
        report.add("repaired boxes", SWAPPED, where)
    if first_pixel and min(left, top) < first_pixel:
        reason = "begins at pixel 0: if the labelling tool counts from 0, set first_pixel to 0"
        report.add("notes", reason, where)
    # Counted from 1, xmin to xmax are the first and the last pixel, both inside.
    return (left - first_pixel, top - first_pixel, right, bottom)


def _count_others(tree: ElementTree.Element, name: str, report: Report) -> None:
    """Count boxes that stand in no object and in no part of one; refuse flags in no object."""
    for parent in tree.iter():
        where = f"<{parent.tag}> of {name}"
        boxes = [*parent.findall("bndbox"), *parent.findall("robndbox")]
        if parent.tag == "object":
            continue
        for _ in boxes if parent.tag != "part" else ():
            report.add("dropped boxes", "bndbox that is in no <object>", where)
        if not boxes and parent.find("difficult") is not None:
            raise ValueError(f"<difficult> stands in {where}. Expected it in an <object>; move it.")
