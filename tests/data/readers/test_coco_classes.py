"""Classes of COCO files, and files that are none: used, counted or refused by name."""

import json
import math

import pytest

from ssd_centernet.labels import LabelMap
from tests.data.readers.coco_files import CLEAN, Files, first, found, reasons

BIG = 1699188312345678900


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize(
    "write", [str, float, lambda i: f"{i}.0", lambda i: ("nut", "bolt")[i - 1], lambda i: f" {i}"]
)
@pytest.mark.parametrize("where", ["categories", "annotations"])
def test_category_ids_are_numbers_however_they_are_written(files, write, where):
    for entry in files.content[where]:
        key = "id" if where == "categories" else "category_id"
        entry[key] = write(entry[key])
    if where == "categories" and write(1) == "nut":
        for annotation in files.annotations:
            annotation["category_id"] = write(annotation["category_id"])
    index = files.read()
    assert found(index) == CLEAN
    assert (index.label_map.names, index.label_map.ids) == (("nut", "bolt"), (1, 2))


@pytest.mark.parametrize("ids", [[BIG, BIG + 1], [-1, 4], ["x", "y"], [7, "x"]])
def test_category_ids_that_cannot_stay_are_numbered(files, ids):
    for category, new in zip(files.categories, ids, strict=True):
        category["id"] = new
    for annotation in files.annotations:
        annotation["category_id"] = ids[annotation["category_id"] - 1]
    index = files.read()
    assert found(index) == CLEAN and index.label_map.ids == (1, 2)
    reason = "category ids are not whole numbers in 0..1000000: numbered from 1"
    assert reasons(index) == {("notes", reason): 2}


@pytest.mark.parametrize(
    "placeholder",
    [
        {"id": 0, "name": "fasteners", "supercategory": "none"},
        {"id": 0, "name": "things-x1y2", "supercategory": "none"},
        {"id": 9, "name": "fasteners", "supercategory": ""},
        {"id": 0, "name": "nut", "supercategory": "none"},
        {"id": "0", "name": "fasteners", "supercategory": None},
        {"id": 0, "name": "__background__", "supercategory": "none"},
    ],
)
def test_a_placeholder_without_objects_is_no_class(files, placeholder):
    for category in files.categories:
        category["supercategory"] = "fasteners"
    files.categories.insert(0, placeholder)
    index = files.read()
    assert found(index) == CLEAN
    assert (index.label_map.names, index.label_map.ids) == (("nut", "bolt"), (1, 2))
    (key,) = reasons(index)
    assert key[0] == "notes" and "no class" in key[1]


def test_what_has_objects_or_stands_beside_others_is_a_class(files):
    files.categories.insert(0, {"id": 0, "name": "washer", "supercategory": "none"})
    assert files.read().label_map.names == ("washer", "nut", "bolt")
    for category in files.categories[1:]:
        category["supercategory"] = "washer"
    assert files.read().label_map.names == ("nut", "bolt")
    files.annotations[0]["category_id"] = 0
    assert files.read().label_map.names == ("washer", "nut", "bolt")


def test_equal_names_are_told_apart_by_their_supercategories(files):
    files.categories[:] = [
        {"id": 1, "name": "other", "supercategory": "vehicle"},
        {"id": 2, "name": "other", "supercategory": "person"},
    ]
    index = files.read()
    assert index.label_map.names == ("vehicle/other", "person/other")
    assert [a["category_id"] for a in index.images[0].annotations] == [1, 2]
    assert reasons(index) == {("notes", "classes of one name: told apart by supercategory"): 2}
    # A label map by ids, or by the longer names, helps too.
    by_id = LabelMap(["other car", "other man"], [1, 2])
    assert [a["category_id"] for a in files.read(label_map=by_id).images[0].annotations] == [1, 2]
    with pytest.raises(ValueError, match=r"'vehicle/other' \(id 1\)"):
        files.read(label_map=LabelMap(["nut", "bolt"]))  # Its ids mean other classes.
    by_name = LabelMap(["person/other", "vehicle/other"])
    index = files.read(label_map=by_name)
    assert [a["category_id"] for a in index.images[0].annotations] == [2, 1]


def test_a_split_with_one_of_two_namesakes_finds_it_in_the_shared_label_map(files):
    shared = LabelMap(["vehicle/other", "person/other", "bolt"])
    files.categories[0].update(name="other", supercategory="person")
    index = files.read(label_map=shared)
    assert [a["category_id"] for a in index.images[0].annotations] == [2, 3]
    files.categories[0].update(supercategory="animal")
    with pytest.raises(ValueError, match=r"'other' \(id 1\) \(2 boxes"):
        files.read(label_map=shared)


