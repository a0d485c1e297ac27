"""`python -m tests.parity`: compare the library with the reference vectors of the originals.

Prints one line per array (largest absolute and relative error, tolerance, verdict) and closes with
`N passed, N failed`; the exit status is 1 when something failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import pkgutil
import sys

from tests import parity

if __name__ == "__main__":  # Whoever imports this module keeps his own.
    # Float32 sums depend on how many threads share them, and batch norm over the few cells of
    # SSD320's coarse levels magnifies the last bit: with one thread gradients differ by 2 % from
    # the vectors, with two they agree to every digit. To be set before TensorFlow is imported.
    os.environ.update(TF_NUM_INTRAOP_THREADS="2", TF_NUM_INTEROP_THREADS="2", OMP_NUM_THREADS="2")


def systems() -> list[str]:
    """List the systems that have a comparison."""
    return sorted(module.name for module in pkgutil.iter_modules(parity.__path__) if module.ispkg)


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons that the arguments name and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description="Compare the library with reference vectors (docs/reference/README.md).",
    )
    parser.add_argument("--system", choices=systems(), help="one system instead of all")
    parser.add_argument(
        "--vectors", help="folder with the system's vectors instead of tests/parity/vectors/SYSTEM"
    )
    parser.add_argument("--only", nargs="*", help="run these sections only (unread keys then fail)")
    arguments = parser.parse_args(argv)
    if arguments.vectors and not arguments.system:
        parser.error("--vectors is the folder of one system: name it with --system")
    names = [arguments.system] if arguments.system else systems()
    failed = [
        name
        for name in names
        if _compare(name, arguments.vectors or parity.VECTORS / name, arguments.only)
    ]
    if len(names) > 1:
        print(f"{len(names) - len(failed)} systems agree; differ: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _compare(name: str, folder: str | pathlib.Path, only: list[str] | None) -> int:
    """Compare one system with a folder of vectors; 0 when all agree."""
    from tests.parity import harness

    system = importlib.import_module(f"tests.parity.{name}")
    print(f"{name}, {folder}")
    sections = {key: call for key, call in system.SECTIONS.items() if not only or key in only}
    vectors = harness.Vectors(folder, optional=system.OPTIONAL_FILES)
    return harness.run(sections, vectors, harness.Report(), system.DELIBERATE)


if __name__ == "__main__":
    sys.exit(main())
