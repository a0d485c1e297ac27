"""Exports of VoTT and Open Images are recognised by their content and read like any format."""

import csv
import json
import math
from urllib.parse import quote

import pytest

from ssd_centernet.data.readers import detect_format, read_annotations
from ssd_centernet.labels import LabelMap
from tests.data.readers.export_set import BOXES, EXPECTED, found, images, reasons

__all__ = ["images"]

# --- VoTT ------------------------------------------------------------------------------------


def vott(prefix="file:C:/Users/some%20one/photos/") -> dict:
    assets = {}
    for number, (name, boxes) in enumerate(BOXES.items()):
        regions = [
            {
                "id": f"{number}-{k}",
                "type": "RECTANGLE",
                "tags": [c],
                "boundingBox": {"height": h, "width": w, "left": x, "top": y},
                "points": [{"x": x, "y": y}],
            }
            for k, (x, y, w, h, c) in enumerate(boxes)
        ]
        asset = {"format": "jpg", "id": f"{number}", "name": quote(name), "state": 2, "type": 1}
        asset |= {"path": prefix + quote(name), "size": {"width": 40, "height": 30}}
        assets[f"{number}"] = {"asset": asset, "regions": regions, "version": "2.2.0"}
    tags = [{"name": "emu", "color": "#5db300"}, {"name": "cat", "color": "#e81123"}]
    return {"name": "birds", "securityToken": "x", "version": "2.2.0", "tags": tags} | {
        "id": "q",
        "assets": assets,
    }


def read_vott(images, content, **options):
    path = images.parent / "birds-export.json"
    path.write_text(json.dumps(content))
    assert detect_format(path) == "vott"
    return read_annotations(path, **options)


@pytest.mark.parametrize(
    "prefix",
    ["file:C:/Users/some%20one/photos/", "file:/home/x/", "https://store.example/a/", "images/"],
)
def test_vott(images, prefix):
    source = read_vott(images, vott(prefix))
    assert found(source) == EXPECTED and not source.upright
    assert [c["name"] for c in source.content["categories"]] == ["emu", "cat"]
    shared = LabelMap(["cat", "emu", "owl"])
    assert found(read_vott(images, vott(prefix), label_map=shared)) == EXPECTED


def test_assets_of_vott_that_are_no_pictures_or_were_never_opened(images):
    content = vott()
    content["assets"]["2"]["asset"]["state"] = 0
    content["assets"]["1"]["asset"].update(type=3, path="file:/x/film.mp4#t=1.5")
    content["assets"]["0"]["regions"][0]["tags"] = ["emu", "cat"]
    content["assets"]["0"]["regions"][1].update(tags=[], type="POLYGON")
    source = read_vott(images, content)
    assert found(source) == {"a.jpg": [((10, 6, 20, 15), "emu", 0), ((10, 6, 20, 15), "cat", 0)]}
    counts = reasons(source)
    assert counts["dropped images", "video or a frame of one: no picture"] == 1
    assert counts["dropped images", "was never opened in VoTT: left out"] == 1
    assert counts["dropped boxes", "no class name"] == 1


@pytest.mark.parametrize("entry", [None, 3, {"asset": None}, {"asset": {"id": "x"}}])
def test_assets_of_vott_without_a_path_are_refused(images, entry):
    content = vott()
    content["assets"]["9"] = entry
    with pytest.raises(ValueError, match="birds-export.json: entry 3 of 'assets' has no asset"):
        read_vott(images, content)


# --- Open Images -----------------------------------------------------------------------------

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside"
).split(",")
CODES = {"emu": "/m/0dbvp", "cat": "/m/01yrx"}


def open_images(images, *, change=None, names=True):
    """Write the table and the list of classes."""
    path = images.parent / "train-annotations-bbox.csv"
    rows = []
    for name, boxes in BOXES.items():
        for x, y, w, h, c in boxes:
            corners = (x / 40, (x + w) / 40, y / 30, (y + h) / 30)
            rows.append([name[:-4], "xclick", CODES[c], 1, *corners, 0, 0, 0, 0, 0])
    if change:
        change(rows)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    if names:
        text = "".join(f"{code},{name}\n" for name, code in CODES.items())
        (images.parent / "class-descriptions-boxable.csv").write_text(text)
    assert detect_format(path) == "openimages"
    return path


def test_open_images(images):
    source = read_annotations(open_images(images), image_dir=images)
    assert found(source) == {name: EXPECTED[name] for name in ("a.jpg", "b b.jpg")}
    assert reasons(source) == {("notes", "picture that no annotation lists: not used"): 1}
    assert [c["name"] for c in source.content["categories"]] == ["cat", "emu"]


def test_groups_and_pictures_that_were_not_fetched(images):
    def change(rows):
        rows[0][10], rows[1][10], rows[2][10] = 1, -1, ""
        rows.append(["0001eeaf4aed83f9", "xclick", CODES["cat"], 1, 0.1, 0.2, 0.1, 0.2, *[0] * 5])

    source = read_annotations(open_images(images, change=change), image_dir=images)
    assert [crowd for _, _, crowd in found(source)["a.jpg"]] == [1, 0]
    assert reasons(source)["notes", "IsGroupOf is 1: read as a crowd region"] == 1
    assert reasons(source)["notes", "box of a picture that is not in image_dir: not used"] == 1
    (images / "a.jpg").unlink()
    (images / "b b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="none of the 3 pictures of the Open Images table"):
        read_annotations(open_images(images, change=change), image_dir=images)


def test_classes_that_were_looked_for_and_are_absent_are_no_boxes(images):
    def change(rows):
        rows[0][3], rows[2][3] = 0, "0.0"

    source = read_annotations(open_images(images, change=change), image_dir=images)
    # The second picture stays, as one without objects.
    assert found(source) == {"a.jpg": EXPECTED["a.jpg"][1:], "b b.jpg": []}
    reason = "Confidence is 0, a class that was looked for and is not there: left out"
    assert reasons(source)["notes", reason] == 2


def test_codes_without_names_stay_and_are_noted(images):
    source = read_annotations(open_images(images, names=False), image_dir=images)
    assert {c for boxes in found(source).values() for _, c, _ in boxes} == set(CODES.values())
    reason = "class has a code and no name: put class-descriptions-boxable.csv beside the table"
    assert reasons(source)["notes", reason] == 3


@pytest.mark.parametrize(
    "column, value, message",
    [
        (4, "10", "line 3: XMin is '10', expected a fraction 0..1"),
        (7, "x", "line 3: YMax is 'x', expected a fraction"),
        (5, str(math.nan), "line 3: XMax is 'nan'"),
        (10, "maybe", "line 3: IsGroupOf is 'maybe', expected 0, 1 or -1"),
    ],
)
def test_other_values_of_open_images_are_refused_with_their_line(images, column, value, message):
    def change(rows):
        rows[1][column] = value

    with pytest.raises(ValueError, match=message):
        read_annotations(open_images(images, change=change), image_dir=images)


# --- exports in COCO's form ------------------------------------------------------------------


def test_other_json_files_are_coco(tmp_path):
    for content in ({"images": [], "categories": []}, [{"image_id": 1, "score": 0.5}]):
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content))
        assert detect_format(path) == "coco"
    (tmp_path / "one.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(ValueError, match="one.xml looks like none of the formats"):
        detect_format(tmp_path / "one.xml")
