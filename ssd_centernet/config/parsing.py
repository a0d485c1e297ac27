"""Read gin recipes strictly.

`parse` replaces the whole configuration. A name or a parameter that does not exist is an error
with near matches, and `assert_all_used` turns a setting that nothing asked for into one as well.
Files are walked here, not by gin's own loader, so that every binding keeps the place it came from
and includes are searched beside the including file and among the installed recipes.
"""

import importlib
import os
import re
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

from ssd_centernet import __version__
from ssd_centernet.config.gin_state import (
    MACRO,
    Binding,
    allowed_keys,
    bindings,
    expected_instead,
    macro_names,
    near,
    near_names,
    operative_config,
    parameter_names,
    reachable_keys,
    references,
    registered,
    remember_import,
    replaced,
    short_name,
    statements,
    unused_message,
    used_keys,
)
from ssd_centernet.files import read_text, write_atomically

# Modules whose import registers the names that recipes may use.
MODULES: tuple[str, ...] = (
    "ssd_centernet.building",
    "ssd_centernet.data.augment.centernet",
    "ssd_centernet.data.augment.ssd",
    "ssd_centernet.data.augment.ssd_fpn",
    "ssd_centernet.data.augment.ssd_vgg",
    "ssd_centernet.data.fake",
    "ssd_centernet.data.pipeline",
    "ssd_centernet.data.static",
    "ssd_centernet.export.export",
    "ssd_centernet.layers.anchors",
    "ssd_centernet.layers.centernet_criteria",
    "ssd_centernet.layers.centernet_decoder",
    "ssd_centernet.layers.criteria",
    "ssd_centernet.layers.decoders",
    "ssd_centernet.layers.focal_criterion",
    "ssd_centernet.layers.fpn",
    "ssd_centernet.layers.heads",
    "ssd_centernet.layers.necks",
    "ssd_centernet.layers.normalization",
    "ssd_centernet.layers.preprocessing",
    "ssd_centernet.models.backbones.bottleneck_resnet",
    "ssd_centernet.models.backbones.efficientnet_lite",
    "ssd_centernet.models.backbones.hourglass",
    "ssd_centernet.models.backbones.model_garden",
    "ssd_centernet.models.backbones.resnet",
    "ssd_centernet.models.backbones.vgg",
    "ssd_centernet.models.centernet",
    "ssd_centernet.models.ssd",
    "ssd_centernet.training.loss_scale",
    "ssd_centernet.training.optimizers",
    "ssd_centernet.training.schedules",
    "ssd_centernet.training.warmup_cosine",
    "ssd_centernet.recipe",
)

# Two ways to say one thing: the one that is set last counts, so that a flag or a file of one's own
# needs not know which of them a recipe uses.
ALTERNATIVES: dict[str, str] = {"train.steps": "train.epochs", "train.epochs": "train.steps"}

_PARSE_ERRORS = (SyntaxError, ValueError, IndexError, tokenize.TokenError, RecursionError)
_PACKAGE = Path(__file__).resolve().parents[1]


class ConfigError(ValueError):
    """A recipe or a --gin_params binding that cannot be obeyed."""


def register_all() -> None:
    """Import every module that registers names for recipes, also where gin is locked."""
    with gin.unlock_config():
        for name in MODULES:
            importlib.import_module(name)


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
    return _find(name, [Path(), *map(Path, search_path), recipe_directory()])


def parse(
    gin_files: Sequence[str | os.PathLike[str]] | None = None,
    gin_params: Sequence[str] | None = None,
    *,
    search_path: Sequence[str | Path] = (),
    flag_params: Sequence[str] | None = None,
) -> None:
    """Replace the configuration by gin files and bindings, strictly.

    Args:
        gin_files: recipes in the order in which they are read (see `find_recipe`); a later
            binding replaces an earlier one.
        gin_params: bindings such as 'train.batch_size = 8', read after the files.
        search_path: more folders to look for files and includes in.
        flag_params: bindings made from command-line flags, read between the files and
            `gin_params`. A name that the library does not know is an error in them as well.

    Raises:
        FileNotFoundError: a file does not exist.
        ConfigError: bad syntax, an unknown name, parameter or macro; the message gives the place
            and near matches.
    """
    register_all()
    clear()
    folders = [Path(), *map(Path, search_path), recipe_directory()]
    try:
        for name in gin_files or ():
            path = _find(os.path.expanduser(os.fspath(name)), folders)
            _read_file(path, folders, ())
        for source, params in (("a flag", flag_params), ("--gin_params", gin_params)):
            for text in params or ():
                _read_statements(text, place=source, folders=folders, parents=())
        _check_macros()
        gin.finalize()
    except Exception:
        clear()
        raise


