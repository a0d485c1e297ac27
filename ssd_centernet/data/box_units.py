"""In which unit and order the boxes of a file are: pixels, or something else that is told.

Readers give every box as left, top, width and height in pixels. Whether the numbers mean that can
only be seen in all of them together, beside the sizes of their pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

UNITS = ("auto", "pixels", "fractions", "percent")
# Unit -> what its whole picture is wide and high.
WHOLE = {"fractions": 1.0, "percent": 100.0}
# Boxes beyond the border by no more than this are rounded, or count their last pixel otherwise.
SLACK_PIXELS = 1.5
# A point set on a small copy of a large picture is rounded to more than a pixel.
_SLACK_SHARE = 0.005
# Above this share of boxes beyond the border, something else is wrong than a careless hand.
MAX_BEYOND = 0.2
# Fewer boxes than this prove nothing.
_ENOUGH = 5
_SURE = 10
# An explanation has to fit this share of the boxes.
_FITS = 0.98
# No set of pictures has all its objects in so small a part of the left top corner.
_CORNER_OF_ALL = 0.05
# Natural logarithms of the chance that boxes stay within 100 pixels of the corner by accident.
_LIKELY, _CERTAIN, _CERTAIN_FOR_ONE_SIZE = -3.0, -25.0, -100.0


def check_units(
    boxes: np.ndarray,
    sizes: np.ndarray,
    *,
    where: Callable[[int], str],
    field: str,
    source: str,
    scaled: bool = False,
    found: bool = False,
    settable: bool = True,
) -> list[str]:
    """Refuse boxes that are not left, top, width and height in pixels.

    One to four boxes are refused only as fractions: they prove nothing else.

    Args:
        boxes: float64 [N, 4], x, y, width, height as the annotations have them; finite.
        sizes: float64 [N, 2], width and height in pixels of the picture of each box, zeros where
            they are unknown.
        where: names the place of a box: the annotation or line, and the picture.
        field: the field that holds the boxes, such as bbox.
        source: name of the annotations.
        scaled: whether the boxes were scaled to pixels on demand: then only their order is checked.
        found: whether a detector found the boxes: these may reach beyond the border, so that only
            what another unit or order explains is refused.
        settable: whether the caller takes `box_units`, which the advice then names.

    Returns:
        What may be wrong but cannot be told for sure, one sentence each.

    Raises:
        ValueError: the boxes are in another unit or order, or more than a fifth of them lies
            beyond the border; names the likely cause, the first box and what to set.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    usable = np.isfinite(boxes).all(axis=1)
    if not usable.any():
        return []
    place = np.flatnonzero(usable)
    words = (field, source, settable)
    tell = _Telling(boxes[usable], lambda i: where(int(place[i])), *words)
    notes = [] if scaled else _check_fractions(tell)
    known = usable & (sizes > 0).all(axis=1)
    if known.any():
        place = np.flatnonzero(known)
        tell = _Telling(boxes[known], lambda i: where(int(place[i])), *words)
        notes += [] if scaled else _check_percent(tell, sizes[known])
        if not found or _causes(boxes[known], sizes[known]):
            advice = tell.advice(_IF_RIGHT, "Correct the file.")
            notes += _check_borders(tell, sizes[known], "" if scaled else advice)
        notes += _check_reach(tell, sizes[known], found)
    return notes


def to_pixels(
    bbox: Sequence[float], unit: str, width: int, height: int
) -> tuple[float, float, float, float]:
    """Scale a box that is given as fractions or per cent of its picture.

    Args:
        bbox: x, y, width, height.
        unit: 'fractions' or 'percent'.
        width, height: of the picture, pixels.

    Returns:
        x, y, width, height in pixels.
    """
    x, y, w, h = (value / WHOLE[unit] for value in bbox)
    return x * width, y * height, w * width, h * height


