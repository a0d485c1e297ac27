"""Models in `.keras` files, read so that a stranger's file cannot run code.

A `.keras` file is a zip archive: a JSON description of objects, which names modules and classes to
import and call, and the weights. Keras' own safe mode refuses lambdas, but imports any module that
the description names; and it does not exist for HDF5 files, which Keras accepts under this name.
"""

from __future__ import annotations

import importlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssd_centernet._keras import keras

_CONFIG = "config.json"
# What reading an archive raises where it is damaged, encrypted or not of this kind.
_UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
# Where this library registers classes; importing these modules only defines things.
_OURS = re.compile(r"ssd_centernet\.(layers|models|training)(\.[a-z]\w*)+")
_KERAS = re.compile(r"(tf_)?keras(\.\w+)*")
_CLASS = re.compile(r"_*[A-Z]\w*")
# The modules of Keras whose functions take tensors and give tensors.
_FUNCTIONS = re.compile(
    r"builtins|(tf_)?keras(\.src)?\."
    r"(activations|constraints|initializers|losses|metrics|regularizers)(\.\w+)*"
)
# Layers that hold code, or call whatever operation of TensorFlow their settings name.
_CALLERS = ("Lambda", "TFSMLayer", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod")
# Operations of `TFOpLambda`, which is how Keras stores `x / 255.0`: those that only compute.
_OPERATIONS = re.compile(
    r"(math|nn|image|linalg|__operators__)\.\w+|cast|clip_by_value|concat|expand_dims|gather|"
    r"identity|ones_like|pad|reshape|shape|slice|split|squeeze|stack|stop_gradient|"
    r"strided_slice|tile|transpose|unstack|where|zeros_like|convert_to_tensor|broadcast_to"
)


def load_keras_file(path: Path, *, compile: bool = True) -> keras.Model:
    """Load a model of a `.keras` file; nothing but Keras, this library and registered classes runs.

    Args:
        path: the file.
        compile: whether to restore the optimizer and the arguments of `compile` as well.

    Returns:
        The model with its weights.

    Raises:
        ValueError: it is not such an archive, or it needs an object that could run code; names it.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras archive (it may be HDF5, or cut off). Keras would read HDF5 "
            "under this name without any protection against code in it: give HDF5 files the "
            "ending .h5, or write the file again with model.save('NAME.keras')."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
            damaged = archive.testzip()
    except _UNREADABLE as error:
        raise ValueError(f"{path} has no readable {_CONFIG}: {error}. Write it again.") from error
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: {damaged} in it is not what was written. Copy or download it "
            "again, whole."
        )
    for entry in _objects(config):
        reason = _danger(entry)
        if reason:
            raise ValueError(
                f"{path} is not loaded: {reason}. It could run code of whoever made the file. If "
                "you trust it, import the module with its classes first (each with "
                "@keras.saving.register_keras_serializable()), or use "
                "ssd_centernet.keras.models.load_model."
            )
    return keras.models.load_model(path, compile=compile)


def _objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every description of an object, however deep."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if "class_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _danger(entry: Mapping[str, Any]) -> str:
    """Say why an object of a file must not be made; '' if it may be."""
    name, module = entry["class_name"], entry.get("module")
    inner = entry.get("config")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return f"it names an object by {name!r:.80} of module {module!r:.80}, expected texts"
    if name == "__lambda__" or name in _CALLERS:
        return f"it holds a {name}, which stores code or calls any operation"
    if name == "TFOpLambda":
        operation = inner.get("function") if isinstance(inner, Mapping) else None
        allowed = isinstance(operation, str) and _OPERATIONS.fullmatch(operation)
        return "" if allowed else f"it calls the operation {operation!r:.80}"
    if name == "function":
        if _registered(inner) or _FUNCTIONS.fullmatch(module or "builtins"):
            return ""
        return f"it calls the function {inner!r:.80} of module {module!r:.80}"
    if module is None or name.startswith("__") or _registered(entry.get("registered_name")):
        return ""  # Found among registered classes and plain values, or nowhere.
    if _OURS.fullmatch(module):
        importlib.import_module(module)
        # Only now are its classes registered.
        known = _registered(entry.get("registered_name"))
        return "" if known else f"{module} registers no class {name!r:.80}"
    if _KERAS.fullmatch(module) and _CLASS.fullmatch(name):
        return ""
    return f"it needs {name!r:.80} of the module {module!r:.80}"


def _registered(name: Any) -> bool:
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None
