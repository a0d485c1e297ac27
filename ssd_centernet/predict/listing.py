"""The detections of one picture as plain values: what JSON of videos and of the server holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ssd_centernet.labels import LabelMap


def chosen(
    detections: Mapping[str, np.ndarray], min_score: float, kept: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Leave out detections of low scores and of other classes.

    Args:
        detections: `boxes` [n, 4], `scores` [n], `classes` [n] of a picture.
        min_score: the lowest score that stays, 0..1.
        kept: numbers of the classes that stay; None for all.

    Returns:
        The same arrays, of those that stay.
    """
    wanted = detections["scores"] >= min_score
    if kept is not None:
        wanted &= np.isin(detections["classes"], kept)
    return {name: one[wanted] for name, one in detections.items()}


def listed(
    detections: Mapping[str, np.ndarray], size: tuple[int, int], label_map: LabelMap
) -> dict:
    """Return what is written of the detections of a picture.

    Args:
        detections: `boxes` float32 [n, 4], yxyx fractions of the picture; `scores` float32 [n];
            `classes` int [n], 0..C-1.
        size: height and width of the picture in pixels.
        label_map: names and data set ids of the classes.

    Returns:
        `height`, `width`, and `detections`, each with `category_id`, `class`, `bbox` (x, y, width,
        height in pixels) and `score`.
    """
    height, width = size
    scale = np.array([width, height, width, height], np.float64)
    boxes = detections["boxes"][:, [1, 0, 3, 2]] * scale
    boxes[:, 2:] -= boxes[:, :2]
    classes = detections["classes"].tolist()
    scores = detections["scores"].astype(np.float64).tolist()
    rows = [
        {"category_id": label_map.ids[index], "class": label_map.names[index]}
        | {"bbox": box, "score": round(score, 5)}
        for box, index, score in zip(boxes.round(2).tolist(), classes, scores, strict=True)
    ]
    return {"height": int(height), "width": int(width), "detections": rows}
