"""Initial weights from files of many kinds: published checkpoints, and runs of this library."""

from ssd_centernet.weights.readers import find_checkpoint, open_weights
from ssd_centernet.weights.restoration import KINDS, restore
from ssd_centernet.weights.ssd_names import tf1_variables
from ssd_centernet.weights.table import RestoreTable, UnfitError

__all__ = [
    "KINDS",
    "RestoreTable",
    "UnfitError",
    "find_checkpoint",
    "open_weights",
    "restore",
    "tf1_variables",
]
