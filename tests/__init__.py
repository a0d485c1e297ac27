"""Tests; a package so that `python -m tests.parity` and shared helpers can be imported."""
