"""Comparison of the library with reference vectors: `python -m tests.parity --help`.

Source: docs/reference/README.md (what the vectors are, and which software made them).
"""

import pathlib

# One folder a system, named as its specification in docs/reference.
VECTORS = pathlib.Path(__file__).parent / "vectors"
