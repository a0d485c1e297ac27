"""Hold back what libraries write to standard error past Python."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Iterator


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

    TensorFlow 2.21 logs what it finds before it reads TF_CPP_MIN_LOG_LEVEL. Put an object of this
    class in front of `sys.meta_path`. What a crash inside the import would say is lost.
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

        spec.loader.exec_module = exec_module
        return spec
