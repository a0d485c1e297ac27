"""Reader of YOLO folders: a text file of boxes beside each image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_centernet.data.orientation import shown_size
from ssd_centernet.data.readers.data_yaml import read_data_yaml, read_obj_data
from ssd_centernet.data.readers.image_folder import (
    IMAGE_SUFFIXES,
    ImageFolder,
    find_folder,
    read_list,
)
from ssd_centernet.data.readers.label_files import LabelFiles
from ssd_centernet.data.readers.source import AnnotationSource, NamedImage, to_content, told
from ssd_centernet.data.readers.yolo_lines import YoloLines
from ssd_centernet.data.validate import Report
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap

NAME_FILES = ("classes.txt", "obj.names", "names.txt", "_darknet.labels")
_SPLITS = ("train", "val", "valid", "validation", "test")
_SPLIT_NAMES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}


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
    1. A polygon or an oriented box becomes the box around it, and of a box with points the points
    are left out; see `yolo_lines` for how they are told apart. Boxes refer to the picture as it is
    shown, turned by its EXIF orientation.

    Args:
        path: `data.yaml`, darknet's `obj.data`, or a folder with one of them, or with `images/` and
            `labels/`, or with `obj_train_data/`.
        split: name of the split.
        image_dir: folder of the images; None finds it by `path` and `split`.
        image_list: text file with one image per line; None takes all images of the folder.
        label_map: gives the ids of the names; without a list of names, its classes are the classes
            0..C-1.
        drop_unknown: leave out boxes whose name the label map does not have.

    Raises:
        FileNotFoundError: no images of the split.
        ValueError: there are no class names, no image has a label file, lines have another form or
            more than one meaning, or see `to_content`.
    """
    path = Path(path)
    root = path if path.is_dir() else path.parent
    settings = _settings(path)
    report = Report()
    names = _names(root, settings, label_map, settings.get("file", path), report)
    place = _locate(root, settings, split, image_dir, image_list, report)
    folder = ImageFolder(place.path, report, place.folders)
    files = list(dict.fromkeys(_chosen(folder, place)))
    labels = LabelFiles(folder, root, report)
    lines = YoloLines(names, report, points=settings.get("kpt_shape"), task=settings.get("task"))
    images = []
    for name in files:
        image = NamedImage(name, *shown_size(os.path.join(folder.path, name)))
        label_file = labels.find(name)
        if label_file is not None and image.width:
            lines.add(label_file, image)
        images.append(image)
    labels.note_strays(NAME_FILES)
    source = f"the YOLO labels of {os.fspath(path)}"
    if files and not labels.found:
        tried = ", ".join(labels.places(files[0]))
        raise ValueError(
            f"none of the {len(files)} pictures of {folder.path} has a label file: looked for "
            f"{tried} and the like. Put the label files there, one for each picture that has "
            "objects."
        )
    lines.place_boxes()
    if lines.count and not any(image.boxes for image in images):
        raise ValueError(
            f"no line of {source} is a box: {told(report, 'dropped boxes')}. Expected "
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


# --- classes --------------------------------------------------------------------------------


def _settings(path: Path) -> dict:
    if path.is_file():
        read = read_obj_data if path.suffix.lower() == ".data" else read_data_yaml
        return {**read(path), "file": path}
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    found = [file for file in found if not file.name.startswith(".")]
    named = [file for file in found if file.stem in ("data", "dataset")] or found
    if len(named) > 1:
        raise ValueError(
            f"{path} has several yaml files: {', '.join(f.name for f in named)}. Give the path of "
            "the file that describes the data."
        )
    if not named and (path / "obj.data").is_file():
        named = [path / "obj.data"]
    return _settings(named[0]) if named else {}


def _names(
    root: Path, settings: dict, label_map: LabelMap | None, path: Path, report: Report
) -> list[str]:
    names, file = settings.get("names"), None
    places = [*(root / n for n in NAME_FILES), *(root / "labels" / n for n in NAME_FILES)]
    places += [*root.glob("*.names"), *(root / "data").glob("*.names")]
    # labelImg writes the list beside the label files.
    places += sorted(root.glob("labels/*/classes.txt"))
    lists = [place for place in dict.fromkeys(places) if place.is_file()]
    if names and len(names) == 1 and names[0].lower().endswith((".names", ".txt")):
        # Darknet gives the path of a file with the names.
        file = _existing(root, "", names[0], Report())
    elif not names:
        file = next(iter(lists), None)
    if file is not None:
        names = _lines_of_names(file)
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
    if "" in names:
        raise ValueError(
            f"{file or path} gives class {names.index('')} an empty name. Write its name, or "
            "remove it if label files do not count it."
        )
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        numbers = [str(i) for i, name in enumerate(names) if name == twice]
        raise ValueError(
            f"{file or path} names the classes {' and '.join(numbers)} both {twice!r}. Give each "
            "class its own name."
        )
    _compare_lists(names, lists, file, report)
    return names


def _compare_lists(names: list[str], lists: list[Path], used: Path | None, report: Report) -> None:
    """Note lists of names that number the classes in another way than the one that is used.

    Raises:
        ValueError: nothing but two such lists says how the classes are numbered.
    """
    for other in lists:
        if other == used:
            continue
        theirs = [line.strip() for line in read_text(other).rstrip().splitlines()]
        if all(one == two for one, two in zip(names, theirs, strict=False)):
            continue
        if used in lists:
            raise ValueError(
                f"{used} and {other} number the classes in different ways: "
                f"{', '.join(names[:5])} and {', '.join(theirs[:5])}. Remove the one that is "
                "wrong, or write names into data.yaml."
            )
        item = f"{other}: {', '.join(theirs[:5])}"
        report.add("notes", "another list of class names, in another order: not used", item)


def _lines_of_names(file: Path) -> list[str]:
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    if "" in names:
        raise ValueError(
            f"{file} line {names.index('') + 1} is empty, so the numbers of the classes after it "
            "are not clear. Expected one name per line from class 0 on; remove the line, or name "
            "its class."
        )
    return names


# --- where files are ------------------------------------------------------------------------


@dataclass
class _Place:
    """Where the images of a split are: all of some folders below a path, and a list of names."""

    path: str
    folders: Sequence[str] = ("",)
    taken: Sequence[str] = ("",)
    names: Sequence[str] = ()


def _chosen(folder: ImageFolder, place: _Place) -> Iterable[str]:
    for taken in place.taken:
        head = os.path.join(taken, "") if taken else ""
        yield from (name for name in folder.files if name.startswith(head))
    yield from folder.match(place.names).values()


def _locate(
    root: Path, settings: dict, split: str, image_dir, image_list, report: Report
) -> _Place:
    if image_list is not None:
        folder = os.fspath(image_dir or _first_folder(root, split) or root)
        return _Place(folder, taken=(), names=read_list(image_list))
    if image_dir is not None:
        return _Place(os.fspath(image_dir))
    splits = _SPLIT_NAMES.get(split, (split,))
    value = next((settings[name] for name in splits if settings.get(name)), None)
    if value is None:
        described = [name for name in _SPLITS if settings.get(name)]
        folder = _first_folder(root, split, flat=not described)
        if folder is None:
            has = f"data.yaml has {', '.join(described)}; " if described else ""
            raise FileNotFoundError(
                f"no images of split {split!r} below {root}: {has}looked for {split} in data.yaml, "
                f"images/{split}, {split}/images, {split}, obj_{split}_data and images. Give the "
                "folder as image_dir."
            )
        if described:
            reason = f"data.yaml has no {split}: the folder of this name beside it is taken"
            report.add("notes", reason, folder)
        return _Place(folder)
    entries = [value] if isinstance(value, str) else value
    base = settings.get("path", "")
    found = [_existing(root, base, entry, report) for entry in entries]
    if base and not (root / os.path.expanduser(base.replace("\\", "/"))).is_dir():
        reason = "path of data.yaml does not exist: what lies beside data.yaml is taken"
        report.add("notes", reason, base)
    if len(found) == 1 and found[0].is_dir():
        return _Place(os.fspath(found[0]))
    folders = [os.path.abspath(entry) for entry in found if entry.is_dir()]
    names = [name for entry in found if not entry.is_dir() for name in read_list(entry)]
    outside = {os.path.dirname(name) for name in names if os.path.isabs(name)}
    top = os.path.abspath(root)
    places = [*folders, *(place for place in sorted(outside) if os.path.isdir(place))]
    if all(os.path.commonpath([top, place]) == top for place in places):
        return _Place(top, ("",), [os.path.relpath(f, top) for f in folders], names)
    common = os.path.commonpath([top, *places])
    relative = [os.path.relpath(place, common) for place in dict.fromkeys([*places, top])]
    return _Place(common, relative, [os.path.relpath(f, common) for f in folders], names)


def _existing(root: Path, base: str, entry: str, report: Report) -> Path:
    """Return the folder of a path in data.yaml, relative to its `path` or to the file itself."""
    entry, base = (os.path.expanduser(text.replace("\\", "/")) for text in (entry, base))
    # '../train/images' is what some exports write of a folder beside the file.
    inside = re.sub(r"^(\.\./)+", "", entry)
    parts = Path(inside).parts
    ends = ["/".join(parts[-count:]) for count in range(len(parts) - 1, 0, -1)]
    ends = [end for end in ends if end not in ("images", "labels")]
    sure = [root / base / entry, root / entry, root / inside]
    tried = list(dict.fromkeys([*sure, *(root / end for end in ends)]))
    found = next((place for place in tried if place.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"data.yaml says {entry!r} (path {base!r}), which does not exist: looked for "
            f"{', '.join(str(place) for place in tried)}. Correct 'path' in "
            "data.yaml, or give the folder as image_dir."
        )
    if found not in sure:
        report.add("notes", "path of a list or folder found by its last parts", entry)
    return found


def _first_folder(root: Path, split: str, *, flat: bool = True) -> str | None:
    names = _SPLIT_NAMES.get(split, (split,))
    places = [f"images/{name}" for name in names]
    places += [f"{name}/images" for name in names] + list(names)
    places += [f"obj_{name}_data" for name in names]
    # A folder of all images, where none of them is kept by splits.
    images = find_folder(root, "images")
    if flat and images is not None and not any(p.is_dir() for p in images.glob("*")):
        places.append("images")
    found = (find_folder(root, place) for place in places)
    folder = next((place for place in found if place is not None), None)
    if folder is None and flat and images is None and root.is_dir():
        # Pictures and label files beside data.yaml or classes.txt, as labelling tools leave them.
        here = any(p.suffix.lower() in IMAGE_SUFFIXES for p in root.iterdir())
        folder = root if here else None
    return None if folder is None else os.fspath(folder)
