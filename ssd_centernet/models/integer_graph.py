"""Which operations of a network a file of integers computes as one, and where it rounds."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

_KERNELS = ("Conv2D", "DepthwiseConv2dNative")
_ACTIVATIONS = ("Relu", "Relu6")
# Sums and products take their activation with them, as convolutions do.
_SUMS = ("Add", "AddV2", "Sub", "Mul")
# Their result has a scale of its own.
_SCALED = {*_SUMS, *_ACTIVATIONS, "ConcatV2", "LeakyRelu", "Mean"}
# Their result has the scale of their argument.
_KEPT = set(
    "AvgPool DepthToSpace ExpandDims Identity IdentityN MaxPool Pad PadV2 PreventGradient Reshape "
    "ResizeBilinear ResizeNearestNeighbor Slice SpaceToDepth Split StopGradient StridedSlice "
    "Squeeze Tile Transpose".split()
)
# Their result has the scale that TensorFlow Lite prescribes: 1/256 with zero point -128, or 1/128.
_OF_SHARES = (0.0, 255.0 / 256.0)
_OF_SIGNS = (-1.0, 127.0 / 128.0)
_PRESCRIBED = {"Sigmoid": _OF_SHARES, "Softmax": _OF_SHARES, "Tanh": _OF_SIGNS}


@dataclasses.dataclass(frozen=True)
class KernelGroup:
    """A convolution with its bias, its batch norm and its activation.

    Attributes:
        kernel: the convolution, depthwise or not.
        gradient: passes its result on, where it has a gradient of its own; None without.
        bias: adds a bias; None without.
        norm: the batch norm of inference; None without.
        activation: None without.
    """

    kernel: tf.Operation
    gradient: tf.Operation | None
    bias: tf.Operation | None
    norm: tf.Operation | None
    activation: tf.Operation | None

    @property
    def parts(self) -> list[tf.Operation]:
        """The operations in their order."""
        parts = (self.kernel, self.gradient, self.bias, self.norm, self.activation)
        return [part for part in parts if part is not None]


class IntegerGraph:
    """The operations of a graph in the order of their computation, and what becomes of each.

    Attributes:
        operations: those that the results need.
        groups: by the name of its last operation each convolution with what follows it.
        inner: names of the operations of groups but for their last.
        points: names of the tensors whose range is to be learned, in the order of computation.
        prescribed: by name the range of a tensor that TensorFlow Lite prescribes.
    """

    def __init__(self, image: tf.Tensor, maps: Iterable[tf.Tensor], results: Sequence[tf.Tensor]):
        """Sort the operations.

        Args:
            image: what the graph computes from.
            maps: where the integers end: what is computed from them stays as it is.
            results: all that is wanted of the graph, the maps among it.

        Raises:
            ValueError: an operation has no form of integers here; names it.
        """
        self._ends = {tensor.name for tensor in maps}
        self.operations = _needed(image.graph, results)
        self._kept = {one.name for one in self.operations}
        self._wanted = {tensor.name for tensor in results}
        self.groups: dict[str, KernelGroup] = {}
        self.inner: set[str] = set()
        self.points: list[str] = []
        self.prescribed: dict[str, tuple[float, float]] = {}
        inside, fused = {image.name}, self._fused_products()
        for one in self.operations:
            if not any(tensor.name in inside for tensor in one.inputs):
                continue
            outputs = [tensor.name for tensor in one.outputs if tensor.dtype.is_floating]
            if one.name in self.inner:
                inside.update(outputs)
                continue
            if one.type in _KERNELS:
                group = self._group(one)
                outputs = [group.parts[-1].outputs[0].name]
                self.groups[group.parts[-1].name] = group
                self.inner.update(part.name for part in group.parts[:-1])
                inside.update(part.outputs[0].name for part in group.parts[:-1])
                self.points += outputs
            elif one.name in self.groups:
                pass
            elif one.name in fused:
                if fused[one.name] is not None:
                    self.prescribed[outputs[0]] = fused[one.name]
                elif one.name in self._products:
                    self.points += outputs
            elif one.type in _PRESCRIBED:
                self.prescribed[outputs[0]] = _PRESCRIBED[one.type]
            elif one.type in _SCALED:
                if not (one.type in _SUMS and self._activation_of(one)):
                    self.points += outputs
            elif outputs and one.type not in _KEPT:
                raise ValueError(
                    f"{one.name} ({one.type}) has no form of 8-bit integers that is learned here. "
                    "Leave out build_detector.quantize, or exchange the layer."
                )
            # Beyond the maps nothing is rounded.
            inside.update(name for name in outputs if name not in self._ends)

    def _fused_products(self) -> dict[str, tuple[float, float] | None]:
        """Return the operations of hard swishes and Euclidean norms, which are one operation each.

        Of the last one of a norm the value is its prescribed range.
        """
        found: dict[str, tuple[float, float] | None] = {}
        self._products: set[str] = set()
        for one in self.operations:
            members = _hard_swish(one)
            if members and all(self._next(member) is not None for member in members[:-1]):
                found.update(dict.fromkeys(member.name for member in members))
                self._products.add(one.name)
            elif members := _euclidean_norm(one):
                found.update(dict.fromkeys(member.name for member in members))
                found[one.name] = _OF_SIGNS
        return found

    def _group(self, kernel: tf.Operation) -> KernelGroup:
        parts: dict[str, tf.Operation] = {}
        last = kernel
        roles = {"gradient": ("IdentityN",), "bias": ("BiasAdd",), "norm": ("FusedBatchNormV3",)}
        for role, types in {**roles, "activation": _ACTIVATIONS}.items():
            following = self._next(last)
            if following is not None and following.type in types:
                parts[role] = last = following
        return KernelGroup(kernel, *(parts.get(role) for role in (*roles, "activation")))

    def _next(self, one: tf.Operation) -> tf.Operation | None:
        """Return the only operation that takes the first result of another one as its first."""
        tensor = one.outputs[0]
        if tensor.name in self._ends or tensor.name in self._wanted:
            return None
        # Operations that nobody needs do not count.
        consumers = [taker for taker in tensor.consumers() if taker.name in self._kept]
        return consumers[0] if len(consumers) == 1 else None

    def _activation_of(self, one: tf.Operation) -> tf.Operation | None:
        following = self._next(one)
        return following if following is not None and following.type in _ACTIVATIONS else None


def _needed(graph: tf.Graph, results: Iterable[tf.Tensor]) -> list[tf.Operation]:
    """Return the operations that results need, each behind those that it takes from."""
    waiting, found = [tensor.op for tensor in results], set()
    while waiting:
        one = waiting.pop()
        if one.name not in found:
            found.add(one.name)
            waiting += [tensor.op for tensor in one.inputs]
    return [one for one in graph.get_operations() if one.name in found]


def _hard_swish(one: tf.Operation) -> list[tf.Operation]:
    """Return the operations of x * relu6(x + 3) / 6 that end with this one; none of another."""
    if one.type != "Mul" or not _is_number(one.inputs[1], 1.0 / 6.0):
        return []
    product = one.inputs[0].op
    if product.type != "Mul" or product.inputs[1].op.type != "Relu6":
        return []
    clipped = product.inputs[1].op
    shifted = clipped.inputs[0].op
    same = shifted.type == "AddV2" and shifted.inputs[0] is product.inputs[0]
    return [shifted, clipped, product, one] if same and _is_number(shifted.inputs[1], 3.0) else []


def _euclidean_norm(one: tf.Operation) -> list[tf.Operation]:
    """Return the operations of `tf.math.l2_normalize` that end with this one; none of another."""
    chain = []
    if one.type != "Mul":
        return []
    last = one.inputs[1].op
    for kind in ("Rsqrt", "Maximum", "Sum", "Square"):
        if last.type != kind:
            return []
        chain.append(last)
        last = last.inputs[0].op
    return [*reversed(chain), one] if chain[-1].inputs[0] is one.inputs[0] else []


def _is_number(tensor: tf.Tensor, value: float) -> bool:
    found = tf.get_static_value(tensor)
    return found is not None and found.ndim == 0 and abs(float(found) - value) < 1e-4


def run_again(one: tf.Operation, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Compute an operation of a graph on other tensors.

    Args:
        one: of any graph.
        inputs: in its order.

    Returns:
        Its results.
    """
    arguments, left, inferred = {}, iter(inputs), set()
    for argument in one.op_def.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
        if argument.number_attr:
            arguments[argument.name] = list(_take(left, one.get_attr(argument.number_attr)))
        elif argument.type_list_attr:
            arguments[argument.name] = list(_take(left, len(one.get_attr(argument.type_list_attr))))
        else:
            arguments[argument.name] = next(left)
    for attribute in one.op_def.attr:
        if attribute.name not in inferred:
            arguments[attribute.name] = one.get_attr(attribute.name)
    function = getattr(tf.raw_ops, one.type)
    known = inspect.signature(function).parameters
    # Some arguments have another name in Python than in the graph, which is always the same.
    arguments = {name if name in known else "axis": one for name, one in arguments.items()}
    results = function(**arguments)
    return list(results) if isinstance(results, list | tuple) else [results]


def _take(values: Iterator[tf.Tensor], count: int) -> Iterator[tf.Tensor]:
    return (next(values) for _ in range(count))
