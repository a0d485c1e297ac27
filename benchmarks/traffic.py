"""Requests for a server on this machine: pictures, and what strangers send instead of pictures.

Every exchange ends by itself: it has a deadline, and none is repeated.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

# Nothing else is ever asked.
HOST = "127.0.0.1"
_SECONDS = 60.0
BUSY = 503


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: of the kind.
        send: exchanges with the server at a port, and returns the status, or None where the client
            went away without one.
        expected: statuses that are right, beside that of a server with too much to do.
    """

    name: str
    send: Callable[[int], int | None]
    expected: tuple[int | None, ...]


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    """Return a picture as a file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def scene(seed: int, width: int, height: int) -> np.ndarray:
    """Return a picture of coloured rectangles, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), rng.integers(0, 90, 3), np.uint8)
    for _ in range(6):
        y, x = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
        tall, wide = rng.integers(height // 8, height // 3), rng.integers(width // 8, width // 3)
        pixels[y : y + tall, x : x + wide] = rng.integers(90, 256, 3)
    return pixels


def png_bomb(width: int, height: int) -> bytes:
    """Return a small PNG whose pixels would take width x height x 3 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + 3 * width)) for _ in range(min(height, 200))]
    data = b"".join([*rows, packer.flush()])
    parts = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of_many_scans(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    whole = encoded(scene(5, 640, 480), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def form(data: bytes, *, files: int = 1) -> tuple[bytes, str]:
    """Return a form with a picture and a field, and its media type."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n"
    ] * files
    parts.append(b'--edge\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--edge--')
    return b"".join([*parts, b"\r\n"]), "multipart/form-data; boundary=edge"


def ask(
    port: int,
    body: bytes | None = None,
    *,
    method: str = "POST",
    path: str = "/detect",
    **headers: str,
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Make one request in a connection of its own; return status, content and headers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def exchange(port: int, *parts: bytes, pause: float = 0.0, read: bool = True) -> bytes:
    """Send bytes as they are, part by part, and return what comes back until the end."""
    with socket.create_connection((HOST, port), timeout=_SECONDS) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            return client.recv(1 << 16) if read else b""
        except (BrokenPipeError, ConnectionResetError):
            return b""


def status_of(answer: bytes) -> int | None:
    """Return the status in the first line of an answer; None of no answer."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def head(length: int | str, *, path: str = "/detect", host: str = "localhost") -> bytes:
    """Return the head of a request with a body."""
    text = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
    return text.encode()


def good() -> list[Kind]:
    """Return requests with pictures of several sizes and kinds."""
    sizes = ((320, 240), (640, 480), (500, 375), (1280, 720), (60, 100))
    files = {
        f"{kind.lower()} {width}x{height}": encoded(scene(n, width, height), kind)
        for n, (width, height) in enumerate(sizes)
        for kind in ("JPEG", "PNG", "WEBP")
    }
    found = [
        Kind(name, lambda port, data=data: ask(port, data)[0], (200,))
        for name, data in files.items()
    ]
    picture = files["jpeg 640x480"]
    body, kind = form(picture)
    found.append(Kind("form", lambda port: ask(port, body, content_type=kind)[0], (200,)))
    found.append(Kind("drawing", lambda port: ask(port, picture, path="/draw")[0], (200,)))
    chosen = "/detect?min_score=0.5"
    found.append(Kind("chosen", lambda port: ask(port, picture, path=chosen)[0], (200,)))
    return found


def bad(max_bytes: int) -> list[Kind]:
    """Return requests that are to be refused.

    Args:
        max_bytes: most bytes of a body that the server takes.
    """
    jpeg, png = encoded(scene(1, 640, 480), "JPEG"), encoded(scene(1, 640, 480), "PNG")
    webp = encoded(scene(1, 640, 480), "WEBP")
    noise = random.Random(0).randbytes(50_000)
    bodies = {
        "empty": (b"", 400),
        "text": (b"hello, server", 415),
        "noise": (noise, 415),
        "cut JPEG": (jpeg[: len(jpeg) // 2], 400),
        "cut PNG": (png[: len(png) // 2], 400),
        "cut WebP": (webp[: len(webp) // 2], 400),
        "JPEG with noise inside": (jpeg[:200] + noise[:900] + jpeg[200:], 400),
        "GIF": (encoded(scene(1, 64, 48), "GIF"), 415),
        "PNG bomb": (png_bomb(30_000, 30_000), 413),
        "JPEG of many scans": (jpeg_of_many_scans(300), 413),
    }
    found = [
        Kind(name, lambda port, body=body: ask(port, body)[0], (status,))
        for name, (body, status) in bodies.items()
    ]
    two, kind = form(jpeg, files=2)
    cut = form(jpeg)[0][:-300]

    def large(port: int) -> int | None:
        return status_of(exchange(port, head(max_bytes + 1), bytes(1000)))

    def chunked(port: int) -> int:
        pieces = (bytes(1 << 16) for _ in range(max_bytes // (1 << 16) + 2))
        connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS)
        try:
            connection.request("POST", "/detect", pieces, encode_chunked=True)
            return connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):
            return 413  # It was refused before all of it was sent.
        finally:
            connection.close()

    found += [
        Kind("two files", lambda port: ask(port, two, content_type=kind)[0], (400,)),
        Kind("cut form", lambda port: ask(port, cut, content_type=kind)[0], (400,)),
        Kind("no boundary", lambda p: ask(p, two, content_type=kind.split(";")[0])[0], (400,)),
        Kind("long body", large, (413,)),
        Kind("long chunked body", chunked, (413,)),
        Kind("score", lambda port: ask(port, jpeg, path="/detect?min_score=2")[0], (400,)),
        Kind("class", lambda port: ask(port, jpeg, path="/detect?classes=none")[0], (400,)),
        Kind("parameter", lambda port: ask(port, jpeg, path="/detect?minscore=0.5")[0], (400,)),
        Kind("method", lambda port: ask(port, method="GET")[0], (405,)),
        Kind("path", lambda port: ask(port, jpeg, path="/nowhere")[0], (404,)),
        Kind("host", lambda port: ask(port, jpeg, host="evil.example")[0], (403,)),
        Kind("origin", lambda port: ask(port, jpeg, origin="http://evil.example")[0], (403,)),
    ]
    return found


def rude() -> list[Kind]:
    """Return clients that keep to no rule: they send nonsense, or go away."""
    jpeg = encoded(scene(1, 640, 480), "JPEG")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)

    def nonsense(port: int) -> int | None:
        return status_of(exchange(port, hello))

    def endless_head(port: int) -> int | None:
        return status_of(exchange(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000))

    def leaves_in_body(port: int) -> None:
        exchange(port, head(len(jpeg)), jpeg[:1000], read=False)

    def leaves_before_answer(port: int) -> None:
        exchange(port, head(len(jpeg)) + jpeg, read=False)

    def says_nothing(port: int) -> None:
        exchange(port, read=False)

    def wrong_length(port: int) -> int | None:
        return status_of(exchange(port, head("many") + jpeg))

    return [
        Kind("nonsense", nonsense, (400, None)),
        Kind("endless head", endless_head, (400, None)),
        Kind("leaves in its body", leaves_in_body, (None,)),
        Kind("leaves before the answer", leaves_before_answer, (None,)),
        Kind("says nothing", says_nothing, (None,)),
        Kind("wrong length", wrong_length, (400, None)),
    ]
