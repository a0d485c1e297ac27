"""Reading of saved settings as text, without building or importing what they name."""

from __future__ import annotations

import os
import re
import tokenize

from gin import config_parser

from ssd_centernet.config.gin_state import near_names
from ssd_centernet.files import read_text

# What the tokenizer, the parser and the reader of values raise for what is no gin.
PARSE_ERRORS = (
    SyntaxError,
    ValueError,
    IndexError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
    TypeError,
)


class _Word(str):
    """A name that settings hold without quotes."""

    def __repr__(self) -> str:
        return str(self)


class Words(config_parser.ParserDelegate):
    """Keep references and macros as they are written."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        """Return the name with its @ and brackets."""
        return _Word(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name):
        """Return the name with its %."""
        return _Word(f"%{macro_name}")


def read_bindings(path: str | os.PathLike) -> dict[str, str]:
    """Read the bindings of a gin file that includes no other, such as the settings of a run.

    Args:
        path: the file.

    Returns:
        `scope/Name.parameter` (or a macro's name) -> its value as gin writes it, in the order of
        the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not gin.
    """
    return bindings_of(read_text(path), os.fspath(path))


def bindings_of(text: str, place: str = "the settings") -> dict[str, str]:
    """Read the bindings of a text, as `read_bindings` those of a file.

    Args:
        text: gin that includes nothing.
        place: where it is from, for the message.

    Raises:
        ValueError: it is not gin.
    """
    found = {}
    try:
        for statement in config_parser.ConfigParser(text, Words()):
            if isinstance(statement, config_parser.BindingStatement):
                scope = f"{statement.scope}/" if statement.scope else ""
                name = f".{statement.arg_name}" if statement.arg_name else ""
                found[f"{scope}{statement.selector}{name}"] = repr(statement.value)
    except PARSE_ERRORS as error:
        raise ValueError(f"it cannot be read as gin: {explain(error, text, place)}") from error
    return found


def explain(error: Exception, text: str, place: str) -> str:
    """Turn an error of gin's parser into one with the line and near matches.

    Args:
        error: one of PARSE_ERRORS.
        text: what was read.
        place: the file, or what else the text is of.

    Returns:
        Two lines: what is wrong and where, and the line itself.
    """
    message = str(error)
    number = re.search(r"In bindings string line (\d+)", message)
    line = getattr(error, "lineno", None) or (int(number.group(1)) if number else 1)
    reference = re.search(r"matching reference '@(?:[^']*/)?([^'()]+)", message)
    if reference:
        name = reference.group(1)
        message = f"Nothing is named {name!r}, to which '@{name}' refers. {near_names(name)}"
    elif isinstance(error, RecursionError | MemoryError):
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
    shown = rows[min(line, len(rows)) - 1].strip()
    return f"{message.strip()} ({place}, line {line})\n    {shown:.200}"
