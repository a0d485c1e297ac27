"""A detector as files of OpenVINO: in float32, and with a network of 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence

import numpy as np

from ssd_centernet.export import portable, runtimes
from ssd_centernet.export.integers import Integers
from ssd_centernet.export.parity import Found


def save_openvino(path: str | os.PathLike, function, *, names: Sequence[str]) -> None:
    """Write a detector as OpenVINO's model.xml with its weights beside it, in float32.

    Args:
        path: the file to write, which ends in .xml.
        function: of `portable_function`, with a fixed frame and a fixed batch.
        names: of the classes; they are kept in the file.

    Raises:
        ImportError: openvino or tf2onnx is not installed.
    """
    _save(path, _converted(function), names)


def save_openvino_int8(
    path: str | os.PathLike, integers: Integers, *, names: Sequence[str]
) -> None:
    """Write a detector whose network computes in integers, quantized by NNCF.

    Preprocessing and decoding stay in float32, as in the TFLite files of integers.

    Args:
        path: the file to write, which ends in .xml.
        integers: what the ranges of numbers are measured on, and the halves of the detector.
        names: of the classes.

    Raises:
        ImportError: nncf, openvino or tf2onnx is not installed.
    """
    network = _quantized(
        _converted(integers.function), [one["images"] for one in integers.samples()]
    )
    entrance = _converted(integers.entrance(wide=True, name="pixels"))
    whole = _joined(_joined(entrance, network), _converted(integers.decoding(steps=None)))
    _save(path, whole, names)


class OpenVinoRunner:
    """Run a file of OpenVINO on the CPU, in float32."""

    def __init__(self, path: str | os.PathLike):
        """Load the file that `save_openvino` or `save_openvino_int8` wrote.

        Raises:
            ImportError: openvino is not installed.
        """
        self._model = runtimes.openvino_model(path)
        (given,) = self._model.inputs
        self._batch_size, *frame, _ = (int(side) for side in given.shape)
        self.frame = tuple(frame)

    def __call__(self, image: np.ndarray) -> list[Found]:
        """Detect on an image, uint8 [H, W, 3] of the size `frame`."""
        values = self._model({"images": np.repeat(image[np.newaxis], self._batch_size, axis=0)})
        return [Found.first({name: values[name] for name in portable.OUTPUTS})]


def _converted(function):
    """Convert a function of tensors by way of ONNX, which has the suppression as one operation."""
    openvino = runtimes.import_openvino("openvino")
    content = portable.convert_to_onnx(function, one_operation=True)
    # `openvino.convert_model` would report the conversion to its makers.
    return openvino.Core().read_model(io.BytesIO(content))


def _quantized(network, samples: Sequence[np.ndarray]):
    """Return a network with integers for maps and weights."""
    nncf = runtimes.import_openvino("nncf")
    # Its progress bars go to standard output.
    with portable.quiet(), contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(network, nncf.Dataset(samples), subset_size=len(samples))


def _joined(first, second):
    """Put one model behind another: a single input takes the output, several go by their names."""
    openvino = runtimes.import_openvino("openvino")
    given = {name: output for output in first.outputs for name in output.get_names()}
    parameters = second.get_parameters()
    for parameter in parameters:
        names = parameter.output(0).get_names()
        output = first.outputs[0] if len(parameters) == 1 else given[min(names & set(given))]
        # An output is a node of its own, behind what gives its value.
        source = output.get_node().input_value(0)
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(source)
    return openvino.Model(second.get_results(), first.get_parameters(), "detector")


def _save(path: str | os.PathLike, model, names: Sequence[str]) -> None:
    openvino = runtimes.import_openvino("openvino")
    model.set_rt_info("\n".join(names), ["ssd_centernet", "names"])
    # An export is written into a folder that appears as a whole.
    openvino.save_model(model, os.fspath(path), compress_to_fp16=False)
