"""Biases of convolutions in TFLite files of integers, in the scale that each convolution takes."""

from __future__ import annotations

import copy

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from ssd_centernet.export import joining

_CODES = schema.BuiltinOperator
# The number of the bias among the inputs, after that of the kernel and that of the map.
_INPUTS = {
    _CODES.CONV_2D: (2, 1, 0),
    _CODES.DEPTHWISE_CONV_2D: (2, 1, 0),
    _CODES.FULLY_CONNECTED: (2, 1, 0),
    _CODES.TRANSPOSE_CONV: (3, 1, 2),
}
_TYPES = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
_SAME = 1e-3


def mend_biases(content: bytes) -> tuple[bytes, int]:
    """Give each convolution a bias of its own scale, where one of another scale stands for it.

    A bias is added to products of map and kernel, so its scale is the product of theirs. Where
    several convolutions share a bias, as those of all levels do in `SharedSSDHead`, TensorFlow's
    converter to activations of 16 bits writes it once, in the scale of one of them, and the others
    add it too large or too small.

    Args:
        content: a TFLite file.

    Returns:
        The file, the same where nothing is wrong, and the number of biases that were mended.
    """
    model = joining.read(content)
    (graph, *_), mended = model.subgraphs, 0
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        places = _INPUTS.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        if places is None or len(operator.inputs) <= places[0]:
            continue
        index, *factors = (int(operator.inputs[place]) for place in places)
        if index < 0 or graph.tensors[index].type not in _TYPES:
            continue
        scales = [_scales(graph.tensors[factor]) for factor in factors]
        given = _scales(graph.tensors[index])
        if given is None or any(scale is None for scale in scales):
            continue
        wanted = scales[0] * scales[1]
        if np.allclose(given, wanted, rtol=_SAME, atol=0.0):
            continue
        mended += 1
        inputs = [int(number) for number in operator.inputs]
        inputs[places[0]] = len(graph.tensors)
        operator.inputs = inputs
        graph.tensors.append(_in_scale(model, graph.tensors[index], given, wanted))
    return (joining.write(model) if mended else content), mended


def _scales(tensor: schema.TensorT) -> np.ndarray | None:
    """Return the scales of a tensor, one or one a channel; None for numbers that have none."""
    found = tensor.quantization.scale if tensor.quantization else None
    return None if found is None or not len(found) else np.asarray(found, np.float64)


def _in_scale(
    model: schema.ModelT, tensor: schema.TensorT, given: np.ndarray, wanted: np.ndarray
) -> schema.TensorT:
    """Return a tensor with the values of another one, and of its type, in other scales."""
    kind = _TYPES[tensor.type]
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
    values = np.round(np.frombuffer(data, kind) * given / wanted)
    buffer = schema.BufferT()
    limits = np.iinfo(np.int32)
    values = values.clip(limits.min, limits.max).astype(kind)
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    made = copy.deepcopy(tensor)
    made.buffer = len(model.buffers)
    made.quantization.scale = np.broadcast_to(wanted, values.shape).astype(np.float32)
    made.quantization.zeroPoint = np.zeros(values.shape, np.int64)
    model.buffers.append(buffer)
    return made
