"""Label maps: order, gaps, text format, and each refused map."""

import json

import numpy as np
import pytest

from ssd_centernet.labels import LabelMap
from tests.parity import VECTORS


def test_coco_has_80_classes_and_ids_with_gaps():
    coco = LabelMap.coco()
    assert coco.num_classes == 80
    # Hand-picked around the first gap (12), and the ends.
    assert coco.to_class(1) == 0 and coco.names[0] == "person"
    assert coco.to_class(11) == 10 and coco.names[10] == "fire hydrant"
    assert coco.to_class(13) == 11 and coco.names[11] == "stop sign"
    assert coco.to_class(90) == 79 and coco.names[79] == "toothbrush"
    assert coco.ids[79] == 90
    lookup = coco.lookup()
    assert lookup.dtype == np.int32 and lookup.shape == (91,)
    assert lookup[0] == -1 and lookup[12] == -1 and lookup[13] == 11
    assert (lookup >= 0).sum() == 80


def test_coco_equals_reference():
    categories = json.loads((VECTORS / "coco_categories.json").read_text())["categories"]
    assert LabelMap.from_categories(categories) == LabelMap.coco()


def test_categories_are_ordered_by_id():
    label_map = LabelMap.from_categories([{"id": 7, "name": "b"}, {"id": 2, "name": "a"}])
    assert label_map.names == ("a", "b") and label_map.ids == (2, 7)
    np.testing.assert_array_equal(label_map.lookup(), [-1, -1, 0, -1, -1, -1, -1, 1])


@pytest.mark.parametrize("first", [0, 1])
def test_ids_may_start_at_zero_or_one(first):
    label_map = LabelMap(["cat", "dog"], [first, first + 1])
    assert label_map.to_class(first) == 0
    assert label_map.lookup()[first + 1] == 1


def test_ids_default_to_one_and_up():
    assert LabelMap(["cat", "dog"]).ids == (1, 2)


@pytest.mark.parametrize(
    "names, ids, message",
    [
        ([], [], "at least one"),
        (["a", "a"], [1, 2], "name 'a' occurs twice"),
        (["a", "b"], [1, 1], "id 1 occurs twice"),
        (["a", " "], [1, 2], "Category 2 needs a name"),
        (["a", None], [1, 2], "needs a name"),
        (["a", "b"], [2, 1], "must ascend"),
        (["a"], [1, 2], "1 names but 2 ids"),
        (["a"], [-1], "0..1000000, got -1"),
        (["a"], [2_000_000], "got 2000000"),
        (["a"], ["1"], "integer, got '1'"),
        (["a"], [1.5], "integer, got 1.5"),
        (["background", "a"], [0, 1], "background is not a class"),
        (["__background__", "a"], [0, 1], "background is not a class"),
        ("person", None, "single string 'person'"),
    ],
)
def test_refuses(names, ids, message):
    with pytest.raises(ValueError, match=message):
        LabelMap(names, ids)


def test_pbtxt_round_trip(tmp_path):
    names = ["it's", 'a "b"', "back\\slash", "naïve café"]
    label_map = LabelMap(names, [1, 2, 4, 9])
    label_map.to_pbtxt(tmp_path / "map.pbtxt")
    assert LabelMap.from_pbtxt(tmp_path / "map.pbtxt") == label_map
    assert [p.name for p in tmp_path.iterdir()] == ["map.pbtxt"]


def test_reads_the_files_of_other_tools(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        """# a comment with { and '
        item: { name: "/m/0199g", id: 2; display_name: "bicycle"
                keypoints { id: 5 label: "wheel" } frequency: COMMON }
        item <
          id:1
          name: 'person'   # display_name is optional
        >
        """
    )
    label_map = LabelMap.from_pbtxt(path)
    assert label_map.names == ("person", "bicycle") and label_map.ids == (1, 2)