def clear() -> None:
    """Forget every binding and everything recorded about their use."""
    gin.clear_config()
    bindings.clear()
    replaced.clear()


def bound_part(parameter: str, *, default: str) -> tuple[str, set[str]]:
    """Tell which part of the library a parameter of the parsed recipe refers to.

    Args:
        parameter: such as 'train.schedule'.
        default: name of the part where nothing is bound.

    Returns:
        The part's name, such as 'WarmupCosine', and the names of its own parameters.
    """
    try:
        reference = gin.query_parameter(parameter)
    except ValueError:  # Not bound.
        reference = None
    selector = getattr(reference, "selector", default)
    found = _configurable(selector, parameter)
    return short_name(found.selector), parameter_names(found) - {"**"}


def save_operative(path: str | os.PathLike[str]) -> None:
    """Write `operative_config` to a file, atomically.

    Args:
        path: the file; its folder is made when it is missing.
    """
    write_atomically(
        path, f"# Settings of a run of ssd_centernet {__version__}.\n\n{operative_config()}"
    )


def assert_all_used(allow: Iterable[str] = (), *, overrides_only: bool = False) -> None:
    """Raise when a binding had no effect because nothing that ran asked for it.

    To be called when everything that the run uses has been built (after the first step).

    Settings of a part that a later line replaced are allowed, such as those of a recipe's schedule
    before `train.schedule = @ConstantRate`.

    Args:
        allow: names that this run need not use, such as 'evaluate' (all its parameters),
            'evaluate.batch_size' or 'data.*' (shell wildcards). What an allowed binding refers
            to is allowed as well.
        overrides_only: check the bindings of flags and `gin_params` alone, as one does when
            the files are the saved settings of another kind of run.

    Raises:
        ConfigError: lists each such binding with its place and near matches.
    """
    used = used_keys()
    allowed = allowed_keys(tuple(allow))
    unused = [
        binding
        for key, binding in bindings.items()
        if key not in used | allowed | replaced and (binding.override or not overrides_only)
    ]
    # A macro that only unused bindings refer to is not a second mistake.
    referred = reachable_keys(b[:3] for b in unused if b.selector != MACRO)
    unused = [b for b in unused if b.selector != MACRO or b[:3] not in referred]
    if unused:
        raise ConfigError(unused_message(unused, used))


# Reading ------------------------------------------------------------------------------------------


def _find(
    name: str, folders: Sequence[Path], parents: Sequence[Path] = (), place: str = ""
) -> Path:
    for folder in folders:
        for ending in ("", ".gin"):
            path = folder / f"{name}{ending}"
            # A user's file may include the installed one that has the same name.
            if path.is_file() and path.resolve() not in parents:
                return path
    available = recipes()
    looked = dict.fromkeys(str(folder.resolve()) for folder in folders)
    including = f" (included in {place}; a file cannot include itself)" if parents else ""
    raise FileNotFoundError(
        f"There is no gin file {name!r} in {', '.join(looked)}{including}. "
        f"{near(Path(name).stem, available)}"
        f"Installed recipes: {', '.join(available) or 'none'}."
    )


def _read_file(path: Path, folders: Sequence[Path], parents: tuple[Path, ...]) -> None:
    path = path.resolve()
    _read_statements(
        read_text(path),
        place=str(path),
        folders=[path.parent, *folders],
        parents=(*parents, path),
    )


def _read_statements(
    text: str, *, place: str, folders: Sequence[Path], parents: tuple[Path, ...]
) -> None:
    try:
        parser = statements(text)
    except _PARSE_ERRORS as error:
        raise ConfigError(_explain(error, text, place)) from error
    while True:
        try:
            statement = next(parser, None)
        except _PARSE_ERRORS as error:
            raise ConfigError(_explain(error, text, place)) from error
        if statement is None:
            return
        line = statement.location.line_num
        here = f"{place}, line {line}" if parents else f"{place}: {text.strip()}"
        if isinstance(statement, config_parser.IncludeStatement):
            _read_file(_find(statement.filename, folders, parents, here), folders, parents)
        elif isinstance(statement, config_parser.ImportStatement):
            _import(statement, here)
        elif isinstance(statement, config_parser.BlockDeclaration):
            _configurable(statement.selector, here)
        else:
            _bind(statement, here, override=not parents)


