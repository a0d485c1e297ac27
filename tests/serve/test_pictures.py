"""What strangers send as a picture: refused by its header, in little time and memory."""

import io
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmarks.traffic import encoded, form, jpeg_of_many_scans, png_bomb, scene
from ssd_centernet.data.images import pillow_limit
from ssd_centernet.predict.image_files import read_image
from ssd_centernet.serve import pictures
from ssd_centernet.serve.forms import picture_of_form
from ssd_centernet.serve.settings import Refused
from tests.process import slowness
from tests.serve.serving import need_packages

pytestmark = pytest.mark.usefixtures("_as_in_the_server")
PIXELS = scene(0, 90, 60)
LIMIT = 1_000_000


@pytest.fixture
def _as_in_the_server():
    with pillow_limit(None):
        yield


def _refused(data, limit=LIMIT):
    with pytest.raises(Refused) as caught:
        pictures.read(data, limit)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_has_the_pixels_that_predict_reads(kind, tmp_path):
    data = encoded(PIXELS, kind)
    (tmp_path / "a").write_bytes(data)
    assert np.array_equal(pictures.read(data, LIMIT).pixels, read_image(tmp_path / "a"))


def test_a_picture_stands_upright():
    turned = Image.Exif()
    turned[0x0112] = 6
    assert pictures.read(encoded(PIXELS, "JPEG", exif=turned), LIMIT).pixels.shape == (90, 60, 3)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "EPS", "ICO"])
def test_other_kinds_are_not_opened(kind):
    assert _refused(encoded(PIXELS, kind))[0] == 415


def test_a_kind_in_disguise_is_not_opened():
    """Pillow would take the first bytes for a JPEG and look on; a TIFF is no JPEG after all."""
    assert _refused(b"\xff\xd8\xff" + encoded(PIXELS, "TIFF"))[0] == 400
    assert _refused(b"RIFF\0\0\0\0WEBP" + encoded(PIXELS, "GIF"))[0] == 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_cut_off_is_refused_wherever_it_ends(kind):
    data = encoded(PIXELS, kind)
    for share in (0.02, 0.2, 0.5, 0.9):
        assert _refused(data[: int(share * len(data))])[0] in (400, 415)
    assert _refused(b"") == (400, "The body is empty: send the bytes of a picture.")


def _too_large(kind: str) -> bytes:
    if kind == "PNG":
        return png_bomb(60_000, 60_000)
    data = bytearray(encoded(PIXELS, kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "JPEG":
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 65_000, 65_000)
    else:  # 14 bits each of width and height, less one.
        place = data.index(b"VP8L") + 9
        data[place : place + 4] = struct.pack("<I", 16_382 | 16_382 << 14)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_bomb_is_refused_by_its_header(kind):
    data = _too_large(kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, told = _refused(data, 25_000_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert status == 413 and "at most 25,000,000 are taken" in told
    assert grown < 40_000, f"{grown} KiB"


def _many_segments() -> bytes:
    whole = encoded(PIXELS, "JPEG")
    return whole[:2] + b"\xff\xe5\x00\x02" * 500_000 + whole[2:]


def _many_chunks() -> bytes:
    whole = encoded(PIXELS, "PNG")
    empty = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return whole[:33] + empty * 300_000 + whole[33:]


def _scans_after_an_end_in_a_comment() -> bytes:
    """No decoder takes the bytes of a comment for the end of the picture."""
    whole = jpeg_of_many_scans(3000)
    place = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    return whole[:place] + b"\xff\xfe\x00\x04\xff\xd9" + whole[place:]


SLOW = {
    "scans": lambda: jpeg_of_many_scans(3000),
    "scans after an end in a comment": _scans_after_an_end_in_a_comment,
    "markers among the pixels": lambda: encoded(PIXELS, "JPEG")[:-2] + b"\xff\x02" * 1_000_000,
    "segments": _many_segments,
    "bytes that fill": lambda: b"\xff\xd8" + b"\xff" * 4_000_000,
    "chunks": _many_chunks,
}


@pytest.mark.parametrize("kind", SLOW)
def test_what_is_made_to_be_slow_is_refused_at_once(kind):
    data = SLOW[kind]()
    began = time.monotonic()
    status, told = _refused(data)
    assert time.monotonic() - began < 0.2 * slowness()
    assert status == 413 and "save it again" in told


def test_what_encoders_write_passes():
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    profile = bytes(1_000_000)
    for data in (
        encoded(noise, "JPEG", progressive=True, quality=98),
        encoded(noise, "JPEG", icc_profile=profile),
        encoded(noise, "PNG"),
    ):
        assert pictures.read(data, LIMIT).pixels.shape == noise.shape


def test_a_jpeg_with_bytes_between_its_segments_is_read_as_predict_reads_it():
    whole = encoded(PIXELS, "JPEG")
    place = whole.index(b"\xff\xdb")
    for filling in (b"\xff" * 40, b"\0" * 40):
        read = pictures.read(whole[:place] + filling + whole[place:], LIMIT)
        assert np.array_equal(read.pixels, pictures.read(whole, LIMIT).pixels)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_the_end_of_a_jpeg_is_passed_over(progressive):
    """Motion photos of phones hold a film behind the picture."""
    whole = encoded(PIXELS, "JPEG", progressive=progressive)
    film = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    read = pictures.read(whole + film + b"\xff\xda\x00\x02" * 500, LIMIT)
    assert np.array_equal(read.pixels, pictures.read(whole, LIMIT).pixels)


def test_several_pictures_in_one_file_give_the_first():
    content = io.BytesIO()
    first, second = (Image.fromarray(scene(n, 40, 30)) for n in range(2))
    first.save(content, "WEBP", save_all=True, append_images=[second], lossless=True)
    read = pictures.read(content.getvalue(), LIMIT)
    # WebP is decoded, and encoded again as a JPEG, as everywhere in the library.
    assert np.abs(read.pixels.astype(int) - np.asarray(first)).mean() < 10
    assert "holds several pictures" in read.notes[0]


def test_a_form_gives_its_file():
    need_packages()
    data = encoded(PIXELS, "JPEG")
    assert picture_of_form(*form(data)) == data


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda body, kind: (body, "multipart/form-data"), "names no boundary"),
        (lambda body, kind: (body[:-400], kind), "damaged or cut off"),
        (lambda body, kind: (b"", kind), "damaged or cut off"),
        (lambda body, kind: (b"no form at all", kind), "damaged or cut off"),
        (lambda body, kind: form(b"a", files=2), "holds 2 files"),
        (lambda body, kind: form(b"a", files=0), "holds 0 files"),
        (lambda body, kind: form(b"", files=50), "more than 8 parts"),
    ],
)
def test_other_forms_are_refused(change, told):
    need_packages()
    with pytest.raises(Refused, match=told) as caught:
        picture_of_form(*change(*form(encoded(PIXELS, "JPEG"))))
    assert caught.value.status == 400
