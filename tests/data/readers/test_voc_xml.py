"""VOC files as tools write them: all objects used or counted, and sets in several folders."""

import math
import os

import pytest

from ssd_centernet.data.readers import detect_format
from ssd_centernet.data.readers.voc import read_voc
from tests.data.readers import own_set

BOX = "<bndbox><xmin>11</xmin><ymin>7</ymin><xmax>30</xmax><ymax>21</ymax></bndbox>"
OBJECT = f"<object><name>emu</name>{BOX}</object>"
FULL = [10, 6, 20, 15]


def write(root, xml, name="a"):
    own_set.write_images(root, [f"{name}.jpg"])
    path = root / f"{name}.xml"
    path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    return root


def read(root, **options):
    return read_voc(root, split="train", **options)


def boxes(source):
    return [a["bbox"] for a in source.content["annotations"]]


@pytest.mark.parametrize(
    ("xml", "notes"),
    [
        (f'<annotation xmlns="http://x/voc">{OBJECT}</annotation>', {}),
        (f'<v:annotation xmlns:v="http://x">{OBJECT}</v:annotation>', {}),
        (f"<Annotation>{OBJECT}</Annotation>".replace("object", "Object"), {}),
        (f"<annotation>{OBJECT}</annotation>".replace("bndbox", "bndBox").replace("xm", "XM"), {}),
        (f"<annotation><objects>{OBJECT}</objects></annotation>", {}),
        (f"<annotation verified='yes'><object>{OBJECT[8:]}</annotation>", {}),
        (f"<doc>{OBJECT}</doc>", {"root of the XML is not <annotation>: read as one": 1}),
        (f"\ufeff<annotation>{OBJECT}</annotation>", {}),
        (f"<annotation>{OBJECT}</annotation>".encode("utf-16"), {}),
        (
            "<?xml version='1.0' encoding='gbk'?><annotation><folder>\u56fe\u7247</folder>"
            f"{OBJECT}</annotation>".encode("gbk"),
            {},
        ),
        (
            f"<annotation>{OBJECT}</annotation>".replace("<xmax>30<", "<xmax>30,0<"),
            {},
        ),
    ],
)
def test_namespaces_cases_roots_and_encodings(xml, notes, tmp_path):
    if isinstance(xml, str):
        xml = xml.replace("</XMax>", "</XMax>")
    source = read(write(tmp_path, xml))
    assert boxes(source) == [FULL]
    assert own_set.reasons(source) == notes


def test_parts_of_an_object_are_not_its_box_and_not_its_name(tmp_path):
    part = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"
        "</bndbox></part>"
    )
    xml = f"<annotation><object>{part}<name>emu</name>{BOX}{part}</object></annotation>"
    source = read(write(tmp_path, xml))
    assert boxes(source) == [FULL]
    assert [c["name"] for c in source.content["categories"]] == ["emu"]
    assert own_set.reasons(source) == {
        "object with parts that have boxes: the parts are not used": 1
    }


def test_objects_in_objects_and_boxes_outside_are_used_or_counted(tmp_path):
    inner = OBJECT.replace("emu", "cat").replace("<xmin>11<", "<xmin>21<")
    outside = BOX.replace("11", "3")
    xml = f"<annotation>{OBJECT[:-9]}{inner}</object><item>{outside}</item></annotation>"
    source = read(write(tmp_path, xml))
    assert boxes(source) == [FULL, [20, 6, 10, 15]]
    assert own_set.reasons(source, "dropped boxes") == {"bndbox that is in no <object>": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (BOX, BOX + BOX.replace("11", "3"), r"object 1 of a\.xml has <bndbox> 2 times.*Keep one"),
        ("<name>emu</name>", "<name>emu</name><name>cat</name>", r"<name> 2 times.*: emu and cat"),
        (
            "<xmin>11",
            "<xmin>12</xmin><xmin>11",
            r"object 1 of a\.xml has <xmin> 2 times.*12 and 11",
        ),
    ],
)
def test_fields_that_stand_twice_are_refused(old, new, message, tmp_path):
    xml = f"<annotation>{OBJECT}</annotation>"
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, xml.replace(old, new)))
    # The same one twice says the same.
    same = xml.replace(old, old + old) if old.endswith(">") else xml
    assert boxes(read(write(tmp_path, same))) == [FULL]


@pytest.mark.parametrize(
    ("difficult", "crowd", "notes"),
    [
        ("1", 1, {"difficult: kept as a crowd region": 1}),
        ("true", 1, {"difficult: kept as a crowd region": 1}),
        ("True", 1, {"difficult: kept as a crowd region": 1}),
        ("0", 0, {}),
        ("false", 0, {}),
        ("", 0, {}),
    ],
)
def test_difficult_in_words_and_numbers(difficult, crowd, notes, tmp_path):
    xml = f"<annotation>{OBJECT}</annotation>"
    xml = xml.replace("</object>", f"<difficult>{difficult}</difficult></object>")
    source = read(write(tmp_path, xml))
    assert [a["iscrowd"] for a in source.content["annotations"]] == [crowd]
    assert own_set.reasons(source) == notes


