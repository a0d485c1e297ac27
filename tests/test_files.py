"""Files appear whole or not at all."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from ssd_centernet.files import (
    LEFTOVER_AGE,
    leftovers,
    mend_folder,
    open_at_end,
    put_folder,
    remove_folder,
    remove_leftovers,
    temporary_folder,
    write_atomically,
    write_together,
)
from tests.process import Running


@pytest.fixture
def umask():
    """Set the umask, and put it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_text_and_bytes_are_written_and_readable_by_others(tmp_path, umask):
    path = tmp_path / "new" / "a.txt"
    assert write_atomically(path, "é\n") == str(path)
    assert path.read_bytes() == "é\n".encode()
    assert os.stat(path).st_mode & 0o777 == 0o644
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "é\n"), ("", "é\n"), ("a\n", "a\né\n"), ("a\nha", "a\nha\né\n"), ("ö", "ö\né\n")],
)
def test_half_a_line_takes_no_other_with_it(tmp_path, before, after):
    path = tmp_path / "lines"
    if before is not None:
        path.write_text(before)
    with open_at_end(path) as file:
        file.write("é\n")
        assert path.read_text() == after  # A kill now would lose nothing.


def test_pieces_are_written_in_their_order_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, (piece for piece in ("é", "", "b\n")))
    assert path.read_bytes() == "éb\n".encode()

    def broken():
        yield "half"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_together(tmp_path, {"a.txt": broken(), "b.txt": "new"})
    assert path.read_bytes() == "éb\n".encode() and os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o000], ids=oct)
def test_who_may_read_is_what_the_umask_says(tmp_path, umask, mask):
    umask(mask)
    write_atomically(tmp_path / "a.txt", "a")
    with temporary_folder(tmp_path / "b") as folder:
        folder.rename(tmp_path / "b")
    assert os.stat(tmp_path / "a.txt").st_mode & 0o777 == 0o666 & ~mask
    assert os.stat(tmp_path / "b").st_mode & 0o777 == 0o777 & ~mask


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    write_atomically(path, "a")
    assert os.listdir(tmp_path) == [path.name]


def test_a_temporary_folder_becomes_its_target_or_nothing(tmp_path):
    target = tmp_path / "new" / "a"
    with temporary_folder(target) as folder:
        (folder / "one").touch()
        folder.rename(target)
    assert os.listdir(tmp_path / "new") == ["a"]
    with pytest.raises(KeyError), temporary_folder(target) as folder:
        (folder / "two").touch()
        raise KeyError
    assert os.listdir(tmp_path / "new") == ["a"] and os.listdir(target) == ["one"]


_WRITERS = """
import os, sys, time
from pathlib import Path
from ssd_centernet import files
folder = Path(sys.argv[1])
os.fsync = lambda handle: ((folder / "ready").touch(), time.sleep(600))
with files.temporary_folder(folder / "model") as partial:
    (partial / "weights").write_text("half")
    files.write_atomically(folder / "a [1].json", "half")
"""


def _temporaries(folder):
    return sorted(path.name for path in folder.glob(".*.tmp"))


def test_what_a_killed_command_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path):
    write_atomically(tmp_path / "a [1].json", "old")
    own = [".config.tmp", ".a.20240101.tmp", ".a.ssd-12345.tmp", "a.ssd-0123456789.tmp"]
    own += [".a.ssd-0123456789.tmp.gz", ".a.ssd-012345678X.tmp"]
    for name in own:
        (tmp_path / name).touch()
    with Running(sys.executable, "-c", _WRITERS, tmp_path) as writing:
        writing.wait_until((tmp_path / "ready").exists)
        assert remove_leftovers(tmp_path, older_than=0.0) == []
        written = set(_temporaries(tmp_path)) - set(own)
        assert len(written) == 2
        writing.kill()
    # It may be another command's turn in a moment: what is new stays unless asked for.
    assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path, ["*.txt"], older_than=0.0) == []
    assert {path.name for path in leftovers(tmp_path, older_than=0.0)} == written
    said = []
    assert remove_leftovers(tmp_path, ["*.json"], older_than=0.0, say=said.append)
    assert remove_leftovers(tmp_path, older_than=0.0) == [
        name for name in written if name.startswith(".model.")
    ]
    assert len(said) == 1 and ".a [1].json.ssd-" in said[0] and str(tmp_path) in said[0]
    assert sorted(os.listdir(tmp_path)) == sorted([*own, "a [1].json", "ready"])
    assert (tmp_path / "a [1].json").read_text() == "old"


