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

from ssd_centernet._keras import check_keras_file, keras
from ssd_centernet.files import check_is_file

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
# All that Keras writes for a model without vocabularies. Another name for the weights, .npz, would
# be read with pickle by Keras 2.15.
_MEMBERS = {_CONFIG, "metadata.json", "model.weights.h5"}
# Descriptions of the largest detectors have a megabyte; weights do not get smaller when packed.
_MOST_CONFIG = 32_000_000
_MOST_PACKED = 20
# Where this library registers classes; importing these modules only defines things.
_OURS = re.compile(r"ssd_centernet\.(layers|models|training)(\.[a-z]\w*)+")
_KERAS = re.compile(r"(tf_)?keras(\.\w+)*")
_CLASS = re.compile(r"_*[A-Z]\w*")
# The modules of Keras whose functions take tensors and give tensors.
_OF_TENSORS = "activations constraints initializers losses metrics regularizers".split()
_FUNCTIONS = re.compile(rf"builtins|(tf_)?keras(\.src)?\.({'|'.join(_OF_TENSORS)})(\.\w+)*")
_NO_FUNCTIONS = ("deserialize", "get", "serialize")
# What Keras makes of plain values; its other names with underscores import modules.
_VALUES = ("__tensor__", "__numpy__", "__bytes__")
_SPEC = re.compile(r"tensorflow\.python\.(framework|ops\.ragged)\.\w+")
# Layers that hold code, or call whatever operation of TensorFlow their settings name.
_CALLERS = ("Lambda", "TFSMLayer", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod")
# Operations of these, which is how Keras stores `x / 255.0`: those that only compute.
_OPERATORS = ("TFOpLambda", "SlicingOpLambda")
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
    config = _read_config(path)
    for entry in _objects(config):
        reason = _danger(entry)
        if reason:
            raise ValueError(
                f"{path} is not loaded: {reason}. It could run code of whoever made the file. If "
                "you trust it, import the module with its classes first (each with "
                "@keras.saving.register_keras_serializable()), or use "
                "ssd_centernet.keras.models.load_model."
            )
    try:
        return keras.models.load_model(path, compile=compile)
    except MemoryError:
        raise
    except Exception as error:  # Keras raises any kind for what it did not write.
        detail = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{path} cannot be loaded as a model ({type(error).__name__}: {detail:.200}). It is "
            "damaged, or of another version of Keras; write it again with model.save."
        ) from error


def _read_config(path: Path) -> Any:
    """Read the description of the objects in an archive, if that holds nothing but a model."""
    check_is_file(path)
    check_keras_file(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path} needs a name in .keras, in small letters, for Keras to read it.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras archive (it may be HDF5, or cut off). Keras would read HDF5 "
            "under this name without any protection against code in it: give HDF5 files the "
            "ending .h5, or write the file again with model.save('NAME.keras')."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            foreign = sorted({name for name in names if name not in _MEMBERS})
            if foreign or len(set(names)) < len(names):
                raise ValueError(
                    f"it holds {', '.join(f'{name!r:.60}' for name in (foreign or names)[:4])}, "
                    f"expected {', '.join(sorted(_MEMBERS))}, each once"
                )
            size = archive.getinfo(_CONFIG).file_size
            packed = sum(member.file_size for member in members)
            if size > _MOST_CONFIG or packed > _MOST_PACKED * (path.stat().st_size + _MOST_CONFIG):
                raise ValueError(f"it unpacks to {packed} bytes, {size} of them {_CONFIG}")
            config = json.loads(archive.read(_CONFIG))
            damaged = archive.testzip()
    except _UNREADABLE as error:
        raise ValueError(f"{path} has no readable {_CONFIG}: {error}. Write it again.") from error
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: {damaged} in it is not what was written. Copy or download it "
            "again, whole."
        )
    return config


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
    if name in _OPERATORS:
        operation = inner.get("function") if isinstance(inner, Mapping) else None
        allowed = isinstance(operation, str) and _OPERATIONS.fullmatch(operation)
        return "" if allowed else f"it calls the operation {operation!r:.80}"
    if name == "function":
        return _danger_of_function(inner, module)
    if name in _VALUES:
        return ""
    if name == "__typespec__":
        known = _SPEC.fullmatch(module or "") and str(entry.get("spec_name")).endswith("Spec")
        return "" if known else f"it needs a type of the module {module!r:.80}"
    registered = entry.get("registered_name")
    if _registered(registered):
        return ""
    if isinstance(inner, Mapping) and isinstance(inner.get("vocabulary"), str):
        return f"its layer {name} reads the file {inner['vocabulary']!r:.80}"
    if module is None:
        return ""  # Found among Keras' own and registered classes, or nowhere.
    if _OURS.fullmatch(module):
        try:
            importlib.import_module(module)
        except ImportError:
            return f"there is no module {module!r:.80}"
        # Only now are its classes registered.
        return "" if _registered(registered) else f"{module} registers no class {name!r:.80}"
    if _KERAS.fullmatch(module) and _CLASS.fullmatch(name) and registered in (None, name):
        return ""
    return f"it needs {name!r:.80} of the module {module!r:.80}"


def _danger_of_function(name: Any, module: str | None) -> str:
    if _registered(name):
        return ""
    known = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if known and name not in _NO_FUNCTIONS and _FUNCTIONS.fullmatch(module or "builtins"):
        if any(callable(getattr(getattr(keras, room), name, None)) for room in _OF_TENSORS):
            return ""
    return f"it calls the function {name!r:.80} of module {module!r:.80}"


def _registered(name: Any) -> bool:
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None
