"""Whether the operators of a file are on the list that Google publishes for the Edge TPU.

The list and its limits: https://coral.ai/docs/edgetpu/models-intro/#supported-operations. Only what
it says is looked at. The compiler has reasons of its own, such as the version of an operator or the
size of a map, and is the judge; nothing here runs it.
"""

from __future__ import annotations

import collections

from tensorflow.lite.python import schema_py_generated as schema

from ssd_centernet.export import joining

_LISTED = frozenset(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED "
    "L2_NORMALIZATION LOGISTIC LSTM UNIDIRECTIONAL_SEQUENCE_LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM "
    "MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE "
    "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE "
    "STRIDED_SLICE SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV".split()
)
_WITHOUT_ACTIVATION = ("AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D")
_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
_TYPES = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
_EIGHT_BITS = ("INT8", "UINT8")


def check_operators(content: bytes) -> dict[str, dict]:
    """Compare each operator of a TFLite file with the list.

    Args:
        content: of the file.

    Returns:
        By the name of an operator `count`, and `problems`: what keeps some of them from the list,
        empty where all are on it.
    """
    model = joining.read(content)
    counts, problems = collections.Counter(), collections.defaultdict(set)
    if len(model.subgraphs) > 1:
        problems["SUBGRAPH"].add(f"{len(model.subgraphs)} subgraphs; expected one")
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        counts[name] += 1
        if name not in _LISTED:
            problems[name].add("not on the list")
        problems[name] |= set(_problems(model, graph, operator, name))
    return {
        name: {"count": counts[name], "problems": sorted(problems[name])}
        for name in sorted({*counts, *problems})
    }


def _problems(model, graph, operator, name: str):
    """Yield what the page rules out for one operator."""
    options = operator.builtinOptions
    activation = getattr(options, "fusedActivationFunction", 0)
    if name in _WITHOUT_ACTIVATION and activation != schema.ActivationFunctionType.NONE:
        yield "a fused activation"
    if getattr(options, "dilationHFactor", 1) != getattr(options, "dilationWFactor", 1):
        yield "dilation differs between height and width"
    if name == "STRIDED_SLICE":
        data = model.buffers[graph.tensors[int(operator.inputs[3])].buffer].data
        # Four bytes each, the lowest first.
        if data is None or any(value != 1 for value in bytes(bytearray(data))[::4]):
            yield "strides other than 1"
    places = [*operator.inputs[:1], *operator.outputs]
    if name in ("CONCATENATION", "ADD", "MUL", "SUB"):
        places += [place for place in operator.inputs if int(place) >= 0]
    for place in places:
        tensor = graph.tensors[int(place)]
        if _TYPES[tensor.type] not in _EIGHT_BITS:
            yield f"numbers of type {_TYPES[tensor.type]}; expected 8 bits"
        shape = [int(side) for side in tensor.shape] if tensor.shape is not None else []
        if any(side > 1 for side in shape[:-3]):
            yield f"a shape {shape}; only the last three sides may be above 1"
