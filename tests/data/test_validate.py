"""Each fault of annotations and image files has an answer, and the report names it."""

import os
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.readers.coco_objects import COPY
from ssd_centernet.data.validate import WITH_IMAGE, WITH_MISSING, check_box, format_report
from ssd_centernet.labels import LabelMap
from tests.data.coco_set import CocoSet, encode, faults, picture

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def coco(tmp_path):
    return CocoSet(tmp_path)


def only_entry(info: dict, kind: str) -> tuple[str, int]:
    """The single reason of a report that has one kind of entries."""
    report = faults(info)
    if kind == "dropped images":  # Their boxes are told with them.
        assert set(report.pop("dropped boxes", ())) <= {WITH_IMAGE, WITH_MISSING}
    assert list(report) == [kind], report
    ((reason, entry),) = report[kind].items()
    return reason, entry["count"]


# --- boxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bbox, reason",
    [
        ([5, 5, 0, 5], "zero or negative"),
        ([5, 5, 5, -1], "zero or negative"),
        ([40, 5, 5, 5], "outside the image"),
        ([-9, 5, 9, 5], "outside the image"),
        ([5, 30.5, 5, 5], "outside the image"),
        ([NAN, 5, 5, 5], "not four finite"),
        ([5, 5, INF, 5], "not four finite"),
        ([5, 5, 5], "not four finite numbers"),
        (["a", 5, 5, 5], "not four finite numbers"),
        (None, "not four finite numbers"),
    ],
)
def test_unusable_boxes_are_dropped(coco, bbox, reason):
    coco.image().box().box([0, 0, 1, 1])
    coco.content["annotations"][-1]["bbox"] = bbox
    info = coco.convert()
    found, count = only_entry(info, "dropped boxes")
    assert reason in found and count == 1
    assert info["num_objects"] == 1 == len(coco.ground_truth()["annotations"])
    (item,) = info["report"]["dropped boxes"][found]["first"]
    assert item.split(":")[0] == "annotation 2 of a.jpg"


def test_box_across_the_border_is_clipped():
    result = check_box(
        {"bbox": [-5, 20, 15, 20], "area": 300.0, "category_id": 4, "iscrowd": 0},
        width=40,
        height=30,
    )
    assert result.box.bbox == (0, 20, 10, 10)
    assert result.box.area == 100.0
    assert result.repairs == ["clipped to the image"]


def test_rounding_at_the_border_is_no_repair():
    annotation = {"bbox": [10, 10, 30.004, 5], "area": 20.0, "category_id": 4, "iscrowd": 0}
    result = check_box(annotation, width=40, height=30)
    assert result.box.bbox == (10, 10, 30, 5) and result.box.area == 20.0
    assert result.repairs == []


@pytest.mark.parametrize("area", [None, 0, -3.0, NAN, "x"])
def test_area_is_that_of_the_box_where_it_is_missing(area):
    annotation = {"bbox": [1, 2, 4, 5], "area": area, "category_id": 4, "iscrowd": 0}
    result = check_box(annotation, width=40, height=30)
    assert result.box.area == 20.0 and "area missing" in result.repairs[0]


def test_missing_iscrowd_is_zero(coco):
    info = coco.image().box(without=["iscrowd"]).box(iscrowd=1).convert()
    assert only_entry(info, "repaired boxes") == ("iscrowd missing: set to 0", 1)
    assert [a["iscrowd"] for a in coco.ground_truth()["annotations"]] == [0, 1]


def test_annotation_ids_are_numbered_from_one(coco):
    coco.image().box(id=0).box((1, 1, 5, 5), id=0).box((2, 2, 5, 5), without=["id"])
    info = coco.convert()
    assert only_entry(info, "repaired boxes") == ("annotation id used twice: given a new number", 1)
    assert [a["id"] for a in coco.ground_truth()["annotations"]] == [1, 2, 3]


def test_exact_copies_are_left_out(coco):
    coco.image(id=5).box(id=7).box(id=7).image("a.jpg", id=5)
    info = coco.convert()
    assert info["num_images"] == info["num_objects"] == 1
    assert {kind: list(v) for kind, v in faults(info).items()} == {
        "repaired images": ["listed twice: one copy kept"],
        "repaired boxes": [COPY],
    }


def test_annotation_of_an_unlisted_image(coco):
    info = coco.image().box().box(image_id=99).convert()
    assert only_entry(info, "dropped boxes") == ("image_id is not listed", 1)


# --- categories ------------------------------------------------------------------------------


def test_unknown_categories_are_refused_or_dropped(coco):
    coco.image().box().box(category_id=2).box(category_id=2)
    with pytest.raises(ValueError, match=r"id 2 \(2 boxes, first .*drop_unknown_categories"):
        coco.convert()
    assert not coco.out.exists()
    info = coco.convert(drop_unknown_categories=True)
    assert only_entry(info, "dropped boxes") == ("unknown category", 2)
    assert info["num_objects"] == 1


