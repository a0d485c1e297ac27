"""Image files for detection: finding, reading upright, numbering, naming drawings."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.ops import image as image_ops

# Read by TensorFlow, as training and evaluation read them: decoders differ by some grey levels.
_TENSORFLOW_FORMATS = ("JPEG", "PNG", "BMP")
_ORIENTATION_TAG = 0x0112
_LARGEST_ID = 2**53


def find_images(
    arguments: Iterable[str | os.PathLike], *, without: str | os.PathLike | None = None
) -> list[str]:
    """List image files.

    Args:
        arguments: files, and folders; from a folder and its sub-folders, all files with an ending
            that Pillow reads are taken, in order of their names.
        without: a folder to leave out, such as that of earlier drawings.

    Returns:
        Paths, each once.
    """
    Image.init()
    endings = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    skipped = None if without is None else Path(without).resolve()
    found: dict[str, None] = {}
    for argument in map(Path, arguments):
        if not argument.is_dir():
            found[str(argument)] = None
            continue
        for path in sorted(argument.rglob("*")):
            inside = skipped is not None and skipped in path.resolve().parents
            if path.suffix.lower() in endings and path.is_file() and not inside:
                found[str(path)] = None
    return list(found)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as upright RGB.

    Args:
        path: of any format that Pillow reads.

    Returns:
        uint8 [H, W, 3], turned as the EXIF orientation says; the first frame of several, without
        alpha channel.

    Raises:
        OSError: there is no such file, or it is not an image.
        ValueError: the image is damaged, or has more pixels than Pillow allows.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
            if picture.format in _TENSORFLOW_FORMATS:
                pixels = image_ops.decode_image(tf.constant(data)).numpy()
            else:
                pixels = _to_rgb(picture)
    except Image.UnidentifiedImageError as error:
        raise OSError("not an image of a format that Pillow reads") from error
    # Pillow raises SyntaxError for broken PNGs.
    except (tf.errors.OpError, Image.DecompressionBombError, SyntaxError) as error:
        # TensorFlow adds the names of the function and of the operation to its reason.
        reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error), flags=re.DOTALL)
        raise ValueError(f"damaged, or too large: {reason[:200]}") from error
    return np.ascontiguousarray(turn_upright(pixels, orientation))


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image by its EXIF orientation.

    Args:
        pixels: [H, W, 3].
        orientation: 1..8; anything else leaves the image as it is.

    Returns:
        [H, W, 3] or [W, H, 3].
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def number_images(files: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """Give every file its own image id.

    Args:
        files: paths.
        known: ids by file name without folder, as annotations have them.

    Returns:
        Path -> id: the known one, or the number in the file name (000000000139.jpg), or, if it is
        not a number or already taken, the next free number from 1.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for path in files:
        name = os.path.basename(path)
        stem = os.path.splitext(name)[0]
        number = known.get(name)
        if number is None and stem.isascii() and stem.isdigit() and int(stem) <= _LARGEST_ID:
            number = int(stem)
        if number is not None and number not in taken:
            ids[path] = number
            taken.add(number)
    # Known ids stay free for their own images.
    taken |= set(known.values())
    running = 1
    for path in files:
        if path not in ids:
            while running in taken:
                running += 1
            ids[path] = running
            taken.add(running)
    return ids


def output_names(files: Sequence[str], ending: str, *, reserved: Sequence[str] = ()) -> dict:
    """Give every input its own output file name, whatever its folder and ending.

    Args:
        files: paths.
        ending: ending of the output files, such as '.png'.
        reserved: names without ending that are not used.

    Returns:
        Path -> file name: the stem of the input, with _2, _3, ... if it is taken.
    """
    names: dict[str, str] = {}
    # Some file systems ignore upper and lower case.
    taken = {name.lower() for name in reserved}
    for path in files:
        stem = os.path.splitext(os.path.basename(path))[0]
        candidate, number = stem, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{stem}_{number}"
        taken.add(candidate.lower())
        names[path] = candidate + ending
    return names


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """Convert to uint8 RGB; scale 16-bit greys, which Pillow would clip."""
    if picture.mode.startswith("I"):
        grey = (np.asarray(picture).astype(np.float64) / 257.0).round().clip(0, 255)
        return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    return np.asarray(picture.convert("RGB"))
