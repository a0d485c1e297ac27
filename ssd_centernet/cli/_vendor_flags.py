"""The flags under which the published systems know the settings of a training.

They are defined from the rows of `_vendor_table`. `rewrite` prepares a command line of theirs
(one-letter flags, dashes inside names), `resolve` turns what was given into flags of this library
and gin bindings. Two flags for one setting must agree.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from ssd_centernet.cli._flags import check_finite
from ssd_centernet.cli._vendor_table import (
    ALIASES,
    GIVEN,
    MODES,
    NOTHING,
    REPLACED,
    SAME,
    SYSTEMS,
    Alias,
    Replaced,
)

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
_SHORT = {row.short: row.name for row in (*SAME, *ALIASES) if row.short}
_SHORT_OF = {name: letter for letter, name in _SHORT.items()}
# The letter of a switch has no value.
_SWITCHES = ("use_fake_data",)
_REPLACED = {row.name: row for row in REPLACED}
# What `schedule.X` and `batches.X` of the table stand for: parameter of train, default, in words.
_PARTS = {
    "schedule": ("train.schedule", "ConstantRate", "learning-rate schedule"),
    "batches": ("train.batches", "training_batches", "input pipeline"),
}


class Statement(NamedTuple):
    """What a flag on the command line says: a setting, its value, and how the flag was written."""

    setting: str
    value: Any
    flag: str


def define_flags() -> None:
    """Define the accepted flags of the published systems."""
    for row in ALIASES:
        _DEFINE[row.kind](row.name, None, f"{row.help} {describe(row)}", module_name=__name__)


def describe(row: Alias) -> str:
    """Say in a few words what an accepted flag sets."""
    return f"Sets {_sets(row.sets)}" + (f", or {_sets(row.off)} when false." if row.off else ".")


def replacement(row: Replaced) -> str:
    """Say what to use instead of a flag that is not accepted."""
    by = row.by.removeprefix(NOTHING)
    return f"not needed: {by}" if row.by != by else f"not accepted, instead: {by}"


def _sets(settings: dict[str, Any]) -> str:
    parts = []
    for name, value in settings.items():
        named = name.replace("schedule.", "the schedule's ").replace("batches.", "the pipeline's ")
        shown = named if "." in name else f"--{name}"
        parts.append(shown if value is GIVEN or value == "{}" else f"{shown}={value}".format("N"))
    return " and ".join(parts)


def rewrite(arguments: Sequence[str]) -> list[str]:
    """Write a command line of the published systems in the form that absl reads.

    Args:
        arguments: flags after the command's name.

    Returns:
        The same with full names for one-letter flags, and underscores in names.

    Raises:
        flags.Error: a flag that is not accepted, which says what replaces it; or one that is given
            with its one-letter form and another value. Of one name the last value counts, as
            scripts have it.
    """
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    _check_short(arguments[:end])
    return [_rewritten(word) for word in arguments[:end]] + arguments[end:]


def _check_short(words: Sequence[str]) -> None:
    """Refuse a flag that is given by its name and by its letter, with different values."""
    given: dict[str, dict[str, Statement]] = {}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if not re.match(r"--?[A-Za-z]", word):
            continue
        written, equals, value = _parted(word).partition("=")
        name = written.lstrip("-").replace("-", "_")
        letter = not word.startswith("--")
        name = _SHORT.get(name, name) if letter else name
        if name in _SHORT.values() and name not in _SWITCHES:
            value = value if equals else following
            said = Statement(name, value, f"{written}{equals or ' '}{value}")
            given.setdefault(name, {})[_SHORT_OF[name] if letter else name] = said
    for name, forms in given.items():
        _refuse_different(name, list(forms.values()))


def _parted(word: str) -> str:
    """Write a letter and its number, -b4, as -b=4."""
    joined = re.fullmatch(r"-([A-Za-z])(\d.*)", word)
    return f"-{joined[1]}={joined[2]}" if joined and joined[1] in _SHORT else word


def _rewritten(word: str) -> str:
    # A lone dash and a negative number are values.
    if not re.match(r"--?[A-Za-z]", word):
        return word
    word = _parted(word)
    name, equals, value = word.lstrip("-").partition("=")
    if not word.startswith("--"):
        name = _SHORT.get(name, name)
    name = name.replace("-", "_")
    if name == "mode" and value in MODES:
        raise flags.Error(f"--mode={value} of {SYSTEMS['H']} is, here: {MODES[value]}.")
    row = _REPLACED.get(name)
    if row is not None:
        systems = ", ".join(SYSTEMS[letter] for letter in row.systems)
        raise flags.Error(f"--{name} of {systems} is {replacement(row)}. Leave it out.")
    return f"--{name}{equals}{value}"


def resolve(values: flags.FlagValues) -> list[Statement]:
    """Set the flags of this library that other systems' flags speak of.

    Args:
        values: the parsed command line.

    Returns:
        The statements that no flag of this library has, about gin parameters; `bindings` writes
        them as such.

    Raises:
        flags.IllegalFlagValueError: two flags give one setting different values.
    """
    said: dict[str, list[Statement]] = {}
    weak = []
    for row in ALIASES:
        value = values[row.name].value
        if value is None or value == row.unset:
            continue
        shown = f"--{row.name}" + ("" if value is True else f"={value}")
        chosen = row.sets if row.kind is not bool or value else row.off
        for setting, template in chosen.items():
            statement = Statement(setting, _filled(template, value), shown)
            if row.weak:
                weak.append(statement)
            else:
                said.setdefault(setting, []).append(statement)
    for setting, statements in said.items():
        _check_agreement(values, setting, statements)
    for statement in weak:
        if statement.setting not in said and not _is_given(values, statement.setting):
            said[statement.setting] = [statement]
    firsts = [statements[0] for statements in said.values()]
    for statement in firsts:
        if statement.setting in values:
            # As if it had been typed, so that it is checked like what is typed.
            values[statement.setting].parse(statement.value)
            values[statement.setting].using_default_value = False
    return [statement for statement in firsts if statement.setting not in values]


def _filled(template: Any, value: Any) -> Any:
    if template is GIVEN:
        return value
    if not isinstance(template, str):
        return template
    times, star, rest = template.partition(" * ")
    return float(times) * value if star and rest == "{}" else template.format(value)


def _is_given(values: flags.FlagValues, name: str) -> bool:
    return name in values and bool(values[name].present)


def _check_agreement(
    values: flags.FlagValues, setting: str, statements: Sequence[Statement]
) -> None:
    statements = list(statements)
    if _is_given(values, setting):
        own = values[setting].value
        statements.append(Statement(setting, own, f"--{setting}={own}"))
    # Only flags have a dash in front of their name; the others are gin parameters.
    _refuse_different(setting, statements, dash=setting in values)


def _refuse_different(setting: str, statements: Sequence[Statement], *, dash: bool = True) -> None:
    first = statements[0]
    for other in statements[1:]:
        if not _are_equal(other.value, first.value):
            name = f"--{setting}" if dash else setting
            raise flags.IllegalFlagValueError(
                f"{first.flag} and {other.flag} set the same thing ({name}) to {first.value} and "
                f"{other.value}: give one of them."
            )


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return str(one) == str(other)


def bindings(statements: Sequence[Statement], *, data: str | None = None) -> list[str]:
    """Write statements about gin parameters as bindings; the recipe must be parsed.

    Args:
        statements: of `resolve`.
        data: 'static' or 'fake' where these batches take the place of the recipe's.

    Returns:
        Bindings for `config.parse(flag_params=...)`.

    Raises:
        flags.IllegalFlagValueError: the recipe's part has no such setting; names the flag.
    """
    from ssd_centernet import config
    from ssd_centernet.config import gin_state

    written = []
    for statement in statements:
        if isinstance(statement.value, float):
            check_finite(statement.flag, statement.value)
        part, _, parameter = statement.setting.partition(".")
        if part in _PARTS:
            bound, default, words = _PARTS[part]
            part, known = config.bound_part(bound, default=default)
            if all(one.name != bound for one in gin_state.bindings.values()):
                # What a recipe takes by default is not asked for its settings.
                written.append(f"{bound} = @{default}")
            if parameter == "base_learning_rate" and parameter not in known:
                parameter = "learning_rate"  # A rate without a schedule around it.
            if parameter not in known:
                raise flags.IllegalFlagValueError(
                    f"{statement.flag} has no effect on this recipe: it sets {parameter!r}, and "
                    f"the {words}, {part}, has no such setting (it has "
                    f"{', '.join(sorted(known))}). Leave it out, or choose another recipe."
                )
        written.append(f"{part}.{parameter} = {statement.value!r}")
    if data == "static":
        written.append("train.batches = @static_batches")
    elif data == "fake":
        name, _ = config.bound_part("train.batches", default="training_batches")
        # In this order, so that the options of the recipe's batches stay in use.
        written += [f"fake_batches.batches = @{name}", "train.batches = @fake_batches"]
    return written
