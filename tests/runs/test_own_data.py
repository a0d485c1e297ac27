"""Annotations of a run that are given again, corrected or wrong: what becomes of the records."""

import json
import re
import shutil

import pytest

from ssd_centernet.runs.own_data import OwnData
from tests.data.readers.own_set import write_voc, write_yolo


def csv_of(folder, name, boxes, image="a.jpg"):
    """Write a table of boxes (x1, y1, x2, y2, class) of one image of `write_voc`."""
    rows = [f"{image},{x1},{y1},{x2},{y2},{c}" for x1, y1, x2, y2, c in boxes]
    (folder / name).write_text("\n".join(["image,xmin,ymin,xmax,ymax,class", *rows]))
    return str(folder / name)


@pytest.fixture
def given(tmp_path):
    images = write_voc(tmp_path / "voc") / "JPEGImages"
    return {
        "model_dir": str(tmp_path / "run"),
        "annotations": csv_of(tmp_path, "t.csv", [(2, 3, 20, 12, "emu")]),
        "image_dir": str(images),
        "val_annotations": csv_of(tmp_path, "v.csv", [(4, 3, 20, 12, "emu")], "c.png"),
    }


def convert(given):
    said = []
    OwnData(**given).convert("coco_train", "coco_val", said.append)
    return "\n".join(said)


def boxes(tmp_path, split):
    content = json.loads((tmp_path / "run/data" / f"coco_{split}.annotations.json").read_text())
    return [one["bbox"] for one in content["annotations"]]


def files_of(tmp_path):
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (tmp_path / "run/data").glob("coco_train.*")
    }


def test_an_error_of_the_validation_leaves_the_converted_training_split(given, tmp_path):
    convert(given)
    before = files_of(tmp_path)
    csv_of(tmp_path, "v.csv", [(4, 3, 20, 12, "emoo")], "c.png")
    with pytest.raises(ValueError, match=r"'emoo' .1 box,"):
        convert(given)
    assert files_of(tmp_path) == before
    # Corrected: only this split is converted again.
    csv_of(tmp_path, "v.csv", [(6, 3, 20, 12, "emu")], "c.png")
    said = convert(given)
    assert "coco_train: " in said and "was converted before" in said
    assert files_of(tmp_path) == before
    assert boxes(tmp_path, "val") == [[6, 3, 14, 9]]


def test_annotations_that_cannot_be_read_do_not_cost_the_records_of_before(given, tmp_path):
    convert(given)
    before = files_of(tmp_path)
    csv_of(tmp_path, "t.csv", [(0.1, 0.1, 0.5, 0.5, "emu"), (0.2, 0.1, 0.5, 0.9, "emu")])
    with pytest.raises(ValueError, match=r"t\.csv"):
        convert(given)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "run/data.before").exists()
    csv_of(tmp_path, "t.csv", [(5, 3, 20, 12, "gnu")])
    csv_of(tmp_path, "v.csv", [(6, 3, 20, 12, "gnu")], "c.png")
    assert "nothing is trained yet: it goes" in convert(given)
    assert (boxes(tmp_path, "train"), boxes(tmp_path, "val")) == ([[5, 3, 15, 9]], [[6, 3, 14, 9]])
    assert not (tmp_path / "run/data.before").exists()


@pytest.mark.parametrize("missing", [False, True])
def test_the_validation_is_read_before_the_pictures_of_the_training(given, tmp_path, missing):
    # With such a picture the conversion of the training split fails too, but later.
    (tmp_path / "voc" / "JPEGImages" / "a.jpg").write_bytes(b"no picture")
    csv_of(tmp_path, "v.csv", [(4, 3, 20, 12, "emu" if missing else "emoo")], "c.png")
    (tmp_path / "none").mkdir()
    wrong = {"val_image_dir": str(tmp_path / "none")} if missing else {}
    with pytest.raises(FileNotFoundError if missing else ValueError) as error:
        convert(given | wrong)
    told = (
        f"--val_image_dir={tmp_path / 'none'} here" if missing else "v.csv is not in the label map"
    )
    assert told in str(error.value)
    with pytest.raises(ValueError, match="t.csv could be used"):
        convert(given | {"val_annotations": None})


def test_a_folder_of_the_validation_that_data_yaml_does_not_name_is_told(tmp_path):
    root = write_yolo(tmp_path / "yolo")
    for kind in ("images", "labels"):
        shutil.copytree(root / kind / "train", root / kind / "val")
    described = root / "data.yaml"
    described.write_text(described.read_text().replace("val: images/val\n", ""))
    said = convert({"model_dir": str(tmp_path / "run"), "annotations": str(described)})
    assert "data.yaml has no val: the folder of this name beside it is taken" in said
    assert "images/val" in said and "data.yaml has no train" not in said


def test_two_splits_of_one_name_do_not_replace_each_other(given):
    with pytest.raises(FileExistsError, match="--val_annotations=.*v.csv"):
        OwnData(**given).convert("coco_train", "coco_train", lambda _: None)


def test_records_in_the_place_of_annotations_are_told(given, tmp_path):
    convert(given)
    data = str(tmp_path / "run/data")
    for flag in ("annotations", "val_annotations"):
        with pytest.raises(ValueError, match=f"--{flag}=.* holds records .coco_train, coco_val.*"):
            OwnData(**given | {flag: data})


def test_a_missing_folder_of_images_is_named_by_its_flag(given, tmp_path):
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(f"--val_image_dir={empty} here")):
        convert(given | {"val_image_dir": str(empty)})
    coco = tmp_path / "a.json"
    coco.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(ValueError, match=r"where its images are.*--image_dir=FOLDER"):
        convert(given | {"annotations": str(coco), "image_dir": None})


def test_a_folder_that_no_run_can_have_is_refused_before_the_conversion(given, tmp_path):
    with pytest.raises(ValueError, match=r"--model_dir=.* holds \[ \]"):
        convert(given | {"model_dir": str(tmp_path / "run[1]")})
    assert not (tmp_path / "run[1]").exists()
