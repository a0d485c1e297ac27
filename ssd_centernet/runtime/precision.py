"""Names of precisions, and the Keras policy while a model is being built."""

import contextlib
from collections.abc import Iterator

from ssd_centernet._keras import keras

POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def policy_name(dtype: str | None) -> str:
    """Return the name of the Keras policy for a precision.

    Args:
        dtype: 'fp32', 'bf16', 'fp16' or the name of one of their Keras policies; None is 'fp32'.

    Returns:
        'float32', 'mixed_bfloat16' or 'mixed_float16'.

    Raises:
        ValueError: any other name.
    """
    if dtype is None:
        return POLICIES["fp32"]
    if dtype in POLICIES.values():
        return dtype
    if dtype not in POLICIES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(POLICIES)} (--dtype).")
    return POLICIES[dtype]


def precision_name(policy: str) -> str:
    """Return 'fp32', 'bf16' or 'fp16', as --dtype has it, for the name of a Keras policy."""
    return next((name for name, one in POLICIES.items() if one == policy), policy)


def needs_loss_scale(dtype: str | None) -> bool:
    """Tell whether gradients may underflow without a loss scale: in fp16, not in bf16.

    Args:
        dtype: as for `policy_name`.

    Returns:
        True for fp16.
    """
    return policy_name(dtype) == POLICIES["fp16"]


@contextlib.contextmanager
def policy_scope(dtype: str | None) -> Iterator[str]:
    """Set Keras' global policy inside a `with` block and restore it afterwards.

    Layers keep the policy under which they were made, so the block need only span the building
    of a model.

    Args:
        dtype: as for `policy_name`.

    Yields:
        The name of the policy.
    """
    name = policy_name(dtype)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield name
    finally:
        keras.mixed_precision.set_global_policy(before)
