"""Which operators of the files of heads are on the list for the Edge TPU."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.export.edge_tpu import check_operators
from ssd_centernet.export.integers import Integers
from ssd_centernet.export.pictures import rendered_pictures
from tests.export.lively import lively_detector
from tests.export.test_joining import converted

COMMON = {"ADD", "CONV_2D", "MAX_POOL_2D", "PAD", "QUANTIZE"}


def heads(recipe, folder):
    detector = lively_detector(recipe)
    files = Integers(
        detector=detector,
        pictures=rendered_pictures(2),
        folder=str(folder),
        frame=tuple(detector.image_size),
        batch_size=1,
        pairs=512,
        thresholds={"score_threshold": 0.05},
    )
    return files.heads()[0]


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("ssd300_resnet34", COMMON),
        ("ssd320_resnet50_fpn", COMMON | {"RESIZE_NEAREST_NEIGHBOR"}),
        ("centernet_resnet101_fpn", COMMON | {"RESIZE_NEAREST_NEIGHBOR"}),
        ("ssd320_efficientnet_lite0", None),
        ("centernet_hourglass20", None),
        ("ssd300_vgg16", {"CONV_2D", "L2_NORMALIZATION", "MAX_POOL_2D", "MUL", "PAD", "QUANTIZE"}),
    ],
)
def test_every_operator_of_the_heads_is_listed(recipe, names, tmp_path):
    found = check_operators(heads(recipe, tmp_path))
    assert not {name: one["problems"] for name, one in found.items() if one["problems"]}
    assert names is None or set(found) == names
    assert found["CONV_2D"]["count"] > 10


def test_hard_swish_is_not_listed(tmp_path):
    # The backbone is the Model Garden's, which TensorFlow 2.15 and 2.20 have here.
    pytest.importorskip("official", reason="tf-models-official is not installed")
    found = check_operators(heads("ssd320_mobilenetv3_fpn", tmp_path))
    wrong = {name: one["problems"] for name, one in found.items() if one["problems"]}
    assert wrong == {"HARD_SWISH": ["not on the list"]}


def test_what_is_not_listed_is_named(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([2, 4, 4, 1], tf.float32, "x")])
    def floats(x):
        return {"y": tf.math.sin(x[:, ::2]) + 1.0}

    found = check_operators(converted(floats, tmp_path))
    assert found["SIN"]["problems"] == [
        "a shape [2, 2, 4, 1]; only the last three sides may be above 1",
        "not on the list",
        "numbers of type FLOAT32; expected 8 bits",
    ]
    assert "strides other than 1" in found["STRIDED_SLICE"]["problems"]
    assert "not on the list" not in found["ADD"]["problems"]

    @tf.function(input_signature=[tf.TensorSpec([1, 4, 4, 1], tf.float32, "x")])
    def pooled(x):
        return {"y": tf.nn.relu(tf.nn.max_pool2d(x, 2, 2, "VALID"))}

    def integers(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        picture = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
        converter.representative_dataset = lambda: [{"x": picture}]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    found = check_operators(converted(pooled, tmp_path, integers))
    assert found["MAX_POOL_2D"] == {"count": 1, "problems": ["a fused activation"]}
