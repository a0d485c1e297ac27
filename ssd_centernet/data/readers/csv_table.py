"""Reader of CSV tables: one row per box, with the path of its image, corners and class."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence

from ssd_centernet.data.readers.source import (
    AnnotationSource,
    ImageFolder,
    NamedBox,
    NamedImage,
    parse_number,
    to_content,
)
from ssd_centernet.data.validate import Report
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
_OPTIONAL = ("width", "height", "iscrowd", "split")
_ALIASES = {
    "image": "image imagepath path file filename filepath imagename imgpath img imagefile imageid",
    "xmin": "xmin x1 left xtopleft bboxxmin x0",
    "ymin": "ymin y1 top ytopleft bboxymin y0",
    "xmax": "xmax x2 right xbottomright bboxxmax",
    "ymax": "ymax y2 bottom ybottomright bboxymax",
    "class": "class label classname labelname category name object",
    "width": "width imagewidth imgwidth imgw",
    "height": "height imageheight imgheight imgh",
    "iscrowd": "iscrowd crowd difficult ignore",
    "split": "split subset set",
}
_COLUMN_OF = {alias: column for column, text in _ALIASES.items() for alias in text.split()}


def read_csv(
    path: str | os.PathLike,
    *,
    split: str,
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
    first_pixel: int = 0,
) -> AnnotationSource:
    """Read a table with the columns `COLUMNS`, in any order, under these or similar names.

    A table without a header has exactly these six columns in this order. A row with only a path is
    an image without objects. The columns `width`, `height` (of the image), `iscrowd` and `split`
    are read if they are there; others are ignored. Separators are comma, semicolon or tab. The
    classes are the names of the whole table in alphabetical order, or in numerical order if all are
    numbers.

    Args:
        path: the file.
        split: name of the split; used if there is a column `split`.
        image_dir: folder of the images; None is the table's own folder.
        image_list: text file with one image per line: only these are taken.
        label_map: gives the ids of the names; a number that is not a name in it may be an id.
        drop_unknown: leave out boxes whose name the label map does not have.
        first_pixel: number of the leftmost pixel: with 0, xmax is the first column after the box,
            with 1 the last one inside it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: columns are missing, no row is a box in pixels, or see `to_content`.
    """
    source = f"the table {os.fspath(path)}"
    rows = _rows(path)
    report = Report()
    folder = ImageFolder(image_dir or os.path.dirname(os.path.abspath(path)), report)
    wanted = None
    if image_list is not None:
        lines = (line.strip() for line in read_text(image_list).splitlines())
        wanted = {folder.find(line) for line in lines if line}
    images: dict[str, NamedImage] = {}
    paths: dict[str, str] = {}
    names: set[str] = set()
    boxes: list[NamedBox] = []
    for number, row in rows:
        written = row["image"]
        if not written:
            report.add("dropped boxes", "no image path", f"line {number}")
            continue
        box = _box(row, f"line {number}", report, first_pixel)
        if box is not None:
            box.name = _name(box.name, label_map)
            names.add(box.name)
            boxes.append(box)
        if row.get("split") and row["split"].casefold() != split.casefold():
            continue
        name = paths.setdefault(written, "") or folder.find(written)
        paths[written] = name
        if wanted is not None and name not in wanted:
            continue
        size = [int(parse_number(row.get(side) or 0) or 0) for side in ("width", "height")]
        image = images.setdefault(name, NamedImage(name, *size))
        if box is not None:
            image.boxes.append(box)
    _check_rows(rows, boxes, images, source, split, report)
    content = to_content(
        list(images.values()),
        sorted(names, key=_order),
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report)


def _rows(path: str | os.PathLike) -> list[tuple[int, dict[str, str]]]:
    """Return (line, column -> text) of every row that is not empty."""
    lines = read_text(path).splitlines()
    first = next((line for line in lines if line.strip()), "")
    # The separator that the first line has most of; commas may be decimal ones.
    separator = max(";\t,", key=first.count)
    table = csv.reader(lines, delimiter=separator)
    rows = [(table.line_num, [text.strip() for text in row]) for row in table if any(row)]
    if not rows:
        raise ValueError(f"{os.fspath(path)} is empty. Expected the columns {', '.join(COLUMNS)}.")
    header = [_COLUMN_OF.get(re.sub(r"[^a-z0-9]", "", t.casefold())) for t in rows[0][1]]
    if _is_data(rows[0][1]):
        header = list(COLUMNS)
    else:
        _check_header(header, rows[0][1], path)
        rows = rows[1:]
    for number, row in rows:
        if len(row) > len(header) or (len(row) < len(header) and len(row) > 1):
            raise ValueError(
                f"{os.fspath(path)} line {number} has {len(row)} columns, expected {len(header)}. "
                "With decimal commas the separator must be ';'; put a name with a comma in quotes."
            )
    filled = ((n, [*row, *[""] * (len(header) - len(row))]) for n, row in rows)
    return [(n, {c: t for c, t in zip(header, row, strict=True) if c}) for n, row in filled]


def _is_data(row: Sequence[str]) -> bool:
    """Tell whether the first row is not a header: six columns, the middle ones numbers or empty."""
    middle = row[1:5]
    return len(row) == len(COLUMNS) and (
        all(parse_number(text) is not None for text in middle)
        or ("." in row[0] and not any(row[1:]))
    )


def _check_header(header: list[str | None], written: list[str], path) -> None:
    missing = [column for column in COLUMNS if column not in header]
    twice = sorted({c for c in header if c is not None and header.count(c) > 1})
    if not missing and not twice:
        return
    problem = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(twice)} twice"
    raise ValueError(
        f"the header of {os.fspath(path)} {problem}: it is {', '.join(written)}. Expected the "
        f"columns {', '.join(COLUMNS)} in any order, and perhaps {', '.join(_OPTIONAL)}; a table "
        "without a header has only the first six, in this order. Rename the columns."
    )


def _box(row: dict[str, str], where: str, report: Report, first_pixel: int) -> NamedBox | None:
    texts = [row[column] for column in COLUMNS[1:5]]
    if not any(texts) and not row["class"]:
        return None
    values = [parse_number(text) for text in texts]
    if None in values:
        report.add("dropped boxes", "corners are not four numbers", where)
        return None
    if not row["class"]:
        report.add("dropped boxes", "no class name", where)
        return None
    left, top, right, bottom = values
    if first_pixel and left <= right and top <= bottom:
        left, top = left - first_pixel, top - first_pixel
    is_crowd = row.get("iscrowd", "").casefold() in ("1", "true", "yes")
    return NamedBox((left, top, right, bottom), row["class"], where, is_crowd)


def _name(text: str, label_map: LabelMap | None) -> str:
    """Return the class name; a number may be the id of one in the label map."""
    if label_map is None or text in label_map.names or not text.isdigit():
        return text
    known = int(text) in label_map.ids
    return label_map.names[label_map.to_class(int(text))] if known else text


def _order(name: str) -> tuple:
    return (0, int(name), name) if name.isdigit() else (1, 0, name)


def _check_rows(rows, boxes: Sequence[NamedBox], images, source, split, report: Report) -> None:
    if not images:
        raise ValueError(
            f"{source} has {len(rows)} rows but none for split {split!r}. Choose a split of its "
            "column 'split', or another image_list."
        )
    dropped = report.to_dict().get("dropped boxes")
    if not boxes and dropped:
        raise ValueError(f"no row of {source} is a box: {dropped}. Are columns swapped?")
    if boxes and max(max(map(abs, box.corners)) for box in boxes) <= 1.0:
        raise ValueError(
            f"the corners in {source} are all within 0..1, so they are fractions of the image; "
            "expected pixels. Multiply them by the width and height of the images."
        )
