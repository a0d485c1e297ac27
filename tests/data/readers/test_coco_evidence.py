"""Areas and segmentations of a COCO json tell boxes of corners from boxes of sizes."""

import pytest

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from tests.data.readers.coco_files import Files, first, reasons

# Far from the border: as x, y, width and height, the corners stay inside the picture too.
INSIDE = [(6 + i % 8, 4 + i // 8, 7 + i % 5, 5 + i % 4) for i in range(40)]


@pytest.fixture
def files(tmp_path):
    files = Files(tmp_path)
    files.annotations[:] = [
        {
            "id": i,
            "image_id": 1 + i % 2,
            "category_id": 1 + i % 2,
            "bbox": [x, y, w, h],
            "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for i, (x, y, w, h) in enumerate(INSIDE, 1)
    ]
    return files


def boxes_of(index):
    return sorted(tuple(a["bbox"]) for image in index.images for a in image.annotations)


ORDERS = {
    "right and bottom corner": lambda x, y, w, h: [x, y, x + w, y + h],
    "y, x, height, width": lambda x, y, w, h: [y, x, h, w],
    "left, right, top, bottom": lambda x, y, w, h: [x, x + w, y, y + h],
    "centre of the box": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
}


def test_boxes_that_fit_their_segmentation_are_read(files):
    index = files.read()
    assert boxes_of(index) == sorted(INSIDE) and reasons(index) == {}


@pytest.mark.parametrize("cause", ORDERS)
def test_a_segmentation_tells_the_order_of_numbers(files, cause):
    for annotation, box in zip(files.annotations, INSIDE, strict=True):
        # Unlike those of INSIDE, these differ enough to be told apart.
        x, y, w, h = box[0] + 4, box[1], box[2] + 5, box[3]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotation["bbox"] = ORDERS[cause](x, y, w, h)
        annotation["area"] = w * h * 0.6
    with pytest.raises(ValueError, match=cause) as caught:
        files.read()
    assert "instances.json" in str(caught.value) and "annotation 1 of b.jpg has bbox [" in str(
        caught.value
    )


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("some", [1, 10])
def test_an_area_tells_corners_from_sizes(files, extra, some):
    for annotation, (x, y, w, h) in zip(files.annotations, INSIDE, strict=True):
        del annotation["segmentation"]
        if annotation["id"] % some == 0:
            annotation["bbox"] = [x, y, x + w, y + h]
            annotation["area"] = (w + extra) * (h + extra)
    with pytest.raises(ValueError, match="area between two corners.*right and bottom corner"):
        files.read()
    with pytest.raises(ValueError, match="area between two corners"):
        CocoGroundTruth.load(files.root / "instances.json")


def test_areas_of_masks_and_of_other_scales_are_no_corners(files):
    for factor in (0.55, 4):
        for annotation, (_, _, w, h) in zip(files.annotations, INSIDE, strict=True):
            annotation["area"] = w * h * factor
        assert boxes_of(files.read()) == sorted(INSIDE)


def test_boxes_beside_their_segmentation_are_noted(files):
    for annotation in files.annotations:
        annotation["segmentation"] = [[2 * v for v in annotation["segmentation"][0]]]
    index = files.read()
    reason = "bbox is not the box around the segmentation: bbox is used"
    assert reasons(index)["notes", reason] == 1
    assert first(index) == ["annotation 1 of b.jpg, 40 of 40 compared"]


def test_one_box_that_does_not_fit_is_left_in_peace(files):
    x, y, w, h = INSIDE[0]
    files.annotations[0].update(bbox=[x, y, x + w, y + h])
    index = files.read()
    assert (x, y, x + w, y + h) in boxes_of(index) and reasons(index) == {}


@pytest.mark.parametrize(
    ("key", "mode"),
    [
        ("bbox_mode", 0),
        ("bbox_mode", "BoxMode.XYXY_ABS"),
        ("bbox_format", "xyxy"),
        ("bbox_mode", 3),
    ],
)
def test_what_an_annotation_says_of_its_numbers_counts(files, key, mode):
    for annotation in files.annotations:
        annotation[key] = mode
    with pytest.raises(ValueError, match=f"annotation 1 of b.jpg has {key} .*, so its bbox .6, 4"):
        files.read()


@pytest.mark.parametrize("mode", [1, "XYWH_ABS", "xywh", None])
def test_boxes_that_are_said_to_be_what_they_are_are_read(files, mode):
    for annotation in files.annotations:
        annotation["bbox_mode"] = mode
    assert boxes_of(files.read()) == sorted(INSIDE)
