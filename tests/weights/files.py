"""Checkpoints of other programs, written with the names and shapes that they would have."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf


def random_value(rng: np.random.Generator, shape) -> np.ndarray:
    """Kernels that keep the size of what goes through; else around 1, as variances may be."""
    shape = tuple(shape)
    if len(shape) > 1:
        return rng.normal(scale=np.prod(shape[:-1]) ** -0.5, size=shape).astype(np.float32)
    return rng.uniform(0.5, 1.5, size=shape).astype(np.float32)


def randomize(variables, seed: int = 0) -> None:
    """Give every variable other values, moving statistics included."""
    rng = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(random_value(rng, variable.shape))


def save_tf1(prefix, tensors: dict) -> str:
    """Write a checkpoint of names alone, as TensorFlow 1 did."""
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    return str(prefix)


def save_objects(prefix, tensors: dict) -> str:
    """Write an object-based checkpoint of variables at paths such as `model/head/0/kernel`."""
    top = tf.Module()
    for path, value in tensors.items():
        *parts, leaf = path.split("/")
        node = top
        for part in parts:
            part = part.replace(".S", "/")
            if part not in vars(node):
                setattr(node, part, tf.Module())
            node = vars(node)[part]
        setattr(node, leaf, tf.Variable(value))
    children = {key: value for key, value in vars(top).items() if isinstance(value, tf.Module)}
    return tf.train.Checkpoint(**children).save(str(prefix))


def save_safetensors(path, tensors: dict) -> str:
    """Write float32 tensors one behind the other."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in tensors.items():
        blob = np.ascontiguousarray(value, np.float32).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    return str(path)


def values(layer) -> dict[str, np.ndarray]:
    """The variables of a layer or model by name, copied."""
    return {v.name.removesuffix(":0"): v.numpy().copy() for v in layer.variables}
