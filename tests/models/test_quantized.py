"""A detector that rounds to 8 bits: what it computes, what it learns, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import norms_of
from ssd_centernet.models.quantized import RANGES_NAME, Quantize, has_ranges, quantize
from ssd_centernet.models.rematerialized import rematerialize
from ssd_centernet.ops import fake_quantization as fake
from ssd_centernet.runtime.precision import policy_scope
from tests.export.lively import lively_detector
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

# Of each kind, with depthwise convolutions, a pyramid, shared kernels and several maps.
RECIPES = ["ssd300_vgg16", "ssd320_efficientnet_lite0", "centernet_hourglass20"]


def inputs_of(detector, count=2):
    rng = np.random.default_rng(4)
    pixels = tf.cast(tf.image.resize(rng.integers(0, 256, (count, 9, 9, 3)), (64, 64)), tf.uint8)
    return detector.preprocessing(pixels)


def flat(outputs):
    return [value.numpy() for value in tf.nest.flatten(outputs)]


@pytest.fixture(scope="module", params=RECIPES)
def rounded(request):
    """A detector, its input, and its outputs before it was quantized."""
    detector = lively_detector(request.param)
    images = inputs_of(detector)
    # Whole grey levels, as a device sees them.
    before = flat(detector(images, training=False))
    quantize(detector, Quantize())
    return detector, images, before


def test_nothing_is_rounded_before_a_batch_was_seen(rounded):
    detector, images, before = rounded
    detector.quantized.ranges.assign(tf.zeros_like(detector.quantized.ranges))
    assert not has_ranges(detector)
    for ours, theirs in zip(flat(detector(images, training=False)), before, strict=True):
        # Batch norms are folded, which rounds another way.
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.std(theirs))


def test_outputs_have_256_values_near_the_exact_ones(rounded):
    detector, images, before = rounded
    moving = [v.numpy() for v in detector.non_trainable_variables if "moving" in v.name]
    detector(images, training=True)
    assert has_ranges(detector)
    for ours, theirs in zip(flat(detector(images, training=False)), before, strict=True):
        assert 1e-4 < np.std(ours - theirs) / np.std(theirs) < 0.35
    after = [v.numpy() for v in detector.non_trainable_variables if "moving" in v.name]
    for one, other in zip(moving, after, strict=True):
        np.testing.assert_array_equal(one, other)
    maps = detector.quantized.maps(tf.zeros([1, *detector.image_size, 3]))
    assert all(1 < len(np.unique(value)) <= 256 for value in maps.values())


def test_every_weight_is_trained(rounded):
    detector, images, _ = rounded
    with tf.GradientTape() as tape:
        outputs = detector(images, training=True)
        # Of another sign in each place, so that no sums of normalised maps cancel.
        total = tf.add_n([tf.reduce_sum(tf.sin(value)) for value in tf.nest.flatten(outputs)])
    gradients = tape.gradient(total, detector.trainable_variables)
    for variable, gradient in zip(detector.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        assert np.all(np.isfinite(gradient)), variable.name
    assert sum(bool(np.any(gradient)) for gradient in gradients) > 0.95 * len(gradients)


def test_ranges_follow_the_batches():
    detector = tiny_detector()
    quantize(detector, Quantize(momentum=0.75))
    images = inputs_of(detector)
    network = detector.quantized
    detector(images, training=True)
    first = network.ranges.numpy()
    assert np.all(first[:, 0] <= 0.0) and np.all(first[:, 1] >= 0.0)
    # The last norm of a block begins with a factor of 0, and its map has no range yet.
    assert np.count_nonzero(np.ptp(first, axis=1)) == len(first) - 1
    # The first one is of the stem, which sees the same numbers whatever follows.
    darker = images * 0.5
    other = tiny_detector()
    other.set_weights([v for v in detector.get_weights() if v.shape != first.shape])
    quantize(other, Quantize())
    other(darker, training=True)
    wanted = 0.75 * first[0] + 0.25 * other.quantized.ranges.numpy()[0]
    detector(darker, training=True)
    np.testing.assert_allclose(network.ranges.numpy()[0], wanted, rtol=1e-5)
    # Detecting moves nothing.
    kept = network.ranges.numpy()
    detector(images, training=False)
    np.testing.assert_array_equal(network.ranges.numpy(), kept)


def test_one_convolution_by_hand():
    """The stem with its batch norm, its activation and its own rounding, in NumPy's words."""
    detector = tiny_detector()
    rng = np.random.default_rng(0)
    for variable in detector.backbone.variables:
        if "moving_variance" in variable.name or "gamma" in variable.name:
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif "moving_mean" in variable.name or "beta" in variable.name:
            variable.assign(rng.normal(0.0, 0.2, variable.shape))
    quantize(detector, Quantize())
    images = inputs_of(detector)
    detector(images, training=True)
    network = detector.quantized
    name = network._graph.points[0]
    stem = {v.name.split("/")[-1]: v.numpy() for v in detector.backbone.variables[:5]}
    factor = stem["gamma:0"] / np.sqrt(stem["moving_variance:0"] + 1e-5)
    kernel = stem["kernel:0"] * factor
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    kernel = np.round(kernel / largest * 127) * largest / 127
    # The input: 256 numbers between the normalised black and white of all channels.
    mean, std = np.float64(detector.preprocessing.mean), np.float64(detector.preprocessing.std)
    scale = detector.preprocessing.scale
    ends = np.array([-(mean / std).max(), ((255 / scale - mean) / std).max()])
    step = np.ptp(ends) / 255
    low = -np.round(-ends[0] / step) * step
    given = np.round((images.numpy() - low) / step) * step + low
    padded = np.pad(given, ((0, 0), (3, 3), (3, 3), (0, 0)))
    wanted = tf.nn.conv2d(np.float32(padded), np.float32(kernel), 2, "VALID").numpy()
    wanted = np.maximum(wanted + stem["beta:0"] - stem["moving_mean:0"] * factor, 0.0)
    from ssd_centernet.models import quantized

    run = quantized._Run(network)
    run.compute(quantized._pixels(detector.preprocessing, images))
    got, high = run.values[name].numpy(), network.ranges.numpy()[0, 1]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(wanted.max(), high, rtol=1e-4)
    steps = np.abs(got - wanted) / (high / 255)
    assert steps.max() < 0.6


