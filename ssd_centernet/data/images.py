"""What a picture file holds: one function for what is stored, trained on, fed and shown.

A file is turned into bytes that training can decode. Conversion stores these bytes, prediction and
the galleries of reports decode them: all see the same pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from ssd_centernet.data.orientation import (
    is_shown_turned,
    is_upright,
    orientation_of,
    stored_size,
    turn,
)

# Pillow's own bound against decompression bombs: a quarter of a gigabyte of RGB.
DEFAULT_MAX_PIXELS = 89_478_485
# A resized copy keeps its aspect ratio up to rounding of the sides.
ASPECT_TOLERANCE = 0.02
JPEG_QUALITY = 95
# A record, as all messages of protobuf, has at most this many bytes.
_MAX_BYTES = 2**31 - 1

NO_IMAGE = "not an image, or of a kind that Pillow cannot read"
DAMAGED = "truncated or corrupt"
NO_SIZE = "width or height missing in the annotations: taken from the file"
_READ_AS_IS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_IGNORED = "EXIF orientation ignored: boxes refer to the stored pixels"
_IF_SHOWN = (
    ". No size is listed, and the boxes do not tell: if the tool showed pictures turned, list "
    "their width and height as shown"
)


@dataclass
class CheckedImage:
    """An image file as it will be stored, or the reason why it was dropped.

    `scale` converts pixels of the annotations to pixels of the stored image, in x and y. `digest`
    is of the file: equal files have equal ones. `tiles` are (window, encoded) of each tile of a
    picture that was cut; it has no bytes of its own then.
    """

    encoded: bytes = b""
    format: str = ""
    width: int = 0
    height: int = 0
    scale: tuple[float, float] = (1.0, 1.0)
    digest: str = ""
    dropped: str = ""
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tiles: list[tuple[tuple[int, int, int, int], bytes]] = field(default_factory=list)


class _UnusableError(Exception):
    """Why a picture cannot be used, as the report says it."""


def check_image(
    source: str | os.PathLike | bytes,
    *,
    listed_width: int = 0,
    listed_height: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    decode: Callable[[bytes], object] | None = None,
    upright: bool = False,
    formats: Sequence[str] | None = None,
) -> CheckedImage:
    """Read an image file and decide how to store it.

    JPEG and PNG are stored byte for byte, whatever the name of the file; one channel stays one
    channel. Encoded again are other formats (their first picture), CMYK JPEGs, and grey levels of
    16 bits or floats, which are scaled to 8 bits. Transparency is left out. A JPEG that lacks only
    its end marker is given one. The size in the header is checked against `max_pixels` before
    decoding; pipes and devices are not opened.

    Boxes of COCO refer to the stored pixels, so an EXIF orientation tag is ignored, as decoders do,
    unless the annotation file lists the size of the turned picture: then the picture is turned. If
    the listed size differs in another way, the file's size is used. With the same aspect ratio (a
    resized copy), boxes are scaled. With another one the picture was cropped or is a different one:
    no box can be trusted, and the image is dropped.

    Args:
        source: the file, or its content.
        listed_width, listed_height: size in the annotation file, 0 if it has none.
        max_pixels: most pixels that an image may have.
        decode: a function of the stored bytes that raises ValueError if training could not
            decode them; None is `decode_with_pillow`.
        upright: whether boxes refer to pictures turned by their EXIF orientation, where the listed
            size does not tell; see `orientation.decide_turning`.
        formats: Pillow's names of the formats that are tried; None for all that it reads.

    Returns:
        The image to store, or the reason why it was dropped.
    """
    decode = decode or decode_with_pillow
    listed = (listed_width, listed_height)
    try:
        data = source if isinstance(source, bytes) else _read_file(source)
        try:
            result = _checked(data, listed, max_pixels, decode, upright, formats)
        except _UnusableError as error:
            whole = _with_end_marker(data) if str(error) == DAMAGED else None
            if whole is None:
                raise
            result = _checked(whole, listed, max_pixels, decode, upright, formats)
            result.repairs.append("JPEG without its end marker: added, all pixels are there")
    except _UnusableError as error:
        return CheckedImage(dropped=str(error))
    except OSError as error:
        return CheckedImage(dropped=f"cannot be read: {error.strerror or error}")
    result.digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    _compare_sizes(result, *listed)
    return result


def decode_with_pillow(encoded: bytes) -> np.ndarray:
    """Decode what `check_image` made, without tensorflow.

    Args:
        encoded: a JPEG or PNG of 8 bits a channel.

    Returns:
        uint8 [H, W, 3]. JPEGs may differ from TensorFlow's by a few grey levels.

    Raises:
        ValueError: the data are damaged.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            # Of what is RGB already, `convert` would make a copy.
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise many kinds of errors on bad files.
        raise ValueError(str(error)) from error


