"""Exports of CVAT and Label Studio are recognised by their content and read like any format."""

import json
from urllib.parse import quote

import pytest

from ssd_centernet.data.readers import detect_format, read_annotations
from tests.data.readers.export_set import BOXES, EXPECTED, SIZE, found, images, reasons

__all__ = ["images"]

# --- CVAT ------------------------------------------------------------------------------------


def cvat(shapes=None, *, attributes="", head="", extra="") -> str:
    images = ""
    for number, (name, boxes) in enumerate(BOXES.items()):
        inner = "".join(
            f'<box label="{c}" source="manual" occluded="0" xtl="{x:.2f}" ytl="{y:.2f}" '
            f'xbr="{x + w:.2f}" ybr="{y + h:.2f}" z_order="0"></box>'
            for x, y, w, h, c in boxes
        )
        if shapes is not None:
            inner = shapes if name == "a.jpg" else ""
        images += (
            f'<image id="{number}" name="{name}" width="{SIZE[0]}" height="{SIZE[1]}"{attributes}>'
            f"{inner}</image>"
        )
    labels = "".join(f"<label><name>{n}</name><type>any</type></label>" for n in ("emu", "cat"))
    return (
        f"{head}<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task>"
        f"</meta>{images}{extra}</annotations>"
    )


def read_cvat(images, text, **options):
    path = images.parent / "annotations.xml"
    path.write_text(text, encoding="utf-8")
    assert detect_format(path) == detect_format(images.parent) == "cvat"
    return read_annotations(path, **options)


def test_cvat(images):
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    source = read_cvat(images, cvat(head=head))
    assert found(source) == EXPECTED and reasons(source) == {} and source.upright
    assert [c["name"] for c in source.content["categories"]] == ["emu", "cat"]
    assert [(i["width"], i["height"]) for i in source.content["images"]] == [SIZE] * 3
    assert found(read_annotations(images.parent)) == EXPECTED
    only = images.parent / "list.txt"
    only.write_text("c.jpg\nb b.jpg\n")
    chosen = read_annotations(images.parent, image_list=only)
    assert list(found(chosen)) == ["b b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "shape, box",
    [
        ('<polygon label="cat" points="1,2;9,2;5,8.5"/>', (1, 2, 8, 6.5)),
        ('<ellipse label="cat" cx="10" cy="9" rx="4" ry="2.5"/>', (6, 6.5, 8, 5)),
        ('<mask label="cat" rle="3, 2" left="3" top="4" width="5" height="6"/>', (3, 4, 5, 6)),
        (
            '<box label="cat" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>',
            (13, 7, 4, 10),
        ),
        (
            '<box label="cat" xtl="10" ytl="10" xbr="14" ybr="14" rotation="45"/>',
            (12 - 8**0.5, 12 - 8**0.5, 2 * 8**0.5, 2 * 8**0.5),
        ),
    ],
)
def test_other_shapes_of_cvat_have_the_box_around_them(images, shape, box):
    source = read_cvat(images, cvat(shape))
    ((measured, name, _),) = found(source)["a.jpg"]
    assert measured == pytest.approx(box, abs=1e-5) and name == "cat"
    ((kind, _),) = reasons(source)
    assert kind == "repaired boxes"


@pytest.mark.parametrize(
    "shape, reason",
    [
        ('<polyline label="cat" points="1,2;3,4"/>', "polyline: it has no box"),
        ('<points label="cat" points="1,2"/>', "points: it has no box"),
        ('<cuboid label="cat" xtl1="1"/>', "cuboid: it has no box"),
        ('<skeleton label="cat"><points label="nose"/></skeleton>', "skeleton: it has no box"),
        ('<polygon label="cat" points="1,2;3,x;4,5"/>', "points are not pairs of numbers"),
        ('<box label="cat" xtl="1" ytl="2" xbr="３" ybr="4"/>', "corners are not four numbers"),
        ('<box label=" " xtl="1" ytl="2" xbr="3" ybr="4"/>', "no class name"),
    ],
)
def test_shapes_of_cvat_without_a_box_are_counted(images, shape, reason):
    source = read_cvat(images, cvat(shape))
    assert found(source) == {name: [] for name in BOXES}
    assert reasons(source) == {("dropped boxes", reason): 1}


