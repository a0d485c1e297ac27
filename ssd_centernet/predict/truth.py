"""The annotations of the images that are detected on: their ids, their frame and their objects."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.data.orientation import Turning, decide_turning, read_orientation
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted
from ssd_centernet.predict.image_files import match_names, number_images


class Truth:
    """Find the objects of image files, and the frame that their boxes refer to.

    Args:
        annotations: COCO json of the images.
        label_map: names of the detector's classes.
        files: paths of the images.
        notes: receives a sentence for each kind of doubt.

    Attributes:
        ids: path -> image id, for every file.
        names: the detector's classes, and after them those that only the annotations have.
        names_of_files: path -> `file_name`, for the files that the annotations list.

    Raises:
        FileNotFoundError: there is no file of annotations.
        ValueError: the file does not hold annotations, or those of none of the files.
    """

    def __init__(
        self,
        annotations: str | os.PathLike,
        label_map: LabelMap,
        files: Sequence[str],
        notes: list[str],
    ) -> None:
        self._path = os.fspath(annotations)
        self._truth = CocoGroundTruth.load(annotations)
        known = self._truth.identity.images_by_name()
        self.ids = number_images(files, known, notes=notes)
        self.names_of_files = match_names(files, tuple(known))
        if not self.names_of_files:
            raise ValueError(
                f"None of {counted(len(files), 'image')}, such as {os.path.basename(files[0])}, "
                f"is in {self._path}, which lists {', '.join(list(known)[:3]) or 'no file names'}. "
                f"Are these annotations of another split? {' '.join(notes)}".rstrip()
            )
        truth = self._truth
        sizes = zip(truth.widths.tolist(), truth.heights.tolist(), strict=True)
        self._sizes = dict(zip(truth.image_ids.tolist(), sizes, strict=True))
        self._turning = self._decide_turning(known)
        if self._turning.is_mixed:
            notes.append("listed sizes are of pictures turned by EXIF and of stored ones")
        # Categories that the detector does not know are drawn too; they come after its own.
        extra = [c["name"] for c in truth.categories if c["name"] not in label_map.names]
        self.names = (*label_map.names, *extra)
        self._class_of = {c["id"]: self.names.index(c["name"]) for c in truth.categories}

    def frame(self, path: str) -> dict[str, Any]:
        """Return the arguments of `read_picture` that give a file in the annotations' frame."""
        if path not in self.names_of_files:
            return {}
        listed = self._sizes.get(self.ids[path], (0, 0))
        return {"listed": listed, "upright": self._turning.upright}

    def objects(
        self, image_id: int, shape: Sequence[int], scale: tuple[float, float]
    ) -> dict[str, np.ndarray]:
        """Return boxes [N, 4] as fractions of an image, classes and crowd marks.

        Args:
            image_id: of the annotations.
            shape: of the image as it was read, (height, width, ...).
            scale: factors in x and y from pixels of the annotations to those of the image.
        """
        truth = self._truth
        mine = truth.object_image_ids == image_id
        x, y, width, height = (truth.boxes[mine] * np.tile(scale, 2)).T
        boxes = np.stack([y, x, y + height, x + width], axis=1)
        return {
            "boxes": boxes / [shape[0], shape[1], shape[0], shape[1]],
            "classes": np.array(
                [self._class_of[i] for i in truth.object_category_ids[mine].tolist()], np.int64
            ),
            "is_crowd": truth.is_crowd[mine],
        }

    def _decide_turning(self, known: Mapping[str, int]) -> Turning:
        """Decide it as the conversion of the whole file does, from the pictures that are here."""
        listed = [
            (path, self._sizes.get(known[name], (0, 0)))
            for path, name in self.names_of_files.items()
        ]
        turning = decide_turning(listed)
        if turning.turned or turning.stored or not any(_is_undecided(path) for path, _ in listed):
            return turning
        # The pictures given do not tell; others of the same annotations beside them may.
        path, name = next(iter(self.names_of_files.items()))
        top = os.path.abspath(path).replace("\\", "/").removesuffix(name.replace("\\", "/"))
        if top == os.path.abspath(path):
            return turning
        others = (
            (os.path.join(top, other), self._sizes.get(i, (0, 0))) for other, i in known.items()
        )
        return decide_turning(others)


def _is_undecided(path: str) -> bool:
    return read_orientation(path) != 1
