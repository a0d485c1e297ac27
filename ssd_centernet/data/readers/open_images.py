"""Reader of Open Images: a table of boxes in fractions, and pictures without endings in it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ssd_centernet.data.readers.image_folder import UNUSED, ImageFolder
from ssd_centernet.data.readers.source import AnnotationSource, NamedBox, NamedImage, to_content
from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.data.values import read_flag, read_number
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
COLUMNS = ("ImageID", "LabelName", *_CORNERS)
# Fractions are written with about six digits.
_ROUNDING = 1e-3
_ABSENT = "Confidence is 0, a class that was looked for and is not there: left out"


def is_open_images(path: str | os.PathLike) -> bool:
    """Tell whether a table has the columns of Open Images, and one that no other table has."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            header = {text.strip().strip('"') for text in file.readline(10_000).split(",")}
    except OSError:
        return False
    return set(COLUMNS) <= header and bool({"IsGroupOf", "Confidence", "Source"} & header)


def read_open_images(
    path: str | os.PathLike,
    *,
    split: str,
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
) -> AnnotationSource:
    """Read a table of Open Images, such as `validation-annotations-bbox.csv`.

    Boxes with `IsGroupOf` are crowd regions. Rows with a `Confidence` of 0 say that a class is not
    in a picture: they are left out, and the picture stays. Classes get their names from a file
    `class-descriptions*.csv` beside the table. Most people fetch a part of the pictures: rows of
    others are left out and counted.

    Args:
        path: the table.
        split: not used; each split has a table of its own.
        image_dir: folder of the pictures; None takes the table's own.
        image_list: text file with one image per line: only these are taken.
        label_map: gives the ids of the names; None numbers them in alphabetical order.
        drop_unknown: leave out boxes whose name the label map does not have.

    Raises:
        FileNotFoundError: no such file or folder, or no picture of the table is in the folder.
        ValueError: a value is no fraction, or see `to_content`.
    """
    source = f"the Open Images table {os.fspath(path)}"
    report = Report()
    folder = ImageFolder(image_dir or Path(path).parent, report)
    wanted = None
    if image_list is not None:
        lines = (line.strip() for line in read_text(image_list).splitlines())
        wanted = {os.path.splitext(os.path.basename(line))[0] for line in lines if line}
    names = _class_names(Path(path).parent)
    images: dict[str, NamedImage | None] = {}
    for line, row in _rows(path):
        stem = row["ImageID"]
        if stem not in images:
            images[stem] = (
                None if wanted is not None and stem not in wanted else _image(folder, stem)
            )
        image = images[stem]
        if image is None:
            if wanted is None:
                reason = "box of a picture that is not in image_dir: not used"
                report.add("notes", reason, f"line {line}: {stem}")
            continue
        if read_number(row.get("Confidence")) == 0:
            report.add("notes", _ABSENT, f"line {line}: {stem}")
            continue
        image.boxes.append(_box(row, image, names, f"line {line}", report, path))
    used = [image for image in images.values() if image is not None]
    if not used:
        raise FileNotFoundError(
            f"none of the {len(images)} pictures of {source} is in {folder.path}, such as "
            f"{', '.join(list(images)[:LISTED])}. Give their folder as image_dir."
        )
    for name in folder.unused(image.file_name for image in used):
        report.add("notes", UNUSED, name)
    content = to_content(
        used,
        sorted({box.name for image in used for box in image.boxes}),
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report)


def _rows(path: str | os.PathLike) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a table that may have many millions of them."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        missing = [column for column in COLUMNS if column not in (table.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{os.fspath(path)} lacks the columns {', '.join(missing)} of Open Images; it has "
                f"{', '.join(table.fieldnames or ()) or 'none'}."
            )
        try:
            for row in table:
                yield table.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{os.fspath(path)} line {table.line_num + 1}: {error}.") from error


def _image(folder: ImageFolder, stem: str) -> NamedImage | None:
    name = folder.find_stem(stem)
    if name is None:
        return None
    try:
        with Image.open(Path(folder.path, name)) as image:
            return NamedImage(name, *image.size)
    except Exception:  # The conversion tells later why the file cannot be read.
        return NamedImage(name)


def _class_names(folder: Path) -> dict[str, str]:
    """Return the names of the codes such as /m/01g317, if their list is beside the table."""
    names: dict[str, str] = {}
    for file in sorted(folder.glob("*class-descriptions*.csv")):
        for row in csv.reader(read_text(file).splitlines()):
            if len(row) == 2 and row[0].startswith("/"):
                names[row[0]] = row[1].strip()
    return names


def _box(
    row: dict[str, str],
    image: NamedImage,
    names: dict[str, str],
    where: str,
    report: Report,
    path: str | os.PathLike,
) -> NamedBox:
    values = [read_number(row[key]) for key in _CORNERS]
    for key, value in zip(_CORNERS, values, strict=True):
        if value is None or not -_ROUNDING <= value <= 1 + _ROUNDING:
            raise ValueError(
                f"{os.fspath(path)} {where}: {key} is {row[key]!r}, expected a fraction 0..1 of "
                "the picture. A table with corners in pixels is read with --format=csv."
            )
    left, top, right, bottom = values
    corners = left * image.width, top * image.height, right * image.width, bottom * image.height
    code = row["LabelName"].strip()
    if code.startswith("/") and code not in names:
        reason = "class has a code and no name: put class-descriptions-boxable.csv beside the table"
        report.add("notes", reason, f"{where}: {code}")
    flag = (row.get("IsGroupOf") or "").strip()
    group = read_flag(flag)
    if group is None and flag not in ("", "-1"):  # -1 stands for unknown.
        raise ValueError(
            f"{os.fspath(path)} {where}: IsGroupOf is {flag!r}, expected 0, 1 or -1 (unknown)."
        )
    if group:
        report.add("notes", "IsGroupOf is 1: read as a crowd region", where)
    return NamedBox(corners, names.get(code, code), where, is_crowd=bool(group))
