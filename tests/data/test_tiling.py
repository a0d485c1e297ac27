"""Pictures cut into tiles by the conversion: what is stored of which object, and what is told."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.convert_formats import told
from ssd_centernet.data.images import CheckedImage, check_image
from ssd_centernet.data.tiling import Cutting
from ssd_centernet.data.validate import Box, Report
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.runs.own_data import images_of_split
from tests.data.coco_set import CocoSet, encode, faults, picture

TILES = Tiles(40, 10)


@pytest.fixture
def coco(tmp_path):
    return CocoSet(tmp_path)


def _noise(width, height, mode="RGB"):
    shape = (height, width, {"L": 1, "RGB": 3, "RGBA": 4}[mode])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)


def test_one_picture_by_hand(coco):
    """Columns begin at 0 and 30; there is one row."""
    coco.image("b/a.png", encode(_noise(70, 40), "PNG"), width=70, height=40, id=139)
    coco.box([2, 4, 10, 12], area=60)  # In the first tile alone.
    coco.box([32, 0, 6, 8], category_id=1, area=48)  # In both.
    coco.box([30, 20, 20, 10], area=100)  # Half of it in the first tile.
    coco.box([28, 30, 20, 10], area=150)  # 12 of 20 in the first tile, 18 in the second.
    info = coco.convert(tiles=TILES)
    truth = coco.ground_truth()
    origin = {"id": 139, "file_name": "b/a.png"}
    assert truth["images"] == [
        {
            "id": number,
            "width": 40,
            "height": 40,
            "file_name": f"b/a.png#xywh={left},0,40,40",
            "tile": [left, 0, 40, 40],
            "tile_of": origin,
        }
        for number, left in ((1, 0), (2, 30))
    ]
    found = [
        (one["image_id"], one["category_id"], one["bbox"], one["area"], one["iscrowd"])
        for one in truth["annotations"]
    ]
    assert found == [
        (1, 4, [2, 4, 10, 12], 60, 0),
        (1, 1, [32, 0, 6, 8], 48, 0),
        (1, 4, [30, 20, 10, 10], 50, 0),
        (1, 4, [28, 30, 12, 10], 90, 0),
        (2, 1, [2, 0, 6, 8], 48, 0),
        (2, 4, [0, 20, 20, 10], 100, 0),
        (2, 4, [0, 30, 18, 10], 135, 0),
    ]
    notes = faults(info)["notes"]
    assert notes == {
        "objects of which a tile shows 0.5 or more: cut": {
            "count": 3,
            "first": [f"annotation {number} of b/a.png" for number in (3, 4, 4)],
        }
    }
    pixels = np.asarray(_noise(70, 40))
    for example, left in zip(coco.examples(), (0, 30), strict=True):
        image = tf.io.decode_image(example["encoded"]).numpy()
        np.testing.assert_array_equal(image, pixels[:, left : left + 40])
        assert example["source_id"] == left // 30 + 1
    assert info["tiles"] == {"size": 40, "overlap": 10, "min_visible": 0.5, "num_pictures": 1}
    text = " ".join(told(info, coco.out).split())
    assert "tiles of 40 pixels, 10 or more in common, cut out of 1 picture;" in text


def test_of_less_than_the_share_there_is_a_crowd_region(coco):
    coco.image("a.png", encode(_noise(70, 40), "PNG"), width=70, height=40)
    coco.box([28, 30, 20, 10], area=150)  # 0.6 in the first tile, 0.9 in the second.
    coco.box([24, 0, 16.5, 10], iscrowd=1)  # Crowd regions stay what they are.
    info = coco.convert(tiles=TILES, tiles_min_visible=0.7)
    found = [(one["image_id"], one["iscrowd"]) for one in coco.ground_truth()["annotations"]]
    assert found == [(1, 1), (1, 1), (2, 0), (2, 1)]
    assert info["num_crowd"] == 3
    assert set(faults(info)["notes"]) == {
        "objects of which a tile shows less than 0.7: a crowd region",
        "objects of which a tile shows 0.7 or more: cut",
    }
    info = coco.convert(tiles=TILES, tiles_min_visible=0.7, keep_crowd=False, overwrite=True)
    assert [one["iscrowd"] for one in coco.ground_truth()["annotations"]] == [0]
    text = "objects of which a tile shows less than 0.7: left out, as crowd regions are"
    assert faults(info)["notes"][text]["count"] == 1


def test_parts_of_less_than_a_pixel_are_left_out(coco):
    coco.image("a.png", encode(_noise(70, 40), "PNG"), width=70, height=40)
    coco.box([39.5, 0, 10, 10]).box([39, 20, 10, 10])
    coco.convert(tiles=TILES)
    found = [(one["image_id"], one["bbox"]) for one in coco.ground_truth()["annotations"]]
    assert found == [(1, [39, 20, 1, 10]), (2, [9.5, 0, 10, 10]), (2, [9, 20, 10, 10])]


def test_objects_that_no_tile_can_show_are_lost_aloud(coco):
    coco.image("a.png", encode(_noise(100, 40), "PNG"), width=100, height=40)
    coco.box([0, 0, 100, 40]).box([0, 0, 10, 10])
    with pytest.raises(ValueError, match=r"1 of \d boxes .*(\n.*)*take larger tiles"):
        coco.convert(tiles=TILES, max_dropped=0.1)
    info = coco.convert(tiles=TILES)
    lost = faults(info)["dropped boxes"]["no tile shows a share of 0.5 of it: take larger tiles"]
    assert lost == {"count": 1, "first": ["annotation 1 of a.png"]}
    # Not as background: each tile has a region there.
    assert [one["iscrowd"] for one in coco.ground_truth()["annotations"]] == [1, 0, 1, 1]


def test_small_pictures_stay_as_they_are(coco):
    coco.image("a.jpg", width=40, height=30, id=7).box([10, 5, 20, 10])
    coco.image("b.png", encode(_noise(41, 30), "PNG"), width=41, height=30, id=9)
    info = coco.convert(tiles=TILES)
    images = coco.ground_truth()["images"]
    names = ["a.jpg", "b.png#xywh=0,0,40,30", "b.png#xywh=1,0,40,30"]
    assert [one["file_name"] for one in images] == names
    assert images[0]["tile_of"] == {"id": 7, "file_name": "a.jpg"}
    assert [one["id"] for one in images] == [1, 2, 3]
    stored = coco.examples()[0]["encoded"]
    assert stored == (coco.image_dir / "a.jpg").read_bytes()
    assert info["tiles"]["num_pictures"] == 2 and info["num_empty"] == 2
    few = coco.convert(tiles=TILES, keep_empty=False, overwrite=True)
    assert few["num_images"] == 1 and few["tiles"]["num_pictures"] == 1
    assert faults(few)["dropped images"]["no valid object"]["first"] == names[1:]


def test_the_same_call_does_nothing_and_other_tiles_are_another_conversion(coco):
    coco.image("a.png", encode(_noise(70, 40), "PNG"), width=70, height=40).box()
    first = coco.convert(tiles=TILES)
    assert coco.convert(tiles=Tiles(40, 10)) == first
    for other in ({"tiles": Tiles(40, 11)}, {"tiles": TILES, "tiles_min_visible": 0.4}, {}):
        with pytest.raises(FileExistsError, match="conversion with other input"):
            coco.convert(**other)
    assert "tiles" not in coco.convert(overwrite=True)["input"]


def test_equal_pictures_of_two_splits_are_told_and_flat_tiles_are_not_equal(coco):
    flat = encode(Image.new("RGB", (100, 40), "black"), "PNG")
    coco.image("a.png", flat, width=100, height=40).box()
    info = coco.convert(tiles=TILES)
    assert "equal pictures in this split" not in info["report"].get("notes", {})
    notes = coco.convert(tiles=TILES, split="val")["report"]["notes"]
    (found,) = (value for key, value in notes.items() if "pictures that are in coco_train" in key)
    assert found["count"] == 3


def test_predict_takes_the_pictures_that_tiles_were_cut_of(coco):
    for name in ("a.png", "b.png"):
        coco.image(name, encode(_noise(70, 40), "PNG"), width=70, height=40).box()
    coco.convert(tiles=TILES)
    paths = [str(coco.image_dir / name) for name in ("a.png", "b.png")]
    assert images_of_split(coco.out, "coco_train") == paths


@pytest.mark.parametrize(
    ("data", "mode", "kind"),
    [
        (encode(_noise(70, 40, "L"), "PNG"), "L", "png"),
        (encode(_noise(70, 40, "RGBA"), "PNG"), "RGB", "png"),
        (encode(_noise(70, 40).quantize(8), "PNG"), "RGB", "png"),
        (encode(picture(70, 40, "L")), "L", "jpeg"),
        (encode(picture(70, 40), "WEBP"), "RGB", "jpeg"),
        (
            encode(Image.fromarray(np.arange(2800, dtype=np.uint16).reshape(40, 70)), "PNG"),
            "L",
            "png",
        ),
    ],
)
def test_tiles_show_what_training_would_see_of_the_picture(data, mode, kind):
    checked = check_image(data)
    whole = tf.io.decode_image(checked.encoded, channels=3, expand_animations=False).numpy()
    cut = Cutting(TILES).cut_picture(checked)
    assert cut.encoded == b"" and [window for window, _ in cut.tiles] == [
        (0, 0, 40, 40),
        (0, 30, 40, 70),
    ]
    for (top, left, bottom, right), encoded in cut.tiles:
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.mode == mode and image.format.lower() == kind
            assert not image.info.get("transparency")
        pixels = tf.io.decode_image(encoded, channels=3).numpy().astype(int)
        difference = np.abs(pixels - whole[top:bottom, left:right])
        assert difference.max() <= (0 if kind == "png" else 12)


def test_a_turned_picture_is_cut_as_it_is_shown(coco):
    """Listed as it is shown, upright; the camera has stored it lying."""
    # Bright at the right and at the bottom, without what JPEG would change.
    levels = np.add.outer(np.arange(70), 2 * np.arange(40)).astype(np.uint8)
    shown = Image.fromarray(np.stack([levels] * 3, axis=-1))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(shown.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=100, exif=exif)
    coco.image("a.jpg", data, width=40, height=70).box([5, 45, 10, 20])
    coco.convert(tiles=TILES)
    names = [one["file_name"] for one in coco.ground_truth()["images"]]
    assert names == ["a.jpg#xywh=0,0,40,40", "a.jpg#xywh=0,30,40,40"]
    (found,) = coco.ground_truth()["annotations"]
    assert (found["image_id"], found["bbox"]) == (2, [5, 15, 10, 20])
    pixels = tf.io.decode_image(coco.examples()[1]["encoded"]).numpy().astype(int)
    assert np.abs(pixels - np.asarray(shown)[30:]).mean() < 3


def test_every_object_is_somewhere():
    """Whatever the boxes: nothing that a tile shows is background, unless it is under a pixel."""
    draw = np.random.default_rng(1)
    tiles = Tiles(50, 20)
    boxes = []
    for _ in range(300):
        sides = draw.uniform(1, 45, 2)
        x, y = draw.uniform(0, [200 - sides[0], 130 - sides[1]])
        area = float(sides.prod())
        boxes.append(Box((float(x), float(y), *map(float, sides)), area, 1, bool(draw.integers(2))))
    checked = CheckedImage(width=200, height=130, format="png", digest="x")
    checked.tiles = [(tuple(one), b"") for one in tiles.grid(130, 200).windows.tolist()]
    report = Report()
    shown = np.zeros((130, 200), bool)
    for _, (top, left, _, _), found in Cutting(tiles, 0.6).split_boxes(
        boxes, checked, report, [""] * len(boxes)
    ):
        for box in found:
            x, y, width, height = box.bbox
            assert 0 <= x and x + width <= 50 + 1e-9 and 0 <= y and y + height <= 50 + 1e-9
            assert 0 < box.area <= width * height + 1e-6
            ends = np.floor([top + y + height, left + x + width]).astype(int)
            shown[int(np.ceil(top + y)) : ends[0], int(np.ceil(left + x)) : ends[1]] = True
    for box in boxes:
        x, y, width, height = box.bbox
        # Cuts leave up to a pixel on each side of a border out.
        inside = shown[int(y + 2) : int(y + height - 1), int(x + 2) : int(x + width - 1)]
        assert inside.mean() > 0.9 if inside.size else True
    assert report.to_dict().get("dropped boxes") is None


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_out_of_range(coco, share):
    coco.image().box()
    with pytest.raises(ValueError, match=r"above 0 and at most 1 .*--tiles_min_visible"):
        coco.convert(tiles=TILES, tiles_min_visible=share)
    assert not coco.out.exists()


def test_info_that_somebody_broke_is_an_error(coco):
    from ssd_centernet.data.splits import read_info

    coco.image("a.png", encode(_noise(70, 40), "PNG"), width=70, height=40).box()
    coco.convert(tiles=TILES)
    path = coco.out / "coco_train.info.json"
    for broken in ([40], {"size": "40", "num_pictures": 1}, {"size": 40}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tiles": broken}))
        with pytest.raises(ValueError, match="is damaged"):
            read_info(coco.out, "coco_train")