@pytest.mark.parametrize(
    "text, message",
    [
        ("item { id: 1 }", "item 1 lacks a name; it has id: 1"),
        ("item { name: 'a' }", "item 1 lacks an id; it has name: .a."),
        (
            "item { id: 1 name: 'a' }\nitem { Id: 2 Name: 'b' }",
            "item 2 lacks an id; it has neither",
        ),
        ("item {\n id: 1 name: 'a'", 'line 2: Expected "}". .* is a bracket or a quote missing'),
        ("item { id: 1 name: 'a }", "line 1: .*missing ending quote"),
        ("item {\n id: 1.5 name: 'a' }", "line 2: .*parse integer: 1.5"),
        ("item { id: '1' name: 'a' }", "line 1: .*parse integer: '1'"),
        ("item { id: 1 name: a }", "line 1: .*Expected string but found: 'a'"),
        ("item { id: 1 id: 2 name: 'a' }", 'line 1: .*multiple "id" fields'),
        ("item { id: -1 name: 'a' }", "in 0..1000000, got -1"),
        ("entry { id: 1 name: 'a' }", "line 1: .*: got 'entry'. Expected items such as item {"),
        ("item { id: 1 name: 'a' }\nitme { id: 2 name: 'b' }", "line 2: .*: got 'itme'"),
        ("item { id: 1 name: 'a' frequency: }", "Invalid field value"),
        ("item", 'line 1: .*Expected "{"'),
        ("item {\n id: 1 name: 'a' }\nitem {\n id: 1 name: 'b' }", "id 1 occurs twice"),
        ("", "at least one"),
        (
            "item { id: 1 name: 'a' }\n\nitem {\n id: 2 name: 'a' }",
            "name 'a' occurs twice .for 1 in line 1 and 2 in line 3",
        ),
        (
            "item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }",
            "id 1 occurs twice .for 'a' in line 1 and 'b' in line 2",
        ),
        ("item { id: 3 name: 'a' }\nitem { id: -1 name: 'b' }", "line 2: .*got -1"),
        ("item { id: 3 name: 'a' }\nitem { id: 2000000 name: 'b' }", "line 2: .*got 2000000"),
        ("item { id: 1 name: 'a' }\nitem { name: 'b' }", "line 2: item 2 lacks an id"),
        ("item { id: 1 name: 'a' }\nitem { id: 2 name: ' ' }", "line 2: item 2 lacks a name"),
        (
            "item: [ { id: 7, name: 'b' },\n { id: 7, name: 'a' } ]",
            "id 7 occurs twice .for 'b' in line 1 and 'a' in line 2",
        ),
        ("item { id: 0 name: 'none_of_the_above' } item { id: 1 name: 'b' }", "not a class"),
        ("model { item { id: 1 name: 'a' } }", "line 1: .*got 'model'"),
    ],
)
def test_pbtxt_errors_name_the_file(tmp_path, text, message):
    path = tmp_path / "broken.pbtxt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"broken.pbtxt: .*{message}"):
        LabelMap.from_pbtxt(path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        # A byte order mark, and line ends of Windows.
        ("\ufeffitem {\r\n  id: 1\r\n  name: 'naïve'\r\n}\r\n".encode(), ("naïve",)),
        ("item { id: 1 name: 'naïve' }".encode("utf-16"), ("naïve",)),
        # As protobuf itself writes letters beyond ASCII, and a text in two parts.
        (b'item { id: 1 name: "na\\303\\257ve" }', ("naïve",)),
        (b"item { id: 1 name: 'two ' 'parts' }", ("two parts",)),
        (b"item: [ { id: 7, name: 'b' }, { id: 3; name: 'a' } ]", ("a", "b")),
        # Fields of LVIS and of others, in any order.
        (
            b"item { frequency: COMMON ancestor_ids: [1, 2] display_name: 'b' id: 0x10"
            b" colour { red: 1.0 name: 'no' } }",
            ("b",),
        ),
    ],
)
def test_pbtxt_of_other_writers(tmp_path, content, names):
    path = tmp_path / "map.pbtxt"
    path.write_bytes(content)
    assert LabelMap.from_pbtxt(path).names == names


def test_other_names_are_kept_and_make_no_difference(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        "item { id: 1 name: '/m/01g317' display_name: 'person' }\n"
        "item { id: 2 name: 'traffic \"light\"' }\n"
        "item { id: 3 name: '猫' display_name: '猫' }"
    )
    label_map = LabelMap.from_pbtxt(path)
    assert label_map.names == ("person", 'traffic "light"', "猫")
    assert label_map.other_names == {1: "/m/01g317"}
    assert label_map == LabelMap(["person", 'traffic "light"', "猫"])
    assert label_map.is_called(1, "/m/01g317") and label_map.is_called(1, "Person")
    assert label_map.is_called(2, 'Traffic_"Light"') and not label_map.is_called(2, "person")
    assert label_map.id_of("PERSON ") == 1 and label_map.id_of("people") is None
    label_map.to_pbtxt(path)
    assert LabelMap.from_pbtxt(path).other_names == {1: "/m/01g317"}


def test_pbtxt_that_is_no_text(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_bytes("item { id: 1 name: 'naïve' }".encode("latin-1"))
    with pytest.raises(ValueError, match=r"map\.pbtxt is not UTF-8 text \(byte 22\)"):
        LabelMap.from_pbtxt(path)


def test_unknown_name_lists_near_matches():
    assert LabelMap.coco().class_of("traffic light") == 9
    with pytest.raises(KeyError, match="'traffic light'"):
        LabelMap.coco().class_of("Trafic Light")
    with pytest.raises(KeyError, match="80 classes"):
        LabelMap.coco().class_of("xyzzy")


def test_an_unknown_id():
    with pytest.raises(KeyError, match="12 is not in the label map"):
        LabelMap.coco().to_class(12)


@pytest.mark.parametrize(
    "count, hint", [(81, "Background"), (90, "highest category id"), (91, "highest"), (3, "model")]
)
def test_check_num_classes_names_both_counts(count, hint):
    with pytest.raises(ValueError, match=rf"head.num_classes is {count}.*80 classes") as error:
        LabelMap.coco().check_num_classes(count, source="head.num_classes")
    assert hint in str(error.value) and "head.num_classes = 80" in str(error.value)
    LabelMap.coco().check_num_classes(80)


def test_equality_and_hash():
    assert LabelMap(["a"], [1]) == LabelMap(["a"], [1]) != LabelMap(["a"], [2])
    assert len({LabelMap(["a"]), LabelMap(["a"]), LabelMap(["b"])}) == 2
    assert LabelMap(["a"]) != "a"


def test_names_with_control_characters_are_refused(tmp_path):
    path = tmp_path / "labels.pbtxt"
    path.write_text("item { id: 4 name: 'cat\x1b' }")
    with pytest.raises(ValueError, match=r"labels\.pbtxt: Category 4 needs a name that prints"):
        LabelMap.from_pbtxt(path)
