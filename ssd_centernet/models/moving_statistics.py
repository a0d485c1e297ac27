"""The moving statistics of batch norms: whether they have arrived, and estimates where not."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import norms_of, share_of_beginning

# More of the first values than this, and detections differ from those of the trained network.
LARGEST_SHARE = 0.01
# With batches of 8 to 32 a mean over 100 to 400 images.
_BATCHES = 12


def late_norms(model: keras.Model, steps: int) -> tuple[list[keras.layers.Layer], float]:
    """Find the batch norms whose moving statistics have not arrived.

    Args:
        model: any Keras model.
        steps: number of updates since their first values.

    Returns:
        Those that still hold more than 1 % of their first values, and the largest such share.
    """
    shares = {layer: share_of_beginning(layer, steps) for layer in norms_of(model)}
    late = [layer for layer, share in shares.items() if share > LARGEST_SHARE]
    return late, max(shares.values(), default=0.0)


def estimate_statistics(
    model: keras.Model,
    norms: list[keras.layers.Layer],
    batches: Iterable[dict],
) -> int:
    """Set moving statistics to the means over some batches; nothing else of the model changes.

    Args:
        model: any Keras model of images.
        norms: layers of it.
        batches: of training, with `image`; each is used once.

    Returns:
        The number of batches.
    """
    averages = [average for norm in norms for average in (norm.moving_mean, norm.moving_variance)]
    others = [v for v in model.non_trainable_variables if not any(v is one for one in averages)]
    kept = [variable.numpy() for variable in others]
    forward = tf.function(lambda images: model(images, training=True), autograph=False)
    sums, count = [0.0] * len(averages), 0
    for batch in batches:
        # From 0 a step goes 1 - momentum of the way: the batch's own, without a difference of two
        # large numbers.
        for average in averages:
            average.assign(tf.zeros_like(average))
        forward(batch["image"])
        sums = [total + one.numpy() for total, one in zip(sums, averages, strict=True)]
        count += 1
    steps = [1.0 - norm.momentum for norm in norms for _ in range(2)]
    for average, total, step in zip(averages, sums, steps, strict=True):
        average.assign((total / (count * step)).astype(np.float32))
    for variable, value in zip(others, kept, strict=True):
        variable.assign(value)
    return count


@contextlib.contextmanager
def settled(
    model: keras.Model,
    steps: int,
    batches: Callable[[], Iterable[dict]],
    say: Callable[[str], None],
    purpose: str,
) -> Iterator[None]:
    """Replace statistics that have not arrived by estimates while the context is open.

    Args:
        model: any Keras model of images.
        steps: number of updates of its statistics since their first values.
        batches: makes batches of training; asked only where there is something to estimate.
        say: told what is estimated.
        purpose: what the estimates are for, in that sentence.
    """
    norms, share = late_norms(model, steps)
    if not norms:
        yield
        return
    moving = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    kept = [variable.numpy() for variable in moving]
    try:
        count = estimate_statistics(model, norms, itertools.islice(batches(), _BATCHES))
        say(
            f"the averages of {len(norms)} batch norms hold {100 * share:.0f} % of their "
            f"beginning still: for {purpose} they are estimated on {count} batches"
        )
        yield
    finally:
        for variable, value in zip(moving, kept, strict=True):
            variable.assign(value)
