"""Ids and file names of COCO files: each annotation comes to its picture, or is counted."""

import json

import pytest

from ssd_centernet.data.readers.image_folder import UNUSED
from tests.data.readers.coco_files import CLEAN, Files, first, found, picture, reasons

BIG = 1699188312345678900


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize(
    "of_image, of_annotation, numbers",
    [
        (str, int, [1, 2]),
        (int, str, [1, 2]),
        (float, int, [1, 2]),
        (lambda i: f"{i}.0", float, [1, 2]),
        (lambda i: BIG + i, lambda i: BIG + i, [BIG + 1, BIG + 2]),
        (lambda i: BIG + i, lambda i: str(BIG + i), [BIG + 1, BIG + 2]),
        (lambda i: f"{i:012d}", int, [1, 2]),
        (lambda i: f"{i:012d}", lambda i: f"{i:012d}", [1, 2]),
        (lambda i: i - 1, lambda i: f"{i - 1}", [0, 1]),
    ],
)
def test_image_ids_are_numbers_however_they_are_written(files, of_image, of_annotation, numbers):
    for entry in files.entries:
        entry["id"] = of_image(entry["id"])
    for annotation in files.annotations:
        annotation["image_id"] = of_annotation(annotation["image_id"])
    index = files.read()
    assert found(index) == CLEAN and index.report.to_dict() == {}
    assert [image.image_id for image in index.images] == numbers


@pytest.mark.parametrize(
    "ids, reason",
    [
        (["left", "right"], "image ids are not numbers: numbered from 1"),
        (["a.jpg", "b.jpg"], "image ids are not numbers: numbered from 1"),
        ([1.5, 7], None),
        ([7, "x7"], "image ids are not numbers: numbered from 1"),
        ([-5, 3], "image ids are below 0: numbered from 1"),
        ([10**20, 3], None),
        (["1" * 25, "3"], "image ids are too large (above 2^63): numbered from 1"),
        ([7, "007"], "image ids are one number in two ways of writing: numbered from 1"),
    ],
)
def test_other_image_ids_are_numbered_from_one_or_refused(files, ids, reason):
    for entry, new in zip(files.entries, ids, strict=True):
        entry["id"] = new
    for annotation in files.annotations:
        annotation["image_id"] = ids[annotation["image_id"] - 1]
    if reason is None:
        with pytest.raises(ValueError, match=r"entry 0 of 'images' needs an 'id'"):
            files.read()
        return
    index = files.read()
    assert found(index) == CLEAN
    assert [(i.image_id, i.original_id) for i in index.images] == [(1, ids[0]), (2, ids[1])]
    assert reasons(index) == {("notes", reason): 2} and first(index) == ids


@pytest.mark.parametrize(
    "refer",
    [
        lambda a, name: a.update(image_id=name),
        lambda a, name: (a.pop("image_id"), a.update(file_name=name)),
        lambda a, name: a.update(image_id=f"./{name}"),
        lambda a, name: a.update(image_id=name[:-4]),
    ],
)
def test_annotations_that_name_the_file(files, refer):
    for annotation in files.annotations:
        refer(annotation, files.entries[annotation["image_id"] - 1]["file_name"])
    index = files.read()
    assert found(index) == CLEAN
    assert reasons(index) == {("notes", "image_id is a file name: matched with file_name"): 3}


def test_a_name_that_two_pictures_have_is_of_none(files):
    for folder in ("left", "right"):
        files.add(f"{folder}/c.jpg")
        entry = {"id": len(files.entries) + 1, "file_name": f"{folder}/c.jpg"}
        files.entries.append(entry | {"width": 40, "height": 30})
    files.annotations[0]["image_id"] = "c.jpg"
    files.annotations[1]["image_id"] = "right/c.jpg"
    index = files.read()
    assert found(index)["right/c.jpg"] == [((0, 0, 4, 3), "bolt", 0)]
    assert found(index)["left/c.jpg"] == []
    assert reasons(index)["dropped boxes", "image_id is not listed"] == 1


@pytest.mark.parametrize("value", [99, "p000.jpg", None, 1.5, [1], True, -1])
def test_annotations_of_unlisted_images_are_counted_with_the_value(files, value):
    files.annotations[2]["image_id"] = value
    index = files.read()
    assert found(index) == {**CLEAN, "b.jpg": []}
    assert reasons(index) == {("dropped boxes", "image_id is not listed"): 1}
    shown = "nothing" if value is None else json.dumps(value)
    assert first(index) == [f"annotation 20: {shown}"]


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "images/a.jpg", "C:\\data\\images\\a.jpg"])
def test_one_file_under_two_ids_is_one_image(files, name):
    files.entries.append({"id": 101, "file_name": name, "width": 40, "height": 30})
    files.annotations[1]["image_id"] = 101
    # The other annotator marked the first object too.
    files.annotations.append({**files.annotations[0], "id": 77, "image_id": 101})
    index = files.read()
    assert found(index) == CLEAN
    reason = "one file listed under two ids: merged into the first"
    assert reasons(index)["repaired images", reason] == 1
    merged = index.report.to_dict()["repaired images"][reason]["first"]
    assert merged == [f"{name} (ids 1 and 101)"]


def test_the_size_of_a_merged_image_is_taken_from_either_entry(files):
    files.entries[0].update(width=None, height=0)
    files.entries.append({"id": 101, "file_name": "a.jpg", "width": 40, "height": 30})
    index = files.read()
    assert (index.images[0].width, index.images[0].height) == (40, 30)


def test_one_file_with_two_sizes_is_refused(files):
    files.entries.append({"id": 101, "file_name": "a.jpg", "width": 80, "height": 60})
    with pytest.raises(ValueError, match=r"'a.jpg' is listed twice with other sizes, as id 1 with"):
        files.read()