def _bind(statement: config_parser.BindingStatement, place: str, *, override: bool) -> None:
    scope, selector, parameter = statement.scope, statement.selector, statement.arg_name
    if not parameter:  # A macro: NAME = value.
        scope, selector, parameter = f"{scope}/{selector}" if scope else selector, MACRO, "value"
    found = _configurable(selector, place)
    known = parameter_names(found)
    if parameter not in known and "**" not in known:
        raise ConfigError(
            f"{short_name(found.selector)!r} has no parameter {parameter!r} ({place}). "
            f"{near(parameter, known)}Its parameters: {', '.join(sorted(known)) or 'none'}."
        )
    expected = expected_instead(found, parameter, statement.value)
    if expected:
        raise ConfigError(
            f"{short_name(found.selector)}.{parameter} is {statement.value!r}, expected {expected} "
            f"({place})."
        )
    key = (scope, found.selector, parameter)
    before = reachable_keys([key]) if key in bindings else set()
    try:
        gin.bind_parameter(key, statement.value)
    except ValueError as error:
        raise ConfigError(f"{error} ({place})") from error
    bindings.pop(key, None)
    bindings[key] = Binding(*key, place, override)
    replaced.update(before - reachable_keys([key]))
    replaced.discard(key)
    other = ALTERNATIVES.get(f"{short_name(found.selector)}.{parameter}")
    if other and statement.value is not None:
        rival = (scope, found.selector, other.rpartition(".")[2])
        if rival in bindings:
            gin.bind_parameter(rival, None)


def _import(statement: config_parser.ImportStatement, place: str) -> None:
    if statement.module.startswith("__gin__"):
        raise ConfigError(
            f"'{statement.format()}' is not supported ({place}). Register your functions with "
            "@gin.register and import their module instead."
        )
    try:
        importlib.import_module(statement.module)
    except ImportError as error:
        raise ConfigError(f"Cannot import {statement.module!r} ({place}): {error}") from error
    remember_import(statement)


def _configurable(selector: str, place: str) -> Any:
    try:
        found = registered(selector)
    except KeyError as error:  # Two modules registered it.
        raise ConfigError(f"{error.args[0]} ({place})") from error
    if found is None:
        raise ConfigError(f"Nothing is named {selector!r} ({place}). {near_names(selector)}")
    return found


def _explain(error: Exception, text: str, place: str) -> str:
    """Turn an error of gin's parser into one with the line and near matches."""
    message = str(error)
    number = re.search(r"In bindings string line (\d+)", message)
    line = getattr(error, "lineno", None) or (int(number.group(1)) if number else 1)
    reference = re.search(r"matching reference '@(?:[^']*/)?([^'()]+)", message)
    if reference:
        name = reference.group(1)
        message = f"Nothing is named {name!r}, to which '@{name}' refers. {near_names(name)}"
    elif isinstance(error, RecursionError):
        message = "Brackets are nested too deep."
    elif isinstance(error, tokenize.TokenError):
        message = "A bracket or a quote is not closed."
    elif "malformed node" in message or "Unable to parse value" in message:
        message = (
            "The value cannot be read; a text needs quotes (train.device = 'cpu'), the name of a "
            "part an @ before it (train.optimizer = @Adam)."
        )
    else:
        message = re.sub(r"\s*\(line \d+\)$", "", message)
    rows = text.splitlines() or [""]
    return f"{message.strip()} ({place}, line {line})\n    {rows[min(line, len(rows)) - 1].strip()}"


def _check_macros() -> None:
    """Raise for a %NAME that nothing defines."""
    macros = macro_names()
    for key, binding in bindings.items():
        for reference in references(key):
            name = "/".join(reference.scopes)
            if reference.configurable.selector == MACRO and name not in macros:
                raise ConfigError(
                    f"%{name} is not defined ({binding.place}). {near(name, macros)}"
                    f"Defined are: {', '.join(sorted(macros)) or 'none'}."
                )
