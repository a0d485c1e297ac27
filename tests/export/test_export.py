"""Every kind of detector in every format, checked on photographs; and what is refused."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import records
from ssd_centernet.export import export as root
from ssd_centernet.export.export import export
from ssd_centernet.export.parity import ParityError
from ssd_centernet.export.pictures import rendered_pictures
from ssd_centernet.labels import LabelMap
from ssd_centernet.predict.image_files import find_images, read_image
from tests.evaluation.scenes import MINI
from tests.export.lively import lively_detector
from tests.process import environment, python, run

LABELS = LabelMap(("cat", "dog", "tin opener"), (1, 3, 7))
FLOATS = ["saved_model", "tflite", "onnx"]


@pytest.fixture(scope="module")
def pictures():
    """Photographs of different sizes where they are at hand, rendered scenes elsewhere."""
    photos = MINI / "images" / "val"
    if not photos.is_dir():
        return rendered_pictures(3)
    return [read_image(path) for path in find_images([photos])[:3]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, pictures):
    """SSD300 in all formats: (folder, card, detector)."""
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    detector = lively_detector("ssd300_resnet34")
    folder = tmp_path_factory.mktemp("exported") / "ssd"
    card = export(
        detector, folder, formats=[*FLOATS, "tflite_int8"], label_map=LABELS, images=pictures
    )
    return folder, card, detector


def formats_here():
    """ONNX only where its packages are."""
    pytest.importorskip("tensorflow")
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError:
        return FLOATS[:2]
    return FLOATS


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("ssd320_resnet50_fpn", {}),
        ("ssd300_vgg16", {"batch_size": 2}),
        # Fitted in with its aspect ratio, by TFLite too.
        ("centernet_resnet101_fpn", {"input_size": (90, 130)}),
        ("centernet_hourglass20", {"input_size": (130, 90), "score_threshold": 0.2}),
        # Votes; the other formats have the same operations.
        (
            "ssd320_resnet50_fpn",
            {"params": ["SigmoidSSDDecoder.vote_iou = 0.6"], "formats": ["tflite"]},
        ),
        (
            "centernet_resnet101_fpn_plus",
            {"params": ["CenterNetDecoder.vote_iou = 0.5"], "formats": ["tflite"]},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_detector(recipe, options, tmp_path, pictures):
    options = {"formats": formats_here(), **options}
    detector = lively_detector(recipe, *options.pop("params", ()))
    card = export(
        detector,
        tmp_path / "out",
        images=pictures[:2],
        **options,
    )
    for name, checked in card["formats"].items():
        numbers = checked["parity"]
        assert numbers["compared"] > 50 and numbers["share"] >= 0.995, (name, numbers)
    size = list(options.get("input_size", detector.image_size))
    assert card["formats"]["tflite"]["image_size"] == size
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_the_card_says_what_is_there(exported, pictures):
    folder, card, detector = exported
    assert json.loads((folder / "model_card.json").read_text()) == card
    assert [label["name"] for label in card["labels"]] == list(LABELS.names)
    assert [label["id"] for label in card["labels"]] == [1, 3, 7]
    assert card["thresholds"] == {"score_threshold": 0.05, "iou_threshold": 0.5}
    assert card["parameters"] == sum(int(np.prod(v.shape)) for v in detector.weights)
    assert card["parts"]["backbone"] == "ResNet" and card["input_size"] == [96, 96]
    assert set(card["formats"]) == {*FLOATS, "tflite_int8"}
    # Three kinds of input of a SavedModel.
    assert card["formats"]["saved_model"]["parity"]["comparisons"] == 3 * len(pictures)
    assert card["formats"]["onnx"]["image_size"] == "any"
    for name, size in card["bytes"].items():
        assert (folder / name).exists() and size > 0
    assert card["bytes"]["model_int8.tflite"] < card["bytes"]["model.tflite"]
    assert card["versions"]["tensorflow"] == tf.__version__
    assert (folder / "labels.txt").read_text().splitlines() == list(LABELS.names)


def test_onnx_takes_batches_of_any_size(exported):
    import onnxruntime

    folder, _, detector = exported
    images = np.random.default_rng(2).integers(0, 256, (3, 50, 70, 3), np.uint8)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["names"] == "cat\ndog\ntin opener"
    outputs = ["boxes", "scores", "classes", "count"]
    found = dict(zip(outputs, session.run(outputs, {"images": images}), strict=True))
    want = detector.detect(images)
    assert found["count"].tolist() == want["count"].numpy().tolist() and found["count"][0] > 0
    np.testing.assert_allclose(found["scores"], want["scores"], atol=1e-5)


def test_no_batch_norm_is_left_outside_of_a_convolution(exported):
    import onnx

    nodes = onnx.load(exported[0] / "model.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    assert "BatchNormalization" not in kinds
    # Its convolutions have a bias instead: that of the norm behind them.
    assert all(len(node.input) == 3 for node in nodes if node.op_type == "Conv")


_ALONE = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ssd_centernet", "tf_keras", "official", "gin", "PIL"}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = [tf.io.read_file(path) for path in sys.argv[3:]]
found = [model.signatures["encoded"](files=tf.stack(files))]
record = tf.train.Example()
record.ParseFromString(tf.io.read_file(sys.argv[3] + ".record").numpy())
found.append(model.signatures["examples"](examples=tf.constant([record.SerializeToString()])))
image = tf.io.decode_image(files[0], channels=3)[tf.newaxis]
found.append(model.signatures["serving_default"](images=image))
found.append(model.detect(image))
found.append(model.detect(image, score_threshold=float(sys.argv[2])))
limits = {"score_threshold": 0.05, "iou_threshold": 0.9, "max_detections": 5}
limits = {key: tf.constant(value) for key, value in limits.items()}
found.append(model.signatures["images_with_thresholds"](images=image, **limits))
assert not {"ssd_centernet", "tf_keras"} & set(sys.modules)
for one in found:
    values = {key: value.numpy().tolist() for key, value in one.items()}
    values["class_names"] = [[n.decode() for n in row] for row in values["class_names"]]
    print(json.dumps(values))
"""


