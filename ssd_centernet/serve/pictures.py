"""The bytes that a stranger sends as a picture: judged by their header, then decoded."""

from __future__ import annotations

import io
import re

from PIL import Image

from ssd_centernet.predict.image_files import Picture, decode_picture
from ssd_centernet.serve.settings import Refused

# Pillow reads many more kinds: some by programs of their own (EPS by Ghostscript), some without a
# bound on the memory (tiles of TIFF), some in time that grows with the square of a comment (GIF).
_JPEG, _PNG, _WEBP = "JPEG", "PNG", "WEBP"
# Each scan of a progressive JPEG goes over all of its pixels, and takes a few bytes of the file.
# Encoders write about ten.
MAX_SCANS = 64
_SCAN, _END = b"\xff\xda", 0xD9
# Among pixels: no zero byte follows, which stands for 0xFF itself, and it is none that restarts.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Segments of a JPEG before its first scan, those from there on, and chunks of a PNG.
MAX_SEGMENTS = 2_000
MAX_CHUNKS = 20_000
_NO_PICTURE = "This is no picture that is read here: expected a JPEG, PNG or WebP."
_DAMAGED = "The picture is truncated or corrupt."


def read(data: bytes, max_pixels: int) -> Picture:
    """Decode a picture, once its header says that it may be decoded.

    Call it inside of `data.images.pillow_limit(None)`: Pillow's own limit is another one.

    Args:
        data: what was sent.
        max_pixels: most pixels of a picture.

    Returns:
        The picture, upright, with the pixels that `ssd_centernet predict` takes.

    Raises:
        Refused: it is no picture of a kind that is read, too large, or damaged.
    """
    kind = _check(data, max_pixels)
    try:
        return decode_picture(data, max_pixels=max_pixels, formats=(kind,))
    except (OSError, ValueError) as error:
        raise Refused(400, f"The picture cannot be read: {error}.") from error


def _check(data: bytes, max_pixels: int) -> str:
    """Look at the header of a picture, and return its kind; nothing is decoded."""
    if not data:
        raise Refused(400, "The body is empty: send the bytes of a picture.")
    kind = _kind_of(data)
    if kind is None:
        raise Refused(415, _NO_PICTURE)
    if kind == _JPEG:
        _check_segments(data)
    if kind == _PNG:
        _check_chunks(data)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            width, height = image.size
    except Exception as error:  # Pillow's plug-ins raise struct.error, SyntaxError and more.
        raise Refused(400, _DAMAGED) from error
    if width * height > max_pixels:
        raise Refused(
            413,
            f"The picture has {width} x {height} pixels, and at most {max_pixels:,} are taken: "
            "make it smaller.",
        )
    return kind


def _kind_of(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    return _WEBP if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _check_segments(data: bytes) -> None:
    """Refuse a JPEG that is made to be slow to read."""
    place = 2
    for _ in range(MAX_SEGMENTS):
        if data[place : place + 2] == _SCAN:
            _check_scans(data, place)
            return
        marker = data[place + 1 : place + 2]
        if not marker:
            raise Refused(400, _DAMAGED)
        if data[place] != 0xFF or marker[0] in (0x00, 0xFF):
            place += 1  # What fills the space between two segments.
        elif marker[0] == 0x01 or 0xD0 <= marker[0] <= 0xD9:
            place += 2  # A marker without a segment.
        else:
            place = _after_segment(data, place)
    raise Refused(413, f"The JPEG has more than {MAX_SEGMENTS:,} segments: save it again.")


def _check_scans(data: bytes, place: int) -> None:
    """Count the scans from the first one on, as decoders do: up to the end marker.

    What follows it is not read: phones put a film there (motion photos), whose bytes hold
    everything by chance.
    """
    scans = 0
    for _ in range(MAX_SEGMENTS):
        code = data[place + 1]
        if code == _END:
            return
        scans += code == _SCAN[1]
        if scans > MAX_SCANS:
            raise Refused(
                413, f"The JPEG has more than {MAX_SCANS} scans, which is the most: save it again."
            )
        # Decoders pass over a code below 0xC0 among the pixels; it has no segment.
        place = _after_segment(data, place) if code >= 0xC0 and code != 0xD8 else place + 2
        found = _MARKER.search(data, place)
        if found is None:
            return  # Cut off, which the decoder tells.
        place = found.start()
    raise Refused(413, f"The JPEG has more than {MAX_SEGMENTS:,} segments: save it again.")


def _after_segment(data: bytes, place: int) -> int:
    return place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG that is made to be slow to read."""
    place = 8
    for _ in range(MAX_CHUNKS):
        place += 12 + int.from_bytes(data[place : place + 4], "big")
        if place >= len(data):
            return
    raise Refused(413, f"The PNG has more than {MAX_CHUNKS:,} chunks: save it again.")
