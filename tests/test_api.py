"""Recipes, runs and data in Python; and that a caller's own gin settings stay as they were."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import ssd_centernet as sc
from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.data import records
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.ops import image as image_ops
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.opened import open_run
from tests.process import python, run


def test_gin_stays_as_the_caller_set_it(model_dir, data_dir):
    run(sys.executable, "-m", "tests.callers_gin", model_dir, data_dir)


def test_build_takes_a_recipe_and_what_wins_over_it():
    detector = sc.build(
        "ssd_demo",
        class_names=["cat", "dog"],
        image_size=(64, 96),
        dtype="bf16",
        settings=["SSDDecoder.score_threshold = 0.3", "ResNet.stem_width = 8"],
    )
    assert type(detector) is sc.SSD
    assert detector.class_names == ("cat", "dog") and detector.num_classes == 2
    assert detector.image_size == detector.preprocessing.image_size == (64, 96)
    assert detector.decoder.score_threshold == 0.3
    assert detector.backbone.get_layer("stem_conv").kernel.shape[-1] == 8
    assert detector.compute_dtype == "bfloat16"
    assert keras.mixed_precision.global_policy().name == "float32"
    assert {v.dtype for v in detector.variables} == {tf.float32}
    # As the recipe has it, where nothing is said.
    plain = sc.build("ssd_demo", label_map=sc.LabelMap(["a", "b", "c"], [2, 5, 9]))
    assert plain.image_size == (128, 128) and plain.class_names == ("a", "b", "c")
    assert plain.backbone.get_layer("stem_conv").kernel.shape[-1] == 24
    assert plain.compute_dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recipe": "ssd300_resnt34"}, FileNotFoundError, "Did you mean ssd300_resnet34"),
        ({"class_names": ["a"], "num_classes": 2}, ValueError, "num_classes=2 and 1 names"),
        ({"image_size": (64, 64, 3)}, ValueError, r"expected \(height, width\)"),
        ({"image_size": 64.0}, ValueError, "expected"),
        ({"dtype": "int8", "num_classes": 2}, ValueError, "dtype is 'int8'"),
        ({"settings": ["train.batch_size = 3"], "num_classes": 2}, ValueError, "never used"),
        (
            {"class_names": ["a"], "label_map": sc.LabelMap(["a"])},
            ValueError,
            "class_names or label_map, not both",
        ),
    ],
)
def test_build_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        sc.build(**{"recipe": "ssd_demo", **arguments})


def test_load_gives_the_weights_of_the_checkpoint_asked_for(model_dir):
    want = open_run(model_dir, device="cpu")
    config.clear()
    image = tf.random.stateless_uniform([1, 64, 64, 3], [1, 2])
    expected = want.detector(image)
    for path, choice in (
        (model_dir, {}),
        (model_dir / "best", {}),
        (model_dir / "ckpt-5", {}),
        (f"{model_dir}/best/ckpt-5", {}),
        (model_dir, {"checkpoint": "latest"}),
    ):
        detector = sc.load(path, **choice)
        assert detector.class_names == want.label_map.names
        for name, value in detector(image).items():
            np.testing.assert_array_equal(value, expected[name])
    for settings in (["SSDDecoder.score_threshold = 0.9"], "SSDDecoder.score_threshold = 0.9"):
        assert sc.load(model_dir, settings=settings).decoder.score_threshold == 0.9


@pytest.mark.parametrize("number", [0, -1, "3", 2.5])
def test_a_number_of_classes_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match="num_classes is .*expected a whole number from 1 on"):
        sc.build("ssd_demo", num_classes=number)


def test_load_says_what_there_is(model_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run directory"):
        sc.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="which has ckpt-10, ckpt-5, best: set"):
        sc.load(model_dir, checkpoint="ckpt-6")
    with pytest.raises(ValueError, match="is a checkpoint already"):
        sc.load(model_dir / "best", checkpoint="latest")
    with pytest.raises(FileNotFoundError, match=r"detector\.save"):
        sc.load(tmp_path / "nothing.keras")
    keras.Sequential([keras.layers.Dense(1, input_shape=(2,))]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="holds a Sequential, no detector"):
        sc.load(tmp_path / "other.keras")


def test_training_data_is_that_of_the_recipe(model_dir, data_dir):
    detector = sc.load(model_dir)
    recipe = model_dir / "recipe.gin"
    made = sc.training_data(data_dir, detector, recipe=recipe, batch_size=2, seed=4)
    assert made.steps_per_epoch == 2  # Of 4 images one has no object.
    assert made.batches.cardinality() == tf.data.INFINITE_CARDINALITY
    direct = training_batches(
        str(data_dir),
        label_map=load_label_map(data_dir),
        batch_size=2,
        augment=SSDAugment(image_size=(64, 64), compiled=False),
        make_targets=detector.make_targets,
        seed=4,
    )
    for got, want in zip(made.batches.take(3), direct.take(3), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, got, want)
    plain = next(iter(sc.training_data(data_dir, detector, batch_size=4).batches))
    pixels = detector.preprocessing.denormalize(plain["image"])
    assert pixels.shape == (4, 64, 64, 3) and pixels.std() > 10
    detector.compile("sgd")
    with pytest.raises(ValueError, match="infinite dataset"):
        detector.fit(made.batches, verbose=0)
    bgr = ["SSDAugment.mean = (0.1, 0.2, 0.3)"]
    with pytest.raises(ValueError, match="normalises with mean"):
        sc.training_data(data_dir, detector, recipe=recipe, settings=bgr)


def test_validation_data_has_every_image_once(model_dir, data_dir):
    detector = sc.load(model_dir)
    batches = list(sc.validation_data(data_dir, detector, batch_size=4))
    assert [len(batch["image"]) for batch in batches] == [4, 3]
    ids = np.concatenate([batch["source_id"] for batch in batches])
    assert len(set(ids)) == 7 and -1 not in ids
    with pytest.raises(FileNotFoundError, match="coco_test"):
        sc.validation_data(data_dir, detector, split="coco_test")


def test_a_batch_is_drawn_with_or_without_targets(model_dir, data_dir):
    detector = sc.load(model_dir)
    made = next(iter(sc.training_data(data_dir, detector, batch_size=3).batches))
    drawn = sc.draw_batch(detector, made, size=128)
    assert [picture.shape for picture in drawn] == [(128, 128, 3)] * 3
    bare = {name: value for name, value in made.items() if name != "targets"}
    np.testing.assert_array_equal(sc.draw_batch(detector, bare, size=128), drawn)
    plain = detector.preprocessing.denormalize(made["image"])
    assert not np.array_equal(drawn[0][::2, ::2], plain[0])
    table = sc.describe_anchors(detector, data_dir)
    assert "input 64 x 64 pixels" in table and "all objects" in table


def test_evaluate_gives_the_numbers_of_the_run(model_dir, data_dir, tmp_path):
    want = evaluate_run(open_run(model_dir, device="cpu"), data_dir, batch_size=4)
    config.clear()
    page = tmp_path / "report.html"
    result = sc.evaluate(sc.load(model_dir), data_dir, batch_size=4, report=page)
    assert result.metrics == want.result.metrics
    assert "ssd on coco_val" in page.read_text(encoding="utf-8")
    other = sc.build("ssd_demo", class_names=["cat", "dog"], image_size=64)
    with pytest.raises(ValueError, match="the detector has cat, dog"):
        sc.evaluate(other, data_dir)


def test_a_file_is_read_in_another_process(model_dir, tmp_path):
    detector = sc.load(model_dir)
    path, image = tmp_path / "detector.keras", np.full([1, 64, 64, 3], 0.5, np.float32)
    detector.save(path)
    code = f"""
