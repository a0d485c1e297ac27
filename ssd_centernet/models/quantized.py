"""A detector that computes as its file of 8-bit integers will, and is trained so.

Source:
    Quantizing deep convolutional networks for efficient inference: A whitepaper (arXiv:1806.08342)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import L2Norm
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.layers.upsampling import UpsampleAdd
from ssd_centernet.models.integer_graph import IntegerGraph, KernelGroup, run_again
from ssd_centernet.ops import fake_quantization as fake
from ssd_centernet.ops.dilation import dilated_conv2d

RANGES_NAME = "quantization/ranges"
_PIXELS = (0.0, 255.0)


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
    """Say how a detector is trained for 8-bit integers: `build_detector.quantize = @Quantize()`.

    Kernels are rounded with a scale for each output channel, maps with one each, in training and
    wherever the detector detects. Batch norms keep the statistics that they have and are folded
    into their convolutions, as in a file; their factors and offsets are trained like the kernels.

    Attributes:
        momentum: share of a map's range that stays at a step, 0 to below 1; the range of the first
            batch begins.
        power_of_two: whether all learned scales are whole powers of 2, for hardware that shifts
            instead of multiplying.
        symmetric: whether the zero point of every learned range is 0, for hardware that has none.

    Raises:
        ValueError: a setting is of another kind than it can be.
    """

    momentum: float = 0.99
    power_of_two: bool = False
    symmetric: bool = False

    def __post_init__(self):
        """Check the settings before anything is built."""
        for name in ("power_of_two", "symmetric"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"Quantize.{name} is {getattr(self, name)!r}, expected True or False."
                )
        number = isinstance(self.momentum, float | int) and not isinstance(self.momentum, bool)
        if not number or not 0.0 <= self.momentum < 1.0:
            raise ValueError(
                f"Quantize.momentum is {self.momentum!r}, expected a number from 0 to below 1: the "
                "share of a range that stays at each step."
            )


def quantize(detector: keras.Model, settings: Quantize | Mapping[str, Any] | None) -> None:
    """Let a detector compute in 8-bit integers from now on; call it once, before the first trace.

    Args:
        detector: in float32. Until a batch was trained on, nothing is rounded where it detects.
        settings: None leaves it as it is.

    Raises:
        ValueError: the detector computes in half precision, is quantized already, is on several
            devices, or has an operation or a preprocessing without a form of integers.
    """
    if settings is None:
        return
    if detector.quantized is not None:
        raise ValueError("the detector is quantized already; build another one to change how.")
    if isinstance(settings, Mapping):
        settings = Quantize(**settings)
    if not isinstance(settings, Quantize):
        raise ValueError(
            f"build_detector.quantize is {settings!r}, expected None, or @Quantize() with its "
            "brackets."
        )
    if detector.dtype_policy.name != "float32":
        raise ValueError(
            f"build_detector.quantize rounds what is computed in float32; this detector computes "
            f"in {detector.dtype_policy.name}. Set build_detector.dtype = 'fp32' (--dtype=fp32)."
        )
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "build_detector.quantize trains on one device of a process, and there are several: set "
            "train.devices = 1 (--devices=1)."
        )
    # Keras would track it, and walk from it to the detector, if it were set as an attribute.
    object.__setattr__(detector, "quantized", QuantizedNetwork(detector, settings))


def has_ranges(detector: keras.Model) -> bool:
    """Tell whether a quantized detector has seen a batch of training, and rounds."""
    return bool(np.any(_numbers(detector.quantized.ranges)))


def _numbers(variable: tf.Variable) -> np.ndarray:
    """Return the values of a variable, in a graph that is traced too."""
    with tf.init_scope():
        return variable.numpy()


class QuantizedNetwork:
    """The network of a detector from its input to raw outputs, in numbers of 8 bits.

    It has no kernels of its own: it computes the operations of the detector's network again, with
    the detector's variables.

    Attributes:
        settings: how it rounds.
        ranges: float32 [n, 2], lowest and highest value of each map whose scale is learned.
    """

    def __init__(self, detector: keras.Model, settings: Quantize):
        """Take the network of a detector apart, and give it a variable; see `quantize`."""
        self.settings = settings
        preprocessing = self._preprocessing = detector.preprocessing
        if type(preprocessing).normalize is not Preprocessing.normalize:
            raise ValueError(
                f"{type(preprocessing).__name__} normalizes in a way of its own, which has no form "
                "of integers; leave out build_detector.quantize, or use Preprocessing."
            )
        traced = self._traced = _Trace(detector)
        self._graph = IntegerGraph(traced.image, traced.ends, traced.results)
        self.ranges = detector.add_weight(
            name=RANGES_NAME,
            shape=(len(self._graph.points), 2),
            initializer="zeros",
            trainable=False,
        )

    def outputs(self, images: tf.Tensor, *, training: bool = False) -> Any:
        """Compute the raw outputs of the detector.

        Args:
            images: float32 [B, h, w, 3], the network's input.
            training: whether the ranges follow this batch; the batch is rounded with the new ones.

        Returns:
            What the detector's network gives.
        """
        pixels = _pixels(self._preprocessing, images)
        run = _Run(self, training=training)
        run.compute(pixels)
        if training:
            self.ranges.assign(run.moved())
        flat = [run.values[tensor.name] for tensor in tf.nest.flatten(self._traced.outputs)]
        return tf.nest.pack_sequence_as(self._traced.outputs, flat)

    def maps(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predict raw maps for a file: as `Halves.predict`, with all numbers as constants.

        Raises:
            ValueError: no batch was trained on.
        """
        if not np.any(_numbers(self.ranges)):
            raise ValueError(
                "the detector has build_detector.quantize, but no ranges: it was not trained with "
                "it. Train it, or build it without: build_detector.quantize = None."
            )
        run = _Run(self, constant=True)
        run.compute(pixels)
        return {name: run.values[tensor.name] for name, tensor in self._traced.maps.items()}


