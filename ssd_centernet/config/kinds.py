"""Which kind of value a parameter takes, by its annotation: a part, a number, so many numbers."""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import re
import types
import typing
from typing import Any

_NUMBERS = {int: numbers.Integral, float: numbers.Real}
_NO_TEXT = {
    "int": "a whole number without quotes",
    "float": "a number without quotes",
    "bool": "True or False without quotes",
}
_LITERALS = (str, bytes, bool, numbers.Number, tuple, list, dict)


def unfit(function: Any, parameter: str, value: Any) -> str | None:
    """Say what a parameter takes, where a literal of another kind was set.

    Nothing is said of annotations that cannot be read, and of values that gin has yet to build.

    Args:
        function: what takes the parameter.
        parameter: its name.
        value: a literal of gin: a number, text, tuple, list, dictionary, True, False or None.

    Returns:
        Words after 'expected', or None where the value may be right.
    """
    found = inspect.signature(function).parameters.get(parameter)
    if found is None or not isinstance(value, _LITERALS):
        return None
    if found.default is not found.empty and type(found.default) is type(value):
        if found.default == value:
            return None
    if isinstance(value, str):
        return _instead_of_text(found.annotation)
    hint = found.annotation
    if isinstance(hint, str):
        try:
            hint = eval(hint, getattr(function, "__globals__", {}))
        except Exception:  # Of a name that only type checkers know, or no annotation at all.
            return None
    wanted = [_wanted(one, value) for one in _members(hint)]
    return " or ".join(dict.fromkeys(wanted)) or None if all(wanted) else None


def _instead_of_text(annotation: Any) -> str | None:
    """Say what a parameter takes that cannot use a text.

    A number in quotes would fail far from here, and a 'False' in quotes would be true.
    """
    name = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    # A setting of a recipe has what it may be beside its type: Annotated[int, COUNT].
    name = re.sub(r"^Annotated\[(.+?), .*\]$", r"\1", name)
    return _NO_TEXT.get(name.removesuffix(" | None"))


def _members(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is typing.Annotated:
        # Its own expectation says more, and is asked for where the settings are read.
        return []
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(hint) if one is not type(None)]
    return [hint]


def _wanted(hint: Any, value: Any) -> str | None:
    """Say what one annotation wants of a value that does not fit; None where it may fit."""
    if value is not None and not isinstance(value, _LITERALS):
        return None  # A name or a macro among the values of a tuple.
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    many = isinstance(value, tuple | list)
    if origin in _NUMBERS:
        single = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fits = single and (isinstance(value, _NUMBERS[origin]) or float(value).is_integer())
        return None if fits else "a whole number" if origin is int else "a number"
    if origin is bool:
        return None if isinstance(value, bool) else "True or False"
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if many and len(value) == len(inner):
            return next(filter(None, map(_wanted, inner, value)), None)
        return f"{len(inner)} values in brackets"
    if origin in (tuple, list, collections.abc.Sequence) and inner:
        if not many:
            return "values in brackets, such as (1, 2)"
        return next(filter(None, (_wanted(inner[0], one) for one in value)), None)
    if origin is collections.abc.Callable or _is_part(origin):
        return "a part of the library, such as @Name or @Name()"
    return None


def _is_part(kind: Any) -> bool:
    return inspect.isclass(kind) and any(base.__name__ == "Layer" for base in kind.__mro__)
