"""Which label file belongs to which picture of a YOLO data set, and which files are left over."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ssd_centernet.data.readers.image_folder import ImageFolder, fold, list_files
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_number
from ssd_centernet.files import read_text

_IMAGES, _LABELS = ("images", "jpegimages"), ("labels", "Labels", "LABELS")


class LabelFiles:
    """The label files of the pictures of a folder.

    Args:
        folder: the pictures.
        root: folder of the data set; labels are looked for below it, too.
        report: counts what does not fit one to one.

    Attributes:
        found: label file -> the pictures that it was found for.
    """

    def __init__(self, folder: ImageFolder, root: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self._top, self._root = Path(os.path.abspath(folder.path)), Path(os.path.abspath(root))
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._label_folders: dict[str, list[str]] = {}
        self.found: dict[Path, list[str]] = {}

    def places(self, image: str) -> list[str]:
        """Return where the label file of an image may be."""
        stem = os.path.splitext(os.path.basename(image))[0]
        return [os.path.join(folder, f"{stem}.txt") for folder in self._folders(image)]

    def _folders(self, image: str) -> list[str]:
        """Return the folders of an image's label file: `labels` for the last `images`, beside."""
        relative = os.path.dirname(image)
        if relative not in self._label_folders:
            self._label_folders[relative] = self._find_folders(Path(self._top, relative))
        return self._label_folders[relative]

    def _find_folders(self, folder: Path) -> list[str]:
        parts = list(folder.parts)
        below = len(self._root.parts) if folder.is_relative_to(self._root) else 0
        for position in range(len(parts) - 1, below - 1, -1):
            if parts[position].casefold() in _IMAGES:
                swapped = [Path(*parts[:position], n, *parts[position + 1 :]) for n in _LABELS]
                labels = next((place for place in swapped if place.is_dir()), swapped[0])
                return [str(labels), str(folder)]
        labels = self._root / "labels"
        return [str(labels / folder.name), str(labels), str(folder)]

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Return the text files of a folder by what their names have in common, see `fold`."""
        if folder not in self._listed:
            groups: dict[str, list[str]] = {}
            names = os.listdir(folder) if os.path.isdir(folder) else []
            for name in sorted(names):
                if name.lower().endswith(".txt") and not name.startswith("._"):
                    groups.setdefault(fold(name[:-4]), []).append(name)
            self._listed[folder] = groups
        return self._listed[folder]

    def _match(self, image: str) -> tuple[str, str, bool] | None:
        """Return folder and name of an image's label file, and whether it has the image's stem."""
        base = os.path.basename(image)
        for folder in self._folders(image):
            for stem in (os.path.splitext(base)[0], base):
                names, exact = self._names(folder).get(fold(stem), []), f"{stem}.txt"
                if exact in names:
                    return folder, exact, True
                if len(names) == 1:
                    return folder, names[0], False
        return None

    def find(self, image: str) -> Path | None:
        """Return the label file of an image, None if it has none; both are noted."""
        match = self._match(image)
        if match is None:
            self._report.add("notes", "no label file: an image without objects", image)
            return None
        folder, name, is_exact = match
        if not is_exact:
            reason = "label file found in upper or lower case, or with other accents"
            self._report.add("notes", reason, name)
        self.found.setdefault(Path(folder, name), []).append(image)
        return Path(folder, name)

    def note_strays(self, name_files: Iterable[str]) -> None:
        """Note pictures that share a label file, and label files without a picture.

        Args:
            name_files: names of files that hold the names of the classes.
        """
        for images in self.found.values():
            if len(images) > 1:
                reason = "pictures that share one label file: each gets its boxes"
                self._report.add("notes", reason, " and ".join(images))
        used = {match[:2] for match in map(self._match, self._folder.files) if match}
        folders = {folder for places in self._label_folders.values() for folder in places}
        top = self._folders("")[0]
        if os.path.isdir(top):
            below = {os.path.join(top, os.path.dirname(f)) for f in list_files(top, Report())[0]}
            folders |= set(map(os.path.normpath, below))
        for folder in sorted(folders):
            for name in sorted(name for names in self._names(folder).values() for name in names):
                is_known = (folder, name) in used or name in name_files
                if not is_known and _is_label_file(Path(folder, name)):
                    reason = "label file without a picture of its own: not used"
                    self._report.add("notes", reason, name)


def _is_label_file(path: Path) -> bool:
    """Tell whether a text file has lines of labels, is no text, or is empty and among labels."""
    if not path.is_file():
        return False
    try:
        first = read_text(path).strip().partition("\n")[0].split()
    except ValueError:
        return True
    if not first:
        return "labels" in map(str.lower, path.parts)
    return len(first) > 4 and all(read_number(text) is not None for text in first)