def test_scales_are_powers_of_two_where_asked():
    detector = tiny_detector()
    quantize(detector, Quantize(power_of_two=True, symmetric=True))
    detector(inputs_of(detector), training=True)
    limits = fake.map_limits(detector.quantized.ranges, power_of_two=True, symmetric=True).numpy()
    exponents = np.log2(limits[:, 1] / 127)
    np.testing.assert_array_equal(exponents, np.round(exponents))
    for value in detector.quantized.maps(tf.zeros([1, 64, 64, 3])).values():
        steps = np.unique(value) * 2.0**12
        np.testing.assert_array_equal(steps, np.round(steps))


def test_a_step_trains_it_and_the_same_seed_gives_the_same(tmp_path):
    def trained():
        keras.utils.set_random_seed(2)
        detector = tiny_detector()
        quantize(detector, Quantize())
        trainer = tiny_trainer(detector)
        step = tf.function(trainer.train_step, autograph=False)
        losses = [float(step(tiny_batch())["total"]) for _ in range(6)]
        return losses, flat(detector.variables)

    losses, first = trained()
    assert losses[-1] < losses[0]
    for one, other in zip(first, trained()[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_keras_keeps_settings_and_ranges(tmp_path):
    detector = tiny_detector()
    quantize(detector, Quantize(power_of_two=True))
    images = inputs_of(detector)
    detector(images, training=True)
    detector.save(tmp_path / "detector.keras")
    again = keras.models.load_model(tmp_path / "detector.keras")
    assert again.quantized.settings == Quantize(power_of_two=True)
    for ours, theirs in zip(flat(again(images)), flat(detector(images)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_its_variables_and_norms_are_known():
    detector = tiny_detector()
    before = [v.name for v in detector.variables]
    assert norms_of(detector)
    quantize(detector, Quantize())
    assert [v.name for v in detector.variables] == [*before, f"{RANGES_NAME}:0"]
    assert all(RANGES_NAME not in v.name for v in detector.trainable_variables)
    # Statistics that do not move are not waited for, estimated or joined.
    assert norms_of(detector) == []


def test_refusals():
    with pytest.raises(ValueError, match="Quantize.momentum is 1.5, expected a number from 0"):
        Quantize(momentum=1.5)
    with pytest.raises(ValueError, match="Quantize.symmetric is 'yes', expected True or False"):
        Quantize(symmetric="yes")
    with pytest.raises(ValueError, match=r"build_detector.quantize is 'int8', expected None, or"):
        quantize(tiny_detector(), "int8")
    with policy_scope("bf16"), pytest.raises(ValueError, match="computes in mixed_bfloat16"):
        quantize(tiny_detector(), Quantize())
    detector = tiny_detector()
    quantize(detector, None)
    assert detector.quantized is None
    quantize(detector, Quantize())
    with pytest.raises(ValueError, match="is quantized already"):
        quantize(detector, Quantize())
    with pytest.raises(ValueError, match="no ranges: it was not trained with it"):
        detector.quantized.maps(tf.zeros([1, 64, 64, 3]))
    with pytest.raises(ValueError, match="train.rematerialize is True, but a detector with"):
        rematerialize(detector, True)


def test_an_operation_without_a_form_of_integers_is_named():
    inputs = keras.Input((None, None, 3))
    outputs = {
        "3": keras.layers.Activation("elu", name="odd")(
            keras.layers.Conv2D(4, 3, 8, padding="same")(inputs)
        )
    }
    from tests.models.test_rematerialized import ssd_on

    detector = ssd_on(keras.Model(inputs, outputs))
    with pytest.raises(ValueError, match=r"odd/Elu \(Elu\) has no form of 8-bit integers"):
        quantize(detector, Quantize())
