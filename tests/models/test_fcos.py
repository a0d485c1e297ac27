"""A detector of another kind goes through every room, and none of them knows of it."""

import importlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from ssd_centernet import config
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.matches import MATCHED, UNMATCHED
from ssd_centernet.preview import fed_images
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runs.opened import open_run
from ssd_centernet.train import train
from ssd_centernet.weights import restore
from tests.cli.command_line import parsed
from tests.models import contracts
from tests.models.fcos import FCOS
from tests.weights import files

RECIPE = """
build_detector.model = @FCOS
FCOS.backbone = @ResNet()
FCOS.image_size = (64, 64)
ResNet.blocks = (1, 1)
ResNet.widths = (8, 8)
ResNet.strides = (2, 2)
ResNet.stem_width = 8
ResNet.output_groups = (1, 2)
train.augment = @SSDAugment()
SSDAugment.image_size = (64, 64)
SSDAugment.compiled = False
train.batch_size = 4
train.steps = 4
train.optimizer = @Momentum
train.schedule = @ConstantRate
ConstantRate.learning_rate = 0.01
train.evaluate_every = 4
"""


class TestFCOS(contracts.DetectorContract):
    def build(self, image_size=contracts.SQUARE, **settings):
        backbone = ResNet((1, 1), widths=(8, 8), strides=(2, 2), stem_width=8, output_groups=(1, 2))
        return FCOS(backbone, num_classes=contracts.NUM_CLASSES, image_size=image_size, **settings)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "fcos.gin"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run_dir(recipe, data_dir, tmp_path_factory):
    """A finished run of four steps."""
    folder = tmp_path_factory.mktemp("fcos")
    config.parse([recipe])
    assert train(folder, data_dir) == "finished"
    config.clear()
    return folder


def test_center_sampling_gives_each_object_its_locations():
    detector = TestFCOS().build(class_names=("a", "b", "c"))
    # Cells of 8 pixels: the first box spans two by two of them, the speck lies between locations,
    # and the third is one for the level of stride 16.
    boxes = np.float32([[24, 24, 40, 40], [15, 15, 17, 17], [2, 4, 94, 90]]) / 96
    objects = (boxes, np.int32([2, 0, 1]), np.zeros(3, bool))
    matches = detector.explain_targets(detector.make_targets(*objects), *objects)
    assert matches.states.tolist() == [MATCHED, UNMATCHED, MATCHED]
    assert matches.groups.tolist() == [0, -1, 1]
    want = [[28, 28], [28, 36], [36, 28], [36, 36]]
    np.testing.assert_allclose(matches.points[matches.owners == 0] * 96, want, rtol=1e-5)
    # 4 and 12 pixels to the sides, along either axis.
    assert matches.quality[:2] == pytest.approx([1 / 3, 0.0], abs=1e-5)


def test_it_trains_and_the_run_is_opened(run_dir, data_dir):
    assert find_checkpoint(run_dir).endswith("ckpt-4")
    opened = open_run(run_dir, device="cpu", allow_import=["tests.models.fcos"])
    assert isinstance(opened.detector, FCOS)
    sheet = np.asarray(Image.open(run_dir / "pictures" / "inputs.png"))
    assert (sheet == fed_images.COLORS[MATCHED]).all(axis=-1).sum() > 100


@pytest.fixture
def run_command(recipe, capsys):
    """Run a command with the recipe and return what it prints."""

    def run(command, *arguments):
        with parsed(command, [f"--gin_file={recipe}", *arguments]):
            assert importlib.import_module(f"ssd_centernet.cli.{command}").main([command]) == 0
        return capsys.readouterr().out

    return run


def test_inputs_are_drawn_with_locations(run_command, data_dir, tmp_path, monkeypatch):
    legends, legend = [], fed_images.legend
    monkeypatch.setattr(
        fed_images, "legend", lambda matches: legends.append(legend(matches)) or legends[0]
    )
    path = tmp_path / "inputs.png"
    told = run_command("show_inputs", f"--data_dir={data_dir}", f"--output={path}")
    assert re.search(r"images, \d+ objects, \d+ locations; learned: \d+", told)
    assert "blue dots: matched locations, their number beside the class" in legends[0]
    assert "red: no location" in legends[0] and "orange" not in legends[0]
    sheet = np.asarray(Image.open(path))
    assert (sheet[90:] == fed_images.UNIT_COLOR).all(axis=-1).sum() > 50


def test_the_report_counts_locations_by_size_and_level(run_command, data_dir, tmp_path):
    path = tmp_path / "chart.png"
    text = run_command("show_anchors", f"--data_dir={data_dir}", f"--output={path}")
    assert re.search(r"objects +learned +never +median best centerness\n", text)
    (total,) = re.findall(r"all objects +(\d+) +100.0 % +0.0 %", text)
    levels = dict(re.findall(r"stride of (\d+) +(\d+)", text))
    assert list(levels) == ["8", "16", "32"] and sum(map(int, levels.values())) == int(total)
    assert Image.open(path).width == 1000


def test_a_detector_that_explains_nothing_is_shown_by_omission(run_command, data_dir, monkeypatch):
    monkeypatch.delattr(FCOS, "explain_targets")
    text = run_command("show_anchors", f"--data_dir={data_dir}")
    assert re.search(r"objects +learned +never\n", text) and "the targets are others" in text


def test_known_classes_are_taken_from_a_run_of_others(run_dir):
    names = ("square", "ring", "disc")
    trained = open_run(run_dir, device="cpu", allow_import=["tests.models.fcos"]).detector
    detector = TestFCOS().build((64, 64), class_names=names)
    fresh = files.values(detector)["head/logits/kernel"]
    table = restore(detector, run_dir)
    assert {(name, known, count) for _, name, known, count in table.classes} == {
        (f"head/logits/{part}", 2, 3) for part in ("kernel", "bias")
    }
    old, new = (files.values(one)["head/logits/kernel"] for one in (trained, detector))
    for row, name in enumerate(names):
        known = name in trained.class_names
        want = old[..., trained.class_names.index(name)] if known else fresh[..., row]
        np.testing.assert_array_equal(new[..., row], want)


def test_classes_that_nobody_can_place_are_refused(run_dir, monkeypatch):
    monkeypatch.setattr(FCOS, "class_variables", lambda self: set())
    detector = TestFCOS().build((64, 64), class_names=("square", "ring", "disc"))
    with pytest.raises(ValueError, match="FCOS does not say which rows of its weights"):
        restore(detector, run_dir)
    restore(detector, run_dir, exclude="head/logits/")


@pytest.mark.parametrize(
    ("part", "flags"),
    [
        ("input", ["--windows=1", "--seconds=0.05"]),
        ("step", ["--windows=1", "--seconds=0.05"]),
        ("postprocess", ["--windows=1", "--seconds=0.05"]),
        ("inference", ["--warmup_iters=1", "--benchmark_iters=2"]),
    ],
)
def test_it_is_measured(run_command, part, flags):
    text = run_command("benchmark", f"--part={part}", "--batch_size=2", "--json", *flags)
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["part"] == part and lines[0]["images_per_second"] > 0
    if part == "postprocess":
        (line,) = lines
        assert line["outputs"].endswith("at each of 84 locations")
