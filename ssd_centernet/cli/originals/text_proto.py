"""Protocol buffers as text, read without a schema: the form of `*.config` files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

# Field -> its values in the order of the file; a value is a message, a text, a number or a bool.
Message = dict[str, list[Any]]

_TOKEN = re.compile(
    r"(?P<space>\s+|\#[^\n]*)"
    r"|(?P<text>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?f?(?![\w.]))"
    r"|(?P<name>[A-Za-z_][\w.]*)"
    r"|(?P<sign>[{}<>\[\]:,;])"
)
_CLOSING = {"{": "}", "<": ">"}
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


class _Reader:
    """Read one file token by token."""

    def __init__(self, text: str, source: str):
        self._source = source
        self._tokens = list(self._split(text))
        self._next = 0

    def _split(self, text: str) -> Iterator[tuple[str, str, int]]:
        position, line = 0, 1
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise ValueError(
                    f"{self._source}, line {line}: {text[position : position + 20]!r} cannot be "
                    "read: expected `name: value` or `name { ... }`, as protocol buffers are "
                    "written as text."
                )
            if found.lastgroup != "space":
                yield found.lastgroup, found[0], line
            line += found[0].count("\n")
            position = found.end()
        yield "end", "the end of the file", line

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _peek(self) -> str:
        return self._tokens[self._next][1]

    def _fail(self, token: tuple[str, str, int], expected: str) -> None:
        raise ValueError(
            f"{self._source}, line {token[2]}: got {token[1]!r}, expected {expected}. Is the file "
            "cut short, or a bracket missing?"
        )

    def message(self, closing: str | None = None) -> Message:
        """Read fields until the bracket that closes the message, or the end of the file."""
        fields: Message = {}
        while True:
            token = self._take()
            if token[1] == closing and token[0] == "sign":
                return fields
            if token[0] == "end" and closing is None:
                return fields
            if token[1] in (",", ";"):  # They may stand between fields.
                continue
            if token[0] != "name":
                self._fail(token, "the name of a field" + (f" or {closing!r}" if closing else ""))
            fields.setdefault(token[1], []).extend(self._values())

    def _values(self) -> list[Any]:
        if self._peek() == ":":
            self._take()
        elif self._peek() not in _CLOSING:
            self._fail(self._take(), "`:` or `{`")
        if self._peek() != "[":
            return [self._value()]
        self._take()
        values = []
        while self._peek() != "]":
            values.append(self._value())
            if self._peek() == ",":
                self._take()
        self._take()
        return values

    def _value(self) -> Any:
        token = kind, text, _ = self._take()
        if kind == "sign" and text in _CLOSING:
            return self.message(_CLOSING[text])
        if kind == "number":
            text = text.rstrip("f")
            return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
        if kind == "text":
            whole = ast.literal_eval(text)
            while self._tokens[self._next][0] == "text":  # Neighbours are one text.
                whole += ast.literal_eval(self._take()[1])
            return whole
        if kind == "name":
            return _BOOLEANS.get(text, text)  # Else the name of an enumeration's value.
        return self._fail(token, "a value")


def read_text_proto(text: str, source: str) -> Message:
    """Read a message.

    Args:
        text: the message's fields.
        source: where it is from, for messages.

    Returns:
        Field -> values, messages inside as dicts of the same form.

    Raises:
        ValueError: the text has another form; names the line.
    """
    return _Reader(text, source).message()


def merge(message: Message, other: Message) -> None:
    """Set in a message what another one says: messages field by field, values by replacement."""
    for name, values in other.items():
        own = message.get(name)
        single = own is not None and len(own) == len(values) == 1
        if single and isinstance(own[0], dict) and isinstance(values[0], dict):
            merge(own[0], values[0])
        else:
            message[name] = list(values)


def leaves(message: Message, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield (path, values) of all fields that are no messages, such as ('model.ssd.a', [1]).

    A message without a field is told as True, and one of several of a name has its number in the
    path.
    """
    for name, values in message.items():
        path = f"{prefix}{name}"
        messages = [value for value in values if isinstance(value, dict)]
        for number, inner in enumerate(messages):
            here = path if len(messages) == 1 else f"{path}[{number}]"
            if inner:
                yield from leaves(inner, f"{here}.")
            else:
                yield here, [True]
        others = [value for value in values if not isinstance(value, dict)]
        if others:
            yield path, others
