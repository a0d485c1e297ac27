"""Readers of annotations, turned into COCO's form: COCO, VOC, YOLO, CSV, TFDS, tools' exports."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ssd_centernet.data.readers.csv_table import read_csv
from ssd_centernet.data.readers.exports import read_export
from ssd_centernet.data.readers.image_folder import IMAGE_SUFFIXES, find_folder
from ssd_centernet.data.readers.json_file import describe, load_json
from ssd_centernet.data.readers.open_images import is_open_images, read_open_images
from ssd_centernet.data.readers.source import AnnotationSource
from ssd_centernet.data.readers.tfds import find_builders, read_tfds
from ssd_centernet.data.readers.voc import read_voc
from ssd_centernet.data.readers.yolo import read_yolo
from ssd_centernet.files import check_is_file
from ssd_centernet.labels import LabelMap
from ssd_centernet.memory import without_collector

_EXPORTS = ("cvat", "labelstudio", "vott")
FORMATS = ("coco", "voc", "yolo", "csv", "tfds", *_EXPORTS, "openimages")
_SUFFIXES = {".json": "coco", ".csv": "csv", ".tsv": "csv", ".yaml": "yolo", ".yml": "yolo"}
_SUFFIXES[".data"] = "yolo"
# How much of a json file is looked at: COCO's may be half a gigabyte.
_HEAD = 1 << 18


def detect_format(path: str | os.PathLike) -> str:
    """Detect the format of annotations.

    Args:
        path: a file, judged by its ending and its first part, or a folder, judged by its content.

    Returns:
        One of `FORMATS`.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: it is in none of the formats, or could be in several.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"The annotations {path} do not exist.")
    check_is_file(path)
    found = _formats_in(path) if path.is_dir() else [_format_of(path)]
    if len(found) == 1 and found[0] is not None:
        return found[0]
    kinds = " and ".join(found) if len(found) > 1 else "none"
    raise ValueError(
        f"{path} looks like {kinds} of the formats {', '.join(FORMATS)}. Expected a COCO json file "
        "for coco, a folder with XML files (or Annotations/*.xml) for voc, data.yaml or a folder "
        "with images/ and labels/ for yolo, a prepared builder for tfds, a .csv file, or an export "
        "of CVAT (annotations.xml, 'for images 1.1'), Label Studio or VoTT (.json). Give one of "
        f"these as annotations, or set annotation_format (--format).{_about_json(path)}"
    )


def _about_json(folder: Path) -> str:
    """Return what the json files of a folder of no known format look like; '' without any."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
    if not files:
        return ""
    try:
        content, _ = load_json(files[0])
    except ValueError:
        return ""
    is_coco = isinstance(content, dict) and "images" in content and "annotations" in content
    what = "It looks like COCO json: give the file." if is_coco else describe(content)
    return f" It holds json files, such as {files[0].relative_to(folder)}. {what}"


def _format_of(file: Path) -> str | None:
    kind = _SUFFIXES.get(file.suffix.lower())
    if kind == "csv" and is_open_images(file):
        return "openimages"
    if kind == "coco":
        head = _head(file)
        if head.startswith("["):
            return "labelstudio" if re.search(r'"original_width"|"data":\s*\{', head) else kind
        if re.search(r'"assets":\s*\{', head) and not re.search(r'"images":\s*\[', head):
            return "vott"
    if file.suffix.lower() == ".xml" and re.search(r"<annotations[\s>]", _head(file)):
        return "cvat"
    return kind


def _head(file: Path) -> str:
    """Return the beginning of a text file without blanks, in whatever of its encodings."""
    with open(file, "rb") as opened:
        data = opened.read(_HEAD)
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace").lstrip()


def _formats_in(folder: Path) -> list[str]:
    found = []
    if (folder / "annotations.xml").is_file() and _format_of(folder / "annotations.xml"):
        return ["cvat"]
    places = ("*.xml", "[Aa]nnotations/**/*.xml", "*/[Aa]nnotations/*.xml")
    if any(any(folder.glob(place)) for place in places):
        found.append("voc")
    places = ("labels", "train/labels", "valid/labels", "val/labels", "test/labels")
    named = ("*.yaml", "*.yml", "classes.txt", "obj.names", "obj.data", "obj_*_data")
    described = any(any(folder.glob(place)) for place in named)
    if described or any(find_folder(folder, place) for place in places):
        found.append("yolo")
    if not found and find_builders(folder):
        found.append("tfds")
    return found


def read_annotations(
    path: str | os.PathLike,
    *,
    annotation_format: str = "auto",
    split: str = "train",
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
    first_pixel: int | None = None,
) -> AnnotationSource | None:
    """Read annotations that are not COCO json.

    Args:
        path: of the annotations, see the reader of each format.
        annotation_format: one of `FORMATS`, or 'auto' to detect it from the path.
        split: name of the split to read.
        image_dir: folder of the images; None lets the reader find it.
        image_list: text file with one image per line: only these are read.
        label_map: gives the ids of the classes; None numbers them.
        drop_unknown: leave out boxes of classes outside the label map.
        first_pixel: number of the leftmost pixel, 0 or 1; None is 1 for voc and 0 for csv.

    Returns:
        The annotations, or None for COCO json, which `data.readers.coco` reads.

    Raises:
        ValueError: an option that the format does not have, or as for its reader.
    """
    if annotation_format not in ("auto", *FORMATS):
        raise ValueError(
            f"annotation_format must be auto or one of {', '.join(FORMATS)}, got "
            f"{annotation_format!r}."
        )
    if os.path.exists(path):
        check_is_file(path)
    kind = detect_format(path) if annotation_format == "auto" else annotation_format
    if first_pixel is not None and kind not in ("voc", "csv"):
        raise ValueError(
            f"first_pixel is {first_pixel}, but it is for voc and csv only: {kind} "
            "has a fixed first pixel. Leave it out."
        )
    if kind == "coco":
        if image_list is not None or image_dir is None:
            if image_list is not None:
                raise ValueError("COCO json has its own list of images: leave out image_list.")
            beside = os.path.dirname(os.fspath(path)) or "."
            at_hand = any(name.lower().endswith(IMAGE_SUFFIXES) for name in os.listdir(beside))
            raise ValueError(
                "COCO json does not say where its images are: give their image_dir"
                f"{f', such as {beside}, which holds images' if at_hand else ''}."
            )
        return None
    if kind == "tfds":
        if image_dir is not None or image_list is not None:
            raise ValueError(
                "a TFDS builder holds its own images and splits: leave out "
                "image_dir and image_list."
            )
        named = {"label_map": label_map, "drop_unknown": drop_unknown}
        return read_tfds(path, split=split.removeprefix("coco_"), **named)
    options = {"split": split.removeprefix("coco_"), "image_dir": image_dir}
    options |= {"image_list": image_list, "label_map": label_map, "drop_unknown": drop_unknown}
    if first_pixel is not None:
        options["first_pixel"] = first_pixel
    readers = {"voc": read_voc, "yolo": read_yolo, "csv": read_csv, "openimages": read_open_images}
    with without_collector():
        if kind in _EXPORTS:
            return read_export(path, kind, **options)
        return readers[kind](path, **options)
