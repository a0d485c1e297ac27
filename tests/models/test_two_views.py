"""Detections on several views of an image together: mirrored, and at other sizes."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.evaluation.detector import detection_step
from ssd_centernet.export.export import export
from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.layers.decoders import SigmoidSSDDecoder, SSDDecoder
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.ssd import SSD
from ssd_centernet.ops import nms
from ssd_centernet.predict.fixed_size import empty_batch, fixed_size_step
from tests.models import contracts
from tests.models.test_centernet import small_fpn
from tests.models.test_ssd import small_ssd
from tests.tiny import LABELS, write_data_set


def detections(boxes, scores, classes) -> dict[str, tf.Tensor]:
    return {
        "boxes": tf.constant([boxes], tf.float32),
        "scores": tf.constant([scores], tf.float32),
        "classes": tf.constant([classes], tf.int32),
        "count": tf.constant([np.count_nonzero(scores)]),
    }


LEFT, RIGHT, NEAR_LEFT = [0.0, 0.0, 1.0, 0.4], [0.0, 0.6, 1.0, 1.0], [0.0, 0.0, 1.0, 0.36]


def test_what_both_views_have_found_is_one_object():
    first = detections([LEFT, RIGHT, LEFT], [0.8, 0.3, 0.0], [1, 0, 0])
    second = detections([NEAR_LEFT, RIGHT, LEFT], [0.9, 0.5, 0.4], [1, 1, 0])
    found = nms.merge_detections(first, second, 0.5)
    # The lower of the two left ones of class 1 goes; the fourth best does not fit.
    np.testing.assert_allclose(found["scores"], [[0.9, 0.5, 0.4]])
    np.testing.assert_allclose(found["boxes"][0], [NEAR_LEFT, RIGHT, LEFT])
    np.testing.assert_array_equal(found["classes"], [[1, 1, 0]])
    assert int(found["count"][0]) == 3
    apart = nms.merge_detections(first, second, 0.95)
    np.testing.assert_allclose(apart["scores"], [[0.9, 0.8, 0.5]])


def test_a_mirrored_image_has_the_mirrored_detections():
    detector = small_ssd(decoder=SSDDecoder(0.01, test_time=("flip",)))
    once = small_ssd(decoder=SSDDecoder(0.01))
    once.set_weights(detector.get_weights())
    images = contracts.batch_of(contracts.SQUARE, [3, 1])["image"]
    there = detector.detect_prepared(images)
    back = detector.detect_prepared(tf.reverse(images, [2]))
    assert int(there["count"][0]) > 0
    np.testing.assert_allclose(there["scores"], back["scores"], atol=1e-5)
    # It is another result than that of one look, which is not symmetric.
    assert not np.allclose(there["scores"], once.detect_prepared(images)["scores"], atol=1e-3)
    best = {"boxes": [], "scores": []}
    for key in best:
        best[key] = [view[key][0, 0].numpy() for view in (there, back)]
    (_, xmin, _, xmax), (_, other_xmin, _, other_xmax) = best["boxes"]
    np.testing.assert_allclose([xmin, xmax], [1 - other_xmax, 1 - other_xmin], atol=1e-4)


def test_each_view_votes_before_both_are_joined():
    """What a view finds moves by what that view sees; the join chooses among moved boxes."""
    detector = small_ssd(decoder=SSDDecoder(0.01, vote_iou=0.5, test_time=("flip",)))
    once = small_ssd(decoder=SSDDecoder(0.01, vote_iou=0.5))
    plain = small_ssd(decoder=SSDDecoder(0.01, test_time=("flip",)))
    for other in (once, plain):
        other.set_weights(detector.get_weights())
    images = contracts.batch_of(contracts.SQUARE, [3, 1])["image"]
    mirrored = once.detect_prepared(tf.reverse(images, [2]))
    top, left, bottom, right = tf.unstack(mirrored["boxes"], axis=-1)
    mirrored = {**mirrored, "boxes": tf.stack([top, 1 - right, bottom, 1 - left], axis=-1)}
    overlap = once.decoder.iou_threshold
    want = nms.merge_detections(once.detect_prepared(images), mirrored, overlap)
    found = detector.detect_prepared(images)
    for key, value in want.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
    assert np.abs(found["boxes"] - plain.detect_prepared(images)["boxes"]).max() > 0.01


class Sees(SSD):
    """A detector that finds what is white, as one box in the network's frame."""

    def call(self, images, training=False):
        self.seen = images
        return super().call(images, training=training)

    def decode(self, outputs, extent=None, **limits):
        white = tf.reduce_max(self.seen[0], axis=-1) > 0.5
        columns = np.flatnonzero(tf.reduce_any(white, axis=0))
        rows = np.flatnonzero(tf.reduce_any(white, axis=1))
        ends = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        box = [end / side for end, side in zip(ends, 2 * self.image_size, strict=True)]
        found = detections([box], [0.7], [0])
        return self.to_image_frame(found, extent)


