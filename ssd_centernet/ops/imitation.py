"""How far what a network says is from what its teacher says, in float32."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ssd_centernet.ops import heatmaps


def softmax_divergence(
    logits: tf.Tensor, teacher: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Compute the Kullback-Leibler divergence of the teacher's classes from the student's.

    It is multiplied by the square of the temperature, so that gradients stay as large as those of
    the class loss; at temperature 1 the gradient is softmax(logits) - softmax(teacher).

    Args:
        logits: float32 [..., K] of the student; one of the K classes is right.
        teacher: float32 [..., K], a constant for the gradient.
        temperature: divides all logits, above 0; a higher one teaches more of the small scores.

    Returns:
        float32 [...], nats, at least 0 but for rounding.

    Source: Distilling the Knowledge in a Neural Network (arXiv:1503.02531), section 2
    """
    told = tf.nn.log_softmax(tf.stop_gradient(teacher) / temperature)
    said = tf.nn.log_softmax(logits / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(told) * (told - said), axis=-1)


def sigmoid_divergence(
    logits: tf.Tensor, teacher: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Compute the divergences of classes that are right or wrong each for itself, as a sum.

    Args:
        logits: float32 [..., K] of the student.
        teacher: float32 [..., K], a constant for the gradient.
        temperature: as in `softmax_divergence`.

    Returns:
        float32 [...], nats, at least 0 but for rounding.
    """
    told = tf.stop_gradient(teacher) / temperature
    said = logits / temperature
    # log p and log (1 - p), which stay finite where a score rounds to 0 or 1.
    of_right = tf.math.log_sigmoid(told) - tf.math.log_sigmoid(said)
    of_wrong = tf.math.log_sigmoid(-told) - tf.math.log_sigmoid(-said)
    divergences = tf.sigmoid(told) * of_right + tf.sigmoid(-told) * of_wrong
    return temperature**2 * tf.reduce_sum(divergences, axis=-1)


def heatmap_divergence(
    outputs: list[dict[str, tf.Tensor]],
    teacher: dict[str, tf.Tensor],
    errors_of: Callable[[dict, dict], dict[str, tf.Tensor]],
    temperature: float,
) -> dict[str, tf.Tensor]:
    """Compare heatmaps of centres, and what stands at the teacher's peaks, with a teacher's.

    A cell's centre counts with the larger of both best scores, the rest with the teacher's best
    score where this is a peak among the cells around it.

    Args:
        outputs: for each stack `center` float32 [B, h, w, C], logits, and other maps.
        teacher: the maps of the teacher's last stack, which it detects with.
        errors_of: turns the maps of a stack and those of the teacher into named errors of the
            other maps, float32 [B, h, w].
        temperature: as in `softmax_divergence`.

    Returns:
        `center` and the names of `errors_of`: float32 scalars, averaged over the stacks.
    """
    teacher = {name: tf.stop_gradient(value) for name, value in teacher.items()}
    scores = tf.sigmoid(teacher["center"])
    told = tf.reduce_max(scores, axis=-1)
    peaks = tf.reduce_max(heatmaps.keep_peaks(scores), axis=-1)
    parts: dict[str, list[tf.Tensor]] = {}
    for output in outputs:
        said = tf.reduce_max(tf.sigmoid(output["center"]), axis=-1)
        divergences = sigmoid_divergence(output["center"], teacher["center"], temperature)
        found = {"center": weighted_mean(divergences, tf.maximum(told, said))}
        for name, errors in errors_of(output, teacher).items():
            found[name] = weighted_mean(errors, peaks)
        for name, value in found.items():
            parts.setdefault(name, []).append(value)
    return {name: tf.add_n(values) / len(values) for name, values in parts.items()}


def weighted_mean(losses: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean of losses by weights that are constants for the gradient.

    Args:
        losses: float32 of any shape.
        weights: float32 of the same shape, at least 0. Where their sum is below 1, it counts as 1:
            a batch without objects teaches next to nothing.

    Returns:
        float32 scalar.
    """
    weights = tf.stop_gradient(weights)
    return tf.reduce_sum(losses * weights) / tf.maximum(tf.reduce_sum(weights), 1.0)
