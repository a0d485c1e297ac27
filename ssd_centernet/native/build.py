"""`python -m ssd_centernet.native.build`: compile the operations for the installed TensorFlow."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from ssd_centernet import files
from ssd_centernet.native import library

# Seconds; ten are enough on most machines.
_LIMIT = 900


def compiler() -> str | None:
    """Return the C++ compiler: CXX, or the first of c++, g++ and clang++ that there is."""
    named = os.environ.get("CXX")
    return named or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def build() -> Path:
    """Compile the operations, unless that has been done.

    Returns:
        The library.

    Raises:
        ValueError: no compiler, or it failed; the folder cannot be written to or is not private.
    """
    found = library.find()
    if found is not None:
        return found
    chosen = compiler()
    if chosen is None:
        raise ValueError(
            "there is no C++ compiler (c++, g++ or clang++). Install one, e.g. the package g++, or "
            "name it by CXX=/path/to/compiler."
        )
    source = Path(__file__).with_name("ops.cc")
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "ops.so"
        command = [*shlex.split(chosen), *library.FLAGS, "-w", str(source), "-o", str(result)]
        command += [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{chosen} cannot be run: {error}") from error
        if ended.returncode or not result.exists():
            lines = [line for line in ended.stderr.splitlines() if "error" in line] or [
                f"it ended with {ended.returncode}"
            ]
            raise ValueError(f"{chosen} failed: {lines[0]} (command: {shlex.join(command)})")
        content = result.read_bytes()
    folder = library.folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = Path(files.write_atomically(folder / library.content_name(content), content))
        path.chmod(0o600)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to: {error}. Name another folder by SSD_CENTERNET_NATIVE."
        ) from error
    return library.find() or path


def main() -> int:
    """Build, load, and say where the library is."""
    try:
        path = build()
        library.load()
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
