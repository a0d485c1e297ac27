"""Initial weights from files of many kinds: published checkpoints, and runs of this library."""

from ssd_centernet.training.pretrained.readers import find_checkpoint, open_weights
from ssd_centernet.training.pretrained.restoration import KINDS, restore
from ssd_centernet.training.pretrained.ssd_names import tf1_variables
from ssd_centernet.training.pretrained.table import RestoreTable, UnfitError

__all__ = [
    "KINDS",
    "RestoreTable",
    "UnfitError",
    "find_checkpoint",
    "open_weights",
    "restore",
    "tf1_variables",
]
