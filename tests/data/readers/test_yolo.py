"""YOLO folders: where things lie, data.yaml as tools write it, label files and their mistakes."""

import pytest

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.readers.data_yaml import read_data_yaml
from ssd_centernet.data.readers.yolo import read_yolo
from ssd_centernet.labels import LabelMap
from tests.data.coco_set import encode, picture
from tests.data.readers import own_set


def files(source):
    return [image["file_name"] for image in source.content["images"]]


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, 'big emu']",
        'names: ["cat",\n  "big emu"]  # two',
        "names:\n- cat\n- big emu",
        "names:\n  - cat\n  - 'big emu'",
        "names:\n  0: cat\n  1: big emu",
        "names: {0: cat, 1: 'big emu'}",
        "names: {big emu: 1, cat: 0}",
        "'names':\r\n  0: \"cat\"\r\n  1: big emu\r",
        "names: &all\n  - cat\n  - >-\n    big\n    emu",
    ],
)
def test_names_in_every_form(names, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(f"train: ../train/images\n{names}\nother:\n  - x\n", encoding="utf-8-sig")
    read = read_data_yaml(path)
    assert read == {"train": "../train/images", "names": ["cat", "big emu"]}


def test_data_yaml_keeps_words_and_leaves_out_nothing(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(
        "train: [a/images, 'b: c']\nval: C:\\data\nvalid: null\ntest:\nnc: 3\n"
        'names: [no, 1.0, "it\'s"]\nroboflow: !!python/name:os.system {a: 1}\n'
    )
    assert read_data_yaml(path) == {
        "train": ["a/images", "b: c"],
        "val": "C:\\data",
        "nc": "3",
        "names": ["no", "1.0", "it's"],
    }
    for nothing in ("", "---\n...\n", "# a comment\n", "names: []\n"):
        path.write_text(nothing)
        assert read_data_yaml(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat, emu\nnc: 2\n", r"line 2, column 3: .*expected ',' or '\]'.* open bracket"),
        ("names:\n  0: cat\n\t1: emu\n", r"line 3, column 1: .*found character '\\t'.* a tab"),
        ('train: "D:\\me"\n', "line 1, column 12: .*unknown escape character 'm'.* a backslash"),
        ("a: 1\nnames: {0: cat, 0: emu}\n", "line 2, column 17: the key '0' occurs twice; remove"),
        ("names: [cat, [emu]]\n", "names: expected a list of names, or 'number: name', got"),
        ("names: {0: cat, 1: [emu]}\n", "names: expected a list of names"),
        ("train: {a: b}\n", "train: expected a text or a list of texts, got {a: b}"),
        ("- cat\n- emu\n", r"expected lines of 'key: value', got \[cat, emu\]"),
        ("a: \x01\n", "line 1: the character '.x01' cannot stand in YAML"),
    ],
)
def test_data_yaml_that_cannot_be_read(text, message, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)data\.yaml: {message}"):
        read_data_yaml(path)


def test_data_yaml_mistakes(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("names: {1: cat, 2: emu}\n")
    with pytest.raises(ValueError, match="expected 0 to 1 without a gap"):
        read_data_yaml(path)
    root = own_set.write_yolo(tmp_path)
    path.write_text("train: images/train\nnc: 3\nnames: [cat, emu]\n")
    with pytest.raises(ValueError, match="nc: 3, but names 2 classes"):
        read_yolo(root, split="train")
    path.write_text("train: images/train\n")
    with pytest.raises(ValueError, match="have no names"):
        read_yolo(root, split="train")
    path.write_text("path: /data/else\ntrain: pictures/train\nnames: [cat, emu]\n")
    with pytest.raises(FileNotFoundError, match="which does not exist: looked for"):
        read_yolo(root, split="train")


@pytest.mark.parametrize("folder", ["images/val", "valid/images", "val/images"])
def test_folders_are_found_without_data_yaml(folder, tmp_path):
    images = own_set.write_images(tmp_path / folder)
    labels = tmp_path / folder.replace("images", "labels")
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\nemu\n")
    source = read_yolo(tmp_path, split="val")
    assert source.image_dir == str(images) and files(source) == ["a.jpg", "b.jpg", "c.png"]
    [one] = source.content["annotations"]
    assert (one["bbox"], one["category_id"]) == ([10, 7.5, 20, 15], 2)
    reason = "no label file: an image without objects"
    assert source.report.count("notes", reason) == 2


def test_paths_of_another_machine_in_data_yaml(tmp_path):
    root = own_set.write_yolo(tmp_path)
    yaml = root / "data.yaml"
    yaml.write_text("path: C:\\data\ntrain: D:\\me\\images\\train\nnames: [cat, emu]\n")
    assert files(read_yolo(yaml, split="train")) == ["a.jpg", "b.jpg", "c.png"]
    yaml.write_text("path: ../elsewhere\ntrain: list.txt\nnames: [cat, emu]\n")
    (root / "list.txt").write_text("./images/train/a.jpg\nC:\\me\\images\\train\\c.png\n")
    source = read_yolo(yaml, split="train")
    assert files(source) == ["images/train/a.jpg", "images/train/c.png"]
    entry = source.report.to_dict()["notes"][
        "path of data.yaml does not exist: what lies beside data.yaml is taken"
    ]
    assert entry == {"count": 1, "first": ["../elsewhere"]}
    assert len(source.content["annotations"]) == 3
    with pytest.raises(FileNotFoundError, match="no images of split 'holdout'"):
        read_yolo(root, split="holdout")


def test_lines_that_are_no_boxes(tmp_path):
    root = own_set.write_yolo(tmp_path)
    lines = [
        "0 0.5 0.5 0.25 0.2",
        "0 0,5 0,5 0,25 0,2",
        "1 0.25 0.1 0.75 0.1 0.5 0.6",  # a polygon
        "0.5 0.5 0.5 0.5 0.5",
        "cat 0.5 0.5 0.5 0.5",
        "1 0.5 0.5",
        "1 nan 0.5 0.5 0.5",
        "1 0.5 0.5 -0.5 0.5",
        "1 0.5 0.5 0.5 0",
    ]
    (root / "labels/train/a.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    (root / "labels/train/c.txt").write_text("")
    source = read_yolo(root, split="train")
    boxes = [a["bbox"] for a in source.content["annotations"]]
    # The second line is the first one again, with decimal commas.
    assert boxes == [[15, 12, 10, 6], [10, 3, 20, 15]]
    assert own_set.reasons(source, "dropped boxes") == {
        "not numbers": 2,
        "not five numbers: class x_center y_center width height": 1,
        "the class is not a whole number, 0 or above": 1,
        "zero or negative width or height": 2,
    }
    assert sum(own_set.reasons(source, "repaired boxes").values()) == 1
    (root / "labels/train/a.txt").write_text("1 0.5 0.5\n")
    with pytest.raises(ValueError, match=r"no line of .* is a box: 1: not five numbers.*\(a.txt"):
        read_yolo(root, split="train")


def test_class_numbers_beyond_the_names(tmp_path):
    root = own_set.write_yolo(tmp_path)
    (root / "labels/train/a.txt").write_text("2 0.5 0.5 0.25 0.2\n")
    with pytest.raises(ValueError, match=r"has class 2, but the 2 names are classes 0..1.*from 1"):
        read_yolo(root, split="train")


def test_names_of_a_label_map_alone(tmp_path):
    root = own_set.write_yolo(tmp_path)
    (root / "data.yaml").unlink()
    source = read_yolo(root, split="train", label_map=LabelMap(["dog", "hen"], [3, 7]))
    assert [a["category_id"] for a in source.content["annotations"]] == [7, 3, 3]


def test_boxes_are_of_the_picture_as_it_is_seen(tmp_path):
    """Labelling tools turn pictures by their EXIF orientation, and so do boxes follow."""
    root = own_set.write_yolo(tmp_path)
    upright = picture(20, 40)  # Bright at the right.
    exif = upright.getexif()
    exif[0x0112] = 6
    stored = upright.rotate(90, expand=True)
    (root / "images/train/a.jpg").write_bytes(encode(stored, exif=exif))
    (root / "labels/train/a.txt").write_text("0 0.75 0.25 0.5 0.5\n")
    info = convert_annotations(root, tmp_path / "out", num_shards=1, progress=False)
    assert own_set.truth_by_file(tmp_path / "out")["a.jpg"] == [([10, 0, 10, 20], 1)]
    assert list(info["report"]["repaired images"]) == [
        "turned by its EXIF orientation, as its boxes are"
    ]
    # Upside down the size is the same, and still it is turned.
    exif[0x0112] = 3
    (root / "images/train/a.jpg").write_bytes(encode(upright.rotate(180), exif=exif))
    info = convert_annotations(root, tmp_path / "out", num_shards=1, progress=False, overwrite=True)
    assert info["report"]["repaired images"]
