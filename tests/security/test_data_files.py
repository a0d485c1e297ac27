"""Annotations, tables, weights and detections of strangers: data, however they are made."""

import json
import os
import pickle
import socket
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from ssd_centernet._keras import keras
from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.evaluation.coco import evaluate_detections_file
from ssd_centernet.labels import LabelMap
from ssd_centernet.weights import open_weights


class _Runs:
    """What pickle calls when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.fixture
def folder(tmp_path):
    """A folder with one picture and a converter of annotations beside it."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return tmp_path


def _convert(path, folder, **options):
    return convert_annotations(path, folder / "out", image_dir=folder, progress=False, **options)


def _coco(**changes):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "cat"}],
        **changes,
    }


def _told(error):
    """An error for a user: no other exception than these, in few lines; return its words."""
    assert isinstance(error, ValueError | OSError), repr(error)
    assert str(error).count("\n") < 9 and len(str(error)) < 3000
    return str(error)


def test_yaml_makes_no_objects(folder):
    mark = folder / "it_ran"
    for tag in (
        f"!!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/new:type {args: [x, [], {}], listitems: !!python/name:eval }",
        "&a [*a, *a]",
    ):
        (folder / "data.yaml").write_text(f"train: .\nval: .\nnames: {tag}\n")
        with pytest.raises((ValueError, OSError)) as caught:
            _convert(folder / "data.yaml", folder)
        _told(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["&secret;", "&a9;"])
def test_xml_reads_no_other_file_and_does_not_grow(folder, name):
    (folder / "secret").write_text("do-not-tell")
    grow = '<!ENTITY a0 "x">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    (folder / "voc").mkdir()
    (folder / "voc" / "a.xml").write_text(
        f'<!DOCTYPE d [<!ENTITY secret SYSTEM "{(folder / "secret").as_uri()}">{grow}]>'
        f"<annotation><filename>a.png</filename><size><width>40</width><height>30</height></size>"
        f"<object><name>{name}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object></annotation>"
    )
    with pytest.raises((ValueError, OSError)) as caught:
        _convert(folder / "voc", folder)
    assert "do-not-tell" not in _told(caught.value)


@pytest.mark.parametrize(
    "name", ["../../secret.png", "/etc/hostname", "a\0b.png", "a.png/../../secret.png", "file:///a"]
)
def test_names_of_images_do_not_lead_out_of_their_folder(folder, name):
    inside = folder / "deep" / "images"
    inside.mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "secret.png")
    images = [{"id": 1, "file_name": name, "width": 40, "height": 30}]
    path = folder / "a.json"
    path.write_text(json.dumps(_coco(images=images)))
    with pytest.raises((ValueError, OSError)) as caught:
        convert_annotations(path, folder / "out", image_dir=inside, progress=False)
    _told(caught.value)
    assert not list(folder.glob("out/*.record*"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", '{"images": ' + "[" * 100_000),
        ("a.json", '{"images": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        ("a.json", json.dumps(_coco(images=[3, None, "x"]))),
        ("a.json", json.dumps(_coco(annotations={"a": 1}))),
        ("a.json", json.dumps(_coco(categories=[["cat"]]))),
        ("a.json", json.dumps(_coco()).replace("[2, 2, 9, 9]", "[2, 2, 1e999, 9]")),
        ("a.json", json.dumps(_coco()).replace('"id": 1,', '"id": [1],')),
        ("a.json", json.dumps(_coco()).replace("40", "9" * 5000)),
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,2,2,9,9," + "x" * 200_000 + "\n"),
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,2,2,9,9,k\xe4se\n"),
        ("a.csv", 'filename,xmin,ymin,xmax,ymax,class\n"a.png,2,2,9,9,cat\n' * 50),
    ],
    ids=lambda value: value if value.startswith("a.") else None,
)
def test_broken_annotations_are_told_in_a_line(folder, file, text):
    (folder / file).write_bytes(text.encode("latin-1"))
    try:
        _convert(folder / file, folder)
    except Exception as error:
        assert file in _told(error) or str(folder) in str(error)


@pytest.mark.parametrize("content", [b"item {\n name: 'k\xe4se' id: 1 }", b"item { " * 9999, b"\0"])
def test_label_maps_that_are_no_text_are_told_with_their_place(folder, content):
    (folder / "map.pbtxt").write_bytes(content)
    with pytest.raises(ValueError, match=r"map\.pbtxt") as caught:
        LabelMap.from_pbtxt(folder / "map.pbtxt")
    _told(caught.value)


@pytest.mark.parametrize(
    "found",
    [
        {"image_id": True},
        {"category_id": "\uff11"},
        {"score": True},
        {"score": "\uff10.5"},
        {"score": None},
        {"bbox": [2, 2, 9]},
        {"bbox": [2, 2, 9, [9]]},
        {"bbox": "2299"},
        {"bbox": [2, 2, True, 9]},
        {"bbox": [2, 2, "\uff19", 9]},
    ],
)
def test_booleans_lists_and_digits_of_other_scripts_are_no_numbers(folder, found):
    (folder / "truth.json").write_text(json.dumps(_coco()))
    one = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "score": 0.5}
    (folder / "found.json").write_text(json.dumps([one, {**one, **found}]))
    with pytest.raises(ValueError, match=r"found\.json") as caught:
        evaluate_detections_file(folder / "found.json", folder / "truth.json")
    _told(caught.value)


@pytest.mark.parametrize("ending", ["npz", "npy.npz", "pth", "pt", "safetensors", "h5", "keras"])
def test_a_pickle_under_any_name_of_weights_runs_nothing(folder, ending):
    mark, path = folder / "it_ran", folder / f"w.{ending}"
    if ending == "npz":
        np.savez(path, kernel=np.array([_Runs(mark)], object))
    else:
        path.write_bytes(pickle.dumps({"state_dict": _Runs(mark)}))
    with pytest.raises(ValueError, match="cannot be read|not a .keras|no readable") as caught:
        weights = open_weights(path)
        for name in weights.shapes:
            weights.read(name)
    _told(caught.value)
    assert not mark.exists()


def test_code_in_an_hdf5_file_of_weights_is_left_alone(folder):
    mark = folder / "it_ran"

    def runs(values, path=str(mark)):
        open(path, "w").close()
        return values

    inputs = keras.Input((2,))
    outputs = keras.layers.Lambda(runs)(keras.layers.Dense(3, name="dense")(inputs))
    keras.Model(inputs, outputs).save(folder / "model.h5")
    mark.unlink()
    with h5py.File(folder / "model.h5") as file:
        assert "Lambda" in file.attrs["model_config"]
    open_weights(folder / "model.h5")
    assert not mark.exists()


def test_reading_uses_no_network(folder, model_dir, monkeypatch):
    import ssd_centernet as sc

    def refuse(*_, **__):
        raise AssertionError("a connection")

    (folder / "a.json").write_text(json.dumps(_coco()))
    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    _convert(folder / "a.json", folder)
    detector = sc.load(model_dir)
    detector.detect(np.zeros([20, 30, 3], np.uint8))
    detector.save(folder / "model.keras")
    sc.load(folder / "model.keras")
    assert "requests" not in sys.modules or os.path.exists(folder / "model.keras")
