"""What a command line of another program becomes: a command of this library."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from typing import Any

from ssd_centernet.cli.originals.options import as_flag

# Where env.sh of the originals puts links to the data set.
LINKED_RECORDS = "data/coco2017_tfrecords/tfrecords"


@dataclasses.dataclass
class Plan:
    """Collect the command, and what the user should know of it.

    Attributes:
        command: words after `ssd_centernet`.
        notes: sentences.
        environment: variables that the command needs.
        processes: in which it runs.
        defaults: flags that nobody typed, as the original has them.
        answer: what to print instead of running a command.
    """

    command: list[str]
    notes: list[str] = dataclasses.field(default_factory=list)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    processes: int = 1
    defaults: list[str] = dataclasses.field(default_factory=list)
    answer: str | None = None

    def add(self, name: str, value: Any) -> None:
        """Add a flag, unless its value is None."""
        if value is not None:
            self.command.append(as_flag(name, value))

    def add_default(self, name: str, value: Any) -> None:
        """Add a flag that the original has by default."""
        self.add(name, value)
        self.defaults.append(self.command[-1])

    def bind(self, parameters: dict[str, Any]) -> None:
        """Add gin parameters."""
        for name, value in parameters.items():
            self.command.append(f"--gin_params={name} = {value!r}")

    def add_either(self, name: str, value: Any, *, typed: bool) -> None:
        """Add a flag, as one that somebody typed or as one of the original."""
        if value is not None:
            (self.add if typed else self.add_default)(name, value)

    def add_device(self, kind: str | None, *, typed: bool = False) -> None:
        """Add --device, unless DEVICE of the environment says another one."""
        chosen = os.environ.get("DEVICE")
        self.add_either("device", chosen or kind, typed=bool(chosen) or typed)

    def add_data(self, folder: str, *, typed: bool) -> None:
        """Add --data_dir; one of the environment is of the user as well."""
        chosen = [os.environ.get(name) for name in ("DATASET", "DATA_DIR")]
        self.add_either("data_dir", folder, typed=typed or folder in chosen)


def split_of(pattern: str | None, role: str) -> str | None:
    """Return the split of a pattern of record files, such as coco_train of coco_train.record-*.

    Args:
        pattern: of the files' paths, or None.
        role: train or val, for a pattern that says no more, as *train* does.

    Returns:
        The name, or None where it is what this library takes anyway.
    """
    from ssd_centernet.data.splits import list_splits

    if pattern is None:
        return None
    folder, name = os.path.split(pattern)
    splits = list_splits(folder)
    for split, files in splits.items():
        if any(fnmatch.fnmatch(file.name, name) for file in files):
            return None if split == f"coco_{role}" else split
    return None


def data_dir(preferred: str | None, otherwise: str) -> str:
    """Return the folder of records to use.

    Args:
        preferred: what the command line or its configuration says.
        otherwise: where the original looks.

    Returns:
        `preferred` where it exists, else DATASET or DATA_DIR of the environment, else the links
        that env.sh made, else `preferred` or `otherwise`, which the command then refuses.
    """
    if preferred and os.path.isdir(preferred):
        return preferred
    for name in ("DATASET", "DATA_DIR"):
        if os.environ.get(name):
            return os.environ[name]
    if os.path.isdir(LINKED_RECORDS):
        return LINKED_RECORDS
    return preferred or otherwise