class _Telling:
    """Boxes, and the words of a message about some of them."""

    def __init__(
        self,
        boxes: np.ndarray,
        where: Callable[[int], str],
        field: str,
        source: str,
        settable: bool,
    ):
        self.boxes, self._where = boxes, where
        self._field, self._source, self._settable = field, source, settable

    def showing(self, boxes: np.ndarray) -> _Telling:
        """Return the same words about other numbers."""
        return _Telling(boxes, self._where, self._field, self._source, self._settable)

    def advice(self, setting: str, otherwise: str = "") -> str:
        """Return advice to set `box_units` where the caller takes it, else another."""
        return setting if self._settable else otherwise

    def first(self, chosen: np.ndarray) -> str:
        """Name the first chosen box: its place, field and value."""
        index = int(np.flatnonzero(chosen)[0])
        values = ", ".join(f"{value:.6g}" for value in self.boxes[index])
        return f"{self._where(index)} has {self._field} [{values}]"

    def error(self, chosen: np.ndarray, what: str, advice: str) -> ValueError:
        """Return an error that says how many boxes are not what they should be."""
        return ValueError(
            f"{self._source}: {int(chosen.sum())} of {len(self.boxes)} boxes {what}: for example "
            f"{self.first(chosen)}. Expected [x, y, width, height] in pixels. {advice}"
        )


# --- fractions and per cent ------------------------------------------------------------------


def _check_fractions(tell: _Telling) -> list[str]:
    boxes = tell.boxes
    ends = boxes[:, :2] + boxes[:, 2:]
    # The last two may be corners.
    tiny = (boxes >= -1e-3).all(axis=1) & (boxes <= 1 + 1e-3).all(axis=1)
    # A reader that counts pixels from 1 has taken 1 from the near corners.
    tiny |= (boxes[:, :2] >= -1).all(axis=1) & (ends <= 1 + 1e-3).all(axis=1)
    tiny &= (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, 2:] <= 2).all(axis=1)
    fractions = tiny & (boxes % 1.0 != 0).any(axis=1)
    count, total = int(fractions.sum()), len(boxes)
    if not count:
        if tiny.all() and total >= _ENOUGH:
            fractions = tiny
        else:
            return []
    several = fractions.sum() >= _ENOUGH or fractions.mean() > MAX_BEYOND
    if fractions.all() or (several and total >= _ENOUGH):
        # A reader that counts pixels from 1 took 1 from the near corners: show what is written.
        moved = (boxes[:, :2] < 0).all(axis=1)[:, np.newaxis] * [1.0, 1.0, -1.0, -1.0]
        tell = tell.showing(boxes + moved)
        some = "" if fractions.all() else " Were files of two units joined?"
        raise tell.error(
            fractions,
            "lie within 0..1",
            "These look like fractions of the picture: "
            + tell.advice("set box_units to fractions to scale them (--box_units=fractions), or ")
            + f"multiply them by its width and height.{some}",
        )
    return [
        f"{count} boxes lie within 0..1: are they fractions? For example {tell.first(fractions)}"
    ]


