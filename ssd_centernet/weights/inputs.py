"""What a network is given: order, means and deviations of channels, which its first kernel knows.

A kernel that was trained on other inputs is carried over exactly where that can be done: channels
are reordered, and each is multiplied by the ratio of the deviations. Other means cannot be made up
for at the border, where the padding is zero; a note tells of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssd_centernet.models.detector import Detector

# Pixels; below it nothing is said.
_SAME_MEAN = 0.5


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs that a network was trained with: `(pixels - mean) / std`, for pixels 0..255.

    Attributes:
        channels: "RGB" or "BGR".
        mean: of the channels, in their order; None if not known.
        std: their deviations; None if not known.
    """

    channels: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def rgb(self, values: Sequence[float]) -> np.ndarray:
        """Return values of the channels with red first."""
        return np.asarray(values, np.float64)[:: 1 if self.channels == "RGB" else -1]


class FirstKernel:
    """The kernel that reads the image, and what has to be done to it.

    Attributes:
        name: of the variable; None if nothing has to be done.
        notes: what was done, and what cannot be done.
    """

    def __init__(self, detector: Detector, theirs: Inputs | None, channels: str | None):
        """Compare what the file's network was given with what this one is given.

        Args:
            detector: with its preprocessing.
            theirs: the inputs of the file's network, if known.
            channels: the order of its channels where it is said.
        """
        self.name, self.notes = None, ()
        ours = _of(detector)
        order = channels or (theirs.channels if theirs else ours.channels)
        self._flip = order != ours.channels
        self._ratio = None
        if theirs is not None and theirs.mean is not None and ours.mean is not None:
            self._compare(ours, theirs)
        if self._flip or self._ratio is not None:
            self.name = _first_kernel(detector)

    def _compare(self, ours: Inputs, theirs: Inputs) -> None:
        ratio = ours.rgb(ours.std) / theirs.rgb(theirs.std)
        notes = []
        if not np.allclose(ratio, 1, rtol=1e-3):
            self._ratio = ratio[:: 1 if ours.channels == "RGB" else -1].astype(np.float32)
            notes.append(
                f"the network of the file divides pixels by {_told(theirs.rgb(theirs.std))} (R G "
                f"B), this one by {_told(ours.rgb(ours.std))}: its first kernel is multiplied by "
                f"{_told(ratio)}, which gives the same features"
            )
        apart = np.abs(ours.rgb(ours.mean) - theirs.rgb(theirs.mean)).max()
        if apart > _SAME_MEAN:
            notes.append(
                f"the network of the file subtracts {_told(theirs.rgb(theirs.mean))} (R G B) from "
                f"pixels, this one {_told(ours.rgb(ours.mean))}: features differ by as much as "
                "they do between pictures that are so much brighter; Preprocessing.mean sets it"
            )
        self.notes = tuple(notes)

    def fitted(self, kernel: np.ndarray) -> np.ndarray:
        """Return the kernel [height, width, 3, filters] for the detector's own inputs."""
        kernel = kernel[:, :, ::-1] if self._flip else kernel
        return kernel if self._ratio is None else kernel * self._ratio[:, None]


def _of(detector: Detector) -> Inputs:
    prepared = detector.preprocessing
    # A layer of the user's own need not have them.
    mean, std = getattr(prepared, "mean", None), getattr(prepared, "std", None)
    scale = getattr(prepared, "scale", 1.0)
    if mean is None or std is None:
        return Inputs(prepared.channels)
    scaled = [tuple(scale * value for value in values) for values in (mean, std)]
    return Inputs(prepared.channels, *scaled)


def _first_kernel(detector: Detector) -> str | None:
    for variable in detector.backbone.variables:
        if variable.shape.rank == 4 and variable.shape[2] == 3:
            return variable.name.removesuffix(":0")
    return None


def _told(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
