"""Image files of all kinds, their numbers and the names of drawings."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssd_centernet.predict import image_files as files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_as_pillow_does(orientation, tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(files.read_image(path), expected)
    assert expected.shape == ((3, 2, 3) if orientation > 4 else (2, 3, 3))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "P"),
        ("a.bmp", "RGB"),
        ("a.gif", "P"),
        ("a.tif", "RGB"),
        ("a.tif", "CMYK"),
        ("a.webp", "RGB"),
        ("a.jpg", "RGB"),
        ("a.jpg", "CMYK"),
    ],
)
def test_images_of_all_kinds_are_read_as_rgb(name, mode, tmp_path):
    picture = Image.new("RGB", (12, 8), (255, 0, 0)).convert(mode)
    picture.save(tmp_path / name)
    pixels = files.read_image(tmp_path / name)
    assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.reshape(-1, 3), [[255, 0, 0]] * 96, atol=6)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_images_of_16_bits_keep_their_range(name, tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    expected = [[0, 100], [200, 255]]
    np.testing.assert_allclose(files.read_image(tmp_path / name)[..., 1], expected, atol=1)


def test_unusable_files_are_refused_with_the_reason(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(OSError, match="not an image"):
        files.read_image(tmp_path / "text.png")
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:1200])
    with pytest.raises(ValueError, match="^truncated or corrupt$"):
        files.read_image(tmp_path / "cut.jpg")


HIDDEN = ("._a.jpg", ".cache/x.jpg", "__MACOSX/sub/b.jpg")


def test_folders_are_searched_without_earlier_drawings(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "notes.txt", "out/a.png", *HIDDEN):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = files.find_images([tmp_path, tmp_path / "b.jpg"], without=tmp_path / "out")
    assert [Path(p).relative_to(tmp_path).as_posix() for p in found] == [
        "a.PNG",
        "b.jpg",
        "sub/c.webp",
    ]
    assert files.find_images([tmp_path / "gone.jpg"]) == [str(tmp_path / "gone.jpg")]


def test_what_cannot_be_read_in_a_folder_is_told_and_not_passed_over(tmp_path):
    for name, target in (
        ("gone.jpg", "nowhere"),
        ("loop.jpg", "loop.jpg"),
        ("end.jpg", os.devnull),
    ):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    found = files.find_images([tmp_path], without=tmp_path / "out")
    assert [Path(p).name for p in found] == ["end.jpg", "gone.jpg", "loop.jpg", "pipe.jpg"]
    for path, words in zip(found, ("regular", "No such", "levels", "regular"), strict=True):
        with pytest.raises((OSError, ValueError), match=words):
            files.read_image(path)


def test_image_ids_come_from_annotations_then_names_then_numbers():
    paths = ["x/cat.jpg", "x/000139.jpg", "y/139.png", "dog.jpg", "2.jpg", "cow.jpg"]
    assert files.number_images(paths, {"dog.jpg": 7, "gone.jpg": 1}) == {
        "x/cat.jpg": 3,
        "x/000139.jpg": 139,
        "y/139.png": 4,
        "dog.jpg": 7,
        "2.jpg": 2,
        "cow.jpg": 5,
    }


def test_ids_come_from_the_longest_common_end_of_the_path(tmp_path):
    known = {f"site{s}/cam{c}/0001.jpg": 100 * s + c for s in (1, 2) for c in (1, 2, 3)}
    paths = [str(tmp_path / "images" / name) for name in known]
    notes = []
    ids = files.number_images(paths[::-1], known, notes=notes)
    assert [ids[path] for path in paths] == list(known.values()) and notes == []
    # A single camera, and paths from inside its folder.
    (tmp_path / "images/site2/cam3").mkdir(parents=True)
    before = os.getcwd()
    os.chdir(tmp_path / "images/site2/cam3")
    try:
        assert files.number_images(["0001.jpg"], known, notes=notes) == {"0001.jpg": 203}
    finally:
        os.chdir(before)
    assert notes == []


def test_a_bare_name_that_several_have_decides_nothing(tmp_path):
    known = {"cam1/0001.jpg": 5, "cam2/0001.jpg": 6}
    path, notes = str(tmp_path / "cam3" / "0001.jpg"), []
    assert files.number_images([path], known, notes=notes) == {path: 1}
    (note,) = notes
    assert path in note and "cam1/0001.jpg and cam2/0001.jpg" in note
    # Two files, and one name for both.
    two = [str(tmp_path / folder / "0002.jpg") for folder in ("x", "y")]
    ids = files.number_images(two, {"0002.jpg": 9}, notes=notes)
    assert set(ids.values()).isdisjoint({9}) and two[0] in notes[1] and two[1] in notes[1]


def test_a_picture_that_is_not_listed_never_takes_the_id_of_one_that_is(tmp_path):
    known = {"cam1/0001.jpg": 7, "cam1/0002.jpg": 8}
    paths = [str(tmp_path / folder / "0001.jpg") for folder in ("cam9", "cam1")]
    notes = []
    ids = files.number_images(paths, known, notes=notes)
    assert ids == {paths[0]: 1, paths[1]: 7} and notes == []
    # The number in a name may be the id of another listed picture.
    assert files.number_images(["8.jpg"], known, notes=notes) == {"8.jpg": 1}
    assert notes == [
        "1 file with a number as the name that is the id of another image: the next free numbers "
        "are taken, first for 8.jpg"
    ]


def test_moved_folders_other_systems_and_composed_letters(tmp_path):
    known = {"C:\\data\\night\\cafe\u0301.jpg": 3, "/old/machine/day/b.jpg": 4}
    paths = [str(tmp_path / "night" / "caf\u00e9.jpg"), str(tmp_path / "moved" / "b.jpg")]
    notes = []
    assert list(files.number_images(paths, known, notes=notes).values()) == [3, 4]
    (note,) = notes
    assert "2 files in other folders than the annotations say" in note


def test_output_names_never_collide():
    paths = ["a/1.jpg", "b/1.jpg", "a/1.PNG", "1_2.jpg", "contact_sheet.jpg"]
    names = files.output_names(paths, ".png", reserved=("contact_sheet",))
    expected = ["1.png", "1_2.png", "1_3.png", "1_2_2.png", "contact_sheet_2.png"]
    assert list(names.values()) == expected
