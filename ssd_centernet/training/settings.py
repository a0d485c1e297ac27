"""What the settings of a run may be, checked in one place before anything is built from them."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Expectation(NamedTuple):
    """Which values a setting may have, and how that is said to somebody who set another."""

    accepts: Callable[[Any], bool]
    expected: str

    def or_none(self) -> Expectation:
        """Return the expectation of a setting that may be left out."""
        return Expectation(lambda value: value is None or self.accepts(value), self.expected)


def _is_constructor(value: Any) -> bool:
    return inspect.isclass(value) or _is_function(value)


def _is_function(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_patterns(value: Any) -> bool:
    items = value if isinstance(value, Sequence) else [None]
    return all(isinstance(item, str) for item in items)


def _constructor(example: str) -> Expectation:
    text = f"the name of a constructor without brackets, such as @{example}"
    return Expectation(_is_constructor, text)


_COUNT = Expectation(lambda v: _is_integer(v) and v >= 1, "a whole number of 1 or more")
_COUNT_OR_NONE = Expectation(
    lambda v: _is_integer(v) and v >= 0, "a whole number of 0 or more, 0 for none"
)
_SEED = Expectation(lambda v: _is_integer(v) and 0 <= v < 2**32, "a whole number in 0..2**32 - 1")
_NUMBER = Expectation(_is_number, "a number without quotes")
_FACTOR = Expectation(lambda v: _is_number(v) and v >= 0, "a number of 0 or more without quotes")
_ABOVE_ZERO = Expectation(lambda v: _is_number(v) and v > 0, "a number above 0 without quotes")
_SWITCH = Expectation(lambda value: isinstance(value, bool), "True or False, without quotes")
_TEXT = Expectation(lambda value: isinstance(value, str), "a text in quotes")
_PATH = Expectation(lambda v: isinstance(v, str | os.PathLike), "a path in quotes")
_PATTERNS = Expectation(_is_patterns, "a regular expression in quotes, or a tuple of them")
_DURATION = Expectation(
    lambda value: isinstance(value, str) or _is_integer(value),
    "a number of steps, or a text such as '2.5 epochs'",
)
_CHAIN = Expectation(
    lambda value: callable(value) and not inspect.isclass(value),
    "None, or a chain with brackets behind its name, such as @SSDAugment()",
)

_COMPRESSION = Expectation(lambda value: value in ("none", "fp16"), "'none' or 'fp16'")
_GROUP = Expectation(
    lambda value: isinstance(value, bool) or _COUNT.accepts(value),
    "True, False, or the number of processes of a group",
)

# Parameter of `train` -> what it may be. Choices among names are checked where they are made.
EXPECTATIONS: Mapping[str, Expectation] = {
    "batch_size": _COUNT,
    "steps": _NUMBER.or_none(),
    "epochs": _NUMBER.or_none(),
    "optimizer": _constructor("Adam"),
    "schedule": _constructor("ConstantRate"),
    "batches": _constructor("training_batches"),
    "augment": _CHAIN.or_none(),
    "weight_decay": _FACTOR,
    "decay_exclude": _PATTERNS,
    "freeze": _PATTERNS,
    "clip_norm": _ABOVE_ZERO.or_none(),
    "fine_tune_checkpoint": _PATH.or_none(),
    "fine_tune_exclude": _PATTERNS,
    "keep_empty": _SWITCH,
    "train_split": _TEXT,
    "eval_split": _TEXT.or_none(),
    "eval_batch_size": _COUNT.or_none(),
    "targets_in_pipeline": _SWITCH,
    "log_every": _DURATION,
    "checkpoint_every": _DURATION,
    "evaluate_every": _DURATION,
    "keep_checkpoints": _COUNT,
    "keep_best": _TEXT.or_none(),
    "early_stop_patience": _COUNT.or_none(),
    "pictures": _COUNT_OR_NONE,
    "seed": _SEED,
    "use_horovod": _SWITCH,
    "accumulate_steps": _COUNT,
    "gradient_compression": _COMPRESSION,
    "sync_batch_norm": _GROUP,
    "loss_scale": _constructor("LossScale"),
    "resume_from": _PATH.or_none(),
    "use_performance": _SWITCH,
}
_OF_A_CHECKPOINT = ("fine_tune_checkpoint_type", "fine_tune_exclude", "fine_tune_channels")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of `train` that are of another kind than it can use.

    Args:
        settings: parameter -> value; parameters that `EXPECTATIONS` does not know are not looked
            at.

    Raises:
        ValueError: names the setting, its value and what was expected.
    """
    for name, value in settings.items():
        expectation = EXPECTATIONS.get(name)
        if expectation and not expectation.accepts(value):
            raise ValueError(
                f"train.{name} is {shown(value)}, expected {expectation.expected}. Set it in the "
                f'recipe or with --gin_params="train.{name} = ...".'
            )
    given = [name for name in _OF_A_CHECKPOINT if settings.get(name)]
    if given and not settings.get("fine_tune_checkpoint"):
        name = given[0]
        flag = "--" if name == "fine_tune_checkpoint_type" else "train."
        raise ValueError(
            f"{flag}{name} is {settings[name]!r}, but there is no checkpoint that it could be "
            "about: give --fine_tune_checkpoint=PATH too, or leave it out."
        )
    if settings.get("early_stop_patience") and settings.get("keep_best") is None:
        raise ValueError(
            f"train.early_stop_patience is {settings['early_stop_patience']}, but train.keep_best "
            "is None: no metric tells what is better. Set train.keep_best = 'AP', or leave the "
            "patience out."
        )


def shown(value: Any) -> str:
    """Names a value as its user knows it: an object by its class, without an address.

    Args:
        value: of a setting.

    Returns:
        Words for an error message.
    """
    if inspect.isclass(value):
        return f"the class {value.__name__}, which has no brackets behind it"
    if _is_function(value):
        return f"the function {getattr(value, '__name__', 'of another')}"
    plain = (str, bytes, bool, numbers.Number, tuple, list, dict, os.PathLike, type(None))
    return repr(value) if isinstance(value, plain) else f"a {type(value).__name__} that is built"
