"""A detector as a SavedModel: pixels, files or records in, detections on the given images out."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import minor_version
from ssd_centernet.data.records import encode_example
from ssd_centernet.export.parity import Found
from ssd_centernet.models.detector import Detector
from ssd_centernet.ops import image as image_ops

# What clients call; each has a twin that takes thresholds too.
IMAGES, ENCODED, EXAMPLES = "serving_default", "encoded", "examples"
WITH_THRESHOLDS = "_with_thresholds"
ENCODED_KEY = "image/encoded"
# As every part of a detector is traced. To rewrite them all takes longer than to write the file.
_traced = functools.partial(tf.function, autograph=False)


def save_serving(
    detector: Detector,
    path: str | os.PathLike,
    *,
    names_file: str | os.PathLike,
    thresholds: dict[str, float],
    batch_size: int | None = None,
) -> None:
    """Write a SavedModel that needs nothing but tensorflow.

    Six signatures give detections: `serving_default` of uint8 images [N, H, W, 3] of any one size,
    `encoded` of N files (JPEG, PNG, GIF or BMP) of different sizes, `examples` of N serialised
    `tf.Example` with `image/encoded`; and for each one with `_with_thresholds` in its name, which
    takes the thresholds and `max_detections` too. The network is in the file once. In Python the
    loaded object has `detect`, `detect_encoded` and `detect_examples` with these as defaults.

    Args:
        detector: with its weights.
        path: the folder to write.
        names_file: text file with the name of a class in each line; becomes an asset.
        thresholds: `score_threshold` and, where boxes are suppressed, `iou_threshold`: defaults of
            the signatures' inputs.
        batch_size: N; None leaves it open.
    """
    served = _Served(detector, names_file, thresholds, batch_size)
    tf.saved_model.save(served, os.fspath(path), signatures=served.signatures())


class ServingRunner:
    """Run a SavedModel in this process, through the three kinds of input, or some of them."""

    def __init__(
        self, path: str | os.PathLike, *, kinds: Sequence[str] = (IMAGES, ENCODED, EXAMPLES)
    ):
        """Load the folder that `save_serving`, or with pixels alone `save_portable_model`, wrote.

        The attribute `frame` is (height, width) of the images that go in; None for any.
        """
        self._loaded = tf.saved_model.load(os.fspath(path))
        self._kinds = kinds
        (given,) = self._loaded.signatures[IMAGES].structured_input_signature[1].values()
        frame = given.shape[1:3]
        self.frame = tuple(frame) if frame.is_fully_defined() else None

    def __call__(self, image: np.ndarray) -> list[Found]:
        """Detect on an image, uint8 [H, W, 3], given as pixels, as a PNG and in a record."""
        if list(self._kinds) == [IMAGES]:
            return [self._run(IMAGES, tf.constant(image[np.newaxis]))]
        png = tf.io.encode_png(image).numpy()
        record = encode_example(
            {
                "encoded": png,
                "format": "png",
                "filename": "check.png",
                "source_id": 1,
                "height": image.shape[0],
                "width": image.shape[1],
                "boxes": np.zeros((0, 4), np.float32),
                "labels": [],
            }
        )
        inputs = {
            IMAGES: tf.constant(image[np.newaxis]),
            ENCODED: tf.constant([png]),
            EXAMPLES: tf.constant([record]),
        }
        return [self._run(name, inputs[name]) for name in self._kinds]

    def _run(self, name: str, value: tf.Tensor) -> Found:
        signature = self._loaded.signatures[name]
        (key,) = signature.structured_input_signature[1]
        size = signature.structured_input_signature[1][key].shape[0] or 1
        given = tf.repeat(value, size, axis=0)
        return Found.first(signature(**{key: given}))


class _Served(tf.Module):
    """The weights, the names of the classes and the functions that are saved."""

    def __init__(self, detector, names_file, thresholds, batch_size):
        super().__init__(name="detector")
        # The variables alone: with the Keras model its layers would be saved, and Keras be needed.
        self.weights = [getattr(variable, "_variable", variable) for variable in detector.variables]
        self.names_file = tf.saved_model.Asset(os.fspath(names_file))
        self._batch_size = batch_size
        self._score = tf.constant(thresholds["score_threshold"], tf.float32)
        iou = thresholds.get("iou_threshold")
        self._iou = None if iou is None else tf.constant(iou, tf.float32)
        self._most = tf.constant(np.iinfo(np.int32).max)
        self._functions = _Functions(detector, Path(names_file), batch_size)

    def signatures(self) -> dict:
        """Make the six functions; see `save_serving`."""
        pixels = tf.TensorSpec([self._batch_size, None, None, 3], tf.uint8, "images")
        files, examples = (
            tf.TensorSpec([self._batch_size], tf.string, name) for name in ("files", "examples")
        )
        made = self._functions
        # As attributes too: from Python these can be called without the thresholds.
        self.detect = self._with_thresholds(made.of_images, pixels)
        self.detect_encoded = self._with_thresholds(made.of_files, files)
        self.detect_examples = self._with_thresholds(made.of_examples, examples)
        return {
            IMAGES: self._plain(made.of_images, pixels),
            ENCODED: self._plain(made.of_files, files),
            EXAMPLES: self._plain(made.of_examples, examples),
            f"images{WITH_THRESHOLDS}": self.detect,
            f"{ENCODED}{WITH_THRESHOLDS}": self.detect_encoded,
            f"{EXAMPLES}{WITH_THRESHOLDS}": self.detect_examples,
        }

    def _plain(self, function, spec: tf.TensorSpec):
        limits = [limit for limit in (self._score, self._iou, self._most) if limit is not None]
        return _traced(lambda given: function(given, *limits), input_signature=[spec])

    def _with_thresholds(self, function, spec: tf.TensorSpec):
        """Make the twin of a signature; the defaults of its arguments go into the file."""
        score, iou, most = self._score, self._iou, self._most
        if minor_version(tf.__version__) < (2, 13):  # Its files hold defaults as numbers alone.
            score, iou, most = (
                one if one is None else one.numpy().item() for one in (score, iou, most)
            )

        def detect(given, score_threshold=score, iou_threshold=iou, max_detections=most):
            return function(given, score_threshold, iou_threshold, max_detections)

        def detect_all(given, score_threshold=score, max_detections=most):
            return function(given, score_threshold, max_detections)

        names = ["score_threshold", "iou_threshold"][: 1 if iou is None else 2]
        scalars = [tf.TensorSpec([], tf.float32, name) for name in names]
        scalars.append(tf.TensorSpec([], tf.int32, "max_detections"))
        return _traced(detect_all if iou is None else detect, input_signature=[spec, *scalars])


class _Functions:
    """From each kind of input to detections, through one traced network.

    Behind the images the methods take the score threshold, the IoU threshold where there is one,
    and the number of detections.
    """

    def __init__(self, detector: Detector, names_file: Path, batch_size: int | None):
        self._detector = detector
        names = names_file.read_text(encoding="utf-8").splitlines()
        shape = [batch_size, *detector.image_size, 3]

        @_traced
        def detect(pixels, extents, score_threshold, *rest):
            limits = {"score_threshold": score_threshold}
            if len(rest) > 1:
                limits["iou_threshold"] = rest[0]
            pixels = tf.ensure_shape(pixels, shape)
            found = detector.detect_prepared(pixels, extents, **limits)
            return _named(_first(found, rest[-1]), names)

        self._detect = detect

    def of_images(self, images: tf.Tensor, *limits) -> dict[str, tf.Tensor]:
        """Detect on uint8 images [N, H, W, 3]."""
        shape = tf.shape(images)
        sizes = tf.tile(shape[tf.newaxis, 1:3], [shape[0], 1])
        extents = self._detector.preprocessing.extent(sizes[:, 0], sizes[:, 1])
        return self._detect(self._detector.preprocessing(images), extents, *limits)

    def of_files(self, files: tf.Tensor, *limits) -> dict[str, tf.Tensor]:
        """Detect on N encoded images, strings [N], of different sizes."""
        preprocessing = self._detector.preprocessing

        def prepare(encoded: tf.Tensor):
            image = image_ops.decode_image(encoded)
            size = tf.shape(image)[:2]
            return preprocessing(image), preprocessing.extent(size[0], size[1]), size

        shape = (*self._detector.image_size, 3)
        pixels, extents, sizes = tf.map_fn(
            prepare,
            files,
            fn_output_signature=(
                tf.TensorSpec(shape, tf.float32),
                tf.TensorSpec([2], tf.float32),
                tf.TensorSpec([2], tf.int32),
            ),
        )
        return {**self._detect(pixels, extents, *limits), "image_sizes": sizes}

    def of_examples(self, examples: tf.Tensor, *limits) -> dict[str, tf.Tensor]:
        """Detect on N serialised `tf.Example`, of which `image/encoded` is read."""
        features = {ENCODED_KEY: tf.io.FixedLenFeature([], tf.string)}
        return self.of_files(tf.io.parse_example(examples, features)[ENCODED_KEY], *limits)


def _first(found: dict[str, tf.Tensor], count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Keep the first detections of each image; zeros after them."""
    count = tf.minimum(found["count"], tf.maximum(count, 0))
    kept = tf.range(tf.shape(found["scores"])[1]) < count[:, tf.newaxis]
    return {
        "boxes": tf.where(kept[..., tf.newaxis], found["boxes"], 0.0),
        "scores": tf.where(kept, found["scores"], 0.0),
        "classes": tf.where(kept, found["classes"], 0),
        "count": count,
    }


def _named(found: dict[str, tf.Tensor], names: list[str]) -> dict[str, tf.Tensor]:
    """Add the names of the classes, empty after the last detection."""
    kept = tf.range(tf.shape(found["scores"])[1]) < found["count"][:, tf.newaxis]
    given = tf.gather(tf.constant(names), found["classes"])
    return {**found, "class_names": tf.where(kept, given, "")}
