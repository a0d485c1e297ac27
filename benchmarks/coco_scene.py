"""Random COCO ground truth and detections to time evaluation on."""

from __future__ import annotations

import numpy as np


def random_scene(
    num_images: int = 2000, *, objects: int = 7, detections: int = 100
) -> tuple[dict, np.ndarray]:
    """Make ground truth and detections, a few near each object and the rest anywhere.

    Args:
        num_images: images of 640x480.
        objects: objects of each image.
        detections: detections of each image, sorted by score.

    Returns:
        The ground truth as COCO json, and float64 rows (image, x, y, width, height, score,
        category) with boxes in pixels.
    """
    rng = np.random.default_rng(0)
    height, width, categories = 480, 640, 80
    images = [{"id": i + 1, "height": height, "width": width} for i in range(num_images)]

    def boxes(count: int) -> np.ndarray:
        extent = rng.uniform(0.03, 0.6, (count, 2)) * [width, height]
        return np.concatenate(
            [rng.uniform(0, 1, (count, 2)) * ([width, height] - extent), extent], 1
        )

    truth_boxes = boxes(num_images * objects)
    classes = rng.integers(1, categories + 1, num_images * objects)
    annotations = [
        {
            "id": i + 1,
            "image_id": i // objects + 1,
            "category_id": int(classes[i]),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for i, box in enumerate(truth_boxes)
    ]
    names = [{"id": i + 1, "name": f"class {i}"} for i in range(categories)]
    found = boxes(num_images * detections).reshape(num_images, detections, 4)
    found_classes = rng.integers(1, categories + 1, (num_images, detections))
    near = 3 * objects
    found[:, :near] = np.tile(truth_boxes.reshape(num_images, objects, 4), (1, 3, 1))
    found[:, :near] += rng.normal(0.0, 5.0, found[:, :near].shape)
    found[..., 2:] = np.maximum(found[..., 2:], 1.0)
    found_classes[:, :near] = np.tile(classes.reshape(num_images, objects), (1, 3))
    scores = -np.sort(-rng.uniform(0.01, 1.0, (num_images, detections)), axis=1)
    ids = np.repeat(np.arange(1, num_images + 1), detections)
    rows = np.column_stack([ids, found.reshape(-1, 4), scores.ravel(), found_classes.ravel()])
    truth = {"images": images, "annotations": annotations, "categories": names}
    return truth, rows.astype(np.float64)
