"""The reader of TensorFlow.js' graphs gives what the graph gave before it was written."""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

from tests.published.graph_models import as_function, read_graph_model


def values_of(scale):
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.integers(0, 255, [3, 3, 2, 1]).astype(np.uint8),
        "pointwise": rng.normal(0.0, scale, [1, 1, 2, 3]).astype(np.float16),
        "bias": rng.normal(0.0, scale, [2]).astype(np.float32),
        "bias3": rng.normal(0.0, scale, [3]).astype(np.float32),
    }


def fused(name, op, inputs, strides=(1, 1, 1, 1)):
    node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    node.attr["T"].type = tf.float32.as_datatype_enum
    node.attr["num_args"].i = 1
    node.attr["strides"].list.i.extend(strides)
    node.attr["padding"].s = b"SAME"
    node.attr["data_format"].s = b"NHWC"
    node.attr["fused_ops"].list.s.extend([b"BiasAdd", b"Relu6"])
    return node


@pytest.fixture
def written(tmp_path):
    """A depthwise and a usual convolution; weights in 8, 16 and 32 bits."""
    values, graph = values_of(1.0), tf.compat.v1.GraphDef()
    image = graph.node.add(name="image", op="Placeholder")
    image.attr["dtype"].type = tf.float32.as_datatype_enum
    kept = {
        "kernel": {"dtype": "uint8", "scale": 0.01, "min": -1.0},
        "pointwise": {"dtype": "float16"},
    }
    entries, data = [], b""
    for name, value in values.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        entry = {"name": name, "shape": list(value.shape), "dtype": "float32"}
        entries.append({**entry, "quantization": kept[name]} if name in kept else entry)
        data += value.tobytes()
    graph.node.append(
        fused("deep", "FusedDepthwiseConv2dNative", ["image", "kernel", "bias"], (1, 2, 2, 1))
    )
    graph.node.append(fused("flat", "_FusedConv2D", ["deep", "pointwise", "bias3"]))
    model = {
        "format": "graph-model",
        "modelTopology": json_format.MessageToDict(graph, preserving_proto_field_name=True),
        "weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": entries}],
    }
    (tmp_path / "one.bin").write_bytes(data[:7])
    (tmp_path / "two.bin").write_bytes(data[7:])
    path = tmp_path / "model.json"
    path.write_text(json.dumps(model))
    return path, values


def test_a_graph_computes_what_its_operations_say(written):
    path, values = written
    image = np.random.default_rng(1).normal(size=[2, 9, 7, 2]).astype(np.float32)
    (found,) = as_function(read_graph_model(path), ["image:0"], ["flat:0"])(tf.constant(image))
    kernel = values["kernel"] * np.float32(0.01) - np.float32(1.0)
    deep = tf.nn.depthwise_conv2d(image, kernel, [1, 2, 2, 1], "SAME") + values["bias"]
    flat = tf.nn.conv2d(tf.nn.relu6(deep), values["pointwise"].astype(np.float32), 1, "SAME")
    wanted = tf.nn.relu6(flat + values["bias3"])
    assert found.shape == (2, 5, 4, 3) and np.ptp(wanted) > 1.0
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [-1, 1])
def test_weights_of_another_length_are_refused(written, change):
    path = written[0].parent / "two.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"\0")
    with pytest.raises(ValueError, match="end before those of bias3" if change < 0 else "1 bytes"):
        read_graph_model(written[0])


def test_a_model_of_layers_is_no_graph(tmp_path):
    path = tmp_path / "model.json"
    path.write_text('{"format": "layers-model"}')
    with pytest.raises(ValueError, match="'layers-model'"):
        read_graph_model(path)
