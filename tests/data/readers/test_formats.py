"""The same data set in four formats makes the same records; the format is told by the path."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.convert_formats import convert_annotations, read_label_map
from ssd_centernet.data.readers import detect_format, read_annotations
from ssd_centernet.data.readers.coco import read_coco
from ssd_centernet.labels import LabelMap
from tests.data.coco_set import parser
from tests.data.readers import own_set

WRITERS = {
    "coco": (own_set.write_coco, "images"),
    "voc": (own_set.write_voc, None),
    "yolo": (own_set.write_yolo, None),
    "csv": (own_set.write_csv, "images"),
    "tfds": (own_set.write_tfds, None),
}


def convert(path, output, **options):
    return convert_annotations(path, output, num_shards=1, progress=False, **options)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_makes_the_same_records(kind, tmp_path):
    write, images = WRITERS[kind]
    path = write(tmp_path)
    assert detect_format(path) == kind
    out = tmp_path / "out"
    info = convert(path, out, image_dir=images and tmp_path / images)
    assert (info["num_images"], info["num_objects"], info["num_empty"]) == (3, 3, 1)
    assert own_set.truth_by_file(out) == own_set.EXPECTED
    label_map = LabelMap.from_pbtxt(out / "mscoco_label_map.pbtxt")
    assert (label_map.names, label_map.ids) == (("cat", "emu"), (1, 2))
    parse = parser(label_map)
    records = tf.data.TFRecordDataset(str(out / "coco_train.record-00000-of-00001"))
    examples = [parse(record) for record in records]
    expected = [[6 / 30, 10 / 40, 21 / 30, 30 / 40], [0, 0, 3 / 30, 4 / 40]]
    np.testing.assert_allclose(examples[0]["boxes"], expected, atol=1e-5)
    assert examples[0]["classes"].numpy().tolist() == [1, 0]
    assert len(examples[1]["boxes"]) == 0
    # A second call does nothing; other annotations are noticed.
    assert convert(path, out, image_dir=images and tmp_path / images) == info


def test_the_second_split_takes_the_label_map_of_the_first(tmp_path):
    table = own_set.write_csv(tmp_path)
    out = tmp_path / "out"
    convert(table, out, image_dir=tmp_path / "images")
    other = tmp_path / "val.csv"
    other.write_text("file;x1;y1;x2;y2;label\na.jpg;1;2;11,5;12;emu\n")
    convert(other, out, image_dir=tmp_path / "images", split="val")
    assert own_set.truth_by_file(out, "val") == {"a.jpg": [([1, 2, 10.5, 10], 2)]}
    other.write_text("file;x1;y1;x2;y2;label\na.jpg;1;2;11,5;12;emus\n")
    with pytest.raises(ValueError, match=r"'emus' \(1 box, first in line 2, did you mean 'emu'"):
        convert(other, out, image_dir=tmp_path / "images", split="val", overwrite=True)
    options = {"image_dir": tmp_path / "images", "split": "val", "overwrite": True}
    # Without the unknown class no box would be left, and that is no data set.
    with pytest.raises(ValueError, match="(?s)No box of .* is left.*unknown category"):
        convert(other, out, drop_unknown_categories=True, **options)
    other.write_text(other.read_text() + "a.jpg;1;2;11;12;emu\n")
    info = convert(other, out, drop_unknown_categories=True, **options)
    assert info["num_objects"] == 1
    assert info["report"]["dropped boxes"]["unknown category"]["count"] == 1


def test_changed_boxes_are_another_conversion(tmp_path):
    root = own_set.write_voc(tmp_path)
    convert(root, tmp_path / "out")
    (root / "Annotations" / "b.xml").write_text(own_set.voc_xml("b.jpg", [(1, 1, 9, 9, "cat")]))
    with pytest.raises(FileExistsError, match="overwrite"):
        convert(root, tmp_path / "out")
    assert convert(root, tmp_path / "out", overwrite=True)["num_objects"] == 4


def test_label_map_gives_ids_and_may_be_a_list_of_names(tmp_path):
    table = own_set.write_csv(tmp_path)
    (tmp_path / "classes.txt").write_text("dog\nemu\ncat\n", encoding="utf-8-sig")
    label_map = read_label_map(tmp_path / "classes.txt")
    assert label_map.names == ("dog", "emu", "cat")
    convert(table, tmp_path / "out", image_dir=tmp_path / "images", label_map=label_map)
    found = own_set.truth_by_file(tmp_path / "out")
    assert [category for _, category in found["a.jpg"]] == [2, 3]
    (tmp_path / "classes.txt").write_text("dog\ndog\n")
    with pytest.raises(ValueError, match=r"classes.txt: The name 'dog' occurs twice"):
        read_label_map(tmp_path / "classes.txt")


def test_label_map_may_start_at_zero(tmp_path):
    root = own_set.write_yolo(tmp_path)
    convert(root, tmp_path / "out", label_map=LabelMap(["cat", "emu"], [0, 1]))
    found = own_set.truth_by_file(tmp_path / "out")
    assert [category for _, category in found["a.jpg"]] == [1, 0]


def test_what_is_none_of_the_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match="do not exist"):
        detect_format(tmp_path / "nothing")
    with pytest.raises(ValueError, match="looks like none of the formats"):
        detect_format(tmp_path)
    own_set.write_voc(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match="looks like voc and yolo"):
        detect_format(tmp_path)
    with pytest.raises(ValueError, match="format must be auto or one of"):
        convert(tmp_path, tmp_path / "out", annotation_format="voc2007")
    with pytest.raises(ValueError, match="first_pixel is 1, but it is for voc and csv only"):
        convert(tmp_path, tmp_path / "out", annotation_format="yolo", first_pixel=1)
    path = own_set.write_coco(tmp_path)
    with pytest.raises(ValueError, match="give their image_dir"):
        convert(path, tmp_path / "out")


def test_coco_with_windows_paths_and_byte_order_mark(tmp_path):
    path = own_set.write_coco(tmp_path)
    own_set.write_images(tmp_path / "images" / "sub", ["a.jpg"])
    text = path.read_text().replace('"a.jpg"', '"sub\\\\a.jpg"')
    path.write_text(text, encoding="utf-8-sig")
    info = convert(path, tmp_path / "out", image_dir=tmp_path / "images")
    assert info["num_images"] == 3
    assert info["report"]["notes"]["backslashes in file_name read as folders"]["count"] == 1


@pytest.mark.parametrize("kind", ["auto", "coco", "voc", "yolo", "csv"])
@pytest.mark.parametrize("ending", ["json", "csv", "yaml", "xml"])
def test_pipes_and_devices_are_refused_and_never_opened(kind, ending, tmp_path):
    own_set.write_images(tmp_path / "images")
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        path = tmp_path / f"{name}.{ending}"
        with pytest.raises(ValueError, match=rf"{name}\.{ending} is a pipe, a device or a socket"):
            read_annotations(path, annotation_format=kind, image_dir=tmp_path / "images")
    with pytest.raises(ValueError, match=rf"pipe\.{ending} is a pipe, a device or a socket"):
        read_coco(tmp_path / f"pipe.{ending}", tmp_path / "images")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "a.json",
            {"shapes": [], "imagePath": "a.jpg", "version": "5"},
            "a.json. It looks .*[Ll]abelme",
        ),
        ("ann/a.jpg.json", {"objects": [], "size": {}}, "a.jpg.json. It looks like a Supervisely"),
        (
            "_annotations.coco.json",
            {"images": [], "annotations": [], "categories": []},
            "_annotations.coco.json. It looks like COCO json: give the file",
        ),
    ],
)
def test_a_folder_of_json_files_is_told_what_they_are(file, content, words, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"looks like none of the formats.*{words}"):
        detect_format(tmp_path)
