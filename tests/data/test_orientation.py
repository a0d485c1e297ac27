"""Orientation tags: decided for the file of annotations, and the same wherever it is used."""

import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.images import check_image, decode_with_pillow
from ssd_centernet.data.orientation import decide_turning, read_orientation, shown_size
from ssd_centernet.evaluation.report_images import images_of_folder
from ssd_centernet.labels import LabelMap
from ssd_centernet.predict.image_files import read_picture
from ssd_centernet.predict.truth import Truth
from tests.data.coco_set import CATEGORIES, CocoSet, encode, faults

WIDTH, HEIGHT = 48, 32
BOX = (4, 6, 10, 8)  # In the stored pixels.
LABELS = LabelMap.from_categories(CATEGORIES)


def tag(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def stored() -> Image.Image:
    """Grey, with the box in red."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    x, y, w, h = BOX
    pixels[y : y + h, x : x + w] = (255, 0, 0)
    return Image.fromarray(pixels)


def red_box(pixels: np.ndarray) -> list[int]:
    """Find the red object again."""
    rows, columns = np.nonzero(pixels[..., 0].astype(int) - pixels[..., 1] > 150)
    return [int(n) for n in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]


def seen_box(orientation: int) -> tuple[list[int], tuple[int, int]]:
    """Where Pillow shows the object, and the size of the picture as shown."""
    data = encode(stored(), "PNG", exif=tag(orientation))
    with Image.open(io.BytesIO(data)) as image:
        shown = ImageOps.exif_transpose(image)
    return red_box(np.asarray(shown)), shown.size


ENDINGS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP"}


def write(coco: CocoSet, orientations, seen: bool, listed: bool = True, ending="png"):
    """One picture for each orientation, with boxes and sizes as shown or as stored."""
    for number, orientation in enumerate(orientations):
        options = {"lossless": True} if ending == "webp" else {}
        options |= {"quality": 95} if ending == "jpg" else {}
        data = encode(stored(), ENDINGS[ending], exif=tag(orientation), **options)
        box, size = seen_box(orientation) if seen else (list(BOX), (WIDTH, HEIGHT))
        width, height = size if listed else (0, 0)
        coco.image(f"{number}_{orientation}.{ending}", data, width, height).box(box, area=80.0)
    return coco


def converted_boxes(coco: CocoSet) -> tuple[list, list]:
    """Boxes of the ground truth, and where the object is in the stored pictures."""
    truth = coco.ground_truth()["annotations"]
    pictures = [tf.io.decode_image(e["encoded"], channels=3).numpy() for e in coco.examples()]
    return [a["bbox"] for a in truth], [red_box(p) for p in pictures]


def predicted_boxes(coco: CocoSet) -> list:
    """Where the object is in the pictures that predict works on, with these annotations."""
    files = [str(coco.image_dir / image["file_name"]) for image in coco.content["images"]]
    truth = Truth(coco.json, LABELS, files, [])
    return [red_box(read_picture(path, **truth.frame(path)).pixels) for path in files]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seen", [True, False])
def test_all_orientations_in_both_frames_and_everywhere(tmp_path, ending, seen):
    coco = write(CocoSet(tmp_path), range(1, 9), seen, ending=ending)
    coco.convert(num_shards=1)
    boxes, found = converted_boxes(coco)
    expected = [a["bbox"] for a in coco.content["annotations"]]
    assert boxes == expected
    np.testing.assert_allclose(found, expected, atol=1 if ending in ("jpg", "webp") else 0)
    assert predicted_boxes(coco) == found
    shown = images_of_folder(coco.image_dir, coco.json)(range(1, 9))
    np.testing.assert_allclose([red_box(shown[i + 1]) for i in range(8)], found, atol=1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_sizes_as_shown_are_read_from_the_head(tmp_path, ending):
    coco = write(CocoSet(tmp_path), range(1, 9), seen=True, ending=ending)
    for image in coco.content["images"]:
        size = (image["width"], image["height"])
        assert shown_size(coco.image_dir / image["file_name"]) == size
    (tmp_path / "text.jpg").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("text.jpg", "pipe.jpg", "gone.jpg"):
        assert shown_size(tmp_path / name) == (0, 0)


def test_half_turned_pictures_follow_the_others_of_their_file(tmp_path):
    coco = write(CocoSet(tmp_path), [3, 1, 2, 4, 6], seen=True)
    info = coco.convert(num_shards=1)
    boxes, found = converted_boxes(coco)
    assert boxes == found == predicted_boxes(coco)
    reasons = faults(info)["repaired images"]
    assert reasons == {
        "turned by its EXIF orientation, as its boxes are": {
            "count": 4,
            "first": ["0_3.png", "2_2.png", "3_4.png", "4_6.png"],
        }
    }


def test_alone_they_are_taken_as_stored_and_named(tmp_path):
    coco = write(CocoSet(tmp_path), [3, 1, 2, 4], seen=False)
    info = coco.convert(num_shards=1)
    boxes, found = converted_boxes(coco)
    assert boxes == found == predicted_boxes(coco)
    assert list(faults(info)["notes"].values()) == [
        {"count": 3, "first": ["0_3.png", "2_2.png", "3_4.png"]}
    ]


def test_listed_sizes_that_disagree_are_taken_one_by_one_and_noted(tmp_path):
    coco = write(CocoSet(tmp_path), [6, 8, 3], seen=True)
    write(coco, [5], seen=False)
    info = coco.convert(num_shards=1)
    boxes, found = converted_boxes(coco)
    assert boxes == found == predicted_boxes(coco)
    (note,) = [reason for reason in faults(info)["notes"] if "listed sizes" in reason]
    assert faults(info)["notes"][note]["first"] == ["2 turned, 1 stored"]


def test_without_listed_sizes_boxes_are_of_the_stored_pixels(tmp_path):
    coco = write(CocoSet(tmp_path), [6, 3, 8], seen=False, listed=False)
    coco.convert(num_shards=1)
    boxes, found = converted_boxes(coco)
    assert boxes == found == predicted_boxes(coco)


def test_prediction_on_one_picture_asks_the_others_of_its_file(tmp_path):
    coco = write(CocoSet(tmp_path), [3, 6], seen=True)
    coco.convert(num_shards=1)
    path = str(coco.image_dir / "0_3.png")
    truth = Truth(coco.json, LABELS, [path], [])
    pixels = read_picture(path, **truth.frame(path)).pixels
    assert red_box(pixels) == coco.content["annotations"][0]["bbox"]


def test_boxes_of_a_resized_copy_come_back_to_the_listed_pixels(tmp_path):
    """Listed sizes are twice those of the files; detections are wanted in the listed pixels."""
    coco = CocoSet(tmp_path)
    coco.image("a.png", encode(stored(), "PNG"), 2 * WIDTH, 2 * HEIGHT).box([8, 12, 20, 16])
    coco.convert()
    path = str(coco.image_dir / "a.png")
    truth = Truth(coco.json, LABELS, [path], [])
    picture = read_picture(path, **truth.frame(path))
    assert picture.scale == (0.5, 0.5)
    objects = truth.objects(1, picture.pixels.shape, picture.scale)
    expected = np.array([[6, 4, 14, 14]]) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    np.testing.assert_allclose(objects["boxes"], expected)


def test_only_heads_are_read_and_pipes_are_not(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    cut = encode(stored(), exif=tag(6))
    (tmp_path / "cut.jpg").write_bytes(cut[:-40])
    files = [(tmp_path / "pipe.jpg", (10, 20)), (tmp_path / "gone.jpg", (10, 20))]
    assert decide_turning(files).turned == 0
    assert decide_turning([*files, (tmp_path / "cut.jpg", (HEIGHT, WIDTH))]).turned == 1
    assert read_orientation(tmp_path / "cut.jpg") == 6
    assert read_orientation(tmp_path / "pipe.jpg") == 1


def test_a_tag_after_the_pixels_or_in_xmp_is_found(tmp_path):
    plain, tagged = (encode(stored(), "PNG", **o) for o in ({}, {"exif": tag(8)}))
    start = tagged.index(b"eXIf") - 4
    chunk = tagged[start : start + 12 + int.from_bytes(tagged[start : start + 4], "big")]
    late = plain[:-12] + chunk + plain[-12:]
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for name, data, expected in (
        ("late.png", late, 8),
        ("xmp.jpg", encode(stored(), xmp=xmp), 6),
        ("plain.png", plain, 1),
        ("odd.jpg", encode(stored(), exif=tag(77)), 1),
    ):
        (tmp_path / name).write_bytes(data)
        assert read_orientation(tmp_path / name) == expected, name
        upright = decode_with_pillow(check_image(data, upright=True).encoded)
        assert upright.shape[0] == (WIDTH if expected > 4 else HEIGHT), name


@pytest.mark.parametrize("box", ["turned", "stored", "both"])
def test_a_table_without_sizes_is_read_by_what_its_boxes_fit(box, tmp_path):
    """Stored 48 wide and 32 high, shown 32 wide and 48 high."""
    corners = {"turned": (4, 30, 14, 47), "stored": (30, 4, 47, 14), "both": (4, 6, 14, 14)}[box]
    for name, orientation in (("a.png", 6), ("b.png", 1)):
        (tmp_path / name).write_bytes(encode(stored(), "PNG", exif=tag(orientation)))
    rows = [("a.png", *corners, "car"), ("b.png", 4, 6, 14, 14, "car")]
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    info = convert_annotations(table, tmp_path / "out", split="train", num_shards=1)
    truth = json.loads(next((tmp_path / "out").glob("*train.annotations.json")).read_text())
    first = truth["images"][0]
    size = (HEIGHT, WIDTH) if box == "turned" else (WIDTH, HEIGHT)
    assert (first["width"], first["height"]) == size
    left, top, right, bottom = corners
    assert truth["annotations"][0]["bbox"] == [left, top, right - left, bottom - top]
    assert info["num_objects"] == 2 and "dropped boxes" not in info["report"]
    notes = " ".join(info["report"].get("notes", {}))
    assert ("list their width and height as shown" in notes) == (box == "both")
    assert ("EXIF orientation ignored" in notes) == (box != "turned")