def test_copies_of_entries_are_left_out_and_contradictions_refused(files):
    files.entries.append(dict(files.entries[0]))
    files.categories.append({"id": "2", "name": "bolt", "supercategory": ""})
    index = files.read()
    assert found(index) == CLEAN
    assert reasons(index) == {
        ("repaired images", "listed twice: one copy kept"): 1,
        ("notes", "category listed twice: one copy kept"): 1,
    }
    files.categories[-1]["name"] = "washer"
    with pytest.raises(ValueError, match="'bolt' and 'washer' both have the id '2'"):
        files.read()
    files.entries[-1]["file_name"] = "b.jpg"
    with pytest.raises(ValueError, match="Two files have the image id 1, 'a.jpg' and 'b.jpg'"):
        files.read()


@pytest.mark.parametrize(
    "prefix",
    [
        "C:\\Users\\someone\\photos\\",
        "..\\..\\annotator\\media\\upload\\4\\",
        "../../",
        "/data/upload/4/",
        "/data/upload/4/1a2b3c4d-",
        "/data/local-files/?d=batch%201/",
        "file:///home/someone/photos/",
        "file:C:/Users/someone/",
        "https://host.example/bucket/",
        "s3://bucket/folder/",
        "images/train/",
    ],
)
def test_paths_of_other_machines_are_found_by_their_last_parts(files, prefix):
    for entry in files.entries:
        entry["file_name"] = prefix + entry["file_name"]
    index = files.read()
    assert found(index) == CLEAN
    reason = "found in image_dir by the end of the path"
    if prefix.endswith("4d-"):
        reason = "found without Label Studio's digits before the name"
    assert reasons(index) == {("notes", reason): 2}
    assert first(index)[0] == f"{prefix}a.jpg"


def test_two_uploads_of_one_name_are_not_told_apart(files):
    for entry, digits in zip(files.entries, ("1a2b3c4d", "00ff00ff"), strict=True):
        entry["file_name"] = f"/data/upload/4/{digits}-a.jpg"
    with pytest.raises(ValueError, match="1a2b3c4d-a.jpg' and .*00ff00ff-a.jpg' both fit a.jpg"):
        files.read()
    for digits in ("1a2b3c4d", "00ff00ff"):
        files.add(f"{digits}-a.jpg")
    assert found(files.read())["1a2b3c4d-a.jpg"] == CLEAN["a.jpg"]


def test_percent_encoded_names_and_addresses(files):
    files.add("my photo ä.jpg")
    names = ["my%20photo%20%C3%A4.jpg", "https://host.example/x/my%20photo%20%C3%A4.jpg?sv=1#top"]
    for name in names:
        files.entries[0]["file_name"] = name
        assert found(files.read())["my photo ä.jpg"] == CLEAN["a.jpg"]


def test_a_name_that_is_a_path_of_the_folder_is_that_file(files):
    """Names that look like addresses or are percent-encoded may be those of files."""
    for name in ("x%20y.jpg", "a b.jpg", "sub/a.jpg"):
        files.add(name)
        files.entries[0]["file_name"] = name
        index = files.read()
        assert found(index)[name] == CLEAN["a.jpg"]
        assert list(reasons(index)) == [("notes", UNUSED)]  # a.jpg, and the files before.
    files.entries[0]["file_name"] = "sub\\a.jpg"
    index = files.read()
    assert found(index)["sub/a.jpg"] == CLEAN["a.jpg"]
    assert reasons(index) == {
        ("notes", "backslashes in file_name read as folders"): 1,
        ("notes", UNUSED): 3,
    }


def test_nothing_outside_the_folder_is_named(files):
    (files.root / "secret.jpg").write_bytes(picture())
    for name in ("../secret.jpg", str(files.root / "secret.jpg"), "x/../../secret.jpg", "/", ".."):
        files.entries[0]["file_name"] = name
        (inside, _) = (image.file_name for image in files.read().images)
        path = (files.images / inside).resolve()
        assert path.is_relative_to(files.images.resolve()) and not path.is_file()
    files.entries[0]["file_name"] = "a\0.jpg"
    with pytest.raises(ValueError, match=r"entry 0 of 'images' has a null character"):
        files.read()


def test_a_picture_of_another_folder_is_another_picture(files):
    """b/a.jpg is missing; a.jpg is listed itself and is not taken in its place."""
    files.add("left/c.jpg")
    files.entries[0]["file_name"] = "left/c.jpg"
    files.entries[1]["file_name"] = "right/c.jpg"
    index = files.read()
    assert [image.file_name for image in index.images] == ["left/c.jpg", "right/c.jpg"]
    files.entries[0]["file_name"] = "middle/c.jpg"
    with pytest.raises(ValueError, match="'middle/c.jpg' and 'right/c.jpg' both fit left/c.jpg"):
        files.read()


def test_the_longest_common_end_decides(files):
    for name in ("one/x/c.jpg", "two/x/c.jpg"):
        files.add(name)
    files.entries[0]["file_name"] = "D:\\all\\two\\x\\c.jpg"
    files.entries[1]["file_name"] = "/home/all/one/x/c.jpg"
    index = files.read()
    assert [image.file_name for image in index.images] == ["two/x/c.jpg", "one/x/c.jpg"]


def test_addresses_stand_for_missing_names(files):
    """LVIS lists coco_url and no file_name."""
    for entry in files.entries:
        entry["coco_url"] = f"http://images.cocodataset.org/train2017/{entry.pop('file_name')}"
    assert found(files.read()) == CLEAN
