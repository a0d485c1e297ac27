"""What one value of an annotation file means: the same for every reader and for the ground truth.

Files of other tools hold numbers as text, ids as whole floats and flags as words. Each function
returns None for a value that it cannot read; the caller knows the place and reports it.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

# `[0-9]` and not `\d`: digits of other scripts are refused, since float() and int() would take
# them but the tools that wrote the file would not.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(?:\.0*)?")
_INT64 = 2**63
# Above this, a float no longer tells two neighbouring whole numbers apart.
_EXACT_FLOAT = 2.0**53
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
_BOX_KEYS = (("x", "left"), ("y", "top"), ("width", "w"), ("height", "h"))


def read_number(value: object) -> float | None:
    """Read a finite number, given as a number or as text.

    Args:
        value: a number, or text with ASCII digits and a decimal point or a decimal comma. A bool
            is no number.

    Returns:
        The number, None if the value is none or not finite.
    """
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        number = float(text.replace(",", "."))
    elif _is_number(value):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def read_whole(value: object) -> int | None:
    """Read a whole number that fits in int64, such as an id.

    Args:
        value: an int, a whole float such as 101.0, or text of either ("101", "101.0") with at most
            19 ASCII digits. Floats above 2**53 have lost digits and are refused, as is a bool.

    Returns:
        The number, None if the value is not a whole one.
    """
    if type(value) is int:
        number = value
    elif isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        if match is None:
            return None
        number = int(match[1])
    elif _is_number(value):
        if isinstance(value, numbers.Integral):
            number = int(value)
        elif math.isfinite(value) and abs(value) <= _EXACT_FLOAT and value == math.floor(value):
            number = int(value)
        else:
            return None
    else:
        return None
    return number if -_INT64 <= number < _INT64 else None


def read_flag(value: object) -> bool | None:
    """Read yes or no, such as `iscrowd`.

    Args:
        value: 0, 1, true or false, as a number, as text in any case, or as a bool.

    Returns:
        The flag, None for any other value.
    """
    if type(value) is int:
        return bool(value) if 0 <= value <= 1 else None
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    if _is_number(value):
        return bool(value) if value in (0, 1) else None
    # NumPy's bool is not registered as a number.
    return bool(value) if type(value).__name__ in ("bool", "bool_") else None


def read_box(value: object) -> tuple[float, float, float, float] | None:
    """Read a box given by its left top corner, width and height.

    Args:
        value: four numbers or texts of numbers [x, y, width, height]; one text of four numbers; or
            an object with x (left), y (top), width (w) and height (h). An object that is rotated
            or gives corners is not read.

    Returns:
        The four finite numbers (x, y, width, height) in the file's unit, None for anything else.
    """
    if type(value) is list and len(value) == 4:
        x, y, width, height = value
        # By far the most frequent form, of which there may be a million.
        if type(x) is type(y) is type(width) is type(height) is float:
            if math.isfinite(x) and math.isfinite(y):
                if math.isfinite(width) and math.isfinite(height):
                    return x, y, width, height
            return None
        parts = value
    elif isinstance(value, Mapping):
        parts = _box_of_object(value)
    elif isinstance(value, str):
        parts = _box_of_text(value)
    elif isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        parts = value if isinstance(value, (list, tuple)) else value.tolist()
    else:
        return None
    if isinstance(parts, (list, tuple)) and len(parts) == 1 and isinstance(parts[0], (list, tuple)):
        parts = parts[0]  # MATLAB writes a matrix of one row.
    if not isinstance(parts, Sequence) or len(parts) != 4:
        return None
    x, y, width, height = map(read_number, parts)
    if x is None or y is None or width is None or height is None:
        return None
    return x, y, width, height


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _box_of_object(value: Mapping[Any, Any]) -> list[float | None] | None:
    fields = {str(key).strip().lower(): item for key, item in value.items()}
    if any(read_number(fields.get(turn, 0)) != 0 for turn in ("rotation", "angle")):
        return None
    parts = []
    for names in _BOX_KEYS:
        found = {read_number(fields[name]) for name in names if name in fields}
        if len(found) != 1:  # None of the names, or two that disagree.
            return None
        parts.append(found.pop())
    return parts


def _box_of_text(value: str) -> list[str]:
    text = value.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1].strip()
    apart = re.split(r"\s*;\s*|,?\s+", text)
    return apart if len(apart) == 4 else text.split(",")
