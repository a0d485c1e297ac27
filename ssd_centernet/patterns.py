"""Regular expressions of variable names, as settings hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def as_patterns(patterns: str | Sequence[str], *, setting: str) -> tuple[str, ...]:
    """Read a setting that is one regular expression or several.

    Args:
        patterns: a text is one pattern: its characters, taken for patterns, would match nearly all.
        setting: its name, for the message.

    Returns:
        The patterns.

    Raises:
        ValueError: one of them is no regular expression.
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{pattern!r} in {setting} is no regular expression: {error}. Put a backslash "
                "before a character that is meant as it is."
            ) from error
    return patterns


def check_matches(
    patterns: Iterable[str], names: Sequence[str], *, setting: str, anywhere: bool = False
) -> None:
    """Refuse a pattern that matches nothing, and so would silently have no effect.

    Args:
        patterns: of `as_patterns`.
        names: of variables.
        setting: name of the setting, for the message.
        anywhere: whether a match may begin after the start of a name.

    Raises:
        ValueError: names the pattern and what there is to match.
    """
    match = re.search if anywhere else re.match
    for pattern in patterns:
        if not any(match(pattern, name) for name in names):
            layers = ", ".join(sorted({name.split("/")[0] for name in names})[:12])
            raise ValueError(
                f"the pattern {pattern!r} in {setting} matches no variable; their names begin "
                f"with: {layers or 'nothing, there are none'}, ... Mend or remove it."
            )
