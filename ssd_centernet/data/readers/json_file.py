"""Json files of annotations: read whole or refused, and what a file of another kind looks like."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ssd_centernet.files import read_bytes
from ssd_centernet.memory import without_collector

_SHOWN = 80
# Where other tools put the objects of a picture.
_OBJECT_LISTS = ("annotations", "annotation", "objects", "boxes", "bboxes", "labels", "regions")

# What a list or an object holds when it is not COCO instances: keys of its first entry (or of
# itself), what has them, and what to do.
_LISTS = (
    (("image_id", "caption"), "captions of pictures, which have no boxes", ""),
    (
        ("image_id", "keypoints"),
        "found keypoints in COCO's result format",
        "Annotations with boxes are in a file such as instances_*.json or person_keypoints_*.json",
    ),
    (
        ("image_id", "category_id", "score"),
        "detections in COCO's result format",
        "It is scored with evaluate --detections; for training take the annotations themselves",
    ),
    (
        ("data", "annotations"),
        "a Label Studio export",
        "Read it with `ssd_centernet convert --format=labelstudio`",
    ),
    (
        ("data", "completions"),
        "a Label Studio export",
        "Read it with `ssd_centernet convert --format=labelstudio`",
    ),
    (
        ("image", "annotations"),
        "a CreateML file",
        "Its x and y are centres; export COCO, Pascal VOC or YOLO from the labelling tool instead",
    ),
    (
        ("name", "labels"),
        "a BDD100K or Scalabel file",
        "Convert it to COCO first (scalabel's to_coco), or write a CSV table",
    ),
    (
        ("External ID", "Label"),
        "a Labelbox export",
        "Export COCO or Pascal VOC instead, or write a CSV table",
    ),
)
_OBJECTS = (
    (
        ("shapes", "imagePath"),
        "a labelme file of one picture",
        "Convert the folder with labelme's own labelme2voc.py or labelme2coco.py, or write a CSV "
        "table",
    ),
    (("assets", "tags"), "a VoTT export", "Read it with `ssd_centernet convert --format=vott`"),
    (("frames", "inputTags"), "an export of VoTT 1", "Export it as Pascal VOC instead"),
    (
        ("_via_img_metadata",),
        "a project of the VGG Image Annotator",
        "Export it in COCO's format (Annotation > Export annotations (COCO format))",
    ),
    (
        ("item", "annotations"),
        "a Darwin (V7) file of one picture",
        "Export COCO or Pascal VOC instead",
    ),
    (("objects", "size"), "a Supervisely file of one picture", "Export COCO or YOLO instead"),
    (("type", "features"), "GeoJSON", "Boxes in pixels are needed: write a CSV table"),
)


def load_json(path: str | os.PathLike, what: str = "COCO annotations") -> tuple[Any, str]:
    """Read a json file; a byte order mark is left out, UTF-16 is read too.

    Args:
        path: the file.
        what: what it should hold, for messages.

    Returns:
        The content, and the SHA-256 of the file's bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not json, or an object gives one key two values: only the last would
            count, and a whole list of annotations could vanish.
    """
    name = os.fspath(path)
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        raise ValueError(
            f"{name} is not valid JSON but gzip data (it cannot be read as utf-8). Unpack it first."
        )
    try:
        with without_collector():
            content = json.loads(data, object_pairs_hook=_object)
    except _TwoValues as error:
        raise ValueError(f"{name}: {error}") from error
    except RecursionError as error:
        raise ValueError(
            f"{name} is not valid JSON for this reader: lists or objects are nested too deep. "
            f"Expected {what}; is this the right file?"
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not valid JSON (not {error.encoding} text: byte {error.start}, in line "
            f"{line}). Expected {what}; save it again with the encoding UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        likely = "is it cut off, or a file of another kind"
        if error.msg == "Extra data":
            likely = "were two files joined, or is each line a text of its own"
        raise ValueError(
            f"{name} is not valid JSON ({error}). Expected {what}: {likely}?"
        ) from error
    except ValueError as error:  # Such as a number of too many digits.
        raise ValueError(
            f"{name} is not valid JSON ({error}). Expected {what}: is it cut off, or a file of "
            "another kind?"
        ) from error
    return content, hashlib.sha256(data).hexdigest()


class _TwoValues(ValueError):
    """One key of an object has two values."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    for key, value in pairs:
        if found[key] != value:
            place = f" with the id {shown(found['id'])}" if key != "id" and "id" in found else ""
            raise _TwoValues(
                f"the key {key!r} stands twice in one object{place}, with two values. Json readers "
                "keep the last one only; were two files joined? Join the two values into one."
            )
    return found


