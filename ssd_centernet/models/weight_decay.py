"""Weight decay as a term of the gradients."""

from __future__ import annotations

import re
from collections.abc import Sequence

import tensorflow as tf

from ssd_centernet.patterns import as_patterns, check_matches

# Pattern of batch norms, which a network need not have.
NORMS = ("_norm/",)


def decay_mask(variables: Sequence[tf.Variable], exclude: str | Sequence[str]) -> list[bool]:
    """Tell which variables decay: those whose name does not match `exclude`.

    Args:
        variables: the variables.
        exclude: regular expressions, searched anywhere in the name.

    Returns:
        One bool per variable.

    Raises:
        ValueError: a pattern other than `NORMS` matches nothing.
    """
    patterns = as_patterns(exclude, setting="train.decay_exclude")
    names = [variable.name for variable in variables]
    chosen = [pattern for pattern in patterns if pattern not in NORMS]
    check_matches(chosen, names, setting="train.decay_exclude", anywhere=True)
    return [not any(re.search(pattern, name) for pattern in patterns) for name in names]


def add_weight_decay(
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    mask: Sequence[bool],
    coefficient: float,
) -> list[tf.Tensor]:
    """Add the gradient of `coefficient * 0.5 |v|^2` (coupled decay, as an L2 loss would).

    Args:
        gradients: float32, one per variable.
        variables: in the same order.
        mask: which of them decay.
        coefficient: at least 0; 0 adds nothing.

    Returns:
        The new gradients.

    Source: docs/reference/ssd_resnet34.md, section 6, "Weight decay"
    """
    if not coefficient:
        return list(gradients)
    return [
        gradient + coefficient * variable if decays else gradient
        for gradient, variable, decays in zip(gradients, variables, mask, strict=True)
    ]