@pytest.mark.parametrize("value", ["2", "-1", "NaN", "yes"])
def test_a_flag_that_is_none_is_refused(value, tmp_path):
    xml = f"<annotation>{OBJECT}</annotation>"
    flag = f"<difficult>{value}</difficult>"
    with pytest.raises(ValueError, match=rf"object 1 of a\.xml has <difficult> '{value}'"):
        read(write(tmp_path, xml.replace("</object>", f"{flag}</object>")))
    with pytest.raises(ValueError, match=r"<difficult> stands in <bndbox> of a\.xml"):
        read(write(tmp_path, xml.replace("</bndbox>", f"{flag}</bndbox>")))


@pytest.mark.parametrize(
    ("shape", "expected", "note"),
    [
        (
            "<robndbox><cx>20</cx><cy>15</cy><w>10</w><h>4</h>"
            f"<angle>{math.pi / 2}</angle></robndbox>",
            [18, 10, 4, 10],
            "an oriented box: replaced by the box around it",
        ),
        (
            "<polygon><x1>3</x1><y1>4</y1><x2>13</x2><y2>5</y2><x3>8</x3><y3>20</y3></polygon>",
            [3, 4, 10, 16],
            "a polygon: replaced by the box around it",
        ),
        (
            "<polygon><username>me</username><pt><x>3</x><y>4</y></pt><pt><x>13</x><y>5</y></pt>"
            "<pt><x>8</x><y>20</y></pt></polygon>",
            [3, 4, 10, 16],
            "a polygon: replaced by the box around it",
        ),
        (f"<polygon><x1>0</x1><y1>0</y1></polygon>{BOX}", FULL, None),
    ],
)
def test_polygons_and_oriented_boxes(shape, expected, note, tmp_path):
    xml = f"<annotation><object><name>emu</name>{shape}</object></annotation>"
    source = read(write(tmp_path, xml))
    assert boxes(source) == [pytest.approx(expected)]
    assert own_set.reasons(source) == ({note: 1} if note else {})


def test_objects_without_a_shape_are_counted_with_their_reason(tmp_path):
    bad = [
        "<object><name>emu</name></object>",
        "<object><name>emu</name><polygon><pt><x>1</x><y>1</y></pt></polygon></object>",
        "<object><name>emu</name><robndbox><cx>1</cx></robndbox></object>",
        OBJECT.replace("11", "NaN"),
        OBJECT.replace("<name>", "<name>>"),
    ]
    source = read(write(tmp_path, f"<annotation>{OBJECT}{''.join(bad)}</annotation>"))
    assert boxes(source) == [FULL]
    assert own_set.reasons(source, "dropped boxes") == {
        "no bndbox": 1,
        "polygon is not three points or more": 1,
        "robndbox is not five numbers": 1,
        "bndbox is not four numbers": 1,
        "class name that begins with '>': is a mark written twice?": 1,
    }


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation><object>", r"a\.xml is not valid XML"),
        ("<annotation><folder>k\xe4se</folder></annotation>".encode("latin-1"), "an encoding that"),
        ("<kml><Placemark/></kml>", r"a\.xml is no VOC annotation: its root is <kml>"),
        ("", "is not valid XML"),
    ],
)
def test_what_is_no_voc_file(xml, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, xml))


def test_a_pipe_is_passed_over_and_never_opened(tmp_path):
    root = write(tmp_path, f"<annotation>{OBJECT}</annotation>")
    os.mkfifo(root / "b.xml")
    source = read(root)
    assert boxes(source) == [FULL]
    assert own_set.reasons(source)["pipe, device or socket: passed over"] == 2  # XML, pictures


def test_file_names_that_contradict(tmp_path):
    xml = f"<annotation><filename>b.jpg</filename>{OBJECT}</annotation>"
    root = write(tmp_path, xml)
    source = read(root)
    assert [i["file_name"] for i in source.content["images"]] == ["a.jpg"]
    own = "the picture of the XML file's own name taken"
    assert own_set.reasons(source) == {f"<filename> is no file: {own}": 1}
    own_set.write_images(root, ["b.jpg"])
    assert set(own_set.reasons(read(root))) == {
        "<filename> is another picture: that of the XML file's own name taken",
        "image without an XML file: not used",
    }
    (root / "a.jpg").unlink()
    source = read(root)
    assert [i["file_name"] for i in source.content["images"]] == ["b.jpg"]
    taken = "no picture of the XML file's own name: that of <filename> taken"
    assert own_set.reasons(source) == {taken: 1}


