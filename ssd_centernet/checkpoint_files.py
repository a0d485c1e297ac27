"""The files of a TensorFlow checkpoint: which there are, whether they are whole, their digest.

PREFIX.index, PREFIX.data-00000-of-00001    what TensorFlow writes, the index last and in place
PREFIX.sha256                               the digests of both, as `sha256sum -c` reads them
checkpoint                                  TensorFlow's list of the checkpoints in a folder

TensorFlow compares a checksum of every tensor that it reads. The digests tell before anything is
read, and also of files that are whole but not those that the run wrote.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ssd_centernet.files import write_atomically

CHECKPOINT_PREFIX = "ckpt"
BEST_DIR = "best"
# Of a run that averages its weights: those that training goes on with. `weights` are the averages.
TRAINED_WEIGHTS = "trained"
LIST_NAME = "checkpoint"
DIGEST_SUFFIX = ".sha256"
# What TensorFlow writes before it renames: the parts of a checkpoint, and its list of checkpoints.
UNFINISHED = re.compile(
    rf"{CHECKPOINT_PREFIX}-\d+_temp(_[0-9a-f]{{32}})?|{LIST_NAME}\.tmp[0-9a-f]{{32}}"
)
_DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LISTED = re.compile(r'^(all_)?model_checkpoint_paths?: "(?:.*/)?([^/"]+)"$', re.MULTILINE)
# What TensorFlow takes for a pattern in the names of files.
WILDCARDS = "*?[]\\"
_BLOCK = 1 << 20
# The number that ends a table of TensorFlow (tensorflow/core/lib/io/format.h).
_END_OF_INDEX = (0xDB4775248B80FB57).to_bytes(8, "little")


class DamagedError(ValueError):
    """The files of a checkpoint cannot be read, or are not those that were written.

    Attributes:
        what: is wrong, in a few words.
    """

    def __init__(self, message: str, what: str):
        """Note what is wrong."""
        super().__init__(message)
        self.what = what


def step_of(prefix: str | Path) -> int | None:
    """Return the step that the name of a run's checkpoint says, None for another name."""
    number = re.fullmatch(rf"{CHECKPOINT_PREFIX}-(\d+)", Path(prefix).name)
    return int(number[1]) if number else None


def parts_of(prefix: str | Path) -> list[Path]:
    """List the files of a checkpoint that are there: its index, then its data."""
    data = sorted(Path(prefix).parent.glob(f"{glob.escape(Path(prefix).name)}.data-*-of-*"))
    index = Path(f"{prefix}.index")
    return [index, *data] if index.exists() else data


def written(directory: str | Path) -> list[str]:
    """List the prefixes of a run's checkpoints that have an index and data, by step."""
    steps = {}
    for index in Path(directory).glob(f"{CHECKPOINT_PREFIX}-*.index"):
        prefix = index.with_suffix("")
        if (step := step_of(prefix)) is not None and len(parts_of(prefix)) > 1:
            steps[step] = str(prefix)
    return [steps[step] for step in sorted(steps)]


def has_whole_index(prefix: str | Path) -> bool:
    """Tell whether the index of a checkpoint was written to its end."""
    try:
        with open(f"{prefix}.index", "rb") as file:
            file.seek(-len(_END_OF_INDEX), os.SEEK_END)
            return file.read() == _END_OF_INDEX
    except OSError:  # Shorter than that, or gone.
        return False


def listed(directory: str | Path) -> tuple[str | None, list[str]]:
    """Read TensorFlow's list of the checkpoints in a folder.

    Returns:
        The name of the latest checkpoint and the names of all, as `ckpt-500`; None and no names
        where there is no list, or a crash or an editor left none to be read.
    """
    try:
        text = (Path(directory) / LIST_NAME).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, []
    found = _LISTED.findall(text)
    latest = [name for of_all, name in found if not of_all]
    return latest[-1] if latest else None, [name for of_all, name in found if of_all]


