"""How long a step waits for its batch."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.runtime.tpu import is_tpu


def has_clock() -> bool:
    """Tell whether a graph can read the time and keep it.

    It cannot where all operations must repeat, nor on TPUs, whose variables belong to the steps.
    """
    if is_tpu(tf.distribute.get_strategy()):
        return False
    try:
        with tf.device("CPU:0"):
            tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return False
    return True


def next_batch(iterator, waited: tf.Variable | None) -> dict[str, tf.Tensor]:
    """Take a batch from the input pipeline.

    Args:
        iterator: iterator over batches.
        waited: float64 variable to which the seconds of waiting are added; None reads no clock.
    """
    if waited is None:
        return next(iterator)
    # In a graph nothing but these dependencies puts the clock before and after the batch.
    begin = tf.timestamp()
    with tf.control_dependencies([begin]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        waited.assign_add(tf.timestamp() - begin)
    return batch
