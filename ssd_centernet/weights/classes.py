"""Class predictions from a detector of other classes: reuse the rows of common classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssd_centernet.models.detector import Detector
from ssd_centernet.weights.convention import class_names


@dataclasses.dataclass(frozen=True)
class ClassRows:
    """Split class predictions [..., n * K] into rows and join them again.

    Attributes:
        names: the detector's classes; None if unknown.
        count: C, their number.
        background: whether a row of background comes before the classes.
    """

    names: tuple[str, ...] | None
    count: int
    background: bool

    @classmethod
    def of(cls, detector: Detector) -> ClassRows:
        """Describe the class predictions of a detector."""
        return cls(detector.class_names, detector.num_classes, detector.PREDICTS_BACKGROUND)

    @property
    def rows(self) -> int:
        """Return K, the number of classes with the background if there is one."""
        return self.count + self.background

    def fits(self, source: Sequence[int], target: Sequence[int]) -> bool:
        """Tell whether shapes differ only in the number of classes."""
        repeats = target[-1] // self.rows
        return (
            len(source) == len(target)
            and tuple(source[:-1]) == tuple(target[:-1])
            and source[-1] % repeats == 0
            and source[-1] // repeats > self.background
        )

    def sources(
        self, shape: Sequence[int], target: Sequence[int], names: Sequence[str | None] | None
    ) -> np.ndarray:
        """Find the row of the checkpoint for each class of the detector.

        Args:
            shape: shape of the tensor, one that `fits`.
            target: shape of the variable.
            names: names of the checkpoint's classes, if known.

        Returns:
            int [C], -1 if the checkpoint does not know the class. If one side has no names, equal
            numbers of classes count as the same classes.
        """
        count = shape[-1] // (target[-1] // self.rows) - self.background
        names = names if names is not None and len(names) == count else class_names(count)
        if names is None or self.names is None:
            same = count == self.count
            return np.arange(self.count) if same else np.full(self.count, -1)
        places = {name: index for index, name in enumerate(names)}
        return np.array([places.get(name, -1) for name in self.names])

    def merge(
        self, tensor: np.ndarray, fresh: np.ndarray, sources: np.ndarray, *, background_last: bool
    ) -> np.ndarray:
        """Replace rows of a new variable by the known rows of a checkpoint.

        Args:
            tensor: tensor of the checkpoint.
            fresh: value of the variable.
            sources: result of `sources`.
            background_last: whether the background comes after the classes in the checkpoint.

        Returns:
            An array of the variable's shape; unchanged if no class is known.
        """
        known = np.flatnonzero(sources >= 0)
        if not known.size:
            return fresh
        repeats = fresh.shape[-1] // self.rows
        old = tensor.reshape(*tensor.shape[:-1], repeats, -1)
        new = fresh.copy().reshape(*fresh.shape[:-1], repeats, self.rows)
        first = int(self.background)
        if self.background:
            new[..., 0] = old[..., -1 if background_last else 0]
        before = 0 if background_last else first
        new[..., known + first] = old[..., sources[known] + before]
        return new.reshape(fresh.shape)


def check_same(detector: Detector, names: Sequence[str] | None, path: str) -> None:
    """Raise an error for other classes if the detector does not say which rows belong to them.

    Raises:
        ValueError: the classes of both sides are known and differ.
    """
    if None not in (names, detector.class_names) and tuple(names) != detector.class_names:
        raise ValueError(
            f"{path} predicts {', '.join(names)}, the detector {', '.join(detector.class_names)}"
            f", and {type(detector).__name__} does not say which rows of its weights belong to "
            "a class (`class_variables`). Leave these layers out with train.fine_tune_exclude, "
            "or give the head `class_layers`."
        )
