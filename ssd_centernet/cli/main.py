"""Dispatch `ssd_centernet <command> [flags]` to the module of the command.

Only the module of the chosen command is imported, and that imports tensorflow inside its `main`:
help comes at once.
"""

import contextlib
import difflib
import importlib
import importlib.metadata
import importlib.util
import logging as py_logging
import os
import re
import signal
import sys
import textwrap
import traceback
import warnings
from types import TracebackType

from ssd_centernet import __version__
from ssd_centernet.cli._errors import lost_another_process, message_for_user
from ssd_centernet.plain_text import plain, plain_streams
from ssd_centernet.runtime.launcher import LOST_ANOTHER, end_with_launcher, report_failure
from ssd_centernet.runtime.quiet import QuietImport
from ssd_centernet.runtime.signals import Stopped, stoppable

# Command -> one line for the overview. Kept here so that the overview imports nothing.
COMMANDS = {
    "train": "train a detector and evaluate it while it trains",
    "launch": "run train, evaluate or benchmark in several processes, one per device",
    "evaluate": "COCO metrics of a trained detector, or of a file of detections",
    "export": "SavedModel, TFLite, ONNX and OpenVINO files of a detector, checked against it",
    "predict": "detect objects in images: drawings and COCO-style json",
    "serve": "detect on pictures that come over HTTP, until it is stopped",
    "data_worker": "make the batches of trainings that run elsewhere, until it is stopped",
    "convert": "convert a COCO, VOC, YOLO, CSV or TFDS data set to TFRecord shards",
    "make_synthetic": "render a small COCO data set to try things on",
    "make_static": "compute training batches once, for train --static",
    "show_inputs": "draw what the network is fed, with the matched anchors",
    "show_anchors": "show which share of the objects a recipe can match, by size",
    "report": "compare runs: metrics, curves and settings, in the terminal and on one page",
    "ablate": "train variants of a recipe with several seeds, and tell differences from chance",
    "compare_precision": "train a recipe in several precisions, and compare",
    "benchmark": "measure input, train step, inference, decoding, evaluation or formats",
    "compat": "run a command line of a published system as its readme has it",
    "weights": "list, fetch, check and convert published weights",
    "doctor": "check versions, devices and a train step of this installation",
}

_USAGE_ERROR = 2
_HELP = {"-h", "-help", "--help", "--helpfull", "--helpshort"}


def run(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 when all went well, 1 on an error, 2 on a wrong command line.

    Args:
        argv: the command line with the program's name first; that of the process by default.
    """
    is_program, argv = argv is None, list(sys.argv if argv is None else argv)
    start_quietly()
    # TensorFlow would load Keras 3 as well: without it the start is a quarter shorter, and a user's
    # own modules get the Keras that the detectors are made of.
    if _has_separate_keras_2():
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if importlib.util.find_spec("habana_frameworks"):
        # As Gaudi's port does: TensorFlow reads it while it is imported.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    sys.excepthook = _show_traceback
    warnings.showwarning = _show_warning
    with plain_streams(sys):
        status = _answer(argv[1:])
        if is_program:
            leave(status)
        sys.exit(status)


def leave(status: int) -> None:
    """End the process, at once where a thread of the data service cannot be ended.

    Args:
        status: of the exit.
    """
    # Not imported for this: a command that did not load it has no such thread.
    parts = sys.modules.get("ssd_centernet.data_service.parts")
    if parts is not None and parts.is_stuck():
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(status)
    sys.exit(status)


def start_quietly() -> None:
    """Hold back what tensorflow says of its start, unless TF_CPP_MIN_LOG_LEVEL asks for it.

    For programs, before tensorflow is imported; the library itself sets nothing.
    """
    # Without an NVIDIA driver tensorflow logs its search for one as an error, hence 3.
    quiet = "2" if os.path.exists("/proc/driver/nvidia") else "3"
    # Whoever asks for all messages gets those of the import too.
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", quiet) not in ("0", "1"):
        sys.meta_path.insert(0, QuietImport("tensorflow"))


def _answer(arguments: list[str]) -> int:
    """Run the command line, to the last word that it prints, and return the exit status."""
    try:
        status = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read this has enough, as `head` has. Python would try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        return 128 + signal.SIGPIPE


def _show_traceback(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    lines = traceback.format_exception(kind, error, trace)
    print(plain("".join(lines)), end="", file=sys.stderr)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print what a user is warned of without the place in the code that warns."""
    text = f"warning: {message}\n"
    if category is not UserWarning:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)


