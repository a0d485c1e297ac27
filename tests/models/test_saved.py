"""`.keras` files of strangers: models load, and what could run code is refused before it does."""

import json
import zipfile

import numpy as np
import pytest

from ssd_centernet._keras import keras
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.weights import open_weights
from tests.tiny import tiny_detector


def _model(*layers):
    inputs = keras.Input((2,))
    values = inputs
    for layer in layers or (keras.layers.Dense(3, activation="relu", name="dense"),):
        values = layer(values)
    return keras.Model(inputs, values)


def _edited(source, target, change):
    """Copy an archive with another description of its layer `dense`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                (dense,) = (x for x in config["config"]["layers"] if x["class_name"] == "Dense")
                change(dense)
                data = json.dumps(config)
            new.writestr(name, data)


@pytest.fixture
def saved(tmp_path):
    _model().save(tmp_path / "good.keras")
    return tmp_path / "good.keras"


def test_a_foreign_model_loads_with_its_weights(saved):
    expected = keras.models.load_model(saved).get_weights()
    for mine, its in zip(load_keras_file(saved).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_arithmetic_and_registered_classes_load(tmp_path):
    @keras.saving.register_keras_serializable(package="somebody")
    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    inputs = keras.Input((2,))
    keras.Model(inputs, Doubled()((inputs - 1.0) / 4.0)).save(tmp_path / "own.keras")
    model = load_keras_file(tmp_path / "own.keras")
    np.testing.assert_allclose(model(np.array([[3.0, 9.0]], np.float32)), [[1.0, 4.0]])


def test_a_detector_of_this_library_loads(tmp_path):
    detector = tiny_detector()
    detector.save(tmp_path / "ours.keras")
    loaded = load_keras_file(tmp_path / "ours.keras")
    assert type(loaded) is type(detector)
    np.testing.assert_array_equal(loaded.get_weights()[0], detector.get_weights()[0])


def _function(module, name):
    return {"class_name": "function", "module": module, "config": name, "registered_name": name}


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda d: d["config"].update(activation=_function("os", "system")), "'system' of mod"),
        (lambda d: d["config"].update(activation=_function("keras.utils", "get_file")), "get_file"),
        (lambda d: d.update(module="subprocess", class_name="Popen"), "'Popen' of the module"),
        (lambda d: d.update(module="keras.utils", class_name="get_file"), "'get_file' of the mod"),
        (lambda d: d.update(module="ssd_centernet.cli.main", class_name="main"), "'main' of the"),
        (lambda d: d.update(module="ssd_centernet.models.parts", class_name="os"), "registers no"),
        (
            lambda d: d.update(class_name="TFOpLambda", config={"function": "io.write_file"}),
            "io.wr",
        ),
        (lambda d: d.update(class_name="TFSMLayer"), "it holds a TFSMLayer"),
        (lambda d: d.update(class_name="TensorFlowOpLayer"), "it holds a TensorFlowOpLayer"),
        (lambda d: d.update(class_name=["Dense"]), r"by \['Dense'\]"),
        (
            lambda d: d["config"].update(kernel_initializer={"class_name": "__lambda__"}),
            "it holds a __lambda__",
        ),
    ],
)
def test_what_could_run_code_is_refused(saved, tmp_path, monkeypatch, change, told):
    path = tmp_path / "hostile.keras"
    _edited(saved, path, change)
    called = []
    # Not even a part of the model is built before the file has been judged.
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: called.append(a))
    with pytest.raises(ValueError, match=rf"hostile\.keras is not loaded: .*{told}"):
        load_keras_file(path)
    assert not called
    with pytest.raises(ValueError, match="could run code"):
        open_weights(path)


def test_a_lambda_in_hdf5_under_the_name_of_an_archive_does_not_run(tmp_path):
    mark = tmp_path / "it_ran"

    def runs(values, path=str(mark)):
        open(path, "w").close()
        return values

    _model(keras.layers.Lambda(runs)).save(tmp_path / "model.h5")
    mark.unlink()
    (tmp_path / "model.h5").rename(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"not a \.keras archive .*HDF5"):
        load_keras_file(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"not a \.keras archive"):
        open_weights(tmp_path / "model.keras")
    assert not mark.exists()


@pytest.mark.parametrize("content", [None, "{", '{"a": ' * 5000, "[1, 2"])
def test_an_archive_without_a_description_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
        if content is not None:
            archive.writestr("config.json", content)
    with pytest.raises(ValueError, match=r"m\.keras has no readable config\.json"):
        load_keras_file(tmp_path / "m.keras")
