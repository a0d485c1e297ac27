"""Image files for detection: finding, reading upright, numbering, naming drawings."""

from __future__ import annotations

import dataclasses
import io
import os
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.images import (
    DEFAULT_MAX_PIXELS,
    NO_IMAGE,
    NO_SIZE,
    check_image,
    decode_with_pillow,
    pillow_limit,
)
from ssd_centernet.ops import image as image_ops
from ssd_centernet.plain_text import counted

_LARGEST_ID = 2**53
# Its decoder of JPEGs refuses more bytes than these, which are three for each pixel.
_DECODED_BY_TENSORFLOW = 2**29 // 3


def find_images(
    arguments: Iterable[str | os.PathLike], *, without: str | os.PathLike | None = None
) -> list[str]:
    """List image files.

    Args:
        arguments: files, and folders; from a folder and its sub-folders, all files with an ending
            that Pillow reads are taken, in order of their names, but no hidden ones and none of
            __MACOSX, which hold no pictures.
        without: a folder to leave out, such as that of earlier drawings.

    Returns:
        Paths, each once.
    """
    Image.init()
    endings = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return find_files(arguments, endings, without=without)


def find_files(
    arguments: Iterable[str | os.PathLike],
    endings: Container[str],
    *,
    without: str | os.PathLike | None = None,
) -> list[str]:
    """List files, and those of folders that have one of some endings.

    Args:
        arguments, without: as of `find_images`.
        endings: in lower case, such as '.mp4'.

    Returns:
        Paths, each once.
    """
    skipped = None if without is None else Path(without).resolve()
    found: dict[str, None] = {}
    for argument in map(Path, arguments):
        if not argument.is_dir():
            found[str(argument)] = None
            continue
        for path in sorted(argument.rglob("*")):
            parts = path.relative_to(argument).parts
            if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                continue
            # Pipes, devices and links to nothing are told by whoever reads them, not passed over.
            if path.suffix.lower() not in endings or path.is_dir():
                continue
            if skipped is None or skipped not in Path(os.path.realpath(path)).parents:
                found[str(path)] = None
    return list(found)


@dataclasses.dataclass(kw_only=True)
class Picture:
    """Hold a picture as it is fed to a detector.

    Attributes:
        pixels: uint8 [H, W, 3].
        scale: factors in x and y from pixels of the annotations to these; ones without annotations.
        notes: what was changed or is odd, one phrase each.
    """

    pixels: np.ndarray
    scale: tuple[float, float]
    notes: list[str]


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as upright RGB, with the pixels that training would see.

    Args:
        path: of any format that Pillow reads.

    Returns:
        uint8 [H, W, 3], turned as the EXIF orientation says; the first frame of several, without
        alpha channel.

    Raises:
        OSError: there is no such file, or it is not an image.
        ValueError: the image is damaged or too large.
    """
    return read_picture(path).pixels


def read_picture(
    path: str | os.PathLike,
    *,
    listed: tuple[int, int] = (0, 0),
    upright: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Picture:
    """Read an image file in the frame of its annotations.

    Args:
        path: of any format that Pillow reads.
        listed: width and height in the annotations, zeros if unknown.
        upright: whether annotations refer to pictures turned by their EXIF orientation.
        max_pixels: a picture of more is not decoded.

    Returns:
        The picture, with the pixels that `ssd_centernet convert` would store.

    Raises:
        OSError: there is no such file, or it is not an image.
        ValueError: the image is damaged or too large.
    """
    os.stat(path)  # The system's own words for a file that is not there.
    # The size in the header is checked against a limit of our own.
    with pillow_limit(None):
        return decode_picture(path, listed=listed, upright=upright, max_pixels=max_pixels)


def decode_picture(
    source: str | os.PathLike | bytes,
    *,
    listed: tuple[int, int] = (0, 0),
    upright: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Picture:
    """Read a picture as `read_picture` does, inside of `data.images.pillow_limit`.

    Args:
        source: the file, or its content.
        listed, upright: as of `read_picture`.
        max_pixels: most pixels; the header is checked, and nothing larger is decoded.
        formats: Pillow's names of the formats that are tried; None for all that it reads.

    Returns:
        The picture.

    Raises:
        OSError: it is not an image.
        ValueError: the image is damaged or too large.
    """
    decoded: list[np.ndarray] = []

    def decode(encoded: bytes) -> None:
        try:
            if _is_beyond_tensorflow(encoded):
                decoded[:] = [decode_with_pillow(encoded)]
            else:
                decoded[:] = [image_ops.decode_image(tf.constant(encoded)).numpy()]
        except tf.errors.OpError as error:
            raise ValueError(error.message) from error

    checked = check_image(
        source,
        listed_width=listed[0],
        listed_height=listed[1],
        max_pixels=max_pixels,
        decode=decode,
        upright=upright,
        formats=formats,
    )
    if checked.dropped and not checked.encoded:
        kind = OSError if checked.dropped == NO_IMAGE else ValueError
        raise kind(checked.dropped)
    # How a picture would be stored is of no interest here, nor that it stands upright.
    quiet = ("encoded again", NO_SIZE)
    quiet += ("EXIF",) if min(listed) <= 0 else ()
    notes = [n for n in (*checked.repairs, *checked.notes) if not any(q in n for q in quiet)]
    notes += [checked.dropped] if checked.dropped else []
    return Picture(pixels=np.ascontiguousarray(decoded[0]), scale=checked.scale, notes=notes)


def _is_beyond_tensorflow(encoded: bytes) -> bool:
    """Tell whether a picture has more pixels than TensorFlow decodes of a JPEG."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.width * image.height > _DECODED_BY_TENSORFLOW


