"""A detector for runtimes other than TensorFlow: TFLite and ONNX."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.export import onnx_nms
from ssd_centernet.export.parity import Found
from ssd_centernet.export.runtimes import missing, onnx_session, quiet, tflite_signature
from ssd_centernet.files import write_atomically
from ssd_centernet.models.detector import Detector
from ssd_centernet.ops import standard_nms
from ssd_centernet.runtime.signals import at_once

OUTPUTS = ("boxes", "scores", "classes", "count")
_OPSET = 17


def portable_function(
    detector: Detector,
    *,
    frame: tuple[int, int] | None,
    batch_size: int | None,
    pairs: int,
    thresholds: dict[str, float],
):
    """Make `detect` as a graph of operations that TFLite and ONNX have.

    Args:
        detector: with its weights.
        frame: (height, width) of the images in pixels; None leaves it open.
        batch_size: N; None leaves it open.
        pairs: best pairs of anchor and class that enter the suppression.
        thresholds: of the decoder's call.

    Returns:
        A tf.function of `images`, uint8 [N, H, W, 3], with its signature.
    """
    spec = tf.TensorSpec([batch_size, *(frame or (None, None)), 3], tf.uint8, "images")
    preprocessing = detector.preprocessing

    @tf.function(input_signature=[spec], autograph=False)
    def detect(images):
        if frame == tuple(detector.image_size):
            # A resize to the same size is none.
            inputs, extents = preprocessing.normalize(tf.cast(images, tf.float32)), None
        else:
            shape = tf.shape(images)
            sizes = tf.tile(shape[tf.newaxis, 1:3], [shape[0], 1])
            extents = preprocessing.extent(sizes[:, 0], sizes[:, 1])
            inputs = preprocessing(images, portable=True)
        found = detector.detect_prepared(
            inputs,
            extents,
            portable_pairs=pairs,
            **thresholds,
        )
        return {key: tf.identity(found[key], name=key) for key in OUTPUTS}

    return detect


def save_tflite(detector: Detector, path: str | os.PathLike, function, *, int8: bool) -> None:
    """Convert to TFLite, with built-in operations alone.

    Args:
        detector: whose weights the function uses.
        path: the file to write.
        function: of `portable_function`, with a fixed frame.
        int8: whether weights are stored in 8 bits; activations stay float32.

    Raises:
        ValueError: the detector has operations that TFLite does not have.
    """

    def as_wanted(converter) -> None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]

    # Beside the file, where an export looks for what an earlier one has left.
    write_atomically(path, convert_to_tflite(detector, os.path.dirname(path), function, as_wanted))


def convert_to_tflite(
    detector: Detector, folder: str, function, prepare: Callable[[Any], None]
) -> bytes:
    """Convert a function of tensors to the content of a TFLite file.

    Args:
        detector: whose weights the function uses.
        folder: for what is written meanwhile.
        function: a tf.function with its signature; the arguments' names are the inputs'.
        prepare: called with TensorFlow's converter, to set it.

    Raises:
        ValueError: the detector has operations that TFLite does not have.
    """
    module = tf.Module()
    module.weights = [getattr(v, "_variable", v) for v in detector.variables]
    with tempfile.TemporaryDirectory(dir=folder) as saved, quiet():
        tf.saved_model.save(module, saved, signatures={"serving_default": function})
        # LiteRT has no converter of saved models yet.
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        prepare(converter)
        try:
            with at_once():
                return converter.convert()
        except Exception as error:  # The converter's own type is not public.
            raise ValueError(
                f"{type(detector).__name__} cannot be converted to TFLite: "
                f"{str(error).strip().splitlines()[-1]}. A part of it, such as a backbone of your "
                "own, has operations that TFLite does not have (they are listed above); leave "
                "tflite out of --formats, or export onnx."
            ) from error


def save_portable_model(detector: Detector, path: str | os.PathLike, function) -> None:
    """Write a SavedModel of operations that TFLite has, for converters such as TensorFlow.js's.

    Args:
        detector: whose weights the function uses.
        path: the folder to write.
        function: of `portable_function`, with a fixed frame and a fixed batch.
    """
    module = tf.Module()
    module.weights = [getattr(v, "_variable", v) for v in detector.variables]
    with quiet():
        tf.saved_model.save(module, os.fspath(path), signatures={"serving_default": function})


def save_onnx(
    path: str | os.PathLike, function, *, metadata: dict[str, str], one_operation: bool = False
) -> None:
    """Convert to ONNX.

    Args:
        path: the file to write.
        function: of `portable_function`.
        metadata: text to store in the file, such as the names of the classes.
        one_operation: see `convert_to_onnx`.

    Raises:
        ImportError: tf2onnx is not installed.
    """
    content = convert_to_onnx(function, metadata=metadata, one_operation=one_operation)
    write_atomically(path, content)


def convert_to_onnx(
    function, *, metadata: dict[str, str] | None = None, one_operation: bool = False
) -> bytes:
    """Convert a function of tensors to the content of an ONNX file, which onnx has checked.

    Args:
        function: a tf.function with its signature, which has not been traced yet.
        metadata: text to store in it.
        one_operation: whether boxes are suppressed by ONNX's NonMaxSuppression, without loops and
            branches, instead of by operations that all runtimes have.

    Raises:
        ImportError: tf2onnx is not installed.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise ImportError(missing("tf2onnx", "onnx")) from error
    form = standard_nms.one_operation() if one_operation else contextlib.nullcontext()
    with quiet(), form:
        model, _ = tf2onnx.convert.from_function(
            function,
            input_signature=function.input_signature,
            opset=_OPSET,
            custom_op_handlers={onnx_nms.COMBINED: (onnx_nms.write_combined, [])},
        )
        onnx.checker.check_model(model, full_check=True)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


class TFLiteRunner:
    """Run a TFLite file with LiteRT, or with TensorFlow's interpreter where that is absent."""

    def __init__(self, path: str | os.PathLike):
        """Load the file that `save_tflite` wrote."""
        self._run = tflite_signature(path)
        self._shape = tuple(self._run.get_input_details()["images"]["shape"])
        self.frame = tuple(int(side) for side in self._shape[1:3])

    def __call__(self, image: np.ndarray) -> list[Found]:
        """Detect on an image, uint8 [H, W, 3] of the size `frame`."""
        images = np.repeat(image[np.newaxis], self._shape[0], axis=0)
        return [Found.first(self._run(images=images))]


class OnnxRunner:
    """Run an ONNX file with onnxruntime on the CPU."""

    def __init__(self, path: str | os.PathLike):
        """Load the file that `save_onnx` wrote.

        Raises:
            ImportError: onnxruntime is not installed.
        """
        self._session = onnx_session(path)
        (self._input,) = self._session.get_inputs()
        batch, *sides, _ = self._input.shape
        self._batch_size = batch if isinstance(batch, int) else 1
        fixed = all(isinstance(side, int) for side in sides)
        self.frame = tuple(sides) if fixed else None

    def __call__(self, image: np.ndarray) -> list[Found]:
        """Detect on an image, uint8 [H, W, 3], of the size `frame` unless that is None."""
        images = np.repeat(image[np.newaxis], self._batch_size, axis=0)
        values = self._session.run(list(OUTPUTS), {self._input.name: images})
        return [Found.first(dict(zip(OUTPUTS, values, strict=True)))]
