"""Read gin recipes strictly.

`parse` replaces the whole configuration. A name or a parameter that does not exist is an error
with near matches (`usage.assert_all_used` turns a setting that nothing asked for into one as well).
Files are walked here, not by gin's own loader, so that every binding keeps the place it came from
and includes are searched beside the including file and among the installed recipes.
"""

import dataclasses
import importlib
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from absl import logging
from gin import config_parser

from ssd_centernet import __version__
from ssd_centernet.config import finding, trust
from ssd_centernet.config.gin_state import (
    MACRO,
    Binding,
    ConfigError,
    Key,
    bindings,
    check_ends,
    construction,
    literal,
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
)
from ssd_centernet.config.kinds import unfit
from ssd_centernet.config.text import PARSE_ERRORS, explain
from ssd_centernet.files import read_text, write_atomically

# Modules whose import registers the names that recipes may use.
MODULES: tuple[str, ...] = (
    "ssd_centernet.building",
    "ssd_centernet.data.augment.centernet",
    "ssd_centernet.data.augment.joining",
    "ssd_centernet.data.augment.on_device",
    "ssd_centernet.data.augment.photometric",
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
    "ssd_centernet.layers.assigners",
    "ssd_centernet.layers.criteria",
    "ssd_centernet.layers.ttf_criterion",
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
    "ssd_centernet.models.quantized",
    "ssd_centernet.models.ssd",
    "ssd_centernet.runtime.ascend",
    "ssd_centernet.training.loss_scale",
    "ssd_centernet.training.optimizers",
    "ssd_centernet.training.schedules",
    "ssd_centernet.training.teacher",
    "ssd_centernet.training.warmup_cosine",
    "ssd_centernet.recipe",
)

# What was said of files that are read in place of others.
_SAID: set[str] = set()
# Two ways to say one thing: the one that is set last counts, so that a flag or a file of one's own
# needs not know which of them a recipe uses.
ALTERNATIVES: dict[str, str] = {"train.steps": "train.epochs", "train.epochs": "train.steps"}


def register_all() -> None:
    """Import every module that registers names for recipes, also where gin is locked."""
    with gin.unlock_config():
        for name in MODULES:
            importlib.import_module(name)


def parse(
    gin_files: Sequence[str | os.PathLike[str]] | None = None,
    gin_params: Sequence[str] | None = None,
    *,
    search_path: Sequence[str | Path] = (),
    flag_params: Sequence[str] | None = None,
    allow_import: Sequence[str] | None = None,
) -> None:
    """Replace the configuration by gin files and bindings, strictly.

    Files of a run (its `config.gin` and what lies beside it) are data: they import nothing but
    modules of this library and those of `allow_import`, include nothing but installed recipes, and
    name nothing but parts of these. Other files, and bindings, are code of whoever gives them.

    Args:
        gin_files: recipes in the order in which they are read (see `finding.find_recipe`); a later
            binding replaces an earlier one.
        gin_params: bindings such as 'train.batch_size = 8', read after the files.
        search_path: more folders to look for files and includes in.
        flag_params: bindings made from command-line flags, read between the files and
            `gin_params`. A name that the library does not know is an error in them as well.
        allow_import: modules that files of a run may import and name, with those below them.

    Raises:
        FileNotFoundError: a file does not exist.
        ConfigError: bad syntax, an unknown name, parameter or macro; the message gives the place
            and near matches.
    """
    register_all()
    clear()
    folders = (Path(), *map(Path, search_path), finding.recipe_directory())
    reader = _Reader(folders, tuple(allow_import or ()))
    try:
        for name in gin_files or ():
            reader.read_file(_found(os.path.expanduser(os.fspath(name)), folders))
        for source, params in (("a flag", flag_params), ("--gin_params", gin_params)):
            for text in params or ():
                reader.read_statements(text, place=source)
        _check_macros()
        check_ends()
        _check_kinds()
        gin.finalize()
    except Exception:
        clear()
        raise


def _found(name: str, folders: Sequence[Path]) -> Path:
    """Find a file, and say once if it stands before an installed recipe."""
    path = finding.find(name, folders)
    if (said := finding.describe_shadow(name, path)) and said not in _SAID:
        _SAID.add(said)
        logging.warning(said)
    return path


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


def save_operative(path: str | os.PathLike[str], settled: Mapping[str, Any] | None = None) -> None:
    """Write `operative_config` to a file, atomically.

    Args:
        path: the file; its folder is made when it is missing.
        settled: as there.
    """
    settings = operative_config(settled)
    write_atomically(path, f"# Settings of a run of ssd_centernet {__version__}.\n\n{settings}")


