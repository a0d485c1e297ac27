"""Graphs that TensorFlow.js loads, as functions of TensorFlow.

Source: https://github.com/tensorflow/tfjs/tree/master/tfjs-converter (format "graph-model")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

# Convolutions that these files join with what follows; TensorFlow's own form of them is for its
# graph optimiser alone, and changes with its releases.
_FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
}


def read_graph_model(path: str | Path) -> tf.compat.v1.GraphDef:
    """Read a model of TensorFlow.js with its weights.

    Args:
        path: of the .json file; the files of weights that it names are beside it.

    Returns:
        A graph with the weights as constants in float32, named as in the file.

    Raises:
        ValueError: no graph model, or the files of weights are shorter or longer than it says.
    """
    path = Path(path)
    model = json.loads(path.read_text(encoding="utf-8"))
    if model.get("format") != "graph-model":
        raise ValueError(f"{path} is no graph model of TensorFlow.js: {model.get('format')!r}")
    values = {}
    for group in model["weightsManifest"]:
        data = b"".join((path.parent / name).read_bytes() for name in group["paths"])
        values.update(_weights(data, group["weights"], path))
    graph = tf.compat.v1.GraphDef()
    topology = json_format.ParseDict(
        model["modelTopology"], tf.compat.v1.GraphDef(), ignore_unknown_fields=True
    )
    for node in topology.node:
        if node.name in values:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[node.name]))
        if node.op in _FUSED:
            graph.node.extend(_parts_of(node))
        else:
            graph.node.append(node)
    graph.versions.CopyFrom(topology.versions)
    return graph


def as_function(
    graph: tf.compat.v1.GraphDef, inputs: Sequence[str], outputs: Sequence[str]
) -> Callable:
    """Make a function of the tensors `inputs`, such as "image:0", that returns the `outputs`."""
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    tensor = wrapped.graph.get_tensor_by_name
    return wrapped.prune([tensor(name) for name in inputs], [tensor(name) for name in outputs])


def _weights(data: bytes, entries: Sequence[dict], path: Path) -> dict[str, np.ndarray]:
    """Cut the joined files into tensors, and widen what is kept in fewer bits."""
    values, start = {}, 0
    for entry in entries:
        kept = entry.get("quantization")
        dtype = np.dtype(kept["dtype"] if kept else entry["dtype"]).newbyteorder("<")
        size = int(np.prod(entry["shape"]))
        if start + size * dtype.itemsize > len(data):
            raise ValueError(f"the weights of {path} end before those of {entry['name']}")
        value = np.frombuffer(data, dtype, size, start).reshape(entry["shape"])
        start += value.nbytes
        if kept and "scale" in kept:
            value = value * np.float32(kept["scale"]) + np.float32(kept["min"])
        values[entry["name"]] = value.astype(entry["dtype"])
    if start != len(data):
        raise ValueError(f"the weights of {path} have {len(data) - start} bytes too many")
    return values


def _parts_of(node) -> list:
    """Return a fused convolution as the operations that it joins."""
    fused = [name.decode() for name in node.attr["fused_ops"].list.s]
    if fused[:1] != ["BiasAdd"] or "BiasAdd" in fused[1:]:
        raise ValueError(f"{node.name}: expected a bias and an activation, got {fused}")
    parts = []
    for name in [_FUSED[node.op], *fused]:
        part = tf.compat.v1.NodeDef(op=name, name=f"{node.name}/{name}")
        part.attr["T"].CopyFrom(node.attr["T"])
        part.input.append(parts[-1].name if parts else node.input[0])
        if not parts:
            part.input.append(node.input[1])
            for key in ("strides", "padding", "data_format", "dilations"):
                if key in node.attr:
                    part.attr[key].CopyFrom(node.attr[key])
        elif name == "BiasAdd":
            part.input.append(node.input[2])
        parts.append(part)
    # Others ask for the result by this name.
    parts[-1].name = node.name
    return parts
