"""Readers of weights: TensorFlow checkpoints, npz, safetensors, PyTorch and Keras files."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from ssd_centernet import checkpoint_files, run_directory
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.weights import catalog
from ssd_centernet.weights.torch_files import open_torch

_SHOWN = 5
_DATA_SUFFIX = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
# Every TensorFlow 2 checkpoint holds the graph of its objects under this name.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# The end of TensorFlow's tables.
_TABLE = bytes.fromhex("57fb808b247547db")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The tensors of a file; each is read only when it is used.

    Attributes:
        path: path of the file, or prefix of a checkpoint's files.
        kind: "tf1", "objects", "npz", "safetensors", "torch", "h5" or "keras".
        shapes: shape of each tensor by its name in the file.
        read: name -> array.
        graph: graph of the saved objects, if kind is "objects".
        class_names: class names of the detector in the file, if it has them.
    """

    path: str
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    graph: ObjectGraph | None = None
    class_names: tuple[str, ...] | None = None

    def find(self, name: str) -> str | None:
        """Find the tensor of a published name.

        Args:
            name: name of a tensor; in an object-based checkpoint the path of a variable's object,
                such as `model/backbone/layer_with_weights-0/kernel`.

        Returns:
            Its name in the file, or None.
        """
        key = name if self.graph is None else self.graph.find(name)
        return key if key in self.shapes else None

    def trained(self) -> Weights:
        """Return the weights that a run trained, instead of their averages.

        Raises:
            ValueError: the file is no checkpoint of a run that averages its weights.
        """
        graph = self.graph and self.graph.renamed(checkpoint_files.TRAINED_WEIGHTS, "weights")
        if graph is None:
            raise ValueError(
                f"{self.path} has no weights beside those that are used: the run did not average "
                "them (train.ema_decay), or this is no checkpoint of a run. Leave out "
                "--weights=raw (in Python trained=True)."
            )
        return dataclasses.replace(self, graph=graph)


class ObjectGraph:
    """The graph of objects in an object-based checkpoint, by attribute names.

    Many paths can lead to a variable, but it is saved under only one, so names are looked up by
    walking the graph, as TensorFlow does when it restores.
    """

    def __init__(self, serialized: bytes):
        """Read the graph, which is a tensor of the checkpoint."""
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized)
        self._children = [{c.local_name: c.node_id for c in node.children} for node in graph.nodes]
        self._keys = [{a.name: a.checkpoint_key for a in node.attributes} for node in graph.nodes]

    def renamed(self, name: str, other: str) -> ObjectGraph | None:
        """Return the graph with a child of the root under another name; None without the child."""
        if name not in self._children[0]:
            return None
        graph = copy.copy(self)
        root = dict(self._children[0])
        root[other] = root.pop(name)
        graph._children = [root, *self._children[1:]]
        return graph

    def find(self, path: str) -> str | None:
        """Return the key of a variable by its path (".S" for a slash within a name), or None."""
        node = 0
        for part in filter(None, path.split("/")):
            child = self._children[node].get(part.replace(".S", "/"))
            if child is None:
                return None
            node = child
        return self._keys[node].get(_VALUE)


class _NamelessError(ValueError):
    """The file is complete, but cannot be read by names."""


def open_weights(path: str | Path) -> Weights:
    """Open a file of weights.

    Args:
        path: a `.keras`, `.npz`, `.safetensors`, `.pth`/`.pt` or `.h5` file; else a TensorFlow
            checkpoint: its prefix, one of its files, or a directory, such as that of a run.

    Returns:
        Its tensors.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or of another format than its name says.
    """
    path = Path(path)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None or path.is_dir():
        return _open_checkpoint(find_checkpoint(str(path)))
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}. {_listing(path)}")
    try:
        return opener(path)
    except (MemoryError, _NamelessError):
        raise
    except Exception as error:  # Whatever a foreign reader raises, it cannot read the file.
        raise ValueError(
            f"{path} cannot be read as {path.suffix}: {_first_line(error)}. It is damaged, "
            "incomplete, or of another format than its name says: download or copy it again, or "
            "set train.fine_tune_checkpoint to another file."
        ) from error


