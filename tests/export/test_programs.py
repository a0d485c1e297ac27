"""Programs without this library detect with an exported file what `predict` detects with it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.export import detect as program
from ssd_centernet.export import joining
from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector, fit_image
from ssd_centernet.export.pictures import rendered_pictures
from ssd_centernet.models.numpy_decoders import ssd
from ssd_centernet.predict.image_files import read_image
from tests.export.bare import BarePython
from tests.export.lively import lively_detector
from tests.process import ROOT, environment, run

PACKAGES = ["numpy", "pillow", "ai-edge-litert"]
# The second keeps the aspect ratio of pictures.
MADE = {
    "ssd300_resnet34": ["tflite", "tflite_full_int8", "tflite_int8_heads"],
    "centernet_resnet101_fpn": ["tflite_full_int8"],
}
FILES = ["model.tflite", "model_full_int8.tflite", "model_int8_heads.tflite"]
LOWEST = 0.1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Recipe -> its export."""
    pictures, made = rendered_pictures(6), {}
    for recipe, formats in MADE.items():
        made[recipe] = tmp_path_factory.mktemp("exported") / recipe
        options = {"formats": formats, "images": pictures[:3], "calibration": pictures}
        export(lively_detector(recipe), made[recipe], **options)
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    return BarePython(tmp_path_factory.mktemp("only"), PACKAGES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of several sizes and kinds; the last lies on its side.

    None is a JPEG, of which Pillow makes other pixels than TensorFlow, by a level or so.
    """
    folder = tmp_path_factory.mktemp("photos")
    pictures = [Image.fromarray(one) for one in rendered_pictures(4)]
    pictures[0].resize((301, 77)).save(folder / "wide.png")
    pictures[1].convert("L").resize((50, 130)).save(folder / "grey.png")
    pictures[2].convert("RGBA").save(folder / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures[3].resize((96, 96)).save(folder / "turned.png", exif=turned)
    levels = np.asarray(pictures[0].convert("L").resize((80, 120))).astype(np.uint16)
    Image.fromarray(levels * 257).save(folder / "deep.png")
    names = ("wide.png", "grey.png", "clear.png", "turned.png", "deep.png")
    return [folder / name for name in names]


def detections_of(path, photos):
    """What `predict` finds with a file, by picture: names, scores, boxes (x, y, width, height)."""
    model, found = ExportedDetector(path), {}
    for photo in photos:
        image = read_image(photo)
        one = model.detect(image)
        boxes = one["boxes"][:, [1, 0, 3, 2]] * np.tile(image.shape[1::-1], 2)
        boxes[:, 2:] -= boxes[:, :2]
        shown = one["scores"] >= LOWEST
        names = [model.label_map.names[number] for number in one["classes"][shown]]
        found[str(photo)] = (names, one["scores"][shown], boxes[shown])
    return found


def read_lines(text):
    """What a program printed, in the same form."""
    found = {}
    for one in map(json.loads, text.splitlines()):
        rows = one["detections"]
        boxes = np.reshape([row["bbox"] for row in rows], [-1, 4])
        scores = np.array([row["score"] for row in rows])
        found[one["file"]] = ([row["class"] for row in rows], scores, boxes)
    return found


def assert_same(found, wanted, *, atol=0.011):
    assert list(found) == list(wanted)
    for name, (classes, scores, boxes) in wanted.items():
        assert found[name][0] == classes, name
        np.testing.assert_allclose(found[name][1], scores, atol=1e-5, err_msg=name)
        # Written with two digits.
        np.testing.assert_allclose(found[name][2], boxes, atol=atol, err_msg=name)
    assert sum(len(classes) for classes, _, _ in wanted.values()) > 10


def test_a_python_with_three_packages_has_no_others(bare):
    code = (
        "from importlib.util import find_spec as find; "
        "print([bool(find(name)) for name in ('numpy', 'ssd_centernet', 'tensorflow', 'keras')])"
    )
    assert bare.code(code, "-").stdout == "[True, False, False, False]\n"


@pytest.mark.parametrize(
    ("recipe", "form"), [(recipe, form) for recipe, forms in MADE.items() for form in forms]
)
def test_a_plain_script_detects_the_same(recipe, form, folders, photos, bare, tmp_path):
    folder = folders[recipe]
    path = folder / f"model{form.removeprefix('tflite')}.tflite"
    flags = [f"--model={path}", f"--min_score={LOWEST}", f"--draw={tmp_path / 'drawn'}"]
    ended = bare(folder / "detect.py", *photos, *flags)
    wanted = detections_of(path, photos)
    assert_same(read_lines(ended.stdout), wanted)
    for photo in photos:
        with Image.open(tmp_path / "drawn" / f"{photo.stem}.png") as drawn:
            drawn = np.asarray(drawn)
        image = read_image(photo)
        changed = (np.abs(drawn.astype(int) - image) > 30).any(axis=2)
        assert drawn.shape == image.shape
        # Others are in the black beside a picture that keeps its aspect ratio.
        inside = (wanted[str(photo)][2][:, :2] < (image.shape[1] - 2, image.shape[0] - 2)).all(
            axis=1
        )
        assert changed.any() or not inside.any()


def test_the_script_reads_grey_of_16_bits_as_predict_does(tmp_path):
    for most in (200, 4000, 65535):
        levels = np.linspace(0, most, 600).astype(np.uint16).reshape(20, 30)
        Image.fromarray(levels).save(tmp_path / "a.png")
        np.testing.assert_array_equal(
            np.asarray(program.upright(tmp_path / "a.png")), read_image(tmp_path / "a.png")
        )


def test_the_script_goes_on_after_what_is_no_picture_and_draws_each(folders, photos, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    script = folders["ssd300_resnet34"] / "detect.py"
    (tmp_path / "bad.png").write_bytes(photos[0].read_bytes()[:200])
    with Image.open(photos[1]) as same:
        same.save(tmp_path / "grey.webp")
    given = [photos[1], tmp_path / "bad.png", tmp_path, tmp_path / "grey.webp"]
    ended = run(sys.executable, script, *given, f"--draw={tmp_path / 'drawn'}", status=1)
    assert list(read_lines(ended.stdout)) == [str(given[0]), str(given[3])]
    told = [line for line in ended.stderr.splitlines() if line.startswith("not read: ")]
    assert len(told) == 2 and "Traceback" not in ended.stderr
    assert {one.name for one in (tmp_path / "drawn").iterdir()} == {"grey.png", "grey_2.png"}
    ended = run(sys.executable, script, photos[0], f"--model={tmp_path / 'no.tflite'}", status=2)
    assert "there is no " in ended.stderr and "Traceback" not in ended.stderr


def test_the_script_refuses_files_that_are_not_whole(folders, photos, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    script = folders["ssd300_resnet34"] / "detect.py"
    card = (script.parent / "model_card.json").read_bytes()
    model, beside = tmp_path / "cut.tflite", tmp_path / "model_card.json"
    whole = (script.parent / "model.tflite").read_bytes()
    for file, text in [(whole[:5000], card), (b"", card), (whole, card[:50]), (whole, b"{}")]:
        model.write_bytes(file)
        beside.write_bytes(text)
        ended = run(sys.executable, script, photos[0], f"--model={model}", status=2)
        assert "cut.tflite and the files beside it are not whole" in ended.stderr
        assert "Traceback" not in ended.stderr and not ended.stdout


def test_the_script_resizes_as_predict_does():
    rng = np.random.default_rng(2)
    for before, frame in [((37, 90), (96, 96)), ((200, 301), (64, 80)), ((96, 96), (96, 96))]:
        image = rng.integers(0, 256, (*before, 3), np.uint8)
        for keep_aspect in (False, True):
            ours, extent = program.fitted(image, frame, keep_aspect)
            theirs, share = fit_image(image, frame, keep_aspect)
            np.testing.assert_array_equal(ours, theirs)
            assert extent.tolist() == share.tolist()
    pixels = rng.integers(0, 256, (11, 7, 3), np.uint8)
    wanted = tf.image.resize(pixels, (30, 31)).numpy().round()
    np.testing.assert_array_equal(program.resized(pixels, (30, 31)), wanted)


def test_an_export_writes_what_belongs_together(folders, tmp_path):
    folder = shutil.copytree(folders["ssd300_resnet34"], tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *FILES,
        "model_int8_heads.npz",
        "decode_heads.py",
        "detect.py",
        "labels.txt",
        "model_card.json",
    }
    for module in (program, ssd):
        name = "detect.py" if module is program else "decode_heads.py"
        assert (folder / name).read_text() == Path(module.__file__).read_text()
    entry = json.loads((folder / "model_card.json").read_text())["formats"]["tflite_int8_heads"]
    assert entry["calibration_images"] == 6
    assert entry["decoding"]["scores"] == "softmax" and entry["decoding"]["classes"] == 3
    assert entry["edge_tpu_operators"]["QUANTIZE"] == {"count": 1, "problems": []}
    heads = folder / "model_int8_heads.tflite"
    assert set(entry["decoding"]["outputs"]) == set(joining.output_scales(heads.read_bytes()))
    # The commands take both, an image of any size.
    picture = rendered_pictures(1)[0]
    found = [ExportedDetector(folder / name).detect(picture) for name in FILES[1:]]
    assert len(found[0]["scores"]) > 3
    np.testing.assert_allclose(found[0]["scores"], found[1]["scores"], atol=1e-5)
    sidecar = folder / "model_int8_heads.npz"
    sidecar.unlink()
    for harmful in (False, True):
        if harmful:  # Pickled objects, which could run a program.
            np.savez(sidecar, settings=np.array([{}], object))
        with pytest.raises(FileNotFoundError, match=r"model_int8_heads\.npz is missing or damaged"):
            ExportedDetector(heads)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The program of examples/, built against the library of the Python package."""
    litert = pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    if shutil.which("g++") is None:
        pytest.skip("there is no compiler: apt-get install g++")
    library = Path(litert.__path__[0])
    if not (library / "libLiteRt.so").is_file():
        pytest.skip("this ai-edge-litert has no libLiteRt.so")
    folder = tmp_path_factory.mktemp("built")
    env = environment(LITERT=library)
    ended = run("bash", ROOT / "examples" / "build.sh", folder, env=env)
    assert ended.text == f"built: {folder / 'detect'}\n"  # And no warning.
    return folder / "detect"


@pytest.mark.parametrize(
    ("recipe", "file"),
    [
        ("ssd300_resnet34", "model.tflite"),
        ("ssd300_resnet34", "model_full_int8.tflite"),
        ("centernet_resnet101_fpn", "model_full_int8.tflite"),
    ],
)
def test_the_program_in_cpp_detects_the_same(recipe, file, folders, photos, built, tmp_path):
    path, found = folders[recipe] / file, {}
    for photo in photos:
        picture = tmp_path / "picture.ppm"
        Image.fromarray(read_image(photo)).save(picture)
        rows = [
            line.split(" ", 5) for line in run(built, path, picture, LOWEST).stdout.splitlines()
        ]
        numbers = np.reshape([[float(n) for n in row[:5]] for row in rows], [-1, 5])
        boxes = np.concatenate([numbers[:, 1:3], numbers[:, 3:] - numbers[:, 1:3]], axis=1)
        found[str(photo)] = ([row[5] for row in rows], numbers[:, 0], boxes)
    # Each corner is written with two digits.
    assert_same(found, detections_of(path, photos), atol=0.021)


def test_the_program_in_cpp_tells_what_it_cannot_do(folders, built, tmp_path):
    folder, whole = folders["ssd300_resnet34"], tmp_path / "whole.ppm"
    Image.new("RGB", (20, 10)).save(whole)
    cut, text = tmp_path / "cut.ppm", tmp_path / "text.ppm"
    cut.write_bytes(whole.read_bytes()[:-1])
    text.write_text("P3 1 1 255 0 0 0")
    alone = shutil.copy(folder / "model.tflite", tmp_path / "alone.tflite")
    for path, picture, said in (
        (folder / "model.tflite", cut, "cut.ppm is cut off"),
        (folder / "model.tflite", text, "text.ppm is no binary PPM"),
        (folder / "model.tflite", tmp_path / "none.ppm", "or not there"),
        (folder / "none.tflite", whole, "LiteRT ended with status"),
        (folder / "model_int8_heads.tflite", whole, "has no decoder"),
        (alone, whole, "labels and model card are not beside"),
    ):
        assert said in run(built, path, picture, status=1).stderr


def test_the_program_in_cpp_is_short():
    assert len((ROOT / "examples" / "detect.cc").read_text().splitlines()) < 150
