"""Reader of CSV tables: one row per box, with the path of its image, corners and class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ssd_centernet.data.readers.csv_rows import COLUMNS, Table, read_table
from ssd_centernet.data.readers.image_folder import UNUSED, ImageFolder, fold, read_list
from ssd_centernet.data.readers.source import (
    AnnotationSource,
    NamedBox,
    NamedImage,
    to_content,
    told,
)
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_flag, read_number
from ssd_centernet.labels import LabelMap

_WORDS = {"yes": True, "y": True, "no": False, "n": False}
_SPLITS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
# How programs write that a field is empty.
_NOTHING = ("", "nan", "none", "null", "na", "n/a", "<na>")
_USUAL = ("train", "val", "test")
_READ_AS = {
    "sizes": "columns {} read as left, top, width and height of the box",
    "centers": "columns {} read as center, width and height of the box",
}


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

    Instead of corners a box may have the columns x, y, w, h (left, top, width, height) or x_center,
    y_center, w, h. A table without a header has exactly the six columns in this order. A row with
    only a path, or with nan in all other columns, is an image without objects. The columns `width`,
    `height` (of the image), `iscrowd` and `split` are read if they are there; others are ignored.
    Separators are comma, semicolon or tab. The classes are the names of the whole table in
    alphabetical order, or in numerical order if all are numbers; 1.0 is the number 1.

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
        ValueError: columns are missing or not clear (see `read_table`), no row is a box in pixels,
            rows of one image give it different sizes, or see `to_content`.
    """
    source = f"the table {os.fspath(path)}"
    table = read_table(path)
    report = Report()
    if table.kind in _READ_AS:
        report.add("notes", _READ_AS[table.kind].format(", ".join(table.box)), "all rows")
    for number in table.headers:
        report.add("notes", "the header once more: passed over", f"line {number}")
    folder = ImageFolder(image_dir or os.path.dirname(os.path.abspath(path)), report)
    wanted = None
    if image_list is not None:
        wanted = set(folder.match(read_list(image_list)).values())
    chosen = _of_split(table, split, report)
    files = folder.match(row["image"] for number, row in table.rows if number in chosen)
    images: dict[str, NamedImage] = {}
    names: set[str] = set()
    boxes: list[NamedBox] = []
    sizes: dict[str, tuple[int, list[str]]] = {}
    bare: list[tuple[int, str]] = []
    wholes = _whole_classes(table, label_map, report)
    for number, row in table.rows:
        counts = Report() if number not in chosen else report
        box = _box(row, table, f"line {number}", counts, first_pixel) if row["image"] else None
        if box is not None:
            box.name = _name(wholes.get(box.name, box.name), label_map)
            names.add(box.name)
            boxes.append(box)
        name = files.get(row["image"]) if number in chosen else None
        if name is None or (wanted is not None and name not in wanted):
            continue
        size = _size(table, number, row, sizes, name, path)
        image = images.setdefault(name, NamedImage(name, *size))
        if box is not None:
            image.boxes.append(box)
        elif not any(row[column] for column in (*table.box, "class")):
            bare.append((number, name))
    for number, name in bare:
        if images[name].boxes:
            reason = "only a path, though other rows have objects of the image"
            report.add("dropped boxes", reason, f"line {number}")
    _check_rows(table, boxes, images, source, report)
    _check_quotes(boxes, names, path)
    rows_of_others = {fold(_base(row["image"])) for n, row in table.rows if n not in chosen}
    for name in folder.unused(files.values()):
        if fold(os.path.basename(name)) not in rows_of_others:
            report.add("notes", UNUSED, name)
    content = to_content(
        list(images.values()),
        sorted(names, key=_order),
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report)


def _of_split(table: Table, split: str, report: Report) -> set[int]:
    """Return the lines of the split's rows that name an image."""

    def plain(text: str) -> str:
        return _SPLITS.get(text.casefold(), text.casefold())

    chosen = set()
    has_splits = any(row.get("split") for _, row in table.rows)
    for number, row in table.rows:
        if not row["image"]:
            report.add("dropped boxes", "no image path", f"line {number}")
        elif has_splits and not row["split"]:
            report.add("dropped boxes", "the column split is empty", f"line {number}")
        elif not has_splits or plain(row["split"]) == plain(split):
            chosen.add(number)
        elif plain(split) in _USUAL and plain(row["split"]) not in _USUAL:
            item = f"{row['split']!r} in line {number}, {row['image']}"
            report.add("notes", "row of another split than train, val and test: not used", item)
    if not chosen and has_splits:
        values = sorted({row["split"] for _, row in table.rows if row["split"]})
        raise ValueError(
            f"the table {table.path} has {len(table.rows)} rows but none for split {split!r}: its "
            f"column 'split' has {', '.join(values[:10])}{', ...' if len(values) > 10 else ''}. "
            "Choose one of these as split; if the column means something else, rename it."
        )
    return chosen