def _pixels(preprocessing: Preprocessing, images: tf.Tensor) -> tf.Tensor:
    """Turn the network's input back into RGB in 0..255, which a device begins with."""
    std, mean = (np.float32(value) for value in (preprocessing.std, preprocessing.mean))
    pixels = (images * std + mean) * np.float32(preprocessing.scale)
    return tf.reverse(pixels, [-1]) if preprocessing.channels == "BGR" else pixels


class _Trace:
    """The graph of a detector's network in inference.

    Attributes:
        image: its input.
        outputs: of the detector, as it structures them.
        maps: by name what `Halves.predict` gives.
        ends: all maps, of all stacks.
        variables: by the name of the tensor that stands for them.
        constants: the same for tensors from outside.
    """

    def __init__(self, detector: keras.Model):
        head = getattr(detector, "head", None)
        calls: list[dict[str, tf.Tensor]] = []
        spec = tf.TensorSpec([None, *detector.image_size, 3], tf.float32, "image")

        @tf.function(input_signature=[spec], autograph=False)
        def run(images):
            with UpsampleAdd.resizing(), L2Norm.fusing(), _maps_noted(head, calls):
                return detector(images, training=False)

        function = run.get_concrete_function()
        self.image = function.inputs[0]
        # Behind a return there is an identity of each tensor.
        self.outputs = function.structured_outputs
        flat = tf.nest.flatten(self.outputs)
        if not calls:
            calls.append({f"output_{number}": value for number, value in enumerate(flat)})
        self.maps = calls[-1]
        self.ends = [tensor for call in calls for tensor in call.values()]
        self.results = [*flat, *self.ends]
        handles = {id(variable.handle): variable for variable in detector.variables}
        self.variables, self.constants = {}, {}
        for outer, inner in function.graph.captures:
            if id(outer) in handles:
                self.variables[inner.name] = handles[id(outer)]
            else:
                self.constants[inner.name] = outer
        # A graph lives as long as its function.
        self.function = function


