"""What the flags of `train` say whose words are not settings themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from ssd_centernet.cli import _flags

# An evaluation comes at the last step too, so that there is no other with a longer interval.
_BEYOND_ANY_RUN = 1_000_000_000
# Values of --mode that have the last word on evaluations.
_MODES = {"train": "without evaluations", "train_and_post_eval": "with one evaluation at the end"}


def evaluations(*, evaluable: bool) -> list[str]:
    """Return what --mode binds; where it takes the effect of --evaluate_every, say so.

    Args:
        evaluable: whether there are annotations to evaluate on.
    """
    values = flags.FLAGS
    every = values.evaluate_every
    if values.mode in _MODES and every not in (None, "0"):
        print(
            f"--evaluate_every={every} has no effect: --mode={values.mode} is "
            f"{_MODES[values.mode]}.",
            file=sys.stderr,
        )
    noise = not (values.data_dir or values.annotations)
    if values.mode == "train" or noise or not evaluable:
        return ["train.evaluate_every = 0"]
    if values.mode == "train_and_post_eval":
        return [f"train.evaluate_every = {_BEYOND_ANY_RUN}"]
    return []


def weights(words: Sequence[str]) -> tuple[float, ...]:
    """Read --data_weights."""
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise flags.IllegalFlagValueError(
            f"--data_weights={','.join(words)}: expected a number for each --data_dir, such as 2,1."
        ) from error


def profiled_steps(words: Sequence[str]) -> tuple[int, ...]:
    """Read --profile."""
    try:
        return tuple(int(word) for word in words)
    except ValueError as error:
        raise flags.IllegalFlagValueError(
            f"--profile={','.join(words)}: expected the first and the last step, such as 50,53."
        ) from error


def check_data_service() -> None:
    """Refuse addresses that are none, and sources of batches that workers cannot make."""
    values = flags.FLAGS
    if values.data_service is None:
        return
    _flags.refuse_no_worker()
    for name in ("static", "use_fake_data"):
        if values[name].value:
            raise flags.IllegalFlagValueError(
                f"--{name} and --data_service are two sources of training batches: give only one."
            )
    from ssd_centernet.data_service.addresses import parse_addresses

    try:
        parse_addresses(values.data_service)
    except ValueError as error:
        raise flags.IllegalFlagValueError(str(error)) from error
