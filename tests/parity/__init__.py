"""Comparison of the library with reference vectors: `python -m tests.parity --help`."""
