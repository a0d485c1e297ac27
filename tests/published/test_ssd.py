"""A published SSD with a feature pyramid: our anchors, box code and decoder give its results.

SSD MobileNetV2 FPNLite 320 of TensorFlow's Object Detection API, trained on hands and faces. Its
weights are kept in 8 bits, and so are its anchors: centres and sizes are up to half a step off.

Source: https://github.com/victordibia/handtracking
"""

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet as sc
from tests.published.graph_models import as_function, read_graph_model
from tests.published.places import detector_path, pictures

SIDE, CLASSES, ANCHORS = 320, 7, 12804
_TOP = "StatefulPartitionedCall"
_DECODE = f"{_TOP}/Postprocessor/Decode"
# In the order of ours: centres and sizes.
KEPT = [f"{_DECODE}/get_center_coordinates_and_sizes/{name}" for name in ("add", "add_1")]
KEPT += [f"{_DECODE}/get_center_coordinates_and_sizes/{name}" for name in ("sub_1", "sub")]


@pytest.fixture(scope="module")
def graph():
    return read_graph_model(detector_path("handtrack"))


@pytest.fixture(scope="module")
def kept_anchors(graph):
    """The file's anchors, float32 [4, A]: y and x of the centres, heights, widths."""
    nodes = {node.name: node for node in graph.node}
    return np.stack([tf.make_ndarray(nodes[name].attr["value"].tensor) for name in KEPT])


@pytest.fixture(scope="module")
def run(graph):
    names = {
        "codes": f"{_TOP}/Postprocessor/Reshape_1:0",
        "logits": f"{_TOP}/concat_1:0",
        "decoded": f"{_DECODE}/transpose_1:0",
        "boxes": "Identity_1:0",
        "scores": "Identity_4:0",
        "classes": "Identity_2:0",
        "count": "Identity_5:0",
    }
    run = as_function(graph, ["input_tensor:0"], list(names.values()))
    return lambda image: dict(zip(names, (one.numpy() for one in run(image)), strict=True))


def images():
    """Pictures of the network's size; those of COCO hold faces and hands too."""
    annotations, folder = pictures()
    for path in sorted(folder.iterdir())[:12]:
        pixels = tf.io.decode_image(path.read_bytes(), channels=3)
        yield tf.cast(tf.image.resize(pixels[tf.newaxis], [SIDE, SIDE]), tf.uint8)


def test_anchors_are_those_of_the_file_within_its_8_bits(kept_anchors):
    sizes = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)]
    ours = sc.MultiscaleAnchors().generate((SIDE, SIDE), sizes)
    assert ours.shape == (ANCHORS, 4)
    centres, extents = (ours[:, :2] + ours[:, 2:]) / 2, ours[:, 2:] - ours[:, :2]
    for mine, kept in zip(np.concatenate([centres, extents], axis=1).T, kept_anchors, strict=True):
        steps = np.unique(np.round(np.diff(np.unique(kept)), 6))
        assert np.abs(mine - kept).max() <= steps[0] / 2 + 1e-4
        assert len(np.unique(mine)) > 20


def test_boxes_and_detections_are_those_of_the_published_graph(run, kept_anchors):
    ycenter, xcenter, height, width = kept_anchors
    anchors = np.stack(
        [ycenter - height / 2, xcenter - width / 2, ycenter + height / 2, xcenter + width / 2], -1
    ).astype(np.float32)
    decoder = sc.SigmoidSSDDecoder()
    best = []
    for image in images():
        theirs = run(image)
        outputs = {
            "class_logits": tf.constant(theirs["logits"]),
            "box_codes": tf.reshape(theirs["codes"], [1, ANCHORS, 4]),
        }
        decoded = sc.ops.boxes.decode(outputs["box_codes"][0], anchors)
        np.testing.assert_allclose(decoded, theirs["decoded"], atol=2e-6)
        found = decoder(outputs, tf.constant(anchors))
        assert found["count"][0] == int(theirs["count"][0]) == 100
        np.testing.assert_allclose(found["scores"][0], theirs["scores"][0], rtol=1e-5)
        # The numbers of the classes are kept in 8 bits too: 2 is 1.988.
        np.testing.assert_array_equal(found["classes"][0] + 1, np.rint(theirs["classes"][0]))
        np.testing.assert_allclose(found["boxes"][0], theirs["boxes"][0], atol=2e-6)
        best.append(float(theirs["scores"][0, 0]))
    assert max(best) > 0.5, "no picture with a face or a hand"
