"""Images and categories of a COCO json, the same for training and for the ground truth.

Tools write ids as text, whole floats or file names, and list one file twice. What has one meaning
is read, what has none is refused with its place, and every change is counted in a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssd_centernet.data.readers.json_file import shown
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_whole


class Ids:
    """Find listed entries by their ids, however these are written.

    1, "1" and 1.0 are one id. "007" is another than 7 only where both are listed.

    Attributes:
        numbers: the whole number (int64) of each id, None if it is none.
    """

    def __init__(self, ids: Iterable[object]) -> None:
        self.numbers: list[int | None] = []
        self._index: dict[int | str, int] = {}
        self._by_number: dict[int, int] = {}
        for index, value in enumerate(ids):
            number = read_whole(value)
            self.numbers.append(number)
            self._index[canonical(value)] = index
            if number is not None:
                other = self._by_number.setdefault(number, index)
                self._by_number[number] = index if other == index else -1

    def find(self, value: object) -> int:
        """Return the position of the entry with this id, -1 if there is none."""
        if type(value) is int:
            index = self._index.get(value, -1)
            return index if index >= 0 else self._by_number.get(value, -1)
        index = self._index.get(canonical(value), -1)
        return index if index >= 0 else self._by_number.get(read_whole(value), -1)

    def plain(self) -> dict[int, int]:
        """Return the positions of the entries whose id is a plain number, by this number."""
        return {key: index for key, index in self._index.items() if type(key) is int}


def canonical(value: object) -> int | str | None:
    """Return the form of an id in which equal ids are equal, None if it is no id."""
    number = read_whole(value)
    if isinstance(value, str):
        text = value.strip()
        return number if number is not None and str(number) == text else text or None
    return number


class ImageEntry(NamedTuple):
    """One listed image: its id as written, its file name, and its size (0 if it is unknown).

    `former_id` is the id before a conversion numbered the images, None if it did not.
    """

    original_id: object
    file_name: str
    width: int
    height: int
    former_id: object = None


class CategoryEntry(NamedTuple):
    """One listed category; the supercategory is empty if there is none."""

    original_id: object
    name: str
    supercategory: str


def read_images(
    entries: Sequence[Any], report: Report, origin: str, *, need_names: bool = True
) -> list[ImageEntry]:
    """Read the list `images`; exact copies of an entry are left out and counted.

    Args:
        entries: the list.
        report: counts what was left out or not usable.
        origin: name of the file in messages.
        need_names: whether each entry needs a file name.

    Raises:
        ValueError: an entry is no object, has no id or no file name, or two files have one id.
    """
    images: dict[object, ImageEntry] = {}
    for position, entry in enumerate(entries):
        where = f"{origin}: entry {position} of 'images'"
        if type(entry) is not dict and not isinstance(entry, Mapping):
            raise ValueError(f"{where} is {shown(entry)}, expected an object with id, file_name.")
        key = canonical(entry.get("id"))
        name = _file_name(entry)
        if key is None or (need_names and not name):
            lacks = "id" if key is None else "file_name"
            raise ValueError(
                f"{where} needs an 'id' and a 'file_name': its {lacks!r} is "
                f"{shown(entry.get(lacks))}, and it has {', '.join(map(str, entry))}."
            )
        if "\0" in name or not _is_text(name):
            raise ValueError(
                f"{where} has a null character, or half of one, in its file_name {name!r}."
            )
        sides = [_side(entry, side, name or entry["id"], report) for side in ("width", "height")]
        image = ImageEntry(entry["id"], name, *sides, entry.get("original_id"))
        other = images.setdefault(key, image)
        if other is image:
            continue
        if other.file_name != name or not name:
            what = f"files have the image id {entry['id']!r}, {other.file_name!r} and {name!r}"
            if not name:
                what = f"entries of 'images' have the id {entry['id']!r}"
            raise ValueError(
                f"{origin}: image ids occur more than once. Two {what}, so it is not clear which "
                "of them the annotations belong to. Were two files joined? Give each its own id."
            )
        _check_sizes(other, image, origin)
        report.add("repaired images", "listed twice: one copy kept", name)
    return list(images.values())


def _file_name(entry: Mapping[str, Any]) -> str:
    # LVIS has only the address of the picture.
    value = entry.get("file_name") or entry.get("coco_url")
    is_text = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value).strip() if is_text else ""


def _is_text(name: str) -> bool:
    """Tell whether a text can be written: json may hold one half of a pair of codes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _side(entry: Mapping[str, Any], key: str, item: object, report: Report) -> int:
    value = entry.get(key)
    if type(value) is int and 0 < value < 2**31:
        return value
    if value is None or value == "":
        return 0
    number = read_whole(value)
    if number is not None and 0 <= number < 2**31:
        return number
    reason = "width or height is no whole number of pixels: not used"
    report.add("repaired images", reason, f"{item}: {key} {shown(value)}")
    return 0


