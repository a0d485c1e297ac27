"""A Python that can import the named packages with what they ask for, and nothing else."""

import importlib.metadata
import re
import sys
from pathlib import Path

from tests.process import run

_START = "import runpy, sys; sys.path.append({folder!r}); del sys.argv[0]; {code}"
_RUN = "runpy.run_path(sys.argv[0], run_name='__main__')"


def requirements(names: list[str]) -> set[str]:
    """The distributions that `pip install NAMES` leaves in an empty environment."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # For another system.
        found.add(name)
        waiting += [re.match(r"[\w.-]+", one)[0] for one in asked if "extra ==" not in one]
    return found


class BarePython:
    """Runs programs with the standard library and these packages alone.

    Args:
        folder: an empty one, for links to the packages.
        packages: as pip calls them.
    """

    def __init__(self, folder: Path, packages: list[str]):
        self.folder = folder
        for name in requirements(packages):
            for file in importlib.metadata.files(name):
                top = file.parts[0]
                target = folder / top
                if top != ".." and not target.exists():
                    target.symlink_to(Path(file.locate()).parents[len(file.parts) - 1] / top)

    def code(self, code: str, *arguments: str):
        """Run code, with `arguments` behind a name in sys.argv."""
        start = _START.format(folder=str(self.folder), code=code)
        # Without the folders of the user and of this environment.
        return run(sys.executable, "-I", "-S", "-B", "-c", start, *map(str, arguments))

    def __call__(self, program: Path, *arguments: str):
        """Run a program of a file."""
        return self.code(_RUN, str(program), *arguments)
