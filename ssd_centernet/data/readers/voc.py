"""Reader of Pascal VOC: one XML file per image, and lists of names for the splits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ssd_centernet.data.readers.image_folder import (
    IMAGE_SUFFIXES,
    ImageFolder,
    fold,
    list_files,
    read_list,
)
from ssd_centernet.data.readers.source import AnnotationSource, NamedImage, to_content
from ssd_centernet.data.readers.voc_xml import VocFile, read_voc_xml
from ssd_centernet.data.validate import Report
from ssd_centernet.labels import LabelMap

_SPLIT_FOLDER = Path("ImageSets", "Main")
_IMAGE_DIRS = ("JPEGImages", "images", "Images")


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
        path: folder with `Annotations/` and `JPEGImages/`, or with the XML files themselves, or
            with several such data sets (`VOC2007/`, `VOC2012/`), which are read as one.
        split: name of the list in `ImageSets/Main/`, if that folder exists.
        image_dir: folder of the images; None looks for `JPEGImages`, `images`, then beside the XML.
        image_list: text file with one name per line; None takes the list of the split, else all
            images.
        label_map: gives the ids of the class names; None numbers them.
        drop_unknown: leave out boxes whose name the label map does not have.
        first_pixel: number of the leftmost pixel: 1 as in the published data, 0 as in some tools.

    Raises:
        FileNotFoundError: no XML file, no such list, or no image folder.
        ValueError: an XML file cannot be read or is no VOC file, or see `to_content`.
    """
    root, report = Path(path), Report()
    sets = _find_sets(root, report)
    folder = _image_folder(root, sets, image_dir, report)
    origin = {key: one for one in sets for key in one.files}
    keys = _listed(origin, sets, split, image_list, report)
    chosen = list(origin) if keys is None else keys
    images: dict[str, NamedImage] = {}
    for key in chosen:
        one = origin[key]
        content = read_voc_xml(one.files[key], f"{key}.xml", report, first_pixel)
        name = _picture(content, one, key, folder, report)
        if name in images:
            reason = "picture of two XML files: the objects of both taken"
            report.add("notes", reason, f"{name} in {key}.xml")
        image = images.setdefault(name, NamedImage(name, content.width, content.height))
        image.boxes += content.boxes
    names = {box.name for image in images.values() for box in image.boxes}
    for key in origin.keys() - set(chosen):  # Of other splits: only their classes count here.
        content = read_voc_xml(origin[key].files[key], f"{key}.xml", Report(), first_pixel)
        names |= {box.name for box in content.boxes}
    # With lists of splits, a picture of another one has an XML file, too.
    stems = set() if keys is None else {fold(os.path.basename(key)) for key in origin}
    for name in folder.unused(images):
        if fold(os.path.splitext(os.path.basename(name))[0]) not in stems:
            report.add("notes", "image without an XML file: not used", name)
    source = f"the VOC annotations of {os.fspath(path)}"
    content = to_content(
        list(images.values()),
        sorted(names),
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report)


# --- where files are ------------------------------------------------------------------------


@dataclass
class _Set:
    """One data set of a folder.

    `files` are its XML files by their keys: the path below `Annotations` without the ending, after
    `head`. `images` is the folder of its images, relative to that of the data sets together.
    """

    root: Path
    xml_dir: Path
    head: str = ""
    images: str = ""
    files: dict[str, Path] = field(default_factory=dict)


def _find_sets(root: Path, report: Report) -> list[_Set]:
    tops = [root] if _annotation_dir(root) else []
    if not tops and root.is_dir():
        tops = [p for p in sorted(root.iterdir()) if p.is_dir() and _annotation_dir(p)]
    sets = [_Set(top, _annotation_dir(top)) for top in tops] or [_Set(root, root)]
    for one in sets:
        one.head = "" if len(sets) == 1 else f"{one.root.name}/"
        names = list_files(one.xml_dir, report)[0] if one.xml_dir.is_dir() else []
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() == ".xml" and one.head + stem in one.files:
                report.add("notes", "second XML file of one name: not used", name)
            elif ending.lower() == ".xml":
                one.files[one.head + stem] = one.xml_dir / name
        if one.xml_dir != one.root:
            for file in sorted(one.root.glob("*.xml")):
                report.add("notes", "XML file beside Annotations: not used", file.name)
    if not any(one.files for one in sets):
        raise FileNotFoundError(
            f"no XML file in {sets[0].xml_dir}. A Pascal VOC data set has Annotations/*.xml; give "
            "the folder above Annotations, or the folder of the XML files."
        )
    return sets


def _annotation_dir(folder: Path) -> Path | None:
    places = (folder / name for name in ("Annotations", "annotations"))
    return next((place for place in places if place.is_dir()), None)


