"""What is still to be installed around a TensorFlow that a vendor has installed.

scripts/setup.sh runs this with TENSORFLOW=installed, by the interpreter of the new environment,
which sees the vendor's packages too; each line prints requirements for pip:

    python scripts/_installed_tensorflow.py version               that TensorFlow's version
    python scripts/_installed_tensorflow.py alone VERSION EXTRAS  to be installed without what they
        depend on, which would bring another TensorFlow: under the vendor's name for it
        (tensorflow-cpu, ...) pip does not see one
    python scripts/_installed_tensorflow.py rest VERSION EXTRAS   the others, when these are there
    python scripts/_installed_tensorflow.py constraints VERSION EXTRAS  for them: every package that
        the vendor has installed stays at its version
"""

import contextlib
import importlib.metadata as metadata
import sys
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
from pip._vendor.packaging.version import InvalidVersion, Version

# These depend on a package of the name tensorflow, the last on an absl-py that is older than most
# TensorFlows bring; what we use of them needs no more than the modules. tensorflow-text, which
# detectors do not need, is left to the vendor.
ALONE = {"tf-keras", "tf-models-official", "tensorflow-hub", "tensorflow-model-optimization"}
OF_TENSORFLOW = ALONE | {"tensorflow", "tensorflow-text"}
# What tf-models-official asks for and its backbones of detectors do without: language, data sets of
# others, tables. pip takes long to fit some of these to what a vendor has installed.
NOT_OF_VISION = set(
    "ai-edge-litert cython google-api-python-client kaggle oauth2client "
    "pandas py-cpuinfo sacrebleu sentencepiece seqeval".split()
)
NEWEST_OF_MODEL_GARDEN = (2, 20)
LOWEST, FIRST_TOO_NEW = (2, 10), (2, 22)


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


def requirements_of(package: str, extras: list[str]) -> dict[str, Requirement]:
    """Return name -> what a package asks for with these extras, on this interpreter."""
    found = {}
    for one in map(Requirement, metadata.requires(package) or ()):
        wanted = one.marker is None or any(one.marker.evaluate({"extra": e}) for e in ["", *extras])
        if wanted:
            found[canonicalize_name(one.name)] = one
    return found


def all_requirements(extras: list[str]) -> dict[str, Requirement]:
    """Return what we ask for, and what tf-models-official does where it is installed."""
    found = requirements_of("ssd_centernet", extras)
    if "tf-models-official" in found and "tf-models-official" in installed_versions():
        theirs = requirements_of("tf-models-official", [])
        found = {name: one for name, one in theirs.items() if name not in NOT_OF_VISION} | found
    return found


def known_pins(minor: str) -> dict[str, str]:
    """Return name -> version that is known to work with this TensorFlow, such as '==1.4.0'."""
    pins, path = {}, Path(f"constraints/tf{minor}.txt")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line and line[0] != "#":
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate():
                pins[canonicalize_name(one.name)] = str(one.specifier)
    return pins


def alone(minor: str, extras: list[str]) -> list[str]:
    """Return what pip must take without its dependencies."""
    first, second = minor.split(".")
    of_this_minor = f">={minor},<{first}.{int(second) + 1}"
    pins, installed = known_pins(minor), installed_versions()
    wanted = (ALONE & set(all_requirements(extras))) - set(installed)
    versions = {name: of_this_minor for name in ("tf-keras", "tf-models-official")} | pins
    return [f"{name}{versions.get(name, '')}" for name in wanted]


def rest(minor: str, extras: list[str]) -> list[str]:
    """Return what pip may resolve."""
    asked = all_requirements(extras).items()
    return [f"{one.name}{one.specifier}" for name, one in asked if name not in OF_TENSORFLOW]


def constraints(minor: str, extras: list[str]) -> list[str]:
    """Return the versions of what is installed, and of what is known to work beside it."""
    pins, asked = known_pins(minor), requirements_of("ssd_centernet", extras)
    for name, version in installed_versions().items():
        too_old = name in asked and not asked[name].specifier.contains(version, prereleases=True)
        if not too_old:
            pins[name] = f"=={version}"
    return [name + pin for name, pin in pins.items() if name not in {"ssd-centernet", "tensorflow"}]


def main(what: str, version: str = "", extras: str = "") -> None:
    """Print what is asked for."""
    if what == "version":
        print(tensorflow_version())
        return
    minor = tuple(int(part) for part in version.split(".")[:2])
    text = f"{minor[0]}.{minor[1]}"
    if not LOWEST <= minor < FIRST_TOO_NEW:
        sys.exit(f"TensorFlow {text} is installed; ssd_centernet needs 2.10 to 2.21.")
    wanted = [
        one for one in extras.split(",") if one != "model_garden" or minor <= NEWEST_OF_MODEL_GARDEN
    ]
    lines = {"alone": alone, "rest": rest, "constraints": constraints}[what](text, wanted)
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main(*sys.argv[1:])
