"""Class logits of an untrained network, made such that some anchors have something to detect."""

from __future__ import annotations

import numpy as np

# Of an image of COCO about so many anchors of 8732 have a class above the threshold.
CANDIDATES = 200
# Standard deviation of the logits: larger ones leave an anchor one class, as training does.
SPREAD = 2.0


def background_bias(logits: np.ndarray, threshold: float, candidates: int = CANDIDATES) -> float:
    """Find what to add to the background so that so many anchors score above a threshold.

    Args:
        logits: float [A, 1 + C] of an image, background first.
        threshold: of the softmax.
        candidates: anchors of the image with a class above it.

    Returns:
        The number to add to every logit of the background.
    """
    logits = logits.astype(np.float64)
    classes = np.exp(logits[:, 1:])
    # The best class reaches the threshold while the background has less than this.
    room = classes.max(axis=1) / threshold - classes.sum(axis=1)
    most = np.where(room > 0, np.log(np.maximum(room, 1e-300)), -np.inf) - logits[:, 0]
    ordered = np.sort(most)[::-1]
    place = min(candidates, len(ordered) - 1)
    return float((ordered[place - 1] + ordered[place]) / 2)
