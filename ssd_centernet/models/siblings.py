"""A detector at another size of images: the same layers and weights under another input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ssd_centernet._keras import keras

if TYPE_CHECKING:
    from ssd_centernet.models.detector import Detector


def at_size(detector: Detector, image_size: Sequence[int]) -> Detector:
    """Return the detector that has the same layers for images of another size.

    Args:
        detector: any detector whose constructor takes `image_size` and its parts, built.
        image_size: (height, width) of the images in pixels.

    Returns:
        The detector itself at its own size; else another of its class, which is kept with it.
        Variables are shared: what trains one trains both. A part that has `at_size(image_size,
        before=...)`, such as `Preprocessing` and `DefaultBoxes`, is replaced by what that returns.

    Raises:
        ValueError: the layers have no form for such images, or the detector computes in integers.
    """
    size = tuple(image_size)
    if size == detector.image_size:
        return detector
    if detector.quantized is not None:
        raise ValueError(
            f"images of {size} pixels need another form of the network, but one with "
            f"build_detector.quantize has that of {detector.image_size} alone: its ranges are of "
            "the graph at this size. Leave other sizes or build_detector.quantize out."
        )
    known = detector.__dict__.get("_siblings", {})
    parts = tuple(getattr(detector, name) for name in detector.PARTS)
    if size not in known or not _same(known[size][0], parts):
        known = {**known, size: (parts, _built(detector, size))}
        # Keras would track and save what is set as an attribute.
        object.__setattr__(detector, "_siblings", known)
    return known[size][1]


def missing_cells(detector: Detector, form: Detector) -> str:
    """Say which map of a form has less than a cell, and is there by padding alone.

    The last levels of a head may be padded so, as those of SSD300 at 256 pixels are.

    Args:
        detector: any detector, built.
        form: the same for images of another size, see `at_size`.

    Returns:
        What is wrong in words; '' where each level of the backbone, and the second of a head, has
        a cell.
    """
    if form is detector:
        return ""
    levels = getattr(getattr(detector, "backbone", None), "output", None)
    # Level n has the stride 2^n, which an image must fill.
    strides = [2 ** int(key.split("_")[0]) for key in levels] if isinstance(levels, dict) else [1]
    if max(strides) > min(form.image_size):
        return f"a cell of its backbone's coarsest map has {max(strides)} pixels"
    own, now = (getattr(one, "feature_sizes", None) or () for one in (detector, form))
    if len(own) > 1 and own[0] != own[1] and now[0] == now[1]:
        height, width = now[0]
        return f"its first two maps, which halve, both have {height} x {width} cells"
    return ""


def _built(detector: Detector, size: tuple[int, int]) -> Detector:
    config = detector.get_config()
    policy = config.pop("dtype", None)
    for name in detector.PARTS:
        part = getattr(detector, name)
        if hasattr(part, "at_size"):
            part = part.at_size(size, before=detector.image_size)
        config[name] = part
    try:
        with under_policy(policy):
            return type(detector)(**{**config, "image_size": size})
    except ValueError as error:
        said = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the {type(detector).__name__} for images of {detector.image_size} pixels has no form "
            f"for images of {size}: {said} Choose a size that its layers can take: multiples of "
            "32 suit most, larger than their coarsest stride."
        ) from error


def _same(before: Sequence, now: Sequence) -> bool:
    return all(one is other for one, other in zip(before, now, strict=True))


@contextlib.contextmanager
def under_policy(name: str | None) -> Iterator[None]:
    """Set Keras' policy while a model is built; None leaves it as it is.

    A backbone is rebuilt from its constructor's arguments, which do not include its precision.
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name or before)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
