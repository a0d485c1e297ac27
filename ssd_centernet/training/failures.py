"""What is said of a step whose loss or gradients are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient is not finite; the weights before that step are kept."""


def describe_failure(
    step: int,
    values: Mapping[str, float],
    sources: Sequence[int],
    *,
    place: str,
    elsewhere: bool,
    learning_rate: float,
) -> str:
    """Tell of a step that was not finite.

    Args:
        step: number of the step.
        values: its metrics by name.
        sources: source ids of its images.
        place: the process and device, such as " on process 1", or nothing.
        elsewhere: whether only another process can be the reason.
        learning_rate: of the step.
    """
    parts = ", ".join(f"{name}={value:g}" for name, value in values.items())
    if elsewhere:
        return (
            f"step {step} is finite{place} ({parts}), but not on another "
            "process, whose message names the images; or gradients overflowed between "
            "processes: set train.gradient_compression = 'none'."
        )
    return (
        f"step {step} is not finite{place}: {parts}, "
        f"learning_rate={learning_rate:g}. Images (source ids): "
        f"{', '.join(map(str, sources))}. Likely causes: a learning rate that is too high for this "
        "batch size, a "
        "broken annotation in one of these images (`ssd_centernet show_inputs` draws them), "
        "or float16 without loss scaling. The weights before that step are kept; the last "
        "checkpoint is intact."
    )
