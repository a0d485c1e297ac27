"""Where gin files are: given by a path, beside the file that includes them, or installed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gin import config_parser

from ssd_centernet.config import trust
from ssd_centernet.config.gin_state import near
from ssd_centernet.files import read_text
from ssd_centernet.run_directory import CONFIG_NAME

_PACKAGE = Path(__file__).resolve().parents[1]


def recipe_directory() -> Path:
    """Return the folder of the recipes: inside the installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: neither place holds any recipe.
    """
    for folder in (_PACKAGE / "gin_configs", _PACKAGE.parent / "gin_configs"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"The recipes are missing: there is no gin_configs folder in {_PACKAGE} or beside it. "
        "The installation is damaged; install the package again."
    )


def recipes() -> list[str]:
    """Return the names of the installed recipes, without their ending."""
    return sorted(path.stem for path in recipe_directory().glob("*.gin"))


def find_recipe(name: str | os.PathLike[str], *, search_path: Sequence[str | Path] = ()) -> Path:
    """Find a gin file by its path or by the name of an installed recipe.

    Args:
        name: absolute path, path relative to the working directory, to a folder of `search_path`
            or to the installed recipes; the ending '.gin' may be left out.
        search_path: folders tried after the working directory and before the installed recipes.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: there is no such file; the message lists the installed recipes.
    """
    name = os.path.expanduser(os.fspath(name))
    return find(name, (Path(), *map(Path, search_path), recipe_directory()))


def find(name: str, folders: Sequence[Path], parents: Sequence[Path] = (), place: str = "") -> Path:
    """Find a gin file in the first of some folders that has it.

    Args:
        name: of the file, '.gin' may be left out.
        folders: where to look, in this order.
        parents: the files that include it; none of them is taken.
        place: of the line that includes it.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: there is none; the message lists the installed recipes.
    """
    for folder in folders:
        for ending in ("", ".gin"):
            path = folder / f"{name}{ending}"
            # A user's file may include the installed one that has the same name.
            if path.is_file() and path.resolve() not in parents:
                return path
    run = next((one / name for one in folders if (one / name / CONFIG_NAME).is_file()), None)
    if run is not None:
        raise FileNotFoundError(
            f"{name!r} is the folder of a run; its settings are the gin file {run / CONFIG_NAME}."
        )
    available = recipes()
    looked = dict.fromkeys(str(folder.resolve()) for folder in folders)
    including = f" (included in {place}; a file cannot include itself)" if parents else ""
    raise FileNotFoundError(
        f"There is no gin file {name!r} in {', '.join(looked)}{including}. "
        f"{near(Path(name).stem, available)}"
        f"Installed recipes: {', '.join(available) or 'none'}."
    )


def describe_shadow(name: str, path: Path) -> str | None:
    """Say that a file was read in place of the installed recipe of its name.

    Args:
        name: as it was given.
        path: the file that was found.

    Returns:
        A sentence; None where a path was given, or the installed recipe is the file.
    """
    if name.startswith((".", os.sep)):
        return None
    for installed in (recipe_directory() / f"{name}{ending}" for ending in ("", ".gin")):
        if installed.is_file() and installed.resolve() != path.resolve():
            return (
                f"--gin_file={name} is {path.resolve()}, not the installed recipe of this name: "
                f"give {installed} for that one, or rename the file."
            )
    return None


def imported_modules(
    gin_files: Sequence[str | os.PathLike[str]] | None, gin_params: Sequence[str] | None = None
) -> list[str]:
    """List what gin files and bindings import, without importing it.

    Files of a run are left out: they import only what somebody allows.

    Args:
        gin_files: as in `parse`.
        gin_params: as in `parse`.

    Returns:
        Names of modules, each once.

    Raises:
        FileNotFoundError: a file does not exist.
    """
    files = [find_recipe(name) for name in gin_files or ()]
    found = [one for path in files for one in _imports_of_file(path, ())]
    found += [one for text in gin_params or () for one in _imports(text, (), ())]
    return list(dict.fromkeys(found))


def _imports_of_file(path: Path, parents: tuple[Path, ...]) -> Iterator[str]:
    if not trust.is_saved(path):
        path = path.resolve()
        yield from _imports(read_text(path), (path.parent,), (*parents, path))


def _imports(text: str, beside: tuple[Path, ...], parents: tuple[Path, ...]) -> Iterator[str]:
    for statement in trust.loading_statements(text):
        if isinstance(statement, config_parser.ImportStatement):
            yield statement.module
        else:
            folders = (*beside, Path(), recipe_directory())
            yield from _imports_of_file(find(statement.filename, folders, parents), parents)
