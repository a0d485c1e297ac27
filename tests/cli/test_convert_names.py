"""What the command convert calls a data set, and what it says of a conversion that is there."""

import json

import pytest

from ssd_centernet.cli import convert
from ssd_centernet.data.names import names_in, new_name
from ssd_centernet.labels import LabelMap
from tests.cli.command_line import parsed
from tests.data.coco_set import CocoSet
from tests.data.readers.own_set import write_voc


@pytest.fixture
def converted(tmp_path, capsys):
    """Convert a split of a small VOC set into a folder; returns what the command said."""
    root = write_voc(tmp_path / "voc")

    def run(folder, split="train", *more, annotations=root):
        given = [f"--annotations={annotations}", f"--output_dir={folder}", f"--split={split}"]
        with parsed("convert", [*given, *more]):
            convert.main(["convert"])
        return capsys.readouterr().out

    return run


def splits(folder):
    return sorted(path.name.removesuffix(".info.json") for path in folder.glob("*.info.json"))


def test_a_data_set_is_called_as_its_folder_and_the_last_lines_say_so(converted, tmp_path):
    said = converted(tmp_path / "my birds")
    assert splits(tmp_path / "my birds") == ["my_birds_train"]
    assert "my birds/my_birds_train.record-*: 3 images (" in " ".join(said.split())
    assert "is called my_birds, as its folder; --name=NAME gives another name.\nnext: " in said
    said = converted(tmp_path / "my birds", "val")
    assert splits(tmp_path / "my birds") == ["my_birds_train", "my_birds_val"]
    assert "--name" not in said
    assert f"'--data_dir={tmp_path / 'my birds'}' '--model_dir=runs/my birds'" in said


def test_a_given_name_stays_with_the_folder(converted, tmp_path):
    said = converted(tmp_path / "data", "train", "--name=birds")
    assert said.endswith("--split=val --name=birds\n")
    converted(tmp_path / "data", "val")
    # Other input, without a word about the name.
    converted(tmp_path / "data", "train", "--max_images=1", "--overwrite")
    assert splits(tmp_path / "data") == ["birds_train", "birds_val"]


def test_folders_of_earlier_versions_stay_coco(converted, tmp_path):
    converted(tmp_path / "birds", "train", "--name=coco")
    path = tmp_path / "birds" / "coco_train.info.json"
    info = json.loads(path.read_text())
    del info["name"], info["split"]
    path.write_text(json.dumps(info))
    converted(tmp_path / "birds", "val")
    assert splits(tmp_path / "birds") == ["coco_train", "coco_val"]


def test_coco_is_called_coco_in_every_folder(converted, tmp_path):
    coco = CocoSet(tmp_path)
    coco.content["categories"] = LabelMap.coco().to_categories()
    coco.image().box(category_id=18)
    coco.json.write_text(json.dumps(coco.content))
    converted(tmp_path / "out", "train", f"--image_dir={coco.image_dir}", annotations=coco.json)
    assert splits(tmp_path / "out") == ["coco_train"]


def test_names_are_made_of_what_files_can_have(tmp_path):
    pets = LabelMap(["cat", "dog"])
    for folder, name in (
        ("Vögel 2", "Vogel_2"),
        ("鳥", "data"),
        (".hidden", "hidden"),
        ("a-b", "a_b"),
    ):
        assert new_name(tmp_path / folder, pets) == name
    assert new_name("/", pets) == "data"


def test_a_folder_of_several_data_sets_asks_whose_split_it_is(converted, tmp_path):
    folder = tmp_path / "data"
    converted(folder, "train", "--name=fish")
    said = converted(folder, "train", "--name=birds")
    assert said.endswith("--split=val --name=birds\n")
    with pytest.raises(ValueError, match=r"data sets birds, fish: say by name \(--name\) whose"):
        converted(folder, "val")
    said = converted(folder, "val", "--name=birds")
    assert "--train_split=birds_train --model_dir=" in said
    assert names_in(folder) == ["birds", "fish"]


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_two_splits_never_share_their_files(converted, tmp_path, overwrite):
    folder = tmp_path / "data"
    (tmp_path / "voc/ImageSets/Main/train_val.txt").write_text("a\n")
    converted(folder, "train_val", "--name=a")
    before = (folder / "a_train_val.record-00000-of-00001").read_bytes()
    message = (
        "a_train_val as the split 'train_val' of the data set 'a'; the split 'val' of 'a_train'"
    )
    with pytest.raises(FileExistsError, match=message):
        converted(folder, "val", "--name=a_train", *overwrite)
    assert (folder / "a_train_val.record-00000-of-00001").read_bytes() == before


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_second_call_says_that_it_wrote_nothing(converted, tmp_path, overwrite):
    same = "was converted from the same input before: nothing is written anew."
    assert same not in converted(tmp_path / "birds")
    said = converted(tmp_path / "birds", "train", *overwrite)
    assert said.startswith(f"birds_train {same}")