def test_corners_that_are_sizes_are_refused(tmp_path):
    """x, y, width and height in the fields of corners: most boxes end before they begin."""
    for number in range(4):
        box = f"<xmin>30</xmin><ymin>{20 + number}</ymin><xmax>8</xmax><ymax>6</ymax>"
        xml = f"<annotation><object><name>emu</name><bndbox>{box}</bndbox></object></annotation>"
        write(tmp_path, xml, name=f"p{number}")
    with pytest.raises(
        ValueError, match=r"4 of 4 boxes .* end before they begin, first in object 1"
    ):
        read(tmp_path)


def test_sub_folders_and_several_years_are_one_set(tmp_path):
    files = ("VOC2007", "000001"), ("VOC2012", "000001"), ("VOC2012", "sub/x"), ("VOC2012", "y")
    for number, (year, stem) in enumerate(files):
        root, name = tmp_path / year, os.path.basename(stem)
        own_set.write_images(root / "JPEGImages" / os.path.dirname(stem), [f"{name}.jpg"])
        file = root / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{OBJECT.replace('11', str(11 + number))}</annotation>")
    for year, lines in (("VOC2007", "000001\n"), ("VOC2012", "000001 -1\nsub/x  1\n")):
        (tmp_path / year / "ImageSets/Main").mkdir(parents=True)
        (tmp_path / year / "ImageSets/Main/train.txt").write_text(lines)
    own_set.write_images(tmp_path / "VOC2012/JPEGImages/other", ["x.jpg"])
    assert detect_format(tmp_path) == "voc"
    source = read(tmp_path)
    names = {i["id"]: i["file_name"] for i in source.content["images"]}
    assert {names[a["image_id"]]: a["bbox"][0] for a in source.content["annotations"]} == {
        "VOC2007/JPEGImages/000001.jpg": 10,
        "VOC2012/JPEGImages/000001.jpg": 11,
        "VOC2012/JPEGImages/sub/x.jpg": 12,
    }


def test_xml_files_that_are_not_used_are_noted(tmp_path):
    root = own_set.write_voc(tmp_path)
    (root / "Annotations/a.XML").write_text(f"<annotation>{OBJECT}</annotation>")
    (root / "info.xml").write_text("<info/>")
    source = read(root)
    assert own_set.reasons(source) == {
        "second XML file of one name: not used": 1,
        "XML file beside Annotations: not used": 1,
    }


def test_names_with_blanks_in_lists(tmp_path):
    for name in ("my frame 1", "my frame", "b"):
        write(tmp_path / "x", f"<annotation>{OBJECT}</annotation>", name=name)
    (tmp_path / "list.txt").write_text("\ufeffmy frame 1\r\nb -1\r\n", encoding="utf-8")
    source = read(tmp_path / "x", image_list=tmp_path / "list.txt")
    assert [i["file_name"] for i in source.content["images"]] == ["my frame 1.jpg", "b.jpg"]


def test_two_files_of_one_picture_are_put_together(tmp_path):
    root = tmp_path / "set"
    own_set.write_images(root / "JPEGImages", ["a.jpg"])
    for folder, label in (("one", "emu"), ("two", "cat")):
        (root / "Annotations" / folder).mkdir(parents=True)
        xml = f"<annotation>{OBJECT}{OBJECT.replace('emu', label)}</annotation>"
        (root / "Annotations" / folder / "a.xml").write_text(xml)
    source = read(root)
    assert boxes(source) == [FULL, FULL]  # emu and cat; the three copies of emu are one.
    assert own_set.reasons(source) == {"picture of two XML files: the objects of both taken": 1}
    assert sum(own_set.reasons(source, "repaired boxes").values()) == 2


def test_objects_that_are_marked_as_deleted_are_left_out(tmp_path):
    xml = f"<annotation>{OBJECT}{OBJECT.replace('11', '3')}</annotation>"
    xml = xml.replace("</name>", "</name><deleted>1</deleted>", 1)
    xml = xml[::-1].replace("</name>"[::-1], "</name><deleted>0</deleted>"[::-1], 1)[::-1]
    source = read(write(tmp_path, xml))
    assert boxes(source) == [[2, 6, 28, 15]]
    assert own_set.reasons(source) == {"marked as deleted: left out": 1}


def test_boxes_of_other_fields_are_named_where_no_box_is_left(tmp_path):
    box = "<bndbox><x>1</x><y>2</y><w>3</w><h>4</h></bndbox>"
    xml = f"<annotation><object><name>emu</name>{box}</object></annotation>"
    with pytest.raises(ValueError, match="1: bndbox has x, y, w, h, expected xmin.*object 1 of a"):
        read(write(tmp_path, xml))
