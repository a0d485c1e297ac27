"""`python -m tests.parity --system NAME --vectors DIR`: compare with reference vectors.

Prints one line per array (largest absolute and relative error, tolerance, verdict) and closes with
`N passed, N failed`; the exit status is 1 when something failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys

from tests import parity

# Float32 sums depend on how many threads share them, and batch norm over the few cells of SSD320's
# coarse levels magnifies the last bit: with one thread gradients differ by 2 % from the vectors,
# with two they agree to every digit. To be set before TensorFlow is imported.
os.environ.update(TF_NUM_INTRAOP_THREADS="2", TF_NUM_INTEROP_THREADS="2", OMP_NUM_THREADS="2")


def systems() -> list[str]:
    """List the systems that have a comparison."""
    return sorted(module.name for module in pkgutil.iter_modules(parity.__path__) if module.ispkg)


def main(argv: list[str] | None = None) -> int:
    """Run the comparison that the arguments name and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description="Compare the library with reference vectors.",
    )
    parser.add_argument("--system", required=True, choices=systems())
    parser.add_argument("--vectors", required=True, help="folder with the system's vectors")
    parser.add_argument("--only", nargs="*", help="run these sections only (unread keys then fail)")
    arguments = parser.parse_args(argv)
    from tests.parity import harness

    system = importlib.import_module(f"tests.parity.{arguments.system}")
    sections = {
        name: section
        for name, section in system.SECTIONS.items()
        if not arguments.only or name in arguments.only
    }
    vectors = harness.Vectors(arguments.vectors, optional=system.OPTIONAL_FILES)
    return harness.run(sections, vectors, harness.Report(), system.DELIBERATE)


if __name__ == "__main__":
    sys.exit(main())
