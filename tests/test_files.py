"""Files appear whole or not at all."""

import os

import pytest

from ssd_centernet.files import write_atomically


def test_text_and_bytes_are_written_and_readable_by_others(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert write_atomically(path, "é\n") == str(path)
    assert path.read_bytes() == "é\n".encode()
    assert os.stat(path).st_mode & 0o777 == 0o644
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.txt"]


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