# Reading ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Read files and what they include.

    Attributes:
        folders: where files are looked for.
        allowed: modules that files of a run may import.
        parents: the files that include this one, the outermost first, and itself.
        saved: whether what is read belongs to a run.
    """

    folders: tuple[Path, ...]
    allowed: tuple[str, ...]
    parents: tuple[Path, ...] = ()
    saved: bool = False

    def read_file(self, path: Path) -> None:
        resolved = path.resolve()
        inside = dataclasses.replace(
            self,
            folders=(resolved.parent, *self.folders),
            parents=(*self.parents, resolved),
            saved=self.saved or trust.is_saved(path),
        )
        if inside.saved:
            trust.check_size(resolved)
        text = read_text(resolved)
        if inside.saved:
            trust.check_imports(text, str(resolved), self.allowed)
        inside.read_statements(text, place=str(resolved))

    def read_statements(self, text: str, *, place: str) -> None:
        try:
            parser = statements(text)
        except PARSE_ERRORS as error:
            raise ConfigError(explain(error, text, place)) from error
        while True:
            try:
                statement = next(parser, None)
            except PARSE_ERRORS as error:
                raise ConfigError(explain(error, text, place)) from error
            if statement is None:
                return
            line = statement.location.line_num
            self._obey(
                statement, f"{place}, line {line}" if self.parents else f"{place}: {text.strip()}"
            )

    def _obey(self, statement: Any, place: str) -> None:
        if isinstance(statement, config_parser.IncludeStatement):
            # Of a run: installed recipes alone, as a path could lead to any file.
            folders = (finding.recipe_directory(),) if self.saved else self.folders
            name = Path(statement.filename).name if self.saved else statement.filename
            self.read_file(finding.find(name, folders, self.parents, place))
        elif isinstance(statement, config_parser.ImportStatement):
            if self.saved:
                trust.check_import(statement, place, self.allowed)
            _import(statement, place)
        elif isinstance(statement, config_parser.BlockDeclaration):
            _configurable(statement.selector, place)
        else:
            key, found = _key_of(statement, place)
            if self.saved:
                trust.check_binding(key[1], statement.value, place, self.allowed)
            _bind(key, found, statement.value, place, override=not self.parents)


def _key_of(statement: config_parser.BindingStatement, place: str) -> tuple[Key, Any]:
    """Return which parameter a statement sets, and gin's entry of what takes it."""
    scope, selector, parameter = statement.scope, statement.selector, statement.arg_name
    if not parameter:  # A macro: NAME = value.
        scope, selector, parameter = f"{scope}/{selector}" if scope else selector, MACRO, "value"
    found = _configurable(selector, place)
    return (scope, found.selector, parameter), found


def _bind(key: Key, found: Any, value: Any, place: str, *, override: bool) -> None:
    scope, _, parameter = key
    known = parameter_names(found)
    if parameter not in known and "**" not in known:
        raise ConfigError(
            f"{short_name(found.selector)!r} has no parameter {parameter!r} ({place}). "
            f"{near(parameter, known)}Its parameters: {', '.join(sorted(known)) or 'none'}."
        )
    before = reachable_keys([key]) if key in bindings else set()
    try:
        gin.bind_parameter(key, value)
    except ValueError as error:
        raise ConfigError(f"{error} ({place})") from error
    bindings.pop(key, None)
    bindings[key] = Binding(*key, place, override)
    replaced.update(before - reachable_keys([key]))
    replaced.discard(key)
    other = ALTERNATIVES.get(f"{short_name(found.selector)}.{parameter}")
    if other and value is not None:
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
    except Exception as error:  # Whatever a module of the user does when it is imported.
        told = f"{type(error).__name__}: {error}"
        if not isinstance(error, SyntaxError):  # Which says its place.
            at = traceback.extract_tb(error.__traceback__)[-1]
            told += f" ({at.filename}, line {at.lineno})"
        raise ConfigError(f"Cannot import {statement.module!r} ({place}): {told}") from error
    remember_import(statement)


def _configurable(selector: str, place: str) -> Any:
    try:
        found = registered(selector)
    except KeyError as error:  # Two modules registered it.
        raise ConfigError(f"{error.args[0]} ({place})") from error
    if found is None:
        raise ConfigError(f"Nothing is named {selector!r} ({place}). {near_names(selector)}")
    return found


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


def _check_kinds() -> None:
    """Raise for a value of another kind than its parameter takes, with the place of the value."""
    for key, binding in bindings.items():
        if binding.selector == MACRO:
            continue
        value, source = literal(key)
        expected = unfit(construction(registered(binding.selector)), binding.parameter, value)
        if expected:
            through = f" through %{bindings[source].name}" if source != key else ""
            raise ConfigError(
                f"{binding.name} is {value!r:.200}{through}, expected {expected} "
                f"({bindings[source].place})."
            )
