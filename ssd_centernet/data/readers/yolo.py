"""Reader of YOLO folders: a text file of boxes beside each image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ssd_centernet.data.orientation import ORIENTATION_TAG, SIDEWAYS
from ssd_centernet.data.readers.data_yaml import read_data_yaml
from ssd_centernet.data.readers.source import (
    IMAGE_SUFFIXES,
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

NAME_FILES = ("classes.txt", "obj.names", "names.txt", "_darknet.labels")
_SPLIT_NAMES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}
# Fractions are written with about six digits.
_ROUNDING = 1e-3


def read_yolo(
    path: str | os.PathLike,
    *,
    split: str,
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
) -> AnnotationSource:
    """Read a YOLO data set: images, and for each a text file with `class x y width height`.

    The label file of `images/a.jpg` is `labels/a.txt`, or `a.txt` beside the image. An image
    without a label file has no objects. The classes are the names in their order; class 0 gets id
    1. A polygon becomes the box around it. Boxes refer to the picture as it is shown, turned by its
    EXIF orientation.

    Args:
        path: `data.yaml`, or a folder with that file, or with `images/` and `labels/`.
        split: name of the split.
        image_dir: folder of the images; None finds it by `path` and `split`.
        image_list: text file with one image per line; None takes all images of the folder.
        label_map: gives the ids of the names; without a list of names, its classes are the classes
            0..C-1.
        drop_unknown: leave out boxes whose name the label map does not have.

    Raises:
        FileNotFoundError: no images of the split.
        ValueError: there are no class names, label files have another form, or see `to_content`.
    """
    path = Path(path)
    root = path if path.is_dir() else path.parent
    settings = _settings(path)
    names = _names(root, settings, label_map, path)
    report = Report()
    folder_path, listed = _locate(root, settings, split, image_dir, image_list)
    folder = ImageFolder(folder_path, report)
    files = folder.files if listed is None else [folder.find(name) for name in listed]
    images, lines = [], 0
    for name in dict.fromkeys(files):
        image = NamedImage(name, *_upright_size(Path(folder.path, name)))
        label_file = _label_file(Path(folder.path, name), root)
        if label_file is None:
            report.add("notes", "no label file: an image without objects", name)
        elif image.width:
            lines += _read_labels(label_file, image, names, report)
        images.append(image)
    source = f"the YOLO labels of {os.fspath(path)}"
    if lines and not any(image.boxes for image in images):
        raise ValueError(
            f"no line of {source} is a box: {report.to_dict()['dropped boxes']}. Expected "
            "'class x_center y_center width height' with fractions 0..1 of the image."
        )
    content = to_content(
        images,
        names,
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    return AnnotationSource(source, folder.path, content, report, upright=True)


# --- where files are ------------------------------------------------------------------------


def _settings(path: Path) -> dict:
    if path.is_file():
        return read_data_yaml(path)
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    named = [file for file in found if file.stem in ("data", "dataset")] or found
    if len(named) > 1:
        raise ValueError(
            f"{path} has several yaml files: {', '.join(f.name for f in named)}. Give the path of "
            "the file that describes the data."
        )
    return read_data_yaml(named[0]) if named else {}


def _names(root: Path, settings: dict, label_map: LabelMap | None, path: Path) -> list[str]:
    names = settings.get("names")
    if not names:
        places = [*(root / n for n in NAME_FILES), *(root / "labels" / n for n in NAME_FILES)]
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    if not names and label_map is not None:
        return list(label_map.names)
    if not names:
        raise ValueError(
            f"the classes of {path} have no names: expected 'names' in data.yaml, or one of "
            f"{', '.join(NAME_FILES)} with one name per line. Write one of these, or give a label "
            "map."
        )
    count = settings.get("nc", str(len(names)))
    if count != str(len(names)):
        raise ValueError(
            f"{path} says nc: {count}, but names {len(names)} classes ({', '.join(names[:5])}...). "
            "Correct the one that is wrong, nc or names."
        )
    return names


def _locate(
    root: Path, settings: dict, split: str, image_dir, image_list
) -> tuple[str, list[str] | None]:
    """Return the folder of the images, and the names in its list if there is one."""
    if image_list is not None:
        return os.fspath(image_dir or _first_folder(root, split) or root), _lines(image_list)
    if image_dir is not None:
        return os.fspath(image_dir), None
    splits = _SPLIT_NAMES.get(split, (split,))
    value = next((settings[name] for name in splits if settings.get(name)), None)
    if value is None:
        folder = _first_folder(root, split)
        if folder is None:
            raise FileNotFoundError(
                f"no images of split {split!r} below {root}: looked for {split} in data.yaml, "
                f"images/{split}, {split}/images, {split} and images. Give the folder as image_dir."
            )
        return folder, None
    found = [_existing(root, settings.get("path", ""), entry) for entry in _as_list(value)]
    if len(found) == 1 and found[0].is_dir():
        return os.fspath(found[0]), None
    names: list[str] = []
    for entry in found:
        if entry.is_dir():
            images = sorted(f for f in entry.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
            names += [os.path.relpath(image, root) for image in images]
        else:
            names += _lines(entry)
    return os.fspath(root), names


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _existing(root: Path, base: str, entry: str) -> Path:
    """Return the folder of a path in data.yaml, relative to its `path` or to the file itself."""
    entry, base = entry.replace("\\", "/"), base.replace("\\", "/")
    # '../train/images' is what some exports write of a folder beside the file.
    inside = re.sub(r"^(\.\./)+", "", entry)
    last = "/".join(Path(entry).parts[-2:])
    tried = [root / base / entry, root / entry, root / inside, root / last]
    found = next((place for place in tried if place.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"data.yaml says {entry!r} (path {base!r}), which does not exist: looked for "
            f"{', '.join(str(place) for place in dict.fromkeys(tried))}. Correct 'path' in "
            "data.yaml, or give the folder as image_dir."
        )
    return found


def _first_folder(root: Path, split: str) -> str | None:
    names = _SPLIT_NAMES.get(split, (split,))
    places = [root / "images" / name for name in names]
    places += [root / name / "images" for name in names] + [root / name for name in names]
    # A folder of all images, where none of them is kept by splits.
    if not any(p.is_dir() for p in (root / "images").glob("*")):
        places.append(root / "images")
    return next((os.fspath(place) for place in places if place.is_dir()), None)


def _lines(path: str | os.PathLike) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _label_file(image: Path, root: Path) -> Path | None:
    """Return the label file of an image: `labels` for the last `images`, else beside it."""
    parts = list(image.parts)
    places = [image.with_suffix(".txt")]
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            swapped = [*parts[:position], "labels", *parts[position + 1 :]]
            places.insert(0, Path(*swapped).with_suffix(".txt"))
            break
    else:
        places.append(root / "labels" / f"{image.stem}.txt")
    return next((place for place in places if place.is_file()), None)


def _upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of the picture as it is shown; zeros if there is no image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION_TAG, 1) in SIDEWAYS
    except Exception:  # The conversion tells later why the file cannot be read.
        return 0, 0
    return (height, width) if turned else (width, height)


# --- label files -----------------------------------------------------------------------------


def _read_labels(file: Path, image: NamedImage, names: Sequence[str], report: Report) -> int:
    """Append the boxes of a label file to its image; return how many lines it has."""
    lines = _lines(file)
    for number, line in enumerate(lines, 1):
        where = f"{file.name} line {number}"
        values = [parse_number(text) for text in line.split()]
        reason = _fault(values)
        if reason:
            report.add("dropped boxes", reason, where)
            continue
        index = int(values[0])
        if index >= len(names):
            raise ValueError(
                f"{file} line {number} has class {index}, but the {len(names)} names are classes "
                f"0..{len(names) - 1}. Label files count from 0: do these count from 1, or is "
                "a name missing in the list?"
            )
        if len(values) > 5:
            report.add("notes", "a polygon: replaced by the box around it", where)
        image.boxes.append(NamedBox(_corners(values[1:], image), names[index], where))
    return len(lines)


def _fault(values: Sequence[float | None]) -> str:
    """Return why the numbers of a line are not a box, '' if they are."""
    if None in values:
        return "not numbers"
    if len(values) == 6:
        return "six numbers: a file of predictions, with scores"
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        return "not five numbers: class x_center y_center width height"
    if values[0] < 0 or values[0] != int(values[0]):
        return "the class is not a whole number, 0 or above"
    if max(abs(value) for value in values[1:]) > 1 + 10 * _ROUNDING:
        return "not fractions 0..1 of the image: are they pixels?"
    return ""


def _corners(values: Sequence[float], image: NamedImage) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, width, height = values
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    else:
        xs, ys = values[0::2], values[1::2]
        box = [min(xs), min(ys), max(xs), max(ys)]
    # Six digits round: what passes the border by less is no fault of the box.
    box = [min(max(v, 0.0), 1.0) if -_ROUNDING < v < 1 + _ROUNDING else v for v in box]
    scale = (image.width, image.height, image.width, image.height)
    return tuple(round(value * side, 4) for value, side in zip(box, scale, strict=True))
