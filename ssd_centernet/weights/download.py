"""Download of one file over http(s) or from a file:// address: in parts, resumed, with progress.

Keras' `get_file` does not resume, waits for ever, and removes what it has at the first failure: too
little for half a gigabyte over a slow line.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

_CHUNK = 2**18
# As long as something comes; where nothing does, as without a network, that is told soon.
_TRIES, _FIRST_TRIES = 6, 2
_TIMEOUT = 30.0
_PAUSE = 1.0  # Doubled for each further try.
_SPARE = 2**24


class FetchError(OSError):
    """A file cannot be had.

    Attributes:
        final: whether another address would not help either.
    """

    def __init__(self, message: str, *, final: bool = False):
        """Keep the message."""
        super().__init__(message)
        self.final = final


def download(address: str, part: Path, *, say: Callable[[str], None] | None = None) -> None:
    """Fetch a file, from where an earlier call stopped.

    Args:
        address: http://, https:// or file://.
        part: where to write it; what is there already is continued if the server says that the file
            has not changed since, as is told beside it in PART.from.
        say: told the progress, in lines.

    Raises:
        FetchError: the file cannot be had, or there is no room for it.
    """
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme == "file":
        return _copy(address, part, say)
    if scheme not in ("http", "https"):
        raise FetchError(f"{address} is no address of http://, https:// or file://")
    tries = _FIRST_TRIES
    for attempt in range(_TRIES):
        before = part.stat().st_size if part.is_file() else 0
        try:
            return _get(address, part, say)
        except urllib.error.HTTPError as error:
            reason = f"{address}: {error.code} {error.reason}"
            if error.code == 416:  # The part is not of this file.
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                raise FetchError(reason) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
            if isinstance(error, FetchError):
                raise
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(part, address) from error
            reason = f"{address}: {getattr(error, 'reason', None) or error or type(error).__name__}"
        if part.is_file() and part.stat().st_size > before:
            tries = _TRIES
        if attempt + 1 >= tries:
            break
        if say is not None:
            say(f"{reason}; trying again")
        time.sleep(_PAUSE * 2**attempt)
    raise FetchError(f"{reason} ({attempt + 1} tries)")


def _get(address: str, part: Path, say: Callable[[str], None] | None) -> None:
    """Make one request: for the rest of the file if a part is there, else for all of it."""
    noted = part.with_name(f"{part.name}.from")
    begin, version = 0, _version(noted, address)
    headers = {"User-Agent": "ssd_centernet", "Accept-Encoding": "identity"}
    if part.is_file() and version:
        begin = part.stat().st_size
        headers |= {"Range": f"bytes={begin}-", "If-Range": version}
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        if answer.status == 206:
            range_ = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if range_ is None or int(range_[1]) != begin:
                raise http.client.HTTPException("the server sent another part than asked for")
        else:
            begin = 0
        length = answer.headers.get("Content-Length")
        total = begin + int(length) if length and length.isdigit() else None
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if begin == 0:
            # A weak tag does not promise equal bytes.
            strong = version if version and not version.startswith("W/") else ""
            noted.write_text(f"{address}\n{strong}\n", encoding="utf-8")
        _need_room(part, None if total is None else total - begin, address)
        done = _write(answer, part, begin, total, address, say)
    if total is not None and done < total:
        raise http.client.HTTPException(f"the connection ended after {done} of {total} bytes")
    noted.unlink(missing_ok=True)


def _copy(address: str, part: Path, say: Callable[[str], None] | None) -> None:
    source = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
    try:
        total = source.stat().st_size
        _need_room(part, total, address)
        with source.open("rb") as file:
            _write(file, part, 0, total, address, say)
    except OSError as error:
        if isinstance(error, FetchError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(part, address) from error
        raise FetchError(f"{address}: {error.strerror or error}") from error


def _write(source, part: Path, begin: int, total: int | None, address: str, say) -> int:
    """Append what comes to the part; return how long it is then."""
    progress = _Progress(address, begin, total, say)
    with open(part, "r+b" if begin else "wb") as file:
        file.seek(begin)
        done = begin
        while data := source.read(_CHUNK):
            file.write(data)
            done += len(data)
            progress(done)
        file.flush()
        os.fsync(file.fileno())
    progress(done, end=True)
    return done


class Console:
    """Tell what a download does on the standard error: lines, and on a terminal a bar."""

    def __call__(self, line: str) -> None:
        """Write a line."""
        print(line, file=sys.stderr, flush=True)

    @property
    def bar(self) -> Callable[[str, bool], None] | None:
        """Return what draws a line over itself, where that is possible."""
        return self._draw if sys.stderr.isatty() else None

    def _draw(self, line: str, end: bool) -> None:
        print(f"\r{line}\x1b[K", end="\n" if end else "", file=sys.stderr, flush=True)


class _Progress:
    """Say how far a download is: a bar, or a line for every tenth and at most every two seconds."""

    def __init__(self, address: str, begin: int, total: int | None, say):
        self._name, self._begin, self._total = address.rpartition("/")[2], begin, total
        self._say, self._start = say, time.monotonic()
        self._bar = getattr(say, "bar", None)
        self._last = (begin, self._start)
        if say is not None and begin:
            say(f"{self._name}: going on after {_megabytes(begin)}")

    def __call__(self, done: int, *, end: bool = False) -> None:
        if self._say is None:
            return
        now = time.monotonic()
        step, pause = (0, 0.1) if self._bar else ((self._total or 2**27) / 10, 2)
        if not end and (done - self._last[0] < step or now - self._last[1] < pause):
            return
        self._last = (done, now)
        rate = f"{_megabytes(int((done - self._begin) / max(now - self._start, 1e-3)))}/s"
        share = min(1.0, done / self._total) if self._total else None
        if self._bar:
            filled = "" if share is None else f" [{'#' * int(24 * share):<24}] {share:4.0%}"
            self._bar(f"{self._name[-40:]}{filled} {_megabytes(done)} {rate}", end)
        else:
            of = f" of {_megabytes(self._total)} ({share:.0%})" if self._total else ""
            self._say(f"{self._name}: {_megabytes(done)}{of}, {rate}")


def _need_room(part: Path, length: int | None, address: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if length is not None and free < length + _SPARE:
        raise _no_room(part, address, length)


def _no_room(part: Path, address: str, length: int | None = None) -> FetchError:
    needed = f"{_megabytes(length)} are needed and " if length else ""
    free = shutil.disk_usage(part.parent).free
    return FetchError(
        f"no space for {address.rpartition('/')[2]}: {needed}{_megabytes(free)} are free in "
        f"{part.parent}. Make room, or set SSD_CENTERNET_WEIGHTS to a folder on another disk; "
        "what has come is kept and continued",
        final=True,
    )


def _version(noted: Path, address: str) -> str:
    """Return the tag or date of what a part is of, or "" if it is of another address."""
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.is_file() else []
    return lines[1] if len(lines) == 2 and lines[0] == address else ""


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
