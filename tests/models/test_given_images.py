"""What `detect` is given, and that the same picture gives the same boxes whatever its form."""

import io

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.models.given_images import as_batch, as_list
from tests.tiny import tiny_detector

PIXELS = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


def scores(detector, images):
    return detector.detect(images)["scores"].numpy()


def test_files_and_pictures_are_what_their_pixels_are(detector, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    want = scores(detector, PIXELS)
    for given in (path, str(path), Image.open(path), [path], [Image.open(path)], (PIXELS,)):
        np.testing.assert_array_equal(scores(detector, given), want)
    both = scores(detector, [str(path), Image.fromarray(PIXELS), PIXELS])
    np.testing.assert_array_equal(both, np.repeat(want, 3, axis=0))


def test_pictures_of_many_sizes_and_thresholds_are_traced_once(detector, monkeypatch):
    traced, decode = [], type(detector).decode

    def counted(self, outputs, extent=None, **limits):
        traced.append(sorted(limits))
        return decode(self, outputs, extent, **limits)

    monkeypatch.setattr(type(detector), "decode", counted)
    monkeypatch.setattr(detector.decoder, "max_detections", 7)  # Other graphs than before.
    for size in (20, 30, 40):
        for images in (PIXELS[:size], np.stack([PIXELS[:, :size]] * 2), [PIXELS, PIXELS[:size]]):
            assert detector.detect(images)["scores"].shape[1] == 7
    assert traced == [[]]
    few, all_of_them = (
        int(detector.detect(PIXELS, score_threshold=value)["count"][0]) for value in (0.999, 0.0)
    )
    assert (few, all_of_them) == (0, 7) and traced == [[], ["score_threshold"]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_pictures_of_any_kind_of_8_bits_are_their_colours(mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    (pixels,) = as_list(picture)
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))


def test_a_file_is_turned_upright_and_a_picture_is_taken_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(PIXELS).save(path, exif=exif)
    np.testing.assert_array_equal(as_list(path)[0], np.rot90(PIXELS, -1))
    np.testing.assert_array_equal(as_list(Image.open(path))[0], PIXELS)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS.astype(np.float32), r"got float32 \(30, 40, 3\).*\(image \* 255\).round"),
        (PIXELS.astype(np.int64), r"got int64 .*astype\('uint8'\)"),
        (PIXELS[..., 0], r"got uint8 \(30, 40\).*np.stack\(\[image\] \* 3"),
        (PIXELS[..., :1], r"np.stack\(\[image\[..., 0\]\] \* 3"),
        (np.zeros((30, 40, 4), np.uint8), r"image\[..., :3\] leaves out the alpha"),
        (PIXELS.transpose(2, 0, 1), r"the channels come last; np.moveaxis\(image, -3, -1\)"),
        (PIXELS > 9, "got bool"),
        (None, "got None. It takes uint8 RGB images"),
        (b"\x89PNG", "path of a file, or its decoded pixels"),
        ({"image": 1}, "got a dict. It takes"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_what_makes_them_right(images, message):
    with pytest.raises(ValueError, match=message):
        as_batch(images)


def test_one_of_a_list_is_named():
    with pytest.raises(ValueError, match="image 1 of the list takes uint8 RGB .* got float32"):
        as_list([PIXELS, PIXELS / np.float32(255)])
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    with pytest.raises(ValueError, match="image 0 of the list got a picture of mode 'I;16'"):
        as_list([deep])


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("none")
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:100])
    for name in ("text.jpg", "cut.jpg", "missing.jpg"):
        with pytest.raises(OSError, match=name):
            as_list(tmp_path / name)


def test_what_is_printed_of_a_detector_is_one_readable_paragraph():
    text = repr(tiny_detector())
    assert text.startswith("<SSD for images of 64 x 64 pixels; classes: 2 (no names given); predi")
    assert "backbone ResNet" in text and "million weights, float32" in text
    assert "\n" not in text and "object at" not in text and len(text) < 600
