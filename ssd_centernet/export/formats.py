"""The formats of an export: how each file is written, run and judged."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssd_centernet.export import integers, openvino_ir, parity, portable, serving
from ssd_centernet.files import write_atomically
from ssd_centernet.models.detector import Detector

LABELS_NAME = "labels.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be exported; see `export`."""

    detector: Detector
    folder: Path
    thresholds: dict[str, float]
    input_size: tuple[int, int] | None
    batch_size: int | None
    pairs: int
    names: tuple[str, ...]
    calibration: Sequence[np.ndarray] = ()

    def function(self, frame: tuple[int, int] | None, batch_size: int | None):
        """Make the graph for other runtimes."""
        return portable.portable_function(
            self.detector,
            frame=frame,
            batch_size=batch_size,
            pairs=self.pairs,
            thresholds=self.thresholds,
        )

    @property
    def frame(self) -> tuple[int, int]:
        """The size of the images that files take which have a fixed one."""
        return self.input_size or tuple(self.detector.image_size)

    @functools.cached_property
    def integers(self) -> integers.Integers:
        """The files of integers; the network is calibrated once for all of them."""
        return integers.Integers(
            detector=self.detector,
            pictures=self.calibration,
            folder=str(self.folder),
            frame=self.frame,
            batch_size=self.batch_size or 1,
            pairs=self.pairs,
            thresholds=self.thresholds,
        )


def _write_saved_model(order: Order, path: Path) -> None:
    serving.save_serving(
        order.detector,
        path,
        names_file=order.folder / LABELS_NAME,
        thresholds=order.thresholds,
        batch_size=order.batch_size,
    )


def _write_tflite(order: Order, path: Path, *, int8: bool = False) -> None:
    function = order.function(order.frame, order.batch_size or 1)
    portable.save_tflite(order.detector, path, function, int8=int8)


def _write_tflite_int8(order: Order, path: Path) -> None:
    _write_tflite(order, path, int8=True)


def _write_full_int8(order: Order, path: Path) -> None:
    write_atomically(path, order.integers.with_decoder(wide=False))


def _write_16x8(order: Order, path: Path) -> None:
    write_atomically(path, order.integers.with_decoder(wide=True))


def _write_int8_heads(order: Order, path: Path) -> None:
    integers.save_heads(path, *order.integers.heads())


def _write_portable_model(order: Order, path: Path) -> None:
    function = order.function(order.frame, order.batch_size or 1)
    portable.save_portable_model(order.detector, path, function)


def _write_onnx(order: Order, path: Path, *, one_operation: bool = False) -> None:
    function = order.function(order.input_size, order.batch_size)
    thresholds = {name: f"{value:g}" for name, value in order.thresholds.items()}
    metadata = {"names": "\n".join(order.names), **thresholds}
    portable.save_onnx(path, function, metadata=metadata, one_operation=one_operation)


def _write_onnx_nms(order: Order, path: Path) -> None:
    if "iou_threshold" not in order.thresholds:
        raise ValueError(
            f"onnx_nms has nothing to suppress with one operation: "
            f"{type(order.detector.decoder).__name__} suppresses no boxes. Export onnx, which has "
            "no loop then either."
        )
    _write_onnx(order, path, one_operation=True)


def _write_openvino(order: Order, path: Path) -> None:
    function = order.function(order.frame, order.batch_size or 1)
    openvino_ir.save_openvino(path, function, names=order.names)


def _write_openvino_int8(order: Order, path: Path) -> None:
    openvino_ir.save_openvino_int8(path, order.integers, names=order.names)


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file: its name, how it is written, run and judged.

    Attributes:
        file: its name in the folder.
        write: called with the order and the path.
        runner: called with the path; gives a function from an image to what is found on it.
        tolerance: what may differ from the model.
        calibrated: whether ranges of numbers are measured on pictures before; not those of a
            detector that has learned them.
        rounds: whether it can hold a detector that computes in numbers of 8 bits.
    """

    file: str
    write: Callable[[Order, Path], None]
    runner: Callable[[Path], Callable[[np.ndarray], list[parity.Found]]]
    tolerance: parity.Tolerance
    calibrated: bool = False
    rounds: bool = False

    @property
    def reduced(self) -> bool:
        """Whether its numbers have fewer bits than the model's, so that AP may be lost."""
        return self.tolerance is parity.INT8


_PIXELS = functools.partial(serving.ServingRunner, kinds=[serving.IMAGES])
_TFLITE, _INT8, _OPENVINO = portable.TFLiteRunner, parity.INT8, openvino_ir.OpenVinoRunner
FORMATS: dict[str, Format] = {
    "saved_model": Format("saved_model", _write_saved_model, serving.ServingRunner, parity.FLOAT),
    "saved_model_portable": Format(
        "saved_model_portable", _write_portable_model, _PIXELS, parity.FLOAT
    ),
    "tflite": Format("model.tflite", _write_tflite, _TFLITE, parity.FLOAT),
    "tflite_int8": Format("model_int8.tflite", _write_tflite_int8, _TFLITE, _INT8),
    "tflite_full_int8": Format(
        "model_full_int8.tflite", _write_full_int8, _TFLITE, _INT8, True, True
    ),
    "tflite_16x8": Format("model_16x8.tflite", _write_16x8, _TFLITE, _INT8, True),
    "tflite_int8_heads": Format(
        "model_int8_heads.tflite", _write_int8_heads, integers.HeadsRunner, _INT8, True, True
    ),
    "onnx": Format("model.onnx", _write_onnx, portable.OnnxRunner, parity.FLOAT),
    "onnx_nms": Format("model_nms.onnx", _write_onnx_nms, portable.OnnxRunner, parity.FLOAT),
    "openvino": Format("model.xml", _write_openvino, _OPENVINO, parity.FLOAT),
    "openvino_int8": Format("model_int8.xml", _write_openvino_int8, _OPENVINO, _INT8, True),
}
