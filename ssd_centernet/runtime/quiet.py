"""Hold back what libraries write to standard error past Python."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Iterator

# Versions of Abseil in TensorFlow 2.15 and later: a part of the names of its functions.
_ABSEIL = (20230125, 20230802, 20240116, 20240722, 20250127, 20250512, 20250814)
_SET_LEVEL = "_ZN4absl12lts_{}14SetMinLogLevelENS0_18LogSeverityAtLeastE"


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep what the block writes to standard error, from C++ too; give it out where it fails."""
    if sys.stderr is None:  # The process was started without one.
        yield
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(before, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode("utf-8", "replace"))
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


class QuietImport:
    """Import a package with standard error held back, whoever imports it first.

    TensorFlow 2.21 logs what it finds before it reads TF_CPP_MIN_LOG_LEVEL, and what it logs by
    Abseil itself ("I0000 ... Compiled cluster using XLA!") does not follow that level at all: here
    it does. Put an object of this class in front of `sys.meta_path`. What a crash inside the import
    would say is lost.
    """

    def __init__(self, package: str):
        """Keep the name of the package."""
        self._package = package

    def find_spec(self, name, path=None, target=None):
        """Find the package as Python does, with a loader that holds back standard error."""
        spec = None
        if name == self._package:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            with held_back():
                execute(module)
            _quiet_abseil(os.path.dirname(getattr(module, "__file__", None) or ""))

        spec.loader.exec_module = exec_module
        return spec


def _quiet_abseil(folder: str) -> None:
    """Let Abseil in TensorFlow's library log from TF_CPP_MIN_LOG_LEVEL on, where it is known."""
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    try:
        library = ctypes.CDLL(os.path.join(folder, "libtensorflow_framework.so.2"))
    except OSError:  # Another system, or a stand-in of the tests.
        return
    for version in _ABSEIL:
        # Its levels are those of TensorFlow: 2 are errors, 3 what ends the process.
        if level in ("2", "3") and hasattr(library, _SET_LEVEL.format(version)):
            getattr(library, _SET_LEVEL.format(version))(int(level))
