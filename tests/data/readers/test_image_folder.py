"""The files of a folder: all accounted for, and found by names of other machines."""

import os
import unicodedata

import pytest

from ssd_centernet.data.readers.image_folder import ImageFolder, read_list
from ssd_centernet.data.validate import Report

FORK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
NFC, NFD = "caf\u00e9.jpg", "cafe\u0301.jpg"


def make(top, *names, data=b"picture"):
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


def read(top):
    report = Report()
    return ImageFolder(top, report), report


def notes(report):
    return {reason: entry["first"] for reason, entry in report.to_dict().get("notes", {}).items()}


def test_every_ending_and_what_is_passed_over(tmp_path):
    taken = ["a.jfif", "b.JPE", "c.JPG", "d.TiFF", "e.jp2", "f.avif", "g.webp", "sub/h.pgm"]
    make(tmp_path, *taken)
    make(
        tmp_path, "notes.txt", "a.xml", "Thumbs.db", ".DS_Store", "sub/desktop.ini", "labels.cache"
    )
    make(tmp_path, "@eaDir/c.JPG", "__MACOSX/a.jpg", ".ipynb_checkpoints/c-checkpoint.jpg")
    make(tmp_path, "._c.JPG", "sub/._h.pgm", data=FORK)
    make(tmp_path, "i.heic", "j", "k.jpg.part", "l.mp4")
    folder, report = read(tmp_path)
    assert folder.files == taken
    passed = "no picture by its ending: passed over"
    assert notes(report) == {passed: ["i.heic", "j", "k.jpg.part", "l.mp4"]}


def test_a_picture_whose_name_begins_as_a_fork_is_one(tmp_path):
    folder, report = read(make(tmp_path, "._real.jpg", data=b"\xff\xd8\xff\xe0"))
    assert folder.files == ["._real.jpg"] and notes(report) == {}


def test_links_are_followed_and_circles_end(tmp_path):
    real = make(tmp_path / "real", "x.jpg", "deep/y.jpg")
    top = make(tmp_path / "top", "a.jpg")
    (top / "b.jpg").symlink_to(real / "x.jpg")
    (top / "more").symlink_to(real)
    (top / "again").symlink_to(top)
    (top / "gone.jpg").symlink_to(real / "nothing.jpg")
    (top / "second.jpg").symlink_to("a.jpg")
    (top / "self.jpg").symlink_to("self.jpg")
    folder, report = read(top)
    assert folder.files == ["a.jpg", "b.jpg", "more/x.jpg", "more/deep/y.jpg"]
    assert notes(report) == {
        "link to a file that is not there: passed over": ["gone.jpg", "self.jpg"],
        "link to a folder above it: not followed": ["again"],
        "link to another file of the folder: taken once": ["second.jpg"],
    }


def test_pipes_are_noted_and_never_opened(tmp_path):
    make(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    os.mkfifo(tmp_path / "._c.jpg")
    folder, report = read(tmp_path)
    assert folder.files == ["a.jpg"]
    assert notes(report) == {"pipe, device or socket: passed over": ["._c.jpg", "b.jpg"]}


@pytest.mark.parametrize(
    ("file", "written", "reason"),
    [
        ("sub/a.jpg", "./sub//a.jpg", None),
        ("sub/a.jpg", "sub\\a.jpg", None),
        ("sub/a.jpg", "SUB/A.JPG", "found in upper or lower case"),
        (NFD, NFC, "found with accents that are composed in another way"),
        (NFC, NFD, "found with accents that are composed in another way"),
        ("my photo.jpg", "my%20photo.jpg", "found by a name with percent codes"),
        ("my%20photo.jpg", "my photo.jpg", "found by a name with percent codes"),
        (NFD, "caf%C3%A9.jpg", "found by a name with percent codes"),
        ("100%.jpg", "100%.jpg", None),
        ("sub/a.jpg", "D:\\me\\sub\\a.jpg", "found in image_dir by the end of the path"),
        ("a.jpg", "https://host/x/a.jpg?width=3", "found in image_dir by the end of the path"),
        (
            "a b.jpg",
            "/data/local-files/?d=x/a%20b.jpg",
            "found in image_dir by the end of the path",
        ),
        ("sub/a.jpg", "a", "found by its name without an ending"),
        ("a.b.jpg", "a.b", "found by its name without an ending"),
    ],
)
def test_names_are_found(file, written, reason, tmp_path):
    folder, report = read(make(tmp_path, file, "other.png"))
    assert folder.find(written) == file
    assert notes(report) == ({} if reason is None else {reason: [written]})


def test_a_path_of_this_machine_is_that_file(tmp_path):
    folder, report = read(make(tmp_path, "a.jpg", "sub/a.jpg"))
    assert folder.find(str(tmp_path / "a.jpg")) == "a.jpg" and notes(report) == {}
    # Without its folder above, it could be either.
    assert not (tmp_path / folder.find("elsewhere/a.jpg")).exists()


def test_of_names_that_differ_by_case_each_is_its_own(tmp_path):
    folder, report = read(make(tmp_path, "a.jpg", "A.jpg"))
    assert folder.match(["a.jpg", "A.jpg", "x/A.jpg"]) == {
        "a.jpg": "a.jpg",
        "A.jpg": "A.jpg",
        "x/A.jpg": "x/A.jpg",
    }
    assert list(notes(report)) == [
        "another name of the annotations fits its file better: not found"
    ]


def test_one_file_is_never_two_pictures(tmp_path):
    folder, _ = read(make(tmp_path, "day/a.jpg", "b.jpg"))
    # night/a.jpg is not there; its boxes must not go to the picture of the day.
    found = folder.match(["set/day/a.jpg", "set/night/a.jpg"])
    assert found == {"set/day/a.jpg": "day/a.jpg", "set/night/a.jpg": "set/night/a.jpg"}
    with pytest.raises(ValueError, match=r"'cam1/b.jpg' and 'cam2/b.jpg', but only one file"):
        folder.match(["cam1/b.jpg", "cam2/b.jpg"])


def test_unused_pictures(tmp_path):
    folder, _ = read(make(tmp_path, "a.jpg", "b.jpg", "c.jpg"))
    assert folder.unused(["b.jpg"]) == ["a.jpg", "c.jpg"]


def test_stems(tmp_path):
    folder, report = read(
        make(tmp_path, "x/a.jpg", "y/a.png", "B.jpg", unicodedata.normalize("NFD", NFC))
    )
    assert folder.find_stem("y/a") == "y/a.png" and folder.find_stem("a") is None
    assert notes(report) == {}
    assert folder.find_stem("b") == "B.jpg" and folder.find_stem("caf\u00e9") == NFD
    assert list(notes(report)) == [
        "found in upper or lower case",
        "found with accents that are composed in another way",
    ]


def test_lists(tmp_path):
    text = "\ufeff# my pictures\r\n\r\n a.jpg \r\n'b c.jpg'\r\n#1.jpg\r\n50%.jpg\r\n# x\r\n"
    (tmp_path / "list.txt").write_bytes(text.encode())
    names = read_list(tmp_path / "list.txt")
    assert names == ["a.jpg", "b c.jpg", "#1.jpg", "50%.jpg"]
    folder, report = read(make(tmp_path / "x", *names))
    assert list(folder.match(names).values()) == names and notes(report) == {}
