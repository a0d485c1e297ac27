"""Boxes in other units and orders are told from pixels, and careless but right ones are not."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssd_centernet.data.box_units import check_units, to_pixels
from ssd_centernet.data.convert_formats import convert_annotations
from tests.data.coco_set import CocoSet, encode, faults, picture

MINI = Path(__file__).parents[3] / "shared" / "data" / "coco_open_mini"


@pytest.fixture
def coco(tmp_path):
    return CocoSet(tmp_path)


def scene(count=40, sizes=((640, 480), (500, 375), (333, 500)), seed=0):
    """Boxes [N, 4] anywhere in pictures of some sizes, and these sizes [N, 2]."""
    draw = np.random.default_rng(seed)
    extent = np.array([sizes[i % len(sizes)] for i in range(count)], np.float64)
    ends = np.sort(draw.uniform(0, 1, (count, 2, 2)), axis=1)
    # As annotators do, some boxes begin or end at the border.
    ends[::7, 0] = 0.0
    ends[3::7, 1] = 1.0
    corners = ends * extent[:, np.newaxis]
    return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1), extent


def check(boxes, sizes):
    return check_units(
        boxes, sizes, where=lambda i: f"annotation {i + 1}", field="bbox", source="a.json"
    )


def corners(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def centred(boxes):
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def test_boxes_in_pixels_pass_without_a_word():
    for seed in range(20):
        assert check(*scene(seed=seed)) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_pass_without_a_word(split):
    if not MINI.exists():
        pytest.skip(f"{MINI} is not here")
    content = json.loads((MINI / "annotations" / f"instances_{split}.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    boxes = np.array([a["bbox"] for a in content["annotations"]])
    extents = np.array([sizes[a["image_id"]] for a in content["annotations"]])
    assert check(boxes, extents) == []
    for changed in (corners(boxes), boxes / np.tile(extents, 2), boxes[:, [1, 0, 3, 2]]):
        with pytest.raises(ValueError, match="boxes"):
            check(changed, extents)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda b, s: b / np.tile(s, 2), "40 of 40 boxes lie within 0..1.*box_units=fractions"),
        (lambda b, s: corners(b) / np.tile(s, 2), "40 of 40 boxes lie within 0..1"),
        (lambda b, s: centred(b) / np.tile(s, 2), "40 of 40 boxes lie within 0..1"),
        (lambda b, s: b / np.tile(s, 2) * 100, "40 of 40 boxes are within 0..100.*=percent"),
        (lambda b, s: corners(b) / np.tile(s, 2) * 100, "40 of 40 boxes are within 0..100"),
        (lambda b, s: corners(b), "right and bottom corner, not width and height"),
        (lambda b, s: corners(b)[:, [0, 2, 1, 3]], "beyond the border.*left, right, top, bottom"),
        (lambda b, s: b[:, [1, 0, 3, 2]], "beyond the border.*y, x, height, width"),
        (lambda b, s: centred(b), "the centre of the box, not its left top corner"),
        (lambda b, s: b * 2, "beyond the border.*copy of another size"),
        (lambda b, s: b / np.tile(s, 2) * 1000, "beyond the border.*thousandths of the picture"),
    ],
)
def test_other_units_and_orders_are_refused_with_the_likely_cause(change, words, seed):
    boxes, sizes = scene(seed=seed)
    with pytest.raises(ValueError, match=words) as caught:
        check(change(boxes, sizes), sizes)
    assert "for example annotation " in str(caught.value) and "has bbox [" in str(caught.value)


def test_width_and_height_of_the_pictures_swapped_is_said_as_that():
    boxes, sizes = scene(sizes=((640, 400), (600, 300)))
    with pytest.raises(ValueError, match="width and height of the pictures are swapped"):
        check(boxes, sizes[:, ::-1])


def test_the_message_names_the_first_box_and_its_value():
    boxes, sizes = scene()
    boxes[0] = [0.25, 0.5, 0.125, 0.25]
    with pytest.raises(ValueError, match=r"1 of 1 .*annotation 1 has bbox \[0.25, 0.5, 0.125,"):
        check(boxes[:1], sizes[:1])


def test_fractions_of_a_reader_that_counts_from_one_are_shown_as_written():
    boxes = np.array([[0.25 - 1, 0.5 - 1, 0.125 + 1, 0.25 + 1]])
    with pytest.raises(ValueError, match=r"has bbox \[0.25, 0.5, 0.125, 0.25\]"):
        check(boxes, np.array([[640, 480]]))


def test_fractions_among_pixels_are_refused_from_a_few_on():
    boxes, sizes = scene(200)
    mixed = boxes.copy()
    mixed[:6] /= np.tile(sizes[:6], 2)
    with pytest.raises(ValueError, match="6 of 200 boxes lie within 0..1.*two units joined"):
        check(mixed, sizes)
    boxes[3] = [0.2, 0.3, 0.5, 0.5]
    (note,) = check(boxes, sizes)
    assert "1 boxes lie within 0..1" in note and "annotation 4" in note


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_boxes_prove_nothing_but_fractions(count):
    boxes, sizes = scene(count)
    for changed in (corners(boxes), boxes * 3, boxes / np.tile(sizes, 2) * 100):
        check(changed, sizes)
    with pytest.raises(ValueError, match="fractions"):
        check(boxes / np.tile(sizes, 2), sizes)
    assert check(np.array([[0.0, 0, 1, 1]] * count), sizes) == []


def test_careless_boxes_are_clipped_and_no_error():
    boxes, sizes = scene(100)
    boxes[::6, 2:] *= 1.5
    assert check(boxes, sizes) == []
    boxes[:, 2:] += 1.0  # Last pixels counted in.
    assert check(boxes, sizes) == []


def test_per_cent_is_a_note_where_it_is_only_likely():
    boxes, sizes = scene(12, sizes=((160, 120),))
    (note,) = check(boxes / np.tile(sizes, 2) * 100, sizes)
    assert "no box reaches beyond 100" in note
    # Pictures of 100 pixels: these are pixels.
    boxes, sizes = scene(40, sizes=((100, 100), (96, 96)))
    assert check(boxes, sizes) == []


def test_boxes_of_smaller_copies_are_noted():
    boxes, sizes = scene(40)
    (note,) = check(boxes / 2, sizes)
    assert note == "no box reaches beyond 50% of its picture: are they those of smaller copies?"


def test_boxes_all_in_the_left_top_corner_are_refused():
    boxes, sizes = scene()
    with pytest.raises(
        ValueError, match=r"end within the first \d\.\d% of their picture.*per cent"
    ):
        check(boxes / 100, sizes)
    check_units(boxes / 100, sizes, where=str, field="bbox", source="d.json", found=True)
    # Fewer of them may lie there.
    check(boxes[:10] / 100 + [7, 7, 0, 0], sizes[:10])


def test_corners_far_from_the_border_are_noted():
    boxes, sizes = scene()
    (note,) = check(corners(boxes / 4), sizes)
    assert note.endswith("of its picture: are they those of smaller copies, or corners?")


def test_the_order_of_scaled_boxes_is_checked_too(coco):
    """Fractions that are corners: scaled as told, they would be clipped to most of the picture."""
    coco.image(width=0, height=0, data=encode(picture(40, 30)))
    for number in range(6):
        coco.box([0.5, 0.4 + number / 100, 0.9, 0.9])
    with pytest.raises(
        ValueError, match="6 of 6 boxes reach beyond .*right and bottom corner"
    ) as e:
        coco.convert(box_units="fractions")
    assert "set box_units" not in str(e.value) and not coco.shards()


def test_unknown_sizes_still_tell_fractions():
    boxes, sizes = scene()
    assert check(corners(boxes), 0 * sizes) == []
    with pytest.raises(ValueError, match="fractions"):
        check(boxes / np.tile(sizes, 2), 0 * sizes)
    assert check(np.zeros((0, 4)), np.zeros((0, 2))) == []


def test_scaled_boxes_by_hand():
    assert to_pixels((0.25, 0.5, 0.5, 0.25), "fractions", 640, 480) == (160, 240, 320, 120)
    assert to_pixels((25, 50, 50, 25), "percent", 640, 480) == (160, 240, 320, 120)


# --- in a conversion -------------------------------------------------------------------------

PIXELS = [[10, 6, 20, 15], [0, 3, 8, 6], [20, 15, 20, 15]]


@pytest.mark.parametrize("unit, whole", [("fractions", 1), ("percent", 100)])
def test_conversion_scales_what_it_is_told(coco, unit, whole):
    coco.image(width=0, height=0, data=encode(picture(40, 30)))
    for x, y, w, h in PIXELS:
        bbox = [x / 40 * whole, y / 30 * whole, w / 40 * whole, h / 30 * whole]
        coco.box(bbox, area=bbox[2] * bbox[3] / 2)
    if unit == "fractions":
        with pytest.raises(ValueError, match="3 of 3 boxes lie within 0..1"):
            coco.convert()
        assert not coco.shards()
    info = coco.convert(box_units=unit)
    found = coco.ground_truth()["annotations"]
    np.testing.assert_allclose([a["bbox"] for a in found], PIXELS, atol=1e-9)
    np.testing.assert_allclose([a["area"] for a in found], [150, 24, 150])
    assert faults(info)["repaired boxes"][f"{unit} scaled to pixels"]["count"] == 3
    np.testing.assert_allclose(coco.examples()[0]["boxes"][0], [0.2, 0.25, 0.7, 0.75], rtol=1e-6)


def test_pixels_says_i_know(coco):
    coco.image()
    for number in range(6):
        coco.box([20 + number, 10, 30, 25])
    with pytest.raises(ValueError, match="6 of 6 boxes reach beyond the border"):
        coco.convert()
    info = coco.convert(box_units="pixels")
    assert info["num_objects"] == 6
    assert faults(info)["repaired boxes"]["clipped to the image"]["count"] == 6
    assert coco.ground_truth()["annotations"][0]["bbox"] == [20, 10, 20, 20]


def test_sizes_of_the_files_count_where_none_are_listed(coco):
    coco.image(width=0, height=0, data=encode(picture(40, 30)))
    for number in range(6):
        coco.box([20 + number, 10, 39, 29])
    with pytest.raises(ValueError, match="6 of 6 boxes reach beyond the border.*bottom corner"):
        coco.convert()
    assert not coco.shards()


VOC = """<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size>
{}</annotation>"""
OBJECT = (
    "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def fractions(box):
    x, y, w, h = box
    return x / 40, y / 30, (x + w) / 40, (y + h) / 30


def write_voc(root, boxes):
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    (root / "JPEGImages/a.jpg").write_bytes(encode(picture(40, 30)))
    objects = "".join(OBJECT.format(*fractions(box)) for box in boxes)
    (root / "Annotations/a.xml").write_text(VOC.format(objects))
    return root


def write_csv(root, boxes):
    root.mkdir(parents=True)
    (root / "a.jpg").write_bytes(encode(picture(40, 30)))
    lines = [f"a.jpg,{','.join(map(str, fractions(box)))},cat" for box in boxes]
    (root / "boxes.csv").write_text("\n".join(["image,xmin,ymin,xmax,ymax,class", *lines]))
    return root / "boxes.csv"


@pytest.mark.parametrize(
    "write, place",
    [
        (write_voc, r"object 1 of a\.xml has box \[0.25, 0.2, 0.5, 0.5\]"),
        (write_csv, r"line 2 has box \[0.25, 0.2, 0.5, 0.5\]"),
    ],
)
def test_fractions_in_other_formats(tmp_path, write, place):
    annotations, out = write(tmp_path / "in", PIXELS), tmp_path / "out"
    with pytest.raises(ValueError, match=f"3 of 3 boxes lie within 0..1.*{place}"):
        convert_annotations(annotations, out, progress=False)
    convert_annotations(annotations, out, progress=False, box_units="fractions")
    truth = json.loads((out / "coco_train.annotations.json").read_text())
    np.testing.assert_allclose([a["bbox"] for a in truth["annotations"]], PIXELS, atol=1e-9)


def test_formats_of_fractions_have_no_other_unit(tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match="box_units is percent, but yolo"):
        convert_annotations(tmp_path, tmp_path / "out", box_units="percent")
