"""Pictures that a training puts into TensorBoard and into its directory."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.data.loading import resize_only
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.drawing import visualize
from ssd_centernet.evaluation.result import DetectionRows
from ssd_centernet.models.matches import MATCHED, UNMATCHED, WEAK
from ssd_centernet.preview import fed_images
from ssd_centernet.training import pictures
from ssd_centernet.training.logging import TrainLog
from tests.tiny import LABELS, TINY_RECIPE, tiny_detector, tiny_trainer
from tests.training.test_train import assert_same_bits, run

EVALUATED = ("train.steps = 4", "train.evaluate_every = 2")


def images_of_events(folder):
    """Tag and step -> uint8 [H, W, 3] of every picture in the event files of a folder."""
    found = {}
    for path in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    width, height, *encoded = tf.make_ndarray(value.tensor).tolist()
                    (image,) = (np.asarray(Image.open(io.BytesIO(one))) for one in encoded)
                    assert image.shape == (int(height), int(width), 3)
                    found[value.tag, event.step] = image
    return found


def count(image, color):
    return int((image == color).all(axis=-1).sum())


@pytest.fixture(scope="module")
def shown_run(data_dir, tmp_path_factory):
    """A run with pictures of two images and two evaluations."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "tiny.gin").write_text(TINY_RECIPE)
    run(folder / "tiny.gin", data_dir, folder / "run", *EVALUATED, "train.pictures = 2")
    return folder / "run"


def test_inputs_are_shown_once_with_objects_and_anchors(shown_run):
    events = images_of_events(shown_run / "train")
    assert list(events) == [("inputs", 0)]
    sheet = events["inputs", 0]
    np.testing.assert_array_equal(sheet, np.asarray(Image.open(shown_run / "pictures/inputs.png")))
    # Two images side by side, each with an object in the colour of a matched one.
    states = (fed_images.COLORS[MATCHED], fed_images.COLORS[WEAK])
    for half in np.array_split(sheet[80:], 2, axis=1):
        assert sum(count(half, state) for state in states) > 100
        assert count(half, fed_images.UNIT_COLOR) > 50
    assert count(sheet[80:], fed_images.COLORS[UNMATCHED]) == 0


def test_each_evaluation_shows_the_same_images(shown_run):
    events = images_of_events(shown_run / "eval")
    tags = {tag for tag, _ in events}
    assert len(tags) == 2 and {step for _, step in events} == {2, 4} and len(events) == 4
    for tag in tags:
        first, second = events[tag, 2], events[tag, 4]
        # On the left the same ground truth; on the right what other weights found.
        middle = first.shape[1] // 2
        np.testing.assert_array_equal(first[:, :middle], second[:, :middle])
        assert (first[:, middle:] != second[:, middle:]).any()
        truth = [count(first[:, :middle], visualize.class_color(index)) for index in range(2)]
        found = [count(first[:, middle:], visualize.class_color(index)) for index in range(2)]
        assert max(truth) > 100 and max(found) > 50
    sheet = np.asarray(Image.open(shown_run / "pictures" / "predictions.png"))
    assert sheet.shape[0] > 2 * first.shape[0]


def test_pictures_change_nothing_and_are_drawn_at_the_beginning_alone(
    shown_run, tiny_recipe, data_dir, tmp_path
):
    run(tiny_recipe, data_dir, tmp_path / "plain", *EVALUATED)
    assert_same_bits(shown_run, tmp_path / "plain")
    assert not (tmp_path / "plain" / "pictures").exists()
    # A resumed run has begun before.
    run(tiny_recipe, data_dir, tmp_path / "plain", "train.steps = 5", "train.pictures = 2")
    assert not (tmp_path / "plain" / "pictures").exists()


def test_peaks_are_shown_where_targets_are_made_in_the_step(tmp_path, data_dir):
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    try:
        detector = build_detector(num_classes=2)
    finally:
        config.clear()
    trainer = tiny_trainer(detector)
    batches = training_batches(
        str(data_dir), label_map=LABELS, batch_size=1, augment=resize_only(detector.preprocessing)
    )
    log = TrainLog(tmp_path, trainer.length)
    pictures.PictureBoard(log, LABELS, number=3).show_inputs(trainer, batches)
    log.close()
    sheet = images_of_events(tmp_path / "train")["inputs", 0].astype(int)
    # Three images of batches of one, tinted where the heatmap is high.
    assert sheet.shape[0] > 2 * 384
    assert ((sheet[..., 0] > 150) & (sheet[..., 2] < 80)).sum() > 200


def test_a_number_that_cannot_be(tiny_recipe, data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"train\.pictures is -1, expected a whole number of 0"):
        run(tiny_recipe, data_dir, tmp_path, "train.pictures = -1")


def test_images_with_objects_are_chosen_and_others_fill_up(data_dir):
    shown = pictures.first_images(data_dir, "coco_val", LABELS, 9)
    assert len(shown) == 5 and len({one.source_id for one in shown}) == 5
    assert all(len(one.truth["boxes"]) == 1 for one in shown)
    assert all(max(one.image.shape) == 384 for one in shown)


def test_detections_of_an_image_become_fractions_of_it():
    one = pictures.ShownImage(source_id=7, image=np.zeros((4, 8, 3), np.uint8), size=(50, 100))
    rows = DetectionRows.from_list(
        [
            {"image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10], "score": 0.2},
            {"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 50], "score": 0.4},
        ]
    )
    found = pictures.found_in(one, rows, LABELS)
    np.testing.assert_allclose(found["boxes"], [[0, 0, 1, 1], [0.1, 0.1, 0.3, 0.3]])
    assert found["scores"].tolist() == [0.4, 0.2] and found["classes"].tolist() == [0, 1]
    nothing = pictures.found_in(one, DetectionRows.from_list([]), LABELS)
    assert nothing["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    ("scores", "objects", "expected"),
    [
        ([0.9, 0.5, 0.1], 1, 0.3),
        ([0.2, 0.1, 0.05], 2, 0.1),
        ([0.2], 5, 0.2),
        ([], 3, 0.3),
        (np.linspace(0.99, 0.5, 50), 3, 0.88),
        (np.linspace(0.99, 0.5, 50), 20, 0.6),
    ],
)
def test_as_many_detections_as_objects_are_drawn_and_not_all(scores, objects, expected):
    assert pictures.drawn_from(scores, objects) == pytest.approx(expected)


def test_labels_count_the_anchors_of_each_object():
    detector = tiny_detector()
    boxes = np.array([[0.2, 0.2, 0.7, 0.7], [0.9, 0.9, 0.91, 0.91]], np.float32)
    classes = np.zeros(2, np.int32)
    targets = detector.make_targets(boxes, classes, np.zeros(2, bool))
    matches = detector.explain_targets(targets, boxes, classes, np.zeros(2, bool))
    objects = {"boxes": boxes, "classes": classes, "is_crowd": np.zeros(2, bool)}
    image = np.zeros((64, 64, 3), np.uint8)
    one = fed_images.FedImage(source_id=1, image=image, **objects, matches=matches)
    first = int((matches.owners == 0).sum())
    assert first > 1
    assert fed_images._labels(one, ("square", "bar")) == [f"square {first}", "square 1"]
