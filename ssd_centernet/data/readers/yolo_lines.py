"""What the lines of YOLO label files mean, decided for the whole data set.

A line is a class and numbers. Four numbers are a box; more of them are a polygon, a box with points
or the corners of an oriented box, and their count alone does not tell which.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd_centernet.data.readers.source import NamedBox, NamedImage
from ssd_centernet.data.readers.yolo_shapes import (
    BORDER,
    ROUNDING,
    are_joined_boxes,
    corners_of,
    has_flags,
    is_box,
    is_box_of,
    is_parallelogram,
    polygon_likeness,
)
from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.data.values import read_number
from ssd_centernet.files import read_text

# Text that float() reads as the tool meant it.
_PLAIN = re.compile(r"[0-9eE+\-.\s]*")
_FIELDS = ("x_center", "y_center", "width", "height")
# Shares of the lines that must fit a reading for it to be possible: points may lie outside of
# their box, and masks of several parts cross themselves.
_POINTS_FIT, _POLYGONS_FIT, _VARIED_FIT = 0.9, 0.8, 0.5
# Lines that are looked at closely: the first ones, then one of so many.
_FIRST, _EVERY = 5000, 20
_POLYGON = "a polygon: replaced by the box around it"
_POINTS = "a box with points: the points are left out"
_ORIENTED = "four corners, an oriented box or a polygon: replaced by the box around them"
_SHAPES = (_POLYGON, _ORIENTED)
_WAY_OUT = (
    "Say which it is in data.yaml: 'kpt_shape: [points, numbers a point]' for boxes with points, "
    "'task: segment' for polygons, 'task: obb' for oriented boxes."
)


@dataclass(slots=True)
class _Line:
    """A line of numbers: its place, class, first four numbers, and the box around all points."""

    image: NamedImage
    file: Path
    number: int
    index: int
    count: int
    box: tuple[float, ...]
    around: tuple[float, ...]

    @property
    def where(self) -> str:
        return f"{self.file.name} line {self.number}"

    @property
    def place(self) -> str:
        return f"{self.file} line {self.number}"


@dataclass
class _Evidence:
    """How lines of one length fit each reading; of many lines some are seen closely."""

    lines: int = 0
    seen: int = 0
    two: int = 0
    three: int = 0
    flagged: int = 0
    polygon: int = 0
    untidy: int = 0
    oriented: int = 0
    joined: int = 0
    whole_end: int = 0
    end_above_one: int = 0
    first: str = ""
    only_points: str = ""
    only_polygon: str = ""


class YoloLines:
    """The lines of all label files of a data set.

    Args:
        names: names of the classes 0..C-1.
        report: counts lines that are no boxes.
        points: (K, D) of `kpt_shape` in data.yaml, None if it has none.
        task: `task` of data.yaml: 'segment' and 'obb' say that long lines are polygons.

    Attributes:
        count: number of lines that are not empty.
    """

    def __init__(
        self,
        names: Sequence[str],
        report: Report,
        *,
        points: tuple[int, int] | None = None,
        task: str = "",
    ) -> None:
        self._names, self._report, self._points, self._task = names, report, points, task
        self._lines: list[_Line] = []
        self._evidence: dict[int, _Evidence] = collections.defaultdict(_Evidence)
        self._short: set[tuple[Path, int]] = set()
        self.count = 0

    def add(self, file: Path, image: NamedImage) -> None:
        """Read the label file of an image.

        Raises:
            ValueError: the file is not text, or a class is beyond the names.
        """
        text = read_text(file)
        read = float if _PLAIN.fullmatch(text) else read_number
        for number, line in enumerate(text.splitlines(), 1):
            tokens = line.split()
            if not tokens:
                continue
            self.count += 1
            values = _values(tokens, read)
            reason = _fault(values)
            if reason:
                if len(values) < 5:
                    self._short.add((file, number))
                self._report.add("dropped boxes", reason, f"{file.name} line {number}")
                continue
            index = int(values[0])
            if index >= len(self._names):
                raise ValueError(
                    f"{file} line {number} has class {index}, but the {len(self._names)} names are "
                    f"classes 0..{len(self._names) - 1}. Label files count from 0: do these count "
                    "from 1, or is a name missing in the list?"
                )
            xs, ys = values[1::2], values[2::2]
            around = (min(xs), min(ys), max(xs), max(ys))
            box = tuple(values[1:5])
            self._lines.append(_Line(image, file, number, index, len(values), box, around))
            if len(values) > 5:
                self._look(values, f"{file} line {number}")

    def _look(self, values: list[float], place: str) -> None:
        evidence = self._evidence[len(values)]
        evidence.lines += 1
        if evidence.lines > _FIRST and evidence.lines % _EVERY:
            return
        evidence.seen += 1
        evidence.first = evidence.first or place
        numbers = np.asarray(values[1:])
        two = len(values) % 2 == 1 and is_box_of(numbers, 2)
        three = len(values) % 3 == 2 and is_box_of(numbers, 3)
        flagged = three and has_flags(numbers)
        likeness = polygon_likeness(numbers) if len(values) % 2 else 0.0
        polygon = likeness == 1
        evidence.two += two
        evidence.three += three
        evidence.flagged += flagged
        evidence.polygon += polygon
        evidence.untidy += 0 < likeness < 1
        evidence.oriented += len(values) == 9 and is_parallelogram(numbers)
        evidence.joined += are_joined_boxes(numbers)
        evidence.whole_end += values[-1] == int(values[-1])
        evidence.end_above_one += values[-1] > 1
        if flagged and not polygon:
            evidence.only_points = evidence.only_points or place
        if polygon and not (two or three):
            evidence.only_polygon = evidence.only_polygon or place

    def place_boxes(self) -> None:
        """Append the boxes of all lines to their images.

        Raises:
            ValueError: the lines fit no reading or several ones, they do not fit `kpt_shape`, or
                numbers are no fractions of the image.
        """
        reasons = {5: ""}
        self._check_fractions(None)
        if self._points is not None:
            reasons = {5 + math.prod(self._points): _POINTS}
            self._check_points(reasons)
        elif self._evidence:
            self._check_line_ends()
            reasons |= self._readings()
        self._check_fractions(reasons)
        for line in self._lines:
            reason = reasons[line.count]
            if reason not in _SHAPES and min(line.box[2:]) <= 0:
                self._report.add("dropped boxes", "zero or negative width or height", line.where)
                continue
            if reason:
                self._report.add("notes", reason, line.where)
            corners = line.around if reason in _SHAPES else corners_of(line.box)
            box = _in_pixels(corners, line.image)
            line.image.boxes.append(NamedBox(box, self._names[line.index], line.where))

    def _check_points(self, reasons: dict[int, str]) -> None:
        wrong = [line for line in self._lines if line.count not in reasons]
        if wrong:
            (expected,) = reasons
            count, size = self._points
            raise ValueError(
                f"{wrong[0].place} has {wrong[0].count} numbers, and so {len(wrong)} of "
                f"{len(self._lines)} lines do not fit kpt_shape [{count}, {size}] of data.yaml: "
                f"expected {expected}, the class, a box of four numbers and {count} points of "
                f"{size}. Correct these lines or kpt_shape."
            )

    def _check_line_ends(self) -> None:
        """Raise an error if a long line stands beside a short one, as if broken elsewhere."""
        for line in self._lines if self._short else ():
            for number in (line.number - 1, line.number + 1):
                if line.count > 5 and (line.file, number) in self._short:
                    raise ValueError(
                        f"{line.place} has {line.count} numbers and line {number} less than five: "
                        "is the line end in the wrong place? Write one object a line."
                    )

    def _readings(self) -> dict[int, str]:
        """Return what lines of each length above 5 are: the reason to note."""
        if self._task in ("segment", "obb"):
            return self._told_reading()
        self._refuse_predictions()
        if len(self._evidence) == 1:
            ((length, evidence),) = self._evidence.items()
            return {length: self._reading(length, evidence)}
        # Boxes with points have one length in a data set; polygons have many.
        return self._varied()

    def _told_reading(self) -> dict[int, str]:
        oriented = self._task == "obb"
        for length, evidence in self._evidence.items():
            if length == 9 if oriented else length > 6 and length % 2:
                continue
            shape = "four corners" if oriented else "a polygon"
            raise ValueError(
                f"{evidence.first} has {length} numbers, which are no class with {shape}, as task: "
                f"{self._task} of data.yaml says. Correct the line or the task."
            )
        return dict.fromkeys(self._evidence, _ORIENTED if oriented else _POLYGON)

    def _refuse_predictions(self) -> None:
        advice = "To train on predictions, keep the first five numbers of each line."
        if 6 in self._evidence:
            evidence = self._evidence[6]
            raise ValueError(
                f"{evidence.first} has six numbers (so have {evidence.lines} lines): likely "
                "predictions, 'class x y width height score', and no annotations. Expected 'class "
                f"x_center y_center width height'. {advice}"
            )
        evidence = self._evidence.get(7, _Evidence())
        boxes = (line.box for line in self._lines if line.count == 7)
        if evidence.whole_end < evidence.seen or not any(map(is_box, boxes)):
            return
        if evidence.end_above_one:
            raise ValueError(
                f"{evidence.first} has seven numbers (so have {evidence.lines} lines): likely "
                "'class x y width height score track' of a tracker, and no annotations. Expected "
                f"'class x_center y_center width height'. {advice}"
            )
        raise ValueError(
            f"{evidence.first} has seven numbers that fit two readings: a polygon of three points, "
            f"or 'class x y width height score track' of a tracker. {_WAY_OUT} {advice}"
        )

    def _reading(self, length: int, evidence: _Evidence) -> str:
        """Decide between the readings of a data set whose long lines have one length."""
        seen = evidence.seen
        if evidence.oriented == seen:
            return _ORIENTED
        plain = len(self._lines) - evidence.lines
        if 2 * evidence.joined >= seen and evidence.lines <= plain:
            raise ValueError(
                f"{evidence.first} has {length} numbers, and {plain} other lines have five: were "
                "two lines joined, their line end lost? Write one object a line; or, if the line "
                f"is a polygon or a box with points, say so. {_WAY_OUT}"
            )
        flagged = evidence.flagged == seen
        fit = max(evidence.two, evidence.three)
        points = fit >= _POINTS_FIT * seen
        perhaps = evidence.polygon + evidence.untidy
        polygons = evidence.polygon >= _POLYGONS_FIT * seen
        # Untidy polygons are some all the same, if points are excluded, or else not excluded.
        polygons |= perhaps >= (_VARIED_FIT if points else _POLYGONS_FIT) * seen and (
            points or fit < _VARIED_FIT * seen
        )
        polygons &= not flagged
        if points == polygons:
            raise ValueError(self._unclear(length, evidence, both=points))
        other = evidence.only_polygon if points else evidence.only_points
        if other:
            kinds = ["a polygon", "a box with points"]
            raise ValueError(
                f"{other} fits {kinds[not points]}, but most lines of {length} numbers fit "
                f"{kinds[points]}. Do files of two kinds lie in one folder? Keep one kind. "
                f"{_WAY_OUT}"
            )
        return _POINTS if points else _POLYGON

    def _unclear(self, length: int, evidence: _Evidence, *, both: bool) -> str:
        fits = f"{max(evidence.two, evidence.three)} of {evidence.seen} lines fit a box with points"
        return (
            f"the label lines have {length} numbers, first {evidence.first}, which fit "
            f"{'two readings' if both else 'no reading'}: {fits} (class x_center y_center width "
            f"height, then points), {evidence.polygon} fit a polygon (class, then x y of its "
            f"corners). {_WAY_OUT}"
        )

    def _varied(self) -> dict[int, str]:
        """Decide for lines of several lengths: polygons, or else readings are mixed."""
        mixed = {
            length: evidence
            for length, evidence in self._evidence.items()
            if length % 2 == 0
            # The third number of each point is 0, 1 or 2: whether it is seen.
            or evidence.only_points
        }
        seen = sum(evidence.seen for evidence in self._evidence.values())
        fit = sum(evidence.polygon for evidence in self._evidence.values())
        if not mixed and fit >= _VARIED_FIT * seen:
            return dict.fromkeys(self._evidence, _POLYGON)
        shown = mixed or self._evidence
        places = [
            f"{e.only_points or e.first} has {length} numbers"
            for length, e in sorted(shown.items())
        ]
        raise ValueError(
            f"the label lines have different lengths ({', '.join(map(str, sorted(self._evidence)))}"
            f" numbers), and only {fit} of {seen} lines fit a polygon: "
            f"{'; '.join(places[:LISTED])}. Do files of two kinds lie in one folder, such as "
            f"polygons and boxes with points? Keep one kind. {_WAY_OUT}"
        )

    def _check_fractions(self, reasons: dict[int, str] | None) -> None:
        """Raise an error if numbers are no fractions of the image.

        Args:
            reasons: what lines of each length are; None looks at their first four numbers only,
                which are fractions in every reading.
        """
        faults = []
        for line in self._lines:
            values = line.around if reasons and reasons[line.count] in _SHAPES else line.box
            if max(values) > 1 + BORDER or min(values) < -1 - BORDER:
                faults.append((line, values))
        if not faults:
            return
        line, values = faults[0]
        names = _FIELDS if line.count == 5 else ("x", "y", "x or width", "y or height")
        name, value = max(zip(names, values, strict=True), key=lambda pair: abs(pair[1]))
        others = f" (and {len(faults) - 1} more lines)" if len(faults) > 1 else ""
        raise ValueError(
            f"{line.place} has {name} {value:g}, which is not a fraction 0..1 of the image"
            f"{others}: likely pixels, or per cent. Divide x and width by the image's width, y and "
            "height by its height."
        )


def _values(tokens: Sequence[str], read) -> list[float | None]:
    try:
        return [read(token) for token in tokens]
    except ValueError:  # Such as '-' or '1e': signs that no number has.
        return [read_number(token) for token in tokens]


def _fault(values: Sequence[float | None]) -> str:
    """Return why the numbers of a line are not a class and a box or more, '' if they are."""
    if None in values or not all(map(math.isfinite, values)):
        return "not numbers"
    if len(values) < 5:
        return "not five numbers: class x_center y_center width height"
    if values[0] < 0 or values[0] != int(values[0]):
        return "the class is not a whole number, 0 or above"
    if len(values) == 5 and min(values[3:]) <= 0:
        return "zero or negative width or height"
    return ""


def _in_pixels(corners: Sequence[float], image: NamedImage) -> tuple[float, float, float, float]:
    # Six digits round: what passes the border by less is no fault of the box.
    box = [min(max(v, 0.0), 1.0) if -ROUNDING < v < 1 + ROUNDING else v for v in corners]
    scale = (image.width, image.height, image.width, image.height)
    return tuple(round(value * side, 4) for value, side in zip(box, scale, strict=True))
