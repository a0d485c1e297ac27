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
