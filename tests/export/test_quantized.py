"""Files of integers of a detector that has learned its ranges."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.export import joining, portable
from ssd_centernet.export.export import export
from ssd_centernet.export.pictures import rendered_pictures
from ssd_centernet.models.quantized import Quantize, quantize
from ssd_centernet.ops import fake_quantization as fake
from tests.export.lively import lively_detector
from tests.export.test_integers import FLOAT32, INT8, UINT8, fitted, order, tensors
from tests.tiny import tiny_detector

# Each with its thresholds.
RECIPES = {
    "ssd300_vgg16": "ssd300_resnet34",
    "ssd320_resnet50_fpn": "ssd320_resnet50_fpn",
    "centernet_resnet101_fpn": "centernet_resnet101_fpn",
}


def learned(detector, pictures, **settings):
    """Let a detector see some pictures as a training would."""
    quantize(detector, Quantize(**settings))
    images = [detector.preprocessing(tf.constant(one[np.newaxis])) for one in pictures]
    detector(tf.concat(images, axis=0), training=True)
    return detector


def signature(content, folder):
    (folder / "network.tflite").write_bytes(content)
    return portable.tflite_signature(folder / "network.tflite")


@pytest.fixture(scope="module", params=RECIPES)
def made(request, tmp_path_factory):
    pictures = rendered_pictures(6)
    detector = learned(lively_detector(request.param), pictures)
    like = RECIPES[request.param]
    files = order(like, tmp_path_factory.mktemp("learned"), (), detector=detector)
    content, _ = files.heads()
    return files, content, fitted(files, pictures)


def test_the_file_is_of_integers_throughout_with_the_learned_scales(made):
    files, content, _ = made
    (graph,) = joining.read(content).subgraphs
    assert all(tensor.type != FLOAT32 for tensor in graph.tensors)
    assert [tensor.type for tensor in tensors(graph, graph.inputs)] == [UINT8]
    assert {tensor.type for tensor in tensors(graph, graph.outputs)} == {INT8}
    written = {
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for tensor in graph.tensors
        if tensor.quantization is not None
        and np.size(tensor.quantization.scale) == 1
        and tensor.quantization.scale is not None
    }
    limits = fake.map_limits(files.detector.quantized.ranges).numpy()
    for low, high in limits:
        scale = (high - low) / 255
        zero = round(-128 - low / scale)
        close = [z for s, z in written if abs(s / scale - 1) < 1e-5]
        assert zero in close, (scale, zero)


def test_the_file_says_what_the_model_says(made, tmp_path):
    """Every operation may round a tie another way; what follows sees one step more or less."""
    files, content, pictures = made
    run = signature(content, tmp_path)
    scales = joining.output_scales(content)
    for image in pictures[:2]:
        pixels = tf.constant(image[np.newaxis], tf.float32)
        wanted = files.detector.quantized.maps(pixels)
        for name, got in run(images=image[np.newaxis]).items():
            assert got.dtype == np.int8
            scale, zero = scales[name]["scale"], scales[name]["zero_point"]
            ours = np.round(wanted[name].numpy() / scale + zero)
            steps = np.abs(got.astype(np.int32) - ours)
            # The norm of VGG-16 rounds to 1/128, so that a tie there moves a map by more.
            assert np.mean(steps) < 3.0 and np.quantile(steps, 0.5) <= 2.0, name
            assert np.ptp(ours) > 20, name


def test_one_layer_is_the_same_to_a_step(tmp_path):
    pictures = rendered_pictures(4)
    detector = learned(tiny_detector(), pictures)
    files = order("ssd300_resnet34", tmp_path, (), detector=detector)
    content, _ = files.heads()
    run, scales = signature(content, tmp_path), joining.output_scales(content)
    image = fitted(files, pictures)[0]
    wanted = detector.quantized.maps(tf.constant(image[np.newaxis], tf.float32))
    for name, got in run(images=image[np.newaxis]).items():
        ours = wanted[name].numpy() / scales[name]["scale"] + scales[name]["zero_point"]
        steps = np.abs(got.astype(np.float32) - ours)
        # Four convolutions lie one behind the other.
        assert steps.max() <= 2.01 and np.mean(steps > 0.5) < 0.2, name


def test_learned_powers_of_two_are_in_the_file(tmp_path):
    pictures = rendered_pictures(2)
    detector = learned(tiny_detector(), pictures, power_of_two=True, symmetric=True)
    content, _ = order("ssd300_resnet34", tmp_path, (), detector=detector).heads()
    (graph,) = joining.read(content).subgraphs
    checked = 0
    for tensor in graph.tensors:
        found = tensor.quantization
        if tensor.type == INT8 and found is not None and found.scale is not None:
            exponents = np.log2(np.asarray(found.scale, np.float64))
            np.testing.assert_allclose(exponents, np.round(exponents), atol=1e-6)
            checked += len(exponents)
    assert checked > 50


def test_an_export_needs_no_pictures_and_says_so_in_its_card(tmp_path):
    detector = learned(tiny_detector(), rendered_pictures(4))
    formats = ["tflite_full_int8", "tflite_int8_heads"]
    images = rendered_pictures(8)
    card = export(detector, tmp_path / "out", formats=formats, images=images, score_threshold=0.1)
    assert json.loads((tmp_path / "out" / "model_card.json").read_text()) == card
    for name in formats:
        settings = {"momentum": 0.99, "power_of_two": False, "symmetric": False}
        assert card["formats"][name]["learned_ranges"] == settings
        assert "calibration_images" not in card["formats"][name]


def test_what_a_learned_range_excludes(tmp_path):
    pictures = rendered_pictures(2)
    fresh = tiny_detector()
    quantize(fresh, Quantize())
    options = {"formats": ["tflite_full_int8"], "images": pictures}
    with pytest.raises(ValueError, match="was never trained with it, so that there are no ranges"):
        export(fresh, tmp_path / "out", **options)
    detector = learned(tiny_detector(), pictures)
    with pytest.raises(ValueError, match="2 calibration pictures have no effect: this detector"):
        export(detector, tmp_path / "out", calibration=pictures, **options)
    with pytest.raises(ValueError, match=r"onnx, tflite_16x8: this detector was trained for 8-bit"):
        options["formats"] = ["onnx", "tflite_full_int8", "tflite_16x8"]
        export(detector, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
