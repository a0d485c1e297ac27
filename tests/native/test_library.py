"""Where the compiled operations lie, and what is never loaded."""

import os
import shutil
import sys

import pytest

from ssd_centernet.native import build, library
from tests.process import ROOT, environment, run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for libraries, and nothing loaded yet."""
    place = tmp_path / "native"
    monkeypatch.setenv("SSD_CENTERNET_NATIVE", str(place))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for cached in (library.load, library._say_once):
        cached.cache_clear()
    yield place
    for cached in (library.load, library._say_once):
        cached.cache_clear()


@pytest.fixture
def copied(compiled, folder):
    """A library of this source in the folder."""
    folder.mkdir(mode=0o700)
    return shutil.copy(compiled, folder)


def test_without_a_library_the_graph_runs_and_one_line_says_how_to_build_it(folder, caplog):
    # A command that another test has called may have made this logger quieter.
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(3):
            with library.use(None) as used:
                assert not used and library.active() is None
    (record,) = [r for r in caplog.records if "compiled operations" in r.getMessage()]
    assert library.BUILD_COMMAND in record.getMessage()
    with pytest.raises(ValueError, match="native is True.*" + library.BUILD_COMMAND):
        with library.use(True):
            pass
    with library.use(False) as used:
        assert not used


def test_half_a_library_and_one_of_other_sources_are_not_opened(copied, folder):
    path = folder / os.path.basename(copied)
    assert library.find() == path
    path.write_bytes(path.read_bytes()[:5000])
    assert library.find() is None
    path.rename(folder / f"{'0' * 20}-{path.name.split('-')[1]}")
    assert library.find() is None
    with library.use(None) as used:
        assert not used


def test_what_is_whole_but_no_library_is_an_error_with_its_name(folder):
    folder.mkdir(mode=0o700)
    path = folder / library.content_name(b"no library")
    path.write_bytes(b"no library")
    path.chmod(0o600)
    with pytest.raises(ValueError, match=f"{path.name} cannot be loaded"):
        library.load()
    with library.use(None) as used:
        assert not used


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_others_can_write_to_is_not_loaded(copied, folder, which):
    target = folder if which == "folder" else folder / os.path.basename(copied)
    target.chmod(target.stat().st_mode | 0o022)
    with pytest.raises(ValueError, match="can be written to by others"):
        library.find()
    with library.use(None) as used:
        assert not used


def test_sources_flags_and_tensorflow_are_in_the_name(monkeypatch):
    before = library.key()
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-g"))
    assert library.key() != before
    monkeypatch.undo()
    monkeypatch.setattr(library.tf, "__version__", "2.99.0")
    assert library.key() != before
    assert not [flag for flag in library.FLAGS if "fast-math" in flag or "march" in flag]
    assert "-ffp-contract=off" in library.FLAGS


def test_a_compiler_that_is_missing_or_fails_is_an_error_of_one_line(folder, monkeypatch, tmp_path):
    bad = tmp_path / "compiler"
    bad.write_text("#!/bin/sh\necho 'x.h:1: error: no such header' >&2\nexit 3\n")
    bad.chmod(0o755)
    monkeypatch.setenv("CXX", str(bad))
    with pytest.raises(ValueError, match="failed: x.h:1: error: no such header"):
        build.build()
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="cannot be run"):
        build.build()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="no C.. compiler"):
        build.build()
    assert not folder.exists()


def test_the_command_finds_what_is_built(compiled):
    command = [sys.executable, "-m", "ssd_centernet.native.build"]
    env = environment(SSD_CENTERNET_NATIVE=compiled.parent)
    assert run(*command, env=env, cwd=ROOT).stdout.strip() == str(compiled)
