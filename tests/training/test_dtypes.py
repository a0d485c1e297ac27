"""What runs in half precision and what stays float32, layer by layer and operation by operation."""

import functools

import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.building import build_detector
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.models.detector import Detector
from ssd_centernet.training.optimizers import Momentum
from tests.models import contracts
from tests.narrow import NARROW, SIZE
from tests.tiny import tiny_trainer

HALVES = {"bf16": tf.bfloat16, "fp16": tf.float16}
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


@functools.cache
def detector_of(recipe: str, dtype: str, narrow: bool = True) -> Detector:
    config.parse([recipe], [f"IMAGE_SIZE = {SIZE}", *NARROW[recipe]] if narrow else [])
    try:
        return build_detector(num_classes=contracts.NUM_CLASSES if narrow else 80, dtype=dtype)
    finally:
        config.clear()


def operations(function, *inputs) -> list[tf.Operation]:
    """All operations of a function's graph and of the functions that it calls."""
    graph = tf.function(function, autograph=False).get_concrete_function(*inputs).graph
    found, graphs, seen = [], [graph], set()
    while graphs:
        graph = graphs.pop()
        if id(graph) in seen:
            continue
        seen.add(id(graph))
        found += graph.get_operations()
        names = [node.signature.name for node in graph.as_graph_def().library.function]
        graphs += [graph._get_function(name).graph for name in names if _has_graph(graph, name)]
    return found


def _has_graph(graph, name) -> bool:
    function = graph._get_function(name)
    return getattr(function, "graph", None) is not None


def half_operations(found: list[tf.Operation]) -> list[str]:
    return [
        f"{op.type} {op.name}"
        for op in found
        if any(t.dtype.base_dtype in HALVES.values() for t in (*op.inputs, *op.outputs))
    ]


