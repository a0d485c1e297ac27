"""Detection on image files: drawings, and detections in COCO's result format."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssd_centernet.data.images import DEFAULT_MAX_PIXELS
from ssd_centernet.data.validate import Report
from ssd_centernet.drawing import visualize
from ssd_centernet.evaluation.result import DetectionRows
from ssd_centernet.files import remove_leftovers, write_together
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.predict.fixed_size import empty_batch, fixed_size_step
from ssd_centernet.predict.image_files import number_images, output_names, read_picture
from ssd_centernet.predict.truth import Truth
from ssd_centernet.run_directory import DETECTIONS_NAME

IMAGES_NAME = "images.json"
# Beyond this a sheet is too large to look at.
_MOST_CELLS = 64
_CELL = 320


class ImageDetector(Protocol):
    """What detects on one image after the other, as an exported file does."""

    def detect(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return `boxes` [n, 4] yxyx fractions, `scores` [n], `classes` [n] of uint8 [H, W, 3]."""


@dataclasses.dataclass(kw_only=True)
class Predictions:
    """Hold the detections of image files.

    Attributes:
        rows: all detections of the decoder, in pixels of the upright images.
        images: one dict per image that was read: `id`, `file_name`, `path`, `height`, `width`,
            `detections` (number drawn) and `drawing` (the file, or None).
        unreadable: path -> why it was skipped.
        report: what was changed or is odd about pictures, see `data.validate.format_report`.
        contact_sheet: path of the sheet, or None.
    """

    rows: DetectionRows
    images: list[dict[str, Any]]
    unreadable: dict[str, str]
    report: dict[str, dict] = dataclasses.field(default_factory=dict)
    contact_sheet: str | None = None


@dataclasses.dataclass(kw_only=True)
class _Picture:
    """One image in progress: its pixels, and later its detections."""

    path: str
    pixels: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)
    detections: dict[str, np.ndarray] | None = None


def predict(
    detector: Detector | ImageDetector,
    paths: Sequence[str | os.PathLike],
    *,
    output_dir: str | os.PathLike,
    label_map: LabelMap,
    batch_size: int = 8,
    min_score: float = 0.3,
    annotations: str | os.PathLike | None = None,
    contact_sheet: bool = False,
    draw: bool = True,
    classes: Sequence[str] | None = None,
    heading: str | None = None,
    progress: Callable[[], None] | None = None,
) -> Predictions:
    """Detect objects on image files; write drawings and detections.

    Writes into `output_dir` a PNG for each image, `detections.json` (every detection of the
    decoder, whatever its score, as COCO results), `images.json` (COCO's `images` and `categories`,
    and what could not be read) and, if asked for, `contact_sheet.png`. `images.json` is written
    last and removed first: where it is there, `detections.json` and the drawings are whole. Nothing
    is written, and what earlier calls wrote stays, until a picture was read.

    Args:
        detector: a detector with its weights, an exported file, or one of them in tiles.
        paths: image files, of any format that Pillow reads. They are turned by their EXIF
            orientation; with annotations only if these refer to the turned pictures, as the
            conversion decides it.
        output_dir: folder to write to; made if missing.
        label_map: names and data set ids of the detector's classes.
        batch_size: images per step, at least 1.
        min_score: detections below it are not drawn, 0..1.
        annotations: COCO json of these images; its objects are drawn beside the detections. Its
            image ids are used, found by the end of the path, and detections are in its pixels.
        contact_sheet: whether to put the first 64 drawings on one sheet.
        draw: whether to draw each image; False writes the lists, and the sheet if asked for.
        classes: names of classes; detections of others are left out, of everything that is
            written. The decoder's limit of detections per image counts those of all classes.
        heading: heading of the sheet.
        progress: called after every image.

    Returns:
        The detections and the files written. Images that cannot be read are skipped and listed;
        where none can be read, there are no `images` and nothing was written.

    Raises:
        FileNotFoundError: there is no file of annotations.
        ValueError: the file does not hold annotations, or there is no class of a name.
    """
    kept = None if classes is None else class_numbers(classes, label_map)
    output_dir = os.fspath(output_dir)
    files = [os.fspath(path) for path in paths]
    report, notes = Report(), []
    truth = None
    if annotations is not None and files:
        truth = Truth(annotations, label_map, files, notes)
    ids = number_images(files, {}, notes=notes) if truth is None else truth.ids
    for note in notes:
        report.add("notes", note, "images.json lists all")
    drawings = output_names(files, ".png", reserved=("contact_sheet",))
    names = _file_names(files, truth)
    found = Predictions(rows=DetectionRows.from_list([]), images=[], unreadable={})
    cells: list[np.ndarray] = []
    parts = []
    max_pixels = getattr(detector, "max_pixels", DEFAULT_MAX_PIXELS)
    # What is found in tiles is small in its picture, and much.
    detail = detector.tiles.size if hasattr(detector, "tiles") else None
    read = _reader(truth, report, found.unreadable, max_pixels)
    for picture in _detections(detector, files, batch_size, read, progress):
        if not parts:
            _begin(output_dir)
        image_id = ids[picture.path]
        if kept is not None:
            wanted = np.isin(picture.detections["classes"], kept)
            picture.detections = {name: one[wanted] for name, one in picture.detections.items()}
        objects = None
        if truth is not None:
            objects = truth.objects(image_id, picture.pixels.shape, picture.scale)
        labels = label_map if truth is None else truth
        paint = _painter(picture, objects, labels, min_score, detail)
        target = None
        if draw:
            target = os.path.join(output_dir, drawings[picture.path])
            visualize.save_png(target, paint(picture.pixels))
        if contact_sheet and len(cells) < _MOST_CELLS:
            cells.append(paint(visualize.fit(picture.pixels, _CELL)))
        parts.append(_rows(picture, image_id, label_map))
        found.images.append(_describe(picture, image_id, names[picture.path], target, min_score))
    found.rows = DetectionRows.concatenate(parts)
    found.report = report.to_dict()
    if cells:
        found.contact_sheet = _save_sheet(output_dir, cells, found.images, heading, truth)
    if parts:
        _save_lists(output_dir, found, label_map)
    return found


