"""A detector whose network computes in integers: TFLite files of 8 bits, or of 16 by 8."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.export import joining, portable
from ssd_centernet.export.biases import mend_biases
from ssd_centernet.export.edge_tpu import check_operators
from ssd_centernet.export.parity import Found
from ssd_centernet.export.runtimes import tflite_signature
from ssd_centernet.files import write_atomically
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.halves import Halves
from ssd_centernet.models.numpy_decoders import DECODERS

# Beside an 8-bit file of raw maps: values with this ending instead of .tflite, and the code that
# shows how to use them.
SIDECAR = ".npz"
DECODER_NAME = "decode_heads.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integers:
    """Make the files of one detector; the two of 8 bits share one calibrated network.

    Attributes:
        detector: with its weights.
        pictures: uint8 [H, W, 3] each, of any size: what the ranges of the network's numbers are
            measured on.
        folder: for what is written meanwhile.
        frame: (height, width) of the images that go in, in pixels.
        batch_size: N.
        pairs: best pairs of anchor and class that enter the suppression.
        thresholds: of the decoder's call.
    """

    detector: Detector
    pictures: Sequence[np.ndarray]
    folder: str
    frame: tuple[int, int]
    batch_size: int
    pairs: int
    thresholds: dict[str, float]

    def with_decoder(self, *, wide: bool) -> bytes:
        """Return a file from uint8 images to detections, as `portable_function` has them.

        Args:
            wide: whether activations have 16 bits instead of 8; weights have 8 in both.
        """
        network = self._wide_network if wide else self._network
        content = joining.join(network, self._convert(self.decoding(steps=_steps(network))))
        own = tuple(self.detector.image_size)
        if self.frame == own and not wide:
            return content
        return joining.join(self._convert(self.entrance(wide=wide)), content)

    def heads(self) -> tuple[bytes, dict[str, np.ndarray]]:
        """Return a file from uint8 pixels to raw int8 maps, and what it takes to decode them.

        Raises:
            ValueError: the decoder or the head is of another kind than `decode_heads` knows.
        """
        if self.frame != tuple(self.detector.image_size):
            raise ValueError(
                f"tflite_int8_heads takes images of the network's size, "
                f"{','.join(map(str, self.detector.image_size))}, got --input_size="
                f"{','.join(map(str, self.frame))}; leave --input_size out, or this format."
            )
        settings, arrays = self._halves.decoding(self.pairs)
        if floats := joining.float_operators(self._network):
            raise ValueError(
                f"tflite_int8_heads: {', '.join(floats)} of {type(self.detector).__name__} compute "
                "in float32, for they have no form of 8 bits. Exchange the part that has them, or "
                "export tflite_full_int8, in which they may."
            )
        settings |= {**self.thresholds, "outputs": joining.output_scales(self._network)}
        return self._network, {**arrays, "settings": np.array(json.dumps(settings))}

    @functools.cached_property
    def _halves(self) -> Halves:
        decoder = getattr(self.detector, "decoder", None)
        if getattr(decoder, "test_time", ()):
            raise ValueError(
                f"{type(decoder).__name__}.test_time = {decoder.test_time} looks at each image "
                "twice, which files of integers do not do. Set it to (), or export tflite."
            )
        return Halves(self.detector)

    @functools.cached_property
    def _network(self) -> bytes:
        def as_wanted(converter) -> None:
            if self.detector.quantized is None:
                self._calibrated(converter)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            else:
                # The ranges are in the graph, and the converter takes no others beside them.
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.int8

        return mend_biases(self._convert(self.function, as_wanted))[0]

    @functools.cached_property
    def _wide_network(self) -> bytes:
        def as_wanted(converter) -> None:
            self._calibrated(converter)
            kinds = tf.lite.OpsSet
            # Few operations have no kernel of 16 bits; these then compute in float32.
            converter.target_spec.supported_ops = [
                kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
                kinds.TFLITE_BUILTINS,
            ]

        return mend_biases(self._convert(self.function, as_wanted))[0]

    @functools.cached_property
    def function(self):
        """The network from pixels to raw maps, as a function of `images` with its signature."""
        shape = [self.batch_size, *self.detector.image_size, 3]
        spec = tf.TensorSpec(shape, tf.float32, "images")
        quantized = self.detector.quantized
        predict = self._halves.predict if quantized is None else quantized.maps
        return tf.function(predict, input_signature=[spec], autograph=False)

    def _calibrated(self, converter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = self.samples

    def samples(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the pictures as the network gets them, before they are normalised."""
        preprocessing = self.detector.preprocessing
        for picture in self.pictures:
            pixels = preprocessing.denormalize(preprocessing(tf.constant(picture[np.newaxis])))
            yield {"images": np.repeat(pixels, self.batch_size, axis=0).astype(np.float32)}

    def decoding(self, *, steps: dict[str, float] | None):
        """Make the function from raw maps in float32 to detections.

        Args:
            steps: as in `Halves.decode`.
        """
        outputs = self.function.get_concrete_function().structured_outputs
        specs = {
            name: tf.TensorSpec(value.shape, tf.float32, name) for name, value in outputs.items()
        }
        extents = None
        if self.frame != tuple(self.detector.image_size):
            sides = [tf.fill([self.batch_size], side) for side in self.frame]
            extents = self.detector.preprocessing.extent(*sides).numpy()

        @tf.function(input_signature=[specs], autograph=False)
        def decode(maps):
            found = self._halves.decode(
                maps,
                None if extents is None else tf.constant(extents),
                steps=steps,
                portable_pairs=self.pairs,
                **self.thresholds,
            )
            return {key: tf.identity(found[key], name=key) for key in portable.OUTPUTS}

        return decode

    def entrance(self, *, wide: bool, name: str = "images"):
        """Make the function from uint8 images to the network's pixels, which are not normalised.

        Args:
            wide: whether pixels are float32; else uint8.
            name: of its output.
        """
        preprocessing, own = self.detector.preprocessing, tuple(self.detector.image_size)

        @tf.function(
            input_signature=[tf.TensorSpec([self.batch_size, *self.frame, 3], tf.uint8, "images")],
            autograph=False,
        )
        def enter(images):
            if self.frame == own:
                pixels = tf.cast(images, tf.float32)
            else:
                pixels = tf.round(preprocessing.resized(images, portable=True))
            if not wide:
                pixels = tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), tf.uint8)
            return {name: tf.identity(pixels, name=name)}

        return enter

    def _convert(self, function, prepare: Callable[[Any], None] | None = None) -> bytes:
        return portable.convert_to_tflite(
            self.detector, self.folder, function, prepare or (lambda converter: None)
        )


