"""Decode the raw int8 maps of a CenterNet with NumPy alone: for devices that run the network only.

boxes, scores, classes = decode(maps, load("model_int8_heads.npz"))
"""

import json

import numpy as np


def load(path):
    """Read what the maps mean: scales, kind of boxes and thresholds."""
    with np.load(path) as arrays:
        return json.loads(str(arrays["settings"]))


def decode(maps, s):
    """Turn int8 maps [h, w, n] by name into boxes (yxyx, fractions), scores and classes."""
    real = {k: (maps[k] - np.float32(o["zero_point"])) * np.float32(o["scale"])
            for k, o in s["outputs"].items()}  # fmt: skip
    (height, width, depth), around = real["center"].shape, s["kernel_size"]
    # Of neighbours that 8 bits make equal, one is the peak: less than half a step decides.
    y, x = np.mgrid[:height, :width]
    steps = (y % around * around + x % around) / np.float32(2 * around**2)
    logits = real["center"] - steps[..., None] * np.float32(s["outputs"]["center"]["scale"])
    scores = 1 / (1 + np.exp(-logits))
    edge = around // 2
    padded = np.pad(scores, ((edge, edge), (edge, edge), (0, 0)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (around, around), axis=(0, 1))
    peaks = np.where(windows.max(axis=(-2, -1)) - scores < 1e-6, scores, 0).ravel()
    best = np.argsort(-peaks, kind="stable")[: s["max_detections"]]
    best = best[peaks[best] > s["score_threshold"]]
    place, classes = np.divmod(best, depth)
    y, x = np.divmod(place, width)
    cells = np.stack([y, x], axis=1).astype(np.float32)
    if "sides" in real:
        middles = np.stack(np.mgrid[:height, :width], axis=-1) + np.float32(0.5)
        sides = 4 * np.logaddexp(real["sides"], 0)  # Distances from the cell's middle.
        every = np.concatenate([middles - sides[..., :2], middles + sides[..., 2:]], axis=-1)
        boxes = every[y, x]
    else:
        middles, halves = cells + real["offset"][y, x], np.maximum(real["size"][y, x], 0) / 2
        boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    limits = np.float32([height, width, height, width])
    if s.get("vote_iou"):
        boxes = vote(every.clip(0, limits), scores, y, x, classes, s)
    boxes, scores = boxes.clip(0, limits) / limits, peaks[best]
    kept = np.arange(len(best))
    if "iou_threshold" in s:
        kept = suppress(boxes, classes, s["iou_threshold"])
    return boxes[kept], scores[kept], classes[kept]


def suppress(boxes, classes, threshold):
    """Keep boxes, best first, that overlap no better one of their class."""
    kept = []
    for i in range(len(boxes)):
        others = boxes[[j for j in kept if classes[j] == classes[i]]].reshape(-1, 4)
        if not (overlaps(boxes[i], others) > threshold).any():
            kept.append(i)
    return kept


def vote(every, scores, y, x, classes, s):
    """Move detections to the mean of the boxes of the cells around them, weighted by score."""
    edge, moved = s["kernel_size"] // 2, every[y, x]
    for i, (row, column, kind) in enumerate(zip(y, x, classes, strict=True)):
        rows, columns = (slice(max(v - edge, 0), v + edge + 1) for v in (row, column))
        boxes, weights = every[rows, columns].reshape(-1, 4), scores[rows, columns, kind].ravel()
        overlap = overlaps(moved[i], boxes)
        weights = weights * ((weights > s["score_threshold"]) & (overlap >= s["vote_iou"]))
        if weights.any():
            moved[i] = weights @ boxes / weights.sum()
    return moved


def overlaps(box, others):
    """Compute the IoU of a box and others."""
    sides = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], 1)
    return shared / np.maximum(union - shared, 1e-30)
