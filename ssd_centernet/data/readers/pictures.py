"""Reader of a folder of pictures without annotations, as a test set has none."""

from __future__ import annotations

import os
from pathlib import Path

from ssd_centernet.data.readers.image_folder import ImageFolder, read_list
from ssd_centernet.data.readers.source import AnnotationSource
from ssd_centernet.data.validate import Report
from ssd_centernet.labels import LabelMap

# Files beside pictures that may be annotations, in a form that no reader knows.
_ANNOTATIONS = (".json", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".txt", ".tfrecord")
_LARGEST_ID = 2**53


def holds_only_pictures(path: str | os.PathLike) -> bool:
    """Tell whether a path is a folder with pictures, and with no file that may annotate them."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    files = ImageFolder(folder, Report()).files
    return bool(files) and not any(
        file.suffix.lower() in _ANNOTATIONS and not file.name.startswith(".")
        for file in folder.rglob("*")
    )


def read_pictures(
    path: str | os.PathLike,
    *,
    label_map: LabelMap | None,
    image_list: str | os.PathLike | None = None,
) -> AnnotationSource:
    """Read a folder of pictures as images without objects.

    An image id is the number that the file name is (000000000139.jpg), if all names are different
    numbers; else the images are numbered from 1.

    Args:
        path: the folder; its sub-folders are read too.
        label_map: the classes that detections on these pictures will have.
        image_list: text file with one image per line: only these are taken.

    Raises:
        ValueError: there is no label map, or the list names no picture of the folder.
    """
    if label_map is None:
        raise ValueError(
            f"{os.fspath(path)} holds pictures and no annotations. Give the annotations; or, for a "
            "test set that has none, the classes as label_map (--label_map)."
        )
    report = Report()
    folder = ImageFolder(path, report)
    names = list(folder.files)
    if image_list is not None:
        wanted = set(folder.match(read_list(image_list)).values())
        names = [name for name in names if name in wanted]
        if not names:
            raise ValueError(f"{os.fspath(image_list)} names no picture of {os.fspath(path)}.")
    report.add("notes", "pictures without annotations: records without objects", os.fspath(path))
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 0, "height": 0}
            for number, name in zip(_numbers(names), names, strict=True)
        ],
        "annotations": [],
        "categories": label_map.to_categories(),
    }
    return AnnotationSource(f"the folder {os.fspath(path)}", folder.path, content, report)


def _numbers(names: list[str]) -> list[int]:
    stems = [Path(name).stem for name in names]
    if all(stem.isascii() and stem.isdigit() and int(stem) <= _LARGEST_ID for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))
