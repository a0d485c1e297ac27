"""Batches of evaluation against those of the original, from the same records."""

import numpy as np
import tensorflow as tf

from ssd_centernet.data import pipeline, records
from ssd_centernet.data.augment import ssd as augment
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops
from tests.data.test_pipeline import write
from tests.parity import VECTORS


def test_evaluation_vectors(tmp_path):
    vectors = np.load(VECTORS / "ssd_resnet34" / "input_pipeline.npz")
    items = [vectors[f"record{n}"].tobytes() for n in range(5)]
    folder = write(tmp_path, items, split="coco_val")

    def full_size(image):
        resized = image_ops.resize_legacy_bilinear(image, (300, 300)) / 255.0
        return image_ops.normalize(resized, augment.IMAGENET_MEAN, augment.IMAGENET_STD)

    options = {"label_map": LabelMap.coco(), "preprocess": full_size, "batch_size": 2}
    batches = list(pipeline.evaluation_batches(folder, **options))
    assert len(batches) == 3
    got = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    np.testing.assert_allclose(got["image"][:4, ::9, ::9], vectors["eval_image_every9"], atol=1e-5)
    means = got["image"][:4].mean(axis=(1, 2))
    np.testing.assert_allclose(means, vectors["eval_image_mean"], atol=1e-5)
    np.testing.assert_allclose(got["boxes"][:4], vectors["eval_boxes"], atol=1e-5)
    classes = np.where(got["valid"], got["classes"] + 1, 0)[:4, :, np.newaxis]
    np.testing.assert_array_equal(classes, vectors["eval_classes"])
    np.testing.assert_array_equal(got["source_id"][:4], vectors["eval_source_id"])
    for index in range(5):
        image = image_ops.decode_image(
            records.parse_example(items[index], LabelMap.coco())["encoded"]
        )
        np.testing.assert_array_equal(image[::5, ::5], vectors[f"decode{index}_image_every5"])
    *_, half = pipeline.evaluation_batches(folder, dtype=tf.bfloat16, **options).take(1)
    want = vectors["eval_image_bf16_every9_as_f32"][:2]
    np.testing.assert_allclose(tf.cast(half["image"], tf.float32)[:, ::9, ::9], want, rtol=2**-8)
