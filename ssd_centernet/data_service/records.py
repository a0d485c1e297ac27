"""The record files that a training and its workers read, compared before the first step.

A worker reads the records itself, under the paths of the training. The files that it finds there
must be the same: otherwise batches would be others, without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from ssd_centernet.data.mixture import DataDir, folders_of, splits_of
from ssd_centernet.data.shards import find_shards
from ssd_centernet.plain_text import counted

# Of each end of a file, so that data sets of any size are compared in seconds.
_END_BYTES = 65_536
# Most bytes of a question.
MOST_BYTES = 64 << 20

# Path -> [size in bytes, hash of its ends].
Prints = Mapping[str, tuple[int, str]]


def absolute_folders(data_dir: DataDir) -> list[str]:
    """Return the folders of a data set as a process in any folder can open them.

    Args:
        data_dir: a folder or several.
    """
    return [os.path.abspath(one) for one in folders_of(data_dir)]


def fingerprints(data_dir: DataDir, split: str) -> Prints:
    """Return the fingerprint of each record file that a training reads.

    Args:
        data_dir: a folder or several.
        split: of each; see `splits_of`.

    Returns:
        For each path the size in bytes, and a hash of the first and the last 64 KiB.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
    """
    folders = absolute_folders(data_dir)
    splits = zip(folders, splits_of(split, len(folders)), strict=True)
    paths = [path for folder, one in splits for path in find_shards(folder, one)]
    return {path: _fingerprint(path) for path in paths}


def difference(wanted: Prints) -> str:
    """Compare files of this machine with fingerprints; return what differs, '' where all is equal.

    Args:
        wanted: of `fingerprints`.
    """
    told = []
    for path, (size, ends) in wanted.items():
        try:
            own = _fingerprint(path)
        except OSError as error:
            told.append(f"{path} cannot be read there ({error.strerror or error})")
            continue
        if own[0] != size:
            told.append(f"{path} has {own[0]:,} bytes there, {size:,} at the training")
        elif own[1] != ends:
            told.append(
                f"{path} has other content there (fingerprint {own[1]}, {ends} at the training)"
            )
    if not told:
        return ""
    of = f"{len(told)} of {counted(len(wanted), 'record file')}"
    folders = ", ".join(sorted({os.path.dirname(path) for path in wanted}))
    return f"{of} in {folders} differ: {told[0]}" + ("; ..." if told[1:] else "")


def question(prints: Prints) -> bytes:
    """Write fingerprints as a line."""
    return json.dumps({path: list(one) for path, one in prints.items()}).encode() + b"\n"


def answer(line: bytes) -> bytes:
    """Answer the line of a training, as a line of JSON.

    Raises:
        ValueError: it is no question.
    """
    asked = json.loads(line)
    if not isinstance(asked, dict):
        raise ValueError(f"expected fingerprints, got {line[:40]!r}")
    for path, one in asked.items():
        if not (
            isinstance(one, list) and len(one) == 2 and list(map(type, one)) == [int, str]
        ) or not os.path.isabs(path):
            raise ValueError(f"expected a fingerprint of {path[:80]!r}, got {one!r}")
    return json.dumps(difference(asked)).encode() + b"\n"


def _fingerprint(path: str) -> tuple[int, str]:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found.update(file.read(_END_BYTES))
        file.seek(max(size - _END_BYTES, 0))
        found.update(file.read(_END_BYTES))
    return size, found.hexdigest()[:16]
