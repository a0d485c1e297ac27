"""A detector in two halves, from pixels to raw maps and from there to detections."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.decoders import VOTING_PAIRS
from ssd_centernet.layers.normalization import L2Norm
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.layers.upsampling import UpsampleAdd
from ssd_centernet.models.detector import Detector


class Halves:
    """Run the network and the decoding apart, so that each can be stored in its own numbers.

    Between them are the maps as the last convolutions give them, each level and kind by itself:
    joined they would have to share one scale in a file of 8-bit integers.
    """

    def __init__(self, detector: Detector):
        """Take a detector with its weights."""
        self._detector = detector
        head = getattr(detector, "head", None)
        self._split = hasattr(head, "predict_maps") and hasattr(head, "join_maps")
        if self._split:
            self._levels = keras.Model(detector.inputs, tf.nest.flatten(head.input))

    def predict(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predict raw maps.

        Args:
            pixels: float32 [N, h, w, 3], RGB in 0..255, of the network's size.

        Returns:
            float32 maps by name.
        """
        inputs = normalized(self._detector.preprocessing, pixels)
        with UpsampleAdd.resizing(), L2Norm.fusing():
            if self._split:
                # Keras gives a single one without its list.
                levels = tf.nest.flatten(self._levels(inputs, training=False))
                return self._detector.head.predict_maps(levels)
            outputs = tf.nest.flatten(self._detector(inputs, training=False))
        return {f"output_{number}": value for number, value in enumerate(outputs)}

    def decode(
        self,
        maps: dict[str, tf.Tensor],
        extents,
        *,
        steps: dict[str, float] | None = None,
        **limits,
    ) -> dict[str, tf.Tensor]:
        """Decode what `predict` gives; other arguments and result are those of `Detector.decode`.

        Args:
            maps: by name.
            extents: as in `Detector.decode`.
            steps: the step of each map's values where they were integers. Neighbours in a heatmap
                are then often equal, and both would be peaks: less than half a step decides.
            **limits: as in `Detector.decode`.
        """
        if not self._split:
            values = [maps[f"output_{number}"] for number in range(len(maps))]
            outputs = tf.nest.pack_sequence_as(self._detector.output, values)
            return self._detector.decode(outputs, extents, **limits)
        around = getattr(self._detector.decoder, "kernel_size", None)
        if steps and around and "center" in maps:
            ranks = _ranks(*maps["center"].shape[1:3], around) * np.float32(steps["center"])
            maps = {**maps, "center": maps["center"] - tf.constant(ranks)}
        return self._detector.decode(self._detector.head.join_maps(maps), extents, **limits)

    def decoding(self, pairs: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Tell `numpy_decoders` how to decode what `predict` gives.

        Args:
            pairs: best pairs of place and class that enter a suppression.

        Returns:
            Settings, which can be written as JSON, `kind` is the decoder's among them; and arrays.

        Raises:
            ValueError: the decoder is of a kind that has no counterpart there.
        """
        detector, config = self._detector, self._detector.decoder.get_config()
        kind = type(detector.decoder).__name__
        settings = {"classes": detector.num_classes, **_picked(config, "max_detections")}
        if self._split and kind == "CenterNetDecoder":
            return {
                "kind": "centernet",
                **settings,
                **_picked(config, "kernel_size", "vote_iou"),
            }, {}
        if not self._split or kind not in SSD_SETTINGS:
            known = ", ".join([*SSD_SETTINGS, "CenterNetDecoder"])
            raise ValueError(
                f"tflite_int8_heads knows how to decode for {known} behind heads of this library, "
                f"not for {kind} behind {type(detector.head).__name__}; export tflite_full_int8, "
                "which has the decoder inside."
            )
        arrays = {"anchors": np.asarray(detector.anchor_boxes, np.float32)}
        pairs = config.get("pre_nms_top_k") or max(pairs, config["max_detections"])
        settings |= {"kind": "ssd", "pairs": pairs, **_picked(config, "scale_factors")}
        return {**settings, **SSD_SETTINGS[kind](config)}, arrays


def _of_softmax(config: dict) -> dict[str, Any]:
    return {
        "scores": "softmax",
        "clip": "before" if config["clip"] else "never",
        "max_entering": config["max_per_class"],
        "max_kept": None,
        "voters": None,
        **_picked(config, "inclusive", "max_log_size", "drop_empty", "vote_iou"),
    }


def _of_sigmoid(config: dict) -> dict[str, Any]:
    return {
        "scores": "sigmoid",
        # Whole boxes suppress, clipped ones are given out.
        "clip": "after",
        "max_entering": None,
        "max_kept": config["max_per_class"],
        "inclusive": False,
        "max_log_size": None,
        "drop_empty": False,
        "voters": VOTING_PAIRS,
        **_picked(config, "vote_iou"),
    }


# Of each decoder: what `numpy_decoders.ssd` is told of its settings.
SSD_SETTINGS = {"SSDDecoder": _of_softmax, "SigmoidSSDDecoder": _of_sigmoid}


def _picked(config: dict, *names: str) -> dict[str, Any]:
    return {name: config[name] for name in names}


def _ranks(height: int, width: int, around: int) -> np.ndarray:
    """Return [1, h, w, 1] in [0, 0.5), different from each other in every window of `around`."""
    y, x = np.mgrid[:height, :width]
    ranks = (y % around * around + x % around) / np.float32(2 * around**2)
    return ranks[np.newaxis, ..., np.newaxis].astype(np.float32)


def normalized(preprocessing: Preprocessing, pixels: tf.Tensor) -> tf.Tensor:
    """Normalise and order the channels by one convolution.

    In integers that is one rounding, to steps of about one grey level. Each operation of its own
    would round, and the reversal of channels takes its result to have another scale than its input.
    """
    if type(preprocessing).normalize is not Preprocessing.normalize:
        return preprocessing.normalize(pixels)
    scales = 1.0 / (preprocessing.scale * np.asarray(preprocessing.std, np.float64))
    kernel = np.diag(scales)
    if preprocessing.channels == "BGR":
        kernel = kernel[::-1]
    offsets = -np.asarray(preprocessing.mean, np.float64) / np.asarray(preprocessing.std)
    kernel = tf.constant(kernel[np.newaxis, np.newaxis], tf.float32)
    return tf.nn.conv2d(pixels, kernel, 1, "VALID") + tf.constant(offsets, tf.float32)