def _check_percent(tell: _Telling, sizes: np.ndarray) -> list[str]:
    boxes = tell.boxes
    # The last two may be corners.
    sizes_end = (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    reach = sizes_end if sizes_end.max() <= 100.5 else boxes.reshape(-1, 2, 2).max(axis=(0, 1))
    if len(boxes) < _ENOUGH or boxes.min() < -0.5 or reach.max() > 100.5 or reach.min() < 80:
        return []
    # How likely it is that boxes anywhere in their pictures end within the first 100 pixels.
    chance = float(np.log(np.minimum(1.0, 100.0 / sizes)).sum())
    share_beyond = _beyond(boxes, sizes).mean()
    if chance > _LIKELY and share_beyond <= MAX_BEYOND:
        return []
    limit = _CERTAIN if len(np.unique(sizes, axis=0)) > 1 else _CERTAIN_FOR_ONE_SIZE
    is_sure = len(boxes) >= _SURE and reach.min() >= 90
    if share_beyond > MAX_BEYOND or (is_sure and chance < limit):
        raise tell.error(
            np.ones(len(boxes), bool),
            f"are within 0..100, though pictures are up to {int(sizes.max())} pixels wide or high",
            "These look like per cent of the picture: "
            + tell.advice(
                "set box_units to percent to scale them (--box_units=percent), or to pixels if "
                "they are right.",
                "multiply them by its width and height, over 100.",
            ),
        )
    setting = tell.advice("set box_units to percent", "correct the file")
    return [f"no box reaches beyond 100: if they are per cent, {setting}"]


# --- the border ------------------------------------------------------------------------------

_CORNERS = "the last two numbers are the right and bottom corner, not width and height"
_CENTRE = "the first two numbers are the centre of the box, not its left top corner"
_UNKNOWN = (
    "sizes or boxes are those of other pictures, or of a copy of another size",
    "the numbers are in another order or unit",
)
_IF_RIGHT = (
    "Correct the file; if it is right and the boxes may be clipped, set box_units to pixels "
    "(--box_units=pixels)."
)


def _beyond(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return which boxes pass the border of their picture by more than rounding, bool [N]."""
    slack = np.maximum(SLACK_PIXELS, sizes * _SLACK_SHARE)
    ends = boxes[:, :2] + boxes[:, 2:]
    return (boxes[:, :2] < -slack).any(axis=1) | (ends > sizes + slack).any(axis=1)


def _check_reach(tell: _Telling, sizes: np.ndarray, found: bool) -> list[str]:
    reach = ((tell.boxes[:, :2] + tell.boxes[:, 2:]) / sizes).max(axis=0)
    # A detector that has learnt nothing may find such boxes.
    if not found and len(tell.boxes) >= 2 * _SURE and reach.max() < _CORNER_OF_ALL:
        raise tell.error(
            np.ones(len(tell.boxes), bool),
            f"end within the first {reach.max():.1%} of their picture",
            "Likely: they are fractions that were taken for per cent, or those of much smaller "
            f"copies. {tell.advice(_IF_RIGHT, 'Correct the file.')}",
        )
    if len(tell.boxes) < 2 * _SURE or reach.max() > 0.67 or reach.max() > 1.1 * reach.min():
        return []
    return [
        f"no box reaches beyond {reach.max():.0%} of its picture: are they those of smaller copies"
        f"{', or corners' if _may_be_corners(tell.boxes) else ''}?"
    ]


def _may_be_corners(boxes: np.ndarray) -> bool:
    """Tell whether every box, read as two corners, ends after it begins."""
    return bool((boxes[:, 2:] > boxes[:, :2]).all())


def _check_borders(tell: _Telling, sizes: np.ndarray, if_right: str) -> list[str]:
    boxes = tell.boxes
    beyond = _beyond(boxes, sizes)
    if not beyond.any():
        return []
    share, causes = float(beyond.mean()), _causes(boxes, sizes)
    likely = f"Likely: {'; or '.join([*causes, *_UNKNOWN][:2])}. {if_right}"
    if share > MAX_BEYOND and len(boxes) >= _ENOUGH:
        raise tell.error(beyond, "reach beyond the border of their picture", likely)
    # Where most boxes are near the left top corner, other orders let only few pass a border.
    far = ((boxes[:, :2] + boxes[:, 2:]) > sizes * 1.1).any(axis=1).sum()
    is_other = _CORNERS in causes or (causes.get(_CENTRE) == 1.0 and share > 0.05)
    if is_other and far >= 3 and len(boxes) >= _SURE:
        likely = f"Likely: {_CORNERS if _CORNERS in causes else _CENTRE}. {if_right}"
        raise tell.error(beyond, "reach beyond the border, and none if read otherwise", likely)
    if causes and beyond.all():
        return [f"boxes reach beyond the border: perhaps {next(iter(causes))}?"]
    return []


def _causes(boxes: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Return what would explain boxes beyond the border -> share of boxes it fits, best first."""
    x, y, w, h = boxes.T
    found: dict[str, float] = {}

    def consider(cause: str, changed: np.ndarray, extent: np.ndarray = sizes) -> None:
        good = ~_beyond(changed, extent) & (changed[:, 2:] > 0).all(axis=1)
        if good.mean() >= _FITS:
            found[cause] = float(good.mean())

    def boxes_of(*columns: np.ndarray) -> np.ndarray:
        return np.stack(columns, axis=1)

    consider(_CORNERS, boxes_of(x, y, w - x, h - y))
    if (sizes[:, 0] != sizes[:, 1]).any():
        consider("width and height of the pictures are swapped", boxes, sizes[:, ::-1])
    consider("width and height of the boxes are swapped", boxes_of(x, y, h, w))
    consider("the numbers are y, x, height, width", boxes_of(y, x, h, w))
    consider(_CENTRE, boxes_of(x - w / 2, y - h / 2, w, h))
    consider("the numbers are left, right, top, bottom", boxes_of(x, w, y - x, h - w))
    ends = boxes[:, :2] + boxes[:, 2:]
    if 900 < ends.max() <= 1001 and boxes.min() >= -1:
        consider("they are thousandths of the picture", boxes * np.tile(sizes, 2) / 1000)
    return found
