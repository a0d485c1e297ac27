"""Readers of labelling tools' own exports: CVAT for images, Label Studio and VoTT."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssd_centernet.data.readers.coco_files import find_files, local_path
from ssd_centernet.data.readers.image_folder import IMAGE_SUFFIXES, ImageFolder
from ssd_centernet.data.readers.json_file import describe, load_json, shown
from ssd_centernet.data.readers.masks import Box, box_around_turned, box_of_points
from ssd_centernet.data.readers.source import AnnotationSource, NamedBox, NamedImage, to_content
from ssd_centernet.data.readers.voc_xml import parse_xml
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_box, read_flag, read_number, read_whole
from ssd_centernet.files import read_text
from ssd_centernet.labels import LabelMap

TURNED = "turned box: the upright box around it is taken"
OUTLINE = "polygon, ellipse or mask: the box around it is taken"
_NO_NAME = "no class name"
_TURNED_VIEW = "picture was turned in Label Studio (image_rotation): its boxes are not clear"
# Where a tool's export has its pictures.
_IMAGE_FOLDERS = ("images", "vott-json-export")
_PICTURE_KEYS = ("image", "img", "picture", "photo", "url")


def read_export(
    path: str | os.PathLike,
    kind: str,
    *,
    split: str,
    image_dir: str | os.PathLike | None = None,
    image_list: str | os.PathLike | None = None,
    label_map: LabelMap | None = None,
    drop_unknown: bool = False,
) -> AnnotationSource:
    """Read the export of a labelling tool.

    Rectangles are objects; polygons, ellipses and turned rectangles become the upright box around
    them. Lines, points, cuboids, brush masks and video tracks are left out and counted.

    Args:
        path: the file, or for cvat the folder that holds annotations.xml.
        kind: 'cvat', 'labelstudio' or 'vott'.
        split: taken from the subsets of a CVAT project, if it has any.
        image_dir: folder of the images; None takes `images` beside the file, or the file's own.
        image_list: text file with one image per line: only these are taken.
        label_map: gives the ids of the names; None numbers them: in the order of the tool's list
            of labels for cvat and vott, in alphabetical order for labelstudio.
        drop_unknown: leave out boxes whose name the label map does not have.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: the file is of another kind, or see `to_content`.
    """
    path = Path(path)
    if kind == "cvat" and path.is_dir():
        path = path / "annotations.xml"
    report = Report()
    source = f"the {kind} export {os.fspath(path)}"
    read = {"cvat": _read_cvat, "labelstudio": _read_label_studio, "vott": _read_vott}[kind]
    images, names = read(path, split, report)
    places = [path.parent / name for name in _IMAGE_FOLDERS]
    folder = image_dir or next((place for place in places if place.is_dir()), path.parent)
    found = find_files([image.file_name for image in images], folder, report, source)
    for image, file in zip(images, found, strict=True):
        image.file_name = file
    if image_list is not None:
        finder = ImageFolder(folder, Report())
        lines = (line.strip() for line in read_text(image_list).splitlines())
        wanted = {finder.find(line) for line in lines if line}
        images = [image for image in images if image.file_name in wanted]
    content = to_content(
        images,
        names,
        label_map=label_map,
        drop_unknown=drop_unknown,
        report=report,
        source=source,
    )
    # Browsers, in which these tools draw, show pictures as their orientation says.
    upright = kind != "vott"
    return AnnotationSource(source, os.fspath(folder), content, report, upright=upright)


def _add(
    image: NamedImage, box: Box | None, names: Iterable[object], where: str, report: Report, **more
) -> None:
    """Append an object for each of its class names, or count why there is none."""
    names = [name.strip() for name in names if isinstance(name, str) and name.strip()]
    if box is None or not names:
        report.add("dropped boxes", _NO_NAME if box else "box is not four numbers", where)
        return
    x, y, width, height = box
    for name in names:
        image.boxes.append(NamedBox((x, y, x + width, y + height), name, where, **more))


def _objects(value: object, where: str) -> list[Mapping[str, Any]]:
    """Return a list of objects of a json file; nothing is an empty one."""
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
        raise ValueError(f"{where} is {shown(value)}, expected a list of objects.")
    return entries


def _side(value: object) -> int:
    number = read_whole(value)
    return number if number is not None and 0 < number < 2**31 else 0


# --- CVAT ------------------------------------------------------------------------------------


def _read_cvat(path: Path, split: str, report: Report) -> tuple[list[NamedImage], list[str]]:
    tree = parse_xml(path)
    entries, tracks = tree.findall("image"), tree.findall("track")
    if tree.tag != "annotations" or (not entries and not tracks):
        raise ValueError(
            f"{path} is no export 'CVAT for images 1.1': its root is <{tree.tag}>, expected "
            "<annotations> with <image> elements."
        )
    if not entries:
        raise ValueError(
            f"{path} holds {len(tracks)} tracks of a video and no pictures. Export the task as "
            "'CVAT for images 1.1', with its frames."
        )
    for track in tracks:
        item = f"track {track.get('id')} ({track.get('label')})"
        report.add("dropped boxes", "track of a video: not read", item)
    subsets = sorted({entry.get("subset", "") for entry in entries} - {"", "default"})
    if subsets:
        entries = [e for e in entries if e.get("subset", "").casefold() == split.casefold()]
        if not entries:
            raise ValueError(
                f"{path} has no subset {split!r}: its images are of {', '.join(subsets)}. Choose "
                "one of these as split."
            )
    # The list of labels is in the task, the project or the job; parts of skeletons are none.
    names = [(label.findtext("name") or "").strip() for label in tree.iterfind("meta//label")]
    images = []
    for entry in entries:
        name = (entry.get("name") or "").strip()
        if not name:
            raise ValueError(f"{path}: image {entry.get('id')} has no name.")
        image = NamedImage(name, _side(entry.get("width")), _side(entry.get("height")))
        for number, shape in enumerate(entry, 1):
            where = f"shape {number} of {name}"
            box = _cvat_box(shape, where, report)
            if box is not None:
                label = shape.get("label")
                names.append((label or "").strip())
                _add(image, box, [label], where, report, is_crowd=_cvat_crowd(shape))
        images.append(image)
    return images, [name for name in dict.fromkeys(names) if name]


def _cvat_box(shape: ElementTree.Element, where: str, report: Report) -> Box | None:
    """Return the box of a shape, or None and a counted reason."""
    keys = {"box": "xtl ytl xbr ybr", "ellipse": "cx cy rx ry", "mask": "left top width height"}
    if shape.tag == "tag":
        report.add("notes", "tag of a whole picture: not used", where)
        return None
    if shape.tag == "polygon":
        points = [
            [read_number(n) for n in p.split(",")] for p in shape.get("points", "").split(";")
        ]
        if len(points) > 2 and all(len(p) == 2 and None not in p for p in points):
            report.add("repaired boxes", OUTLINE, where)
            return box_of_points(points)
        report.add("dropped boxes", "points are not pairs of numbers", where)
        return None
    if shape.tag not in keys:
        report.add("dropped boxes", f"{shape.tag}: it has no box", where)
        return None
    values = [read_number(shape.get(key)) for key in keys[shape.tag].split()]
    if None in values:
        report.add("dropped boxes", "corners are not four numbers", where)
        return None
    a, b, c, d = values
    box = (a, b, c - a, d - b)
    if shape.tag == "ellipse":
        box = (a - c, b - d, 2 * c, 2 * d)
    elif shape.tag == "mask":
        box = (a, b, c, d)
    if shape.tag != "box":
        report.add("repaired boxes", OUTLINE, where)
    degrees = read_number(shape.get("rotation"))
    if degrees:
        report.add("repaired boxes", TURNED, where)
        return box_around_turned(box, degrees, around="centre")
    return box


def _cvat_crowd(shape: ElementTree.Element) -> bool:
    names = {"is_crowd", "iscrowd", "crowd"}
    return any(
        (one.get("name") or "").lower() in names and read_flag(one.text or "") is True
        for one in shape.findall("attribute")
    )


# --- Label Studio ----------------------------------------------------------------------------


def _read_label_studio(
    path: Path, split: str, report: Report
) -> tuple[list[NamedImage], list[str]]:
    content, _ = load_json(path, "a Label Studio export")
    if not isinstance(content, list) or not all(isinstance(task, Mapping) for task in content):
        raise ValueError(
            f"{path} is no Label Studio export: expected a list of tasks, as its JSON and JSON-MIN "
            f"exports have it, got {shown(content)}. {describe(content)}"
        )
    images: list[NamedImage] = []
    for position, task in enumerate(content):
        own_id = task.get("id")
        place = f"task {own_id if isinstance(own_id, (int, str)) else f'no. {position}'}"
        results = _task_results(task, place, path, report)
        if results is None:
            continue
        image = NamedImage(_picture_of(task, place, path))
        _read_regions(image, results, f"{place} ({os.path.basename(image.file_name)})", report)
        images.append(image)
    names = sorted({box.name for image in images for box in image.boxes})
    return images, names


def _task_results(task: Mapping, place: str, path: Path, report: Report) -> list[Mapping] | None:
    """Return the results of the annotation of a task that counts, None if it has none."""
    given = task.get("annotations", task.get("completions"))
    if given is None:  # JSON-MIN: the results stand beside the picture.
        lists = [value for value in task.values() if isinstance(value, list)]
        found = [one for values in lists for one in values if isinstance(one, Mapping)]
        return [{"value": one, **one} for one in found if "original_width" in one]
    where = f"{path}: 'annotations' of {place}"
    kept = [one for one in _objects(given, where) if not one.get("was_cancelled")]
    if not kept:
        report.add("dropped images", "task was skipped or not annotated: left out", place)
        return None
    if len(kept) > 1:
        reason = "task with several annotations: the one marked as ground truth, or the first, used"
        report.add("notes", reason, f"{place}: {len(kept)}")
        kept.sort(key=lambda annotation: not annotation.get("ground_truth"))
    return _objects(kept[0].get("result"), f"{path}: 'result' of {place}")


def _picture_of(task: Mapping, place: str, path: Path) -> str:
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    pictures = {k: v for k, v in texts.items() if _ending(v) in IMAGE_SUFFIXES}
    for key in _PICTURE_KEYS:
        if key in (pictures or texts):
            return texts[key]
    if len(pictures) == 1:
        return next(iter(pictures.values()))
    raise ValueError(
        f"{path}: {place} has {len(pictures)} pictures in its data "
        f"({', '.join(texts) or 'empty'}), expected one: a path or address under the key 'image'."
    )


def _ending(name: str) -> str:
    return os.path.splitext(local_path(name).partition("?")[0])[1].lower()


def _read_regions(image: NamedImage, results: list[Mapping], place: str, report: Report) -> None:
    labels: dict[object, list] = {}
    for number, one in enumerate(results):
        found = _labels(one.get("value"))
        if found:
            labels.setdefault(str(one.get("id", number)), found)
    done = set()
    for number, one in enumerate(results):
        key, value = str(one.get("id", number)), one.get("value")
        where = f"region {key} of {place}"
        if not isinstance(value, Mapping) or not _marks_region(value):
            if not isinstance(value, Mapping) or not _labels(value):
                report.add("notes", "result that marks no region: not used", where)
                continue
        if key in done:  # The same region once more, with its class or a text.
            continue
        done.add(key)
        size = [_side(one.get(side)) for side in ("original_width", "original_height")]
        if not all(size):
            report.add("dropped boxes", "no original_width and original_height", where)
            continue
        image.width, image.height = size
        if read_number(one.get("image_rotation") or 0) != 0:
            report.add("dropped boxes", _TURNED_VIEW, f"{where}: {one.get('image_rotation')}")
            continue
        box, reason = _label_studio_box(value, size)
        if box is None:
            report.add("dropped boxes", reason, where)
            continue
        if reason:
            report.add("repaired boxes", reason, where)
        _add(image, box, labels.get(key, ()), where, report)


def _labels(value: object) -> list | None:
    if not isinstance(value, Mapping):
        return None
    for key, found in value.items():
        if key.endswith("labels") and isinstance(found, list) and found:
            return found
    return None


def _marks_region(value: Mapping) -> bool:
    return any(key in value for key in ("x", "points", "rle", "vertices"))


def _label_studio_box(value: Mapping, size: list[int]) -> tuple[Box | None, str]:
    """Return the box of a region in pixels, and what was changed or why there is none."""
    width, height = (side / 100 for side in size)  # Regions are in per cent of the picture.
    degrees = read_number(value.get("rotation") or 0)
    if "rle" in value:
        return None, "brush mask: not read"
    points = value.get("points")
    if points is not None:
        pairs = [[read_number(n) for n in p] for p in points if isinstance(p, (list, tuple))]
        if len(pairs) < 3 or any(len(pair) != 2 or None in pair for pair in pairs):
            return None, "points are not pairs of numbers"
        return box_of_points([(x * width, y * height) for x, y in pairs]), OUTLINE
    if "radiusX" in value:
        keys = ("x", "y", "radiusX", "radiusY")
        numbers = [read_number(value.get(key)) for key in keys]
        if None in numbers or degrees is None:
            return None, "ellipse is not four numbers"
        x, y, a, b = numbers
        box = ((x - a) * width, (y - b) * height, 2 * a * width, 2 * b * height)
        return box_around_turned(box, degrees, around="centre"), OUTLINE
    if "height" not in value:
        return None, "key point or line: it has no box"
    found = read_box([value.get(key) for key in ("x", "y", "width", "height")])
    if found is None or degrees is None:
        return None, "box is not four numbers"
    box = (found[0] * width, found[1] * height, found[2] * width, found[3] * height)
    if degrees:
        return box_around_turned(box, degrees, around="corner"), TURNED
    return box, ""


# --- VoTT ------------------------------------------------------------------------------------


def _read_vott(path: Path, split: str, report: Report) -> tuple[list[NamedImage], list[str]]:
    content, _ = load_json(path, "a VoTT export")
    assets = content.get("assets") if isinstance(content, Mapping) else None
    if isinstance(assets, Mapping):
        assets = list(assets.values())
    if not isinstance(assets, list):
        raise ValueError(
            f"{path} is no VoTT export: expected an object with 'assets' and 'tags', got "
            f"{shown(content)}. {describe(content)}"
        )
    tags = _objects(content.get("tags"), f"{path}: 'tags'")
    names = [str(tag["name"]).strip() for tag in tags if tag.get("name")]
    images = []
    for position, entry in enumerate(assets):
        asset = entry.get("asset") if isinstance(entry, Mapping) else None
        if not isinstance(asset, Mapping) or not (asset.get("path") or asset.get("name")):
            raise ValueError(f"{path}: entry {position} of 'assets' has no asset with a path.")
        image = _vott_image(asset, report)
        if image is None:
            continue
        name = str(asset.get("name") or image.file_name)
        regions = _objects(entry.get("regions"), f"{path}: 'regions' of {name}")
        for number, region in enumerate(regions, 1):
            where = f"region {number} of {name}"
            if region.get("type") not in ("RECTANGLE", "SQUARE", None):
                report.add("repaired boxes", OUTLINE, where)
            tags = region.get("tags")
            tags = tags if isinstance(tags, list) else [tags]
            _add(image, read_box(region.get("boundingBox")), tags, where, report)
        images.append(image)
    found = sorted({box.name for image in images for box in image.boxes})
    return images, list(dict.fromkeys([*names, *found]))


def _vott_image(asset: Mapping[str, Any], report: Report) -> NamedImage | None:
    name = str(asset.get("path") or asset["name"])
    if asset.get("type") in (2, 3) or "#t=" in name:
        report.add("dropped images", "video or a frame of one: no picture", asset.get("name"))
        return None
    if asset.get("state") == 0:
        report.add("dropped images", "was never opened in VoTT: left out", asset.get("name"))
        return None
    size = asset.get("size") if isinstance(asset.get("size"), Mapping) else {}
    return NamedImage(name, _side(size.get("width")), _side(size.get("height")))