def find_checkpoint(path: str) -> str:
    """Find the prefix of a checkpoint's files.

    Args:
        path: a prefix such as `dir/model.ckpt-28152`, one of its files, or a directory.

    Returns:
        The prefix; in a directory the one that its `checkpoint` file names, else the highest step.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    prefix = _DATA_SUFFIX.sub("", str(path))
    if Path(f"{prefix}.index").is_file() or _is_one_file(Path(path)):
        return prefix
    folder = Path(path)
    if folder.is_dir():
        try:
            return run_directory.find_checkpoint(folder)
        except FileNotFoundError:
            # A run directory has known names; other directories may have other names.
            found = sorted(folder.glob("*.index"), key=_step)
            if found:
                return str(found[-1].with_suffix(""))
    near = catalog.near(str(path))
    named = f" (did you mean the published weights {' or '.join(near)}?)" if near else ""
    raise FileNotFoundError(
        f"No checkpoint at {path}{named}: expected a run directory, a directory with "
        "files PREFIX.index and PREFIX.data-00000-of-00001 or their PREFIX, or a file ending in "
        f"{', '.join(_OPENERS)}. {_listing(folder)} Unpack a downloaded archive first, and set "
        "train.fine_tune_checkpoint to its content."
    )


def _is_one_file(path: Path) -> bool:
    """Tell a checkpoint of TensorFlow before 1.0, all in one file, by how it ends."""
    if not path.is_file() or path.suffix == ".index":
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_TABLE)))
        return file.read() == _TABLE


def _step(path: Path) -> tuple[int, str]:
    number = re.search(r"-(\d+)\.index$", path.name)
    return (int(number.group(1)) if number else -1, path.name)


def _listing(path: Path) -> str:
    where = path if path.is_dir() else path.parent
    names = sorted(p.name for p in where.iterdir())[:_SHOWN] if where.is_dir() else []
    return f"{where} " + (f"holds {', '.join(names)}, ..." if names else "is empty or missing.")


def _open_checkpoint(prefix: str) -> Weights:
    checkpoint_files.check_digest(prefix)
    name, links = checkpoint_files.open_name(prefix)
    try:
        reader = tf.train.load_checkpoint(name)
        shapes = {name: tuple(s) for name, s in reader.get_variable_to_shape_map().items()}
        graph = None
        if _OBJECT_GRAPH in shapes:
            graph = ObjectGraph(reader.get_tensor(_OBJECT_GRAPH))
            del shapes[_OBJECT_GRAPH]
    except (IndexError, tf.errors.OpError) as error:
        raise checkpoint_files.damaged(prefix, error) from error

    def read(name: str, links=links) -> np.ndarray:
        del links  # Held until nothing is read any more.
        try:
            return reader.get_tensor(name)
        except (IndexError, tf.errors.OpError) as error:
            raise checkpoint_files.damaged(prefix, error) from error

    return Weights(prefix, "tf1" if graph is None else "objects", shapes, read, graph)


def _open_npz(path: Path) -> Weights:
    # Objects would be pickles, which can run code.
    file = np.load(path, allow_pickle=False)
    if not hasattr(file, "files"):
        raise ValueError("it holds a single array without a name, as .npy files do")
    arrays = {name: file[name] for name in file.files}
    return _of_arrays(path, "npz", arrays)


def _open_torch(path: Path) -> Weights:
    file = open_torch(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}

    def read(name: str) -> np.ndarray:
        try:
            return file.read(name)
        except MemoryError:
            raise
        except Exception as error:  # Of zipfile many kinds, as of damaged bytes.
            raise ValueError(
                f"tensor {name} of {path} cannot be read: {_first_line(error)}. The file is "
                "damaged or hostile: download or copy it again."
            ) from error

    return Weights(str(path), "torch", shapes, read)


def _of_arrays(path: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> Weights:
    shapes = {name: array.shape for name, array in arrays.items()}
    return Weights(str(path), kind, shapes, arrays.__getitem__)


def _open_h5(path: Path) -> Weights:
    import h5py

    datasets = {}
    with h5py.File(path, "r") as file:
        if "_layer_checkpoint_dependencies" in file or path.name.endswith(".weights.h5"):
            raise _NamelessError(
                f"{path} was written by save_weights: it has no names of variables, so only a "
                "model like the one that wrote it can load its arrays. Load it there "
                "with load_weights, call detector.save('NAME.keras'), and give that file."
            )
        for name, dataset in _datasets(file):
            datasets[_h5_name(name)] = (name, dataset.shape)

    def read(name: str) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return file[datasets[name][0]][()]

    return Weights(str(path), "h5", {name: s for name, (_, s) in datasets.items()}, read)


def _open_keras(path: Path) -> Weights:
    """Read a whole model; one of this library has all names, including those of classes."""
    model = load_keras_file(path, compile=False)
    arrays = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    found = _of_arrays(path, "keras", arrays)
    return dataclasses.replace(found, class_names=getattr(model, "class_names", None))


def _datasets(group) -> Iterator[tuple[str, object]]:
    for child in group.values():
        if hasattr(child, "values"):
            yield from _datasets(child)
        elif child.shape is not None:
            yield child.name, child


def _h5_name(path: str) -> str:
    """Turn Keras' `/model_weights/conv1/conv1/kernel:0` into `conv1/kernel`."""
    parts = [part for part in path.removesuffix(":0").split("/") if part]
    if parts[0] == "model_weights":
        parts = parts[1:]
    # A layer's name comes twice, and may have slashes itself.
    for count in range(len(parts) // 2, 0, -1):
        if parts[:count] == parts[count : 2 * count] and len(parts) > 2 * count:
            parts = parts[count:]
            break
    # Keras 1, which wrote the ImageNet VGG-16, named them so: block1_conv1_W_1, block1_conv1_b_1.
    older = re.fullmatch(rf"{re.escape(parts[0])}_([Wb])(_\d+)?", parts[-1])
    if older:
        parts[-1] = {"W": "kernel", "b": "bias"}[older[1]]
    return "/".join(parts)


_SAFE_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(tf.bfloat16.as_numpy_dtype),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_MAX_HEADER = 100_000_000


def _open_safetensors(path: Path) -> Weights:
    """Read a length of 8 bytes, a JSON header of that length, then the bytes of the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise ValueError(f"the header should have {length} bytes, but the file has {size}")
        header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError(f"the header is a {type(header).__name__}, not a table of tensors")
    header.pop("__metadata__", None)
    begin = 8 + length
    tensors = {}
    for name, entry in header.items():
        dtype, shape = _SAFE_DTYPES[entry["dtype"]], tuple(entry["shape"])
        start, end = entry["data_offsets"]
        count = math.prod(shape)
        if not 0 <= start <= end <= size - begin or end - start != count * dtype.itemsize:
            raise ValueError(
                f"tensor {name} is at bytes {start} to {end}, "
                "which is not its size, or outside the file"
            )
        tensors[name] = (dtype, shape, begin + start, count)
    _refuse_shared_bytes(tensors)

    def read(name: str) -> np.ndarray:
        dtype, shape, offset, count = tensors[name]
        return np.fromfile(path, dtype, count, offset=offset).reshape(shape)

    return Weights(str(path), "safetensors", {n: t[1] for n, t in tensors.items()}, read)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the header names tensor {name} twice")
    return found


def _refuse_shared_bytes(tensors: Mapping[str, tuple]) -> None:
    spans = sorted((at, at + n * kind.itemsize, name) for name, (kind, _, at, n) in tensors.items())
    spans = [span for span in spans if span[0] < span[1]]
    for (_, end, name), (start, _, other) in zip(spans, spans[1:], strict=False):
        if start < end:
            raise ValueError(f"tensors {name} and {other} share bytes of the file")


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:300].rstrip(".")
    explained = isinstance(error, ValueError | OSError | RuntimeError) and text
    return text if explained else f"{type(error).__name__} {text}".strip()


_OPENERS: dict[str, Callable[[Path], Weights]] = {
    ".keras": _open_keras,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".pth": _open_torch,
    ".pt": _open_torch,
    ".h5": _open_h5,
    ".hdf5": _open_h5,
}