def class_numbers(classes: Sequence[str], label_map: LabelMap) -> list[int]:
    """Return the numbers of classes by their names.

    Raises:
        ValueError: tells each name that no class has, and similar ones.
    """
    numbers, unknown = [], []
    for name in classes:
        try:
            numbers.append(label_map.class_of(name))
        except KeyError as error:
            unknown.append(error.args[0])
    if unknown:
        raise ValueError(f"{' '.join(unknown)} Set --classes to names of classes of the run.")
    return numbers


def _reader(
    truth: Truth | None, report: Report, unreadable: dict[str, str], max_pixels: int
) -> Callable[[str], _Picture | None]:
    """Return a function that reads a file in the frame of its annotations, None if it cannot."""

    def read(path: str) -> _Picture | None:
        frame = {} if truth is None else truth.frame(path)
        try:
            picture = read_picture(path, max_pixels=max_pixels, **frame)
        except (OSError, ValueError) as error:
            unreadable[path] = getattr(error, "strerror", None) or str(error)
            return None
        for note in picture.notes:
            report.add("notes", note, os.path.basename(path))
        return _Picture(path=path, pixels=picture.pixels, scale=picture.scale)

    return read


def _detections(
    detector: Detector | ImageDetector,
    files: Sequence[str],
    batch_size: int,
    read: Callable[[str], _Picture | None],
    progress: Callable[[], None] | None,
) -> Iterator[_Picture]:
    """Read images, detect on them and yield them one by one, with one batch in memory."""
    # What takes one image after the other needs no others in memory.
    together = batch_size if hasattr(detector, "decode") else 1
    batch_size = max(1, min(together, len(files)))
    find = finder(detector, batch_size)
    waiting: list[_Picture] = []
    for number, path in enumerate(files):
        picture = read(path)
        if picture is not None:
            waiting.append(picture)
        if waiting and (len(waiting) == batch_size or number == len(files) - 1):
            found = find([picture.pixels for picture in waiting])
            for picture, detections in zip(waiting, found, strict=True):
                picture.detections = detections
                yield picture
            waiting = []
        if progress is not None:
            progress()