def shown(value: object) -> str:
    """Return a value as it stands in the json file, cut short; 'nothing' for a missing one."""
    if value is None:
        return "nothing"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def instances(content: object, origin: str) -> dict[str, list]:
    """Return the lists of a COCO instances file.

    Args:
        content: the content of a json file.
        origin: name of the file in messages.

    Returns:
        `images`, `annotations` and `categories`. A file of images alone (`image_info_*.json`) has
        no `annotations`: the key is then missing.

    Raises:
        ValueError: it is a file of another kind; the message says of which and what to do.
    """
    keys = ("images", "categories")
    missing = [key for key in keys if not isinstance(content, Mapping) or key not in content]
    if not missing:
        lists = {key: content[key] for key in (*keys, "annotations") if key in content}
        wrong = [key for key, value in lists.items() if not isinstance(value, (list, tuple))]
        if not wrong and "segments_info" not in _first(lists.get("annotations")):
            if "annotations" not in lists:
                _check_no_objects(content, origin)
            return lists
        if wrong:
            raise ValueError(
                f"{origin} is not a COCO instances file: {wrong[0]!r} is "
                f"{shown(lists[wrong[0]])}, expected a list."
            )
    if isinstance(content, Mapping):
        got = f"an object with the keys {', '.join(sorted(map(str, content))) or '(none)'}"
    elif isinstance(content, list):
        got = f"a list of {len(content)} entries (a list is a detections file)"
    else:
        got = shown(content)
    lacking = f"; missing: {', '.join(missing)}" if missing else ""
    raise ValueError(
        f"{origin} is not a COCO instances file: got {got[:300]}, expected an object with the "
        f"lists 'images', 'categories' and 'annotations'{lacking}. {describe(content)}"
    )


def _check_no_objects(content: Mapping, origin: str) -> None:
    """Refuse a file without 'annotations' that has objects in another place."""
    for key, value in content.items():
        first = _first(value)
        if key == "images":
            place = next((k for k in _OBJECT_LISTS if isinstance(first.get(k), list)), None)
            place = place and f"images have a list {place!r} each"
        else:
            has_objects = "bbox" in first or "image_id" in first or "segmentation" in first
            place = f"list {key!r} looks like them" if has_objects else None
        if place:
            raise ValueError(
                f"{origin} is not a COCO instances file: it has no 'annotations', but its {place}. "
                "Write all objects into one list 'annotations', each with its image_id."
            )


def describe(content: object) -> str:
    """Return sentences that say what kind of file this looks like and what to do with it."""
    advice = "Give a file such as instances_*.json."
    if isinstance(content, Mapping):
        first = _first(content.get("annotations"))
        if "segments_info" in first:
            return (
                "It looks like COCO panoptic annotations, whose boxes are in instances_*.json. "
                f"{advice}"
            )
        if "caption" in first:
            return f"It looks like captions of pictures, which have no boxes. {advice}"
        for keys, what, action in _OBJECTS:
            if all(key in content for key in keys):
                return f"It looks like {what}. {action or advice.rstrip('.')}."
        inner = next(iter(content.values()), None)
        if isinstance(inner, Mapping) and {"filename", "regions"} <= set(inner):
            return f"It looks like {_OBJECTS[3][1]}. {_OBJECTS[3][2]}."
        return advice
    first = _first(content)
    for keys, what, action in _LISTS:
        if all(key in first for key in keys):
            return f"It looks like {what}. {action or advice.rstrip('.')}."
    return advice


def _first(entries: object) -> Mapping:
    is_list = isinstance(entries, Sequence) and not isinstance(entries, str)
    first = next(iter(entries), None) if is_list else None
    return first if isinstance(first, Mapping) else {}
