"""Detections on image files: drawings, lists, and agreement with the evaluation."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.evaluation.coco import METRIC_NAMES, evaluate_detections_file
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.predict import image_files as files
from ssd_centernet.predict.fixed_size import fixed_size_step
from ssd_centernet.predict.prediction import predict
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.opened import open_run


class RedFinder:
    """A detector that sees one red box in the left half, and a weak one of the other class."""

    image_size = (8, 8)

    preprocessing = Preprocessing((8, 8), mean=(0, 0, 0), std=(1, 1, 1), scale=1.0)

    def __call__(self, images, training):
        assert not training
        # The score is how much more red than blue there is: exchanged channels score 0.
        return tf.reduce_mean(images[..., 0] - images[..., 2], axis=[1, 2]) / 255.0

    def detect_prepared(self, images, extent):
        return self.decode(self(images, training=False), extent)

    def decode(self, outputs, extent):
        assert extent.shape[1:] == (2,)
        size = tf.shape(outputs)[0]
        boxes = tf.constant([[0.25, 0.0, 0.75, 0.5], [0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
        scores = tf.maximum(tf.stack([outputs, 0.0 * outputs + 0.1, 0.0 * outputs], axis=1), 0.0)
        return {
            "boxes": tf.tile(boxes[tf.newaxis], [size, 1, 1]),
            "scores": scores,
            "classes": tf.tile(tf.constant([[1, 0, 0]]), [size, 1]),
            "count": tf.fill([size], 2),
        }


FRUIT = LabelMap(("apple", "plum"), (3, 8))


def _red(path, height, width):
    Image.new("RGB", (width, height), (255, 0, 0)).save(path)
    return path


def test_predictions_are_drawn_and_written_in_pixels(tmp_path):
    paths = [_red(tmp_path / "17.png", 40, 80), _red(tmp_path / "b.png", 100, 50)]
    (tmp_path / "broken.png").write_text("nothing")
    paths.insert(1, tmp_path / "broken.png")
    found = predict(
        RedFinder(), paths, output_dir=tmp_path / "out", label_map=FRUIT, contact_sheet=True
    )
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    first = {"image_id": 17, "category_id": 8, "bbox": [0.0, 10.0, 40.0, 20.0], "score": 1.0}
    assert rows[0] == first
    assert rows[1]["bbox"] == [40.0, 0.0, 40.0, 20.0] and rows[1]["category_id"] == 3
    # Number 1 is the broken file's.
    assert rows[2]["bbox"] == [0.0, 25.0, 25.0, 50.0] and rows[2]["image_id"] == 2
    assert len(rows) == 4 == len(found.rows)
    lists = json.loads((tmp_path / "out" / "images.json").read_text())
    sizes = [(image["id"], image["height"], image["width"]) for image in lists["images"]]
    assert sizes == [(17, 40, 80), (2, 100, 50)]
    assert lists["categories"] == FRUIT.to_categories()
    assert list(lists["unreadable"]) == [str(tmp_path / "broken.png")]
    drawing = np.asarray(Image.open(tmp_path / "out" / "17.png")).astype(int)
    assert drawing.shape == (40, 80, 3)
    changed = np.abs(drawing - [255, 0, 0]).sum(axis=-1) > 0
    assert changed[28:31, 5:38].any(axis=0).all()  # The lower edge of the box of score 1.
    assert not changed[:, 70:].any()  # The box of score 0.1 is not drawn.
    assert Image.open(found.contact_sheet).width > 320


def test_chosen_classes_alone_and_without_drawings(tmp_path):
    out = tmp_path / "out"
    options = {"output_dir": out, "label_map": FRUIT, "min_score": 0.05}
    path = _red(tmp_path / "17.png", 40, 80)
    found = predict(RedFinder(), [path], classes=["apple"], draw=False, **options)
    (row,) = json.loads((out / "detections.json").read_text())
    assert row["category_id"] == 3 and len(found.rows) == 1
    (image,) = json.loads((out / "images.json").read_text())["images"]
    assert image["detections"] == 1 and image["drawing"] is None
    assert not list(out.glob("*.png"))
    with pytest.raises(ValueError, match=r"No class is called 'aple'.*'apple'.* Set --classes"):
        predict(RedFinder(), [path], classes=["aple"], **options)


def test_where_nothing_can_be_read_earlier_results_stay(tmp_path):
    out = tmp_path / "out"
    options = {"output_dir": out, "label_map": FRUIT, "contact_sheet": True}
    found = predict(RedFinder(), [tmp_path / "gone.jpg"], **options)
    assert found.images == [] and found.unreadable == {
        str(tmp_path / "gone.jpg"): "No such file or directory"
    }
    assert not out.exists()
    predict(RedFinder(), [_red(tmp_path / "17.png", 40, 80)], **options)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "text.png").write_text("nothing")
    found = predict(RedFinder(), [tmp_path / "text.png", tmp_path / "gone.jpg"], **options)
    assert found.images == [] and len(found.unreadable) == 2 and found.contact_sheet is None
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert set(before) == {"17.png", "contact_sheet.png", "detections.json", "images.json"}


def test_truth_is_drawn_beside_with_unknown_categories(tmp_path):
    path = _red(tmp_path / "b.png", 40, 80)
    truth = {
        "images": [{"id": 31, "file_name": "val/b.png", "height": 40, "width": 80}],
        "categories": [{"id": 3, "name": "apple"}, {"id": 9, "name": "pear"}],
        "annotations": [
            {"id": 1, "image_id": 31, "category_id": 9, "bbox": [40, 20, 30, 15], "iscrowd": 0}
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = predict(
        RedFinder(),
        [path],
        output_dir=tmp_path / "out",
        label_map=FRUIT,
        annotations=tmp_path / "truth.json",
    )
    assert found.images[0]["id"] == 31
    drawing = np.asarray(Image.open(tmp_path / "out" / "b.png")).astype(int)
    assert drawing.shape[1] > 160
    left = (np.abs(drawing - [255, 0, 0]).sum(axis=-1) > 0)[12:52, 12:92]
    assert left[33:36, 42:68].any(axis=0).all() and not left[21:33, 5:35].any()


def test_annotations_of_another_split_are_refused(tmp_path):
    path = _red(tmp_path / "b.png", 40, 80)
    truth = {"images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 80}]}
    (tmp_path / "truth.json").write_text(
        json.dumps({**truth, "categories": [{"id": 3, "name": "apple"}], "annotations": []})
    )
    settings = {"label_map": FRUIT, "annotations": tmp_path / "truth.json"}
    with pytest.raises(ValueError, match="None of 1 image, such as b.png.* lists a.png"):
        predict(RedFinder(), [path], output_dir=tmp_path / "out", **settings)


def _truth(folder, images, annotations=()):
    categories = [{"id": 3, "name": "apple"}, {"id": 8, "name": "plum"}]
    content = {"images": images, "categories": categories, "annotations": list(annotations)}
    (folder / "truth.json").write_text(json.dumps(content))
    return folder / "truth.json"


def test_equal_names_in_folders_keep_their_ids_and_names(tmp_path):
    paths = []
    for camera in ("cam1", "cam2"):
        (tmp_path / "set" / camera).mkdir(parents=True)
        paths.append(_red(tmp_path / "set" / camera / "0001.png", 40, 80))
    images = [
        {"id": f"{n}", "file_name": f"cam{n}/0001.png", "height": 40, "width": 80} for n in (2, 1)
    ]
    truth = _truth(tmp_path, images)
    options = {"output_dir": tmp_path / "out", "label_map": FRUIT}
    found = predict(RedFinder(), paths, annotations=truth, **options)
    assert [(i["id"], i["file_name"]) for i in found.images] == [
        (1, "cam1/0001.png"),
        (2, "cam2/0001.png"),
    ]
    assert found.report == {}
    # Without annotations names have the folders that tell them apart.
    found = predict(RedFinder(), paths, **options)
    assert [i["file_name"] for i in found.images] == ["cam1/0001.png", "cam2/0001.png"]


def test_detections_are_in_the_pixels_of_the_annotations(tmp_path):
    """The picture lies on its side; its annotations are of the picture as stored, twice as big."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), (255, 0, 0)).save(tmp_path / "a.png", exif=exif)
    options = {"output_dir": tmp_path / "out", "label_map": FRUIT}
    sizes = {"stored": (80, 40), "shown": (40, 80), "copy": (160, 80)}
    expected = {"stored": [0, 10, 40, 20], "shown": [0, 20, 20, 40], "copy": [0, 20, 80, 40]}
    for kind, (width, height) in sizes.items():
        image = {"id": 4, "file_name": "a.png", "height": height, "width": width}
        truth = _truth(tmp_path, [image])
        found = predict(RedFinder(), [tmp_path / "a.png"], annotations=truth, **options)
        first = json.loads((tmp_path / "out" / "detections.json").read_text())[0]
        assert first["bbox"] == expected[kind] and first["image_id"] == 4, kind
        notes = " ".join(found.report["notes"])
        assert "EXIF" in notes, kind
    found = predict(RedFinder(), [tmp_path / "a.png"], **options)
    assert (
        json.loads((tmp_path / "out" / "detections.json").read_text())[0]["bbox"]
        == (expected["shown"])
    )
    assert found.report == {}


