"""What the oldest TensorFlow does without: names of Keras, `.keras` files, ONNX; and an export."""

import json

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet as sc
from ssd_centernet import _keras
from ssd_centernet._keras import check_keras_file, keras
from ssd_centernet.cli import weights as cli_weights
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.weights import restore
from tests import process
from tests.tiny import RUN_RECIPE

OLD = _keras.minor_version(tf.__version__) < (2, 12)


@pytest.fixture
def build(tmp_path):
    recipe = tmp_path / "tiny.gin"
    recipe.write_text(RUN_RECIPE)
    return lambda: sc.build(str(recipe), class_names=["square", "bar"])


@pytest.fixture
def detector(build):
    return build()


def test_weights_files_go_from_one_version_to_another(build, tmp_path):
    path, detector, again = tmp_path / "weights.h5", build(), build()
    detector.save_weights(path)
    assert not np.array_equal(detector.variables[0], again.variables[0])
    restore(again, path, kind="full")
    for one, other in zip(detector.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.name)


def test_keras_files_are_refused_before_2_12(detector, tmp_path, monkeypatch):
    path = tmp_path / "detector.keras"
    if not OLD:
        detector.save(path)
        monkeypatch.setattr(tf, "__version__", "2.11.1")
    else:
        path.touch()
    message = r"detector\.keras is a \.keras file, and tensorflow 2\.1[01]\..*2\.12.*NAME\.h5"
    for refused in (detector.save, load_keras_file, sc.load, check_keras_file):
        with pytest.raises(ValueError, match=message):
            refused(path)
    check_keras_file(tmp_path / "weights.h5")
    monkeypatch.setattr(tf, "__version__", "2.12.0")
    check_keras_file(path)


def test_keras_files_are_refused_by_convert_before_it_fetches(monkeypatch):
    monkeypatch.setattr(tf, "__version__", "2.10.1")
    flags = type("Flags", (), {"output": "new.keras", "gin_file": None})
    monkeypatch.setattr(cli_weights, "FLAGS", flags)
    with pytest.raises(ValueError, match=r"new\.keras is a \.keras file"):
        cli_weights._convert(["resnet34_mlperf"])


def test_optimizers_have_the_names_of_2_15():
    optimizers = keras.optimizers
    one = optimizers.get("adam")
    assert isinstance(one, optimizers.Adam) and isinstance(one, optimizers.Optimizer)
    again = optimizers.deserialize(optimizers.serialize(optimizers.SGD(0.25, momentum=0.5)))
    assert isinstance(again, optimizers.SGD)
    assert (float(again.learning_rate), again.momentum) == (0.25, 0.5)
    variable = tf.Variable([1.0, 2.0])
    again.build([variable])
    # The number of updates and a slot; later versions count the rate as well.
    assert len(again.variables) >= 2 and any(v is again.iterations for v in again.variables)


def test_weights_decay_but_those_left_out():
    """Variables lose rate times decay times themselves, and then move by 0 for gradients of 0."""
    names = ("kernel", "bias")
    variables = [tf.Variable([1.0, 2.0], name=name) for name in names]
    optimizer = keras.optimizers.AdamW(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.zeros([2]), variable) for variable in variables])
    np.testing.assert_allclose(variables[0], [0.95, 1.9], rtol=1e-6)
    np.testing.assert_array_equal(variables[1], [1.0, 2.0])


def test_layers_are_registered_for_files():
    name = "ssd_centernet>SSD"
    assert keras.saving.get_registered_object(name) is sc.SSD
    assert keras.saving.get_registered_name(sc.SSD) == name


def test_export_of_what_this_version_can(tmp_path, warm):
    """A SavedModel and a TFLite file, both compared with the model, from a run's weights."""
    recipe, out = tmp_path / "tiny.gin", tmp_path / "out"
    recipe.write_text(RUN_RECIPE)
    counts = ("--num_train=4", "--num_val=2", "--min_size=60", "--max_size=90")
    process.cli("make_synthetic", f"--output_dir={tmp_path / 'pictures'}", *counts, python=warm)
    process.cli(
        "train",
        f"--gin_file={recipe}",
        f"--annotations={tmp_path / 'pictures' / 'annotations' / 'instances_train.json'}",
        f"--image_dir={tmp_path / 'pictures' / 'train'}",
        f"--model_dir={tmp_path / 'run'}",
        "--device=cpu",
        "--num_steps=2",
        python=warm,
    )
    given = (
        "export",
        f"--model_dir={tmp_path / 'run'}",
        f"--check_images={tmp_path / 'pictures' / 'val'}",
    )
    process.cli(*given, f"--output={out}", "--formats=saved_model,tflite", python=warm)
    card = json.loads((out / "model_card.json").read_text())
    assert set(card["formats"]) == {"saved_model", "tflite"}
    for name, checked in card["formats"].items():
        assert checked["parity"]["share"] >= 0.995, (name, checked)
    if OLD:
        again = (*given, f"--output={tmp_path / 'more'}", "--formats=onnx")
        said = process.cli(*again, python=warm, status=1).stderr
        assert "protobuf of TensorFlow" in said and "2.12 or later" in said
        assert not (tmp_path / "more").exists()