def finder(
    detector: Detector | ImageDetector, batch_size: int
) -> Callable[[Sequence[np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return a function that detects on at most `batch_size` images, uint8 [H, W, 3] each."""
    if not hasattr(detector, "decode"):
        return lambda images: [detector.detect(image) for image in images]
    prepare, detect = fixed_size_step(detector, batch_size)

    def find(images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        inputs = empty_batch(prepare, batch_size)
        for slot, image in enumerate(images):
            for rows, value in zip(inputs, prepare(image), strict=True):
                rows[slot] = value
        batch = {name: value.numpy() for name, value in detect(*inputs).items()}
        counts = batch.pop("count")
        return [
            {name: values[slot, : int(counts[slot])] for name, values in batch.items()}
            for slot in range(len(images))
        ]

    return find


def _file_names(files: Sequence[str], truth: Truth | None) -> dict[str, str]:
    """Name each file as its annotations do, else by its path below the folder of all files."""
    absolute = {path: os.path.abspath(path) for path in files}
    top = os.path.commonpath([os.path.dirname(path) for path in absolute.values()] or [os.sep])
    names = {path: Path(os.path.relpath(absolute[path], top)).as_posix() for path in files}
    return names if truth is None else names | truth.names_of_files


def _painter(
    picture: _Picture,
    objects: dict[str, np.ndarray] | None,
    labels: LabelMap | Truth,
    min_score: float,
    detail: float | None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that draws the detections on the image at any scale."""
    detections = picture.detections

    def at_scale(image: np.ndarray) -> float | None:
        if detail is None or max(picture.pixels.shape[:2]) <= detail:
            return None
        return detail * len(image) / len(picture.pixels)

    if objects is not None:
        options = {"names": labels.names, "min_score": min_score}
        return lambda image: visualize.compare(
            image, objects, detections, detail=at_scale(image), **options
        )
    shown = detections["scores"] >= min_score
    classes = detections["classes"][shown]
    return lambda image: visualize.draw_boxes(
        image,
        detections["boxes"][shown],
        labels=[labels.names[index] for index in classes],
        scores=detections["scores"][shown],
        classes=classes,
        detail=at_scale(image),
    )


def _rows(picture: _Picture, image_id: int, label_map: LabelMap) -> DetectionRows:
    """Turn detections into COCO rows as the evaluation does: extents in float32."""
    height, width = picture.pixels.shape[:2]
    boxes = picture.detections["boxes"][:, [1, 0, 3, 2]]
    # The annotations may be of a copy of another size.
    scale = np.array([width, height], np.float64) / picture.scale
    extent = (boxes[:, 2:] - boxes[:, :2]) * scale
    return DetectionRows(
        image_ids=np.full(len(boxes), image_id, np.int64),
        category_ids=np.array(label_map.ids, np.int64)[picture.detections["classes"]],
        boxes=np.concatenate([boxes[:, :2] * scale, extent], axis=1),
        scores=picture.detections["scores"].astype(np.float64),
    )


def _describe(
    picture: _Picture, image_id: int, name: str, drawing: str | None, min_score: float
) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    return {
        "id": image_id,
        "file_name": name,
        "path": os.path.abspath(picture.path),
        "height": height,
        "width": width,
        "detections": int((picture.detections["scores"] >= min_score).sum()),
        "drawing": drawing and os.path.basename(drawing),
    }


def _save_sheet(
    output_dir: str,
    cells: Sequence[np.ndarray],
    images: Sequence[dict[str, Any]],
    heading: str | None,
    truth: Truth | None,
) -> str:
    """Write the contact sheet; a truth and a prediction share a cell of double width."""
    titles = [
        f"{image['file_name']}: {image['detections']} found" for image in images[: len(cells)]
    ]
    size = _CELL if truth is None else (_CELL, 2 * _CELL)
    columns = None if truth is None else min(2, len(cells))
    sheet = visualize.contact_sheet(
        cells, columns=columns, cell_size=size, titles=titles, heading=heading
    )
    return visualize.save_png(os.path.join(output_dir, "contact_sheet.png"), sheet)


def _save_lists(output_dir: str, found: Predictions, label_map: LabelMap) -> None:
    lists = {
        "images": found.images,
        "categories": label_map.to_categories(),
        "unreadable": found.unreadable,
        "report": found.report,
    }
    contents = {
        DETECTIONS_NAME: json.dumps(found.rows.to_list()) + "\n",
        IMAGES_NAME: json.dumps(lists, indent=1) + "\n",
    }
    write_together(output_dir, contents)


def _begin(output_dir: str) -> None:
    """Remove the lists of an earlier call: where `images.json` is there, all is of one call."""
    os.makedirs(output_dir, exist_ok=True)
    for name in (IMAGES_NAME, DETECTIONS_NAME):
        (Path(output_dir) / name).unlink(missing_ok=True)
    remove_leftovers(output_dir, [IMAGES_NAME, DETECTIONS_NAME, "*.png"])