def test_a_label_map_chooses_categories(coco):
    coco.image().box().box(category_id=1)
    chosen = LabelMap(["emu"], [4])
    with pytest.raises(ValueError, match=r"'cat' \(id 1\) \(1 box\)"):
        coco.convert(label_map=chosen)
    coco.convert(label_map=chosen, drop_unknown_categories=True)
    np.testing.assert_array_equal(coco.examples()[0]["classes"], [0])
    assert coco.ground_truth()["categories"] == [{"id": 4, "name": "emu"}]


def test_a_label_map_of_other_names_is_refused(coco):
    coco.image().box()
    with pytest.raises(
        ValueError, match=r"that the label map, given or of .*'emu' \(id 4\) \(1 box"
    ):
        coco.convert(label_map=LabelMap(["cat", "gnu"], [1, 4]))


# --- image lists -----------------------------------------------------------------------------


def test_missing_images_are_dropped_up_to_a_share(coco):
    coco.image("a.jpg").box().image("b.jpg", None).box()
    info = coco.convert(max_missing=0.5)
    assert only_entry(info, "dropped images") == ("listed but missing", 1)
    assert [i["file_name"] for i in coco.ground_truth()["images"]] == ["a.jpg"]
    message = f"1 of 2 .*{re.escape(str(coco.image_dir))}.*b.jpg.*image_dir"
    with pytest.raises(FileNotFoundError, match=message):
        coco.convert(max_missing=0.4, overwrite=True)


def test_no_usable_image_is_an_error(coco):
    coco.image("a.jpg", b"nothing")
    with pytest.raises(ValueError, match="(?s)No image .* could be used.*not an image"):
        coco.convert()
    assert coco.shards() == []


def test_one_image_id_for_two_files_is_refused(coco):
    coco.image("a.jpg", id=3).image("b.jpg", id=3)
    with pytest.raises(ValueError, match="Two files have the image id 3, 'a.jpg' and 'b.jpg'"):
        coco.convert()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../b.jpg", "x/../../b.jpg", "C:\\b.jpg", "\\b.jpg", "..\\b.jpg"]
)
def test_names_that_lead_outside_are_not_opened(coco, name):
    """They are looked for in the image folder, by their last parts."""
    (coco.folder / "b.jpg").write_bytes(encode(picture()))
    info = coco.image("a.jpg").box().image(name, None).box().convert()
    assert info["num_images"] == 1
    assert only_entry(info, "dropped images") == ("listed but missing", 1)
    (coco.image_dir / "sub").mkdir()
    (coco.image_dir / "sub" / os.path.basename(name.replace("\\", "/"))).write_bytes(
        encode(picture())
    )
    assert coco.convert(overwrite=True)["num_images"] == (2 if name[-1] == "g" else 1)


def test_image_ids_that_are_no_numbers_are_numbered(coco):
    coco.image("a.jpg", id="left").box().image("b.jpg", id="right").box((1, 2, 3, 4))
    info = coco.convert()
    assert only_entry(info, "notes") == ("image ids are not numbers: numbered from 1", 2)
    truth = coco.ground_truth()
    assert [(i["id"], i["original_id"]) for i in truth["images"]] == [(1, "left"), (2, "right")]
    assert [a["image_id"] for a in truth["annotations"]] == [1, 2]
    assert [e["source_id"] for e in coco.examples()] == [1, 2]


def test_ids_in_json_records_and_ground_truth_agree_for_numeric_strings(coco):
    coco.image("a.jpg", id="0139").box()
    coco.convert()
    assert coco.ground_truth()["images"][0]["id"] == 139 == coco.examples()[0]["source_id"]


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_other_json_is_refused(coco, text):
    from ssd_centernet.data.readers.coco import read_coco

    coco.json.write_text(text)
    with pytest.raises(ValueError, match="instances.json is (not valid|not a COCO)"):
        read_coco(coco.json, coco.image_dir)


# --- image files -----------------------------------------------------------------------------


def stored(coco: CocoSet) -> tuple[dict, Image.Image]:
    (example,) = coco.examples()
    pixels = tf.io.decode_image(example["encoded"], channels=3).numpy()
    assert pixels.shape == (example["height"], example["width"], 3)
    return example, pixels


def test_one_channel_jpeg_is_kept(coco):
    data = encode(picture(mode="L"))
    assert faults(coco.image("a.jpg", data).box().convert()) == {}
    assert stored(coco)[0]["encoded"] == data


def test_png_called_jpg_is_stored_as_png(coco):
    data = encode(picture(), "PNG")
    assert faults(coco.image("a.jpg", data).box().convert()) == {}
    assert stored(coco)[0]["encoded"] == data
    record = next(iter(tf.data.TFRecordDataset(str(coco.out / coco.shards()[0]))))
    features = tf.train.Example.FromString(record.numpy()).features.feature
    assert features["image/format"].bytes_list.value == [b"png"]