import numpy as np
import ssd_centernet as sc
image = np.full([1, 64, 64, 3], 0.5, np.float32)
models = [sc.keras.models.load_model({str(path)!r}), sc.load({str(path)!r})]
np.save({str(tmp_path / "logits.npy")!r}, [model(image)["class_logits"] for model in models])
for number, model in enumerate(models):
    np.savez({str(tmp_path)!r} + f"/weights{{number}}.npz", *model.get_weights())
"""
    python(code)
    want = detector.get_weights()
    for number in (0, 1):
        with np.load(tmp_path / f"weights{number}.npz") as weights:
            assert len(weights.files) == len(want)
            for name, one in zip(weights.files, want, strict=True):
                np.testing.assert_array_equal(weights[name], one)
    for logits in np.load(tmp_path / "logits.npy"):
        np.testing.assert_array_equal(logits, detector(image)["class_logits"])


def arrays_of(data_dir):
    """The images of the training split with their boxes in pixels, as arrays in memory."""
    labels = load_label_map(data_dir)
    files = sorted(data_dir.glob("coco_train.record-*"))
    dataset = tf.data.TFRecordDataset([str(file) for file in files])
    examples = [records.parse_example(one, labels) for one in dataset]
    images = [image_ops.decode_image(one["encoded"]).numpy() for one in examples]
    sizes = [np.tile(image.shape[:2], 2) for image in images]
    boxes = [one["boxes"].numpy() * size for one, size in zip(examples, sizes, strict=True)]
    return images, boxes, [one["classes"].numpy() for one in examples], sizes


def test_batches_of_arrays_are_those_of_records(data_dir):
    images, boxes, classes, sizes = arrays_of(data_dir)
    labels = load_label_map(data_dir)
    detector = sc.build("ssd_demo", label_map=labels, image_size=(64, 64))
    same = {"recipe": "ssd_demo", "batch_size": 2, "seed": 5}
    xyxy = [box[:, [1, 0, 3, 2]] for box in boxes]
    xywh = [np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1) for box in xyxy]
    center = [np.concatenate([box[:, :2] + box[:, 2:] / 2, box[:, 2:]], axis=1) for box in xywh]
    unit = [box / size for box, size in zip(boxes, sizes, strict=True)]
    names = [[labels.names[number] for number in of_image] for of_image in classes]
    given = [
        (images, boxes, classes, "pixels", "yxyx"),
        ([Image.fromarray(image) for image in images], xyxy, names, "pixels", "xyxy"),
        (images, xywh, classes, "pixels", "xywh"),
        (images, center, names, "pixels", "cxcywh"),
        (images, unit, classes, "fractions", "yxyx"),
    ]
    made = [
        sc.batches(*arrays, detector, units=units, order=order, **same)
        for *arrays, units, order in given
    ]
    first = [next(iter(one.batches)) for one in made]
    assert made[0].steps_per_epoch == 2 and "targets" in first[0]
    assert float(tf.reduce_sum(tf.cast(first[0]["valid"], tf.float32))) > 0
    for other in first[1:]:
        for want, got in zip(tf.nest.flatten(first[0]), tf.nest.flatten(other), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)
    detector.compile(sc.keras.optimizers.Adam(1e-3))
    history = detector.fit(made[0].batches, steps_per_epoch=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_batches_of_arrays_keep_images_boxes_and_classes_together(data_dir):
    images, boxes, classes, _ = arrays_of(data_dir)
    labels = load_label_map(data_dir)
    detector = sc.build("ssd_demo", label_map=labels, image_size=(64, 64))
    made = sc.batches(images, boxes, classes, detector, units="pixels", order="yxyx", batch_size=1)
    records_of = sc.training_data(data_dir, detector, batch_size=1)
    want = {}
    for batch in records_of.batches.take(records_of.steps_per_epoch):
        valid = batch["valid"][0].numpy()
        key = tuple(np.round(batch["boxes"][0].numpy()[valid].ravel(), 3))
        want[key] = (batch["image"].numpy(), batch["classes"][0].numpy()[valid])
    for batch in made.batches.take(made.steps_per_epoch):
        valid = batch["valid"][0].numpy()
        image, of_image = want.pop(tuple(np.round(batch["boxes"][0].numpy()[valid].ravel(), 3)))
        np.testing.assert_array_equal(batch["image"], image)
        np.testing.assert_array_equal(batch["classes"][0].numpy()[valid], of_image)
    assert not want


IMAGE = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("boxes", "classes", "how", "message"),
    [
        ([[5, 6, 30, 40]], [0], ("fractions", "xyxy"), r"box 0 of image 1 is \[5, 6, 30, 40\]"),
        ([[0.1, 0.2, 0.3, 0.4]], [0], ("pixels", "xyxy"), "they are fractions"),
        (
            [[30, 20, 10, 12]],
            [0],
            ("pixels", "xyxy"),
            r"image 1 is \[30, 20, 10, 12\].*order='xywh'",
        ),
        ([[5, 6, 30, np.nan]], [0], ("pixels", "xyxy"), "box 0 of image 1 is not finite"),
        ([[5, 6, 30, 40]], [0, 1], ("pixels", "xyxy"), r"shape \(1, 4\) and 2 classes"),
        (["cat"], [[5, 6, 30, 40]], ("pixels", "xyxy"), r"of image 1 are \['cat'\].*exchanged"),
        ([[5, 6, 30, 40], [1, 2]], [0, 0], ("pixels", "xyxy"), r"of image 1 are .*\[1, 2\]"),
        ([[5, 6, 30, 40]], [2], ("pixels", "xyxy"), r"the class 2; expected .* 0\.\.1"),
        ([[5, 6, 30, 40]], ["dgo"], ("pixels", "xyxy"), "the class 'dgo'; expected a name .*cat"),
        ([[5, 6, 30, 40]], [True], ("pixels", "xyxy"), "the class True"),
        (
            [[5, 6, 30, 40]],
            [0],
            ("percent", "xyxy"),
            "units is 'percent'; expected one of 'pixels'",
        ),
        ([[5, 6, 30, 40]], [0], ("pixels", "wh"), "order is 'wh'; expected one of 'xyxy'"),
    ],
)
def test_arrays_that_mean_something_else_are_refused(boxes, classes, how, message):
    detector = sc.build("ssd_demo", class_names=["cat", "dog"], image_size=(64, 64))
    units, order = how
    with pytest.raises(ValueError, match=message):
        sc.batches(
            [IMAGE, IMAGE], [None, boxes], [None, classes], detector, units=units, order=order
        )


def test_arrays_without_any_box_are_refused_in_their_own_words():
    detector = sc.build("ssd_demo", class_names=["cat", "dog"], image_size=(64, 64))
    arrays, how = ([IMAGE, IMAGE], [None, []], [None, []]), {"units": "pixels", "order": "xyxy"}
    with pytest.raises(ValueError, match="none of the 2 images has a box, .* keep_empty=True") as e:
        sc.batches(*arrays, detector, **how)
    assert "record" not in str(e.value)
    assert sc.batches(*arrays, detector, **how, keep_empty=True).steps_per_epoch == 1


def test_what_is_dropped_from_arrays_is_told():
    detector = sc.build("ssd_demo", class_names=["cat", "dog"], image_size=(64, 64))
    images = [np.full((40, 60, 3), level, np.uint8) for level in range(12)]
    boxes = [[[5, 6, 50, 30]]] * 11 + [[[5, 6, 5, 30]]]
    with pytest.warns(UserWarning, match="zero or negative width"):
        sc.batches(images, boxes, [["dog"]] * 12, detector, units="pixels", order="xyxy")
