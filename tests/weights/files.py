"""Checkpoints of other programs, written with the names and shapes that they would have."""

from __future__ import annotations

import json
import zipfile

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


class TorchPickle:
    """Operations of a pickle as PyTorch writes them, one by one; nothing is pickled."""

    def __init__(self):
        self.body = b"\x80\x02"
        self.storages: list[np.ndarray] = []

    def text(self, value: str) -> bytes:
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    def number(self, value: int) -> bytes:
        return b"\x8a\x08" + int(value).to_bytes(8, "little", signed=True)

    def numbers(self, values) -> bytes:
        return b"(" + b"".join(map(self.number, values)) + b"t"

    def name(self, module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    def storage(self, kind: str, key: str, count: int, tail: bytes = b"") -> bytes:
        parts = self.text("storage") + self.name("torch", kind) + self.text(key)
        return b"(" + parts + self.text("cpu") + self.number(count) + tail + b"tQ"

    def tensor(self, storage: bytes, offset: int, shape, strides) -> bytes:
        hooks = self.name("collections", "OrderedDict") + b")R"
        place = self.number(offset) + self.numbers(shape) + self.numbers(strides)
        rebuild = self.name("torch._utils", "_rebuild_tensor_v2")
        return rebuild + b"(" + storage + place + b"\x89" + hooks + b"tR"

    def array(self, value: np.ndarray, kind: str, tail: bytes = b"") -> bytes:
        self.storages.append(value)
        strides = [stride // value.itemsize for stride in value.strides]
        storage = self.storage(kind, str(len(self.storages) - 1), value.size, tail)
        return self.tensor(storage, 0, value.shape, strides)

    def items(self, pairs: dict[str, bytes]) -> bytes:
        body = b"".join(self.text(name) + value for name, value in pairs.items())
        return self.name("collections", "OrderedDict") + b")R(" + body + b"u"


_TORCH_KINDS = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "u2": "BFloat16"}


def save_torch(path, tensors: dict, *, legacy: bool = False, wrap: str | None = None) -> str:
    """Write what torch.save writes of a state dict, or of {wrap: state dict, "meta": ...}."""
    pickle = TorchPickle()
    tail = b"N" if legacy else b""
    arrays = {
        name: pickle.array(
            np.array(value, order="C"), _TORCH_KINDS[value.dtype.str[1:]] + "Storage", tail
        )
        for name, value in tensors.items()
    }
    body = pickle.items(arrays)
    if wrap is not None:
        # As MMDetection's: a date is an object, which is skipped.
        date = pickle.name("datetime", "datetime") + b"(" + pickle.text("now") + b"tR"
        meta = pickle.items({"epoch": pickle.number(24), "time": date})
        body = pickle.items({"meta": meta, wrap: body})
    write_torch(path, pickle.body + body + b".", pickle.storages, legacy=legacy)
    return str(path)


def write_torch(path, body: bytes, storages=(), *, legacy: bool = False, **zip_options) -> None:
    """Write a pickle and numbers in the layout of PyTorch from 1.6 on, or of that before."""
    if not legacy:
        with zipfile.ZipFile(path, "w", **zip_options) as archive:
            archive.writestr("archive/data.pkl", body)
            archive.writestr("archive/byteorder", "little")
            for key, value in enumerate(storages):
                archive.writestr(f"archive/data/{key}", value.tobytes())
        return
    pickle = TorchPickle()
    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    version = b"\x80\x02" + pickle.number(1001) + b"."
    system = b"\x80\x02" + pickle.items({"little_endian": b"\x88"}) + b"."
    keys = b"\x80\x02](" + b"".join(pickle.text(str(k)) for k in range(len(storages))) + b"e."
    data = [len(v.ravel()).to_bytes(8, "little") + v.tobytes() for v in storages]
    path.write_bytes(magic + version + system + body + keys + b"".join(data))
