"""YOLO sets of many tools: folders, lists, names, and label files that fit no picture."""

import os

import pytest

from ssd_centernet.data.readers import detect_format
from ssd_centernet.data.readers.yolo import read_yolo
from tests.data.readers import own_set

LINE = "1 0.5 0.45 0.5 0.5\n"
BOX = [10, 6, 20, 15]


def make(root, pictures, labels, yaml="train: images/train\nnames: [cat, emu]\n"):
    for name in pictures:
        own_set.write_images((root / name).parent, [os.path.basename(name)])
    for name in labels:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(LINE)
    if yaml:
        (root / "data.yaml").write_text(yaml)
    return root


def found(source):
    """File -> number of boxes."""
    files = {image["id"]: image["file_name"] for image in source.content["images"]}
    counts = dict.fromkeys(files.values(), 0)
    for one in source.content["annotations"]:
        assert one["bbox"] == BOX
        counts[files[one["image_id"]]] += 1
    return counts


def test_pictures_and_label_files_that_do_not_fit(tmp_path):
    root = make(
        tmp_path,
        ["images/train/a.jpg", "images/train/a.png", "images/train/B.JPG", "images/train/c.jfif"],
        [f"labels/train/{n}.txt" for n in ("a", "A", "b", "c.jfif", "gone", "s/d")],
    )
    (root / "labels/train/classes.txt").write_text("cat\nemu\n")
    (root / "labels/train/._a.txt").write_bytes(b"\x00\x05\x16\x07")
    source = read_yolo(root, split="train")
    assert found(source) == {"B.JPG": 1, "a.jpg": 1, "a.png": 1, "c.jfif": 1}
    assert own_set.reasons(source) == {
        "label file found in upper or lower case, or with other accents": 1,
        "pictures that share one label file: each gets its boxes": 1,
        "label file without a picture of its own: not used": 3,
    }
    notes = source.report.to_dict()["notes"]
    assert notes["label file without a picture of its own: not used"]["first"] == [
        "A.txt",
        "gone.txt",
        "d.txt",
    ]
    shared = notes["pictures that share one label file: each gets its boxes"]
    assert shared["first"] == ["a.jpg and a.png"]


def test_composed_names_and_links(tmp_path):
    store = own_set.write_images(tmp_path / "store", ["x.jpg"])
    root = make(tmp_path / "set", [], ["labels/train/caf\u00e9.txt", "labels/train/more/x.txt"])
    (root / "images/train").mkdir(parents=True)
    (root / "images/train/cafe\u0301.jpg").symlink_to(store / "x.jpg")
    (root / "images/train/more").symlink_to(store)
    source = read_yolo(root, split="train")
    assert found(source) == {"cafe\u0301.jpg": 1, "more/x.jpg": 1}
    assert sum(own_set.reasons(source).values()) == 1


def test_no_label_file_at_all_is_an_error(tmp_path):
    root = make(tmp_path, ["images/train/a.jpg", "images/train/b.jpg"], ["lables/train/a.txt"])
    told = r"none of the 2 pictures of .*images/train has a label file: looked for .*labels/train/a"
    with pytest.raises(ValueError, match=told):
        read_yolo(root, split="train")


@pytest.mark.parametrize("given", ["", "obj.data"])
@pytest.mark.parametrize("listed", [True, False])
def test_darknet_and_cvat(given, listed, tmp_path):
    names = ["obj_train_data/a.jpg", "obj_train_data/sub/b.jpg", "obj_valid_data/c.jpg"]
    root = make(tmp_path, names, [name.replace(".jpg", ".txt") for name in names], yaml="")
    (root / "obj.names").write_text("cat\r\nemu\r\n")
    data = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    (root / "obj.data").write_text(data + "backup = backup/\n")
    if listed:
        (root / "train.txt").write_text("".join(f"data/{name}\n" for name in names[:2]))
        (root / "valid.txt").write_text(f"data/{names[2]}\n")
    elif given:
        return  # obj.data names lists that must be there.
    else:
        (root / "obj.data").unlink()
    assert detect_format(root / given) == "yolo"
    read = {split: found(read_yolo(root / given, split=split)) for split in ("train", "val")}
    bases = {split: {os.path.basename(n): c for n, c in one.items()} for split, one in read.items()}
    assert bases == {"train": {"a.jpg": 1, "b.jpg": 1}, "val": {"c.jpg": 1}}


@pytest.mark.parametrize(
    "yaml",
    [
        "path: ../else\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, emu]\n",
        "path: /content/datasets/x\ntrain: train/images\nnames:\r\n  0: cat\r\n  1: emu\r\n",
        "train: D:\\data\\x\\train\\images\nnames: [cat, emu]\nroboflow: {version: 3}\n",
        "train: [train/images]\nnames: {0: cat, 1: emu}\ndownload: |\n  rm -rf /\n",
        "train: train.txt\nnames: names.names\n",
        "train:\n  - train/images\n  - more.txt\nnames: [cat, emu]\n",
    ],
)
def test_data_yaml_of_many_tools(yaml, tmp_path):
    pictures = ["train/images/a.jpg", "train/images/b.jpg", "valid/images/c.jpg"]
    root = make(tmp_path, pictures, [f"{n[:5]}/labels/{n[-5]}.txt" for n in pictures], yaml)
    (root / "train.txt").write_text(
        "\ufeff# pictures\n./train/images/a.jpg\n'train/images/b.jpg'\n"
    )
    (root / "more.txt").write_text("train/images/b.jpg\n")
    (root / "names.names").write_text("cat\nemu\n")
    (root / "valid/labels").mkdir(parents=True, exist_ok=True)
    source = read_yolo(root / "data.yaml", split="train")
    assert {os.path.basename(n): c for n, c in found(source).items()} == {"a.jpg": 1, "b.jpg": 1}


