"""Tracks: which detections on the frames of a video are the same object."""

from __future__ import annotations

import dataclasses

import numpy as np

# Weaker detections than this share of the lowest score continue no track.
_WEAK = 1 / 3
# Least IoU of a track's box, as predicted, and a detection: of a strong one, of a weak one, and of
# the second that a track is given.
_LEAST_OVERLAP, _LEAST_OVERLAP_OF_WEAK, _LEAST_OVERLAP_OF_NEW = 0.1, 0.5, 0.3
# Spread of places and of their change in a frame, as shares of the root of a box's area.
_PLACE, _SPEED = 1 / 20, 1 / 30
_NEXT = np.array([[1.0, 1.0], [0.0, 1.0]])


class Tracker:
    """Follow the objects of one video through its frames.

    A Kalman filter of constant speed predicts where each track's box is. Detections of `min_score`
    or more are given to the tracks that they overlap most, all at once; then tracks that are left
    take weaker ones, so that an object which is half hidden keeps its number; what is left of the
    strong ones begins new tracks. A track has its number when it is found for the second time, as
    what is seen once alone is often nothing; those of the first frame have it at once. Objects of
    different classes are never one track. A track that nothing was found of for `patience` seconds
    ends, one without a number in the next frame.

    Args:
        min_score: a detection of this score or more begins a track, 0..1.
        rate: frames per second.
        patience: in seconds.

    Source: ByteTrack: Multi-Object Tracking by Associating Every Detection Box (arXiv:2110.06864)
    """

    def __init__(self, *, min_score: float, rate: float, patience: float = 1.0):
        self.min_score = min_score
        self.count = 0
        self._first = True
        self._patience = max(1, round(patience * rate))
        self._tracks = _Tracks()

    def update(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Take the detections of the next frame and tell which track each belongs to.

        Args:
            boxes: [n, 4] yxyx in pixels.
            scores: [n]
            classes: integers [n].

        Returns:
            int64 [n], numbers of tracks from 1, in the order in which they get them; 0 for
            detections that belong to none, or to one without a number.
        """
        tracks, ids = self._tracks, np.zeros(len(boxes), np.int64)
        free = np.ones(len(boxes), bool)
        places = np.asarray(boxes, np.float64).reshape(-1, 4)
        tracks.predict()
        known, before = tracks.ids > 0, tracks.missed == 0
        strong = scores >= self.min_score
        weak = ~strong & (scores >= _WEAK * self.min_score)
        found = np.zeros(len(known), bool)
        for wanted, given, least in (
            (known, strong, _LEAST_OVERLAP),
            (known & before, weak, _LEAST_OVERLAP_OF_WEAK),
            (~known, strong, _LEAST_OVERLAP_OF_NEW),
        ):
            rows, columns = np.flatnonzero(wanted & ~found), np.flatnonzero(given & free)
            ious = _ious(tracks.boxes[rows], places[columns])
            same = tracks.classes[rows, np.newaxis] == classes[columns]
            chosen = assign(np.where(same & (ious >= least), ious, 0.0))
            rows, columns = rows[chosen[0]], columns[chosen[1]]
            tracks.correct(rows, places[columns])
            self._number(tracks.ids, rows[tracks.ids[rows] == 0])
            found[rows], free[columns], ids[columns] = True, False, tracks.ids[rows]
        tracks.missed[~found] += 1
        tracks.keep(found | (known & (tracks.missed <= self._patience)))
        new = np.flatnonzero(strong & free)
        if self._first:
            self._number(ids, new)
        self._first = False
        tracks.begin(ids[new], classes[new], places[new])
        return ids

    def _number(self, ids: np.ndarray, places: np.ndarray) -> None:
        """Write the next numbers to places of an array."""
        ids[places] = self.count + 1 + np.arange(len(places))
        self.count += len(places)


@dataclasses.dataclass
class _Tracks:
    """The tracks that have not ended.

    Attributes:
        ids, classes: int64 [n]; an id is 0 before the second time.
        missed: int64 [n], frames since the last one.
        means: float64 [n, 4, 2]: middle in y and x, height and width, each with its change in a
            frame, in pixels.
        spreads: float64 [n, 2, 2], covariance of a place and its change, of all four.
    """

    ids: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    classes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    missed: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    means: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4, 2)))
    spreads: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2, 2)))

    @property
    def boxes(self) -> np.ndarray:
        """Where they are now: [n, 4] yxyx in pixels."""
        middles, sides = self.means[:, :2, 0], self.means[:, 2:, 0]
        return np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)

    def predict(self) -> None:
        """Move on by a frame."""
        # What is not seen moves on and keeps its size.
        self.means[self.missed > 0, 2:, 1] = 0.0
        self.means = self.means @ _NEXT.T
        self.means[:, 2:, 0] = np.maximum(self.means[:, 2:, 0], 1.0)
        self.spreads = _NEXT @ self.spreads @ _NEXT.T + _spread(self.means[:, :, 0], 1.0, 1.0)

    def correct(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Take what was found of some of them: boxes [m, 4] yxyx in pixels."""
        measured = _middles_and_sides(boxes)
        spreads = self.spreads[rows]
        doubt = spreads[:, 0, 0] + _spread(measured, 1.0, 0.0)[:, 0, 0]
        gain = spreads[:, 0] / doubt[:, np.newaxis]
        error = measured - self.means[rows, :, 0]
        self.means[rows] += error[:, :, np.newaxis] * gain[:, np.newaxis]
        self.spreads[rows] = spreads - gain[:, :, np.newaxis] * spreads[:, np.newaxis, 0]
        self.missed[rows] = 0

    def begin(self, ids: np.ndarray, classes: np.ndarray, boxes: np.ndarray) -> None:
        """Add new ones, which stand still as far as is known."""
        measured = _middles_and_sides(boxes)
        still = np.stack([measured, np.zeros_like(measured)], axis=2)
        new = _Tracks(
            ids=ids,
            classes=classes.astype(np.int64),
            missed=np.zeros(len(ids), np.int64),
            means=still,
            # Nothing is known of the speed, and one measurement of the place.
            spreads=_spread(measured, 2.0, 2.0),
        )
        for field in dataclasses.fields(self):
            both = [getattr(self, field.name), getattr(new, field.name)]
            setattr(self, field.name, np.concatenate(both))

    def keep(self, chosen: np.ndarray) -> None:
        """Leave out all that are not chosen, by a mask."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name)[chosen])


def _middles_and_sides(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def _spread(places: np.ndarray, place: float, speed: float) -> np.ndarray:
    """Return covariances [n, 2, 2] for middles and sides [n, 4], in multiples of the usual ones."""
    area = np.prod(np.maximum(places[:, 2:], 1.0), axis=1)
    usual = np.diag([(place * _PLACE) ** 2, (speed * _SPEED) ** 2])
    return area[:, np.newaxis, np.newaxis] * usual


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of each of n boxes with each of m, yxyx."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas, other_areas = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = areas[:, np.newaxis] + other_areas[np.newaxis] - shared
    return shared / np.maximum(union, 1e-9)


def assign(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose pairs of a row and a column, each in one pair at most, that gain most in all.

    Every row in turn takes a column along the shortest path of exchanges.

    Args:
        gains: [n, m], 0 or above; a pair of gain 0 is none.

    Returns:
        Rows and columns of the pairs, by rows.
    """
    if gains.shape[0] > gains.shape[1]:
        columns, rows = assign(gains.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    costs = np.max(gains, initial=0.0) - gains
    of_rows, of_columns = np.zeros(gains.shape[0]), np.zeros(gains.shape[1])
    owners = np.full(gains.shape[1], -1)
    for row in range(gains.shape[0]):
        lengths, before = np.full(len(owners), np.inf), np.full(len(owners), -1)
        done = np.zeros(len(owners), bool)
        current, column, length = row, -1, 0.0
        while current >= 0:
            reached = length + costs[current] - of_rows[current] - of_columns
            shorter = ~done & (reached < lengths)
            lengths[shorter], before[shorter] = reached[shorter], column
            column = int(np.argmin(np.where(done, np.inf, lengths)))
            length, done[column] = lengths[column], True
            current = owners[column]
        done[column] = False  # It has no row yet.
        of_rows[row] += length
        of_rows[owners[done]] += length - lengths[done]
        of_columns[done] -= length - lengths[done]
        while column >= 0:
            previous = before[column]
            owners[column] = owners[previous] if previous >= 0 else row
            column = previous
    columns = np.flatnonzero(owners >= 0)
    rows = owners[columns]
    worth = gains[rows, columns] > 0
    order = np.argsort(rows[worth])
    return rows[worth][order], columns[worth][order]
