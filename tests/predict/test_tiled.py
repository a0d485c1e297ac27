"""Detection on large pictures in tiles: what a detector sees, and what becomes of it."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import ssd_centernet as sc
from ssd_centernet.data.convert import convert_coco
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.predict.prediction import finder, predict
from ssd_centernet.predict.tiled import TiledDetector, _overview
from ssd_centernet.runs.exported import evaluate_exported
from ssd_centernet.runs.opened import open_run
from tests.export.lively import enliven
from tests.process import cli

LABELS = LabelMap(("square",), (5,))


class SquareFinder:
    """Find the bright spots that it is shown, as one on each; it sees none of 2 pixels or fewer.

    As a network does, it sees pictures at one size: it looks at them 64 pixels wide and high.
    """

    def __init__(self):
        self.seen = []

    def detect(self, image):
        self.seen.append(image.shape)
        height, width = image.shape[:2]
        small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX))
        bright = small[..., 0] > 128
        boxes = []
        for y, x in zip(*np.nonzero(bright), strict=True):
            if bright[y, x]:
                bottom = y + np.argmin(np.append(bright[y:, x], False))
                right = x + np.argmin(np.append(bright[y, x:], False))
                bright[y:bottom, x:right] = False
                if min(bottom - y, right - x) > 2:
                    boxes.append([y, x, bottom, right])
        boxes = np.array(boxes, np.float32).reshape(-1, 4) / 64
        # The larger, the surer.
        scores = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) if len(boxes) else np.zeros(0)
        order = np.argsort(-scores, kind="stable")
        found = {"boxes": boxes[order], "scores": np.minimum(scores[order], 1).astype(np.float32)}
        return {**found, "classes": np.zeros(len(boxes), np.int32)}


def _scene(width, height, squares):
    image = np.zeros((height, width, 3), np.uint8)
    for left, top, side in squares:
        image[top : top + side, left : left + side] = 255
    return image


def _pixels(found, image):
    height, width = image.shape[:2]
    boxes = np.rint(found["boxes"] * [height, width, height, width]).astype(int)
    return sorted((int(x1), int(y1), int(x2 - x1)) for y1, x1, y2, x2 in boxes)


def test_small_objects_are_found_in_tiles_and_large_ones_on_the_whole():
    squares = [(5, 5, 8), (58, 40, 10), (120, 110, 8), (200, 152, 100)]
    image = _scene(320, 256, squares)
    finder_ = SquareFinder()
    whole = finder_.detect(image)
    assert _pixels(whole, image) == [(200, 152, 100)]
    tiled = TiledDetector(finder_, Tiles(64, 16))
    found = tiled.detect(image)
    assert _pixels(found, image) == [*squares[:3], (200, 152, 100)]
    assert found["boxes"].dtype == found["scores"].dtype == np.float32
    assert found["classes"].dtype == np.int32 and (np.diff(found["scores"]) <= 0).all()
    # ... without it, the large one is put together of its parts.
    alone = TiledDetector(SquareFinder(), Tiles(64, 16), whole_picture=False).detect(image)
    assert _pixels(alone, image) == squares


def test_a_picture_that_fits_one_tile_is_detected_on_as_without_tiles():
    image = _scene(64, 40, [(5, 5, 8)])
    detector = SquareFinder()
    found = TiledDetector(detector, Tiles(64, 16)).detect(image)
    assert detector.seen == [(40, 64, 3)]
    expected = SquareFinder().detect(image)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_tiles_go_through_a_network_in_batches(model_dir):
    """Each tile is found what the detector finds on it alone, at its place."""
    opened = open_run(model_dir, device="cpu")
    detector = enliven(opened.detector)
    image = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    tiles = Tiles(64, 20)
    merged = TiledDetector(detector, tiles, batch_size=4, iou_threshold=1.0).detect(image)
    find, expected = finder(detector, 1), set()
    grid = tiles.grid(90, 150)
    for top, left, bottom, right in grid.windows.tolist():
        (found,) = find([image[top:bottom, left:right]])
        boxes = found["boxes"].clip(0, 1) * 64 + [top, left, top, left]
        expected |= {
            (*box.round(1), round(float(s), 3))
            for box, s in zip(boxes, found["scores"], strict=True)
        }
    boxes = merged["boxes"] * [90, 150, 90, 150]
    # What no tile holds is joined or of the whole picture.
    inside = grid.count_holding(boxes.astype(np.float64)) > 0
    places = {
        (*box.round(1), round(float(s), 3))
        for box, s in zip(boxes[inside], merged["scores"][inside], strict=True)
    }
    assert len(places) > 50 and len(places & expected) >= 0.97 * len(places)
    assert {"merge": "nms", "iou_threshold": 1.0, "whole_picture": True} == TiledDetector(
        detector, tiles, iou_threshold=1.0
    ).merging


def test_files_pictures_and_arrays_are_taken(tmp_path):
    image = _scene(100, 64, [(5, 5, 8), (80, 30, 8)])
    picture = Image.fromarray(image)
    exif = Image.Exif()
    exif[0x0112] = 3  # Upside down.
    picture.rotate(180).save(tmp_path / "turned.png", exif=exif)
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    tiled = TiledDetector(SquareFinder(), 64)
    assert tiled.tiles == Tiles(64, 12)
    for given in (image, picture, *sorted(tmp_path.glob("*.png")), image[np.newaxis]):
        assert _pixels(tiled.detect(given), image) == [(5, 5, 8), (80, 30, 8)]
    empty = tiled.detect(np.zeros((64, 100, 3), np.uint8))
    assert empty["boxes"].shape == (0, 4) and len(empty["scores"]) == len(empty["classes"]) == 0
    with pytest.raises(ValueError, match="one picture at a time"):
        tiled.detect(np.zeros((2, 64, 100, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8 RGB"):
        tiled.detect(image.astype(np.float32))
    with pytest.raises(OSError, match="No such file"):
        tiled.detect(tmp_path / "gone.png")


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """In tiles larger pictures are read, and not ones of any size."""
    path, tiled = tmp_path / "a.png", TiledDetector(SquareFinder(), 64)
    for width, told in ((9999, "truncated"), (60000, "more than max_pixels = 536870911 pixels")):
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, 9999, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
        content = b"\x89PNG\r\n\x1a\n"
        for kind, data in chunks:
            content += struct.pack(">I", len(data)) + kind + data
            content += struct.pack(">I", zlib.crc32(kind + data))
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            tiled.detect(path)
        found = predict(tiled, [path], output_dir=tmp_path / "out", label_map=LABELS)
        assert told in found.unreadable[str(path)]
    found = predict(SquareFinder(), [path], output_dir=tmp_path / "out", label_map=LABELS)
    assert "max_pixels = 89478485" in found.unreadable[str(path)]


def test_the_whole_of_a_very_large_picture_is_seen_smaller():
    """9001 pixels become 3000, the means of squares of 3, and boxes stay where they are."""
    detector = SquareFinder()
    image = np.zeros((500, 9001, 3), np.uint8)
    image[30:480, 3000:6000] = 255
    image[:, ::2] //= 2
    found = TiledDetector(detector, Tiles(500, 0)).detect(image)
    assert detector.seen[-1] == (166, 3000, 3) and detector.seen[0] == (500, 500, 3)
    (ymin, xmin, ymax, xmax) = found["boxes"][0] * [500, 9001, 500, 9001]
    assert (abs(xmin - 3000), abs(xmax - 6000)) < (150, 150) and ymin < 40 and ymax > 470
    smaller, window = _overview(image)
    assert window == [0, 0, 498, 9000] and smaller.dtype == np.uint8
    expected = image[30:33, 3000:3003, 0].mean()
    assert smaller[10, 1000].tolist() == [round(expected)] * 3 and not smaller[:9].any()
    small = np.zeros((100, 90, 3), np.uint8)
    assert _overview(small)[0] is small


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tiles": 0}, "16 or more, got 0"),
        ({"tiles": 64, "merge": "soft"}, "nms or wbf, got 'soft'"),
        ({"tiles": 64, "iou_threshold": 1.5}, r"in 0\.\.1, got 1\.5"),
        ({"tiles": 64, "batch_size": 0}, "1 or more, got 0"),
    ],
)
def test_settings_out_of_range(given, told):
    with pytest.raises(ValueError, match=told):
        TiledDetector(SquareFinder(), **given)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two pictures of small squares, converted whole and as tiles."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "images").mkdir()
    draw = np.random.default_rng(4)
    images, annotations = [], []
    for number in (1, 2):
        places = draw.permutation(30)[:12]
        squares = [(int(p % 6) * 40 + 9, int(p // 6) * 40 + 11, 8) for p in places]
        Image.fromarray(_scene(240, 200, squares)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 240, "height": 200})
        for left, top, side in squares:
            box = {"bbox": [left, top, side, side], "area": side**2, "iscrowd": 0}
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 5}
            annotations.append(box | ids)
    content = {"images": images, "annotations": annotations}
    content["categories"] = LABELS.to_categories()
    (folder / "boxes.json").write_text(json.dumps(content))
    for output, tiles in (("whole", None), ("tiles", Tiles(64, 16))):
        for split in ("train", "val"):
            convert_coco(
                folder / "boxes.json",
                folder / "images",
                folder / output,
                split=split,
                num_shards=1,
                tiles=tiles,
                progress=False,
            )
    return folder


def test_evaluation_finds_in_tiles_what_the_whole_picture_hides(large):
    tiled = TiledDetector(SquareFinder(), Tiles(64, 16), label_map=LABELS)
    found = evaluate_exported(tiled, large / "whole", "coco_val").result
    assert found.metrics["AP"] == pytest.approx(1.0) and found.num_detections == 24
    assert not any("keeps of an image" in note for note in found.notes)
    whole = SquareFinder()
    whole.label_map = LABELS
    missed = evaluate_exported(whole, large / "whole", "coco_val").result
    assert missed.num_detections == 0


def test_predictions_in_tiles_are_drawn_and_written(large, tmp_path):
    tiled = TiledDetector(SquareFinder(), Tiles(64, 16))
    paths = [large / "images" / "1.png", large / "images" / "2.png"]
    found = predict(tiled, paths, output_dir=tmp_path, label_map=LABELS, min_score=0.1)
    truth = json.loads((large / "boxes.json").read_text())["annotations"]
    expected = sorted((one["image_id"], *one["bbox"]) for one in truth)
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert sorted((one["image_id"], *map(round, one["bbox"])) for one in rows) == expected
    assert [image["detections"] for image in found.images] == [12, 12]


def test_commands_take_tiles(pictures, model_dir, data_dir, tmp_path, warm):
    """A run and Python agree; the files say what was measured how."""
    run = open_run(model_dir, device="cpu")
    flags = [f"--model_dir={model_dir}", f"--data_dir={data_dir}", "--tiles=64,16"]
    done = cli("evaluate", *flags, f"--output_dir={tmp_path / 'e'}", "--report", python=warm)
    assert "in tiles of 64 pixels, 16 in common" in done.stdout
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["tiles"] == {
        "size": 64,
        "overlap": 16,
        "merge": "nms",
        "iou_threshold": 0.5,
        "whole_picture": True,
    }
    assert (tmp_path / "e" / "report.html").is_file() and metrics["num_images"] == 7
    result = sc.evaluate(run.detector, data_dir, tiles=Tiles(64, 16))
    assert result.metrics == pytest.approx(metrics["metrics"], abs=1e-6)
    images = sorted((pictures[0] / "val").glob("*"))[:1]
    flags = [f"--model_dir={model_dir}", f"--output_dir={tmp_path / 'p'}"]
    options = ["--tiles=64,16", "--tiles_merge=wbf", "--notiles_whole", "--contact_sheet"]
    done = cli("predict", *flags, *options, *images, python=warm)
    assert "1 image" in done.stdout and (tmp_path / "p" / "contact_sheet.png").is_file()


def test_wrong_flags_are_told(model_dir, warm):
    def refused(*words):
        return cli(*words, status=2, python=warm).stderr

    model = f"--model_dir={model_dir}"
    told = refused("predict", model, "--tiles=0", "x.png")
    assert "--tiles=0: the size of tiles" in told and "got 0" in told
    assert "half their size, 32, got 64" in refused("predict", model, "--tiles=64,64", "x.png")
    assert "got 'big'" in refused("evaluate", model, "--tiles=big")
    assert "--tiles_merge belongs to --tiles" in refused("evaluate", model, "--tiles_merge=wbf")
    told = refused("evaluate", model, "--tiles=64", "--every_checkpoint")
    assert "--every_checkpoint cannot be used with --tiles" in told
    told = refused("convert", "--annotations=a", "--output_dir=b", "--tiles_min_visible=0.3")
    assert "--tiles_min_visible belongs to --tiles" in told
    told = refused("convert", "--annotations=a", "--output_dir=b", "--tiles=64,-1")
    assert "--tiles=64,-1: the overlap of tiles" in told


def test_a_training_says_what_its_evaluations_are_of(large, tmp_path):
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import describe_splits, describe_tiles

    recipe = Recipe()
    assert describe_tiles(large / "whole", "coco_val") is None
    told = describe_splits(recipe, [str(large / "tiles")], True)[-1]
    assert told.startswith("note: the pictures of coco_val are tiles of 64 pixels, cut out of 2 p")
    mixed = tmp_path / "mixed"
    shutil.copytree(large / "tiles", mixed)
    for path in (large / "whole").glob("coco_val*"):
        shutil.copy(path, mixed / path.name)
    told = describe_splits(recipe, [str(mixed)], True)[-1]
    assert "coco_train is of tiles and coco_val of whole pictures" in told
    assert len(describe_splits(recipe, [str(large / "whole")], True)) == 1
