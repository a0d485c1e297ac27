"""Options of other programs: what each takes, and a command line read by them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

_TRUE, _FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


class Option(NamedTuple):
    """An option of another program.

    Attributes:
        name: without dashes, with underscores.
        kind: bool, int, float, str, or list for words up to the next option.
        short: one-letter form.
        default: the program's own value, where it matters here.
        nothing: why it changes nothing here; such a value is told.
        refused: what to do instead of any value but the default.
    """

    name: str
    kind: type = str
    short: str = ""
    default: Any = None
    nothing: str = ""
    refused: str = ""


class Given:
    """The options that a command line gives, and the words that belong to none."""

    def __init__(self, program: str, options: Sequence[Option], words: Sequence[str]):
        """Read a command line.

        Args:
            program: name for messages.
            options: of the program.
            words: after its name.

        Raises:
            flags.Error: an option that the program does not have, or a value of another kind.
        """
        self.program = program
        self._options = {option.name: option for option in options}
        self._shorts = {option.short: option.name for option in options if option.short}
        self.values: dict[str, Any] = {}
        self.positional: list[str] = []
        words = list(words)
        while words:
            word = words.pop(0)
            if re.match(r"--?[A-Za-z]", word):
                self._read(word, words)
            elif word != "--":
                self.positional.append(word)

    def get(self, name: str) -> Any:
        """Return the value that was given, or the program's own."""
        return self.values.get(name, self._options[name].default)

    def __contains__(self, name: str) -> bool:
        """Tell whether an option was given."""
        return name in self.values

    def notes(self) -> list[str]:
        """Say which of the given options change nothing here, and why.

        Raises:
            flags.Error: an option that cannot be taken over has another value than its default.
        """
        told = []
        for name, value in self.values.items():
            option = self._options[name]
            if option.refused and value != option.default:
                raise flags.Error(
                    f"--{name}={value} of {self.program} cannot be taken over: {option.refused}."
                )
            if option.nothing or option.refused:
                why = option.nothing or "it is what happens anyway"
                told.append(f"--{name}={_shown(value)} changes nothing: {why}")
        return told

    def flags_of(self, *names: str) -> list[str]:
        """Write options that were given as flags of the same names."""
        return [as_flag(name, self.values[name]) for name in names if name in self.values]

    def _read(self, word: str, rest: list[str]) -> None:
        name, equals, text = word.lstrip("-").partition("=")
        option = self._found(word, name)
        if option is None:  # As in -b128.
            option, text, equals = self._options[self._shorts[name[0]]], name[1:], "="
        if option.kind is bool:
            negative = option.name not in (name.replace("-", "_"), self._shorts.get(name))
            value = _boolean(word, text) if equals else True
            self.values[option.name] = value is not negative
        elif option.kind is list:
            words = [text] if equals else []
            while rest and not re.match(r"--?[A-Za-z]", rest[0]):
                words.append(rest.pop(0))
            self.values[option.name] = words
        else:
            if not equals:
                if not rest:
                    raise flags.Error(f"{word} of {self.program} needs a value.")
                text = rest.pop(0)
            try:
                self.values[option.name] = option.kind(text)
            except ValueError as error:
                kind = {"int": "a whole number", "float": "a number"}[option.kind.__name__]
                raise flags.Error(
                    f"--{option.name}={text} of {self.program}: expected {kind}."
                ) from error

    def _found(self, word: str, name: str) -> Option | None:
        """Return the option of a word; None for a one-letter form with its value behind it."""
        plain = self._shorts.get(name, name).replace("-", "_")
        if plain in self._options:
            return self._options[plain]
        negated = self._options.get(plain.removeprefix("no"))
        if plain.startswith("no") and negated is not None and negated.kind is bool:
            return negated
        if not word.startswith("--") and name[0] in self._shorts and name[1:]:
            return None
        near = difflib.get_close_matches(plain, self._options, n=2)
        hint = f"Did you mean {' or '.join(f'--{one}' for one in near)}?"
        if not near:
            hint = (
                f"Its options: `ssd_centernet compat -- {self.program} --help`. A flag of this "
                f"library stands before the `--`: --add={word}."
            )
        raise flags.Error(f"{self.program} has no option {word.split('=')[0]}. {hint}")


def as_flag(name: str, value: Any) -> str:
    """Write a flag of this library."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _boolean(word: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise flags.Error(f"{word}: expected True or False.")
