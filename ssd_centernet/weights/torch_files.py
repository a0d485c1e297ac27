"""Tensors of PyTorch's files (.pth, .pt), read without PyTorch and without running anything.

Since PyTorch 1.6 such a file is a zip of `NAME/data.pkl` and one file for each storage; before, it
was five pickles with the numbers behind them. MMDetection still writes the older kind.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssd_centernet.weights import pickled
from ssd_centernet.weights.pickled import Storage, Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 64 * 2**20
_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# What programs put the weights under, beside their notes and the state of the optimizer.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "params")


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The tensors of a file; each is read when it is asked for.

    Attributes:
        tensors: by name.
        load: storage -> its bytes.
        order: "<" or ">", the order of bytes.
    """

    tensors: Mapping[str, Tensor]
    load: Callable[[Storage], bytes]
    order: str

    def read(self, name: str) -> np.ndarray:
        """Return a tensor; half precision becomes float32, other types stay.

        Raises:
            ValueError: it lies outside its storage, or the storage is not in the file.
        """
        tensor = self.tensors[name]
        dtype = _dtype_of(tensor.storage, self.order)
        _check(name, tensor)
        data = self.load(tensor.storage)
        if len(data) != tensor.storage.count * dtype.itemsize:
            raise ValueError(
                f"the storage of tensor {name} has {len(data)} bytes, expected "
                f"{tensor.storage.count} values of {dtype.itemsize}"
            )
        values = np.frombuffer(data, dtype)[tensor.offset :]
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        if not math.prod(tensor.shape):
            values = np.zeros(tensor.shape, dtype)
        else:
            values = np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
        if tensor.storage.kind == "BFloat16Storage":
            # bfloat16 is the upper half of a float32.
            return (values.astype(np.uint32) << 16).view(np.float32)
        small = tensor.storage.kind == "HalfStorage"
        return np.array(values, np.float32 if small else dtype.newbyteorder("="))


def open_torch(path: Path) -> TorchFile:
    """Read the names, shapes and places of a file's tensors.

    Raises:
        ValueError: the file is damaged, hostile, or holds something else than tensors by name.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return _open_zip(path)
    return _open_pickles(path)


def _open_zip(path: Path) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        names = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} files data.pkl, expected one as in PyTorch's")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in names:
            raise ValueError(
                "it is a TorchScript program, not tensors by name; save its state_dict() instead"
            )
        for name, info in names.items():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} in it is compressed, which PyTorch never does")
        if names[pickles[0]].file_size > _MAX_PICKLE:
            raise ValueError(f"its pickle is larger than {_MAX_PICKLE} bytes")
        order = ">" if _entry(archive, names, f"{root}byteorder") == b"big" else "<"
        found = pickled.load(io.BytesIO(archive.read(pickles[0])), _storage)

    def load(storage: Storage) -> bytes:
        with zipfile.ZipFile(path) as archive:
            try:
                # Its checksum is compared too.
                return archive.read(f"{root}data/{storage.key}")
            except KeyError:
                raise ValueError(f"its storage {storage.key} is missing") from None

    return TorchFile(_by_name(found), load, order)


def _entry(archive: zipfile.ZipFile, names: Mapping, name: str) -> bytes | None:
    return archive.read(name) if name in names and names[name].file_size < 100 else None


def _open_pickles(path: Path) -> TorchFile:
    with path.open("rb") as file:
        # A part of it: what a damaged length asks for is then never larger.
        head = io.BytesIO(file.read(_MAX_PICKLE))
        try:
            magic = pickled.load(head)
        except ValueError as error:
            raise ValueError("it is not a file of PyTorch") from error
        if magic != _MAGIC:
            raise ValueError("it is not a file of PyTorch (or one from before 2017)")
        version, system = pickled.load(head), pickled.load(head)
        if version != 1001 or not isinstance(system, dict):
            raise ValueError(f"it has version {version!r} of PyTorch's format, expected 1001")
        order = "<" if system.get("little_endian", True) else ">"
        kinds: dict[str, Storage] = {}

        def storage_of(identity: Any) -> Storage:
            storage = _storage(identity)
            known = kinds.setdefault(storage.key, storage)
            if (known.kind, known.count) != (storage.kind, storage.count):
                raise ValueError(f"its storage {storage.key} is described in two ways")
            return storage

        found, keys = pickled.load(head, storage_of), pickled.load(head)
        places = _places(file, head.tell(), keys, kinds, order)

    def load(storage: Storage) -> bytes:
        if storage.key not in places:
            raise ValueError(f"its storage {storage.key} is missing")
        begin, end = places[storage.key]
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    return TorchFile(_by_name(found), load, order)


def _places(
    file: BinaryIO, at: int, keys: Any, kinds: Mapping[str, Storage], order: str
) -> dict[str, tuple[int, int]]:
    """Find the bytes of each storage: they lie one behind the other, each after its count."""
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise ValueError("it has no list of its storages")
    places = {}
    size = file.seek(0, 2)
    for key in keys:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        if key not in kinds or count != kinds[key].count:
            raise ValueError(f"its storage {key!r} has another size than its tensors say")
        end = at + 8 + count * _dtype_of(kinds[key], order).itemsize
        if end > size:
            raise ValueError("it ends before its last storage: it is incomplete")
        places[key] = (at + 8, end)
        at = end
    return places


def _storage(identity: Any) -> Storage:
    """Make a storage of ('storage', type, key, device, count) or one more, the view of it."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("it refers to what is not a storage")
    kind, key, count = identity[1], identity[2], identity[4]
    if len(identity) == 6 and identity[5] is not None:
        raise ValueError("it has a view of a storage, as only PyTorch before 0.4 wrote them")
    if not isinstance(kind, pickled.Name) or not isinstance(key, str) or type(count) is not int:
        raise ValueError("it has a storage without a type, key or size")
    return Storage(kind.name, key, count)


def _dtype_of(storage: Storage, order: str) -> np.dtype:
    if storage.kind not in _DTYPES:
        raise ValueError(f"it has numbers of the type {storage.kind}, which cannot be read here")
    return np.dtype(_DTYPES[storage.kind]).newbyteorder(order)


def _check(name: str, tensor: Tensor) -> None:
    """Raise an error for a tensor that is not inside its storage.

    A tensor with more values than its storage, by strides of 0, could fill the memory.
    """
    shape, strides, count = tensor.shape, tensor.strides, tensor.storage.count
    inside = len(shape) == len(strides) <= 32 and min((0, tensor.offset, count, *shape)) == 0
    if inside and math.prod(shape):
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        inside = min((0, *strides)) == 0 and tensor.offset + last < count
        inside = inside and math.prod(shape) <= count
    if not inside:
        raise ValueError(
            f"tensor {name} of shape {list(shape)} is not inside its storage of {count} values"
        )


def _by_name(found: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict, also one in a dict with other things.

    Raises:
        ValueError: there is none.
    """
    for _ in range(2):
        wrapped = [
            found[name]
            for name in _WRAPPERS
            if isinstance(found, dict) and isinstance(found.get(name), dict)
        ]
        found = wrapped[0] if wrapped else found
    if not isinstance(found, dict):
        what = found.what if isinstance(found, pickled.Skipped) else type(found).__name__
        raise ValueError(f"it holds a {what}, not tensors by name (a state_dict)")
    tensors = dict(_tensors(found))
    if not tensors:
        raise ValueError("it holds no tensors by name (no state_dict)")
    return tensors


def _tensors(found: Mapping) -> Iterator[tuple[str, Tensor]]:
    for name, value in found.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            _check(name, value)
            yield name, value
