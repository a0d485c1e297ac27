"""A published CenterNet with distances to the sides: our decoder and metrics give its results.

Its network (MobileNetV3, 512 pixels, COCO's 80 classes) runs as a backbone of `CenterNet`, with
our preprocessing, decoder and evaluation around it. Its own graph goes on to detections; these are
scored by pycocotools alone.

Source: https://github.com/610265158/mobilenetv3_centernet
"""

import json

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet as sc
from ssd_centernet._keras import keras
from ssd_centernet.data.convert import convert_coco
from tests.published.graph_models import as_function, read_graph_model
from tests.published.places import detector_path, pictures

SIDE, CELLS, CLASSES = 512, 128, 80
LOGITS = "tower_0/CenternetHead/centernet_cls_output/BiasAdd:0"


@pytest.fixture(scope="module")
def graph():
    return read_graph_model(detector_path("centernet"))


@pytest.fixture(scope="module")
def published(graph):
    """From one prepared image [1, 512, 512, 3] to x1, y1, x2, y2, score, class [100, 6]."""
    run = as_function(graph, ["tower_0/images:0"], ["tower_0/detections:0"])
    return lambda image: run(image)[0].numpy()[0]


class Network(keras.layers.Layer):
    """The published network, from images to its logits and its distances in pixels."""

    def __init__(self, graph, **kwargs):
        super().__init__(**kwargs)
        outputs = [LOGITS, "tower_0/wh:0"]
        self._run = as_function(graph, ["tower_0/images:0"], outputs)

    def call(self, images):
        # The graph has shapes for one image in it.
        dtypes = (tf.float32, tf.float32)
        logits, sides = tf.map_fn(
            lambda image: tuple(self._run(image[tf.newaxis])), images, fn_output_signature=dtypes
        )
        maps = tf.concat([logits, sides], axis=-1)
        return tf.reshape(maps, [-1, CELLS, CELLS, CLASSES + 4])


class Sides(keras.layers.Layer):
    """Our head's outputs of the published maps.

    It measures left, top, right, bottom from a cell's corner in pixels; we measure top, left,
    bottom, right from its middle in cells.
    """

    def call(self, maps):
        maps = maps[0]
        left, top, right, bottom = tf.unstack(maps[..., CLASSES:] * (CELLS / SIDE), axis=-1)
        sides = tf.stack([top + 0.5, left + 0.5, bottom - 0.5, right - 0.5], axis=-1)
        return [{"center": maps[..., :CLASSES], "sides": sides}]


@pytest.fixture(scope="module")
def detector(graph):
    image = keras.Input([SIDE, SIDE, 3])
    backbone = keras.Model(image, {"2": Network(graph)(image)})
    return sc.CenterNet(
        backbone,
        num_classes=CLASSES,
        image_size=(SIDE, SIDE),
        head=Sides(),
        criterion=sc.TTFLoss(),
        preprocessing=sc.Preprocessing(
            (SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0, resize="bilinear"
        ),
    )


def as_ours(rows):
    """The published rows as our boxes, scores and classes."""
    boxes = np.clip(rows[:, [1, 0, 3, 2]] / SIDE, 0.0, 1.0)
    return boxes, rows[:, 4], rows[:, 5].astype(int)


def test_pictures_have_the_detections_of_the_published_graph(detector, published):
    annotations, images = pictures()
    names = sorted(path.name for path in images.iterdir())[:12]
    assert len(names) == 12
    for name in names:
        pixels = tf.io.decode_image((images / name).read_bytes(), channels=3)
        found = detector.detect(pixels)
        boxes, scores, classes = as_ours(published(detector.preprocessing(pixels[tf.newaxis])))
        np.testing.assert_allclose(found["scores"][0], scores, rtol=1e-5, atol=1e-6)
        assert (np.diff(scores) < 0).mean() > 0.9, "only places with equal scores may be exchanged"
        np.testing.assert_array_equal(found["classes"][0], classes)
        np.testing.assert_allclose(found["boxes"][0], boxes, atol=1e-5)


def test_metrics_are_those_that_pycocotools_gives_its_own_detections(detector, published, tmp_path):
    pycocotools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    annotations, images = pictures()
    convert_coco(annotations, images, tmp_path, split="val", num_shards=1, progress=False)
    ours = sc.evaluate(detector, tmp_path).metrics

    truth = pycocotools.COCO(str(annotations))
    ids = sorted(truth.getCatIds())
    assert len(ids) == CLASSES
    rows = []
    for key, entry in truth.imgs.items():
        pixels = tf.io.decode_image((images / entry["file_name"]).read_bytes(), channels=3)
        boxes, scores, classes = as_ours(published(detector.preprocessing(pixels[tf.newaxis])))
        boxes = boxes * np.tile([entry["height"], entry["width"]], 2)
        for (top, left, bottom, right), score, one in zip(boxes, scores, classes, strict=True):
            rows.append(
                {
                    "image_id": key,
                    "category_id": ids[one],
                    "bbox": [float(x) for x in (left, top, right - left, bottom - top)],
                    "score": float(score),
                }
            )
    scored = COCOeval(truth, truth.loadRes(rows), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    print(json.dumps(ours))
    assert 0.25 < ours["AP"] < 0.45
    for name, theirs in zip(names, scored.stats, strict=False):
        assert ours[name] == pytest.approx(theirs, abs=1e-4), name