@contextlib.contextmanager
def pillow_limit(limit: int | None) -> Iterator[None]:
    """Switch off Pillow's own pixel limit; `max_pixels` replaces it."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


# --- the stored form -------------------------------------------------------------------------


def _read_file(path: str | os.PathLike) -> bytes:
    """Read a regular file whole; a pipe or a device would never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableError("not a regular file")
    if not status.st_size:
        raise _UnusableError("empty: 0 bytes")
    if status.st_size > _MAX_BYTES:
        raise _UnusableError("more than 2 GiB, which no record can hold")
    with open(path, "rb") as file:
        return file.read()


def _checked(
    data: bytes, listed: tuple[int, int], max_pixels: int, decode, upright: bool, formats
) -> CheckedImage:
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise _UnusableError(f"more than max_pixels = {max_pixels} pixels")
            result = _stored_form(image, data, listed, upright)
    except _UnusableError:
        raise
    except Image.DecompressionBombError as error:
        raise _UnusableError(f"more than max_pixels = {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise _UnusableError(_unidentified(data)) from error
    except Exception as error:  # Pillow's plug-ins raise struct.error, SyntaxError and more.
        raise _UnusableError(DAMAGED) from error
    try:
        decode(result.encoded)
    except ValueError as error:
        raise _UnusableError(DAMAGED) from error
    return result


def _unidentified(data: bytes) -> str:
    if not data:
        return "empty: 0 bytes"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"hevc", b"msf1"):
        return "HEIC, which Pillow cannot read: convert it to JPEG"
    return NO_IMAGE


def _stored_form(
    image: Image.Image, data: bytes, listed: tuple[int, int], upright: bool
) -> CheckedImage:
    kind = _READ_AS_IS.get(image.format or "")
    orientation = orientation_of(image, data)
    size = stored_size(image, orientation)
    turned = is_shown_turned(orientation, size, listed, upright)
    result = CheckedImage(data, kind or "", *size)
    if turned:
        as_what = "boxes are" if upright else "listed size is"
        result.repairs.append(f"turned by its EXIF orientation, as its {as_what}")
    elif orientation != 1:
        result.notes.append(_IGNORED if min(listed) > 0 else f"{_IGNORED}{_IF_SHOWN}")
    if getattr(image, "is_animated", False):
        result.notes.append("holds several pictures: the first one is used")
    deep = image.mode[0] in "IF"
    if kind is None:
        result.repairs.append(f"{image.format} encoded again")
    elif image.mode == "CMYK":
        result.repairs.append("CMYK JPEG encoded again as RGB")
    image_format = image.format
    if kind is not None and not (turned or image.mode == "CMYK" or deep):
        if data[:4] == b"\x89PNG" and data[24] == 16:
            _check_deep_colour(image)
        return result
    is_shown = _load(image)
    pixels = _eight_bits(image, result.repairs)
    if turned != is_shown:
        pixels = turn(pixels, orientation, back=is_shown)
    result.encoded, result.format = encode_pixels(
        pixels, "jpeg" if image_format in _LOSSY else "png"
    )
    result.width, result.height = pixels.size
    return result


def _load(image: Image.Image) -> bool:
    """Decode a picture, and tell whether Pillow has turned it."""
    image.load()
    return is_upright(image)


def _eight_bits(image: Image.Image, repairs: list[str]) -> Image.Image:
    """Return a decoded picture with one or three channels of 8 bits."""
    if image.mode in ("L", "RGB"):
        if image.format == "TIFF" and max(_tiff_bits(image)) > 8:
            _check_deep_colour(image)
        return image
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow takes all for Adobe's, whose levels are inverted; others' are not.
        return ImageChops.invert(image).convert("RGB")
    if image.mode[0] in "IF":
        levels = np.asarray(image)
        reason, scaled = _scale_levels(levels, _tiff_bits(image)[0])
        repairs.append(reason)
        return Image.fromarray(scaled)
    try:
        if image.mode == "1" or image.mode.startswith("L"):
            return image.convert("L")
        return image.convert("RGB")
    except ValueError as error:
        raise _UnusableError(f"pixels of the kind {image.mode}: save it as RGB") from error


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    bits = getattr(image, "tag_v2", {}).get(258, (0,))
    return bits if isinstance(bits, tuple) else (bits,)