def test_a_saved_model_needs_nothing_but_tensorflow(exported, tmp_path, pictures):
    folder, _, detector = exported
    colour, grey, alpha = (str(tmp_path / f"{n}.png") for n in ("colour", "grey", "alpha"))
    image = pictures[0]
    transparent = np.concatenate([pictures[1], pictures[1][..., :1]], axis=-1)
    for path, pixels in ((colour, image), (grey, pictures[2][..., :1]), (alpha, transparent)):
        Path(path).write_bytes(tf.io.encode_png(pixels).numpy())
    example = {"encoded": Path(colour).read_bytes(), "format": "png", "filename": "colour.png"}
    example |= {"source_id": 3, "height": image.shape[0], "width": image.shape[1]}
    example |= {"boxes": np.array([[0.1, 0.1, 0.4, 0.4]]), "labels": [3]}
    Path(f"{colour}.record").write_bytes(records.encode_example(example))
    # Who asks TensorFlow for Keras 2 has it look for the package.
    env = environment(TF_USE_LEGACY_KERAS=None, PYTHONPATH=None)
    want = detector.detect(image)
    # Between two scores: some detections stay and some go.
    threshold = float(want["scores"][0, 0] + want["scores"][0, 4]) / 2
    files = (colour, grey, alpha)
    ended = python(_ALONE, folder / "saved_model", threshold, *files, cwd=tmp_path, env=env)
    files, record, plain, tuned, high, few = map(json.loads, ended.stdout.splitlines())
    for found in (files, record, plain, tuned):
        np.testing.assert_allclose(found["boxes"][0], want["boxes"][0], atol=1e-5)
        np.testing.assert_allclose(found["scores"][0], want["scores"][0], atol=1e-5)
        assert found["count"][0] == int(want["count"][0])
    grey_pixels = np.repeat(pictures[2][..., :1], 3, axis=-1)
    for row, pixels in ((1, grey_pixels), (2, pictures[1])):
        again = detector.detect(pixels)
        np.testing.assert_allclose(files["scores"][row], again["scores"][0], atol=1e-5)
    assert files["image_sizes"] == [list(p.shape[:2]) for p in (image, pictures[2], pictures[1])]
    count = plain["count"][0]
    names = [LABELS.names[label] for label in plain["classes"][0][:count]]
    assert plain["class_names"][0] == names + [""] * (len(plain["scores"][0]) - count)
    _check_thresholds(detector, image, threshold, high, few)