def _has_separate_keras_2() -> bool:
    try:
        version = importlib.metadata.version("tf_keras")
    except importlib.metadata.PackageNotFoundError:
        return False
    # Until TensorFlow 2.15 its own Keras is Keras 2.
    return tuple(map(int, version.split(".")[:2])) > (2, 15)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return _USAGE_ERROR
    name, rest = arguments[0], arguments[1:]
    if name in _HELP or name == "help":
        print(_overview())
        return 0
    if name == "--version":
        print(f"ssd_centernet {__version__}")
        return 0
    if name.replace("-", "_") in COMMANDS:
        return _run_command(name.replace("-", "_"), rest)
    # A slip of one letter has one meaning.
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.9)
    near = near or difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    reason = "The command comes before its flags." if name.startswith("-") else "No such command."
    print(
        f"ssd_centernet: {name!r}: {reason}{hint}\nCommands: {', '.join(COMMANDS)}. "
        "More: ssd_centernet --help",
        file=sys.stderr,
    )
    return _USAGE_ERROR


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"ssd_centernet {__version__}: single-stage object detectors on TensorFlow.",
            "",
            "Usage: ssd_centernet <command> [flags]",
            "",
            *lines,
            "",
            "Flags of a command: ssd_centernet <command> --help",
        ]
    )


def _run_command(name: str, arguments: list[str]) -> int:
    from absl import flags, logging

    from ssd_centernet.cli._flags import refuse_nan

    module = importlib.import_module(f"ssd_centernet.cli.{name}")
    if "debug" not in flags.FLAGS:
        flags.DEFINE_boolean("debug", False, "Show the Python traceback of every error.")
    module.define_flags()
    own = arguments
    if name == "compat" and "--" in arguments:  # The rest is of another program, its --help too.
        own = arguments[: arguments.index("--")]
    if _HELP.intersection(own):
        print(_command_help(name, module))
        return 0
    try:
        if hasattr(module, "rewrite_arguments"):
            arguments = module.rewrite_arguments(arguments)
        positional = flags.FLAGS([f"ssd_centernet {name}", *arguments])
        refuse_nan()
    except flags.Error as error:
        return _wrong_flags(name, error)
    logging.use_absl_handler()
    # Its progress lines would interrupt ours.
    py_logging.getLogger("faster_coco_eval").setLevel(py_logging.WARNING)
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING
    try:
        with stoppable():
            end_with_launcher()
            return int(module.main(positional) or 0)
    except Stopped as stop:
        print(f"ssd_centernet {name}: ended by {stop}.", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except flags.Error as error:
        return _wrong_flags(name, error)
    except Exception as error:
        if lost := lost_another_process(error):
            with contextlib.suppress(BrokenPipeError):
                print(f"ssd_centernet {name}: {lost}", file=sys.stderr)
            return LOST_ANOTHER
        if isinstance(error, BrokenPipeError):
            raise  # To `_answer`: nobody is left to be told.
        known = message_for_user(error)
        report_failure(known or f"{type(error).__name__}: {error}")
        if known is None or flags.FLAGS.debug:
            raise
        print(f"ssd_centernet {name}: {known}", file=sys.stderr)
        return 1


def _wrong_flags(name: str, error: Exception) -> int:
    from ssd_centernet.cli._hints import explain

    print(
        f"ssd_centernet {name}: {explain(error, name)}\nAll flags: ssd_centernet {name} --help",
        file=sys.stderr,
    )
    return _USAGE_ERROR


def _command_help(name: str, module: object) -> str:
    from absl import flags

    groups = flags.FLAGS.flags_by_module_dict()
    parts = [f"Usage: ssd_centernet {name} [flags]", "", (module.__doc__ or "").strip()]
    titles = {
        module.__name__: f"Flags of {name}",
        "ssd_centernet.cli._flags": "Shared flags",
        "ssd_centernet.cli._vendor_flags": "Names that other systems have for these settings",
        __name__: "Other flags",
    }
    for group, title in titles.items():
        lines = [_flag_help(flag) for flag in sorted(groups.get(group, []), key=lambda f: f.name)]
        if lines:
            parts += ["", f"{title}:", *lines]
    parts += ["", "Logging and more from absl: --verbosity, --log_dir, --flagfile."]
    return "\n".join(parts)


def _flag_help(flag: object) -> str:
    head, text = flag_text(flag)
    body = textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  {head}\n{body}"


def flag_text(flag: object) -> tuple[str, str]:
    """Return how a flag is written, and what it means with its default."""
    kind = flag.flag_type()
    values = getattr(flag.parser, "enum_values", None)
    if flag.boolean:
        head = f"--[no]{flag.name}"
    else:
        shown = "|".join(values) if values else kind.replace("multi string", "string").upper()
        head = f"--{flag.name}={shown.replace('COMMA SEPARATED LIST OF STRINGS', 'LIST')}"
    text = " ".join((flag.help or "").split())
    # What absl adds says the same as the head, or is said in our own text.
    text = re.sub(r"^<[^>]*>: |; repeat this option to specify a list of values$", "", text)
    if flag.default not in (None, False, "", []):
        text += f" (default: {flag.default_as_str.strip(chr(39))})"
    return head, text
