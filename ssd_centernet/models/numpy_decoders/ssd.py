"""Decode the raw int8 maps of an SSD with NumPy alone: for devices that run the network only.

boxes, scores, classes = decode(maps, load("model_int8_heads.npz"))
"""

import json

import numpy as np


def load(path):
    """Read what the maps mean: scales, anchors, box code and thresholds."""
    with np.load(path) as arrays:
        return {**json.loads(str(arrays["settings"])), "anchors": arrays["anchors"]}


def decode(maps, s):
    """Turn int8 maps [h, w, n] by name into boxes (yxyx, fractions), scores and classes."""
    real = {k: (maps[k] - np.float32(o["zero_point"])) * np.float32(o["scale"])
            for k, o in s["outputs"].items()}  # fmt: skip
    levels, depth = range(len(maps) // 2), s["classes"] + 1
    logits = np.concatenate([real[f"class_logits_{i}"].reshape(-1, depth) for i in levels])
    codes = np.concatenate([real[f"box_codes_{i}"].reshape(-1, 4) for i in levels])
    if s["scores"] == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (powers / powers.sum(axis=1, keepdims=True))[:, 1:]
    else:
        scores = 1 / (1 + np.exp(-logits[:, 1:]))
    low, size = s["anchors"][:, :2], s["anchors"][:, 2:] - s["anchors"][:, :2]
    codes = codes / np.float32(s["scale_factors"])
    limit, middles = s["max_log_size"] or np.inf, codes[:, :2] * size + (low + size / 2)
    halves = np.exp(np.clip(codes[:, 2:], -limit, limit)) * size / 2
    boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    given = boxes if s["clip"] == "never" else boxes.clip(0, 1)
    boxes = given if s["clip"] == "before" else boxes
    if s["drop_empty"]:
        scores = scores * (boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True)
    pairs = np.argsort(-scores.T, axis=None, kind="stable")[: s["pairs"]]  # Class by class.
    classes, rows = np.divmod(pairs, len(boxes))
    scores = scores[rows, classes]
    kept = suppress(boxes[rows], scores, classes, s)
    if s["clip"] == "after":
        kept = [i for i in kept if np.prod(given[rows[i], 2:] - given[rows[i], :2]) > 0]
    kept = kept[: s["max_detections"]]
    found = given[rows[kept]]
    if s.get("vote_iou"):
        most = s.get("voters")
        found = vote(found, classes[kept], given[rows[:most]], scores[:most], classes[:most], s)
    return found, scores[kept], classes[kept]


def suppress(boxes, scores, classes, s):
    """Keep boxes, best first, that overlap no better one of their class."""
    kept, entered = {c: [] for c in np.unique(classes)}, np.zeros(classes.max() + 1, int)
    for i in np.flatnonzero(scores > s["score_threshold"]):
        ious = overlaps(boxes[i], boxes[kept[classes[i]]])
        entered[classes[i]] += 1
        over = ious >= s["iou_threshold"] if s["inclusive"] else ious > s["iou_threshold"]
        if not over.any() and entered[classes[i]] <= (s["max_entering"] or np.inf):
            kept[classes[i]].append(i)
    return sorted(i for own in kept.values() for i in own[: s["max_kept"]])


def vote(found, kinds, boxes, scores, classes, s):
    """Move detections to the mean of the boxes of their class around them, weighted by score."""
    moved = found.copy()
    for i, (box, kind) in enumerate(zip(found, kinds, strict=True)):
        voters = (classes == kind) & (scores > s["score_threshold"])
        voters &= overlaps(box, boxes) >= s["vote_iou"]
        if voters.any():
            moved[i] = scores[voters] @ boxes[voters] / scores[voters].sum()
    return moved


def overlaps(box, others):
    """Compute the IoU of a box and others."""
    sides = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], 1)
    return shared / np.maximum(union - shared, 1e-30)
