"""What the targets of an image say about its objects, in words that hold for any detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

# What became of an object: something learns it well, something learns it with a reservation that
# the detector's terms name, or nothing learns it.
MATCHED, WEAK, UNMATCHED = range(3)
# Codes round: the box of an object comes back from them no nearer than this, in fractions.
_SAME_BOX = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """Hold the words in which a detector speaks of its targets; the same for all images.

    Attributes:
        unit: what learns an object, such as "anchor"; the plural takes an s. Empty where the
            detector does not say.
        states: of `MATCHED`, `WEAK` and `UNMATCHED` those that occur, in this order: a name of one
            or two words, and what it means.
        heat: what `Matches.heat` shows; empty without one.
        quality: what `Matches.quality` measures, such as "best IoU"; empty without it.
        groups: names of the groups that `Matches.groups` numbers, such as the levels of a pyramid.
        notes: paragraphs below a table of the states.
    """

    unit: str
    states: Mapping[int, tuple[str, str]]
    heat: str = ""
    quality: str = ""
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """Hold what the targets of one image match with its N objects.

    Attributes:
        terms: the words for all of this.
        states: int [N], `MATCHED`, `WEAK` or `UNMATCHED`.
        owners: int [P], the object that each of P units learns, -1 where no object is as the
            targets say.
        boxes: float32 [P, 4], the units as boxes to draw, yxyx fractions of the network's input;
            None where they are none.
        points: float32 [P, 2], the units as points to draw, yx fractions; None where they are none.
        heat: float32 [rows, columns] in [0, 1], a picture to lay over the input; None without one.
        quality: float [N], how well an object can be matched at best; None without a measure.
        groups: int [N], the group of the unit that fits the object best, -1 without one; None
            without groups.
        remarks: phrase -> bool [N], the objects of which it is true.
    """

    terms: Terms
    states: np.ndarray
    owners: np.ndarray
    boxes: np.ndarray | None = None
    points: np.ndarray | None = None
    heat: np.ndarray | None = None
    quality: np.ndarray | None = None
    groups: np.ndarray | None = None
    remarks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def find_owners(
    coded: np.ndarray, boxes: np.ndarray, allowed: np.ndarray, *, one_each: bool = False
) -> np.ndarray:
    """Find the objects whose boxes targets hold.

    Args:
        coded: float32 [P, 4], the boxes that the targets of P units say.
        boxes: float32 [N, 4] of the objects, in the same frame of about unit size.
        allowed: bool [P, N], whether the unit's class is the object's.
        one_each: whether an object has one unit at most, so that of two equal objects each has its
            own; else the first has the units of both.

    Returns:
        int [P], -1 where no object of the class has the box.
    """
    owners = np.full(len(coded), -1)
    distance = np.abs(coded[:, np.newaxis] - boxes).max(axis=-1, initial=0.0)
    distance = np.where(allowed, distance, np.inf)
    for unit, row in enumerate(distance):
        if row.min(initial=np.inf) <= _SAME_BOX:
            owners[unit] = row.argmin()
            if one_each:
                distance[:, owners[unit]] = np.inf
    return owners


def best_units(owners: np.ndarray, fit: np.ndarray, count: int) -> np.ndarray:
    """Find the unit that fits each object best.

    Args:
        owners: int [P], as of `Matches`.
        fit: float [P], how well each unit fits its object.
        count: N.

    Returns:
        int [N], the unit's index, -1 where no unit learns the object.
    """
    best = np.full(count, -1)
    for unit in np.argsort(fit, kind="stable"):  # The best comes last and stays.
        if owners[unit] >= 0:
            best[owners[unit]] = unit
    return best


def at_best(values: np.ndarray, best: np.ndarray, missing) -> np.ndarray:
    """Pick a value [P] a unit for the best unit of each object, `missing` where there is none."""
    return np.append(values, missing)[best]  # Index -1 is the last, the one appended.


def states_of(best: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return the state of each object, with or without reservation as its best unit is good."""
    return np.where(best < 0, UNMATCHED, np.where(at_best(good, best, False), MATCHED, WEAK))


_BY_OMISSION = Terms(
    unit="",
    states={
        MATCHED: ("learned", "the targets change without the object"),
        UNMATCHED: ("never", "the targets are the same without the object"),
    },
    notes=("learned: the targets are others without the object. never: they are the same.",),
)


def explain_by_omission(make_targets: Callable[..., dict], *objects: tf.Tensor) -> Matches:
    """Tell of any targets which objects count, by leaving out each of them in turn.

    One that changes nothing stays out, so that of two equal objects one is learned.

    Args:
        make_targets: of one image, from fields of its objects.
        *objects: the fields, each [N, ...].

    Returns:
        Which objects the targets depend on.
    """
    kept = np.ones(len(objects[0]), bool)
    whole = tf.nest.flatten(make_targets(*objects))
    for index in reversed(range(len(kept))):
        kept[index] = False
        rest = tf.nest.flatten(make_targets(*(tf.boolean_mask(field, kept) for field in objects)))
        kept[index] = not all(np.allclose(a, b) for a, b in zip(whole, rest, strict=True))
    states = np.where(kept, MATCHED, UNMATCHED)
    return Matches(terms=_BY_OMISSION, states=states, owners=np.flatnonzero(kept))
