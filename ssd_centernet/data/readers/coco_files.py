"""Files of the images that a COCO json lists, found inside one folder."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Sequence

from ssd_centernet.data.readers.image_folder import BY_END, UNUSED, ImageFolder
from ssd_centernet.data.validate import Report

# Two letters or more: C: is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# Label Studio puts eight digits before the name of a file that was uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")


def find_files(
    names: Sequence[str], image_dir: str | os.PathLike, report: Report, origin: str
) -> list[str]:
    """Find the files of listed names in a folder.

    A name that is a path in the folder is that file. Others (absolute paths, of Windows, with '..',
    web addresses, Label Studio's local files) are found by their last parts if one file fits.

    Args:
        names: `file_name` of each image.
        image_dir: the folder; nothing outside it is looked at.
        report: counts names that were found by their last parts, and files that no name means.
        origin: name of the annotation file in messages.

    Returns:
        A path relative to the folder for each name; of no file if none fits.

    Raises:
        ValueError: two names that disagree fit the same file only.
    """
    folder = ImageFolder(image_dir, report)
    known = set(folder.files)
    found: list[str] = []
    exact: dict[str, str] = {}  # File -> the name that is its path.
    others: list[int] = []
    for position, name in enumerate(names):
        file = name if name in known else _inside(name)
        if file not in known and not os.path.isfile(os.path.join(folder.path, file)):
            others.append(position)
        else:
            exact.setdefault(file, name)
            _note(name, file, report)
        found.append(file)
    by_end: dict[str, str] = {}
    quiet = None
    for position in others:
        name = names[position]
        file = _find_by_end(folder, name)
        if file is None and _UPLOADED.match((_parts(local_path(name)) or [""])[-1]):
            quiet = quiet or ImageFolder(image_dir, Report())  # The note names the whole name.
            file = _find_by_end(quiet, _without_digits(name))
            if file is not None:
                report.add("notes", "found without Label Studio's digits before the name", name)
        if file is None:
            continue
        # A picture of another folder is another picture, though it has the same last part.
        other = exact.get(file, by_end.setdefault(file, name))
        if _agree(name, other):
            found[position] = file
        elif file not in exact:
            raise ValueError(
                f"{origin}: file_name {other!r} and {name!r} both fit {file} in {folder.path} and "
                "no other file, but they are of two folders. Keep the folders of the pictures in "
                "image_dir, or correct file_name."
            )
    for file in folder.unused(found):
        report.add("notes", UNUSED, file)
    return found


def _note(name: str, file: str, report: Report) -> None:
    if name == file or name == f"./{file}":
        return
    slashes = name.replace("\\", os.sep) == file
    reason = "backslashes in file_name read as folders"
    report.add("notes", reason if slashes else BY_END, name)


def local_path(name: str) -> str:
    """Return the path in a web address, a file address or a name of Label Studio's local files."""
    name = name.strip()
    is_address = _SCHEME.match(name) is not None
    if not is_address and "?d=" not in name:
        return name
    try:
        address = urllib.parse.urlsplit(name)
    except ValueError:  # Brackets where a host should be.
        return name
    given = urllib.parse.parse_qs(address.query).get("d")
    if given:
        return given[0]
    return urllib.parse.unquote(address.path) if is_address else name


def _parts(name: str) -> list[str]:
    """Return the parts of a path without drive, root and '.', as they would be inside a folder."""
    parts = [part for part in re.split(r"[/\\]", name.strip()) if part not in ("", ".")]
    return [part for part in parts if not re.fullmatch(r"[A-Za-z]:", part)]


def _inside(name: str) -> str:
    """Return a relative path that never leaves the folder."""
    inside: list[str] = []
    for part in _parts(local_path(name)):
        if part != "..":
            inside.append(part)
        elif inside:
            inside.pop()
    return os.path.join(*inside) if inside else "(empty name)"


def _find_by_end(folder: ImageFolder, name: str) -> str | None:
    for candidate in (name, local_path(name)):
        file = folder.find(candidate)
        if os.path.isfile(os.path.join(folder.path, file)):
            return file
    return None


def _without_digits(name: str) -> str:
    *folders, base = _parts(local_path(name))
    return "/".join([*folders, _UPLOADED.sub("", base, count=1)])


def _agree(one: str, other: str) -> bool:
    """Tell whether two names could be of one file: one is the end of the other."""
    ends = [[p.casefold() for p in _parts(local_path(name)) if p != ".."] for name in (one, other)]
    shorter, longer = sorted(ends, key=len)
    return longer[len(longer) - len(shorter) :] == shorter