def _image_folder(root: Path, sets: list[_Set], image_dir, report: Report) -> ImageFolder:
    if image_dir is not None:
        return ImageFolder(image_dir, report)
    found = [_find_image_dir(one) for one in sets]
    if len(found) == 1:
        return ImageFolder(found[0], report)
    for one, place in zip(sets, found, strict=True):
        one.images = os.path.relpath(place, root)
    return ImageFolder(root, report, [one.images for one in sets])


def _find_image_dir(one: _Set) -> Path:
    places = [one.root / name for name in _IMAGE_DIRS]
    places.append(one.xml_dir.parent / _IMAGE_DIRS[0])
    return next((place for place in places if place.is_dir()), one.xml_dir)


def _picture(content: VocFile, one: _Set, key: str, folder: ImageFolder, report: Report) -> str:
    """Return the file of the XML's own name: `<filename>` is often stale, once files were renamed.

    If there is none, it is the file that `<filename>` names.
    """
    own = folder.find_stem(os.path.join(one.images, key.removeprefix(one.head)))
    written = content.file_name
    stem = os.path.splitext(os.path.basename(written.replace("\\", "/")))[0]
    contradicts = written and fold(stem) != fold(os.path.basename(key))
    if own is not None:
        if contradicts and folder.find_stem(stem):
            reason = "<filename> is another picture: that of the XML file's own name taken"
            report.add("notes", reason, f"{written} in {key}.xml")
        elif contradicts:
            reason = "<filename> is no file: the picture of the XML file's own name taken"
            report.add("notes", reason, f"{written} in {key}.xml")
        return own
    name = folder.find(written or f"{key}.jpg")
    if contradicts and os.path.isfile(os.path.join(folder.path, name)):
        reason = "no picture of the XML file's own name: that of <filename> taken"
        report.add("notes", reason, f"{written} in {key}.xml")
    return name


def _listed(origin, sets, split: str, image_list, report: Report) -> list[str] | None:
    """Return the keys of the split's images, or None if there is no list."""
    by_end: dict[str, list[str]] = {}
    for key in origin:
        by_end.setdefault(os.path.basename(key), []).append(key)
    lists = _lists(sets, split, image_list)
    if lists is None:
        return None
    keys: dict[str, None] = {}
    for head, file in lists:
        for line in read_list(file):
            found = _matching(line, head, origin, by_end)
            if found is None:
                reason = "in the list of the split, but has no XML file"
                report.add("dropped images", reason, _stem(line))
            elif len(found) > 1:
                reason = "in the list of the split, but several XML files have this name"
                report.add("dropped images", reason, _stem(line))
            else:
                keys[found[0]] = None
    return list(keys)


def _matching(line: str, head: str, origin, by_end: dict[str, list[str]]) -> list[str] | None:
    """Return the keys of one line of a list: a name or path, perhaps with a class's 1, 0 or -1."""
    # A name may itself end in ' 1': the whole line comes first.
    for text in dict.fromkeys((line, line.rsplit(None, 1)[0] if _is_flagged(line) else line)):
        stem = _stem(text)
        if head + stem in origin:
            return [head + stem]
        ends = by_end.get(os.path.basename(stem), [])
        ends = [key for key in ends if key.startswith(head)]
        longer = [key for key in ends if f"/{key}".endswith(f"/{stem}")]
        if longer or ends:
            return longer or ends
    return None


def _lists(sets, split: str, image_list) -> list[tuple[str, Path]] | None:
    """Return (beginning of the keys, file) of each list of the split."""
    if image_list is not None:
        return [("", Path(image_list))]
    folders = [(one, one.root / _SPLIT_FOLDER) for one in sets]
    folders = [(one, lists) for one, lists in folders if lists.is_dir()]
    if not folders:
        return None
    found = []
    for one, lists in folders:
        if (lists / f"{split}.txt").is_file():
            found.append((one.head, lists / f"{split}.txt"))
    if not found:
        lists = folders[0][1]
        # Lists of one class are called CLASS_train.
        names = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        raise FileNotFoundError(
            f"{lists} has no list for split {split!r}: it has {', '.join(names) or 'none'}. "
            "Choose one of these as split, or give your own list as image_list."
        )
    return found


def _is_flagged(line: str) -> bool:
    """Tell whether a line is from the list of one class: a name, and 1, 0 or -1."""
    parts = line.split()
    return len(parts) > 1 and parts[-1] in ("1", "0", "-1")


def _stem(name: str) -> str:
    """Return a name of a list without its folders above the set and without its ending."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
    stem, ending = os.path.splitext("/".join(parts))
    return stem if ending.lower() in (*IMAGE_SUFFIXES, ".xml") else stem + ending
