"""The compiled operations: where they lie, whether they can be trusted, who uses them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

SOURCES = ("ops.cc", "decisions.h", "resample.h")
BUILD_COMMAND = "python -m ssd_centernet.native.build"
# Decisions hang on every bit: no -ffast-math, and no products and sums in one rounding.
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared")
if platform.machine() in ("x86_64", "AMD64"):
    FLAGS += ("-mprefer-vector-width=512",)

_active: contextvars.ContextVar[Any] = contextvars.ContextVar("native_operations", default=None)


def folder() -> Path:
    """Return where compiled libraries lie: SSD_CENTERNET_NATIVE, or a folder of the user's cache.

    Not the package: it may belong to another user, and serve several TensorFlows.
    """
    named = os.environ.get("SSD_CENTERNET_NATIVE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ssd_centernet" / "native"


def key() -> str:
    """Return what a library must have been built of: sources, flags, TensorFlow and machine."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    # The version alone does not tell a vendor's build from that of PyPI.
    build = (tf.__version__, tf.version.GIT_VERSION, *tf.sysconfig.get_compile_flags()[1:])
    digest.update(repr((FLAGS, build, platform.machine(), platform.system())).encode())
    return digest.hexdigest()[:20]


def content_name(content: bytes) -> str:
    """Return the file name of a library: what it was built of, then what is in it."""
    return f"{key()}-{hashlib.sha256(content).hexdigest()[:20]}.so"


def find() -> Path | None:
    """Find the library for this source and this TensorFlow.

    Returns:
        The file, whole and of this user; None if there is none.

    Raises:
        ValueError: others could have written it; says which permission to take away.
    """
    here = folder()
    for path in sorted(here.glob(f"{key()}-*.so")):
        for each in (here, path):
            _check_private(each)
        try:
            content = path.read_bytes()
        except OSError:
            continue
        # Half a library would end the process as soon as it is opened.
        if path.name == content_name(content):
            return path
    return None


def _check_private(path: Path) -> None:
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"{path} belongs to another user or can be written to by others, so the library in it "
            f"is not loaded. Remove {folder()} and run {BUILD_COMMAND} again."
        )


@functools.cache
def load() -> Any:
    """Load the library, once in a process.

    Returns:
        The operations as functions.

    Raises:
        ValueError: there is none, or it cannot be used; says how to build it.
    """
    path = find()
    if path is None:
        raise ValueError(f"There is no library in {folder()} for this TensorFlow.")
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be loaded: {line}") from error


def loaded() -> str | None:
    """Return the name of the library that this process has loaded; None if it has not."""
    path = find() if load.cache_info().currsize else None
    return path and path.name


@functools.cache
def _say_once(line: str) -> None:
    logging.info("%s", line)


@contextlib.contextmanager
def use(native: bool | None) -> Iterator[bool]:
    """Let what is traced or run inside use the operations.

    Args:
        native: None uses them if they are there, and logs once if not; True needs them; False does
            without.

    Yields:
        Whether they are used.

    Raises:
        ValueError: `native` is True and they are not there; says how to build them.
    """
    operations = None
    if native is not False:
        try:
            operations = load()
        except ValueError as error:
            if native:
                raise ValueError(
                    f"native is True, but the operations are not compiled. {error} Run "
                    f"{BUILD_COMMAND}, or leave native out."
                ) from error
            _say_once(
                f"The input pipeline does without compiled operations. {error} It is about twice "
                f"as fast with them: {BUILD_COMMAND}"
            )
    token = _active.set(operations)
    try:
        yield operations is not None
    finally:
        _active.reset(token)


def active() -> Any:
    """Return the operations if this is inside `use`, else None."""
    return _active.get()