def _check_thresholds(detector, image, threshold, high, few):
    """What thresholds of a call give is what `detect` gives with them."""
    want = detector.detect(image, score_threshold=threshold)
    assert high["count"][0] == int(want["count"][0]) > 0 and min(high["scores"][0]) == 0.0
    np.testing.assert_allclose(high["scores"][0], want["scores"][0], atol=1e-5)
    want = detector.detect(image, iou_threshold=0.9)
    assert few["count"] == [5] and not np.any(few["boxes"][0][5:])
    np.testing.assert_allclose(few["boxes"][0][:5], want["boxes"][0, :5], atol=1e-5)


def test_serving_sees_the_signatures_and_defaults(exported):
    from tensorflow.core.protobuf import saved_model_pb2

    path = exported[0] / "saved_model"
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show"]
    signature = ["--tag_set", "serve", "--signature_def", "serving_default"]
    ended = run(*command, "--dir", path, *signature)
    assert "inputs['images'] tensor_info:" in ended.stdout and "DT_UINT8" in ended.stdout
    assert "shape: (-1, -1, -1, 3)" in ended.stdout
    for output in ("boxes", "scores", "classes", "count", "class_names"):
        assert f"outputs['{output}']" in ended.stdout
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((path / "saved_model.pb").read_bytes())
    signatures = content.meta_graphs[0].signature_def
    for name in ("images", "encoded", "examples"):
        twin = signatures[f"{name}_with_thresholds"]
        defaults = {key: tf.make_ndarray(value).item() for key, value in twin.defaults.items()}
        assert defaults["score_threshold"] == pytest.approx(0.05)
        assert defaults["iou_threshold"] == pytest.approx(0.5)
        assert set(twin.inputs) == {*defaults, *signatures[name].inputs} or name == "images"
    assert [path.name for path in (path / "assets").iterdir()] == ["labels.txt"]


def _writing(change):
    """The SavedModel's writer, with `change(detector)` done to the detector meanwhile."""
    write = root.FORMATS["saved_model"].write

    def sabotaged(order, path):
        undo = change(order.detector)
        try:
            write(order, path)
        finally:
            undo()

    return sabotaged


def _other_mean(detector):
    mean = detector.preprocessing.mean
    detector.preprocessing.mean = (0.0, 0.0, 0.0)
    return lambda: setattr(detector.preprocessing, "mean", mean)


def _other_weights(detector):
    kernel = detector.head.variables[0]
    value = kernel.numpy()
    kernel.assign(value * 1.05)
    return lambda: kernel.assign(value)


@pytest.mark.parametrize("change", [_other_mean, _other_weights])
def test_what_detects_something_else_is_refused_and_leaves_nothing(
    change, exported, tmp_path, monkeypatch, pictures
):
    detector = exported[2]
    good = root.FORMATS["saved_model"]
    bad = dataclasses.replace(good, write=_writing(change))
    monkeypatch.setitem(root.FORMATS, "saved_model", bad)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "model_card.json").write_text("{}")
    with pytest.raises(ParityError, match="saved_model does not detect what the model detects"):
        export(detector, tmp_path / "old", images=pictures[:1], overwrite=True)
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old" / "model_card.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"formats": ["tflight"]},
            "saved_model, saved_model_portable, tflite, .*, openvino, openvino_int8, got .*tflight",
        ),
        ({"formats": ["onnx", "onnx"]}, "distinct"),
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\), got 1.5"),
        ({"iou_threshold": 0.0}, "iou_threshold"),
        ({"images": []}, "no images"),
        ({"pairs": 0}, "export.pairs"),
        ({"label_map": LabelMap(("one",))}, "num_classes"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(options, message, exported, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(exported[2], tmp_path / "out", **options)
    assert not os.listdir(tmp_path)


def test_an_earlier_folder_is_kept(exported, tmp_path):
    detector = exported[2]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        export(detector, tmp_path)
    with pytest.raises(FileExistsError, match="not an earlier export"):
        export(detector, tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_detector_without_suppression_has_no_such_threshold(tmp_path):
    detector = lively_detector("centernet_resnet101_fpn")
    with pytest.raises(ValueError, match="CenterNetDecoder suppresses no boxes"):
        export(detector, tmp_path / "out", iou_threshold=0.5)


def test_half_precision_is_refused(tmp_path):
    detector = lively_detector("ssd300_resnet34", "build_detector.dtype = 'bf16'")
    with pytest.raises(ValueError, match="bfloat16.*--dtype=fp32"):
        export(detector, tmp_path / "out")
