"""The files of a folder, each accounted for, and pictures found by names of other machines."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ssd_centernet.data.validate import Report
from ssd_centernet.files import read_text

IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .jif .png .apng .bmp .dib .gif .webp .avif .tif .tiff .jp2 .j2k .ppm "
    ".pgm .pnm .tga".split()
)
# What stands beside pictures and cannot be meant as one.
_TEXTS = frozenset(
    ".xml .txt .json .csv .tsv .yaml .yml .md .rst .html .htm .names .data .cache .pbtxt .py "
    ".ipynb .sh .cfg .gin .ini .log .record .tfrecord .lock .jsonl .ndjson .toml .pdf".split()
)
# What systems and programs leave behind: thumbnails, caches, copies of what stands elsewhere.
_CLUTTER = frozenset(
    ".ds_store thumbs.db ehthumbs.db desktop.ini .directory .gitignore .gitkeep .gitattributes "
    ".nomedia icon\r __macosx @eadir .appledouble .trashes .spotlight-v100 .fseventsd .git .svn "
    ".ipynb_checkpoints $recycle.bin #recycle .thumbnails lost+found __pycache__".split(" ")
)
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
UNUSED = "picture that no annotation lists: not used"
BY_END = "found in image_dir by the end of the path"


def is_clutter(path: str) -> bool:
    """Tell whether a file or folder is a system's own, such as `._a.jpg` from a Mac's archive."""
    name = os.path.basename(path)
    if name.casefold() in _CLUTTER:
        return True
    if not name.startswith("._") or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) in (_APPLE_DOUBLE, b"")
    except OSError:  # What cannot be read is told when it is used.
        return False


def read_list(path: str | os.PathLike) -> list[str]:
    """Read a list of pictures, one name or path a line; blank lines and # comments are left out."""
    lines = (line.strip().strip("\"'") for line in read_text(path).splitlines())
    return [
        line
        for line in lines
        if line and (not line.startswith("#") or line.lower().endswith(IMAGE_SUFFIXES))
    ]


def find_folder(root: str | os.PathLike, relative: str) -> Path | None:
    """Return a folder below `root`, in upper or lower case if not as it is written; else None."""
    place = Path(root)
    if (place / relative).is_dir():
        return place / relative
    for part in Path(relative).parts:
        inner = sorted(place.iterdir()) if place.is_dir() else []
        found = [p for p in inner if p.name.casefold() == part.casefold() and p.is_dir()]
        if not found:
            return None
        place = found[0]
    return place


def list_files(
    top: str | os.PathLike, report: Report, folders: Sequence[str] = ("",)
) -> tuple[list[str], set[str]]:
    """List the files of a folder and its sub-folders; links are followed.

    Args:
        top: the folder.
        report: notes links to nothing or in a circle, pipes, and folders that cannot be read.
        folders: sub-folders to look into, relative to `top`; '' is `top` itself.

    Returns:
        Paths relative to `top`, in the order of their names, the files of a folder before those
        of its sub-folders; and those of them that were reached through a link.
    """
    found: list[str] = []
    linked: set[str] = set()

    def visit(relative: str, above: frozenset, is_link: bool) -> None:
        path = os.path.join(top, relative)
        try:
            stat = os.stat(path)
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            report.add("notes", "folder that cannot be read: passed over", relative or str(top))
            return
        here = (stat.st_dev, stat.st_ino)
        if here in above:
            report.add("notes", "link to a folder above it: not followed", relative)
            return
        inner = []
        for entry in entries:
            kind = _kind(entry)
            if is_clutter(entry.path) if kind != "odd" else entry.name.casefold() in _CLUTTER:
                continue
            name = os.path.join(relative, entry.name)
            if kind == "folder":
                inner.append((name, is_link or entry.is_symlink()))
            elif kind == "file":
                found.append(name)
                if is_link or entry.is_symlink():
                    linked.add(name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                report.add("notes", "link to a file that is not there: passed over", name)
            else:
                report.add("notes", "pipe, device or socket: passed over", name)
        for name, through_link in inner:
            visit(name, above | {here}, through_link)

    for folder in folders:
        visit(os.path.normpath(folder) if folder else "", frozenset(), False)
    return list(dict.fromkeys(found)), linked


def _kind(entry: os.DirEntry) -> str:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "odd"
    except OSError:  # A link that leads to itself.
        return "odd"


def fold(text: str) -> str:
    """Return what names have in common that differ in case, percent codes or composed accents."""
    if text.isascii() and "%" not in text:
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(text)).casefold())


