"""Picture files of all kinds: what is stored, trained on and predicted on are the same pixels."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFile

from ssd_centernet.data.images import check_image, decode_with_pillow
from ssd_centernet.ops.image import decode_image
from ssd_centernet.predict.image_files import read_image
from tests.data.coco_set import CocoSet, encode, faults

RGB = Image.fromarray(
    np.kron(
        np.random.default_rng(5).integers(0, 256, (9, 12, 3), np.uint8),
        np.ones((16, 16, 1), np.uint8),
    )
)
GREY = RGB.convert("L")
LEVELS = np.asarray(GREY).astype(np.uint16)
OTHER = RGB.rotate(180)


def tiff_of_bits(levels: np.ndarray) -> bytes:
    return encode(Image.fromarray(levels), "TIFF")


def png_of_16_bits(channels: np.ndarray) -> bytes:
    return tf.io.encode_png(channels.astype(np.uint16)).numpy()


def garbage_below(image: Image.Image) -> Image.Image:
    mask = Image.fromarray((np.asarray(image.convert("L")) > 99).astype(np.uint8) * 255)
    return Image.merge("RGBA", (*image.split(), mask))


# Name of the file -> content, the right pixels, and how far a lossy format is from them on average
# (coarse blocks of random colours are hard for it; another picture is at 80).
KINDS = {
    "plain.jpg": (encode(RGB, quality=95), RGB, 12),
    "grey.jpg": (encode(GREY, quality=95), GREY, 1),
    "progressive.jpg": (encode(RGB, quality=95, progressive=True), RGB, 12),
    "cmyk.jpg": (encode(RGB.convert("CMYK"), quality=95), RGB, 12),
    "no_end.jpg": (encode(RGB, quality=95)[:-2], RGB, 12),
    "tail.jpg": (encode(RGB, quality=95) + bytes(300), RGB, 12),
    "two.mpo": (
        encode(RGB, "MPO", save_all=True, append_images=[OTHER.copy()], quality=95),
        RGB,
        40,
    ),
    "rgb.png": (encode(RGB, "PNG"), RGB, 0),
    "called.jpg": (encode(RGB, "PNG"), RGB, 0),
    "rgba.png": (encode(garbage_below(RGB), "PNG"), RGB, 0),
    "la.png": (encode(Image.merge("LA", (GREY, GREY)), "PNG"), GREY, 0),
    "palette.png": (encode(RGB.quantize(16), "PNG"), RGB.quantize(16), 0),
    "clear.png": (encode(RGB.quantize(16), "PNG", transparency=2), RGB.quantize(16), 0),
    "one_bit.png": (encode(GREY.convert("1"), "PNG"), GREY.convert("1"), 0),
    "film.png": (encode(RGB, "PNG", save_all=True, append_images=[OTHER.copy()]), RGB, 0),
    "grey16.png": (encode(Image.fromarray(LEVELS * 257), "PNG"), GREY, 0),
    "grey12.png": (encode(Image.fromarray(LEVELS * 16), "PNG"), GREY, 0),
    "rgb16.png": (png_of_16_bits(np.asarray(RGB) * np.uint16(257)), RGB, 0),
    "grey16.tif": (tiff_of_bits(LEVELS * 257), GREY, 0),
    "grey12.tif": (tiff_of_bits(LEVELS * 16 + 7), GREY, 0),
    "eight_of_16.tif": (tiff_of_bits(LEVELS), GREY, 0),
    "grey32.tif": (tiff_of_bits(LEVELS.astype(np.int32) * 257), GREY, 0),
    "float1.tif": (tiff_of_bits((LEVELS / 255).astype(np.float32)), GREY, 0),
    "overshoot.tif": (tiff_of_bits((LEVELS / 255 * 1.02 - 0.01).astype(np.float32)), GREY, 3),
    "float255.tif": (tiff_of_bits(LEVELS.astype(np.float32)), GREY, 0),
    "float65535.tif": (tiff_of_bits(LEVELS.astype(np.float32) * 257), GREY, 0),
    "pages.tif": (encode(RGB, "TIFF", save_all=True, append_images=[OTHER.copy()]), RGB, 0),
    "cmyk.tif": (encode(RGB.convert("CMYK"), "TIFF"), RGB, 0),
    "film.gif": (
        encode(RGB.quantize(32), "GIF", save_all=True, append_images=[OTHER.quantize(32)]),
        RGB.quantize(32),
        0,
    ),
    "plain.bmp": (encode(RGB, "BMP"), RGB, 0),
    "lossless.jp2": (encode(RGB, "JPEG2000"), RGB, 0),
    "plain.webp": (encode(RGB, "WEBP", quality=95), RGB, 15),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Convert a folder with all kinds; return it and file name -> pixels as training has them."""
    coco = CocoSet(tmp_path_factory.mktemp("kinds"))
    for name, (data, _, _) in KINDS.items():
        coco.image(name, data, *RGB.size).box()
    coco.info = coco.convert(num_shards=1, max_dropped=0.0)
    names = [image["file_name"] for image in coco.ground_truth()["images"]]
    pixels = [decode_image(tf.constant(e["encoded"])).numpy() for e in coco.examples()]
    return coco, dict(zip(names, pixels, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_record_and_prediction_have_the_same_and_the_right_pixels(records, name):
    coco, pixels = records
    _, expected, tolerance = KINDS[name]
    np.testing.assert_array_equal(pixels[name], read_image(coco.image_dir / name))
    difference = np.abs(pixels[name].astype(int) - np.asarray(expected.convert("RGB"), int))
    assert difference.mean() <= tolerance


@pytest.mark.parametrize("name", KINDS)
def test_galleries_show_the_same_pixels_without_tensorflow(records, name):
    coco, pixels = records
    checked = check_image(coco.image_dir / name)
    shown = decode_with_pillow(checked.encoded).astype(int)
    # Decoders of JPEG round differently.
    assert np.abs(shown - pixels[name]).max() <= (6 if checked.format == "jpeg" else 0)


def decoded_by_tensorflow(encoded: bytes) -> None:
    try:
        decode_image(tf.constant(encoded))
    except tf.errors.OpError as error:
        raise ValueError(error.message) from error


def test_the_report_names_what_was_done(records):
    report = faults(records[0].info)
    repaired = {reason: entry["count"] for reason, entry in report["repaired images"].items()}
    assert repaired["grey levels of 16 bits scaled to 8"] == 4
    assert repaired["grey levels of 16 bits that use 12: scaled to 8"] == 2
    assert repaired["grey levels of 16 bits that use 8: scaled to 8"] == 1
    assert repaired["float pixels of 0..1 scaled to 8 bits"] == 2
    assert repaired["JPEG without its end marker: added, all pixels are there"] == 1
    several = report["notes"]["holds several pictures: the first one is used"]
    assert several["first"] == ["two.mpo", "film.png", "pages.tif", "film.gif"]


# --- JPEGs that end too early ----------------------------------------------------------------


@pytest.mark.parametrize("missing", [3, 4, 5, 12, 100, 400])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_lacks_more_than_its_end_is_dropped(missing, options):
    data = encode(RGB, quality=95, **options)
    assert not check_image(data[:-2]).dropped
    checked = check_image(data[:-missing])
    if not checked.dropped:  # The last bits of a progressive one may refine nothing.
        assert missing <= 4 and "progressive" in options
        np.testing.assert_array_equal(decode_with_pillow(checked.encoded), decode_with_pillow(data))
    else:
        assert checked.dropped == "truncated or corrupt"


def test_a_progressive_jpeg_without_its_last_scan_is_dropped():
    data = encode(RGB, quality=95, progressive=True)
    last = data.rindex(b"\xff\xda")
    assert check_image(data[:last]).dropped == "truncated or corrupt"


def test_the_end_marker_is_added_and_nothing_else():
    data = encode(GREY)
    checked = check_image(data[:-2])
    assert checked.encoded == data and not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # It tells what it skips of a bad TIFF.
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_dropped_or_has_the_size_that_is_stored(name):
    data = KINDS[name][0]
    draw = np.random.default_rng(len(data))
    kept = 0
    for number in range(16):
        changed = bytearray(data)
        for _ in range(3):
            # Headers are short, so they are hit as often as all the rest.
            reach = min(len(data), 300) if number % 2 else len(data)
            changed[draw.integers(reach)] = draw.integers(256)
        if number % 4 == 3:
            del changed[draw.integers(len(data)) :]
        checked = check_image(bytes(changed), decode=decoded_by_tensorflow, max_pixels=10_000_000)
        if checked.encoded:
            kept += 1
            size = decode_image(tf.constant(checked.encoded)).shape[:2]
            assert size == (checked.height, checked.width)
        else:
            assert checked.dropped
    assert kept < 16


# --- colours and levels ----------------------------------------------------------------------


def without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def test_cmyk_of_others_than_adobe_is_not_inverted():
    inverted = encode(RGB.convert("CMYK"), quality=100, subsampling=0)
    plain = without_adobe_marker(inverted)
    # TensorFlow knows both conventions.
    for data in (inverted, plain):
        ours = decode_with_pillow(check_image(data).encoded).astype(int)
        theirs = decode_image(tf.constant(data)).numpy().astype(int)
        assert np.abs(ours - theirs).mean() < 6
    apart = decode_image(tf.constant(inverted)).numpy() - decode_image(tf.constant(plain)).numpy()
    assert np.abs(apart.astype(int)).mean() > 50


@pytest.mark.parametrize("offset, factor", [(-100, 3), (0, 0.02), (-128, 1 / 128), (0, 1e6)])
def test_levels_of_an_unknown_range_are_stretched_and_never_flat(offset, factor):
    levels = (LEVELS.astype(np.float32) + offset) * factor
    levels[0, 0] = np.nan
    checked = check_image(tiff_of_bits(levels))
    assert "pixels of an unknown range: its own range scaled to 8 bits" in checked.repairs
    pixels = decode_with_pillow(checked.encoded)
    # The one that is no number is taken for 0.
    assert pixels.max() == 255 and len(np.unique(pixels)) > 50


def test_colours_of_16_bits_that_use_12_are_refused_by_name():
    data = png_of_16_bits(np.asarray(RGB) * np.uint16(16))
    assert "colours of 16 bits that use 12 or fewer" in check_image(data).dropped
    grey = png_of_16_bits(np.asarray(RGB)[..., :2] * np.uint16(16))
    assert "colours of 16 bits that use 12 or fewer" in check_image(grey).dropped


def test_pixels_that_have_no_colours_are_refused_by_name():
    lab = io.BytesIO()
    Image.new("LAB", (8, 8)).save(lab, "TIFF")
    assert check_image(lab.getvalue()).dropped == "pixels of the kind LAB: save it as RGB"


# --- files that are no files -----------------------------------------------------------------


def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "endless.jpg", "folder.jpg"):
        assert check_image(tmp_path / name).dropped == "not a regular file"
        with pytest.raises(ValueError, match="not a regular file"):
            read_image(tmp_path / name)
    assert check_image(tmp_path / "gone.jpg").dropped == (
        "cannot be read: No such file or directory"
    )


def test_a_pipe_among_the_images_is_dropped(tmp_path):
    coco = CocoSet(tmp_path)
    coco.image("a.jpg").box().image("pipe.jpg", None).box()
    os.mkfifo(coco.image_dir / "pipe.jpg")
    (tmp_path / "linked.jpg").write_bytes(encode(RGB))
    (coco.image_dir / "link.jpg").symlink_to(tmp_path / "linked.jpg")
    coco.image("link.jpg", None, *RGB.size).box()
    info = coco.convert()
    assert info["num_images"] == 2
    assert list(faults(info)["dropped images"]) == ["not a regular file"]


def test_a_picture_beyond_the_limit_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "huge.png").write_bytes(encode(Image.new("1", (20_000, 20_000)), "PNG"))
    with pytest.raises(ValueError, match="more than max_pixels"):
        read_image(tmp_path / "huge.png")
