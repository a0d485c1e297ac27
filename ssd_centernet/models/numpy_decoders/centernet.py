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
        sides = 4 * np.logaddexp(real["sides"][y, x], 0)  # Distances from the cell's middle.
        boxes = np.concatenate([cells + 0.5 - sides[:, :2], cells + 0.5 + sides[:, 2:]], axis=1)
    else:
        middles, halves = cells + real["offset"][y, x], np.maximum(real["size"][y, x], 0) / 2
        boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    limits = np.float32([height, width, height, width])
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
        sides = np.minimum(others[:, 2:], boxes[i, 2:]) - np.maximum(others[:, :2], boxes[i, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(others[:, 2:] - others[:, :2], 1)
        if not (shared > threshold * np.maximum(union - shared, 1e-30)).any():
            kept.append(i)
    return kept
