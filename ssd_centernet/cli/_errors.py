"""Which errors are mistakes of a user, and how they are told without a traceback."""

import errno
import os
import re
import sys
from pathlib import Path

from ssd_centernet.runtime.launcher import FAILURES_VARIABLE

_PACKAGE = str(Path(__file__).resolve().parents[1])
_REQUIRED = (
    "{name} has no value for {missing}: the settings are not a whole recipe. Begin a gin file of "
    "your own with a line such as include 'ssd300_resnet34.gin', or give --gin_file twice. If this "
    "is the config.gin of a run, the file was cut short."
)
# Arguments that messages of functions name, and that commands have as flags.
_ARGUMENTS = ("image_dir", "image_list", "max_missing", "drop_unknown_categories")
# What commands call; a part is what these build from a recipe.
_ROOTS = ("train", "build_detector")
_NOT_BUILT = (
    "{name} cannot be built from its settings: {reason}. One of {name}.* has a value of the "
    "wrong kind, or @{name}() has brackets where the name alone is expected; correct the recipe. "
    "--debug shows where it failed."
)
_WRONG_VALUE = (
    "{name} cannot be built from its settings: {reason}{told}. Correct the recipe; --debug shows "
    "where it failed."
)
_TOO_LARGE = (
    "a file that was being written is larger than this shell allows ({detail}): see `ulimit -f`. "
    "What was there before is as it was. Raise the limit and give the same command again."
)
_TOO_DEEP = (
    "something in the files that were read is nested too deep, or refers to itself. --debug shows "
    "which file was being read."
)
_NO_MEMORY = (
    "the memory does not suffice{detail}. A file can ask for more than there is: check the sizes "
    "that it tells; else take smaller batches or images."
)
_DAMAGED = (
    "a record file is damaged or was cut short ({detail}). Convert the data again with "
    "`ssd_centernet convert --overwrite`, or replace the file with a complete copy."
)


def message_for_user(error: Exception) -> str | None:
    """Tell a mistake that the package explains, or one of the file system, from a defect.

    Args:
        error: what ended a command.

    Returns:
        What to print, or None for a defect, whose traceback is wanted.
    """
    if _is_of_tensorflow(error):
        return _tensorflow_message(error)
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, MemoryError):
        return _NO_MEMORY.format(detail=f" ({error})" if str(error) else "")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return _TOO_LARGE.format(detail=error)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.errno and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, OSError) or _is_raised_here(error):
        return _with_flags(_with_place(_without_calls(text)))
    built = re.search(r"\n  In call to configurable '(\w+)'", text)
    if isinstance(error, TypeError) and built and built[1] not in _ROOTS:
        return _NOT_BUILT.format(name=built[1], reason=_without_calls(text).split("\n")[0])
    if isinstance(error, ValueError) and built and built[1] not in _ROOTS:
        told = _settings_of(built[1])
        return _WRONG_VALUE.format(name=built[1], reason=_without_calls(text)[:300], told=told)
    required = re.match(r"Required bindings for `(\w+)` not provided in config: (.*)", text)
    return _REQUIRED.format(name=required[1], missing=required[2]) if required else None


def _with_place(text: str) -> str:
    """Add where a setting was written to an error that begins with its name."""
    named = re.match(r"(\w+)\.(\w+) must be .*\.$", text)
    own = _bindings_of(named[1]) if named else []
    place = next((one.place for one in own if one.parameter == named[2]), None)
    return f"{text.removesuffix('.')} ({place})." if place else text


def _with_flags(text: str) -> str:
    """Call arguments of Python functions as the flags of this command that set them."""
    absl = sys.modules.get("absl.flags")
    known = [name for name in _ARGUMENTS if absl is not None and name in absl.FLAGS]
    return (
        re.sub(rf"(?<![\w.'\"-])({'|'.join(known)})\b(?!['\"(])", r"--\1", text) if known else text
    )


def _bindings_of(name: str) -> list:
    """Return the settings of a part that somebody has written."""
    gin_state = sys.modules.get("ssd_centernet.config.gin_state")
    bindings = gin_state.bindings.values() if gin_state else ()
    return [one for one in bindings if gin_state.short_name(one.selector) == name]


def _settings_of(name: str) -> str:
    """List the settings of a part that somebody has written, with their places."""
    own = _bindings_of(name)
    shown = "; ".join(f"{one.name} ({one.place})" for one in own[-6:])
    return f". It was given {shown}" if shown else ""


def lost_another_process(error: Exception) -> str | None:
    """Tell the complaint of a process whose partner is gone; what ended that one matters.

    Args:
        error: what ended a command.

    Returns:
        What to print, or None for another error.
    """
    if isinstance(error, BrokenPipeError) and FAILURES_VARIABLE in os.environ:
        return "what started this process is gone, and takes no output any more."
    # Not imported for this: a command that did not load it has lost nobody.
    distribution = sys.modules.get("ssd_centernet.runtime.distribution")
    if distribution is None or not distribution.is_lost_process(error):
        return None
    known = isinstance(error, distribution.LostProcessError)
    return str(error) if known else "another process of the run ended."


def _is_raised_here(error: Exception) -> bool:
    if not isinstance(error, ValueError | RuntimeError | ImportError | KeyError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Our own `raise` is the innermost frame; anything deeper went wrong inside a library.
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _without_calls(text: str) -> str:
    # gin appends the call chain, with addresses of functions.
    return re.sub(r"\n  In call to configurable .*", "", text).strip()


def _is_of_tensorflow(error: Exception) -> bool:
    # Not imported for this: a command that did not load tensorflow has no error of it.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _tensorflow_message(error: Exception) -> str | None:
    """Explain what an input pipeline or a file can raise inside a graph."""
    errors = sys.modules["tensorflow"].errors
    text = _without_calls(error.message)
    asserted = re.search(r"assertion failed: (\[.*\])", text)
    if asserted:  # Our own assertions about the data; tensorflow puts each part into brackets.
        parts = re.findall(r"\[(.*?)\](?= \[|$)", asserted.group(1))
        return " ".join(part.strip() for part in parts).strip()
    # The last of several causes is the file's; the graph's node names tell a user nothing.
    detail = text.split("\n")[0].rsplit("Iterator::", 1)[-1]
    detail = re.sub(r"^(\w|::|\[\d+\])*: |\{\{.*?\}\} | \[Op:.*$", "", detail)
    if isinstance(error, errors.DataLossError):
        return _DAMAGED.format(detail=detail)
    files = (errors.NotFoundError, errors.PermissionDeniedError, errors.FailedPreconditionError)
    if isinstance(error, errors.ResourceExhaustedError) and "No space left" in detail:
        return f"the disk is full: {detail.strip()}. Make room and give the same command again."
    if "File too large" in detail:
        return _TOO_LARGE.format(detail=detail.strip())
    if isinstance(error, files) and re.search(r"No such file|ermission denied|directory", detail):
        return detail
    return None