def test_without_locks_age_decides(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError("Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    folder = tmp_path / ".model.ssd-0123456789.tmp"
    (folder / "variables").mkdir(parents=True)
    old = time.time() - LEFTOVER_AGE - 1
    (folder / "variables" / "data").touch()
    os.utime(folder, (old, old))
    os.utime(folder / "variables", (old, old))
    assert remove_leftovers(tmp_path, older_than=0.0) == []
    os.utime(folder / "variables" / "data", (old, old))
    assert remove_leftovers(tmp_path) == [folder.name]
    assert remove_leftovers(tmp_path / "none") == []


def test_files_that_belong_together_are_old_or_new_or_without_the_last(tmp_path, monkeypatch):
    names = ("a.json", "b.csv", "seal.json")
    write_together(tmp_path, dict.fromkeys(names, "old"))
    (tmp_path / "page.html").write_text("old")
    seen = []

    def contents():
        return {path.name: path.read_text() for path in tmp_path.glob("[!.]*")}

    for name in ("replace", "unlink"):
        change = getattr(os, name)

        def watched(*arguments, change=change, **options):
            seen.append(contents())
            return change(*arguments, **options)

        monkeypatch.setattr(os, name, watched)
    paths = write_together(tmp_path, dict.fromkeys(names, "new"), remove=["page.html"])
    assert paths == {name: str(tmp_path / name) for name in names}
    seen.append(contents())
    whole = {**dict.fromkeys(names, "old"), "page.html": "old"}, dict.fromkeys(names, "new")
    assert seen[0] == whole[0] and seen[-1] == whole[1]
    assert all(one in whole for one in seen if "seal.json" in one)
    assert any("seal.json" not in one for one in seen)


def test_files_that_belong_together_stay_where_one_cannot_be_written(tmp_path):
    write_together(tmp_path, {"a": "old", "b": "old"})
    with pytest.raises(TypeError):
        write_together(tmp_path, {"a": "new", "b": 3})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, exchanging):
    if not exchanging:

        def cannot(one, other):
            raise OSError("no exchange of names here")

        monkeypatch.setattr("ssd_centernet.files._exchange", cannot)
    target = tmp_path / "model"
    for text in ("first", "second"):
        with temporary_folder(target) as folder:
            (folder / "weights").write_text(text)
            put_folder(folder, target)
        assert (target / "weights").read_text() == text
        assert os.listdir(tmp_path) == ["model"]


def test_an_exchange_of_folders_that_was_cut_is_ended(tmp_path, monkeypatch):
    def cannot(one, other):
        raise OSError("no exchange of names here")

    monkeypatch.setattr("ssd_centernet.files._exchange", cannot)
    target, rename, renames = tmp_path / "model", Path.rename, []
    for cut in (1, 2):  # Between the two renames, and after them.
        shutil.rmtree(target, ignore_errors=True)
        (target).mkdir()
        (target / "old").touch()

        def count(path, to, cut=cut):
            if len(renames) == cut:
                raise KeyboardInterrupt
            renames.append(path)
            return rename(path, to)

        monkeypatch.setattr(Path, "rename", count)
        monkeypatch.setattr(shutil, "rmtree", _interrupted)
        renames.clear()
        folder = tmp_path / "new"
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            put_folder(folder, target)
        monkeypatch.undo()
        monkeypatch.setattr("ssd_centernet.files._exchange", cannot)
        assert target.exists() == (cut == 2)
        mend_folder(target)
        assert os.listdir(target) == (["old"] if cut == 1 else [])
        assert not list(tmp_path.glob(".*"))
        shutil.rmtree(folder, ignore_errors=True)


def _interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_folder_is_removed_at_once(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").touch()
    monkeypatch.setattr(shutil, "rmtree", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "data")
    monkeypatch.undo()
    assert not (tmp_path / "data").exists()
    assert remove_leftovers(tmp_path, ["data"], older_than=0.0)
    assert not list(tmp_path.iterdir())


def test_a_tidy_write_removes_what_killed_ones_left(tmp_path):
    name = "a [1].html"
    leftover = tmp_path / f".{name}.ssd-0123456789.tmp"
    other = tmp_path / ".b.html.ssd-0123456789.tmp"
    for path in (leftover, other):
        path.touch()
        os.utime(path, (0, 0))
    write_atomically(tmp_path / name, "a")
    assert leftover.exists()
    write_atomically(tmp_path / name, "a", tidy=True)
    assert not leftover.exists() and other.exists()