def test_tags_tracks_and_crowds_of_cvat(images):
    crowd = (
        '<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4">'
        '<attribute name="is_crowd">true</attribute></box><tag label="sunny"/>'
    )
    track = '<track id="7" label="emu"><box frame="0" xtl="1" ytl="2" xbr="3" ybr="4"/></track>'
    source = read_cvat(images, cvat(crowd, extra=track))
    assert found(source)["a.jpg"] == [((1, 2, 2, 2), "cat", 1)]
    assert reasons(source) == {
        ("notes", "tag of a whole picture: not used"): 1,
        ("dropped boxes", "track of a video: not read"): 1,
    }


def test_subsets_of_a_cvat_project(images):
    text = cvat(attributes=' subset="Train"')
    assert found(read_cvat(images, text)) == EXPECTED
    with pytest.raises(ValueError, match="no subset 'val': its images are of Train"):
        read_cvat(images, text, split="val")
    assert found(read_cvat(images, cvat(attributes=' subset="default"'), split="val")) == EXPECTED


@pytest.mark.parametrize(
    "text, message",
    [
        ("<annotations><track id='1'/></annotations>", "holds 1 tracks of a video and no pictures"),
        ("<annotations></annotations>", "is no export 'CVAT for images 1.1'"),
        ("<annotations><image id='1'/></annotations>", "image 1 has no name"),
        ("<annotations><image", "is not valid XML"),
    ],
)
def test_other_files_of_cvat_are_refused(images, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_cvat(images, text)
    assert "annotations.xml" in str(error.value)


# --- Label Studio ----------------------------------------------------------------------------


def test_boxes_of_pictures_that_were_turned_in_label_studio_are_counted(images):
    content = tasks()
    turned = content[0]["annotations"][0]["result"][0]
    turned["image_rotation"] = 90
    source = read_tasks(images, content)
    reason = "picture was turned in Label Studio (image_rotation): its boxes are not clear"
    entry = source.report.to_dict()["dropped boxes"][reason]
    assert entry["count"] == 1 and entry["first"][0].endswith("(1a2b3c4d-a.jpg): 90")
    kept = {name: boxes[:] for name, boxes in EXPECTED.items()}
    del kept["a.jpg"][0]
    assert found(source) == kept


def region(x, y, w, h, name, **value) -> dict:
    """A rectangle in per cent of the picture."""
    width, height = SIZE
    return {
        "id": f"r{x}{y}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * x / width,
            "y": 100 * y / height,
            "width": 100 * w / width,
            "height": 100 * h / height,
            "rotation": 0,
            "rectanglelabels": [name],
            **value,
        },
    }


def tasks(prefix="/data/upload/4/1a2b3c4d-") -> list:
    return [
        {
            "id": number,
            "data": {"image": prefix + quote(name)},
            "annotations": [{"id": number, "result": [region(*box) for box in boxes]}],
            "predictions": [{"result": [region(1, 1, 2, 2, "emu")]}],
        }
        for number, (name, boxes) in enumerate(BOXES.items(), 11)
    ]


def read_tasks(images, content, **options):
    path = images.parent / "project-1.json"
    path.write_text(json.dumps(content))
    assert detect_format(path) == "labelstudio"
    return read_annotations(path, **options)


@pytest.mark.parametrize(
    "prefix",
    [
        "/data/upload/4/1a2b3c4d-",
        "/data/upload/",
        "/data/local-files/?d=photos/",
        "s3://bucket/photos/",
        "https://host.example/photos/",
        "C:\\photos\\",
    ],
)
def test_label_studio(images, prefix):
    source = read_tasks(images, tasks(prefix))
    assert found(source) == EXPECTED and source.upright
    assert {why for _, why in reasons(source)} <= {
        "found in image_dir by the end of the path",
        "found by a name with percent codes",
        "found without Label Studio's digits before the name",
    }
    assert [(i["width"], i["height"]) for i in source.content["images"]] == [SIZE, SIZE, (0, 0)]


def test_the_short_form_of_label_studio(images):
    content = [
        {
            "id": number,
            "image": f"/data/upload/4/{name}",
            "label": [
                {**r["value"], "original_width": 40, "original_height": 30}
                for r in (region(*box) for box in boxes)
            ],
            "annotator": 1,
        }
        for number, (name, boxes) in enumerate(BOXES.items())
    ]
    assert found(read_tasks(images, content)) == EXPECTED