def _check_quotes(boxes: Sequence[NamedBox], names: set[str], path) -> None:
    """Raise an error if a class differs from another one by a quote that was not opened."""
    for box in boxes:
        bare = box.name.strip('"').strip()
        if bare != box.name and bare in names:
            raise ValueError(
                f"{os.fspath(path)} {box.where} has the class {box.name!r}, which other rows have "
                "without the quote. A quote is not opened or stands twice: correct the row."
            )


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _box(
    row: dict[str, str], table: Table, where: str, report: Report, first_pixel: int
) -> NamedBox | None:
    texts = [row[column] for column in table.box]
    if all(text.casefold() in _NOTHING for text in (*texts, row["class"])):
        return None
    values = [read_number(text) for text in texts]
    if None in values:
        of_box = "corners" if table.kind == "corners" else ", ".join(table.box)
        report.add("dropped boxes", f"{of_box} are not four numbers", where)
        return None
    if not row["class"]:
        report.add("dropped boxes", "no class name", where)
        return None
    left, top, right, bottom = values
    if table.kind == "corners":
        if first_pixel and left <= right and top <= bottom:
            left, top = left - first_pixel, top - first_pixel
    elif right <= 0 or bottom <= 0:
        report.add("dropped boxes", "zero or negative width or height", where)
        return None
    else:
        if table.kind == "centers":
            left, top = left - right / 2, top - bottom / 2
        left, top = left - first_pixel, top - first_pixel
        right, bottom = left + right, top + bottom
    written = row.get("iscrowd")
    if not written:
        return NamedBox((left, top, right, bottom), row["class"], where)
    is_crowd = read_flag(written)
    is_crowd = _WORDS.get(written.casefold()) if is_crowd is None else is_crowd
    if is_crowd is None:
        raise ValueError(
            f"{table.path} {where} has iscrowd {written!r}. Expected 0, 1, true or false."
        )
    return NamedBox((left, top, right, bottom), row["class"], where, bool(is_crowd))


def _size(table: Table, number: int, row: dict[str, str], sizes: dict, name: str, path):
    """Return the image's width and height as the row has them, which must be those of the others.

    Raises:
        ValueError: another row of the image has another size.
    """
    texts = [row.get(column, "") for column in table.size]
    if any(texts):
        first, written = sizes.setdefault(name, (number, texts))
        if written != texts and [*map(read_number, written)] != [*map(read_number, texts)]:
            raise ValueError(
                f"{os.fspath(path)} line {number} has {table.size[0]} {texts[0]} and "
                f"{table.size[1]} {texts[1]} for {name}, but line {first} has {written[0]} and "
                f"{written[1]}. These columns are the size of the image, not of the box: correct "
                "them, or call the sizes of boxes w and h."
            )
    numbers = [int(read_number(text) or 0) for text in texts]
    return numbers or [0, 0]


def _whole_classes(table: Table, label_map: LabelMap | None, report: Report) -> dict[str, str]:
    """Return the numbers of classes that are written as 1.0 -> 1, as pandas writes a column."""
    names = dict.fromkeys(row["class"] for _, row in table.rows)
    known = () if label_map is None else label_map.names
    fractions = [name for name in names if re.fullmatch(r"\d+\.\d*[1-9]\d*", name)]
    found = {}
    for name in names:
        number = re.fullmatch(r"(\d+)\.0*", name)
        if number and not fractions and name not in known:
            found[name] = number[1]
            report.add("notes", "class number with a decimal point: read as whole", name)
    return found


def _name(text: str, label_map: LabelMap | None) -> str:
    """Return the class name; a number may be the id of one in the label map."""
    if label_map is None or text in label_map.names or not text.isdecimal():
        return text
    known = int(text) in label_map.ids
    return label_map.names[label_map.to_class(int(text))] if known else text


def _order(name: str) -> tuple:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _check_rows(table: Table, boxes: Sequence[NamedBox], images, source, report: Report) -> None:
    if not images:
        raise ValueError(
            f"{source} has {len(table.rows)} rows but none of an image of the list. Choose another "
            "image_list."
        )
    if not boxes and "dropped boxes" in report.to_dict():
        raise ValueError(
            f"no row of {source} is a box: {told(report, 'dropped boxes')}. Expected "
            f"{', '.join(COLUMNS)}: are columns swapped?"
        )
