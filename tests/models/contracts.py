"""What every detector must hold; a detector's test class derives from `DetectorContract`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.data.fake import random_batch
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.matches import UNMATCHED
from ssd_centernet.runtime import precision

NUM_CLASSES = 3
SQUARE = (96, 96)
WIDE = (256, 416)


def batch_of(image_size, counts, *, max_boxes=6, **options) -> dict[str, tf.Tensor]:
    """Make a padded batch with `counts[i]` objects in image i."""
    return random_batch(image_size, counts, num_classes=NUM_CLASSES, max_boxes=max_boxes, **options)


def losses_and_gradients(detector: Detector, batch: dict) -> tuple[dict, list]:
    """Run one forward and backward pass in training mode."""
    with tf.GradientTape() as tape:
        outputs = detector(batch["image"], training=True)
        parts = detector.compute_losses(outputs, batch)
        total = detector.total_loss(parts)
    return parts, tape.gradient(total, detector.trainable_variables)


def assert_finite(parts: dict, gradients: list) -> None:
    """Check that losses are finite float32 scalars and that every variable has a gradient."""
    for name, part in parts.items():
        assert part.dtype == tf.float32 and part.shape == (), name
        assert np.isfinite(part), (name, float(part))
    for gradient in gradients:
        assert gradient is not None
        assert np.all(np.isfinite(gradient))


def _as_written(settings: dict) -> dict:
    """Settings as a file has them: Keras 2.15 keeps the lists of JSON where 2.20 makes tuples."""
    return json.loads(json.dumps(settings))


@functools.cache
def _built(contract: type[DetectorContract]) -> tuple[Detector, list[np.ndarray]]:
    """Build the detector of a class of tests; return with it what training moves by itself.

    It has seen one batch in training: before, all scores of some networks are as good as equal,
    and the last bit decides which of them are detected.
    """
    keras.utils.set_random_seed(1)
    detector = contract().build()
    detector(batch_of(detector.image_size, [0, 0])["image"], training=True)
    return detector, [variable.numpy() for variable in detector.non_trainable_variables]


class DetectorContract:
    """Tests that do not know what an anchor or a heatmap is.

    Derived classes give `build` and, where they like, the class attributes.
    """

    # Settings of `build` that change how crowd regions are treated.
    crowd_modes: tuple[str, ...] = ()
    # A pattern that matches some, not all, trainable variables.
    freeze_pattern = "stem_"

    def build(self, image_size: tuple[int, int] = SQUARE, **settings) -> Detector:
        """Build a small detector of NUM_CLASSES classes with fresh weights."""
        raise NotImplementedError

    @pytest.fixture
    def detector(self) -> Iterator[Detector]:
        """One detector for all tests of a class: building is what takes time."""
        detector, moved = _built(type(self))
        yield detector
        # Whatever a test was, the next one sees the same network.
        for variable, value in zip(detector.non_trainable_variables, moved, strict=True):
            variable.assign(value)

    def test_raw_outputs_have_static_shapes_and_are_float32(self, detector):
        outputs = tf.nest.flatten(detector.output)
        assert outputs
        for output in outputs:
            assert output.dtype == tf.float32
            assert output.shape[0] is None and all(output.shape[1:])
        assert detector.input_shape == (None, *detector.image_size, 3)

    def test_decoded_detections_keep_their_contract(self, detector):
        outputs = detector(batch_of(SQUARE, [0, 0])["image"])
        found = detector.decode(outputs)
        assert sorted(found) == ["boxes", "classes", "count", "scores"]
        size = found["scores"].shape[1]
        assert found["boxes"].shape == (2, size, 4)
        assert found["classes"].dtype == found["count"].dtype == tf.int32
        assert found["count"].shape == (2,)
        scores = found["scores"].numpy()
        assert np.all(np.diff(scores, axis=1) <= 0)
        assert np.all((found["classes"] >= 0) & (found["classes"] < NUM_CLASSES))
        beyond = np.arange(size) >= found["count"].numpy()[:, None]
        assert not np.any(scores[beyond])

    def test_config_round_trip_gives_the_same_initial_weights(self, detector):
        keras.utils.set_random_seed(1)
        again = type(detector).from_config(detector.get_config())
        assert again.get_config() == detector.get_config()
        keras.utils.set_random_seed(1)
        fresh = self.build()
        assert [v.name for v in again.variables] == [v.name for v in fresh.variables]
        assert [v.trainable for v in again.variables] == [v.trainable for v in fresh.variables]
        for left, right in zip(again.variables, fresh.variables, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=left.name)

    def test_save_and_load_give_equal_outputs(self, detector, tmp_path):
        path = tmp_path / "detector.keras"
        detector.save(path)
        loaded = keras.models.load_model(path)
        assert type(loaded) is type(detector)
        assert _as_written(loaded.get_config()) == _as_written(detector.get_config())
        batch = batch_of(SQUARE, [2, 1])
        for left, right in zip(
            tf.nest.flatten(detector(batch["image"])),
            tf.nest.flatten(loaded(batch["image"])),
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)
        losses = [
            model.compute_losses(model(batch["image"]), batch) for model in (detector, loaded)
        ]
        assert losses[0].keys() == losses[1].keys()
        for name, part in losses[0].items():
            assert float(part) == float(losses[1][name])
        for variable in loaded.variables:
            variable.assign(tf.zeros_like(variable))
        detector.save_weights(tmp_path / "detector.weights.h5")
        loaded.load_weights(tmp_path / "detector.weights.h5")
        for left, right in zip(detector.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=left.name)

    def test_losses_are_finite_with_and_without_objects(self, detector):
        parts, gradients = losses_and_gradients(detector, batch_of(SQUARE, [3, 0, 1]))
        assert_finite(parts, gradients)
        assert float(detector.total_loss(parts)) > 0
        assert any(np.any(gradient) for gradient in gradients)
        assert set(parts) == set(detector.loss_weights)

    def test_empty_batch_is_finite(self, detector):
        assert_finite(*losses_and_gradients(detector, batch_of(SQUARE, [0, 0])))

    def test_all_crowd_batch_is_finite_in_every_mode(self):
        for mode in self.crowd_modes:
            batch = batch_of(SQUARE, [3, 1])
            batch["is_crowd"] = tf.ones_like(batch["is_crowd"])
            detector = self.build(crowd=mode)
            assert_finite(*losses_and_gradients(detector, batch))

    def test_total_is_the_weighted_sum(self, detector):
        parts = {name: tf.constant(2.0) for name in detector.loss_weights}
        want = 2.0 * sum(detector.loss_weights.values())
        assert float(detector.total_loss(parts)) == pytest.approx(want)

    def test_padding_changes_nothing(self, detector):
        few = batch_of(SQUARE, [2, 3], max_boxes=4)
        outputs = detector(few["image"])
        many = dict(few)
        for key in ("boxes", "classes", "is_crowd", "valid"):
            margin = [[0, 0], [0, 5]] + [[0, 0]] * (few[key].shape.rank - 2)
            many[key] = tf.pad(few[key], margin)
        for name, part in detector.compute_losses(outputs, few).items():
            assert float(part) == float(detector.compute_losses(outputs, many)[name])

    def test_targets_of_the_pipeline_equal_those_of_the_device(self, detector):
        batch = batch_of(SQUARE, [2, 0, 6, 1])
        keys = ("boxes", "classes", "is_crowd")
        fields = {key: batch[key] for key in (*keys, "valid")}

        def of_one_image(image):
            rows = tf.where(image["valid"])[:, 0]
            return detector.make_targets(*(tf.gather(image[key], rows) for key in keys))

        dataset = tf.data.Dataset.from_tensor_slices(fields).map(of_one_image).batch(4)
        for spec in tf.nest.flatten(dataset.element_spec):
            assert all(spec.shape[1:]) or spec.shape.rank == 1
        (made,) = list(dataset)
        there = detector.make_targets(*(batch[key] for key in (*keys, "valid")))
        assert made.keys() == there.keys()
        for key, value in there.items():
            if value.dtype.is_integer:
                np.testing.assert_array_equal(made[key], value, err_msg=key)
            else:
                # Vectorised logarithms of few and of many numbers may differ in the last bit.
                np.testing.assert_allclose(made[key], value, rtol=1e-6, atol=1e-6, err_msg=key)
        outputs = detector(batch["image"])
        with_targets = detector.compute_losses(outputs, {"image": batch["image"], "targets": made})
        for name, part in detector.compute_losses(outputs, batch).items():
            assert float(part) == pytest.approx(float(with_targets[name]), rel=1e-6)

    def test_non_square_input(self):
        detector = self.build(image_size=WIDE)
        batch = batch_of(WIDE, [2, 1])
        assert_finite(*losses_and_gradients(detector, batch))
        found = detector.detect(tf.zeros([1, 40, 60, 3], tf.uint8))
        assert np.all(np.isfinite(found["boxes"]))

    @pytest.mark.parametrize("dtype", ["bf16", "fp16"])
    def test_half_precision_step_is_finite(self, dtype):
        with precision.policy_scope(dtype):
            detector = self.build()
        compute = {layer.compute_dtype for layer in detector._flatten_layers()}
        assert precision.policy_name(dtype).removeprefix("mixed_") in compute
        assert {v.dtype.base_dtype for v in detector.variables} == {tf.float32}
        batch = batch_of(SQUARE, [2, 3])
        outputs = detector(batch["image"])
        assert {output.dtype for output in tf.nest.flatten(outputs)} == {tf.float32}
        parts, gradients = losses_and_gradients(detector, batch)
        assert_finite(parts, gradients)
        assert {gradient.dtype for gradient in gradients} == {tf.float32}
        assert detector.decode(outputs)["boxes"].dtype == tf.float32

    def test_a_few_steps_learn_two_images(self):
        keras.utils.set_random_seed(2)
        detector = self.build()
        batch = batch_of(SQUARE, [2, 2], seed=4)
        optimizer = keras.optimizers.Adam(1e-2)

        @tf.function(autograph=False)
        def step():
            with tf.GradientTape() as tape:
                outputs = detector(batch["image"], training=True)
                total = detector.total_loss(detector.compute_losses(outputs, batch))
            gradients = tape.gradient(total, detector.trainable_variables)
            optimizer.apply_gradients(zip(gradients, detector.trainable_variables, strict=True))
            return total

        first = float(step())
        for _ in range(20):
            last = float(step())
        assert last < 0.5 * first, (first, last)

    def test_detect_takes_images_of_other_sizes(self, detector):
        rng = np.random.default_rng(5)
        images = tf.constant(rng.integers(0, 256, (2, 70, 130, 3), dtype=np.uint8))
        found = detector.detect(images)

        # In graphs, which round otherwise than operations one by one.
        def graph(function, shape, dtype):
            signature = [tf.TensorSpec([None, *shape, 3], dtype)]
            return tf.function(function, input_signature=signature, autograph=False)

        prepare = graph(detector.preprocessing, [None, None], tf.uint8)
        rest = graph(
            lambda inputs: detector.decode(detector(inputs, training=False)),
            detector.image_size,
            tf.float32,
        )
        want = rest(prepare(images))
        for key, value in want.items():
            np.testing.assert_array_equal(found[key], value)
        single = detector.detect(images[0])
        assert single["boxes"].shape[0] == 1
        np.testing.assert_allclose(single["scores"][0], found["scores"][0], atol=1e-5)

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((1, 8, 8, 3), np.float32),
            np.zeros((1, 8, 8, 1), np.uint8),
            np.zeros((8, 8), np.uint8),
        ],
    )
    def test_detect_refuses_what_is_not_uint8_rgb(self, detector, images):
        with pytest.raises(ValueError, match="uint8 RGB"):
            detector.detect(images)

        for shape in ((0, 20, 30, 3), (1, 0, 30, 3), (20, 0, 3)):
            with pytest.raises(ValueError, match="they have no pixels"):
                detector.detect(np.zeros(shape, np.uint8))

    def test_detect_takes_a_list_of_images_of_different_sizes(self, detector):
        rng = np.random.default_rng(6)
        images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((70, 130), (50, 40))]
        found = detector.detect(images)
        for index, image in enumerate(images):
            alone = detector.detect(image)
            np.testing.assert_allclose(found["scores"][index], alone["scores"][0], atol=1e-5)
            np.testing.assert_allclose(found["boxes"][index], alone["boxes"][0], atol=1e-3)
        with pytest.raises(ValueError, match="empty list"):
            detector.detect([])
        with pytest.raises(ValueError, match="not in a list"):
            detector.detect([np.stack([images[0]])])

    def test_summary_says_what_goes_in_and_comes_out(self, detector):
        lines = []
        detector.summary(print_fn=lines.append)
        text = "\n".join(lines)
        assert lines[0].endswith("for images of 96 x 96 pixels")
        assert f"classes: {NUM_CLASSES} (no names given)" in text
        assert all(name in text for name in detector.loss_weights)
        assert f"{detector.count_params()}" in text.replace(",", "")

    def test_freeze_patterns(self, detector):
        everything = detector.trainable_variables
        assert detector.variables_to_train() == everything
        rest = detector.variables_to_train([self.freeze_pattern])
        frozen = [v.name for v in everything if not any(v is kept for kept in rest)]
        assert frozen and rest
        assert all(name.startswith(self.freeze_pattern) for name in frozen)
        with pytest.raises(ValueError, match="'nothing_like_this' in train.freeze matches no"):
            detector.variables_to_train([self.freeze_pattern, "nothing_like_this"])

    def test_class_names_must_fit(self):
        names = self.build(class_names=("a", "b", "c")).class_names
        assert names == ("a", "b", "c")
        with pytest.raises(ValueError, match="2 class names for num_classes=3"):
            self.build(class_names=("a", "b"))

    def test_explained_targets_are_those_that_objects_change(self, detector):
        rng = np.random.default_rng(8)
        low = rng.uniform(0.0, 0.8, (12, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.01, 0.4, (12, 2))], 1).astype(np.float32)
        classes = rng.integers(0, NUM_CLASSES, 12).astype(np.int32)
        # The same speck twice, of which the targets of some detectors hold one alone.
        boxes[:2], classes[:2] = [0.6, 0.6, 0.61, 0.61], 1
        objects = (boxes, classes, np.zeros(12, bool))
        targets = detector.make_targets(*map(tf.constant, objects))
        matches = detector.explain_targets(targets, *objects)
        by_omission = super(type(detector), detector).explain_targets(targets, *objects)
        unmatched = matches.states == UNMATCHED
        np.testing.assert_array_equal(unmatched, by_omission.states == UNMATCHED)
        np.testing.assert_array_equal(unmatched, ~np.isin(range(12), matches.owners))
        assert set(matches.states) <= set(matches.terms.states) and not unmatched.all()
        count = len(matches.owners)
        for units, width in ((matches.boxes, 4), (matches.points, 2)):
            assert units is None or units.shape == (count, width)
        if matches.groups is not None:
            np.testing.assert_array_equal(matches.groups < 0, unmatched)
            assert matches.groups.max() < len(matches.terms.groups)
        assert (matches.quality is None) == (not matches.terms.quality)
        assert (matches.heat is None) == (not matches.terms.heat)
        for value in (matches.quality, *matches.remarks.values()):
            assert value is None or value.shape == (12,)

    def test_class_variables_are_those_that_grow_with_the_classes(self, detector, monkeypatch):
        monkeypatch.setattr(sys.modules[__name__], "NUM_CLASSES", 5)
        larger = {v.name.removesuffix(":0"): v.shape for v in self.build().variables}
        ours = {v.name.removesuffix(":0"): v.shape for v in detector.variables}
        grown = {name for name, shape in ours.items() if shape != larger[name]}
        assert grown == detector.class_variables() and not grown & detector.box_variables()
        rows = detector.num_classes + detector.PREDICTS_BACKGROUND
        for name in grown:
            repeats, rest = divmod(ours[name][-1], rows)
            assert rest == 0 and larger[name][-1] == repeats * (rows + 2)
        assert all(ours[name][-1] % 4 == 0 for name in detector.box_variables())

    def test_realistic_outputs_can_be_decoded(self, detector):
        boxes = np.tile(np.float32([[0.1, 0.1, 0.6, 0.5], [0.3, 0.2, 0.9, 0.9]]), (2, 1, 1))
        outputs = detector.realistic_outputs(boxes, np.array([[0, 1], [2, 0]]))
        tf.nest.assert_same_structure(outputs, detector.output)
        for got, want in zip(
            tf.nest.flatten(outputs), tf.nest.flatten(detector.output), strict=True
        ):
            assert got.shape == (2, *want.shape[1:]) and got.dtype == want.dtype
        assert np.all(np.isfinite(detector.decode(outputs)["boxes"]))
        bare = detector.bare_decoding(outputs)
        if bare is not None:
            assert tf.nest.flatten(bare[0](*bare[1]))[0].shape[0] == 2
