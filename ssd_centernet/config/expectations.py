"""What a setting may be: checked where settings are read, and told to somebody who set another."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssd_centernet.config.gin_state import place_of

# As `training.length.to_steps` reads it.
_DURATION = re.compile(r"\s*(\d+(\.\d*)?|\.\d+)\s*(steps?|epochs?)?\s*")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """Say which values a setting may have; written in its annotation: `Annotated[int, COUNT]`.

    Attributes:
        accepts: whether a value may be set.
        expected: the same in words, for an error.
    """

    accepts: Callable[[Any], bool]
    expected: str


def check(settings: Any, *, prefix: str) -> None:
    """Refuse a setting that is of another kind than its annotation says.

    Args:
        settings: a dataclass whose annotations hold an `Expectation` where there is one to check;
            one whose type allows None accepts None too.
        prefix: of the settings' names in gin, such as 'train'.

    Raises:
        ValueError: names the setting, its value and what was expected.
    """
    for name, hint in _hints(type(settings)).items():
        value = getattr(settings, name)
        for expectation in getattr(hint, "__metadata__", ()):
            optional = type(None) in typing.get_args(hint.__origin__)
            if not (optional and value is None) and not expectation.accepts(value):
                place = place_of(f"{prefix}.{name}", value)
                raise ValueError(
                    f"{prefix}.{name} is {shown(value)}, expected {expectation.expected}"
                    f"{f' ({place})' if place else ''}. Set it in the recipe, or with "
                    f'--gin_params="{prefix}.{name} = ...".'
                )


@functools.lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def shown(value: Any) -> str:
    """Name a value as its user knows it: an object by its class, without an address.

    Args:
        value: of a setting.

    Returns:
        Words for an error message.
    """
    if inspect.isclass(value):
        return f"the class {value.__name__} (without brackets)"
    if _is_function(value):
        return f"the function {getattr(value, '__name__', 'without a name')}"
    plain = (str, bytes, bool, numbers.Number, tuple, list, dict, os.PathLike, type(None))
    return repr(value) if isinstance(value, plain) else f"a {type(value).__name__} that is built"


def _is_function(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _are_patterns(value: Any) -> bool:
    items = value if isinstance(value, Sequence) else [None]
    return all(isinstance(item, str) for item in items)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return len(sides) == 2 and all(_is_integer(side) and side >= 1 for side in sides)


def _differ(sizes: Sequence[Sequence[int]]) -> bool:
    return len({tuple(size) for size in sizes}) == len(sizes)


def _is_step(value: Any) -> bool:
    return hasattr(value, "partners") and not inspect.isclass(value)


def constructor(example: str) -> Expectation:
    """Expect a class or function that has not been called, such as `@Adam`."""
    text = f"the name of a constructor without brackets, such as @{example}"
    return Expectation(lambda value: inspect.isclass(value) or _is_function(value), text)


COUNT = Expectation(lambda v: _is_integer(v) and v >= 1, "a whole number of 1 or more")
COUNT_OR_ZERO = Expectation(
    lambda v: _is_integer(v) and v >= 0, "a whole number of 0 or more, 0 for none"
)
SEED = Expectation(lambda v: _is_integer(v) and 0 <= v < 2**32, "a whole number in 0..2**32 - 1")
FACTOR = Expectation(lambda v: _is_number(v) and v >= 0, "a number of 0 or more without quotes")
BELOW_ONE = Expectation(
    lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1 without quotes"
)
ABOVE_ZERO = Expectation(lambda v: _is_number(v) and v > 0, "a number above 0 without quotes")
SWITCH = Expectation(lambda value: isinstance(value, bool), "True or False, without quotes")
TEXT = Expectation(
    lambda value: isinstance(value, str) and value.isprintable(), "a printable text in quotes"
)
PATH = Expectation(lambda v: isinstance(v, str | os.PathLike), "a path in quotes")
PATTERNS = Expectation(_are_patterns, "a regular expression in quotes, or a tuple of them")
SWITCH_OR_PATTERNS = Expectation(
    lambda value: isinstance(value, bool) or _are_patterns(value),
    "True, False, a regular expression in quotes, or a tuple of them",
)
FACTORS = Expectation(
    lambda v: (
        isinstance(v, Mapping)
        and all(isinstance(k, str) and _is_number(n) and 0 < n < math.inf for k, n in v.items())
    ),
    "a dict of regular expressions and numbers above 0, such as {'stem_': 0.1}",
)
WEIGHTS = Expectation(
    lambda v: isinstance(v, Sequence) and all(_is_number(one) and one >= 0 for one in v),
    "a tuple of numbers of 0 or more, such as (2.0, 1.0)",
)
IMAGE_SIZES = Expectation(
    lambda v: isinstance(v, Sequence) and len(v) > 0 and all(map(_is_size, v)) and _differ(v),
    "a tuple of different (height, width) in whole pixels, such as ((256, 256), (320, 320))",
)
DURATION = Expectation(
    lambda v: _DURATION.fullmatch(str(v)) is not None and (isinstance(v, str) or _is_integer(v)),
    "a number of steps or text such as '500 steps' or '2.5 epochs'",
)
CHAIN = Expectation(
    lambda value: callable(value) and not inspect.isclass(value),
    "None, or a chain with brackets after its name, such as @SSDAugment()",
)
PICTURE_STEPS = Expectation(
    lambda value: all(map(_is_step, value if isinstance(value, Sequence) else [value])),
    "None, a step with brackets after its name, such as @Mosaic(), or a tuple of steps",
)
TEACHER = Expectation(
    lambda value: hasattr(value, "temperature") and not inspect.isclass(value),
    "None, or @Teacher() with its brackets",
)
PROCESS_GROUP = Expectation(
    lambda value: isinstance(value, bool) or COUNT.accepts(value),
    "True, False, or the number of processes of a group",
)


def one_of(*choices: str) -> Expectation:
    """Expect one of some texts."""
    words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return Expectation(lambda value: value in choices, words)