def output_specs(detector):
    return tf.nest.map_structure(
        lambda output: tf.TensorSpec((2, *output.shape[1:]), output.dtype), detector.output
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("recipe", NARROW)
def test_network_computes_in_half_precision_and_gives_out_float32(recipe, dtype):
    detector = detector_of(recipe, dtype)
    assert {variable.dtype.base_dtype for variable in detector.variables} == {tf.float32}
    assert {output.dtype for output in tf.nest.flatten(detector.output)} == {tf.float32}
    image = tf.TensorSpec((2, *detector.image_size, 3), tf.float32)
    found = operations(lambda images: detector(images, training=True), image)
    convolutions = [op for op in found if op.type in CONVOLUTIONS]
    assert len(convolutions) >= 10
    assert {op.outputs[0].dtype for op in convolutions} == {HALVES[dtype]}
    for op in (op for op in found if op.type.startswith("FusedBatchNorm")):
        # Maps in half precision; scale, offset and statistics in float32.
        assert op.inputs[0].dtype == HALVES[dtype]
        assert {tensor.dtype.base_dtype for tensor in op.inputs[1:]} == {tf.float32}
    # What needs exactness says so itself, whatever the policy.
    layers = detector._flatten_layers(include_self=False)
    exact = [layer for layer in layers if isinstance(layer, Float32Layer)]
    assert exact
    assert {layer.compute_dtype for layer in exact} == {"float32"}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("recipe", NARROW)
def test_targets_losses_and_decoding_have_no_half_precision_inside(recipe, dtype):
    detector = detector_of(recipe, dtype)
    batch = contracts.batch_of(SIZE, [2, 3])
    keys = ("boxes", "classes", "is_crowd", "valid")
    targets = operations(detector.make_targets, *(batch[key] for key in keys))
    specs = output_specs(detector)
    losses = operations(lambda outputs: detector.compute_losses(outputs, batch), specs)
    decoding = operations(detector.decode, specs)
    images = tf.TensorSpec((2, 120, 80, 3), tf.uint8)
    preprocessing = operations(detector.preprocessing, images)
    for name, found in (
        ("targets", targets),
        ("losses", losses),
        ("decoding", decoding),
        ("preprocessing", preprocessing),
    ):
        assert len(found) > 5, name
        assert half_operations(found) == [], name


@pytest.mark.parametrize("recipe", NARROW)
def test_float32_network_has_no_half_precision_inside(recipe):
    detector = detector_of(recipe, "fp32")
    image = tf.TensorSpec((2, *detector.image_size, 3), tf.float32)
    assert half_operations(operations(lambda images: detector(images, training=True), image)) == []


def test_precision_belongs_to_a_model_and_not_to_the_process():
    before = keras.mixed_precision.global_policy().name
    half, single = detector_of("ssd300_resnet34", "bf16"), detector_of("ssd300_resnet34", "fp32")
    assert keras.mixed_precision.global_policy().name == before
    assert half.get_layer("resnet").get_layer("stem_conv").compute_dtype == "bfloat16"
    assert single.get_layer("resnet").get_layer("stem_conv").compute_dtype == "float32"


def test_gradients_and_slots_are_float32():
    detector = detector_of("ssd300_resnet34", "bf16")
    _, gradients = contracts.losses_and_gradients(detector, contracts.batch_of(SIZE, [2, 1]))
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    trainer = tiny_trainer(detector, optimizer=Momentum())
    assert len(trainer.optimizer.accumulators) == len(gradients)
    assert {slot.dtype for slot in trainer.optimizer.accumulators} == {tf.float32}
    assert {name.dtype for name in (trainer._sums, trainer.loss_scale.value)} == {tf.float32}


@pytest.fixture(scope="module")
def published():
    """The whole SSD300 ResNet-34 under bfloat16."""
    return detector_of("ssd300_resnet34", "bf16", narrow=False)


@pytest.fixture(scope="module")
def graph(published):
    """The operations of its forward pass in training."""
    image = tf.TensorSpec((1, 300, 300, 3), tf.float32)
    return operations(lambda images: published(images, training=True), image)


class TestPublishedResNet34:
    """The whole network under bfloat16. Source: docs/reference/ssd_resnet34.md, section 10"""

    def test_189_variables_are_stored_in_float32(self, published):
        assert len(published.variables) == 189
        assert {variable.dtype.base_dtype for variable in published.variables} == {tf.float32}

    def test_layers(self, published):
        layers = list(published._flatten_layers(include_self=False))
        convolutions = [x for x in layers if isinstance(x, keras.layers.Conv2D)]
        norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        # 29 of the backbone, 10 of the extra levels, a pair on each of 6 levels.
        assert (len(convolutions), len(norms)) == (29 + 10 + 12, 29)
        for layer in (*convolutions, *norms):
            assert layer.compute_dtype == "bfloat16", layer.name
            assert layer.variable_dtype == "float32", layer.name
        for part in (
            published.anchors,
            published.criterion,
            published.decoder,
            published.preprocessing,
        ):
            if isinstance(part, keras.layers.Layer):
                assert part.compute_dtype == "float32", part.name

    def test_kernels_and_biases_are_read_as_bfloat16(self, graph):
        convolutions = [op for op in graph if op.type == "Conv2D"]
        assert len(convolutions) == 51
        biases = [op for op in graph if op.type == "BiasAdd"]
        assert len(biases) == 22
        for op in (*convolutions, *biases):
            assert {tensor.dtype for tensor in op.inputs} == {tf.bfloat16}, op.name

    def test_batch_norm_keeps_its_parameters_in_float32(self, graph):
        norms = [op for op in graph if op.type == "FusedBatchNormV3"]
        assert len(norms) == 29
        for op in norms:
            maps, scale, offset = op.inputs[:3]
            assert maps.dtype == op.outputs[0].dtype == tf.bfloat16
            assert scale.dtype == offset.dtype == tf.float32
            # The statistics of the batch, which the moving ones take in.
            assert op.outputs[1].dtype == op.outputs[2].dtype == tf.float32

    def test_every_head_output_is_float32_before_levels_are_joined(self, graph):
        (joined_classes, joined_boxes) = [op for op in graph if op.type == "ConcatV2"]
        for op in (joined_classes, joined_boxes):
            maps = op.inputs[:-1]
            assert len(maps) == 6
            assert {tensor.dtype for tensor in maps} == {tf.float32}
            assert [tensor.op.type for tensor in maps] == ["Cast"] * 6
            assert {tensor.op.inputs[0].dtype for tensor in maps} == {tf.bfloat16}

    def test_image_is_rounded_once_at_the_entrance(self, graph):
        casts = [op for op in graph if op.type == "Cast" and op.inputs[0].shape[-1:] == (3,)]
        assert [(op.inputs[0].dtype, op.outputs[0].dtype) for op in casts] == [
            (tf.float32, tf.bfloat16)
        ]
