"""The rows of a CSV table: its separator, header and columns, and what cannot be told of them."""

from __future__ import annotations

import collections
import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ssd_centernet.data.readers.image_folder import IMAGE_SUFFIXES
from ssd_centernet.data.values import read_number
from ssd_centernet.files import read_text

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
_OPTIONAL = ("width", "height", "iscrowd", "split")
_ALIASES = {
    "image": "image imagepath path file filename filepath imagename imgpath img imagefile imageid",
    "xmin": "xmin x1 left xtopleft bboxxmin x0",
    "ymin": "ymin y1 top ytopleft bboxymin y0",
    "xmax": "xmax x2 right xbottomright bboxxmax",
    "ymax": "ymax y2 bottom ybottomright bboxymax",
    "x": "x bboxx boxx",
    "y": "y bboxy boxy",
    "xcenter": "xcenter xcentre xc cx centerx centrex bboxxcenter",
    "ycenter": "ycenter ycentre yc cy centery centrey bboxycenter",
    "w": "w bw bboxwidth boxwidth bboxw boxw",
    "h": "h bh bboxheight boxheight bboxh boxh",
    "class": "class label classname labelname category name object",
    "width": "width",
    "height": "height",
    "imagewidth": "imagewidth imgwidth imgw imagew",
    "imageheight": "imageheight imgheight imgh imageh",
    "iscrowd": "iscrowd crowd difficult ignore",
    "split": "split subset set",
}
_COLUMN_OF = {alias: column for column, text in _ALIASES.items() for alias in text.split()}
# Columns that give a box, by preference; the first two are its place, the others reach or size.
_BOXES = {
    "corners": [("xmin", "ymin", "xmax", "ymax")],
    "sizes": [
        (x, y, w, h)
        for x, y in (("xmin", "ymin"), ("x", "y"))
        for w, h in (("w", "h"), ("width", "height"))
    ],
    "centers": [("xcenter", "ycenter", w, h) for w, h in (("w", "h"), ("width", "height"))],
}


@dataclass
class Table:
    """The rows of a table that are not empty.

    Attributes:
        rows: (line in the file, column -> text) of each.
        kind: what the columns of the box are: 'corners', 'sizes' (left, top, width, height) or
            'centers' (center x and y, width, height).
        box: the names of these four columns.
        size: the columns of the image's width and height, () if there are none.
        path: the file.
        headers: lines in which the header stands once more, as where tables were joined.
    """

    rows: list[tuple[int, dict[str, str]]]
    kind: str
    box: tuple[str, ...]
    size: tuple[str, ...]
    path: str
    headers: list[int]


def read_table(path: str | os.PathLike) -> Table:
    """Read a table with or without a header.

    Raises:
        ValueError: the file is empty or no text, a quote is not closed, a row has too few or too
            many columns, columns are missing or stand twice, it is not clear what columns mean, or
            whether commas or points separate decimals.
    """
    several: set[int] = set()
    rows = list(_split_rows(path, several))
    if not rows:
        raise ValueError(f"{os.fspath(path)} is empty. Expected the columns {', '.join(COLUMNS)}.")
    written = rows[0][1]
    header = [_column(text) for text in written]
    if _is_data(written, header):
        _check_without_header(rows, path)
        header = list(COLUMNS)
    else:
        _check_header_quotes(rows[0], path)
        rows = rows[1:]
    kind, box = _box_columns(header, written, path)
    rows, again = _without_headers(rows, header, path)
    for number, row in rows:
        if len(row) > len(header) or (len(row) < len(header) and len(row) > 1):
            raise ValueError(
                f"{os.fspath(path)} line {number} has {len(row)} columns, expected {len(header)}. "
                "With decimal commas the separator must be ';'; put a name with a comma in quotes."
            )
    filled = ((n, [*row, *[""] * (len(header) - len(row))]) for n, row in rows)
    named = [(n, {c: t for c, t in zip(header, row, strict=True) if c}) for n, row in filled]
    _check_no_line_breaks([(n, row) for n, row in named if n in several], path)
    _check_decimals(named, box, path)
    size: tuple[str, ...] = ("imagewidth", "imageheight")
    if size[0] not in header:
        size = ("width", "height") if "width" not in box else ()
    if "width" in box:
        _check_sizes_of_boxes(named, path)
    return Table(named, kind, box, size, os.fspath(path), again)