def number_images(
    files: Sequence[str], known: Mapping[str, int], *, notes: list[str] | None = None
) -> dict[str, int]:
    """Give every file its own image id.

    Args:
        files: paths.
        known: ids by `file_name`, as annotations have them, with folders or without.
        notes: receives a sentence for each file that may have the wrong id.

    Returns:
        Path -> id: that of the `file_name` which shares the longest end with the path, or the
        number in the file name (000000000139.jpg), or, if it is not a number or already taken, the
        next free number from 1.
    """
    matched = match_names(files, tuple(known), notes=notes)
    ids = {path: known[name] for path, name in matched.items()}
    taken = set(ids.values())
    reserved, again = set(known.values()), []
    for path in files:
        stem = os.path.splitext(os.path.basename(path))[0]
        if path in ids or not (stem.isascii() and stem.isdigit() and int(stem) <= _LARGEST_ID):
            continue
        # A known id is for its own image, even if that was not given.
        if int(stem) in taken or int(stem) in reserved:
            again.append(path)
        else:
            ids[path] = int(stem)
            taken.add(int(stem))
    if again and notes is not None:
        notes.append(
            f"{counted(len(again), 'file')} with a number as the name that is the id of another "
            f"image: the next free numbers are taken, first for {again[0]}"
        )
    taken |= reserved
    running = 1
    for path in files:
        if path not in ids:
            while running in taken:
                running += 1
            ids[path] = running
            taken.add(running)
    return {path: ids[path] for path in files}


def match_names(
    files: Sequence[str], names: Sequence[str], *, notes: list[str] | None = None
) -> dict[str, str]:
    """Find the `file_name` of annotations that means each file.

    A name means the file whose path shares the longest end with it. Bare names decide nothing where
    several files or several names have them.

    Args:
        files: paths.
        names: `file_name` of the annotations.
        notes: receives a sentence for each kind of doubt.

    Returns:
        Path -> name, for the files that one name means.
    """
    by_base: dict[str, list[tuple[str, list[str]]]] = {}
    for name in names:
        parts = _parts(name)
        if parts:
            by_base.setdefault(parts[-1], []).append((name, parts))
    best: dict[str, tuple[int, list[str]]] = {}
    claims: dict[str, list[tuple[int, str]]] = {}
    for path in files:
        parts = _parts(os.path.abspath(path))
        shared: dict[int, list[str]] = {}
        for name, others in by_base.get(parts[-1], []):
            shared.setdefault(_common_end(parts, others), []).append(name)
        if shared:
            best[path] = (max(shared), shared[max(shared)])
            for name in best[path][1]:
                claims.setdefault(name, []).append((best[path][0], path))
    matched, moved, doubts = {}, [], []
    for path, (length, candidates) in best.items():
        free = [name for name in candidates if max(claims[name])[0] == length]
        rivals = [other for name in free for n, other in claims[name] if n == length]
        if free and len(candidates) == 1 and len(rivals) == 1:
            matched[path] = free[0]
            if length < len(_parts(free[0])):
                moved.append((path, free[0]))
        elif free:
            doubts.append((path, candidates if len(candidates) > 1 else rivals))
    _tell(moved, doubts, notes)
    return matched


def _tell(moved: list, doubts: list, notes: list[str] | None) -> None:
    if notes is None:
        return
    if moved:
        path, name = moved[0]
        notes.append(
            f"{counted(len(moved), 'file')} in other folders than the annotations say, found by "
            f"the end of the path: {path} as {name}"
        )
    if doubts:
        path, others = doubts[0]
        notes.append(
            f"{counted(len(doubts), 'file')} without an image id of the annotations, as several "
            f"files or names fit equally well: {path}, with {' and '.join(others[:3])}. Give the "
            "folder that file_name is relative to"
        )


def _parts(name: str) -> list[str]:
    """Split a path of any system; composed and decomposed letters are the same."""
    text = unicodedata.normalize("NFC", os.fspath(name)).replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".")]


def _common_end(left: Sequence[str], right: Sequence[str]) -> int:
    count = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        count += 1
    return count


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
