"""The result of an evaluation: metrics, table of classes and detections."""

import csv
import dataclasses
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.data.readers.json_file import shown
from ssd_centernet.data.values import read_box, read_number, read_whole
from ssd_centernet.files import remove_leftovers, write_together
from ssd_centernet.plain_text import counted
from ssd_centernet.run_directory import (
    DETECTIONS_NAME,
    EVALUATION_METRICS_NAME,
    PER_CLASS_NAME,
    REPORT_NAME,
)
from ssd_centernet.runtime.versions import installed_versions
from ssd_centernet.text_table import text_table

METRIC_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "ARmax1",
    "ARmax10",
    "ARmax100",
    "ARs",
    "ARm",
    "ARl",
)

_MEANINGS = (
    "average precision, IoU 0.50:0.95",
    "average precision, IoU 0.50",
    "average precision, IoU 0.75",
    "average precision, small objects (area below 32^2)",
    "average precision, medium objects",
    "average precision, large objects (area above 96^2)",
    "average recall, at most {} per image and class",
    "average recall, at most {} per image and class",
    "average recall, at most {} per image and class",
    "average recall, small objects",
    "average recall, medium objects",
    "average recall, large objects",
)


_KEYS = ("image_id", "category_id", "bbox", "score")
_ROWS_OF_A_PIECE = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionRows:
    """Hold COCO result rows as arrays.

    Attributes:
        image_ids: int64 [N].
        category_ids: int64 [N], data set category ids.
        boxes: float64 [N, 4], `x, y, width, height` in pixels of the original image.
        scores: float64 [N].
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.scores)

    @classmethod
    def concatenate(cls, parts: Sequence["DetectionRows"]) -> "DetectionRows":
        """Join rows in the given order."""
        if not parts:
            return cls.from_list([])
        if len(parts) == 1:
            return parts[0]
        fields = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields})

    @classmethod
    def from_list(
        cls,
        rows: Sequence[Mapping[str, Any]],
        *,
        image_id: Callable[[Any], int | None] = read_whole,
        category_id: Callable[[Any], int | None] = read_whole,
    ) -> "DetectionRows":
        """Read COCO result rows; keys other than the four of COCO's bbox results are ignored.

        Numbers may be text. Boxes and scores that are not finite are kept: scoring counts them.

        Args:
            rows: mappings with `image_id`, `category_id`, `bbox` [x, y, width, height], `score`.
            image_id: reads an image id; None for a value that is none.
            category_id: reads a category id in the same way.

        Returns:
            The same rows as arrays.

        Raises:
            ValueError: a row lacks one of the four keys, or one of its values is no number.
        """
        images, categories, boxes, scores = [], [], [], []
        for index, row in enumerate(rows):
            missing = [k for k in _KEYS if not isinstance(row, Mapping) or k not in row]
            if missing:
                _refuse_row(index, row, missing)
            values = (
                image_id(row["image_id"]),
                category_id(row["category_id"]),
                _box(row["bbox"]),
                _score(row["score"]),
            )
            if None in values:
                _refuse_value(index, row, _KEYS[values.index(None)])
            for column, value in zip((images, categories, boxes, scores), values, strict=True):
                column.append(value)
        return cls(
            image_ids=np.array(images, np.int64),
            category_ids=np.array(categories, np.int64),
            boxes=np.array(boxes, np.float64).reshape(len(boxes), 4),
            scores=np.array(scores, np.float64),
        )

    def to_list(self) -> list[dict[str, Any]]:
        """Return COCO result rows: dicts of Python scalars, full float precision."""
        columns = zip(
            self.image_ids.tolist(),
            self.category_ids.tolist(),
            self.boxes.tolist(),
            self.scores.tolist(),
            strict=True,
        )
        return [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in columns
        ]

    def json_pieces(self) -> Iterator[str]:
        """Yield the text of `json.dumps(self.to_list())` piece by piece.

        Neither the text nor a Python object for each row is ever in memory as a whole.
        """
        for begin in range(0, max(len(self), 1), _ROWS_OF_A_PIECE):
            rows = self.select(slice(begin, begin + _ROWS_OF_A_PIECE))
            text = rows._json()
            yield ("[" if begin == 0 else ", ") + text
        yield "]"

    def _json(self) -> str:
        """Return the rows as JSON without the brackets around them."""
        if not self.finite().all():
            return json.dumps(self.to_list())[1:-1]
        columns = (self.image_ids, self.category_ids, self.boxes, self.scores)
        # Python and JSON write whole and finite numbers, and lists of them, in the same way.
        return ", ".join(
            [
                f'{{"image_id": {image}, "category_id": {kind}, "bbox": {box}, "score": {score}}}'
                for image, kind, box, score in zip(*(c.tolist() for c in columns), strict=True)
            ]
        )

    def select(self, keep: np.ndarray) -> "DetectionRows":
        """Return the rows chosen by a mask or by indices [K]."""
        fields = [field.name for field in dataclasses.fields(self)]
        return dataclasses.replace(self, **{name: getattr(self, name)[keep] for name in fields})

    def finite(self) -> np.ndarray:
        """Return bool [N]: rows whose box and score are all finite numbers."""
        finite = np.isfinite(self.boxes)
        # Almost always all of them, and rows of four are slow to reduce.
        rows = np.ones(len(self), bool) if finite.all() else finite.all(axis=1)
        return rows & np.isfinite(self.scores)


_FORM = (
    "Detections must be a list of objects with 'image_id', 'category_id', 'bbox' "
    "[x, y, width, height] in pixels and 'score', as COCO's result format has them;"
)


def _box(value: Any) -> Sequence[float] | None:
    if type(value) is list and len(value) == 4 and {*map(type, value)} == {float}:
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == 4:
        numbers = [_score(number) for number in value]
        return None if None in numbers else numbers
    return read_box(value)


def _score(value: Any) -> float | None:
    if type(value) is float:  # NaN and infinity stay: scoring counts them.
        return value
    return float(value) if isinstance(value, np.floating) else read_number(value)


def _refuse_row(index: int, row: Any, missing: list[str]) -> None:
    if not isinstance(row, Mapping):
        raise ValueError(f"{_FORM} row {index} is {shown(row)}.")
    raise ValueError(f"{_FORM} row {index} lacks {missing} and has {sorted(map(str, row))}.")


def _refuse_value(index: int, row: Mapping[str, Any], key: str) -> None:
    expected = {
        "bbox": "four numbers [x, y, width, height]",
        "score": "a number",
    }.get(key, "an id of the annotations: it is not a whole number of 64 bits, nor a name there")
    raise ValueError(f"{_FORM} row {index} has {key} {shown(row[key])}, expected {expected}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoResult:
    """Hold the numbers of one COCO evaluation and the detections they came from.

    Attributes:
        metrics: the 12 COCO numbers in COCO's order, 0..1; -1 only if the ground truth has no
            object of that kind.
        per_class: one dict per category of `id`, `name`, `AP`, `AP50` (NaN if the ground truth has
            no object of it), `num_objects` (crowd regions not counted), `num_detections`.
        rows: the detections that were scored.
        num_images: images of the ground truth, all of which count.
        backend: the library that matched, one of `coco.BACKENDS`.
        max_detections: most detections of one class that counted in one image; 100 in COCO.
        notes: what was repaired or left out: sentence -> number of times.
        seconds: what took how long, such as `network` and `metric`; empty where nobody measured.

    Source: docs/reference/ssd_resnet34.md, section 13 (names and order of the numbers)
    """

    metrics: dict[str, float]
    per_class: tuple[dict[str, Any], ...]
    rows: DetectionRows
    num_images: int
    backend: str
    max_detections: int = 100
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def detections(self) -> list[dict[str, Any]]:
        """Return the detections as COCO result rows (a fresh list)."""
        return self.rows.to_list()

    @property
    def num_detections(self) -> int:
        """Return the number of detections that were scored."""
        return len(self.rows)

    def table(self, *, per_class: bool = True) -> str:
        """Format the metrics as aligned text.

        Args:
            per_class: whether to put the table of classes before the 12 COCO numbers.

        Returns:
            Lines of text, without a newline at the end; `-` if there is no ground truth.
        """
        classes = self.per_class if per_class else ()
        lines = [text_table(_class_rows(classes)), ""] if classes else []
        for (name, value), meaning in zip(self.metrics.items(), _MEANINGS, strict=True):
            limit = name.removeprefix("ARmax")
            lines.append(f"{name:<9} {_number(value):>6}  {meaning.format(limit)}")
        objects = sum(c["num_objects"] for c in self.per_class)
        lines += [
            "",
            f"{counted(self.num_images, 'image')}, {counted(objects, 'object')}, "
            f"{counted(self.num_detections, 'detection')}; matched by {self.backend}",
        ]
        if self.max_detections != 100:
            lines.append(
                f"at most {self.max_detections} detections of a class count in an image: these are "
                "not COCO's numbers, which count 100"
            )
        lines += [f"note: {count} {sentence}" for sentence, count in self.notes.items()]
        return "\n".join(lines)

    def took(self, **more: float) -> str:
        """Say how long the parts took, each apart; `more` are seconds of others."""
        parts = {**self.seconds, **more}
        return "took: " + ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())

    def coco_lines(self) -> list[str]:
        """Return the 12 lines that pycocotools prints of the numbers.

        With other limits than COCO's the last one stands in its place, as in pycocotools.
        """
        lines = []
        for name, value in self.metrics.items():
            kind = ("Precision", "(AP)") if name.startswith("AP") else ("Recall", "(AR)")
            overlap = "0.50:0.95"
            if name in ("AP50", "AP75"):
                overlap = f"0.{name.removeprefix('AP')}"
            area = {"s": "small", "m": "medium", "l": "large"}.get(name[-1], "all")
            counted = re.search(r"max(\d+)$", name)
            limit = int(counted[1]) if counted else self.max_detections
            lines.append(
                f" {'Average ' + kind[0]:<18} {kind[1]} @[ IoU={overlap:<9} | area={area:>6s} | "
                f"maxDets={limit:>3d} ] = {value:0.3f}"
            )
        return lines

    def save(
        self,
        directory: str | os.PathLike,
        *,
        facts: Mapping[str, Any] | None = None,
        page: str | None = None,
    ) -> dict[str, str]:
        """Write `detections.json`, `per_class.csv`, a page if there is one, and `metrics.json`.

        Where `metrics.json` is there, all are whole and of one call; a page of an earlier one is
        removed. `detections.json` is in COCO's result format and keeps every bit, so that scoring
        the file gives the same numbers again.

        Args:
            directory: folder to write to; made if missing.
            facts: what `metrics.json` says before the numbers, such as the checkpoint.
            page: `report.html`, see `evaluation.report.html_report`.

        Returns:
            File name -> path written.
        """
        versions = installed_versions(self.backend)
        numbers = {**(facts or {}), **self.to_dict(), "versions": versions}
        contents = {
            DETECTIONS_NAME: self.rows.json_pieces(),
            PER_CLASS_NAME: self._csv(),
            **({} if page is None else {REPORT_NAME: page}),
            EVALUATION_METRICS_NAME: json.dumps(numbers, indent=2) + "\n",
        }
        remove_leftovers(directory, [*contents, REPORT_NAME])
        return write_together(directory, contents, remove=() if page else (REPORT_NAME,))

    def to_dict(self) -> dict[str, Any]:
        """Return metrics, counts, notes and rows per class for JSON (NaN becomes None)."""
        classes = [
            {key: None if _is_nan(value) else value for key, value in row.items()}
            for row in self.per_class
        ]
        return {
            "metrics": self.metrics,
            "num_images": self.num_images,
            "num_detections": self.num_detections,
            "backend": self.backend,
            "max_detections": self.max_detections,
            "notes": self.notes,
            "per_class": classes,
        }

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        header = ("id", "name", "AP", "AP50", "num_objects", "num_detections")
        writer.writerow(header)
        for row in self.per_class:
            writer.writerow(["" if _is_nan(row[key]) else row[key] for key in header])
        return text.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.3f}"


def _class_rows(per_class: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return heads and cells of the table of classes."""
    rows = [["class", "AP", "AP50", "objects", "detections"]]
    for row in per_class:
        counts = (str(row[name]) for name in ("num_objects", "num_detections"))
        rows.append([row["name"], _number(row["AP"]), _number(row["AP50"]), *counts])
    return rows
