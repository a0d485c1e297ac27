"""What gin knows: names in its registry, bindings and their use, and a state set aside.

The only module that uses what gin has no public name for.
"""

import contextlib
import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import gin
from gin import config_parser

MACRO = "gin.macro"
# Levels of parts within parts; those of recipes are five.
_DEEPEST = 60
# Classes of Keras at which a chain of constructors with **kwargs ends.
_ROOTS = ("Layer", "_BaseOptimizer")
# Beginnings of names that recipes refer to.
_OURS = ("ssd_centernet.", "keras.", "gin.")
Key = tuple[str, str, str]  # Scope, selector, parameter.

_gin = gin.config
_REFERENCE = _gin.ConfigurableReference


class ConfigError(ValueError):
    """A recipe or a --gin_params binding that cannot be obeyed."""


class Binding(NamedTuple):
    """One assignment as written: `scope/selector.parameter = ...` and where."""

    scope: str
    selector: str
    parameter: str
    place: str
    override: bool

    @property
    def name(self) -> str:
        if self.selector == MACRO:
            return self.scope
        prefix = f"{self.scope}/" if self.scope else ""
        return f"{prefix}{short_name(self.selector)}.{self.parameter}"


# What `parse` read last: (scope, selector, parameter) -> where it was set, the last one winning.
bindings: dict[tuple[str, str, str], Binding] = {}
# Settings of parts that a later line replaced: it is fine that nothing asks for them.
replaced: set[Key] = set()


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Begin a block with an empty configuration, and restore the earlier one after it.

    What a caller has bound with gin himself, parsed, locked or recorded is as it was, also where
    the block raises. Scopes that are open around the block do not reach into it, nor do hooks that
    the caller has registered for the end of parsing. Names that are registered in it stay; those
    of the caller's own functions that are called like a part of the library are hidden in it.
    """
    tables = (_gin._CONFIG, _gin._OPERATIVE_CONFIG, _gin._SINGLETONS, bindings)
    # Bindings are dictionaries in a dictionary: the inner ones would change with the caller's.
    saved = [
        {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
        for table in tables
    ]
    imports, gone, hooks = set(_gin._IMPORTS), set(replaced), list(_gin._FINALIZE_HOOKS)
    locked = gin.config_is_locked()
    hidden = {name: _gin._REGISTRY.pop(name) for name in _clashing_names()}
    _gin._FINALIZE_HOOKS[:] = [hook for hook in hooks if hook.__module__ == _gin.__name__]
    try:
        _gin._set_config_is_locked(False)
        for table in (*tables, _gin._IMPORTS, replaced):
            table.clear()
        with gin.config_scope(None):
            yield
    finally:
        for table, values in zip(tables, saved, strict=True):
            table.clear()
            table.update(values)
        for names, values in ((_gin._IMPORTS, imports), (replaced, gone)):
            names.clear()
            names.update(values)
        for name, configurable in hidden.items():
            _gin._REGISTRY[name] = configurable
        _gin._FINALIZE_HOOKS[:] = hooks
        _gin._set_config_is_locked(locked)


def _clashing_names() -> list[str]:
    """Return foreign names that end like one of the library's, such as '__main__.train'."""
    names = [name for name, _ in _gin._REGISTRY.items()]
    ours = {name.rpartition(".")[2] for name in names if name.startswith(_OURS)}
    return [n for n in names if not n.startswith(_OURS) and n.rpartition(".")[2] in ours]


def operative() -> dict[tuple[str, str], dict[str, Any]]:
    """Return a copy of gin's record of calls: (scope, selector) -> parameters taken."""
    with _gin._OPERATIVE_CONFIG_LOCK:
        return {key: dict(values) for key, values in _gin._OPERATIVE_CONFIG.items()}