def test_a_list_of_images_without_annotations_gives_the_ids(tmp_path):
    """Such as image_info_test2017.json, for a benchmark that keeps its annotations."""
    path = _red(tmp_path / "a.png", 40, 80)
    content = json.loads(
        _truth(tmp_path, [{"id": 581, "file_name": "a.png", "height": 40, "width": 80}]).read_text()
    )
    del content["annotations"]
    (tmp_path / "info.json").write_text(json.dumps(content))
    options = {"annotations": tmp_path / "info.json", "label_map": FRUIT}
    predict(RedFinder(), [path], output_dir=tmp_path / "out", **options)
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {581}


def test_a_size_that_does_not_fit_is_noted_and_the_picture_used(tmp_path):
    path = _red(tmp_path / "a.png", 40, 80)
    truth = _truth(tmp_path, [{"id": 4, "file_name": "a.png", "height": 80, "width": 90}])
    found = predict(
        RedFinder(), [path], annotations=truth, output_dir=tmp_path / "out", label_map=FRUIT
    )
    assert [image["id"] for image in found.images] == [4]
    assert any("aspect ratio differs" in note for note in found.report["notes"])


def test_sizes_and_odd_batches_make_no_further_traces(model_dir):
    detector = open_run(model_dir, device="cpu").detector
    prepare, detect = fixed_size_step(detector, 2)
    images = [
        np.random.default_rng(i).integers(0, 255, size, np.uint8)
        for i, size in enumerate([(40, 30, 3), (64, 64, 3), (31, 97, 3)])
    ]
    prepared, extents = zip(*[prepare(image) for image in images], strict=True)
    assert prepare.experimental_get_tracing_count() == 1
    batched = detect(
        tf.stack([prepared[2], tf.zeros_like(prepared[0])]), tf.stack([extents[2], extents[0]])
    )
    alone = detector.detect(images[2])
    np.testing.assert_allclose(batched["boxes"][0], alone["boxes"][0], atol=1e-5)
    np.testing.assert_allclose(batched["scores"][0], alone["scores"][0], atol=1e-5)


def test_predictions_equal_the_evaluation_of_the_same_images(
    model_dir, data_dir, pictures, tmp_path
):
    run = open_run(model_dir, device="cpu")
    evaluated = evaluate_run(run, data_dir).result
    folder, paths = pictures
    images = files.find_images([folder / "val"])
    predict(
        run.detector,
        images,
        output_dir=tmp_path,
        label_map=run.label_map,
        batch_size=3,
        annotations=paths["val"],
    )
    again = evaluate_detections_file(tmp_path / "detections.json", paths["val"])
    assert again.num_detections == evaluated.num_detections > 0
    for name in METRIC_NAMES:
        assert again.metrics[name] == pytest.approx(evaluated.metrics[name], abs=1e-6), name
