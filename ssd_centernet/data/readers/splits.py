"""Whether annotations of a training hold a split to evaluate on as well."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ssd_centernet.data.readers import detect_format
from ssd_centernet.data.readers.data_yaml import read_data_yaml
from ssd_centernet.data.readers.tfds import INFO_NAME, find_builders

# How the split to evaluate on is called; the readers take these for each other.
_VALIDATION = ("val", "valid", "validation")


def holds_validation(path: str | os.PathLike) -> bool:
    """Tell whether annotations hold a split named val beside the one to train on.

    Args:
        path: of the annotations, see `read_annotations`.

    Returns:
        True for a `data.yaml` with `val`, a YOLO folder with images of `val`, a VOC folder with the
        list `ImageSets/Main/val.txt`, and a TFDS builder with the split. False for one file of
        annotations, COCO json or CSV.

    Raises:
        FileNotFoundError, ValueError: see `detect_format`; a data.yaml that cannot be read.
    """
    path, kind = Path(path), detect_format(path)
    if kind == "yolo":
        described = [path] if path.is_file() else [*path.glob("*.yaml"), *path.glob("*.yml")]
        if any(name in read_data_yaml(file) for file in described for name in _VALIDATION):
            return True
        root = path.parent if path.is_file() else path
        places = [place for n in _VALIDATION for place in (f"images/{n}", f"{n}/images", n)]
        return any((root / place).is_dir() for place in places)
    if kind == "voc":
        return (path / "ImageSets" / "Main" / "val.txt").is_file()
    if kind == "tfds":
        return any(_builder_has(builder) for builder in find_builders(path)[:1])
    return False


def _builder_has(builder: Path) -> bool:
    info = json.loads((builder / INFO_NAME).read_text(encoding="utf-8"))
    return any(split.get("name") in _VALIDATION for split in info.get("splits", ()))