def note_taken(calls: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Add calls, as `operative` returns them, to gin's record."""
    with _gin._OPERATIVE_CONFIG_LOCK:
        _gin._OPERATIVE_CONFIG.update(calls)


def is_given(name: str) -> bool:
    """Tell whether a flag or `gin_params` set a parameter, such as 'train.eval_split'."""
    return any(binding.name == name and binding.override for binding in bindings.values())


def operative_config(settled: Mapping[str, Any] | None = None) -> str:
    """Return the settings of this run as gin text that `parse` reads back.

    Args:
        settled: parameter -> what became of its value, such as {'train.eval_split': 'birds_val'};
            of parts that were called.

    Returns:
        Every parameter of every configurable that was called, with defaults, and after them
        the bindings that no call has asked for so far (such as those of the evaluation).
    """
    merged = operative()
    for name, value in (settled or {}).items():
        part, _, parameter = name.rpartition(".")
        for (scope, selector), values in merged.items():
            if not scope and short_name(selector) == part:
                values[parameter] = value
    for key, values in _gin._CONFIG.items():
        for parameter, value in values.items():
            if (*key, parameter) not in replaced:
                merged.setdefault(key, {}).setdefault(parameter, value)
    return _gin._config_str(merged, max_line_length=100)


def used_keys() -> set[Key]:
    """Return the keys of the bindings that some call took or could have taken."""
    calls: dict[tuple[str, str], list[str]] = {}
    for (scope, selector), values in operative().items():
        for parameter in values:
            calls.setdefault((selector, parameter), []).append(scope)
    return {
        key for key in bindings if any(_covers(key[0], scope) for scope in calls.get(key[1:], ()))
    }


def _covers(outer: str, scope: str) -> bool:
    """Tell whether a binding in scope `outer` reaches a call in `scope`."""
    return not outer or scope == outer or scope.startswith(f"{outer}/")


def reachable_keys(keys: Iterable[Key]) -> set[Key]:
    """Return the bindings of everything that the values of some bindings refer to."""
    found: set[Key] = set()
    queue = list(keys)
    while queue:
        for reference in references(queue.pop()):
            scope, selector = reference.config_key
            for key in bindings:
                same = key[1] == selector and (not scope or _covers(key[0], scope))
                if same and key not in found:
                    found.add(key)
                    queue.append(key)
    return found


def references(key: Key) -> list[Any]:
    """Return gin's references (@name, %NAME) in the value of a binding."""
    scope, selector, parameter = key
    return list(_gin.iterate_references([_gin._CONFIG[scope, selector][parameter]]))


def is_reference(value: Any) -> bool:
    """Tell whether a value is gin's reference to a name: @name, @name() or %NAME."""
    return isinstance(value, _REFERENCE)


def statements(text: str) -> Iterator[Any]:
    """Return a parser of gin text: statements of `gin.config_parser`, one after the other."""
    return config_parser.ConfigParser(text, _gin.ParserDelegate())


def remember_import(statement: config_parser.ImportStatement) -> None:
    """Let saved settings begin with an import, so that its names are known again."""
    _gin._IMPORTS.add(statement)


def macro_names() -> list[str]:
    """Return the names of the macros that are defined."""
    return [scope for scope, selector in _gin._CONFIG if selector == MACRO]


def literal(key: Key) -> tuple[Any, Key]:
    """Return the value of a binding, that of a macro in its place, and the key that has it."""
    seen = set()
    while key not in seen:
        seen.add(key)
        scope, selector, parameter = key
        value = _gin._CONFIG[scope, selector][parameter]
        if not (isinstance(value, _REFERENCE) and value.configurable.selector == MACRO):
            break
        following = ("/".join(value.scopes), MACRO, "value")
        if following not in bindings:
            break
        key = following
    return value, key


def check_ends() -> None:
    """Refuse settings whose building would never end, such as SSD.neck = @SSD().

    Raises:
        ConfigError: names the binding and its place.
    """
    done: set[tuple[str, str]] = set()

    def walk(key: Key, scope: str, above: tuple[tuple[str, str], ...]) -> None:
        for one in references(key):
            if not one.evaluate:
                continue
            inner, selector = one.config_key
            state = (inner or scope, selector)
            if state in above or len(above) > _DEEPEST:
                binding = bindings[key]
                raise ConfigError(
                    f"{binding.name} = {one} would be built inside of itself without an end "
                    f"({binding.place}). Name another part, or None."
                    if state in above
                    else f"{binding.name} is nested too deep ({binding.place})."
                )
            if state not in done:
                done.add(state)
                for following in _nearest(state):
                    walk(following, state[0], (*above, state))

    for key in bindings:
        walk(key, key[0], ((key[0], key[1]),) if key[1] != MACRO else ())


def _nearest(state: tuple[str, str]) -> list[Key]:
    """Return the bindings that a call takes: of each parameter that of the innermost scope."""
    scope, selector = state
    keys = [key for key in bindings if key[1] == selector and _covers(key[0], scope)]
    return list({key[2]: key for key in sorted(keys, key=lambda key: len(key[0]))}.values())


def construction(configurable: Any) -> Any:
    """Return the function whose parameters gin sets when it builds something."""
    function = configurable.wrapped
    return _gin._find_class_construction_fn(function) if inspect.isclass(function) else function


def registered(selector: str) -> Any | None:
    """Return gin's entry of a name, None where nothing has it.

    Raises:
        KeyError: two modules have registered it.
    """
    return _gin._REGISTRY.get_match(selector)


def short_name(selector: str) -> str:
    """Return the shortest name that gin resolves to a selector."""
    return _gin._REGISTRY.minimal_selector(selector)


def place_of(name: str, value: Any) -> str:
    """Return where a parameter was set to a value, such as 'mine.gin, line 3'; '' if nowhere.

    Args:
        name: such as 'train.batch_size'.
        value: what it has now: one that was set in Python has no place.
    """
    selector, _, parameter = name.rpartition(".")
    for (scope, long_name, own), binding in bindings.items():
        if own == parameter and not scope and short_name(long_name) == selector:
            bound = gin.query_parameter(name)
            is_bound = bound is value or bound == value or isinstance(bound, _REFERENCE)
            return binding.place if is_bound else ""
    return ""


def parameter_names(configurable: Any) -> set[str]:
    """Return the parameters that can be bound; '**' stands for any other name."""
    function = configurable.wrapped
    if not inspect.isclass(function):
        return _named(function)
    names = _named(_gin._find_class_construction_fn(function))
    for base in function.__mro__[1:]:
        if "**" not in names:
            break
        if "__init__" in vars(base) and base is not object:
            names |= _named(base.__init__)
            if "keras" in base.__module__.split(".")[0] and base.__name__ in _ROOTS:
                # It takes what older versions had under any name, and refuses the rest itself.
                names.discard("**")
    return names


def _named(function: Any) -> set[str]:
    """Return the parameters of one function, '**' among them if it takes any name."""
    names = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            names.add("**")
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            names.add(parameter.name)
    return names - {"self", "cls"}


def near_names(selector: str) -> str:
    """Return a sentence with the registered names close to an unknown one, or all."""
    names = [short_name(name) for name, _ in _gin._REGISTRY.items() if not name.startswith("gin.")]
    return near(selector, names).strip() or f"Known names: {', '.join(sorted(names)) or 'none'}."


def near(name: str, names: Iterable[str]) -> str:
    """Return 'Did you mean ...? ' or nothing."""
    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(by_lower[n] for n in close)}? " if close else ""
