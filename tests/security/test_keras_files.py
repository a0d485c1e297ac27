"""`.keras` files of strangers: nothing that one names is imported, called, read or unpacked."""

import json
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pytest

import ssd_centernet as sc
from ssd_centernet._keras import keras
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.weights import open_weights


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module on Python's path that leaves a mark when it is imported; returns the mark."""
    mark = tmp_path / "it_ran"
    (tmp_path / "payload.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("payload", None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "good.keras"
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="relu", name="dense")(inputs))
    model.compile("adam", loss="mse")
    model.save(path)
    return path


def _edited(source, target, change=lambda top: None, drop=(), **members):
    """Copy an archive with another description, without some members and with more."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                top = json.loads(data)
                change(top)
                data = json.dumps(top)
            if name not in drop:
                new.writestr(name, data)
        for name, data in members.items():
            new.writestr(name, data)
    return target


def _dense(top):
    return next(one for one in top["config"]["layers"] if one["class_name"] == "Dense")


def _set(**values):
    return lambda top: _dense(top).update(values)


def _part(**values):
    return lambda top: _dense(top)["config"].update(values)


def _named(class_name, module, **more):
    return {
        "class_name": class_name,
        "module": module,
        "config": {},
        "registered_name": None,
    } | more


def _function(module, name, registered=None):
    return _named("function", module, config=name, registered_name=registered or name)


@pytest.mark.parametrize(
    "change",
    [
        _set(class_name="__import__", module="payload"),
        _set(class_name="__x__", module="payload"),
        _set(class_name="_hidden", module="payload"),
        _part(activation=_named("__typespec__", "payload", spec_name="Spec", config=[])),
        _part(activation=_named("__typespec__", "subprocess", spec_name="PopenSpec", config=[])),
        _part(activation=_named("__tensor__x", "payload")),
        _set(module="keras.payload", class_name="payload.Dense"),
        _set(module="payload", registered_name="Dense"),
        _set(module="tf_keras.src.utils.generic_utils", registered_name="func_load"),
        _part(activation=_function("builtins", "exec")),
        _part(activation=_function("builtins", "open")),
        _part(activation=_function("builtins", "__import__")),
        _part(activation=_function("keras.activations", "deserialize")),
        _part(activation=_function("keras.src.activations", "sys")),
        _part(activation=_function("payload", "relu")),
        _set(class_name="SlicingOpLambda", config={"function": "io.write_file"}),
        _set(class_name="SlicingOpLambda", module=None, config={"function": "py_function"}),
        _set(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
        _set(class_name="TextVectorization", config={"vocabulary": "gs://bucket/words"}),
        lambda top: top["compile_config"].update(loss=_function("payload", "mse")),
        lambda top: top["compile_config"].update(optimizer=_named("Adam", "payload")),
        lambda top: top.update(build_config={"input_shape": _named("X", "payload")}),
        _set(module="ssd_centernet.layers.payload", class_name="X"),
        _set(module="ssd_centernet.models.ssd", class_name="SSD", registered_name="os>system"),
    ],
)
def test_an_archive_names_nothing_of_other_modules(payload, saved, tmp_path, monkeypatch, change):
    path = _edited(saved, tmp_path / "hostile.keras", change)
    built = []
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: built.append(a))
    with pytest.raises(ValueError, match=r"hostile\.keras is not loaded: .*It could run code"):
        sc.load(path)
    assert not built and not payload.exists() and "payload" not in sys.modules


def test_weights_that_keras_would_unpickle_are_refused(payload, saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return __import__, ("payload",)

    np.savez(tmp_path / "w.npz", **{"layers/dense/vars": np.array([Bomb()], object)})
    weights = (tmp_path / "w.npz").read_bytes()
    path = _edited(
        saved, tmp_path / "m.keras", drop=["model.weights.h5"], **{"model.weights.npz": weights}
    )
    with pytest.raises(ValueError, match=r"it holds 'model\.weights\.npz', expected config\.json"):
        load_keras_file(path)
    assert not payload.exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside_of_it", "assets/x", "config.json"])
def test_members_that_a_model_needs_not_are_refused(saved, tmp_path, name):
    (tmp_path / "deep").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of Python, that a name is there twice.
        _edited(saved, tmp_path / "deep" / "m.keras", **{name: b"{}"})
    with pytest.raises(ValueError, match=r"m\.keras has no readable config\.json: it holds"):
        load_keras_file(tmp_path / "deep" / "m.keras")
    assert not (tmp_path / "outside").exists()


def test_archives_that_unpack_to_very_much_are_not_unpacked(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("ssd_centernet.models.saved._MOST_CONFIG", 500_000)
    for name, size in (("config.json", 1_000_000), ("model.weights.h5", 20_000_000)):
        path = tmp_path / f"{name}.keras"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for one in sorted({*old.namelist()} - {name}):
                new.writestr(one, old.read(one))
            with new.open(name, "w") as member:
                member.write(bytes(size))
        with pytest.raises(ValueError, match=rf"it unpacks to {size // 10**6}\d+ bytes"):
            load_keras_file(path)


def test_hdf5_and_an_archive_in_one_file_is_read_as_the_archive(payload, saved, tmp_path):
    path = tmp_path / "both.keras"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(_named("Lambda", "keras.layers"))
    path.write_bytes(path.read_bytes() + saved.read_bytes())
    assert type(load_keras_file(path).layers[1]) is keras.layers.Dense
    # Under another spelling Keras would take the HDF5.
    path.rename(tmp_path / "both.KERAS")
    with pytest.raises(ValueError, match="in small letters"):
        open_weights(tmp_path / "both.KERAS")
    assert not payload.exists()


@pytest.mark.parametrize("keep", [30, 200, -1])
def test_damaged_archives_are_told_in_a_line(saved, tmp_path, keep):
    data = bytearray(saved.read_bytes())
    if keep > 0:
        data = data[:-keep]
    else:
        data[len(data) // 2 : len(data) // 2 + 600] = bytes(600)
    (tmp_path / "m.keras").write_bytes(data)
    with pytest.raises(ValueError, match=r"m\.keras (is |has no readable|cannot be)"):
        load_keras_file(tmp_path / "m.keras")


@pytest.mark.parametrize(
    "change",
    [
        _part(units="three"),
        _part(units=-1),
        _set(config=[1]),
        _set(inbound_nodes="none"),
        lambda top: top["config"].pop("layers"),
        lambda top: top.update(config=None),
        _part(kernel_initializer={"class_name": "Zeros"}),
    ],
)
def test_descriptions_that_make_no_model_are_told_in_a_line(saved, tmp_path, change):
    try:
        path = _edited(saved, tmp_path / "m.keras", change)
        load_keras_file(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} ") and "\n" not in str(error)
