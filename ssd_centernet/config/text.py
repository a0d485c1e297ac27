"""Reading of saved settings as text, without building or importing what they name."""

from __future__ import annotations

import os
import tokenize

from gin import config_parser

from ssd_centernet.files import read_text


class _Word(str):
    """A name that settings hold without quotes."""

    def __repr__(self) -> str:
        return str(self)


class _Words(config_parser.ParserDelegate):
    """Keep references and macros as they are written."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return _Word(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name):
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
    text = read_text(path)
    found = {}
    try:
        for statement in config_parser.ConfigParser(text, _Words()):
            if isinstance(statement, config_parser.BindingStatement):
                scope = f"{statement.scope}/" if statement.scope else ""
                name = f".{statement.arg_name}" if statement.arg_name else ""
                found[f"{scope}{statement.selector}{name}"] = repr(statement.value)
    except (SyntaxError, ValueError, IndexError, tokenize.TokenError) as error:
        raise ValueError(f"{os.fspath(path)} cannot be read as gin: {error}") from error
    return found