@pytest.mark.parametrize("above", ["", "none", "part", None])
def test_equal_names_without_a_difference_are_refused(files, above):
    files.categories[1]["name"] = "nut"
    for category in files.categories:
        category["supercategory"] = above
    with pytest.raises(ValueError, match=r"instances.json: the name 'nut' occurs twice .*\(ids 1"):
        files.read()
    given = LabelMap(["left nut", "right nut"], [1, 2])
    assert found(files.read(label_map=given))["a.jpg"] == [
        ((10, 6, 20, 15), "left nut", 0),
        ((0, 0, 4, 3), "right nut", 0),
    ]


@pytest.mark.parametrize("ids", [[2, 1], [0, 1], [2, 3], ["b", "a"]])
def test_a_label_map_is_joined_by_names(files, ids):
    """Another split numbered the same classes anew."""
    shared = LabelMap(["bolt", "nut", "washer"])
    for category, new in zip(files.categories, ids, strict=True):
        category["id"] = new
    for annotation in files.annotations:
        annotation["category_id"] = ids[annotation["category_id"] - 1]
    index = files.read(label_map=shared)
    assert found(index) == CLEAN and index.label_map == shared
    changed = sum(
        new != shared.ids[shared.class_of(c["name"])]
        for c, new in zip(files.categories, ids, strict=True)
    )
    reason = "category has another id in the label map: found by its name"
    assert reasons(index).get(("notes", reason), 0) == changed


def test_classes_outside_the_label_map_are_refused_with_near_names(files):
    """The message names one thing to do, and doing it helps."""
    with pytest.raises(ValueError) as error:
        files.read(label_map=LabelMap(["nut", "Bolt"]))
    message = str(error.value)
    assert "instances.json" in message and "'bolt' (id 2) (1 box; did you mean 'Bolt'?)" in message
    assert "numbers need not agree" in message
    index = files.read(label_map=LabelMap(["nut", "Bolt"]), drop_unknown_categories=True)
    assert found(index)["a.jpg"] == CLEAN["a.jpg"][:1]
    assert reasons(index) == {("dropped boxes", "unknown category"): 1}
    files.categories[1]["name"] = "Bolt"
    assert len(found(files.read(label_map=LabelMap(["nut", "Bolt"])))["a.jpg"]) == 2


