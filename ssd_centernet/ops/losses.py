"""Loss functions on tensors, always in float32."""

from __future__ import annotations

import tensorflow as tf


def softmax_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Compute the cross entropy of every anchor; its gradient is softmax - onehot.

    Args:
        logits: float32 [..., K].
        labels: int32 [...], in 0..K-1.

    Returns:
        float32 [...], nats, at least 0.

    Source: docs/reference/ssd_resnet34.md, section 6
    """
    # TensorFlow makes the labels flat, and for GPUs it does so with int32 on the host.
    labels = tf.cast(labels, tf.int64)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def as_numbers(classes: tf.Tensor) -> tf.Tensor:
    """Return classes as float32, for comparisons.

    TensorFlow takes whole numbers of 32 bits for sizes: its kernels for GPUs compare them in the
    memory of the host, where nothing of a batch should go.

    Args:
        classes: int32 of any shape, below 2^24.

    Returns:
        float32 of the same shape; the same numbers.
    """
    return tf.cast(classes, tf.float32)


def huber(errors: tf.Tensor, delta: float = 1.0) -> tf.Tensor:
    """Compute `0.5 e^2` where `|e| <= delta` and `delta (|e| - 0.5 delta)` elsewhere.

    Args:
        errors: float32 of any shape.
        delta: end of the quadratic part.

    Returns:
        float32 of the same shape.
    """
    magnitude = tf.abs(errors)
    # One expression for both parts, in which nothing above delta is squared.
    quadratic = tf.minimum(magnitude, delta)
    return 0.5 * quadratic**2 + delta * (magnitude - quadratic)


def hard_negative_mask(
    losses: tf.Tensor, positives: tf.Tensor, counts: tf.Tensor, *, negatives_only: bool = False
) -> tf.Tensor:
    """Select the anchors with the largest loss; rank positives as if their loss were zero.

    Args:
        losses: float32 [B, A], at least 0.
        positives: bool [B, A].
        counts: int32 [B]: number of anchors to select per image; not more than A are.
        negatives_only: whether never to select positives; if there are fewer negatives than
            `counts`, all of them are selected.

    Returns:
        bool [B, A]. Ties go to the lower index. If fewer than `counts` anchors have a loss above
        zero, positives can be selected too unless `negatives_only`.

    Source:
        docs/reference/ssd_resnet34.md, section 6 (steps 1 to 3)
        docs/reference/ssd_vgg16.md, section 9 (`negatives_only`)
    """
    # Below every loss: ranked after all negatives.
    rank_of_positives = -1.0 if negatives_only else 0.0
    # The selection is a constant for the gradient.
    values = tf.stop_gradient(tf.where(positives, rank_of_positives, losses))
    anchors = values.shape[1] or tf.shape(values)[1]
    # Counts are exact in float32 up to 2^24; see `as_numbers`.
    counts = tf.minimum(tf.cast(counts, tf.float32), tf.cast(anchors, tf.float32))
    # One sort gives the smallest loss that is picked. The original ranks every anchor, which takes
    # two; the set is the same.
    descending = tf.sort(values, axis=1, direction="DESCENDING")
    last = tf.cast(tf.maximum(counts - 1.0, 0.0)[:, tf.newaxis], tf.int32)
    smallest = tf.gather(descending, last, axis=1, batch_dims=1)
    above = values > smallest
    ties = values == smallest
    # How many of the ties fit; those of lowest index are taken.
    room = counts - tf.reduce_sum(tf.cast(above, tf.float32), axis=1)
    tie_rank = tf.cumsum(tf.cast(ties, tf.float32), axis=1)
    picked = above | (ties & (tie_rank <= room[:, tf.newaxis]))
    # With nothing to pick, the largest loss served as the smallest.
    picked &= (counts > 0.0)[:, tf.newaxis]
    return picked & ~positives if negatives_only else picked


def penalty_reduced_focal(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the focal loss of heatmaps; errors near a centre cost less.

    With p = sigmoid(x), clipped to [1e-4, 1 - 1e-4]: `-(1 - p)^2 log p` if the target is exactly 1,
    and `-(1 - t)^4 p^2 log(1 - p)` elsewhere. If p is clipped, the gradient is 0.

    Args:
        logits: float32 of any shape.
        targets: float32 of the same shape, in [0, 1].

    Returns:
        float32 of the same shape, nats, at least 0.

    Source:
        docs/reference/centernet.md, section 3
        CornerNet: Detecting Objects as Paired Keypoints (arXiv:1808.01244)
    """
    # The published bounds: all that keeps the logarithms from 0.
    p = tf.clip_by_value(tf.sigmoid(logits), 1e-4, 1.0 - 1e-4)
    # Squares, not powers: heatmaps are large, and this takes a third of the time.
    positive = -tf.square(1.0 - p) * tf.math.log(p)
    forgiveness = tf.square(tf.square(1.0 - targets))
    negative = -forgiveness * tf.square(p) * tf.math.log(1.0 - p)
    # Exactly 1 in a centre's own cell alone, see `gaussian_heatmap`.
    return tf.where(targets == 1.0, positive, negative)


