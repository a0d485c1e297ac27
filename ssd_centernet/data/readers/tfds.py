"""Reader of TensorFlow Datasets (TFDS): a prepared builder on disk, images in its own records.

This is the only module that imports tensorflow_datasets, and only when such data are read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from PIL import Image

from ssd_centernet.data.readers.source import (
    AnnotationSource,
    EncodedImages,
    NamedBox,
    NamedImage,
    to_content,
)
from ssd_centernet.data.validate import Report
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap

INFO_NAME = "dataset_info.json"
FEATURES_NAME = "features.json"
# Below the folder that is given: NAME/VERSION and NAME/CONFIG/VERSION.
_DEEPEST = 3
_CROWD = ("is_crowd", "iscrowd", "is_group_of")
_DIFFICULT = ("is_difficult", "difficult")
_FILE_NAMES = ("image/filename", "filename", "file_name")
_IDS = ("image/id", "image_id", "id")
# What users call a split -> what most builders call it.
_SPLITS = {"val": "validation", "valid": "validation"}


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Hold which feature of a builder has which meaning; None for one that it does not have."""

    image: str
    objects: str
    box: str
    label: str
    box_format: str
    names: tuple[str, ...]
    area: str | None
    crowd: str | None
    difficult: str | None
    file_name: str | None
    image_id: str | None


def find_builders(path: str | os.PathLike) -> list[Path]:
    """Find prepared builders in a folder.

    Args:
        path: a builder's own folder (`NAME/VERSION`), or one up to three levels above.

    Returns:
        The folders that hold a `dataset_info.json`: the path itself, or all below it.
    """
    root = Path(path)
    if (root / INFO_NAME).is_file():
        return [root]
    found: list[Path] = []
    for depth in range(1, _DEEPEST + 1):
        found += [info.parent for info in sorted(root.glob("/".join([*"*" * depth, INFO_NAME])))]
    return found


def read_tfds(
    path: str | os.PathLike,
    *,
    split: str,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
) -> AnnotationSource:
    """Read a split of a TFDS builder that was prepared on disk.

    It must have an image feature and a sequence of objects with a bounding box and a class label,
    as `coco` and `voc` have. Classes are those of the label feature, in its order, so that the
    splits agree. Objects marked `is_crowd` or `is_difficult` become crowd regions.

    Args:
        path: folder of the builder, `NAME/VERSION`, or a folder above it without other builders.
        split: its name; 'val' finds 'validation' if the builder calls it so.
        label_map: gives the ids of the class names; None numbers them from 1.
        drop_unknown: leave out boxes whose name the label map does not have.

    Raises:
        FileNotFoundError: no builder, or no such split.
        ImportError: tensorflow_datasets cannot be imported.
        ValueError: there are several builders, the builder lacks a feature that is needed, or it
            names a feature class that is not of tensorflow_datasets.
    """
    tfds = _import_tfds()
    folder = _only_builder(path)
    _check_feature_classes(tfds, folder)
    builder = tfds.builder_from_directory(os.fspath(folder))
    split = _known_split(builder, split, folder)
    fields = _find_fields(tfds, builder.info.features, folder)
    report, images, stats = Report(), [], {}
    source = f"the TFDS builder {os.fspath(folder)}"
    wanted = {name for name in (fields.image, fields.file_name, fields.image_id) if name}
    for number, example in enumerate(_examples(tfds, builder, split, fields, wanted), 1):
        data = example[fields.image]
        image = _read_image(example, number, data, fields, report)
        if image.file_name in stats:
            image.file_name = f"{number:08d}_{image.file_name}"
        stats[image.file_name] = (len(data), zlib.crc32(data))
        images.append(image)
    _number_where_ids_repeat(images)
    content = to_content(
        images,
        fields.names,
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )

    def read() -> Iterator[tuple[str, bytes]]:
        again = _examples(tfds, builder, split, fields, {fields.image}, objects=False)
        for image, example in zip(images, again, strict=True):
            yield image.file_name, example[fields.image]

    return AnnotationSource(
        source, os.fspath(folder), content, report, encoded=EncodedImages(stats, read)
    )


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            f"TFDS data is read with tensorflow_datasets, which cannot be imported ({error}). "
            "Install it: pip install tensorflow-datasets"
        ) from error
    return tensorflow_datasets


