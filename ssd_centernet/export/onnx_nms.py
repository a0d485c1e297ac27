"""How TensorFlow's combined suppression is written in ONNX: as its operation NonMaxSuppression."""

from __future__ import annotations

import numpy as np

COMBINED = "CombinedNonMaxSuppression"
# Types of ONNX.
_FLOAT32, _INT32, _INT64 = 1, 6, 7


def write_combined(ctx, node, name, args) -> None:
    """Replace a node in the graph of tf2onnx, whose handlers have this signature.

    ONNX's operation gives triples (image, class, box), as many as survive. Their scores go to their
    places among zeros [B, C, K], so that no shape after this depends on what was found.

    Args:
        ctx: the graph.
        node: with boxes [B, K, 1, 4], which are not clipped, scores [B, K, C], and the limits; C, K
            and the number of detections D, at most C * K, are constants.
        name: of the node.
        args: none.
    """
    del args
    boxes, scores, per_class, total, overlap, least = node.input
    _, candidates, classes = ctx.get_shape(scores)
    most = int(ctx.get_node_by_output(total).get_tensor_value())
    outputs = list(node.output)
    ctx.remove_node(name)
    made = 0

    def constant(values, dtype=np.int64):
        nonlocal made
        made += 1
        return ctx.make_const(f"{name}__{made}", np.array(values, dtype)).output[0]

    def make(kind, *inputs, outputs=1, **attributes):
        node = ctx.make_node(kind, list(inputs), attr=attributes, output_count=outputs)
        return node.output[0] if outputs == 1 else node.output

    boxes = make("Squeeze", boxes, constant([2]))
    of_classes = make("Transpose", scores, perm=[0, 2, 1])
    per_class = make("Cast", per_class, to=_INT64)
    kept = make("NonMaxSuppression", boxes, of_classes, per_class, overlap, least)
    zeros = make("Mul", of_classes, constant(0.0, np.float32))
    placed = make("ScatterND", zeros, kept, make("GatherND", of_classes, kept))
    flat = make("Reshape", placed, constant([-1, classes * candidates]))
    # Of equal scores the lower class and the better place first, as in the other forms.
    best, places = make("TopK", flat, constant([most]), outputs=2, axis=1, largest=1, sorted=1)
    rows = make("Mod", places, constant(candidates))
    labels = make("Cast", make("Div", places, constant(candidates)), to=_FLOAT32)
    found = make("Greater", best, constant(0.0, np.float32))
    marks = make("Cast", found, to=_FLOAT32)
    chosen = make("GatherND", boxes, make("Unsqueeze", rows, constant([2])), batch_dims=1)
    chosen = make("Mul", chosen, make("Unsqueeze", marks, constant([2])))
    numbers = make("Cast", found, to=_INT32)
    count = make("ReduceSum", numbers, constant([1]), keepdims=0)
    values = (chosen, best, make("Mul", labels, marks), count)
    types = (_FLOAT32, _FLOAT32, _FLOAT32, _INT32)
    for output, value, kind in zip(outputs, values, types, strict=True):
        ctx.make_node("Identity", [value], outputs=[output], dtypes=[kind], shapes=[None])
