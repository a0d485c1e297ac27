"""Small ground truths and detections that several test files share."""

import json
import pathlib

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import CocoGroundTruth, DetectionRows

MINI = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "coco_open_mini"


def mini_annotations(split: str) -> dict:
    path = MINI / "annotations" / f"instances_{split}.json"
    if not path.exists():
        pytest.skip("the photos (../shared/data/coco_open_mini) are not here")
    return json.loads(path.read_text())


def scene(num_images: int = 4, num_categories: int = 3) -> dict:
    """Return a COCO dict: images 1.. of 200x100, one object of each category on each image."""
    images = [{"id": i, "height": 100, "width": 200} for i in range(1, num_images + 1)]
    # Ids with gaps: 1, 3, 5, ...
    categories = [{"id": 2 * k + 1, "name": f"c{k}"} for k in range(num_categories)]
    annotations = []
    for image in images:
        for k, category in enumerate(categories):
            box = [20.0 + 50 * k + image["id"], 10.0 + 7 * k, 30.0 + 4 * k, 60.0 - 5 * k]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category["id"],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {"images": images, "categories": categories, "annotations": annotations}


def truth_as_rows(truth: CocoGroundTruth) -> DetectionRows:
    """Return every object that is no crowd region as a detection of score 1."""
    keep = ~truth.is_crowd
    return DetectionRows(
        image_ids=truth.object_image_ids[keep],
        category_ids=truth.object_category_ids[keep],
        boxes=truth.boxes[keep],
        scores=np.ones(int(keep.sum())),
    )


def perturbed_rows(truth: CocoGroundTruth, seed: int, per_object: int = 6) -> DetectionRows:
    """Return jittered copies of the objects, some with other categories, and tied scores."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(len(truth.ids)), per_object)
    categories = truth.object_category_ids[index]
    other = rng.random(len(index)) < 0.2
    categories = np.where(other, rng.choice(truth.category_ids, len(index)), categories)
    noise = rng.normal(0.0, 0.15, (len(index), 4)) * truth.boxes[index][:, [2, 3, 2, 3]]
    boxes = truth.boxes[index] + noise
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    scores = rng.random(len(index)).astype(np.float32).astype(np.float64).round(2)
    return DetectionRows(
        image_ids=truth.object_image_ids[index],
        category_ids=categories,
        boxes=boxes,
        scores=scores,
    )


def hard_scene(seed: int) -> tuple[CocoGroundTruth, DetectionRows, int]:
    """Return ground truth, detections and a limit that are as unlike an ordinary split as can be.

    Ids are negative, huge or not in order, overlaps lie exactly on thresholds, areas on the borders
    of their ranges; there are crowds, equal scores, empty images, boxes without area and classes
    with more detections than count.
    """
    rng = np.random.default_rng(seed)
    num_images, num_categories = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    num_objects, num_rows = int(rng.integers(0, 40)), int(rng.integers(0, 200))
    images = (
        np.arange(num_images) + 1,
        np.sort(rng.choice(np.arange(-50, 50), num_images, replace=False)),
        2**53 - 3 * np.arange(num_images, 0, -1),
        2**62 + np.arange(num_images),
        np.arange(num_images) * 10**9,
    )[seed % 5]
    low = -5 if seed % 5 == 1 else 0
    categories = np.sort(rng.choice(np.arange(low, 100), num_categories, replace=False))
    # Whole numbers give overlaps of exactly 0.5 and equal overlaps with several objects.
    whole = rng.random() < 0.5

    def random_boxes(number: int) -> np.ndarray:
        sides = (rng.integers(0, high, (number, 2)) for high in (200, 120))
        return np.concatenate([*sides], axis=1) + (0 if whole else rng.random((number, 4)))

    truth_boxes, boxes = random_boxes(num_objects), random_boxes(num_rows)
    borders = [1024.0, np.nextafter(1024.0, 0.0), 9216.0, np.nextafter(9216.0, 1e5), 1e10, 1e-300]
    stated = rng.random(num_objects) < 0.3
    areas = np.where(stated, rng.choice(borders, num_objects), truth_boxes[:, 2:].prod(axis=1))
    truth = CocoGroundTruth(
        image_ids=images,
        heights=np.full(num_images, 500),
        widths=np.full(num_images, 700),
        categories=tuple({"id": int(one), "name": f"c{one}"} for one in categories),
        ids=rng.permutation(num_objects) + 1,
        object_image_ids=rng.choice(images, num_objects),
        object_category_ids=rng.choice(categories, num_objects),
        boxes=truth_boxes.astype(np.float64),
        areas=areas,
        is_crowd=rng.random(num_objects) < rng.choice([0.0, 0.2, 0.6]),
    )
    row_images, row_categories = rng.choice(images, num_rows), rng.choice(categories, num_rows)
    if num_objects:
        near = rng.random(num_rows) < 0.7
        of = rng.integers(0, num_objects, num_rows)
        moves = rng.integers(-3, 4, (num_rows, 4)) * rng.choice([0, 1, 5], (num_rows, 1))
        boxes = np.where(near[:, None], truth_boxes[of] + moves * (1 if whole else 0.7), boxes)
        row_images = np.where(near, truth.object_image_ids[of], row_images)
        alike = near & (rng.random(num_rows) < 0.8)
        row_categories = np.where(alike, truth.object_category_ids[of], row_categories)
    if seed % 3 == 0:  # Boxes that are empty, turned over, or near the ends of what a float holds.
        odd = rng.random(num_rows) < 0.1
        factors = rng.choice([0, -1, 1e6, 1e150, 1e-160], (num_rows, 1))
        boxes = np.where(odd[:, None], boxes * factors, boxes)
    scores = rng.random(num_rows).round(int(rng.integers(0, 4)))
    if seed % 7 == 0:
        scores = np.where(rng.random(num_rows) < 0.5, rng.choice([0.0, -0.0, 5e-324, -0.5]), scores)
    if seed % 4 == 0:  # Many of one class in one image.
        row_images[: num_rows // 2], row_categories[: num_rows // 2] = images[0], categories[0]
    rows = DetectionRows(
        image_ids=row_images,
        category_ids=row_categories,
        boxes=boxes.astype(np.float64),
        scores=scores,
    )
    return truth, rows, int(rng.choice([11, 15, 20, 100, 300]))