def _only_builder(path: str | os.PathLike) -> Path:
    if not Path(path).is_dir():
        raise FileNotFoundError(f"The TFDS folder {os.fspath(path)} does not exist.")
    found = find_builders(path)
    if not found:
        raise FileNotFoundError(
            f"no TFDS builder in {os.fspath(path)}: there is no {INFO_NAME} in it or up to "
            f"{_DEEPEST} levels below. Give the folder NAME/VERSION that `tfds build` or "
            "tfds.load() prepared, below ~/tensorflow_datasets by default."
        )
    if len(found) > 1:
        listed = ", ".join(os.fspath(one) for one in found[:6])
        raise ValueError(
            f"{os.fspath(path)} holds {len(found)} TFDS builders, expected one: {listed}"
            f"{', ...' if len(found) > 6 else ''}. Give one of these."
        )
    return found[0]


def _check_feature_classes(tfds: Any, folder: Path) -> None:
    """Refuse classes of features that are not TFDS' own: it would import any module they name."""
    path = folder / FEATURES_NAME
    if not path.is_file():
        return  # A builder of an older version, which TFDS refuses itself.
    known = {
        f"{kind.__module__}.{kind.__name__}"
        for kind in vars(tfds.features).values()
        if isinstance(kind, type) and issubclass(kind, tfds.features.FeatureConnector)
    }
    try:
        named = list(_named_classes(json.loads(read_text(path))))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Prepare the builder again.") from error
    foreign = [name for name in dict.fromkeys(named) if name not in known]
    if foreign:
        raise ValueError(
            f"{path} names classes that are not of tensorflow_datasets: "
            f"{', '.join(f'{name!r:.80}' for name in foreign[:4])}. TFDS would import their "
            "modules, and so run their code. Write the data with features of tensorflow_datasets, "
            "or export them in another format that `ssd_centernet convert` reads."
        )


