"""What is still to be installed around a TensorFlow that a vendor has installed.

scripts/setup.sh runs this with TENSORFLOW=installed, by the interpreter of the new environment,
which sees the vendor's packages too:

    python scripts/_installed_tensorflow.py version                   prints that TensorFlow's
    python scripts/_installed_tensorflow.py plan VERSION EXTRAS FOLDER   writes three files

constraints.txt holds every package that the vendor has installed at its version; requirements.txt
is what pip may resolve; alone.txt is what pip must take without its dependencies, since they would
bring another TensorFlow: under the vendor's name for it (tensorflow-cpu, ...) pip does not see one.
"""

import contextlib
import importlib.metadata as metadata
import sys
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
from pip._vendor.packaging.version import InvalidVersion, Version

OF_TENSORFLOW = {"tensorflow", "tf-keras", "tf-models-official", "tensorflow-text"}
LOWEST, FIRST_TOO_NEW = (2, 15), (2, 21)


def tensorflow_version() -> str:
    """Return the version of TensorFlow, whatever its distribution is called."""
    import tensorflow

    return tensorflow.__version__


def installed_versions() -> dict[str, str]:
    """Return name -> version of every package that this interpreter sees."""
    found = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]  # A half-removed package has none.
        with contextlib.suppress(InvalidVersion):  # Of some of Debian's, which pip cannot read.
            if name and Version(one.version):
                found.setdefault(canonicalize_name(name), one.version)
    return found


def our_requirements(extras: list[str]) -> list[Requirement]:
    """Return what ssd_centernet asks for with these extras, on this interpreter."""
    texts = [Requirement(text) for text in metadata.requires("ssd_centernet") or ()]
    return [
        one
        for one in texts
        if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in ["", *extras])
    ]


def plan(version: str, extras: list[str], folder: Path) -> None:
    """Write constraints.txt, requirements.txt and alone.txt into a folder."""
    minor = tuple(int(part) for part in version.split(".")[:2])
    text = f"{minor[0]}.{minor[1]}"
    if not LOWEST <= minor < FIRST_TOO_NEW:
        sys.exit(f"TensorFlow {text} is installed; ssd_centernet needs 2.15 to 2.20.")
    # Known to work with this minor version; what the vendor has installed comes first.
    pins, alone = {}, {}
    known = Path(f"constraints/tf{text}.txt")
    for line in known.read_text(encoding="utf-8").splitlines() if known.exists() else ():
        if line and line[0] != "#":
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate():
                pins[canonicalize_name(one.name)] = str(one.specifier)
    requirements = our_requirements(extras)
    installed = installed_versions()
    for one in requirements:
        name = canonicalize_name(one.name)
        if name in OF_TENSORFLOW - {"tensorflow"} and name not in installed:
            same_minor = f">={text},<{minor[0]}.{minor[1] + 1}"
            alone[name] = f"{name}{pins.get(name, same_minor)}"
    asked = [one for one in requirements if canonicalize_name(one.name) not in OF_TENSORFLOW]
    too_old = {
        name
        for name, one in ((canonicalize_name(one.name), one) for one in asked)
        if name in installed and not one.specifier.contains(installed[name], prereleases=True)
    }
    for name, version in installed.items():
        if name not in too_old | {"ssd-centernet"}:
            pins[name] = f"=={version}"
    lines = {
        "constraints.txt": [name + pin for name, pin in pins.items() if name not in OF_TENSORFLOW],
        "requirements.txt": [f"{one.name}{one.specifier}" for one in asked],
        "alone.txt": list(alone.values()),
    }
    for name, content in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in sorted(content)))


if __name__ == "__main__":
    if sys.argv[1] == "version":
        print(tensorflow_version())
    else:
        plan(sys.argv[2], sys.argv[3].split(","), Path(sys.argv[4]))