def test_folders_in_upper_case_and_pictures_beside_their_labels(tmp_path):
    root = make(tmp_path / "one", ["Images/Train/a.jpg"], ["Labels/Train/a.txt"], "")
    (root / "classes.txt").write_text("cat\nemu\n")
    assert detect_format(root) == "yolo" and found(read_yolo(root, split="train")) == {"a.jpg": 1}
    root = make(tmp_path / "two", ["a.jpg", "b.jpg"], ["a.txt"], "")
    (root / "classes.txt").write_text("cat\nemu\n")
    assert detect_format(root) == "yolo"
    source = read_yolo(root, split="train")
    assert found(source) == {"a.jpg": 1, "b.jpg": 0}
    assert own_set.reasons(source) == {"no label file: an image without objects": 1}


def test_lists_of_folders_elsewhere(tmp_path):
    yaml = f"train: [{tmp_path}/one/images, {tmp_path}/two/images]\nnames: [cat, emu]\n"
    make(tmp_path, ["one/images/a.jpg", "two/images/a.jpg"], ["one/labels/a.txt"], "")
    make(tmp_path, [], ["two/labels/a.txt"], "")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data.yaml").write_text(yaml)
    source = read_yolo(tmp_path / "set", split="train")
    assert found(source) == {"one/images/a.jpg": 1, "two/images/a.jpg": 1}
    (tmp_path / "set/data.yaml").write_text("train: list.txt\nnames: [cat, emu]\n")
    (tmp_path / "set/list.txt").write_text(f"{tmp_path}/two/images/a.jpg\n")
    source = read_yolo(tmp_path / "set", split="train")
    assert list(found(source).values()) == [1]


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path / "pics", ["images/train/a.jpg"], ["labels/train/a.txt"], "")
    (tmp_path / "set").mkdir()
    yaml = tmp_path / "set/data.yaml"
    yaml.write_text("path: ~/pics\ntrain: images/train\nnames: [cat, emu]\n")
    assert found(read_yolo(yaml, split="train")) == {"a.jpg": 1}


def test_a_split_that_is_not_described_is_not_all_pictures(tmp_path):
    yaml = "train: images\nnames: [cat, emu]\n"
    root = make(tmp_path, ["images/a.jpg"], ["labels/a.txt"], yaml)
    with pytest.raises(
        FileNotFoundError, match=r"no images of split 'val' .*data\.yaml has train;"
    ):
        read_yolo(root, split="val")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat\n\nemu\n", r"classes\.txt line 2 is empty, so the numbers of the classes after it"),
        ("cat\nemu\ncat\n", r"classes\.txt names the classes 0 and 2 both 'cat'"),
    ],
)
def test_lists_of_names_that_are_not_clear(names, message, tmp_path):
    root = make(tmp_path, ["images/train/a.jpg"], ["labels/train/a.txt"], "")
    (root / "classes.txt").write_text(names)
    with pytest.raises(ValueError, match=message):
        read_yolo(root, split="train")


def test_names_twice_in_data_yaml(tmp_path):
    yaml = "train: images/train\nnames: [cat, emu, cat]\n"
    root = make(tmp_path, ["images/train/a.jpg"], ["labels/train/a.txt"], yaml)
    with pytest.raises(ValueError, match=r"data\.yaml names the classes 0 and 2 both 'cat'"):
        read_yolo(root / "data.yaml", split="train")


def test_pipes_never_hang(tmp_path):
    root = make(tmp_path, ["images/train/a.jpg"], ["labels/train/a.txt"])
    os.mkfifo(root / "images/train/b.jpg")
    os.mkfifo(root / "labels/train/b.txt")
    source = read_yolo(root, split="train")
    assert found(source) == {"a.jpg": 1}
    (root / "list.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    source = read_yolo(root, split="train", image_list=root / "list.txt")
    assert found(source)["a.jpg"] == 1
    (root / "labels/train/a.txt").unlink()
    os.mkfifo(root / "labels/train/a.txt")
    with pytest.raises(ValueError, match=r"a\.txt is a pipe, a device or a socket"):
        read_yolo(root, split="train")


def test_lists_of_names_that_differ_are_told(tmp_path):
    root = make(tmp_path, ["images/train/a.jpg"], ["labels/train/a.txt"])
    # As labelImg leaves it beside the label files: in the order of the session.
    (root / "labels/train/classes.txt").write_text("emu\ncat\n")
    source = read_yolo(root, split="train")
    assert [c["name"] for c in source.content["categories"]] == ["cat", "emu"]
    reason = "another list of class names, in another order: not used"
    entry = source.report.to_dict()["notes"][reason]
    assert entry["count"] == 1 and "classes.txt: emu, cat" in entry["first"][0]
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cat\nemu\n")
    with pytest.raises(ValueError, match="classes.txt number the classes in different ways: cat"):
        read_yolo(root, split="train")


def test_the_list_beside_the_label_files_names_the_classes(tmp_path):
    root = make(tmp_path, ["images/train/a.jpg"], ["labels/train/a.txt"], yaml="")
    (root / "labels/train/classes.txt").write_text("cat\nemu\n")
    (root / "classes.txt").write_text("cat\nemu\nowl\n")
    source = read_yolo(root, split="train")
    assert [c["name"] for c in source.content["categories"]] == ["cat", "emu", "owl"]
    (root / "classes.txt").unlink()
    source = read_yolo(root, split="train")
    assert [c["name"] for c in source.content["categories"]] == ["cat", "emu"]
    assert found(source) == {"a.jpg": 1}