class ImageFolder:
    """The image files of a folder, found even by paths of another machine.

    Args:
        path: the folder.
        report: counts names that were found in another way than as they are written, and files
            that may be meant as pictures but are none.
        folders: sub-folders to look into; '' is the whole folder.

    Attributes:
        path: the folder, as text.
        files: relative paths of its pictures, told by their endings, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(
        self, path: str | os.PathLike, report: Report, folders: Sequence[str] = ("",)
    ) -> None:
        self.path, self._report = os.fspath(path), report
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                f"The image folder {self.path} does not exist. Give the right one as image_dir."
            )
        names, linked = list_files(self.path, report, folders)
        self._exact = set(names)
        seconds = self._second_names(linked)
        self.files: list[str] = []
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if name in seconds:
                report.add("notes", "link to another file of the folder: taken once", name)
            elif ending in IMAGE_SUFFIXES:
                self.files.append(name)
            elif ending not in _TEXTS and ".record" not in name:
                report.add("notes", "no picture by its ending: passed over", name)

    def _second_names(self, linked: set[str]) -> set[str]:
        """Return the links to files that are in the folder under a name of their own, too."""
        if not linked:
            return set()
        top = os.path.realpath(self.path)
        own = {os.path.join(top, name) for name in self._exact - linked}
        return {n for n in linked if os.path.realpath(os.path.join(self.path, n)) in own}

    @functools.cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: os.path.basename(name))

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: os.path.splitext(os.path.basename(name))[0])

    def _grouped(self, part) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in self.files:
            groups.setdefault(fold(part(name)), []).append(name)
        return groups

    def find(self, name: str) -> str:
        """Return the relative path of a file, by its name or the last parts of it.

        Backslashes, paths of another machine, addresses, upper or lower case, percent codes and
        the composition of accents do not matter. For a name that fits no file or several files,
        the result is a relative path that does not exist.
        """
        return self.match([name])[name]

    def match(self, names: Iterable[str]) -> dict[str, str]:
        """Find the files of several names, so that no file is taken for two different pictures.

        Args:
            names: as annotations write them.

        Returns:
            Name -> relative path, as `find` gives it. Of two names that both fit one file, the one
            that fits more of its path has it, and the other one fits no file.

        Raises:
            ValueError: two names fit the same file equally well.
        """
        found = {name: self._locate(name) for name in dict.fromkeys(names)}
        claims: dict[str, dict[tuple, tuple[int, str]]] = {}
        for name, (file, shared, _) in found.items():
            if shared:
                claims.setdefault(file, {})[tuple(map(fold, _parts(name)))] = (shared, name)
        for file, rivals in claims.items():
            if len(rivals) < 2:
                continue
            first, second = sorted(rivals.values(), key=lambda rival: -rival[0])[:2]
            if first[0] == second[0]:
                raise ValueError(
                    f"the annotations have two pictures {first[1]!r} and {second[1]!r}, but only "
                    f"one file of {self.path} fits either of them, {file!r}: which of the two it "
                    "is cannot be told. Give the folder above as image_dir, the one that holds "
                    "both, or correct the paths."
                )
        files = {}
        for name, (file, shared, reason) in found.items():
            if shared and shared < max(claim[0] for claim in claims[file].values()):
                reason = "another name of the annotations fits its file better: not found"
                file = os.path.join(*_parts(name))
            if reason:
                self._report.add("notes", reason, name)
            files[name] = file
        return files

    def _locate(self, name: str) -> tuple[str, int, str]:
        """Return a file, how many parts of its path fit (0: no file), and a note on how it fits."""
        top = os.path.abspath(self.path) + os.sep
        parts = _parts(name.removeprefix(top))
        relative = os.path.join(*parts) if parts else "(empty name)"
        if relative in self._exact:
            return relative, 10**6, ""
        if not parts:
            return relative, 0, ""
        written, reason = list(map(fold, parts)), ""
        candidates = self._by_name.get(written[-1], [])
        if not candidates and os.path.splitext(parts[-1])[1].lower() not in IMAGE_SUFFIXES:
            candidates = self._by_stem.get(written[-1], [])
            reason = "found by its name without an ending"
        best, shared = _closest(written, candidates, without_ending=bool(reason))
        if len(best) > 1:  # a.jpg and A.jpg: as it is written, if one is.
            best = [one for one in best if one.endswith(parts[-1])]
        if len(best) != 1:
            return relative, 0, ""
        (file,) = best
        whole = shared == len(parts) == len(file.split(os.sep))
        return file, shared, reason or (_difference(relative, file) if whole else BY_END)

    def find_stem(self, stem: str) -> str | None:
        """Return the file whose path without its ending ends like `stem`; None if no one does.

        Several files that fit equally well are none.
        """
        parts = os.path.normpath(stem).split(os.sep)
        candidates = self._by_stem.get(fold(parts[-1]), [])
        best, _ = _closest(list(map(fold, parts)), candidates, without_ending=True)
        if len(best) > 1:
            best = [f for f in best if os.path.splitext(os.path.basename(f))[0] == parts[-1]]
        if len(best) != 1:
            return None
        name = os.path.splitext(os.path.basename(best[0]))[0]
        if name != parts[-1]:
            self._report.add("notes", _difference(parts[-1], name), stem)
        return best[0]

    def unused(self, used: Iterable[str]) -> list[str]:
        """Return the pictures of the folder that are not among `used`."""
        known = set(used)
        return [name for name in self.files if name not in known]


def _parts(name: str) -> list[str]:
    """Return folders and file of a path of any system, or of an address."""
    name = name.strip()
    if "?d=" in name:  # Label Studio's address of a local file.
        name = unquote(name.partition("?d=")[2].partition("&")[0])
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        name = unquote(urlsplit(name).path)
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return [part for part in parts if not re.fullmatch(r"[A-Za-z]:", part)]


def _closest(
    parts: Sequence[str], candidates: Iterable[str], *, without_ending: bool = False
) -> tuple[list[str], int]:
    """Return the candidates that share most parts of a path, counted from its end."""
    best: list[str] = []
    shared = 0
    for candidate in candidates:
        path = os.path.splitext(candidate)[0] if without_ending else candidate
        same = 0
        for left, right in zip(reversed(parts), reversed(path.split(os.sep)), strict=False):
            if left != fold(right):
                break
            same += 1
        if same > shared:
            best, shared = [], same
        if same and same == shared:
            best.append(candidate)
    return best, shared


def _difference(written: str, found: str) -> str:
    """Say how two names differ that `fold` makes equal."""
    composed = [unicodedata.normalize("NFC", name) for name in (written, found)]
    if composed[0] == composed[1]:
        return "found with accents that are composed in another way"
    if composed[0].casefold() == composed[1].casefold():
        return "found in upper or lower case"
    return "found by a name with percent codes"
