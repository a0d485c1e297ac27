"""Record files and their messages byte by byte, so that no picture need be read or unpacked."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

# 8 bytes of length and 4 of its checksum before a TFRecord, 4 of the data's checksum after it.
HEADER, _FOOTER = 12, 4
# What a Feature holds, as the first byte of its message.
BYTES, FLOATS, INTS = 0x0A, 0x12, 0x1A
KINDS = {BYTES: "texts", FLOATS: "floats", INTS: "whole numbers"}

# Tags of an entry of the map of features.
_KEY, _VALUE = 0x0A, 0x12

Buffer = mmap.mmap | bytes
Span = tuple[int, int]


class WrongKindError(ValueError):
    """A field holds values of another kind than it should."""


def compression_of(path: str) -> str:
    """Tell how a record file is compressed.

    Args:
        path: the file.

    Returns:
        '', 'GZIP' or 'ZLIB', as `tf.data.TFRecordDataset` takes it.
    """
    with open(path, "rb") as file:
        head = file.read(HEADER)
    # A record's length may begin like the mark of a compressed file: its checksum decides.
    if len(head) == HEADER and _length(head) is not None:
        return ""
    if head[:3] == b"\x1f\x8b\x08":
        return "GZIP"
    is_zlib = len(head) > 1 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0
    return "ZLIB" if is_zlib else ""


def read_records(path: str) -> Iterator[tuple[Buffer, int, int]]:
    """Yield (buffer, start, end) of each record of a file.

    Only the pages that somebody looks at are read, unless the file is compressed.

    Args:
        path: a TFRecord file, compressed or not.

    Raises:
        ValueError: the file is damaged; names the file, the record and the byte.
    """
    if os.path.getsize(path) == 0:
        return
    compression = compression_of(path)
    if compression:
        yield from _read_compressed(path, compression)
        return
    size = os.path.getsize(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, number = 0, 0
        while position < size:
            end = -1
            start = position + HEADER
            if start <= size:
                length = _length(data[position:start])
                end = -1 if length is None else start + length
            if end < 0 or end + _FOOTER > size:
                raise _damaged(path, number, position)
            yield data, start, end
            position, number = end + _FOOTER, number + 1


def _read_compressed(path: str, compression: str) -> Iterator[tuple[Buffer, int, int]]:
    number = position = 0
    with _unpacked(path, compression) as file:
        while True:
            try:
                head = file.read(HEADER)
                if not head:
                    return
                length = _length(head) if len(head) == HEADER else None
                data = b"" if length is None else file.read(length + _FOOTER)
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path, number, position, f", {error}") from error
            if length is None or len(data) < length + _FOOTER:
                raise _damaged(path, number, position)
            yield data, 0, length
            position, number = position + HEADER + length + _FOOTER, number + 1


def _unpacked(path: str, compression: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if compression == "GZIP":
        return gzip.open(path, "rb")
    return contextlib.closing(io.BufferedReader(_Inflated(path)))


class _Inflated(io.RawIOBase):
    """The content of a file that zlib has compressed."""

    def __init__(self, path: str) -> None:
        self._file, self._inflate = open(path, "rb"), zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = b""
        while not data and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            if not packed:
                raise EOFError("the compressed data ends too early")
            data = self._inflate.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _damaged(path: str, number: int, position: int, detail: str = "") -> ValueError:
    return ValueError(
        f"{path}: record {number} at byte {position} is damaged: the file ends inside it, or it is "
        f"not a TFRecord file{detail}. A copy or a conversion was probably interrupted: write the "
        "file again."
    )


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def _length(head: bytes) -> int | None:
    """Return the length in a record's header, or None if its masked CRC-32C is not right."""
    table, crc = _CRC, 0xFFFFFFFF
    for byte in head[:8]:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    length, given = struct.unpack("<QI", head)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return length if masked == given else None


# --- messages --------------------------------------------------------------------------------


