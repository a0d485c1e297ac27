"""Reader of Pascal VOC: one XML file per image, and lists of names for the splits."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

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

_SPLIT_FOLDER = Path("ImageSets", "Main")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    path: str | os.PathLike,
    *,
    split: str,
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
    first_pixel: int = 1,
) -> AnnotationSource:
    """Read a Pascal VOC data set, or a folder of XML files from a labelling tool.

    Classes are the names in all XML files of all splits, in alphabetical order, so that the splits
    agree. Objects marked `difficult` become crowd regions: evaluation leaves them out.

    Args:
        path: folder with `Annotations/` and `JPEGImages/`, or with the XML files themselves.
        split: name of the list in `ImageSets/Main/`, if that folder exists.
        image_dir: folder of the images; None looks for `JPEGImages`, `images`, then beside the XML.
        image_list: text file with one name per line; None takes the list of the split, else all
            images.
        label_map: gives the ids of the class names; None numbers them.
        drop_unknown: leave out boxes whose name the label map does not have.
        first_pixel: number of the leftmost pixel: 1 as in the published data, 0 as in some tools.

    Raises:
        FileNotFoundError: no XML file, no such list, or no image folder.
        ValueError: an XML file cannot be read, or see `to_content`.
    """
    root = Path(path)
    xml_dir = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = {file.stem: file for file in sorted(xml_dir.glob("*.xml"))}
    if not files:
        raise FileNotFoundError(
            f"no XML file in {xml_dir}. A Pascal VOC data set has Annotations/*.xml; give the "
            "folder above Annotations, or the folder of the XML files."
        )
    report = Report()
    folder = ImageFolder(image_dir or _find_image_dir(root, xml_dir), report)
    parsed = {stem: _parse(file) for stem, file in files.items()}
    stems = _listed(root, split, image_list)
    chosen = []
    for stem in parsed if stems is None else stems:
        if stem in parsed:
            chosen.append(_image(parsed[stem], stem, folder, report, first_pixel))
        else:
            report.add("dropped images", "in the list of the split, but has no XML file", stem)
    if stems is None:
        known = {image.file_name for image in chosen}
        for name in sorted(set(folder.files) - known):
            report.add("notes", "image without an XML file: not used", name)
    names = sorted({o.findtext("name", "").strip() for x in parsed.values() for o in _objects(x)})
    source = f"the VOC annotations of {os.fspath(path)}"
    content = to_content(
        chosen,
        [name for name in names if name],
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report)


def _find_image_dir(root: Path, xml_dir: Path) -> Path:
    for candidate in (root / "JPEGImages", root / "images", xml_dir.parent / "JPEGImages"):
        if candidate.is_dir():
            return candidate
    return xml_dir


def _listed(root: Path, split: str, image_list: str | os.PathLike | None) -> list[str] | None:
    """Return the names of the split's images without endings, or None if there is no list."""
    lists = root / _SPLIT_FOLDER
    if image_list is None:
        if not lists.is_dir():
            return None
        image_list = lists / f"{split}.txt"
        if not image_list.is_file():
            # Lists of one class are called CLASS_train.
            found = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
            raise FileNotFoundError(
                f"{lists} has no list for split {split!r}: it has {', '.join(found) or 'none'}. "
                "Choose one of these as split, or give your own list as image_list."
            )
    lines = [line.strip() for line in read_text(image_list).splitlines()]
    names = [line.split()[0] if _is_flagged(line) else line for line in lines if line]
    stems = [os.path.basename(name.replace("\\", "/")) for name in names]
    return list(dict.fromkeys(os.path.splitext(s)[0] if _has_ending(s) else s for s in stems))


def _is_flagged(line: str) -> bool:
    """Tell whether a line is from the list of one class: a name, and 1, 0 or -1."""
    parts = line.split()
    return len(parts) == 2 and parts[1] in ("1", "0", "-1")


def _has_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in (".jpg", ".jpeg", ".png", ".xml", ".bmp", ".tif")


def _parse(file: Path) -> ElementTree.Element:
    try:
        # Parsed from bytes: the file itself says its encoding.
        return ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f"{file} is not valid XML: {error}. Was it cut short? Correct or remove the file."
        ) from error


def _objects(tree: ElementTree.Element) -> list[ElementTree.Element]:
    return tree.findall("object")


def _image(
    tree: ElementTree.Element, stem: str, folder: ImageFolder, report: Report, first_pixel: int
) -> NamedImage:
    # The image of the XML's own name: <filename> is often stale, once files were renamed.
    written = (tree.findtext("filename") or "").strip()
    name = folder.find_stem(stem)
    if name is None:
        name = folder.find(written or f"{stem}.jpg")
    size = [parse_number(tree.findtext(f"size/{side}")) or 0 for side in ("width", "height")]
    image = NamedImage(name, int(size[0]), int(size[1]))
    for number, one in enumerate(_objects(tree), 1):
        where = f"object {number} of {stem}.xml"
        label = one.findtext("name", "").strip()
        values = [parse_number(one.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
        if not label:
            report.add("dropped boxes", "no class name", where)
        elif None in values:
            report.add("dropped boxes", "bndbox is not four numbers", where)
        else:
            difficult = (one.findtext("difficult") or "0").strip() == "1"
            corners = _corners(values, where, report, first_pixel)
            image.boxes.append(NamedBox(corners, label, where, is_crowd=difficult))
            if difficult:
                report.add("notes", "difficult: kept as a crowd region", where)
    return image


def _corners(values: list, where: str, report: Report, first_pixel: int) -> tuple:
    """Return corners in pixels from 0, the far ones just after the last pixel."""
    left, top, right, bottom = values
    if left > right:
        left, right = right, left
        report.add("repaired boxes", "corners swapped: put in order", where)
    if top > bottom:
        top, bottom = bottom, top
        report.add("repaired boxes", "corners swapped: put in order", where)
    if first_pixel and min(left, top) < first_pixel:
        reason = "begins at pixel 0: if the labelling tool counts from 0, set first_pixel to 0"
        report.add("notes", reason, where)
    # Counted from 1, xmin to xmax are the first and the last pixel, both inside.
    return (left - first_pixel, top - first_pixel, right, bottom)
