"""Pascal VOC: lists, pixels from 1 or 0, stale file names, and what tools write wrongly."""

import pytest

from ssd_centernet.data.readers.voc import read_voc
from tests.data.coco_set import encode, picture
from tests.data.readers import own_set


def boxes(source):
    return [(a["bbox"], a["category_id"], a["iscrowd"]) for a in source.content["annotations"]]


def flat(folder, **files):
    """A folder of XML beside images, as labelling tools write it."""
    folder.mkdir(exist_ok=True)
    for stem, xml in files.items():
        (folder / f"{stem}.xml").write_text(xml)
        (folder / f"{stem}.jpg").write_bytes(encode(picture(own_set.WIDTH, own_set.HEIGHT)))
    return folder


def test_split_lists(tmp_path):
    root = own_set.write_voc(tmp_path)
    source = read_voc(root, split="val")
    assert [i["file_name"] for i in source.content["images"]] == ["c.png"]
    # The classes are those of all splits.
    assert [c["name"] for c in source.content["categories"]] == ["cat", "emu"]
    with pytest.raises(FileNotFoundError, match=r"no list for split 'test': it has train, val"):
        read_voc(root, split="test")
    (tmp_path / "mine.txt").write_text("b.jpg\r\nsub\\a\r\ngone\r\n", encoding="utf-8-sig")
    source = read_voc(root, split="test", image_list=tmp_path / "mine.txt")
    assert [i["file_name"] for i in source.content["images"]] == ["b.jpg", "a.jpg"]
    reason = "in the list of the split, but has no XML file"
    assert source.report.count("dropped images", reason) == 1


def test_a_list_of_one_class_is_read_by_its_names(tmp_path):
    root = own_set.write_voc(tmp_path)
    path = root / "ImageSets/Main/cat_train.txt"
    source = read_voc(root, split="train", image_list=path)
    assert [i["file_name"] for i in source.content["images"]] == ["a.jpg"]


def test_pixels_from_zero_or_one(tmp_path):
    xml = own_set.voc_xml("a.jpg", [(-1, 4, 20, 20, "cat")])  # <xmin>0</xmin>, <ymin>5</ymin>
    folder = flat(tmp_path / "flat", a=xml)
    source = read_voc(folder, split="train")
    assert boxes(source) == [([-1, 4, 21, 16], 1, 0)]
    [note] = own_set.reasons(source)
    assert "first_pixel to 0" in note
    source = read_voc(folder, split="train", first_pixel=0)
    assert boxes(source) == [([0, 5, 20, 15], 1, 0)] and own_set.reasons(source) == {}


def test_swapped_corners_difficult_and_decimal_commas(tmp_path):
    xml = own_set.voc_xml("a.jpg", [(20, 4, 10, 15, "cat")], extra="<difficult>1</difficult>")
    xml = xml.replace("<ymax>15</ymax>", "<ymax>15,5</ymax>")
    source = read_voc(flat(tmp_path / "flat", a=xml), split="train")
    # xmin 21 and xmax 10 are the last and the first pixel.
    assert boxes(source) == [([9, 4, 12, 11.5], 1, 1)]
    assert source.report.count("repaired boxes", "corners swapped: put in order") == 1


def test_objects_without_name_or_numbers_are_dropped(tmp_path):
    xml = own_set.voc_xml("a.jpg", [(1, 1, 9, 9, "cat"), (1, 1, 9, 9, ""), (2, 2, 8, 8, "emu")])
    xml = xml.replace("<xmin>3</xmin>", "<xmin>left</xmin>")
    report = (source := read_voc(flat(tmp_path / "flat", a=xml), split="train")).report
    assert len(boxes(source)) == 1
    assert report.count("dropped boxes", "no class name") == 1
    assert report.count("dropped boxes", "bndbox is not four numbers") == 1


def test_the_image_of_the_xml_is_taken_whatever_it_says(tmp_path):
    stale = own_set.voc_xml("C:\\Users\\me\\IMG_1.JPG", [(1, 1, 9, 9, "cat")])
    folder = flat(tmp_path / "flat", a=stale)
    own_set.write_images(folder, ["other.png"])
    source = read_voc(folder, split="train")
    assert [i["file_name"] for i in source.content["images"]] == ["a.jpg"]
    assert source.report.count("notes", "image without an XML file: not used") == 1
    # Without an image of its name, that of <filename> is, by its last part and in any case.
    (folder / "a.jpg").rename(folder / "img_1.jpg")
    source = read_voc(folder, split="train")
    assert [i["file_name"] for i in source.content["images"]] == ["img_1.jpg"]


def test_damaged_or_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no XML file"):
        read_voc(tmp_path, split="train")
    folder = flat(tmp_path / "flat", a="<annotation><object>")
    with pytest.raises(ValueError, match=r"a.xml is not valid XML.*cut short"):
        read_voc(folder, split="train")
    (folder / "a.xml").write_text(own_set.voc_xml("a.jpg", []))
    with pytest.raises(ValueError, match="has no box, so no class is known"):
        read_voc(folder, split="train")
    with pytest.raises(FileNotFoundError, match="image folder"):
        read_voc(folder, split="train", image_dir=tmp_path / "none")


def test_names_that_differ_little_are_noted(tmp_path):
    xml = own_set.voc_xml("a.jpg", [(1, 1, 9, 9, "stop sign"), (1, 1, 9, 9, "Stop_sign")])
    source = read_voc(flat(tmp_path / "flat", a=xml), split="train")
    [reason] = own_set.reasons(source)
    note = source.report.to_dict()["notes"][reason]
    assert note["first"] == ["'Stop_sign' and 'stop sign'"]