def _named_classes(content: Any) -> Iterator[str]:
    """Yield the names of classes in a description of features, however it is nested."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            # Both spellings that protocol buffers read, and that of older versions.
            names = [value.get("pythonClassName"), value.get("python_class_name")]
            names.append(value.get("type") if "content" in value else None)
            yield from (name for name in names if isinstance(name, str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            # The content of a feature may be JSON in a text, which TFDS takes apart as well.
            with contextlib.suppress(ValueError):
                waiting.append(json.loads(value))


def _known_split(builder: Any, split: str, folder: Path) -> str:
    known = list(builder.info.splits)
    for name in (split, _SPLITS.get(split)):
        if name in known:
            return name
    raise FileNotFoundError(
        f"the TFDS builder {os.fspath(folder)} has no split {split!r}: it has {', '.join(known)}. "
        "Set the split to one of these."
    )


def _find_fields(tfds: Any, features: Mapping[str, Any], folder: Path) -> _Fields:
    """Choose the features by their type, and by their usual name if several have the type."""
    kinds = tfds.features

    def fail(what: str) -> ValueError:
        return ValueError(
            f"the TFDS builder {os.fspath(folder)} has {what}. Expected an image, and objects with "
            f"a bbox and a label each, as coco and voc have. Its features: {_told(features)}."
        )

    def choose(within: Mapping[str, Any], kind: Any, usual: str) -> str | None:
        found = [name for name, feature in within.items() if isinstance(feature, kind)]
        return usual if usual in found else found[0] if len(found) == 1 else None

    image = choose(features, kinds.Image, "image")
    if image is None:
        raise fail("no image feature, or several without the usual name")
    sequences = {}
    for name, feature in features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(feature, kinds.Sequence) and isinstance(inner, kinds.FeaturesDict):
            box, label = choose(inner, kinds.BBoxFeature, "bbox"), None
            if box is not None:
                label = choose(inner, kinds.ClassLabel, "label")
            if label is not None:
                sequences[name] = (inner, box, label)
    if not sequences:
        raise fail("no sequence of objects with a bounding box and a class label")
    objects = "objects" if "objects" in sequences else next(iter(sequences))
    if objects != "objects" and len(sequences) > 1:
        raise fail(f"several sequences of objects ({', '.join(sequences)})")
    inner, box, label = sequences[objects]
    bbox_format = getattr(inner[box], "bbox_format", "REL_YXYX")
    bbox_format = str(getattr(bbox_format, "value", bbox_format))
    if bbox_format not in _CORNERS:
        raise fail(f"boxes of the format {bbox_format}")

    def first(within: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in within), None)

    return _Fields(
        image=image,
        objects=objects,
        box=box,
        label=label,
        box_format=bbox_format,
        names=tuple(inner[label].names),
        area=first(inner, ("area",)),
        crowd=first(inner, _CROWD),
        difficult=first(inner, _DIFFICULT),
        file_name=first(features, _FILE_NAMES),
        image_id=first(features, _IDS),
    )


def _told(features: Mapping[str, Any]) -> str:
    parts = []
    for name, feature in sorted(features.items()):  # A builder keeps them in no order.
        inner = getattr(feature, "feature", None)
        within = f" of {', '.join(inner)}" if isinstance(inner, Mapping) else ""
        parts.append(f"{name} ({type(feature).__name__}{within})")
    return "; ".join(parts)


def _examples(
    tfds: Any, builder: Any, split: str, fields: _Fields, wanted: set[str], *, objects: bool = True
) -> Iterator[dict]:
    """Yield the examples in the order of the files, images as encoded bytes."""
    parts: dict[str, Any] = dict.fromkeys(wanted, True)
    if objects:
        inner = (fields.box, fields.label, fields.area, fields.crowd, fields.difficult)
        parts[fields.objects] = {name: True for name in inner if name}
    decoders = tfds.decode.PartialDecoding(
        parts, decoders={fields.image: tfds.decode.SkipDecoding()}
    )
    # One file after the other: the second reading must give the order of the first.
    order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    with _without_warnings():
        dataset = builder.as_dataset(
            split=split, shuffle_files=False, decoders=decoders, read_config=order
        )
    return dataset.as_numpy_iterator()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide warnings of tensorflow_datasets about its own code, which no user can change."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _read_image(
    example: dict, number: int, data: bytes, fields: _Fields, report: Report
) -> NamedImage:
    """Make the annotations of an example; its size is read from the header of its image."""
    width, height = _size(data)
    is_png = data.startswith(b"\x89PNG")
    name = f"{number:08d}.{'png' if is_png else 'jpg'}"
    if fields.file_name and example[fields.file_name]:
        written = example[fields.file_name].decode("utf-8", "replace")
        name = written.replace("\\", "/").rpartition("/")[2] or name
    image = NamedImage(name, width, height)
    if fields.image_id:
        image.image_id = _as_number(example[fields.image_id])
    if not width:  # Of what is no image a fraction is nothing; it will be dropped with its reason.
        return image
    told = example[fields.objects]
    for place, (box, label) in enumerate(
        zip(told[fields.box].tolist(), told[fields.label].tolist(), strict=True)
    ):
        where = f"object {place + 1} of {name}"
        if not 0 <= label < len(fields.names):
            report.add("dropped boxes", "no class", where)
            continue
        difficult = bool(fields.difficult and told[fields.difficult][place])
        if difficult:
            report.add("notes", "difficult: kept as a crowd region", where)
        crowd = difficult or bool(fields.crowd and told[fields.crowd][place])
        corners = _CORNERS[fields.box_format](box, width, height)
        area = float(told[fields.area][place]) if fields.area else None
        image.boxes.append(NamedBox(corners, fields.names[label], where, crowd, area))
    return image


def _size(data: bytes) -> tuple[int, int]:
    """Return width and height of an encoded image, zeros if it is not an image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception:  # Pillow's plug-ins raise many kinds of errors on bad files.
        return 0, 0


def _as_number(value: Any) -> int | None:
    try:
        return int(value)
    except ValueError:  # Text: images are numbered.
        return None


def _number_where_ids_repeat(images: list[NamedImage]) -> None:
    ids = {image.image_id for image in images}
    if len(ids) < len(images) or None in ids or min(ids) < 0:
        for image in images:
            image.image_id = None


# Format of a box -> left, top, right, bottom in pixels.
_CORNERS = {
    "REL_YXYX": lambda b, w, h: (b[1] * w, b[0] * h, b[3] * w, b[2] * h),
    "REL_XYXY": lambda b, w, h: (b[0] * w, b[1] * h, b[2] * w, b[3] * h),
    "YXYX": lambda b, w, h: (b[1], b[0], b[3], b[2]),
    "XYXY": lambda b, w, h: (b[0], b[1], b[2], b[3]),
    "XYWH": lambda b, w, h: (b[0], b[1], b[0] + b[2], b[1] + b[3]),
}