def _check_sizes(one: ImageEntry, other: ImageEntry, origin: str) -> None:
    sizes = [(i.width, i.height) for i in (one, other) if i.width and i.height]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{origin}: {one.file_name!r} is listed twice with other sizes, as id "
            f"{one.original_id!r} with {sizes[0]} and as id {other.original_id!r} with {sizes[1]} "
            "pixels (width, height). Its boxes cannot be of both: remove one of the two."
        )


def merge_images(
    images: Sequence[ImageEntry], files: Sequence[str], report: Report, origin: str
) -> list[int]:
    """Find images that are listed under several ids.

    Args:
        images: the listed images.
        files: the file of each; an empty name is a file of its own.
        report: counts the images that were merged.
        origin: name of the annotation file in messages.

    Returns:
        For each image the position of the first one with its file.

    Raises:
        ValueError: two entries of a file have other sizes.
    """
    first: dict[str, int] = {}
    owners = []
    for index, file in enumerate(files):
        owner = first.setdefault(file, index) if file else index
        if owner != index:
            _check_sizes(images[owner], images[index], origin)
            ids = f"ids {images[owner].original_id} and {images[index].original_id}"
            reason = "one file listed under two ids: merged into the first"
            report.add("repaired images", reason, f"{images[index].file_name} ({ids})")
        owners.append(owner)
    return owners


def read_categories(entries: Sequence[Any], report: Report, origin: str) -> list[CategoryEntry]:
    """Read the list `categories`; exact copies of an entry are left out and counted.

    Raises:
        ValueError: an entry is no object, has no id or no name, or two categories have one id.
    """
    found: dict[object, CategoryEntry] = {}
    for position, entry in enumerate(entries):
        where = f"{origin}: entry {position} of 'categories'"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where} is {shown(entry)}, expected an object with id and name.")
        key, name = canonical(entry.get("id")), entry.get("name")
        is_named = isinstance(name, (str, int)) and not isinstance(name, bool)
        if key is None or not is_named or not str(name).strip():
            lacks = "id" if key is None else "name"
            raise ValueError(
                f"{where} needs an 'id' and a 'name': its {lacks!r} is {shown(entry.get(lacks))}. "
                "Add the missing one to 'categories'."
            )
        if "\0" in str(name) or not _is_text(str(name)):
            raise ValueError(f"{where} has a null character, or half of one, in its name {name!r}.")
        above = entry.get("supercategory")
        above = above.strip() if isinstance(above, str) else ""
        above = "" if above.casefold() in ("none", "null") else above
        category = CategoryEntry(entry["id"], str(name), above)
        other = found.setdefault(key, category)
        if other is category:
            continue
        if other.name != category.name:
            raise ValueError(
                f"{origin}: category ids occur more than once: {other.name!r} and "
                f"{category.name!r} both have the id {entry['id']!r}. Give each its own."
            )
        report.add("notes", "category listed twice: one copy kept", str(name))
    return list(found.values())


def by_file_name(images: Sequence[ImageEntry]) -> dict[str, int]:
    """Return the images by their names, and by the last part and its stem where these are unique.

    A name that several images could mean has the position -1.
    """
    exact = {plain_name(image.file_name): i for i, image in enumerate(images) if image.file_name}
    found: dict[str, int] = {}
    for name, index in exact.items():
        base = name.rsplit("/", 1)[-1]
        for short in {base, base.rsplit(".", 1)[0]}:
            found[short] = index if found.get(short, index) == index else -1
    return found | exact


def find_file_name(names: Mapping[str, int], value: str) -> int:
    """Return the position of an image by a name in one of the forms of `by_file_name`, or -1."""
    return names.get(plain_name(value), -1)


def plain_name(name: str) -> str:
    """Return a file name with forward slashes and without './' in front."""
    return re.sub(r"^(\./)+", "", name.strip().replace("\\", "/"))
