"""compile, fit, evaluate and .keras files: the same step as the trainer's, and what is refused."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet
from ssd_centernet._keras import keras
from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.normalization import norms_of, warm_up_averages
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.moving_statistics import estimate_statistics
from ssd_centernet.runtime.precision import policy_scope
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate
from ssd_centernet.weights import restore
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

SETTINGS = {"weight_decay": 0.05, "clip_norm": 2.0, "freeze": ("stem_",)}
OTHER_KERAS = pytest.importorskip("keras")
needs_another_keras = pytest.mark.skipif(
    OTHER_KERAS.__version__.startswith("2."), reason="the package keras is Keras 2, as ours"
)


def batches(count=3):
    """A data set of `count` different batches of the same images every time."""
    made = [tiny_batch(seed) for seed in range(count)]
    stacked = {name: tf.stack([one[name] for one in made]) for name in made[0]}
    return tf.data.Dataset.from_tensor_slices(stacked)


def fresh(seed=0):
    keras.utils.set_random_seed(seed)
    return tiny_detector()


def values(detector):
    return {v.name: v.numpy() for v in detector.variables}


@pytest.fixture(scope="module")
def fitted():
    """A detector after an epoch of three steps, and the history of them."""
    detector = fresh()
    detector.compile(Momentum(0.9, learning_rate=0.01), **SETTINGS)
    return detector, detector.fit(batches(), verbose=0, validation_data=batches(1)).history


def test_fit_trains_as_the_trainer_does(fitted):
    detector, history = fitted
    trainer = tiny_trainer(fresh(), schedule=ConstantRate(0.01), **SETTINGS)
    assert warm_up_averages(trainer.detector, lambda: trainer.step, 3) > 0
    step, losses = tf.function(trainer.train_step), []
    for batch in batches():
        losses.append({name: float(value) for name, value in step(batch).items()})
    start, got = values(fresh()), values(detector)
    for name, want in values(trainer.detector).items():
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-7, err_msg=name)
        frozen = name.startswith("stem_") and "moving" not in name
        assert np.array_equal(want, start[name]) == frozen, name
    for ours, theirs in {"loss": "total", "class": "class", "box": "box"}.items():
        mean = np.mean([one[theirs] for one in losses])
        assert history[ours] == [pytest.approx(mean, rel=1e-5)]
    # Clipping took part.
    assert max(one["gradient_norm"] for one in losses) > SETTINGS["clip_norm"]


def test_validation_is_the_loss_of_inference(fitted):
    detector, history = fitted
    (batch,) = batches(1)
    parts = detector.compute_losses(detector(batch["image"], training=False), batch)
    assert history["val_class"] == [pytest.approx(float(parts["class"]), rel=1e-5)]
    assert history["val_loss"] == [pytest.approx(float(detector.total_loss(parts)), rel=1e-5)]
    assert detector.evaluate(batches(1), verbose=0, return_dict=True) == {
        name: pytest.approx(history[f"val_{name}"][0]) for name in ("loss", "class", "box")
    }


def test_averages_that_have_not_arrived_are_estimated_for_a_validation():
    detector = fresh()
    detector.compile(Momentum(0.9, learning_rate=1e-12))
    with pytest.warns(UserWarning, match="hold 10 % of their beginning still: .* on 3 batches"):
        options = {"steps_per_epoch": 1, "verbose": 0, "validation_data": batches(1)}
        history = detector.fit(batches(), **options).history
    # Training goes on with its own averages, and nothing else has changed.
    own = [norm.moving_mean.numpy() for norm in norms_of(detector)]
    assert detector.evaluate(batches(1), verbose=0)[0] != pytest.approx(history["val_loss"][0])
    estimate_statistics(detector, norms_of(detector), batches())
    assert not np.allclose(own[0], norms_of(detector)[0].moving_mean)
    got = detector.evaluate(batches(1), verbose=0)[0]
    assert got == pytest.approx(history["val_loss"][0], rel=1e-5)


def test_means_count_images_alike():
    detector = fresh()
    detector.compile("sgd")
    one, three = tiny_batch(1, size=1), tiny_batch(2, size=3)
    spec = {name: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for name, v in one.items()}
    joined = tf.data.Dataset.from_generator(lambda: [one, three], output_signature=spec)
    losses = [detector.test_on_batch(batch) for batch in (one, three)]
    mean = (losses[0][0] + 3 * losses[1][0]) / 4
    # Shapes differ from batch to batch, as those of the last one in an epoch do.
    assert detector.evaluate(joined, verbose=0)[0] == pytest.approx(mean, rel=1e-5)


def test_a_keras_file_goes_on_where_fit_stopped(fitted, tmp_path):
    detector, _ = fitted
    path = tmp_path / "detector.keras"
    detector.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.get_compile_config() == detector.get_compile_config()
    assert int(loaded.optimizer.iterations) == int(detector.optimizer.iterations)
    for model in (twin := keras.models.load_model(path), loaded):
        model.fit(batches(2), verbose=0)
    compared = values(twin)
    for name, value in values(loaded).items():
        np.testing.assert_array_equal(value, compared[name])
    # With the accumulators of momentum, not afresh.
    without = keras.models.load_model(path, compile=False)
    without.compile(Momentum(0.9, learning_rate=0.01), **SETTINGS)
    without.fit(batches(2), verbose=0)
    kernel = "head/box0/kernel:0"
    assert not np.allclose(values(without)[kernel], compared[kernel], rtol=1e-4, atol=0)


def test_a_keras_file_starts_a_training(fitted, tmp_path):
    detector, _ = fitted
    detector.save(tmp_path / "notebook.keras")
    begun = fresh(seed=5)
    table = restore(begun, tmp_path / "notebook.keras", kind="full")
    assert len(table.restored) == len(detector.variables)
    expected = values(detector)
    for name, value in values(begun).items():
        np.testing.assert_array_equal(value, expected[name])
    detector.save_weights(tmp_path / "nameless.weights.h5")
    with pytest.raises(ValueError, match=r"save_weights: it has no names.*NAME\.keras"):
        restore(begun, tmp_path / "nameless.weights.h5")


def test_a_keras_file_of_other_classes_gives_those_that_both_know(tmp_path):
    first, second = (
        ssd_centernet.SSD.from_config({**fresh(seed).get_config(), "class_names": names})
        for seed, names in ((1, ("a", "b")), (2, ("b", "c")))
    )
    fresh_rows, saved = class_rows(second), class_rows(first)
    first.save(tmp_path / "first.keras")
    restore(second, tmp_path / "first.keras")
    rows = class_rows(second)
    np.testing.assert_array_equal(rows[..., 0], saved[..., 0])  # Background.
    np.testing.assert_array_equal(rows[..., 1], saved[..., 2])
    np.testing.assert_array_equal(rows[..., 2], fresh_rows[..., 2])


def class_rows(detector):
    kernel = values(detector)["head/class0/kernel:0"]
    return kernel.reshape(*kernel.shape[:3], -1, 3)


def test_half_precision_scales_the_loss_and_trains(tmp_path):
    with policy_scope("fp16"):
        detector = fresh()
    detector.compile(Momentum(0.9, learning_rate=0.01), weight_decay=0.05)
    before = values(detector)
    # The first steps overflow, and change nothing, until the scale has been halved a few times.
    history = detector.fit(batches(10), verbose=0).history
    assert history["loss"][0] < 100  # What is shown is not scaled.
    scale = float(detector.optimizer.loss_scale)
    assert 1 < scale < detector.optimizer.initial_scale
    detector.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert float(loaded.optimizer.loss_scale) == scale
    models = (detector, loaded)
    compute = [{layer.compute_dtype for layer in model._flatten_layers()} for model in models]
    assert compute[0] == compute[1] >= {"float16", "float32"}
    assert keras.mixed_precision.global_policy().name == "float32"
    image = tiny_batch()["image"]
    for one, other in zip(*(model(image).values() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    trained = {v.name for v in loaded.trainable_variables}
    after = values(loaded)
    assert [name for name in trained if np.array_equal(after[name], before[name])] == []


def test_centernet_fits_ground_truth_without_marks():
    keras.utils.set_random_seed(0)
    detector = ssd_centernet.CenterNet(
        ResNet((1,), widths=(8,), strides=(1,), stem_width=8),
        num_classes=3,
        image_size=(64, 64),
        head=functools.partial(CenterNetHead, width=16),
        preprocessing=Preprocessing((64, 64)),
    )
    detector.compile(keras.optimizers.Adam(1e-2))
    bare = {
        "image": np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32),
        "boxes": np.array([[[0.2, 0.2, 0.7, 0.7]], [[0.1, 0.4, 0.5, 0.9]]]),
        "classes": np.array([[1], [2]]),
    }
    history = detector.fit(tf.data.Dataset.from_tensors(bare), epochs=6, verbose=0).history
    assert set(history) == {"loss", "center", "offset", "size"}
    assert history["loss"][-1] < 0.7 * history["loss"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": tf.constant([[[20.0, 20.0, 40.0, 40.0]]] * 2)}, "not fractions"),
        ({"classes": tf.constant([[1], [2]])}, r"must be in 0\.\.1 for num_classes=2"),
        ({"classes": tf.constant([[-1], [0]])}, "has a number below 0"),
    ],
    ids=["pixels", "class-beyond", "class-below"],
)
def test_ground_truth_out_of_range_is_named(fitted, changes, message):
    batch = {**tiny_batch(), **changes}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        fitted[0].train_step(batch)
    # Rows that are padding hold what they like.
    fitted[0].test_step({**batch, "valid": tf.zeros([2, 1], tf.bool)})


@pytest.mark.parametrize(
    ("keep", "changes", "message"),
    [
        (("boxes",), {}, "no 'image'"),
        (("image",), {}, "no 'boxes' and no 'classes'"),
        ((), {"image": tf.zeros([2, 64, 64, 3], tf.uint8)}, "is uint8;.*preprocessing"),
        ((), {"image": tf.zeros([2, 32, 64, 3])}, r"\(2, 32, 64, 3\), .* takes \(None, 64, 64"),
    ],
    ids=["no-image", "no-truth", "uint8", "size"],
)
def test_batches_that_are_none_are_refused(fitted, keep, changes, message):
    batch = tiny_batch()
    batch = {**{name: batch[name] for name in keep or batch}, **changes}
    with pytest.raises(ValueError, match=message):
        fitted[0].fit(tf.data.Dataset.from_tensors(batch))


def test_what_is_no_data_set_is_refused(fitted):
    image = tf.zeros([2, 64, 64, 3])
    with pytest.raises(ValueError, match="a batch is a tuple"):
        fitted[0].fit(tf.data.Dataset.from_tensors((image, image)))
    with pytest.raises(ValueError, match="got a y"):
        fitted[0].fit(image, image)
    with pytest.raises(ValueError, match="validation_data is a list"):
        fitted[0].fit(batches(1), validation_data=[image])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "mse"}, TypeError, "no 'loss': the loss is the detector's own"),
        ({"metrics": ["accuracy"]}, TypeError, "evaluate computes AP"),
        ({"optimiser": "adam"}, TypeError, "its arguments are optimizer"),
        ({"optimizer": keras.optimizers.Adam}, TypeError, "Adam, a class; expected an object"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay=-1.0"),
        ({"freeze": "stm_"}, ValueError, "'stm_' in train.freeze matches no"),
        ({"decay_exclude": "nrom/"}, ValueError, "matches no variable"),
    ],
)
def test_compile_refuses(settings, error, message):
    with pytest.raises(error, match=message):
        tiny_detector().compile(**settings)


def test_fit_asks_for_compile_first():
    with pytest.raises(RuntimeError, match=r"not compiled, .* call detector\.compile\("):
        tiny_detector().fit(tf.data.Dataset.from_tensors(tiny_batch()))


def test_a_rate_of_zero_is_warned_of():
    with pytest.warns(UserWarning, match=r"rate 0.*learning_rate=1e-3"):
        tiny_detector().compile(Momentum())


@needs_another_keras
def test_objects_of_another_keras_are_refused(fitted):
    advice = "from ssd_centernet import keras, then keras"
    with pytest.raises(TypeError, match=f"Adam belongs to another Keras.*{advice}.optimizers"):
        fitted[0].compile(OTHER_KERAS.optimizers.Adam())
    with pytest.raises(TypeError, match=f"{advice}.callbacks.EarlyStopping"):
        fitted[0].fit(batches(1), callbacks=[OTHER_KERAS.callbacks.EarlyStopping()])
    with pytest.raises(ValueError, match=f"SSD.neck: .*{advice}.layers"):
        ssd_centernet.SSD(fitted[0].backbone, num_classes=2, neck=OTHER_KERAS.layers.ReLU())
    with pytest.raises(ValueError, match="SSD.backbone: .*Sequential belongs to another Keras"):
        ssd_centernet.SSD(OTHER_KERAS.Sequential(), num_classes=2)


@pytest.fixture(scope="module")
def refusing():
    """A detector that is asked for what it refuses, and must be usable afterwards."""
    detector = fresh()
    detector.compile(Momentum(0.9, learning_rate=0.01))
    yield detector
    assert np.isfinite(detector.fit(batches(1), verbose=0).history["loss"]).all()


BOXES = tf.constant([[[0.2, 0.2, 0.7, 0.7]]] * 2)
PIXELS = {"boxes": BOXES * 64}
BEYOND = {"classes": tf.constant([[0], [2]])}
BELOW = {"classes": tf.constant([[-1], [0]])}
# Rows of zeros that nothing marks as padding.
PADDED = {
    "boxes": tf.pad(BOXES, [[0, 0], [0, 1], [0, 0]]),
    "classes": tf.zeros([2, 2], tf.int32),
    "valid": tf.ones([2, 2], tf.bool),
}


def refusal(detector, given):
    with pytest.raises(ValueError) as refused:
        detector.fit(given, verbose=0)
    sentence = str(refused.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": tf.random.uniform([2, 64, 64, 3], 0, 255, seed=1)},
            "is not normalised: its num",
        ),
        (
            {"image": tf.random.uniform([2, 64, 64, 3], seed=1)},
            r"lie in .*, those .* -2\.118\.\.2\.64",
        ),
        ({"image": tf.fill([2, 64, 64, 3], np.nan)}, "not finite"),
        (
            PIXELS,
            r"box 0 of image 0 is \[12\.8, 12\.8, 44\.8, 44\.8\]; divide pixels",
        ),
        ({"boxes": BOXES * np.nan}, "are not fractions: box 0 of image 0"),
        ({"boxes": BOXES[..., ::-1]}, "end before they begin: box 0 of image 0"),
        (PADDED, r"without area: box 1 of image 0 is \[0, 0, 0, 0\]; .* give 'valid'"),
        ({"boxes": BOXES[0]}, r"has shape \(1, 4\), 'classes' \(2, 1\)"),
        (BEYOND, r"must be in 0\.\.1 for num_classes=2, .*, got 2"),
        (BELOW, "got -1; mark padding in 'valid'"),
    ],
)
def test_values_of_a_first_batch_that_mean_something_else_are_refused(refusing, changes, message):
    batch = {**tiny_batch(), **changes}
    for given in (tf.data.Dataset.from_tensors(batch), iter([batch])):
        assert re.search(message, refusal(refusing, given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (PIXELS, "'boxes' of a batch are not fractions: .* The largest number is 44.8"),
        (BEYOND, "'classes' of a batch must be in 0..1 .* The largest is 2"),
        (BELOW, "'classes' of a batch has a number below 0"),
        ({"boxes": BOXES[..., ::-1]}, "one without area, or one that ends before it begins"),
        ({"boxes": BOXES * [1, 1, 1, 0] + [0, 0, 0, 0.2]}, "one without area"),
    ],
)
def test_a_later_batch_is_refused_in_one_sentence_too(refusing, changes, message):
    good, bad = (tf.data.Dataset.from_tensors({**tiny_batch(), **more}) for more in ({}, changes))
    assert re.search(message, refusal(refusing, good.concatenate(bad)))


def test_a_generator_is_trained_on_from_its_first_batch():
    losses = []
    for given in (batches(3), iter([tiny_batch(seed) for seed in range(3)])):
        detector = fresh()
        detector.compile(Momentum(0.9, learning_rate=0.01))
        losses.append(detector.fit(given, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_plain_and_dark_pictures_are_not_taken_for_unnormalised(refusing):
    for level in (0, 130, 255):
        picture = refusing.preprocessing(tf.fill([2, 30, 40, 3], tf.cast(level, tf.uint8)))
        refusing.evaluate(
            tf.data.Dataset.from_tensors({**tiny_batch(), "image": picture}), verbose=0
        )