def _split_rows(path: str | os.PathLike, several: set[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, texts) of rows that are not empty; add those of several lines to `several`."""
    text = read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    hint = re.fullmatch(r"sep=(.)", first.strip("\ufeff\"'\r\n"))  # As Excel reads and writes.
    # Else the separator that the first line has most of; commas may be decimal ones.
    separator = hint[1] if hint else max(";\t,|", key=first.count)
    # A field may be longer than the limit of the csv module, such as the codes of a mask.
    limit = csv.field_size_limit(sys.maxsize)
    table = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    begin = 1
    try:
        for row in table:
            if any(text.strip() for text in row) and not (hint and begin == 1):
                yield begin, [text.strip() for text in row]
            if table.line_num > begin:
                several.add(begin)
            begin = table.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{os.fspath(path)} line {begin}: a quote is opened that is not closed, or that does "
            f"not end its field ({error} in line {table.line_num}). Close it, or write a quote "
            'inside of a quoted text twice (""). '
        ) from error
    finally:
        csv.field_size_limit(limit)


def _is_data(row: Sequence[str], header: Sequence[str | None]) -> bool:
    """Tell whether the first row is not a header: it has numbers, or only a path."""
    numbers = sum(read_number(text) is not None for text in row)
    return numbers > 0 or (not any(header) and not any(row[1:]))


def _without_headers(rows, header: list[str | None], path) -> tuple[list, list[int]]:
    """Return the rows that are no second header, and the lines of those that are.

    Raises:
        ValueError: a second header has other columns than the first, or another order.
    """
    kept, again = [], []
    for number, row in rows:
        # Numbers and paths are no names of columns, so rows of boxes are out after two looks.
        is_header = len(row) >= len(COLUMNS) and any(map(_column, row[1:3]))
        named = [_column(text) for text in row] if is_header else []
        if len(set(named) - {None}) < len(COLUMNS):
            kept.append((number, row))
        elif named == header:
            again.append(number)
        else:
            raise ValueError(
                f"{os.fspath(path)} line {number} is a second header whose columns are not those "
                f"of the first: {', '.join(row)}. Were two tables joined? Give all rows the same "
                "columns in the same order."
            )
    return kept, again


def _column(text: str) -> str | None:
    return _COLUMN_OF.get(re.sub(r"[^a-z0-9]", "", text.casefold()))


def _check_without_header(rows, path) -> None:
    """Raise an error unless the columns are a path, four numbers or nothing, and a class."""

    def kind(texts: Iterable[str]) -> str:
        texts = [text for text in texts if text]
        if texts and all(text.lower().endswith(IMAGE_SUFFIXES) for text in texts):
            return "a path"
        if texts and sum(read_number(text) is not None for text in texts) * 2 > len(texts):
            return "numbers"
        return "text" if texts else "nothing"

    count = max(len(row) for _, row in rows)
    kinds = [kind(row[i] for _, row in rows if i < len(row)) for i in range(count)]
    middle = all(one in ("numbers", "nothing") for one in kinds[1:5])
    if count == len(COLUMNS) and middle and (kinds[5] != "a path" or kinds[0] == "a path"):
        return
    if count == 1 and kinds[0] == "a path":
        return
    raise ValueError(
        f"{os.fspath(path)} line {rows[0][0]} is no header, and a table without one has the "
        f"columns {', '.join(COLUMNS)} in this order: its columns are {', '.join(kinds)}. Write a "
        "first line with the names of the columns."
    )


def _check_header_quotes(row: tuple[int, list[str]], path) -> None:
    for text in row[1]:
        if '"' in text:
            raise ValueError(
                f"{os.fspath(path)} line {row[0]}: the name of a column has a quote that is not "
                f"opened or stands twice, {text!r}. Correct the header."
            )


def _box_columns(header: list[str | None], written: list[str], path) -> tuple[str, tuple[str, ...]]:
    """Return what gives the box, and its four columns."""
    twice = sorted({c for c in header if c is not None and header.count(c) > 1})
    missing = [column for column in ("image", "class") if column not in header]
    found = [
        (kind, columns)
        for kind, choices in _BOXES.items()
        for columns in choices
        if all(column in header for column in columns)
    ]
    if found and not missing and not twice:
        return found[0]
    if not found:
        missing = [column for column in COLUMNS if column not in header]
    problem = f"has {', '.join(twice)} twice" if twice else f"lacks {', '.join(missing)}"
    raise ValueError(
        f"the header of {os.fspath(path)} {problem}: it is {', '.join(written)}. Expected the "
        f"columns {', '.join(COLUMNS)} in any order, or x, y, w, h or x_center, y_center, w, h for "
        f"the box, and perhaps {', '.join(_OPTIONAL)}; a table without a header has only the first "
        f"six, in this order. {_advice(written, bool(found))}"
    )


def _advice(written: Sequence[str], has_box: bool) -> str:
    """Return what to do about a header that lacks columns."""
    plain = {re.sub(r"[^a-z0-9]", "", text.casefold()): text for text in written}
    if "regionshapeattributes" in plain:
        return (
            "It looks like a table of the VGG Image Annotator. Export its project in COCO's format "
            "(Annotation > Export annotations (COCO format))."
        )
    whole = next((plain[name] for name in ("bbox", "box", "boundingbox") if name in plain), None)
    if whole is not None and not has_box:
        return (
            f"Split {whole!r} into four columns: x, y, w, h if it holds left, top, width and "
            "height, or xmin, ymin, xmax, ymax if it holds corners. A column 'class' is needed "
            "too, with the same word in all rows if there is only one class."
        )
    return "Rename the columns, or add those that are missing."


def _check_no_line_breaks(rows, path) -> None:
    for number, row in rows:
        for column, text in row.items():
            if "\n" in text or "\r" in text:
                raise ValueError(
                    f"{os.fspath(path)} line {number}: {column} goes over several lines, "
                    f"{text[:60]!r}. A quote was opened in line {number} and closed in a later "
                    "one; close it in its own."
                )


def _check_decimals(rows, box: Sequence[str], path) -> None:
    """Raise an error if 1,024 may be a thousand and 24 as well as a little more than 1."""
    texts = [(number, row[column]) for number, row in rows for column in box]
    for sign in ",.":
        having = [(number, text) for number, text in texts if sign in text]
        unclear = [one for one in having if re.fullmatch(rf"[1-9]\d{{0,2}}\{sign}\d{{3}}", one[1])]
        if not unclear or len(unclear) < len(having):
            continue
        others = [read_number(text) for _, text in texts if text and sign not in text]
        whole = [n for n in others if n is not None and n == int(n) and 20 <= abs(n) < 1000]
        # Points are decimal points unless they are few among whole numbers below 1000.
        few = len(whole) > 2 * len(unclear) and len(whole) == len([n for n in others if n])
        if sign == "," or few:
            number, text = unclear[0]
            raise ValueError(
                f"{os.fspath(path)} line {number} has {text!r}: a thousand and more, or a decimal "
                f"{'comma' if sign == ',' else 'point'}? Write numbers without separators of "
                "thousands."
            )


def _check_sizes_of_boxes(rows, path) -> None:
    """Raise an error if the columns width and height are those of the image, not of the box."""
    sizes = collections.defaultdict(list)
    for number, row in rows:
        if row["width"] or row["height"]:
            sizes[row["image"]].append((number, row["width"], row["height"]))
    several = [lines for lines in sizes.values() if len(lines) > 1]
    if several and all(len({line[1:] for line in lines}) == 1 for lines in several):
        number, width, height = several[0][0]
        raise ValueError(
            f"{os.fspath(path)} line {number} has width {width} and height {height}, the same in "
            "all rows of each image, so they are sizes of the image, and the table lacks xmax and "
            "ymax. Add these columns, or call the sizes of boxes w and h."
        )