@pytest.mark.parametrize("value", [7, "7", None, "washer", [1], 1.5])
def test_unlisted_categories_are_refused_or_dropped(files, value):
    files.annotations[1]["category_id"] = value
    shown = "nothing" if value is None else json.dumps(value)
    with pytest.raises(ValueError) as error:
        files.read()
    assert f"id {shown} (1 box, first annotation 11 of a.jpg)" in str(error.value)
    index = files.read(drop_unknown_categories=True)
    assert found(index)["a.jpg"] == CLEAN["a.jpg"][:1]
    assert reasons(index) == {("dropped boxes", "unknown category"): 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_byte_order_marks_and_wide_characters(files, encoding):
    files.categories[0]["name"] = "螺母"
    text = json.dumps(files.content, ensure_ascii=False)
    assert files.read(text.encode(encoding)).label_map.names == ("螺母", "bolt")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", r"is not valid JSON \(.*cut off"),
        ("", "is not valid JSON"),
        (b"\x1f\x8b\x08\x00", "is not valid JSON but gzip"),
        (b'{"images": ["\xff"]}', "is not valid JSON .*utf-8"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        (
            '{"images": [], "annotations": [1], "annotations": [], "categories": []}',
            "'annotations' s",
        ),
        ('{"images": [{"id": 3, "file_name": "a.jpg", "file_name": "b"}]}', "with the id 3"),
        ("7", "is not a COCO instances file: got 7"),
        ('{"images": [], "annotations": []}', r"missing: categories"),
        ('{"images": {"1": 2}, "annotations": [], "categories": []}', "'images' is .*a list"),
        ('{"images": [], "annotations": {}, "categories": []}', "'annotations' is"),
        (
            '{"images": [null], "annotations": [], "categories": []}',
            "entry 0 of 'images' is nothing",
        ),
        ('{"images": [{"file_name": "a"}], "categories": []}', "entry 0 of 'images' needs an 'id'"),
        ('{"images": [{"id": 1}], "categories": []}', "its 'file_name' is nothing"),
        ('{"images": [], "categories": ["nut"]}', "entry 0 of 'categories' is \"nut\""),
        ('{"images": [], "categories": [{"id": 1}]}', "entry 0 of 'categories' needs .* 'name'"),
        ('{"images": [], "categories": [{"id": 1, "name": " "}]}', "'name' is \" \""),
        ('{"images": [], "categories": [{"id": 1, "name": "a\\u0000"}]}', "null character"),
        ('{"images": [], "categories": [{"id": 1, "name": "\\ud800"}]}', "half of one"),
        ('{"images": [], "categories": []}', "'categories' is not usable: .*at least one class"),
        (
            '{"images": [], "annotations": [3], "categories": [{"id": 1, "name": "a"}]}',
            "entry 0 of 'annotations' is 3",
        ),
    ],
)
def test_other_files_are_refused_by_name(files, text, message):
    with pytest.raises(ValueError, match=message) as error:
        files.read(text)
    assert str(error.value).startswith(str(files.root / "instances.json"))


@pytest.mark.parametrize(
    "content, says",
    [
        ([{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}], "evaluate --detections"),
        ([{"image_id": 1, "caption": "a cat"}], "captions"),
        ([{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1}], "found keypoints"),
        ([{"data": {}, "annotations": []}], "Label Studio.*--format=labelstudio"),
        ([{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}], "CreateML"),
        ([{"name": "a.jpg", "labels": []}], "BDD100K"),
        ({"shapes": [], "imagePath": "a.jpg"}, "labelme"),
        ({"assets": {}, "tags": []}, "VoTT.*--format=vott"),
        ({"_via_img_metadata": {}}, "VGG Image Annotator"),
        ({"a.jpg12": {"filename": "a.jpg", "regions": []}}, "VGG Image Annotator"),
        ({"images": [], "annotations": [{"caption": "a cat"}]}, "captions"),
        (
            {"images": [], "annotations": [{"segments_info": []}], "categories": []},
            "panoptic.*instances_",
        ),
    ],
)
def test_files_of_other_kinds_are_recognised(files, content, says):
    with pytest.raises(ValueError, match=f"(?s)It looks like .*{says}|{says}"):
        files.read(json.dumps(content))


@pytest.mark.parametrize("value", ["wide", math.inf, math.nan, -40, [40], 40.5, True, 2**40])
def test_sizes_that_are_none_are_counted_and_not_used(files, value):
    files.entries[0]["width"] = value
    index = files.read()
    assert (index.images[0].width, index.images[0].height) == (0, 30)
    reason = "width or height is no whole number of pixels: not used"
    assert reasons(index) == {("repaired images", reason): 1}
    assert first(index) == [f"a.jpg: width {json.dumps(value)}"]


@pytest.mark.parametrize("value", ["40", 40.0, "40.0"])
def test_sizes_as_text(files, value):
    files.entries[0]["width"] = value
    index = files.read()
    assert index.images[0].width == 40 and index.report.to_dict() == {}


def test_images_alone_have_no_objects(files):
    """image_info_test2017.json lists images and categories, and no annotations."""
    del files.content["annotations"]
    index = files.read()
    assert found(index) == {"a.jpg": [], "b.jpg": []} and not index.has_annotations
    assert reasons(index) == {
        ("notes", "the file lists no 'annotations': images without objects"): 1
    }
    files.content["annotations"] = []
    assert files.read().has_annotations


@pytest.mark.parametrize("key", ["annotation", "Annotations", "objects"])
def test_objects_in_another_place_are_not_passed_over(files, key):
    files.content[key] = files.content.pop("annotations")
    with pytest.raises(ValueError, match=f"no 'annotations', but its list '{key}' looks like them"):
        files.read()
    objects = files.content.pop(key)
    for entry in files.entries:
        entry["annotations"] = [a for a in objects if a["image_id"] == entry["id"]]
    with pytest.raises(ValueError, match="but its images have a list 'annotations' each"):
        files.read()


def test_without_categories_the_ids_are_those_of_a_label_map(files):
    files.categories.clear()
    with pytest.raises(ValueError, match="category ids that 'categories' does not list"):
        files.read(label_map=LabelMap(["nut"], [9]))
    index = files.read(label_map=LabelMap(["nut", "bolt"]))
    assert found(index) == CLEAN
    assert reasons(index) == {("notes", "'categories' is empty: ids are those of the label map"): 1}