def _steps(network: bytes) -> dict[str, float]:
    return {name: entry["scale"] for name, entry in joining.output_scales(network).items()}


def save_heads(path: str | os.PathLike, content: bytes, arrays: dict[str, np.ndarray]) -> None:
    """Write a file of raw maps, and beside it what belongs to it."""
    path = Path(path)
    kind = json.loads(str(arrays["settings"]))["kind"]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, content)
    write_atomically(path.with_suffix(SIDECAR), buffer.getvalue())
    code = Path(DECODERS[kind].__file__).read_text(encoding="utf-8")
    write_atomically(path.with_name(DECODER_NAME), code)


class HeadsRunner:
    """Run a file of raw int8 maps and decode them with NumPy, as a program of one's own would."""

    def __init__(self, path: str | os.PathLike):
        """Load the files that `save_heads` wrote.

        Raises:
            FileNotFoundError: the arrays beside the file are missing.
        """
        sidecar = Path(path).with_suffix(SIDECAR)
        try:
            with np.load(sidecar) as arrays:
                named = json.loads(str(arrays["settings"]))
            self._decoder = DECODERS[named["kind"]]
            self._settings = self._decoder.load(sidecar)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise FileNotFoundError(
                f"{sidecar} is missing or damaged: it says how to decode {Path(path).name}. Keep "
                "the files of an export together, or export again."
            ) from error
        # What the model card says beside.
        operators = check_operators(Path(path).read_bytes())
        self.facts = {"decoding": named, "edge_tpu_operators": operators}
        self._run = tflite_signature(path)
        self._shape = tuple(self._run.get_input_details()["images"]["shape"])
        self.frame = tuple(int(side) for side in self._shape[1:3])

    def __call__(self, image: np.ndarray) -> list[Found]:
        """Detect on an image, uint8 [H, W, 3] of the size `frame`."""
        maps = self._run(images=np.repeat(image[np.newaxis], self._shape[0], axis=0))
        first = {name: value[0] for name, value in maps.items()}
        boxes, scores, classes = self._decoder.decode(first, self._settings)
        full = len(scores) == self._settings["max_detections"]
        return [Found(boxes=boxes, scores=scores, classes=classes, full=full)]


def tflite_runner(path: str | os.PathLike) -> portable.TFLiteRunner | HeadsRunner:
    """Load a TFLite file of any format."""
    if set(tflite_signature(path).get_output_details()) == set(portable.OUTPUTS):
        return portable.TFLiteRunner(path)
    return HeadsRunner(path)
