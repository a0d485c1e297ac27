"""What `detect` is given: arrays, pictures of Pillow, files, and lists of these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import image as image_ops


def as_list(images: Any) -> list[tf.Tensor] | None:
    """Return pictures that come one by one, each uint8 [H, W, 3]; None for an array.

    Args:
        images: a file, a picture of Pillow, or a list or tuple of these and of arrays [H, W, 3].

    Raises:
        ValueError: there is none, or one of them is not uint8 RGB; says which.
        OSError: a file cannot be read.
    """
    if _is_single(images):
        return [_one(images, "detect()")]
    if not isinstance(images, list | tuple):
        return None
    if not images:
        raise ValueError("got an empty list of images; give at least one.")
    if not all(_is_single(image) or hasattr(image, "shape") for image in images):
        return None  # Nested lists of numbers.
    return [_one(image, f"image {place} of the list") for place, image in enumerate(images)]


def as_batch(images: Any) -> tf.Tensor:
    """Return uint8 [B, H, W, 3] of an array [H, W, 3] or [B, H, W, 3].

    Raises:
        ValueError: it is something else.
    """
    if images is None:
        raise ValueError(f"detect() got None. {_EXPECTED}")
    images = _checked(images, "detect()")
    return images if images.shape.rank == 4 else images[tf.newaxis]


_EXPECTED = (
    "It takes uint8 RGB images [B, H, W, 3] or [H, W, 3], pictures of Pillow, paths of image "
    "files, or a list of these."
)


def _is_single(image: Any) -> bool:
    # A picture of Pillow, without importing it.
    return isinstance(image, str | os.PathLike) or hasattr(image, "getbands")


def _one(image: Any, who: str) -> tf.Tensor:
    if isinstance(image, str | os.PathLike):
        return tf.constant(_read(os.path.expanduser(image)))
    if hasattr(image, "getbands"):
        return tf.constant(_pixels(image, who))
    image = _checked(image, who)
    if image.shape.rank != 3:
        raise ValueError(
            "detect() takes a list of images [H, W, 3], but one of the list has shape "
            f"{image.shape}; give a batch as it is, not in a list."
        )
    return image


def _read(path: str | os.PathLike) -> np.ndarray:
    """Read a file as the conversion of annotations, the evaluation and `predict` do: upright."""
    from ssd_centernet.data.images import check_image

    try:
        os.stat(path)  # The system's own words for a file that is not there.
    except OSError as error:
        raise OSError(f"detect() cannot read {os.fspath(path)}: {error.strerror}.") from error
    checked = check_image(path, upright=True)
    if checked.dropped:
        raise OSError(f"detect() cannot read {os.fspath(path)}: {checked.dropped}.")
    return image_ops.decode_image(tf.constant(checked.encoded)).numpy()


def _pixels(picture: Any, who: str) -> np.ndarray:
    """Return the pixels of a picture of Pillow as they are, not turned."""
    if picture.mode[0] in "IF":
        raise ValueError(
            f"{who} got a picture of mode {picture.mode!r}, whose range of numbers is not known; "
            "give the path of its file, or scale it to 8 bits."
        )
    return np.asarray(picture.convert("RGB"))


def _checked(images: Any, who: str) -> tf.Tensor:
    try:
        images = tf.convert_to_tensor(images)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who} got a {type(images).__name__}. {_EXPECTED}") from error
    shape = images.shape
    if images.dtype != tf.uint8 or shape.rank not in (3, 4) or shape[-1] != 3:
        raise ValueError(
            f"{who} takes uint8 RGB images [B, H, W, 3], got {images.dtype.name} {shape}; give "
            f"pixels in 0..255, not resized or normalised{_hint(images.dtype, shape)}."
        )
    if 0 in shape.as_list():
        raise ValueError(f"{who} got images of shape {shape}: they have no pixels.")
    return images


def _hint(dtype: tf.DType, shape: Sequence[int | None]) -> str:
    """Say how such an array becomes uint8 RGB, if it is clear."""
    rank = len(shape)
    if dtype == tf.string:
        return ": the path of a file, or its decoded pixels"
    if rank in (3, 4) and shape[-1] == 4:
        return ": image[..., :3] leaves out the alpha channel"
    if rank == 2 or (rank in (3, 4) and shape[-1] == 1):
        axis = "" if rank == 2 else "[..., 0]"
        return f": np.stack([image{axis}] * 3, axis=-1) makes colours of grey levels"
    if rank in (3, 4) and shape[-3] == 3:
        return ": the channels come last; np.moveaxis(image, -3, -1)"
    if dtype.is_floating:
        return ": of pixels in 0..1 (image * 255).round().astype('uint8')"
    if dtype.is_integer:
        return ": of pixels in 0..255 image.astype('uint8'), of 16 bits image >> 8 before"
    return ""
