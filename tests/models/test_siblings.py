"""A detector at other sizes of images: the same weights, anchors of the same pixels."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.anchors import DefaultBoxes, MultiscaleAnchors
from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.necks import SSDExtraLevels, VGGExtraLevels
from ssd_centernet.models.quantized import Quantize, quantize
from ssd_centernet.models.ssd import SSD
from ssd_centernet.runtime.precision import policy_scope
from tests.layers.contract import random_maps
from tests.models import contracts
from tests.models.fcos import FCOS
from tests.models.test_centernet import small_fpn, small_hourglass
from tests.models.test_ssd import small_ssd
from tests.tiny import tiny_detector

OTHER = (160, 128)


def small_fcos() -> FCOS:
    backbone = small_ssd().backbone
    return FCOS(backbone, num_classes=contracts.NUM_CLASSES, image_size=contracts.SQUARE)


def pyramid(image_size=contracts.SQUARE) -> SSD:
    return small_ssd(
        image_size,
        neck=FPN(8, max_level=5),
        anchors=MultiscaleAnchors(max_level=5),
    )


@pytest.mark.parametrize(
    "build",
    [tiny_detector, pyramid, small_fpn, small_hourglass, small_fcos],
    ids=lambda f: f.__name__,
)
def test_what_trains_one_trains_the_other(build):
    detector = build()
    sibling = detector.at_size(OTHER)
    assert sibling.image_size == OTHER == sibling.preprocessing.image_size
    assert type(sibling) is type(detector) and sibling is detector.at_size(list(OTHER))
    assert detector.at_size(detector.image_size) is detector
    assert [id(v) for v in sibling.variables] == [id(v) for v in detector.variables]
    counts = [3, 1]
    batch = contracts.random_batch(OTHER, counts, num_classes=detector.num_classes, max_boxes=6)
    parts, gradients = contracts.losses_and_gradients(sibling, batch)
    contracts.assert_finite(parts, gradients)
    # What is kept with a detector is no part of it.
    assert len({id(v) for v in detector.variables}) == len(detector.variables)
    assert "sibling" not in str(detector.get_config())


def test_it_is_the_network_that_is_built_at_that_size():
    """A pyramid's anchors have the same pixels anyway, so that nothing at all may differ."""
    detector, built = pyramid(), pyramid(OTHER)
    built.set_weights(detector.get_weights())
    sibling = detector.at_size(OTHER)
    np.testing.assert_array_equal(sibling.anchor_boxes, built.anchor_boxes)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 200, 150, 3)).astype(np.uint8)
    for key, value in built.detect(pixels).items():
        np.testing.assert_array_equal(sibling.detect(pixels)[key], value, err_msg=key)
    batch = contracts.batch_of(OTHER, [3, 0])
    found, wanted = (one.compute_losses(one(batch["image"]), batch) for one in (sibling, built))
    for name, value in wanted.items():
        assert float(found[name]) == float(value), name


def test_default_boxes_keep_their_pixels():
    layer = DefaultBoxes(clip=False)
    other = layer.at_size((600, 450), before=(300, 300))
    cells = [(2, 2)] * 6
    boxes, others = (
        one.generate(size, cells) * np.tile(size, 2)
        for one, size in ((layer, (300, 300)), (other, (600, 450)))
    )
    for side in (0, 1):
        sizes, other_sizes = (one[:, side + 2] - one[:, side] for one in (boxes, others))
        np.testing.assert_allclose(other_sizes, sizes, rtol=1e-5)
    # Cells lie evenly over the other image, whatever steps were published for the first.
    centers = (others[:, :2] + others[:, 2:]) / 2
    np.testing.assert_allclose(np.unique(centers[:, 0].round(2)), [150.0, 450.0])
    in_pixels = other.generate_in_pixels((600, 450), cells)
    np.testing.assert_allclose(in_pixels, others, atol=1e-3)


@pytest.mark.parametrize("neck", [SSDExtraLevels, VGGExtraLevels])
@pytest.mark.parametrize("side", [19, 16, 12, 8])
def test_levels_of_smaller_images_have_a_cell_at_least(neck, side):
    layer = neck()
    layer(random_maps(38, 19))
    levels = layer(random_maps(2 * side, side))
    assert min(levels[-1].shape[1:3]) >= 1
    alone = neck()
    alone(random_maps(2 * side, side))
    alone.set_weights(layer.get_weights())
    if side == 19:
        assert levels[-1].shape[1:3] == (1, 1)
    for one, other in zip(levels, alone(random_maps(2 * side, side)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_another_decoder_or_preprocessing_is_that_of_the_sibling_too():
    detector = tiny_detector()
    first = detector.at_size(OTHER)
    detector.decoder = SSDDecoder(0.3)
    second = detector.at_size(OTHER)
    assert first is not second and second.decoder is detector.decoder


def test_half_precision_is_that_of_the_detector():
    with policy_scope("bf16"):
        detector = tiny_detector()
    assert detector.at_size(OTHER).dtype_policy.name == detector.dtype_policy.name != "float32"


def test_sizes_that_layers_cannot_take_are_told():
    with pytest.raises(ValueError, match=r"CenterNet for images of \(96, 96\) pixels has no form"):
        small_fpn().at_size((98, 96))
    detector = tiny_detector()
    quantize(detector, Quantize())
    with pytest.raises(ValueError, match="build_detector.quantize"):
        detector.at_size(OTHER)


def test_nothing_of_it_is_saved(tmp_path):
    detector = tiny_detector()
    names = [v.name for v in detector.variables]
    detector.at_size(OTHER)
    tf.train.Checkpoint(model=detector).write(str(tmp_path / "saved"))
    keys = dict(tf.train.list_variables(str(tmp_path / "saved")))
    values = [key for key in keys if key.endswith("VARIABLE_VALUE") and "save_counter" not in key]
    assert len(values) == len(names)