@pytest.mark.parametrize(
    "kind, mode", [("JPEG", "CMYK"), ("BMP", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_other_formats_are_encoded_anew(coco, kind, mode):
    original = picture(mode=mode)
    info = coco.image("a.jpg", encode(original, kind)).box().convert()
    reason, _ = only_entry(info, "repaired images")
    assert "encoded again" in reason
    _, pixels = stored(coco)
    difference = pixels.astype(int) - np.asarray(original.convert("RGB"), int)
    assert np.abs(difference).max() <= 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_images_are_dropped(coco, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    data = encode(noise, kind)
    coco.image("good.jpg").box().image("a.jpg", data[: len(data) * 2 // 3], 90, 90).box()
    assert only_entry(coco.convert(), "dropped images") == ("truncated or corrupt", 1)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty: 0 bytes"),
        (b"\xff\xd8\xff", "not an image, or of a kind that Pillow cannot read"),
        (b"<html>not found</html>", "not an image, or of a kind that Pillow cannot read"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC, which Pillow cannot read: convert it to JPEG"),
    ],
)
def test_files_that_are_no_image_are_dropped(coco, data, reason):
    coco.image("good.jpg").box().image("a.jpg", b"x").box()
    (coco.image_dir / "a.jpg").write_bytes(data)
    assert only_entry(coco.convert(), "dropped images") == (reason, 1)


def test_images_beyond_max_pixels_are_dropped_unread(coco, monkeypatch):
    def refuse(*_):
        raise AssertionError("was unpacked")

    coco.image("a.png", encode(Image.new("1", (20_000, 20_000)), "PNG"), 20_000, 20_000)
    coco.image("good.jpg").box()
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", refuse)
    reason, count = only_entry(coco.convert(), "dropped images")
    assert "max_pixels" in reason and count == 1


def test_max_pixels_is_the_largest_size_that_is_kept(coco):
    coco.image("a.jpg", width=40, height=30).box()
    assert coco.convert(max_pixels=1200)["num_images"] == 1
    with pytest.raises(ValueError, match="(?s)No image.*max_pixels = 1199"):
        coco.convert(max_pixels=1199, overwrite=True)


def test_missing_size_is_taken_from_the_file(coco):
    coco.image("a.jpg", encode(picture(40, 30)), width=0, height=0).box((10, 6, 20, 15))
    reason, _ = only_entry(coco.convert(), "notes")
    assert "taken from the file" in reason
    example, _ = stored(coco)
    np.testing.assert_allclose(example["boxes"], [[0.2, 0.25, 0.7, 0.75]], rtol=1e-6)


def test_boxes_of_a_resized_copy_are_scaled(coco):
    coco.image("a.jpg", encode(picture(40, 30)), width=80, height=60).box((20, 12, 40, 30))
    reason, _ = only_entry(coco.convert(), "repaired images")
    assert "boxes scaled" in reason
    (annotation,) = coco.ground_truth()["annotations"]
    assert annotation["bbox"] == [10, 6, 20, 15] and annotation["area"] == 30.0
    np.testing.assert_allclose(stored(coco)[0]["boxes"], [[0.2, 0.25, 0.7, 0.75]], rtol=1e-6)


def test_another_aspect_ratio_drops_the_image(coco):
    coco.image("good.jpg").box()
    coco.image("a.jpg", encode(picture(40, 30)), width=40, height=40).box()
    reason, _ = only_entry(coco.convert(), "dropped images")
    assert "aspect ratio" in reason


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_exif_orientation_is_ignored_for_boxes_of_stored_pixels(coco):
    data = encode(picture(40, 30), exif=exif(6))
    info = coco.image("a.jpg", data, width=40, height=30).box().convert()
    assert "ignored" in only_entry(info, "notes")[0]
    assert stored(coco)[0]["encoded"] == data


def test_exif_orientation_is_applied_where_the_listed_size_is_the_turned_one(coco):
    # Orientation 6 is shown turned clockwise: what is bright at the right comes to the bottom.
    data = encode(picture(40, 30), exif=exif(6))
    info = coco.image("a.jpg", data, width=30, height=40).box().convert()
    assert "turned by its EXIF" in only_entry(info, "repaired images")[0]
    example, pixels = stored(coco)
    assert pixels.shape == (40, 30, 3)
    assert pixels[-1].mean() > 240 and pixels[0].mean() < 15
    # The tag is gone, so that nobody turns the picture again.
    assert b"Exif" not in example["encoded"]


def test_report_is_readable():
    text = format_report({"dropped boxes": {"bad": {"count": 7, "first": [1, 2, 3, 4, 5]}}})
    assert text == "dropped boxes:\n        7  bad (1, 2, 3, 4, 5, ...)"
    assert format_report({}) == "All images and boxes are good."
