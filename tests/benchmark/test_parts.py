"""Each part of a benchmark measures what it says it does."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.benchmark import evaluation, inference, postprocess, records, training
from ssd_centernet.benchmark import input as input_part
from ssd_centernet.benchmark import step as step_part
from ssd_centernet.benchmark.table import format_lines
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import count_examples
from ssd_centernet.evaluation.backends import installed
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.recipe import Recipe
from tests.cli.command_line import parsed

# A detector that steps in milliseconds.
TINY = [
    "IMAGE_SIZE = (64, 64)",
    "SSD.backbone = @ResNet()",
    "ResNet.blocks = (1, 1)",
    "ResNet.widths = (8, 8)",
    "ResNet.strides = (1, 2)",
    "SSDExtraLevels.widths = ((8, 8), (8, 8), (8, 8), (8, 8), (8, 8))",
    "train.freeze = ()",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    records.write_records(folder, num_images=6, size=(96, 128), num_classes=5, num_shards=2)
    return folder


@pytest.fixture
def tiny():
    config.parse(["ssd300_resnet34"], TINY)
    yield
    config.clear()


def test_realistic_outputs_have_so_many_candidates(tiny):
    detector = Recipe().detector(num_classes=80)
    objects = postprocess.random_objects(detector.num_classes, 2)
    outputs = detector.realistic_outputs(*objects, candidates=150)
    scores = tf.nn.softmax(outputs["class_logits"])[..., 1:]
    found = tf.math.count_nonzero(tf.reduce_any(scores > 0.05, axis=-1), axis=1).numpy()
    assert found.tolist() == [150, 150]
    # What is decoded of them lies on the objects.
    detections = detector.decode(outputs)
    for image, boxes in enumerate(objects[0]):
        count = int(detections["count"][image])
        overlaps = box_ops.iou(detections["boxes"][image, :count], boxes).numpy().max(axis=1)
        assert count >= 7 and np.median(overlaps) > 0.7


def test_the_bare_kernel_finds_what_the_decoder_finds(tiny):
    detector = Recipe().detector(num_classes=80)
    outputs = detector.realistic_outputs(*postprocess.random_objects(80, 2))
    kernel, arguments = detector.bare_decoding(outputs)
    want, got = detector.decode(outputs), kernel(*arguments)
    np.testing.assert_array_equal(got.valid_detections, want["count"])
    np.testing.assert_allclose(got.nmsed_scores, want["scores"], atol=1e-6)


def test_records_are_read_by_the_pipeline(data_dir):
    assert count_examples(str(data_dir)) == 6
    assert load_label_map(data_dir).num_classes == 5


def test_long_epoch_links_the_same_records(data_dir, tmp_path):
    folder = records.long_epoch(data_dir, tmp_path)
    assert folder == tmp_path
    assert count_examples(str(folder)) == 6 * 334  # The least multiple of 6 from 2000 on.
    assert load_label_map(folder).names == load_label_map(data_dir).names


def test_input_part(tiny, data_dir):
    lines = input_part.run(Recipe(), data_dir, batch_size=2, windows=2, seconds=0.05)
    pipeline, ceiling, ratio = lines
    assert pipeline["name"] == "augment and targets" and ceiling["name"] == input_part.CEILING
    assert pipeline["image_size"] == [64, 64] and pipeline["windows"] == 2
    assert ratio["ratio"] > 0 and ratio["lowest"] <= ratio["ratio"] <= ratio["highest"]


@pytest.fixture
def in_the_step():
    more = ["train.augment_on = 'device'", "DeviceRendering.window_size = (96, 128)"]
    config.parse(["ssd300_resnet34"], [*TINY, *more])
    yield
    config.clear()


def test_what_is_measured_is_what_the_recipe_runs(in_the_step, data_dir):
    recipe, short = Recipe(), {"batch_size": 2, "windows": 1, "seconds": 0.05}
    assert recipe.augment_on == "device"
    batch = step_part.make_batch(recipe.replace(batch_size=2), recipe.detector(num_classes=5))
    # Pictures that fit into the frames that the recipe ships.
    assert "image" not in batch and batch["pixels"].shape == (2, 96, 128, 3)
    for folder in (None, data_dir):
        (line,) = step_part.run(recipe, folder, device="cpu", **short)
        assert line["name"] == "render and train step" and line["images_per_second"] > 0
        first, _, ratio = input_part.run(recipe, folder, **short)
        assert first["name"] == "windows and targets" and first["augment_on"] == "device"
        assert ratio["name"] == "windows and targets / decode and resize"
    assert "pixels made in the step" in format_lines([line])


def test_training_part_measures_both_sides_of_the_same_training(tiny, data_dir):
    lines = training.run(Recipe(), data_dir, batch_size=2, windows=2, seconds=0.05, device="cpu")
    whole, fast, slow, ratio = lines
    names = ["training", "augment and targets", "train step", "input / step"]
    assert [line["name"] for line in lines] == names
    assert 0 < whole["images_per_second"] and whole["augment_on"] == "host"
    assert ratio["bound_by"] == training.bound_by(ratio["ratio"])
    assert ratio["ratio"] == pytest.approx(
        fast["images_per_second"] / slow["images_per_second"], rel=0.8
    )
    assert "bounds the training" in format_lines(lines).splitlines()[-1]


@pytest.mark.parametrize(
    ("ratio", "bound"),
    [(3.0, "step"), (1.2, "step"), (1.1, "both"), (0.9, "both"), (0.8, "input"), (0.01, "input")],
)
def test_what_bounds_a_training(ratio, bound):
    assert training.bound_by(ratio) == bound


def test_ceiling_batches_are_the_resized_images(data_dir):
    batch = next(iter(input_part.ceiling_batches(data_dir, 3, size=(64, 48))))
    assert batch.dtype == tf.uint8 and batch.shape == (3, 64, 48, 3)
    assert np.std(batch) > 10


def test_step_part_trains(tiny, data_dir):
    work, trainer = step_part.prepare(Recipe().replace(batch_size=2), data_dir, device="cpu")
    assert work(3) == 6
    assert int(trainer.step) == 3
    (line,) = step_part.run(Recipe(), batch_size=2, windows=1, seconds=0.05, device="cpu")
    assert line["batch_size"] == 2 and line["dtype"] == "fp32"
    assert line["images_per_second"] > 0 and line["peak_rss_mb"] > 100


def test_batch_with_targets_has_matched_anchors(tiny):
    detector = Recipe().detector(num_classes=80)
    batch = step_part.batch_with_targets(detector, 2)
    # Every object takes at least one anchor, unless two objects claim the same.
    assert np.all(batch["targets"]["num_matched"] >= 4)
    assert batch["image"].shape == (2, 64, 64, 3)


def test_postprocess_part(tiny):
    lines = postprocess.run(Recipe(), batch_size=1, windows=1, seconds=0.05)
    assert [line["name"] for line in lines[:2]] == [postprocess.DECODER, postprocess.KERNEL]
    want = lines[1]["images_per_second"] / lines[0]["images_per_second"]
    np.testing.assert_allclose(lines[2]["ratio"], want, rtol=0.01)
    assert re.match(r"a class and a box for each of \d+ anchors", lines[0]["outputs"])


def test_postprocess_part_without_a_kernel_to_compare_with():
    config.parse(["centernet_demo"], ["IMAGE_SIZE = (64, 64)"])
    (line,) = postprocess.run(Recipe(), batch_size=1, windows=1, seconds=0.05)
    assert line["name"] == postprocess.DECODER and line["images_per_second"] > 0
    assert "heatmap" in line["outputs"]


def test_latencies_are_summarised_by_hand():
    got = inference.summary([0.1, 0.2, 0.1, 0.4], batch_size=2)
    assert got["images_per_second"] == (20 + 10 + 20 + 5) / 4
    assert got["latency_ms"] == 200.0
    assert got["latency_ms_p90"] == pytest.approx(200 + 0.7 * 200)


def test_inference_part(tiny):
    (line,) = inference.run(Recipe(), batch_size=2, iterations=3, warm_up=1)
    assert line["iterations"] == 3 and line["batch_size"] == 2
    assert line["latency_ms_p90"] <= line["latency_ms_p99"]
    assert 0 < line["latency_ms"] and 0 < line["images_per_second"]
    detector = Recipe().detector(num_classes=80)
    assert len(inference.latencies(detector, batch_size=1, iterations=2, warm_up=2)) == 2


def test_evaluation_part():
    there = installed()
    assert len(there) > 1
    measured = evaluation.run(num_images=20, detections=30, repeats=2)
    lines, ratios = measured[: len(there)], measured[len(there) :]
    assert [line["backend"] for line in lines] == there
    for line in lines:
        assert line["part"] == "eval" and line["num_detections"] == 600
        assert line["equal_bits"] and line["windows"] == 2
        assert 0 <= line["add_seconds"] <= line["seconds"] <= line["highest"]
    assert len({line["AP"] for line in lines}) == 1 and 0.05 < lines[0]["AP"] < 0.95
    assert [line["name"] for line in ratios] == [
        f"time of {name} / of {there[0]}" for name in there[1:]
    ]
    assert ratios[-1]["ratio"] > 1.0
    # Their versions are what the figures depend on.
    assert all({*there, "tensorflow", "numpy"} <= {*line["versions"]} for line in measured)


def test_table_says_what_was_measured_with_units():
    common = {"part": "step", "recipe": "ssd_demo", "batch_size": 2, "image_size": [64, 96]}
    lines = [
        {**common, "name": "new", "images_per_second": 91.98, "lowest": 90.0, "highest": 1234.5},
        {**common, "name": "old", "images_per_second": 45.0, "lowest": 44.0, "highest": 46.0},
        {"name": "new / old", "ratio": 2.044, "lowest": 1.9, "highest": 2.2},
    ]
    lines[0] |= {"latency_ms": 6.047, "peak_rss_mb": 789.0}
    lines[1] |= {"peak_rss_mb": 789.0}
    rows = [re.split(r" {2,}", row.strip()) for row in format_lines(lines).splitlines()]
    assert rows[0] == ["step: ssd_demo, batch 2, 64 x 96"]
    assert ["new", "91.98", "90.00", "1,234", "images/s"] in rows
    assert ["latency of a batch, mean", "6.047", "ms"] in rows
    assert ["new / old", "2.044", "1.900", "2.200"] in rows
    assert rows[-1] == ["most memory: 789.0 MB"]


def test_tables_fit_into_80_columns(tiny):
    from ssd_centernet.benchmark.measure import environment

    lines = postprocess.run(Recipe(), batch_size=1, windows=1, seconds=0.01)
    common = {"recipe": "configurations/ssd320_resnet50_fpn.gin", **environment()}
    numbers = {"images_per_second": 12_345.0, "lowest": 12_345.0, "highest": 12_345.0}
    step = {"part": "training", **numbers, "augment_on": "device", "batch_size": 1024}
    sides = [{**step, "name": name} for name in ("windows and targets", "render and train step")]
    for bound in ("input", "step", "both"):
        ratio = {"name": "input / step", "ratio": 12345.0, "bound_by": bound}
        for table in (lines, [*sides, ratio]):
            rows = format_lines([{**line, **common} for line in table]).splitlines()
            assert max(map(len, rows)) <= 80, rows


def test_table_names_the_processes_of_a_scaling_measurement():
    line = {"part": "scaling", "processes": 2, "images_per_second": 120.0, "efficiency": 0.5}
    rows = [re.split(r" {2,}", row.strip()) for row in format_lines([line]).splitlines()]
    assert ["2 processes", "120.0", "images/s"] in rows
    assert ["share of the speed alone, per process", "0.500"] in rows


def test_command_prints_a_table_or_json_lines(tiny, capsys):
    from absl import flags

    from ssd_centernet.cli import benchmark

    arguments = ["--part=step", "--windows=1", "--seconds=0.05", "--batch_size=1"]
    with parsed("benchmark", arguments) as values:
        values.gin_params = TINY
        values.device = "cpu"
        assert benchmark.main([]) == 0
        table = capsys.readouterr().out
        assert "step: ssd300_resnet34" in table and "train step" in table and "images/s" in table
        values.json = True
        assert benchmark.main([]) == 0
        (line,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert line["part"] == "step" and line["recipe"] == "ssd300_resnet34"
        assert line["versions"]["tensorflow"] == tf.__version__ and line["threads"] >= 1
        values.part = "eval"
        with pytest.raises(flags.IllegalFlagValueError, match="no effect on --part=eval"):
            benchmark.main([])
