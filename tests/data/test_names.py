"""Conversions that begin with a name of their own are found like those that begin with coco."""

import json

import pytest

from ssd_centernet.cli._runs import whole_split
from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.directory import annotations_path
from ssd_centernet.data.shards import RecordSource
from ssd_centernet.data.splits import find_shards, list_splits, read_info, split_prefix
from ssd_centernet.runs.own_data import images_of_split
from tests.data.readers.own_set import write_voc


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    root = write_voc(tmp_path_factory.mktemp("birds") / "voc")
    out = root.parent / "data"
    for split in ("train", "val"):
        convert_annotations(root, out, split=split, name="birds", num_shards=1, progress=False)
    return out


def test_files_begin_with_the_name_and_share_a_label_map(birds):
    names = sorted(path.name for path in birds.iterdir() if not path.name.startswith("."))
    of_split = ("annotations.json", "info.json", "record-00000-of-00001")
    wanted = [f"birds_{split}.{end}" for split in ("train", "val") for end in of_split]
    assert names == sorted([*wanted, "mscoco_label_map.pbtxt"])


@pytest.mark.parametrize("split", ["coco_val", "val", "birds_val"])
def test_every_name_of_a_split_finds_it(birds, split):
    assert split_prefix(birds, split) == "birds_val"
    (path,) = find_shards(birds, split)
    assert path.endswith("birds_val.record-00000-of-00001")
    assert read_info(birds, split)["num_images"] == 1
    assert annotations_path(birds, split).name == "birds_val.annotations.json"
    assert [path.rpartition("/")[2] for path in images_of_split(birds, split)] == ["c.png"]
    assert RecordSource(str(birds), split, 0, 1, True, "object").split == "birds_val"
    assert whole_split(str(birds), split) == "birds_val"


def test_a_second_conversion_does_nothing_and_another_data_set_may_lie_beside(birds, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in birds.glob("birds_*")}
    root = birds.parent / "voc"
    convert_annotations(root, birds, split="val", name="birds", num_shards=1, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in birds.glob("birds_*")} == before


def test_what_is_not_sure_is_not_taken(birds, tmp_path):
    for name in ("a_train", "b_train"):
        (tmp_path / f"{name}.record-00000-of-00001").write_bytes(b"")
    # No conversion of ours says what they are.
    assert split_prefix(tmp_path, "coco_train") == "coco_train"
    info = json.loads((birds / "birds_train.info.json").read_text())
    (tmp_path / "a_train.info.json").write_text(json.dumps(info))
    assert split_prefix(tmp_path, "coco_train") == "a_train"
    (tmp_path / "b_train.info.json").write_text(json.dumps(info))
    assert split_prefix(tmp_path, "coco_train") == "coco_train"
    with pytest.raises(FileNotFoundError, match="a_train .1 file., b_train .1 file."):
        find_shards(tmp_path, "coco_train")
    assert list(list_splits(tmp_path)) == ["a_train", "b_train"]
    (tmp_path / "coco_train.record-00000-of-00001").write_bytes(b"")
    assert split_prefix(tmp_path, "coco_train") == "coco_train"


def test_one_data_set_without_info_files_is_found_by_its_names(tmp_path):
    (tmp_path / "pets_train.record").write_bytes(b"")
    (tmp_path / "minival.record").write_bytes(b"")
    assert split_prefix(tmp_path, "coco_train") == split_prefix(tmp_path, "train") == "pets_train"
    assert split_prefix(tmp_path, "coco_val") == "coco_val"
    # The name of another split that ends so, as its conversion noted.
    (tmp_path / "pets_train.info.json").write_text(json.dumps({"split": "pets_train"}))
    assert split_prefix(tmp_path, "coco_train") == "coco_train"


def test_a_name_that_no_file_should_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name must be of letters, digits, '_' or '.', got 'a/b'"):
        convert_annotations(write_voc(tmp_path / "voc"), tmp_path / "out", name="a/b")
