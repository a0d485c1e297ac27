"""Versions of what a figure depends on, found without importing it."""

import importlib.metadata
import platform

from ssd_centernet import __version__

_PACKAGES = ("tensorflow", "tf_keras", "numpy")


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of this library, of Python, TensorFlow, Keras and NumPy.

    Args:
        *packages: more that are asked for.

    Returns:
        Name -> version; what is not installed is left out.
    """
    versions = {"ssd_centernet": __version__, "python": platform.python_version()}
    for name in (*_PACKAGES, *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
