"""What every reader makes: the content of a COCO instances file, and a report of changes."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted

COPY = "exact copy of another object of the picture (same class and box): left out"
SWAPPED = "corners swapped: put in order"
# Fewer objects than this make a class suspicious: a name typed wrongly once or twice.
_RARE = 3
_LONGEST_COMPARED = 100
# More boxes than this, and a larger share than this, are not swapped by a careless hand.
_FEW_SWAPPED, _MOST_SWAPPED = 2, 0.2


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
        lost = told(report, "dropped boxes")
        raise ValueError(
            f"{source} has no box, so no class is known. {f'Left out: {lost}. ' if lost else ''}"
            "Check the path; if all images are without objects, give the classes with --label_map."
        )
    try:
        label_map = label_map or LabelMap(names)
    except ValueError as error:
        raise ValueError(f"the class names of {source}: {error}") from error
    entries, annotations, unknown = [], [], {}
    counts = dict.fromkeys(label_map.names, 0)
    seen: set[tuple] = set()
    for place, image in enumerate(images, 1):
        number = place if image.image_id is None else image.image_id
        entry = {"id": number, "file_name": image.file_name}
        entries.append(entry | {"width": image.width, "height": image.height})
        for box in image.boxes:
            if box.name not in counts:
                unknown.setdefault(box.name, []).append(box.where)
                continue
            what = (place, box.name, tuple(box.corners), box.is_crowd)
            if what in seen:
                report.add("repaired boxes", COPY, box.where)
                continue
            seen.add(what)
            counts[box.name] += 1
            category = label_map.ids[label_map.class_of(box.name)]
            annotations.append(_annotation(len(annotations) + 1, number, category, box, report))
    for name, places in unknown.items():
        for place in places if drop_unknown else ():
            report.add("dropped boxes", "unknown category", f"{name!r} in {place}")
    if unknown and not drop_unknown:
        raise ValueError(_unknown_names(unknown, label_map, source))
    _check_order(len(annotations), report, source)
    note_classes(counts, report, also=names)
    return {
        "images": entries,
        "annotations": annotations,
        "categories": label_map.to_categories(),
    }


def _annotation(number: int, image: int, category: int, box: NamedBox, report: Report) -> dict:
    left, top, right, bottom = box.corners
    if left > right or top > bottom:
        report.add("repaired boxes", SWAPPED, box.where)
        left, right = min(left, right), max(left, right)
        top, bottom = min(top, bottom), max(top, bottom)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top) if box.area is None else box.area,
        "iscrowd": int(box.is_crowd),
        "where": box.where,
    }


def _check_order(total: int, report: Report, source: str) -> None:
    """Raise an error if so many corners were swapped that they are no corners."""
    swapped = report.count("repaired boxes", SWAPPED)
    if swapped > _FEW_SWAPPED and swapped > _MOST_SWAPPED * total:
        places = report.to_dict()["repaired boxes"][SWAPPED]["first"]
        raise ValueError(
            f"{swapped} of {total} boxes of {source} end before they begin, first in "
            f"{', '.join(map(str, places))}. Expected xmin < xmax and ymin < ymax: do the fields "
            "hold x, y, width, height instead, or xmin, xmax, ymin, ymax in another order? "
            "Correct their names or their order."
        )


def note_classes(counts: Mapping[str, int], report: Report, also: Iterable[str] = ()) -> None:
    """Point out classes that may be typing errors: with few objects, or near another's name.

    Args:
        counts: number of objects of each class, by its name.
        report: gets the notes.
        also: further names of the data set, to be compared with the others.
    """
    for name, count in counts.items():
        if not count:
            # Of a later split, or of a label map: its name was chosen before.
            report.add("notes", "class without objects in this split", repr(name))
        elif count < _RARE:
            reason = f"class with fewer than {_RARE} objects: is its name a typing error?"
            report.add("notes", reason, f"{name!r} ({count})")
    alike = "two classes with almost the same name: is one a typing error?"
    for one, other in _near_pairs(list(dict.fromkeys([*counts, *also]))):
        report.add("notes", alike, f"{one!r} and {other!r}")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _near_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that differ by one letter, by case, blanks or hyphens."""
    groups: dict[str, list[str]] = {}
    # Variants of a name take the square of its length: what is longer is no name.
    for name in (one for one in names if len(one) <= _LONGEST_COMPARED):
        plain = re.sub(r"[\s_-]+", "", _plain(name))
        # Two names that differ by one letter are the same without it.
        shorter = {plain[:i] + plain[i + 1 :] for i in range(len(plain))}
        # Or as each other with two neighbours changed over: a key of both names.
        turned = [
            plain[:i] + plain[i + 1] + plain[i] + plain[i + 2 :] for i in range(len(plain) - 1)
        ]
        swapped = {" ".join(sorted((plain, one))) for one in turned if len(plain) > 2}
        for key in {plain} | swapped | (shorter if len(plain) > 3 else set()):
            groups.setdefault(key, []).append(name)
    pairs = {}
    for group in groups.values():
        for place, one in enumerate(group):
            for other in group[place + 1 :]:
                if _may_be_one(one, other):
                    pairs[one, other] = None
    return list(pairs)


def _may_be_one(one: str, other: str) -> bool:
    """Tell whether two near names may be one: not 'type 1' and 'type 2', or 'class a' and 'b'."""
    words = [re.findall(r"[^\W\d_]+|\d+", _plain(name)) for name in (one, other)]
    if len(words[0]) != len(words[1]):
        return True
    apart = [pair for pair in zip(*words, strict=True) if pair[0] != pair[1]]
    return not apart or any(
        (max(map(len, pair)) > 3 or sorted(pair[0]) == sorted(pair[1])) and not pair[0].isdigit()
        for pair in apart
    )


def _unknown_names(unknown: dict[str, list[str]], label_map: LabelMap, source: str) -> str:
    folded = {name.casefold(): name for name in label_map.names}
    parts = []
    for name, places in list(unknown.items())[:LISTED]:
        near = difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.6)
        hint = f", did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
        parts.append(
            f"{name!r} ({counted(len(places), 'box', 'boxes')}, first in {places[0]}{hint})"
        )
    verb = "is" if len(unknown) == 1 else "are"
    return (
        f"{counted(len(unknown), 'class name')} of {source} {verb} not in the label map "
        f"({label_map.describe()}): {'; '.join(parts)}. Correct the names, add them to the label "
        "map, or set drop_unknown_categories to leave these boxes out."
    )


def told(report: Report, kind: str) -> str:
    """Write the reasons that a report counts under a kind in one line, with their first places."""
    reasons = report.to_dict().get(kind, {})
    return "; ".join(
        f"{entry['count']}: {reason} ({', '.join(map(str, entry['first']))})"
        for reason, entry in reasons.items()
    )