def _scale_levels(levels: np.ndarray, bits: int) -> tuple[str, np.ndarray]:
    """Scale grey levels of more than 8 bits, by the depth that they use.

    Args:
        levels: [H, W] of any integer or float type.
        bits: depth that the file names, 0 if it names none.

    Returns:
        A reason for the report, and uint8 [H, W].
    """
    if levels.dtype.kind == "f":
        finite = np.isfinite(levels)
        levels = np.where(finite, levels, 0.0)
        low, high = float(levels.min()), float(levels.max())
        # Resampling overshoots a little.
        if low >= -0.1 and high <= 1.1:
            scaled = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
            return "float pixels of 0..1 scaled to 8 bits", scaled
        if low >= -8.0 and 16.0 < high <= 263.0:
            scaled = np.rint(levels.clip(0, 255)).astype(np.uint8)
            return "float pixels of 0..255 rounded to 8 bits", scaled
        if low >= 0.0 and 263.0 < high <= 65535.0:
            levels = np.rint(levels).astype(np.int64)
    low, high = levels.min(), levels.max()
    if levels.dtype.kind == "f" or low < 0 or high > 65535:
        span = max(float(high) - float(low), 1e-30)
        scaled = np.rint((levels.astype(np.float64) - low) / span * 255).astype(np.uint8)
        return "pixels of an unknown range: its own range scaled to 8 bits", scaled
    if not 8 < bits < 16:
        bits = 16 if high > 4095 else 12 if high > 255 else 8
    # As TensorFlow reads a PNG of 16 bits: the upper 8 of the bits in use.
    scaled = (levels >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if bits == 16:
        return "grey levels of 16 bits scaled to 8", scaled
    return f"grey levels of 16 bits that use {bits}: scaled to 8", scaled


def _check_deep_colour(image: Image.Image) -> None:
    """Refuse colours of 16 bits that use 12: decoders keep the upper 8, nearly black."""
    colours = 1 if image.mode.startswith("L") else 3
    extrema = np.reshape(image.getextrema(), (-1, 2))[:colours]
    if extrema[:, 1].max() <= 15:
        raise _UnusableError("colours of 16 bits that use 12 or fewer: scale them to 8 bits")


def encode_pixels(pixels: Image.Image, kind: str) -> tuple[bytes, str]:
    """Return the bytes of a picture of mode L or RGB as 'jpeg' or 'png', and the kind."""
    stream = io.BytesIO()
    # Only pixels go in: a copied orientation tag would turn the picture a second time, and a
    # copied index of transparency would make colours transparent.
    plain = Image.fromarray(np.asarray(pixels))
    plain.save(stream, kind.upper(), **({"quality": JPEG_QUALITY} if kind == "jpeg" else {}))
    return stream.getvalue(), kind


def _compare_sizes(result: CheckedImage, listed_width: int, listed_height: int) -> None:
    if (listed_width, listed_height) == (result.width, result.height):
        return
    if listed_width <= 0 or listed_height <= 0:
        result.notes.append(NO_SIZE)
        return
    scale = (result.width / listed_width, result.height / listed_height)
    # One pixel of rounding is allowed for on either side, which matters for small pictures.
    slack = ASPECT_TOLERANCE + 1 / min(listed_width, listed_height, result.width, result.height)
    if abs(scale[0] / scale[1] - 1.0) > slack:
        result.dropped = "aspect ratio differs from the listed one: cropped, or another picture"
        if (listed_height, listed_width) == (result.width, result.height):
            result.dropped = "listed width and height are swapped, or the picture was turned"
        return
    result.scale = scale
    result.repairs.append("size differs from the listed one: boxes scaled to the file's pixels")


# --- JPEGs that lack their end ----------------------------------------------------------------


def _with_end_marker(data: bytes) -> bytes | None:
    """Return a JPEG with an end marker if nothing else of it is missing, else None.

    Where pixels are missing, the decoder makes them of what follows. So two different fillers
    before the end marker give two pictures, unless all pixels are there.
    """
    if data[:2] != _SOI or not _has_all_scans(data):
        return None
    first = None
    for filler in (b"", b"\x00" * 64, b"\xaa" * 64, b"\x5b" * 64):
        try:
            with Image.open(io.BytesIO(data + filler + _EOI)) as image:
                pixels = np.asarray(image)
        except Exception:  # Damaged in another way.
            return None
        first = pixels if first is None else first
        if not np.array_equal(first, pixels):
            return None
    return data + _EOI


def _has_all_scans(data: bytes) -> bool:
    """Tell whether the scans of a JPEG give every coefficient of every component in full."""
    missing: set[tuple[int, int]] = set()
    for match in re.finditer(rb"\xff([\xc0-\xc2\xda])", data):
        place = match.start() + 4
        if match[1] != b"\xda":
            count = data[place + 5] if place + 5 < len(data) else 0
            components = data[place + 6 : place + 6 + 3 * count : 3]
            missing = {(component, k) for component in components for k in range(64)}
            continue
        count = data[place] if place < len(data) else 0
        ends = data[place + 1 + 2 * count : place + 4 + 2 * count]
        if len(ends) == 3 and not ends[2] & 15:
            for component in data[place + 1 : place + 1 + 2 * count : 2]:
                missing -= {(component, k) for k in range(ends[0], ends[1] + 1)}
    return not missing
