"""What every reader makes: the content of a COCO instances file, and a report of changes."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.labels import LabelMap

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass
class EncodedImages:
    """Images stored in the annotations, instead of files in a folder.

    Attributes:
        stats: `file_name` -> (bytes, checksum) of every image.
        read: yields (`file_name`, encoded bytes) of every image, in the order of the annotations.
    """

    stats: dict[str, tuple[int, int]]
    read: Callable[[], Iterator[tuple[str, bytes]]]


@dataclass
class AnnotationSource:
    """Annotations of any format, as a COCO instances file would hold them.

    Attributes:
        name: name in messages: the path that the user gave.
        image_dir: folder that each `file_name` is relative to.
        content: the lists `images`, `annotations` and `categories`.
        report: what the reader left out or repaired.
        upright: whether boxes refer to pictures turned by their EXIF orientation.
        encoded: the images, if they are not files in `image_dir`.
    """

    name: str
    image_dir: str
    content: dict
    report: Report = field(default_factory=Report)
    upright: bool = False
    encoded: EncodedImages | None = None

    @property
    def sha256(self) -> str:
        """Return a hash of the content; other annotations give another hash."""
        data = json.dumps([self.content, self.upright], sort_keys=True)
        return hashlib.sha256(data.encode()).hexdigest()


@dataclass
class NamedBox:
    """A box as a reader found it: left, top, right and bottom in pixels, and its class name.

    `area` is the object's area in pixels^2, None if only the box is known.
    """

    corners: tuple[float, float, float, float]
    name: str
    where: str
    is_crowd: bool = False
    area: float | None = None


@dataclass
class NamedImage:
    """An image as a reader found it, its path relative to the image folder; size 0 is unknown.

    Images without an `image_id` are numbered from 1.
    """

    file_name: str
    width: int = 0
    height: int = 0
    boxes: list[NamedBox] = field(default_factory=list)
    image_id: int | None = None


def to_content(
    images: Sequence[NamedImage],
    names: Sequence[str],
    *,
    label_map: LabelMap | None,
    drop_unknown: bool,
    report: Report,
    source: str,
) -> dict:
    """Make the content of a COCO file from images whose classes have names.

    Boxes are numbered from 1 in their order, and so are images that have no id.

    Args:
        images: the images, in the order in which they are stored.
        names: the class names of the whole data set, in the order of their ids 1..C. Not used with
            a label map.
        label_map: gives the ids of the names; None numbers them from 1.
        drop_unknown: leave out boxes whose name the label map does not have.
        report: counts what was left out.
        source: name of the annotations in messages.

    Raises:
        ValueError: there is no class, or boxes have names that the label map does not know and
            `drop_unknown` is off; the message lists similar names.
    """
    if label_map is None and not names:
        raise ValueError(
            f"{source} has no box, so no class is known. Check the path; if all images are without "
            "objects, give the classes with --label_map."
        )
    _note_alike(names, report)
    label_map = label_map or LabelMap(names)
    entries, annotations, unknown = [], [], {}
    for place, image in enumerate(images, 1):
        number = place if image.image_id is None else image.image_id
        entry = {"id": number, "file_name": image.file_name}
        entries.append(entry | {"width": image.width, "height": image.height})
        for box in image.boxes:
            if box.name not in label_map.names:
                unknown.setdefault(box.name, []).append(box.where)
                continue
            category = label_map.ids[label_map.class_of(box.name)]
            annotations.append(_annotation(len(annotations) + 1, number, category, box, report))
    for name, places in unknown.items():
        for place in places if drop_unknown else ():
            report.add("dropped boxes", "unknown category", f"{name!r} in {place}")
    if unknown and not drop_unknown:
        raise ValueError(_unknown_names(unknown, label_map, source))
    return {
        "images": entries,
        "annotations": annotations,
        "categories": label_map.to_categories(),
    }


def _annotation(number: int, image: int, category: int, box: NamedBox, report: Report) -> dict:
    left, top, right, bottom = box.corners
    if left > right or top > bottom:
        report.add("repaired boxes", "corners swapped: put in order", box.where)
        left, right = min(left, right), max(left, right)
        top, bottom = min(top, bottom), max(top, bottom)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top) if box.area is None else box.area,
        "iscrowd": int(box.is_crowd),
    }


def _note_alike(names: Sequence[str], report: Report) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(re.sub(r"[\s_-]+", "", name.casefold()), name)
        if other != name:
            reason = "two classes with almost the same name: is one a typing error?"
            report.add("notes", reason, f"{other!r} and {name!r}")


def _unknown_names(unknown: dict[str, list[str]], label_map: LabelMap, source: str) -> str:
    folded = {name.casefold(): name for name in label_map.names}
    parts = []
    for name, places in list(unknown.items())[:LISTED]:
        near = difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.6)
        hint = f", did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
        parts.append(f"{name!r} ({len(places)} boxes, first in {places[0]}{hint})")
    return (
        f"{len(unknown)} class names of {source} are not in the label map "
        f"({label_map.describe()}): {'; '.join(parts)}. Correct the names, add them to the label "
        "map, or set drop_unknown_categories to leave these boxes out."
    )


def parse_number(text: object) -> float | None:
    """Read a finite number, with a decimal point or a decimal comma; None for any other text."""
    try:
        number = float(str(text).strip().replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class ImageFolder:
    """The image files of a folder, found even by paths of another machine.

    Args:
        path: the folder.
        report: counts names that were found by their last parts.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, path: str | os.PathLike, report: Report) -> None:
        self.path, self._report = os.fspath(path), report
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                f"The image folder {self.path} does not exist. Give the right one as image_dir."
            )
        self.files: list[str] = []
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            relative = os.path.relpath(folder, self.path)
            for name in sorted(names):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    self.files.append(os.path.normpath(os.path.join(relative, name)))
        self._exact = set(self.files)
        self._by_end: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self.files:
            base = os.path.basename(name).casefold()
            self._by_end.setdefault(base, []).append(name)
            self._by_stem.setdefault(os.path.splitext(base)[0], []).append(name)

    def find(self, name: str) -> str:
        """Return the relative path of a file, by its name or the last parts of it.

        Backslashes, paths of another machine and upper or lower case do not matter. For a name that
        fits no file or several files, the result is a relative path that does not exist.
        """
        parts = [p for p in re.split(r"[/\\]", name.strip()) if p not in ("", ".", "..")]
        parts = [p for p in parts if not re.fullmatch(r"[A-Za-z]:", p)]
        relative = os.path.join(*parts) if parts else "(empty name)"
        if relative in self._exact:
            return relative
        candidates = self._by_end.get(parts[-1].casefold(), []) if parts else []
        best, shared = [], 0
        for candidate in candidates:
            same = _same_end(parts, candidate.split(os.sep))
            if same > shared:
                best, shared = [], same
            if same == shared:
                best.append(candidate)
        if len(best) != 1:
            return relative
        self._report.add("notes", "found in image_dir by the end of the path", name)
        return best[0]

    def find_stem(self, stem: str) -> str | None:
        """Return the only file whose name without its ending is `stem`, None if there is none."""
        exact = [f for f in self._by_stem.get(os.path.basename(stem).casefold(), [])]
        below = [f for f in exact if os.path.splitext(f)[0] == os.path.normpath(stem)]
        found = below or exact
        return found[0] if len(found) == 1 else None


def _same_end(left: Sequence[str], right: Sequence[str]) -> int:
    """Return how many parts two paths share, counted from their ends."""
    count = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a.casefold() != b.casefold():
            break
        count += 1
    return count