def shape(result, **value):
    """Return a result of another kind of region, with its own value."""
    return {**result, "value": {"rectanglelabels": ["cat"], **value}}


@pytest.mark.parametrize(
    "value, box",
    [
        ({"points": [[25, 20], [75, 20], [50, 60]]}, (10, 6, 20, 12)),
        ({"x": 50, "y": 50, "radiusX": 25, "radiusY": 20}, (10, 9, 20, 12)),
        # Turned by 90 degrees about its left top corner: it lies left of it.
        ({"x": 50, "y": 20, "width": 25, "height": 20, "rotation": 90}, (14, 6, 6, 10)),
    ],
)
def test_other_regions_of_label_studio(images, value, box):
    content = tasks()
    content[0]["annotations"][0]["result"] = [shape(region(1, 1, 2, 2, "cat"), **value)]
    source = read_tasks(images, content)
    ((measured, name, _),) = found(source)["a.jpg"]
    assert measured == pytest.approx(box) and name == "cat"
    assert sum(n for (kind, _), n in reasons(source).items() if kind == "repaired boxes") == 1


@pytest.mark.parametrize(
    "value, reason",
    [
        ({"rle": [1, 2], "format": "rle"}, "brush mask: not read"),
        ({"x": 5, "y": 5, "width": 0.7}, "key point or line: it has no box"),
        ({"x": 5, "y": None, "width": 7, "height": 3}, "box is not four numbers"),
        ({"points": [[1, 2], [3, 4]]}, "points are not pairs of numbers"),
        ({"x": 5, "y": 5, "width": 7, "height": 3, "rectanglelabels": []}, "no class name"),
    ],
)
def test_regions_of_label_studio_without_a_box_are_counted(images, value, reason):
    content = tasks()
    content[0]["annotations"][0]["result"] = [shape(region(1, 1, 2, 2, "cat"), **value)]
    source = read_tasks(images, content)
    assert found(source)["a.jpg"] == []
    assert reasons(source)["dropped boxes", reason] == 1


def test_tasks_of_label_studio_that_were_skipped_or_labelled_twice(images):
    content = tasks()
    content[0]["annotations"].append({"ground_truth": True, "result": [region(1, 2, 3, 4, "emu")]})
    content[1]["annotations"].insert(0, {"was_cancelled": True, "result": []})
    content[2]["annotations"] = []
    source = read_tasks(images, content)
    assert found(source) == {
        "a.jpg": [((1, 2, 3, 4), "emu", 0)],
        "b b.jpg": EXPECTED["b b.jpg"],
    }
    assert reasons(source)["dropped images", "task was skipped or not annotated: left out"] == 1
    reason = "task with several annotations: the one marked as ground truth, or the first, used"
    assert reasons(source)["notes", reason] == 1
    assert reasons(source)["notes", "picture that no annotation lists: not used"] == 1


def test_a_region_with_its_label_and_text_apart_is_one_object(images):
    box = region(10, 6, 20, 15, "emu")
    plain = {**box, "type": "rectangle", "value": {**box["value"]}}
    del plain["value"]["rectanglelabels"]
    label = {**plain, "type": "labels", "value": {**plain["value"], "labels": ["emu"]}}
    text = {**plain, "type": "textarea", "value": {**plain["value"], "text": ["No. 7"]}}
    choice = {"id": "q", "type": "choices", "value": {"choices": ["day"]}}
    content = tasks()[:1]
    content[0]["annotations"][0]["result"] = [plain, label, text, choice]
    source = read_tasks(images, content)
    assert found(source)["a.jpg"] == EXPECTED["a.jpg"][:1]
    assert reasons(source)["notes", "result that marks no region: not used"] == 1


@pytest.mark.parametrize(
    "data, message",
    [
        ({"left": "/x/a.jpg", "right": "/x/b.jpg"}, "task 11 has 2 pictures in its data"),
        ({"text": "hello"}, "task 11 has 0 pictures in its data"),
        ({}, "task 11 has 0 pictures"),
    ],
)
def test_tasks_without_one_picture_are_refused(images, data, message):
    content = tasks()
    content[0]["data"] = data
    with pytest.raises(ValueError, match=message):
        read_tasks(images, content)
