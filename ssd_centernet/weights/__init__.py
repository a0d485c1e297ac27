"""Initial weights from files of many kinds: published checkpoints, and runs of this library.

`catalog` is the table of published weights and needs nothing else; the names below bring
tensorflow with them when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "KINDS": "restoration",
    "RestoreTable": "table",
    "UnfitError": "table",
    "find_checkpoint": "readers",
    "open_weights": "readers",
    "restore": "restoration",
    "tf1_variables": "ssd_names",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, name)
    return value