def test_boxes_of_both_views_are_in_the_frame_of_an_image_with_padding():
    detector = small_ssd(
        decoder=SSDDecoder(test_time=("flip",)),
        preprocessing=Preprocessing(contracts.SQUARE, keep_aspect=True),
    )
    detector.__class__ = Sees
    images = np.zeros((1, 96, 96, 3), np.float32)
    images[0, 12:24, 24:48] = 1.0
    # The image covers the upper half of the input.
    found = detector.detect_prepared(tf.constant(images), tf.constant([[0.5, 1.0]]))
    assert int(found["count"][0]) == 1
    np.testing.assert_allclose(found["boxes"][0, 0], [0.25, 0.25, 0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda **settings: small_ssd(decoder=SSDDecoder(0.01, **settings)),
        lambda **settings: small_fpn(decoder=CenterNetDecoder(20, **settings)),
    ],
    ids=["ssd", "centernet"],
)
def test_evaluation_and_detect_look_as_often_as_the_decoder_says(build):
    detector = build(test_time=("flip",))
    batch = contracts.batch_of(contracts.SQUARE, [2, 0])
    found, _ = detection_step(detector)(batch)
    want = detector.detect_prepared(batch["image"], batch["extent"])
    np.testing.assert_allclose(found["scores"], want["scores"], atol=1e-5)
    once = build()
    once.set_weights(detector.get_weights())
    alone, _ = detection_step(once)(batch)
    assert not np.array_equal(found["scores"], alone["scores"])
    pixels = np.random.default_rng(0).integers(0, 255, (1, 96, 96, 3)).astype(np.uint8)
    prepared = detector.preprocessing(tf.constant(pixels))
    np.testing.assert_allclose(
        detector.detect(pixels)["scores"], detector.detect_prepared(prepared)["scores"], atol=1e-4
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda **settings: small_ssd(
            decoder=SSDDecoder(0.01, **settings),
            preprocessing=Preprocessing(contracts.SQUARE, keep_aspect=True),
        ),
        lambda **settings: small_fpn(decoder=CenterNetDecoder(20, **settings)),
    ],
    ids=["ssd, padded", "centernet"],
)
def test_other_sizes_are_looked_at_in_the_pixels_of_the_image(build, tmp_path):
    """`detect`, `predict` and an evaluation join what the same weights find at each size."""
    detector, size = build(test_time=(1.34,)), (128, 128)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 150, 210, 3)).astype(np.uint8)
    once = build()
    once.set_weights(detector.get_weights())
    larger = once.at_size(size)
    overlap = once.decoder.iou_threshold or 0.6
    wanted = nms.merge_detections(once.detect(pixels), larger.detect(pixels), overlap)
    found = detector.detect(pixels)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
    assert not np.array_equal(found["scores"], once.detect(pixels)["scores"])
    prepare, detect = fixed_size_step(detector, 2)
    batch = empty_batch(prepare, 2)
    assert [one.shape for one in batch] == [(2, 96, 96, 3), (2, 2), (2, *size, 3), (2, 2)]
    for slot, image in enumerate(pixels):
        for rows, value in zip(batch, prepare(image), strict=True):
            rows[slot] = value
    np.testing.assert_allclose(detect(*batch)["scores"], wanted["scores"], atol=1e-5)
    # Of prepared images alone, these are enlarged: not the same, but all shapes are right.
    blurred = detector.detect_prepared(detector.preprocessing(tf.constant(pixels)))
    assert blurred["boxes"].shape == wanted["boxes"].shape


def test_an_evaluation_has_views_of_its_images(tmp_path):
    write_data_set(tmp_path)
    detector = small_ssd(decoder=SSDDecoder(0.01, test_time=("flip", 0.67, 1.34)), num_classes=2)
    options = {"label_map": LABELS, "split": "coco_val", "batch_size": 3}
    options |= {"preprocess": detector.preprocessing, "views_of": detector.views_of}
    batches = list(evaluation_batches(str(tmp_path), **options))
    step = detection_step(detector)
    for batch in batches:
        assert [one[0].shape for one in batch["views"]] == [(3, 64, 64, 3), (3, 128, 128, 3)]
        found, _ = step(batch)
        assert np.isfinite(found["boxes"]).all()
    # A black image fills the last batch up.
    assert batches[-1]["source_id"].numpy().tolist()[2:] == [-1]
    plain = dict(options, views_of=small_ssd().views_of)
    assert "views" not in next(iter(evaluation_batches(str(tmp_path), **plain)))


def test_scales_that_give_no_other_size_are_refused():
    pixels = np.zeros((1, 96, 96, 3), np.uint8)
    for scales in ((1.1,), (1.3, 1.34)):
        detector = small_ssd(decoder=SSDDecoder(test_time=scales))
        with pytest.raises(ValueError, match="a view of that size already"):
            detector.detect(pixels)


def test_files_do_not_look_at_other_sizes(tmp_path):
    detector = small_ssd(decoder=SSDDecoder(test_time=("flip", 1.34)))
    with pytest.raises(ValueError, match="looks at each image at other sizes"):
        export(detector, tmp_path / "files", formats=["saved_model"])
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("decoder", [SSDDecoder, SigmoidSSDDecoder, CenterNetDecoder])
@pytest.mark.parametrize("value", ["flip", ("flop",), 1.5, (0.0,), (-1.5,), (1,), (True,)])
def test_other_words_are_refused(decoder, value):
    with pytest.raises(ValueError, match=rf"{decoder.__name__}.test_time is .*; expected \(\) or"):
        decoder(test_time=value)
