"""Detect with exported files, as they will run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.export import integers, openvino_ir, portable, serving
from ssd_centernet.export.card import CARD_NAME
from ssd_centernet.export.parity import Found
from ssd_centernet.files import read_object
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops

_ENDINGS = {
    ".tflite": integers.tflite_runner,
    ".onnx": portable.OnnxRunner,
    ".xml": openvino_ir.OpenVinoRunner,
}
_FOLDERS = ("saved_model", "saved_model_portable")


class FittedRun:
    """Detect with a function of images of one size on images of any size.

    Attributes:
        label_map: names and data set ids of the classes.
        frame: (height, width) of the images that the function takes; None for any.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Sequence[Found]],
        *,
        frame: tuple[int, int] | None,
        label_map: LabelMap,
        keep_aspect: bool,
    ):
        """Take a function.

        Args:
            run: from uint8 [H, W, 3] to what is found on it; the first of these counts.
            frame: as above.
            label_map: as above.
            keep_aspect: whether images are fitted in with their aspect ratio.
        """
        self._run = run
        self.frame = frame
        self.label_map = label_map
        self._keep_aspect = keep_aspect

    def detect(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Detect objects on one image.

        An image of another size than `frame` is resized to it, bilinear with half-pixel centres and
        rounded to whole numbers, as a program that uses the file has to do.

        Args:
            image: uint8 [H, W, 3] of any size.

        Returns:
            `boxes` float32 [n, 4], yxyx fractions of the image; `scores` float32 [n], descending;
            `classes` int [n], 0..C-1.
        """
        return self.detect_fitted(*self.fit(image))

    def fit(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resize an image to `frame`; another thread may do it than the one that detects.

        Args:
            image: uint8 [H, W, 3] of any size.

        Returns:
            uint8 [*frame, 3], and float32 [2], the share of its height and width that is the image.
        """
        if self.frame is None or image.shape[:2] == self.frame:
            return image, np.ones(2, np.float32)
        return fit_image(image, self.frame, self._keep_aspect)

    def detect_fitted(self, image: np.ndarray, extent: np.ndarray) -> dict[str, np.ndarray]:
        """Detect objects on what `fit` returned; returns as `detect` does."""
        found = self._run(image)[0]
        boxes = found.boxes / np.tile(extent, 2)
        return {"boxes": boxes, "scores": found.scores, "classes": found.classes}


class ExportedDetector(FittedRun):
    """A file that `export` wrote, with the names of its classes.

    Attributes:
        path: the file, or the folder of a SavedModel.
    """

    def __init__(self, path: str | os.PathLike):
        """Load a file; what is said of it in the model card beside it is read too.

        Args:
            path: `model.tflite`, `model.onnx`, `model.xml` or `saved_model/` of an export.

        Raises:
            FileNotFoundError: there is no such file, or no model card beside it.
            ValueError: it is no file of an export.
        """
        self.path = Path(path)
        run = _runner(self.path)
        keep_aspect = read_card(self.path)["preprocessing"]["keep_aspect"]
        labels = labels_of(self.path)
        super().__init__(run, frame=run.frame, label_map=labels, keep_aspect=keep_aspect)


def labels_of(path: str | os.PathLike) -> LabelMap:
    """Read the classes of an exported file from the model card beside it; the file stays closed.

    Raises:
        FileNotFoundError: there is no model card.
        ValueError: it is no model card of an export.
    """
    labels = read_card(Path(path))["labels"]
    ids = tuple(label.get("id", number) for number, label in enumerate(labels, 1))
    return LabelMap(tuple(label["name"] for label in labels), ids)


def _runner(path: Path) -> Callable:
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}: expected a file of `ssd_centernet export`, such as "
            "model.tflite, model.onnx or the folder saved_model."
        )
    if path.suffix in _ENDINGS:
        return _ENDINGS[path.suffix](path)
    if (path / "saved_model.pb").is_file():
        return serving.ServingRunner(path, kinds=[serving.IMAGES])
    inside = sorted(one.name for one in path.iterdir()) if path.is_dir() else []
    names = [name for name in inside if Path(name).suffix in _ENDINGS or name in _FOLDERS]
    listed = f" Files in it: {', '.join(names)}." if names else ""
    raise ValueError(
        f"{path} is no file that `ssd_centernet export` writes: expected one that ends in "
        f"{', '.join(_ENDINGS)}, or the folder of a SavedModel.{listed}"
    )


def read_card(path: Path) -> dict:
    """Read the model card beside an exported file.

    Raises:
        FileNotFoundError: there is none, or it is damaged.
    """
    place = path.parent / CARD_NAME
    card = read_object(place)
    try:
        if card and all("name" in label for label in card["labels"]):
            # Older cards say it in words alone.
            steps = card["preprocessing"]
            steps.setdefault("keep_aspect", steps["steps"][0].startswith("fitted"))
            return card
    except (AttributeError, KeyError, IndexError, TypeError):
        pass
    raise FileNotFoundError(
        f"{place} is missing or damaged: it names the classes of {path.name}. Keep the files of an "
        "export together, or export again."
    )


def fit_image(
    image: np.ndarray, frame: tuple[int, int], keep_aspect: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of the size that a file takes, and the share of it that holds the image.

    Args:
        image: uint8 [H, W, 3].
        frame: (height, width) in pixels.
        keep_aspect: whether it is fitted in with its aspect ratio, black at the bottom and right.

    Returns:
        uint8 [*frame, 3], and float32 [2], the share of its height and width.
    """
    size = np.array(image_ops.fitted_size(*image.shape[:2], frame) if keep_aspect else frame)
    pixels = tf.image.resize(image, size)
    pixels = tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8).numpy()
    fitted = np.zeros((*frame, 3), np.uint8)
    fitted[: size[0], : size[1]] = pixels
    return fitted, (size / np.array(frame)).astype(np.float32)