@contextlib.contextmanager
def _maps_noted(head: Any, calls: list) -> Iterator[None]:
    """Note the maps that a head of this library joins, stack by stack."""
    if not (hasattr(head, "predict_maps") and hasattr(head, "join_maps")):
        yield
        return
    join = head.join_maps

    def noted(maps: dict[str, tf.Tensor]):
        calls.append(dict(maps))
        return join(maps)

    object.__setattr__(head, "join_maps", noted)
    try:
        yield
    finally:
        object.__delattr__(head, "join_maps")


class _Run:
    """One computation of the network.

    Attributes:
        values: by the name of a tensor of the graph its value here.
    """

    def __init__(self, network: QuantizedNetwork, *, training: bool = False, constant=False):
        self._network, self._graph = network, network._graph
        self._scales = {"power_of_two": network.settings.power_of_two}
        self._training, self._constant = training, constant
        self.values: dict[str, Any] = {}
        ranges = _numbers(network.ranges) if constant else tf.convert_to_tensor(network.ranges)
        self._before = ranges
        self._observed: dict[int, tf.Tensor] = {}
        # Of all maps at once; while training, map by map.
        self._limits = None if training else self._limits_of(ranges)
        self._rounds = True if constant or training else tf.reduce_any(ranges != 0.0)

    def _limits_of(self, ranges) -> Any:
        settings = self._network.settings
        with self._numbers_now():
            limits = fake.map_limits(ranges, **self._scales, symmetric=settings.symmetric)
            return limits.numpy() if self._constant else limits

    def _numbers_now(self) -> contextlib.AbstractContextManager:
        """Compute at once, not in a graph, what a converter must find as numbers."""
        return tf.init_scope() if self._constant else contextlib.nullcontext()

    def compute(self, pixels: tf.Tensor) -> None:
        """Compute everything from float32 [B, h, w, 3], RGB in 0..255."""
        traced = self._network._traced
        self.values = {traced.image.name: self._enter(pixels), **traced.constants}
        for name, variable in traced.variables.items():
            self.values[name] = variable
        index = {name: number for number, name in enumerate(self._graph.points)}
        for one in self._graph.operations:
            if one.name in self._graph.inner:
                continue
            group = self._graph.groups.get(one.name)
            results = [self._of_group(group)] if group else self._again(one)
            # Of a batch norm nothing but the first result is used.
            for tensor, value in zip(one.outputs, results, strict=False):
                if tensor.name in index:
                    value = self._learned(value, index[tensor.name])
                elif tensor.name in self._graph.prescribed:
                    value = self._rounded(value, np.float32(self._graph.prescribed[tensor.name]))
                self.values[tensor.name] = value

    def moved(self) -> tf.Tensor:
        """Return the ranges with those of this batch in them."""
        observed = tf.stack([self._observed[number] for number in range(len(self._graph.points))])
        return fake.moved_ranges(self._before, observed, self._network.settings.momentum)

    def _learned(self, value: tf.Tensor, number: int) -> tf.Tensor:
        if not self._training:
            return self._rounded(value, self._limits[number])
        observed = fake.observed_ranges(value)
        self._observed[number] = observed
        before, momentum = self._before[number], self._network.settings.momentum
        moved = fake.moved_ranges(before[tf.newaxis], observed[tf.newaxis], momentum)[0]
        return self._rounded(value, self._limits_of(moved))

    def _rounded(self, value: tf.Tensor, limits) -> tf.Tensor:
        rounded = fake.quantize_map(value, limits)
        return rounded if self._rounds is True else tf.where(self._rounds, rounded, value)

    def _rounded_kernel(self, kernel: tf.Tensor | np.ndarray) -> tf.Tensor:
        with self._numbers_now():
            limits = fake.kernel_limits(kernel, **self._scales)
            limits = limits.numpy() if self._constant else limits
        rounded = fake.quantize_kernel(kernel, limits)
        return rounded if self._rounds is True else tf.where(self._rounds, rounded, kernel)

    def _enter(self, pixels: tf.Tensor) -> tf.Tensor:
        """Normalise and order the channels by one convolution, as `halves.normalized` does."""
        preprocessing = self._network._preprocessing
        pixels = self._rounded(pixels, np.float32(_PIXELS))
        std = np.asarray(preprocessing.std, np.float64)
        kernel = np.diag(1.0 / (preprocessing.scale * std))
        if preprocessing.channels == "BGR":
            kernel = kernel[::-1]
        offsets = np.broadcast_to(-np.asarray(preprocessing.mean, np.float64) / std, [3])
        ends = np.stack([offsets, offsets + _PIXELS[1] * kernel.sum(axis=0)])
        ranges = np.float32([min(ends.min(), 0.0), max(ends.max(), 0.0)])
        limits = self._limits_of(ranges)
        kernel = np.float32(kernel[np.newaxis, np.newaxis])
        inputs = tf.nn.conv2d(pixels, self._rounded_kernel(kernel), 1, "VALID")
        return self._rounded(inputs + tf.constant(offsets, tf.float32), limits)

    def _again(self, one: tf.Operation) -> list[Any]:
        if one.type == "Placeholder":
            return [self.values[one.outputs[0].name]]
        if one.type == "Const":
            value = tf.get_static_value(one.outputs[0])
            return [tf.constant(value, one.outputs[0].dtype)]
        inputs = [self.values[tensor.name] for tensor in one.inputs]
        if one.type == "ReadVariableOp":
            (variable,) = inputs
            return [_numbers(variable) if self._constant else tf.convert_to_tensor(variable)]
        return run_again(one, inputs)

    def _of_group(self, group: KernelGroup) -> tf.Tensor:
        """Compute a convolution with its batch norm inside, and the activation."""
        image, kernel = (self.values[tensor.name] for tensor in group.kernel.inputs)
        bias = group.bias and self.values[group.bias.inputs[1].name]
        norm = group.norm and [self.values[tensor.name] for tensor in group.norm.inputs[1:]]
        depthwise = group.kernel.type != "Conv2D"
        with self._numbers_now():
            kernel, bias = _folded(group, kernel, bias, norm)
            shape = kernel.shape
            # An output channel of a depthwise one is a pair of the last two axes.
            kernel = tf.reshape(kernel, [*shape[:2], -1]) if depthwise else kernel
            if self._constant:
                kernel, bias = kernel.numpy(), None if bias is None else _not_all_equal(bias)
        kernel = self._rounded_kernel(kernel)
        kernel = tf.reshape(kernel, shape) if depthwise else kernel
        if group.gradient is not None and not self._constant:
            result = dilated_conv2d(image, kernel, group.kernel.get_attr("dilations")[1])
        else:
            (result,) = run_again(group.kernel, [image, kernel])
        result = result if bias is None else tf.nn.bias_add(result, bias)
        return run_again(group.activation, [result])[0] if group.activation else result


def _not_all_equal(bias) -> np.ndarray:
    """Move the first number of a bias by its last bit, where all are equal.

    TensorFlow's converter (2.20) would write all of them in the scale of the first channel.
    """
    values = np.array(bias, np.float32)
    if values.size > 1 and values.any() and np.ptp(values) == 0:
        values[0] = np.nextafter(values[0], np.float32(0.0))
    return values


def _folded(group: KernelGroup, kernel, bias, norm) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return kernel and bias of a convolution with the batch norm in them."""
    if norm is None:
        return tf.convert_to_tensor(kernel), bias
    gamma, beta, mean, variance = norm
    factor = gamma * tf.math.rsqrt(variance + group.norm.get_attr("epsilon"))
    shift = beta + ((0.0 if bias is None else bias) - mean) * factor
    depthwise = group.kernel.type != "Conv2D"
    shape = kernel.shape[2:] if depthwise else kernel.shape[3:]
    return kernel * tf.reshape(factor, shape), shift