def _varint(data: Buffer, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _spans(data: Buffer, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (tag, start, end) of the fields of one protocol buffer message."""
    while position < end:
        # One byte as a rule, for which a call would take longest.
        tag, position = data[position], position + 1
        if tag >= 0x80:
            tag, position = _varint(data, position - 1)
        wire = tag & 7
        if wire == 2:
            length, position = data[position], position + 1
            if length >= 0x80:
                length, position = _varint(data, position - 1)
            stop = position + length
        elif wire == 0:
            _, stop = _varint(data, position)
        else:
            stop = position + {1: 8, 5: 4}[wire] if wire in (1, 5) else end + 1
        if stop > end:
            raise ValueError(f"a field reaches beyond its message at byte {position}")
        yield tag, position, stop
        position = stop


def features(data: Buffer, start: int, end: int) -> dict[bytes, Span]:
    """Return the places of an Example's features: name -> (start, end) of the Feature message.

    Args:
        data: what holds the Example.
        start: its first byte.
        end: the byte after its last.

    Raises:
        ValueError: this is not an Example; or IndexError.
    """
    found = {}
    for tag, message, message_end in _spans(data, start, end):
        if tag != _KEY:  # TensorFlow passes over other fields here, and nowhere below.
            continue
        for tag, entry, entry_end in _spans(data, message, message_end):
            if tag != _KEY:
                raise ValueError(f"a field that is no feature before byte {entry}")
            # As every writer writes it: the key, shorter than 128 bytes, then the value.
            value = entry + 2 + data[entry + 1] if entry < entry_end else entry_end
            if value < entry_end and data[entry] == _KEY and data[value] == _VALUE:
                length, position = data[value + 1], value + 2
                if length >= 0x80:
                    length, position = _varint(data, value + 1)
                if position + length == entry_end:
                    found[data[entry + 2 : value]] = (position, entry_end)
                    continue
            parts = sorted(_spans(data, entry, entry_end))
            if [tag for tag, _, _ in parts] != [_KEY, _VALUE]:
                raise ValueError(f"a feature is not one name and one value at byte {entry}")
            found[data[slice(*parts[0][1:])]] = parts[1][1:]
    return found


def packed(data: Buffer, span: Span | None, kind: int) -> bytes:
    """Return the values of a Feature of numbers, one after another as they are packed.

    Args:
        data: what holds the Feature.
        span: its place; None has no values.
        kind: FLOATS (4 bytes each, little-endian) or INTS (varints).

    Raises:
        WrongKindError: it holds values of another kind.
        ValueError: it is damaged; or IndexError.
    """
    if span is None or span[0] == span[1]:
        return b""
    start, end = span
    if data[start] == kind and end - start > 3 and data[start + 1] < 0x80:
        # As every writer writes it: one list of one packed field, both shorter than 128 bytes.
        if data[start + 2] == 0x0A and start + 4 + data[start + 3] == start + 2 + data[start + 1]:
            if start + 2 + data[start + 1] == end:
                return data[start + 4 : end]
    parts = []
    for tag, list_start, list_end in _spans(data, start, end):
        if tag != kind:
            raise WrongKindError(KINDS.get(tag, "something else"))
        loose = {FLOATS: 0x0D, INTS: 0x08}[kind]
        parts += [data[first:last] for first, last in _items(data, list_start, list_end, loose)]
    return b"".join(parts)


def _items(data: Buffer, position: int, end: int, loose: int | None = None) -> Iterator[Span]:
    """Yield the places of a list's values, as strictly as TensorFlow reads it.

    Args:
        data: what holds the list.
        position: its first byte.
        end: the byte after its last.
        loose: tag of a number that is not packed, 0x0D or 0x08; None where there are none.
    """
    while position < end:
        tag = data[position]
        if tag == 0x0A:
            length, start = data[position + 1], position + 2
            if length >= 0x80:
                length, start = _varint(data, position + 1)
            position = start + length
        elif tag == loose:
            start = position + 1
            position = start + 4 if tag == 0x0D else _varint(data, start)[1]
        else:
            raise ValueError(f"a list holds the tag {tag} at byte {position}")
        if position > end:
            raise ValueError(f"a value reaches beyond its list at byte {start}")
        yield start, position


def texts(data: Buffer, span: Span | None) -> list[Span]:
    """Return the places of the values of a Feature of texts or bytes.

    Args:
        data: what holds the Feature.
        span: its place; None has no values.

    Raises:
        WrongKindError: it holds values of another kind.
        ValueError: it is damaged; or IndexError.
    """
    found: list[Span] = []
    if span is None:
        return found
    for tag, start, end in _spans(data, *span):
        if tag != BYTES:
            raise WrongKindError(KINDS.get(tag, "something else"))
        found += _items(data, start, end)
    return found


def place(path: str | os.PathLike, number: int) -> str:
    """Name a record as its owner knows it: the file, its number from 0, its id or file name.

    Args:
        path: the file.
        number: of the record.
    """
    told = ""
    for data, start, end in itertools.islice(read_records(os.fspath(path)), number, number + 1):
        # What is told of a damaged record may itself be damaged.
        with contextlib.suppress(ValueError, IndexError):
            fields = features(data, start, end)
            for name in ("filename", "source_id"):
                spans = texts(data, fields.get(f"image/{name}".encode()))
                if spans and (text := data[slice(*spans[0])]):
                    told = f" ({name} {text.decode('utf-8', 'replace')!r})"
    return f"{os.fspath(path)}: record {number}{told}"


def picture_size(data: Buffer, start: int, end: int) -> tuple[int, int]:
    """Read the height and width of a JPEG, PNG, GIF or BMP from its header, without unpacking it.

    Args:
        data: what holds the file.
        start: its first byte.
        end: the byte after its last.

    Returns:
        Pixels, or (0, 0) where the header does not say.
    """
    head = data[start : min(start + 26, end)]
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif head[:4] == b"GIF8" and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
    elif head[:2] == b"BM" and len(head) >= 26:
        width, height = struct.unpack_from("<ii", head, 18)
    elif head[:2] == b"\xff\xd8":
        return _jpeg_size(data, start + 2, end)
    else:
        return 0, 0
    return abs(height), width


def _jpeg_size(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Walk from marker to marker to the one that tells the frame."""
    while position + 9 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return struct.unpack(">HH", data[position + 5 : position + 9])
        if marker == 0xFF:  # Fill before a marker.
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # These stand alone.
            position += 2
        else:
            position += 2 + (data[position + 2] << 8 | data[position + 3])
    return 0, 0


def has_end(data: Buffer, start: int, end: int) -> bool:
    """Tell whether a JPEG or PNG has its end marker, perhaps with a little after it.

    Args:
        data: what holds the file.
        start: its first byte.
        end: the byte after its last.

    Returns:
        False also for other formats: only decoding tells whether they are whole.
    """
    jpeg = data[start : start + 2] == b"\xff\xd8"
    marker = b"\xff\xd9" if jpeg else b"IEND" if data[start : start + 4] == b"\x89PNG" else None
    return marker is not None and data.rfind(marker, max(start, end - 4096), end) >= 0