def write_list(directory: str | Path, names: Sequence[str]) -> None:
    """Write TensorFlow's list of checkpoints, the latest one last; without names remove it."""
    path = Path(directory) / LIST_NAME
    if not names:
        path.unlink(missing_ok=True)
        return
    now = time.time()
    times = [min(os.path.getmtime(path.with_name(f"{name}.index")), now) for name in names]
    lines = [f'model_checkpoint_path: "{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    lines += [f"all_model_checkpoint_timestamps: {seconds!r}" for seconds in times]
    write_atomically(path, "\n".join(lines) + "\n")


def write_digest(prefix: str | Path) -> None:
    """Write the digests of a checkpoint's files beside them.

    Raises:
        OSError: a file cannot be read or written.
    """
    lines = [f"{_sha256(path)}  {path.name}\n" for path in parts_of(prefix)]
    if not lines:
        raise FileNotFoundError(f"there is no checkpoint {prefix} any more")
    write_atomically(f"{prefix}{DIGEST_SUFFIX}", "".join(lines))


def forget_digest(prefix: str | Path) -> None:
    """Remove the digests of a checkpoint that is about to be written or is gone."""
    Path(f"{prefix}{DIGEST_SUFFIX}").unlink(missing_ok=True)


def has_digest(prefix: str | Path) -> bool:
    """Tell whether there are digests to compare a checkpoint's files with."""
    return bool(_digests(prefix))


def check_digest(prefix: str | Path) -> bool:
    """Compare the files of a checkpoint with their digests.

    Returns:
        Whether there are digests: older versions wrote none, and a killed run may have had no time.

    Raises:
        DamagedError: a file is missing or another one than was written.
        OSError: a file cannot be read.
    """
    digests = _digests(prefix)
    for name, digest in digests.items():
        path = Path(prefix).with_name(name)
        try:
            found = _sha256(path)
        except FileNotFoundError as error:
            raise _damaged(prefix, f"{name} is missing") from error
        if found != digest:
            told = Path(f"{prefix}{DIGEST_SUFFIX}").name
            raise _damaged(prefix, f"{name} is not the file that was written, {told} says")
    return bool(digests)


def _digests(prefix: str | Path) -> dict[str, str]:
    """Return name -> SHA-256 of a checkpoint's files; nothing where it cannot be read."""
    try:
        text = Path(f"{prefix}{DIGEST_SUFFIX}").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    lines = [_DIGEST_LINE.fullmatch(line) for line in text.splitlines()]
    name = Path(prefix).name
    if not all(line and line[2].startswith(f"{name}.") for line in lines):
        return {}
    return {line[2]: line[1] for line in lines if line}


def _sha256(path: Path) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def find_damage(prefix: str) -> str | None:
    """Read a checkpoint to its end.

    Args:
        prefix: of its files.

    Returns:
        What is wrong with it in a few words; None where it is whole. Where there are digests, the
        files are compared with these, else TensorFlow reads every tensor.

    Raises:
        OSError, tensorflow.errors.OpError: it cannot be read for another reason than damage.
    """
    try:
        if not check_digest(prefix):
            _read_all(prefix)
    except DamagedError as error:
        return error.what
    return None


def _read_all(prefix: str) -> None:
    """Let TensorFlow read every tensor, and so compare its checksum."""
    import tensorflow as tf

    name, links = open_name(prefix)
    try:
        reader = tf.train.load_checkpoint(name)
        for tensor in reader.get_variable_to_shape_map():
            reader.get_tensor(tensor)
    except (IndexError, ValueError, tf.errors.OpError) as error:
        if is_damage(error):
            raise damaged(prefix, error) from error
        raise
    finally:
        if links is not None:
            links.cleanup()


def open_name(prefix: str) -> tuple[str, tempfile.TemporaryDirectory | None]:
    """Find a name under which TensorFlow reads a checkpoint, whatever its folder is called.

    TensorFlow looks for the files of a checkpoint as for a pattern, in which * ? [ ] mean others.

    Args:
        prefix: of the checkpoint's files.

    Returns:
        The prefix, or one of links to the files; and the folder of these links, which must not be
        given up before all is read, or None.
    """
    if not set(prefix) & set(WILDCARDS):
        return prefix, None
    folder = tempfile.TemporaryDirectory(prefix="checkpoint")
    for path in parts_of(Path(prefix).absolute()):
        (Path(folder.name) / f"linked{path.name.removeprefix(Path(prefix).name)}").symlink_to(path)
    return str(Path(folder.name) / "linked"), folder


def holds_averages(prefix: str | Path) -> bool:
    """Tell whether the weights of a checkpoint are averages, with the trained ones beside them."""
    return holds(prefix, TRAINED_WEIGHTS)


def holds(prefix: str | Path, part: str) -> bool:
    """Tell whether a checkpoint holds a part, such as 'weights' or 'rate_factor'."""
    import tensorflow as tf

    name, links = open_name(str(prefix))
    with links or contextlib.nullcontext():
        names = tf.train.load_checkpoint(name).get_variable_to_shape_map()
    return any(key.startswith(f"{part}/") for key in names)


def damaged(path: str, error: Exception) -> DamagedError:
    """Return the error to raise for files that cannot be read.

    Nothing is to be deleted for it: what cannot be read here may be whole.

    Args:
        path: prefix of the checkpoint's files.
        error: of TensorFlow, or of `check_digest`.
    """
    if isinstance(error, DamagedError):
        return error
    return _damaged(path, f"{first_line(error)} ({_state(path)})")


def _damaged(path: str | Path, what: str) -> DamagedError:
    directory, name = Path(path).parent, Path(path).name
    others = [Path(other).name for other in written(directory) if Path(other).name != name]
    advice = (
        f"Download or copy {name}.* there again, whole; in a run without another checkpoint move "
        "them to another folder, and it begins anew."
    )
    if others:
        advice = f"Move the files {name}.* out of {directory}; {others[-1]} is used then."
    elif directory.name == BEST_DIR:
        advice = f"Move {directory} to another folder; the run's latest checkpoint is used then."
    return DamagedError(f"checkpoint {path} is damaged: {what}. {advice}", what)


def _state(prefix: str) -> str:
    """Say whether all files of a checkpoint are there."""
    parts = parts_of(prefix)
    data = [part for part in parts if part.suffix != ".index"]
    count = {int(part.name.rpartition("-")[2]) for part in data}
    if len(parts) == len(data) or not count:
        return "a file is missing"
    if len(data) < max(count):
        return f"{len(data)} of {max(count)} data files are there"
    empty = [part.name for part in parts if not part.stat().st_size]
    return f"{empty[0]} is empty" if empty else "all its files are there; was the copy cut short?"


def is_damage(error: Exception) -> bool:
    """Tell files that cannot be read from a checkpoint of something else."""
    known = r"bytes than requested|sstable|No such file|[Cc]hecksum"
    return isinstance(error, DamagedError) or bool(re.search(known, str(error)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