def sigmoid_focal(
    logits: tf.Tensor, labels: tf.Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> tf.Tensor:
    """Compute the focal loss of independent classes; easy examples count little.

    With p the probability of the wrong answer, an element's loss is `a p^gamma` times the binary
    cross entropy, where a is `alpha` in the slot of an object's class and `1 - alpha` elsewhere.

    Args:
        logits: float32 [..., K]; slot 0 is background, which no label has.
        labels: int32 [...]: an object's slot in 1..K-1; if it is 0 or less, all slots are false.
        alpha: in [0, 1].
        gamma: at least 0; 0 leaves the weighted cross entropy.

    Returns:
        float32 [..., K], nats, at least 0.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, section 7
        Focal Loss for Dense Object Detection (arXiv:1708.02002)
    """
    is_class = _is_class(logits, labels)
    # sigmoid(-x) = 1 - sigmoid(x): one formula serves true and false slots.
    against = tf.where(is_class, -logits, logits)
    return tf.where(is_class, alpha, 1.0 - alpha) * _focal_of_falsehood(against, gamma)


def sigmoid_quality(
    logits: tf.Tensor, labels: tf.Tensor, quality: tf.Tensor, *, beta: float = 2.0
) -> tf.Tensor:
    """Compute the quality focal loss: the score of an object's class shall be its quality.

    An element with the target y, which is the quality in the slot of the object's class and 0
    elsewhere, loses `|y - sigmoid(x)|^beta` times the binary cross entropy of y and x.

    Args:
        logits: float32 [..., K]; slot 0 is background, which no label has.
        labels: int32 [...]: an object's slot in 1..K-1; if it is 0 or less, all slots are false.
        quality: float32 [...] in [0, 1], of the anchors of objects; a constant for the gradient.
        beta: at least 0; 0 leaves the cross entropy.

    Returns:
        float32 [...], nats, the sum over the slots.

    Source: Generalized Focal Loss (arXiv:2006.04388), equation 2
    """
    own, others = _split_slots(logits, labels)
    error = tf.abs(quality - tf.sigmoid(own))
    # The power of 0 has no slope that is finite at beta below 1.
    factor = tf.square(error) if beta == 2.0 else tf.pow(tf.maximum(error, 1e-12), beta)
    true = factor * _cross_entropy(own, quality)
    return tf.where(as_numbers(labels) > 0.0, true, 0.0) + _sum_of_falsehood(others, beta)


def sigmoid_varifocal(
    logits: tf.Tensor,
    labels: tf.Tensor,
    quality: tf.Tensor,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> tf.Tensor:
    """Compute the varifocal loss: good examples count more, easy false ones less.

    With q the quality, the slot of an object's class loses q times the binary cross entropy of q
    and x, and every other slot `alpha sigmoid(x)^gamma` times that of 0 and x.

    Args:
        logits: float32 [..., K]; slot 0 is background, which no label has.
        labels: int32 [...]: an object's slot in 1..K-1; if it is 0 or less, all slots are false.
        quality: float32 [...] in [0, 1], of the anchors of objects; a constant for the gradient.
        alpha: weight of false slots, at least 0.
        gamma: exponent of false slots, at least 0.

    Returns:
        float32 [...], nats, the sum over the slots.

    Source: VarifocalNet: An IoU-aware Dense Object Detector (arXiv:2008.13367), equation 2
    """
    own, others = _split_slots(logits, labels)
    true = quality * _cross_entropy(own, quality)
    return tf.where(as_numbers(labels) > 0.0, true, 0.0) + alpha * _sum_of_falsehood(others, gamma)


def _is_class(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mark the slot of each label, bool [..., K]; background's is nobody's."""
    slots = tf.range(logits.shape[-1], dtype=tf.float32)
    return (as_numbers(labels)[..., tf.newaxis] == slots) & (slots > 0.0)


def _split_slots(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the logit of the label's slot, [...], and all with that one at a score of 0."""
    is_class = _is_class(logits, labels)
    own = tf.reduce_sum(tf.where(is_class, logits, 0.0), axis=-1)
    # exp(-1e4) is 0, and so are its loss and its gradient.
    return own, tf.where(is_class, -1e4, logits)


def _cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)


def _sum_of_falsehood(logits: tf.Tensor, gamma: float) -> tf.Tensor:
    return tf.reduce_sum(_focal_of_falsehood(logits, gamma), axis=-1)


def _focal_of_falsehood(logits: tf.Tensor, gamma: float) -> tf.Tensor:
    """Compute `p^gamma softplus(x)` with p = sigmoid(x), x the logit of the wrong answer."""

    def power(p: tf.Tensor) -> tf.Tensor:
        return tf.square(p) if gamma == 2.0 else tf.pow(p, gamma)

    @tf.custom_gradient
    def loss(x: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Computed anew: of these large tensors the logits alone are kept for the way back.
            p = tf.sigmoid(x)
            # d/dx p^g softplus(x), with dp/dx = p (1 - p) and d softplus/dx = p.
            slope = power(p) * (gamma * tf.sigmoid(-x) * tf.math.softplus(x) + p)
            return upstream * slope

        return power(tf.sigmoid(x)) * tf.math.softplus(x), gradient

    return loss(logits)
