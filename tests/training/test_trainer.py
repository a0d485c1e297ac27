"""The train step: what it changes, what it keeps, and what it says when a loss is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.runtime.precision import policy_scope
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer


def test_a_step_equals_a_step_by_hand():
    keras.utils.set_random_seed(0)
    trainer = tiny_trainer(weight_decay=0.1)
    detector, batch = trainer.detector, tiny_batch()
    variables = detector.trainable_variables
    with tf.GradientTape() as tape:
        parts = detector.compute_losses(detector(batch["image"], training=True), batch)
        decayed = [v for v in variables if "_norm/" not in v.name]
        loss = parts["class"] + parts["box"] + 0.1 * tf.add_n([tf.nn.l2_loss(v) for v in decayed])
    gradients = tape.gradient(loss, variables)
    expected = [v.numpy() - 0.01 * g.numpy() for v, g in zip(variables, gradients, strict=True)]
    metrics = trainer.train_step(batch)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)
    # The reported loss leaves the decay out.
    assert float(metrics["total"]) == pytest.approx(float(parts["class"] + parts["box"]), rel=1e-5)


def test_frozen_variables_stay_and_their_statistics_move():
    trainer = tiny_trainer(freeze=("stem_",))
    weights = {v.name: v for v in trainer.detector.variables}
    before = {name: v.numpy() for name, v in weights.items()}
    trainer.train_step(tiny_batch())
    for name in ("stem_conv/kernel:0", "stem_norm/gamma:0", "stem_norm/beta:0"):
        np.testing.assert_array_equal(weights[name].numpy(), before[name])
    moved = "stem_norm/moving_mean:0"
    assert not np.array_equal(weights[moved].numpy(), before[moved])
    assert not np.array_equal(weights["head/box0/bias:0"].numpy(), before["head/box0/bias:0"])


def test_window_metrics_are_means_and_start_again():
    trainer = tiny_trainer()
    losses = [float(trainer.train_step(tiny_batch(seed))["total"]) for seed in range(3)]
    metrics = trainer.window_metrics()
    assert metrics["total"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(0.01)
    assert int(trainer.step) == 3
    assert int(trainer.examples_seen) == 6
    last = float(trainer.train_step(tiny_batch(9))["total"])
    assert trainer.window_metrics()["total"] == pytest.approx(last, rel=1e-5)


def test_a_bad_batch_changes_no_weight_and_is_named():
    trainer = tiny_trainer()
    trainer.train_step(tiny_batch())
    trained = [v.numpy() for v in trainer.train_variables]
    slots = [v.numpy() for v in trainer.optimizer.accumulators]
    bad = tiny_batch()
    bad["image"] = bad["image"] * float("nan")
    step = tf.function(trainer.train_step)
    step(bad)
    step({**tiny_batch(), "source_id": tf.constant([1, 2], tf.int64), "image": bad["image"]})
    for variable, value in zip(trainer.train_variables, trained, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    for slot, value in zip(trainer.optimizer.accumulators, slots, strict=True):
        np.testing.assert_array_equal(slot.numpy(), value)
    with pytest.raises(NonFiniteLossError, match=r"step 1 is not finite.*source ids\): 71, 72\."):
        trainer.raise_if_failed()


def test_the_step_is_traced_once_with_static_shapes():
    trainer = tiny_trainer()
    step = tf.function(trainer.train_step)
    for seed in range(3):
        step(tiny_batch(seed))
    assert step.experimental_get_tracing_count() == 1
    graph = step.get_concrete_function(tiny_batch()).graph
    unknown = [
        op.name
        for op in graph.get_operations()
        if op.type in ("Conv2D", "FusedBatchNormV3", "SparseSoftmaxCrossEntropyWithLogits")
        and not all(output.shape.is_fully_defined() for output in op.outputs[:1])
    ]
    assert unknown == []


def test_targets_from_the_pipeline_give_the_same_step():
    keras.utils.set_random_seed(0)
    trainer = tiny_trainer()
    batch = tiny_batch()
    keys = ("boxes", "classes", "is_crowd")
    per_image = [
        trainer.detector.make_targets(*(batch[key][image] for key in keys)) for image in range(2)
    ]
    targets = {key: tf.stack([t[key] for t in per_image]) for key in per_image[0]}
    outputs = trainer.detector(batch["image"], training=True)
    here = trainer.detector.compute_losses(outputs, batch)
    given = trainer.detector.compute_losses(outputs, {**batch, "targets": targets})
    assert {k: float(v) for k, v in here.items()} == {k: float(v) for k, v in given.items()}


def test_float16_skips_an_overflow_and_halves_the_scale():
    with policy_scope("fp16"):
        detector = tiny_detector()
    scale = LossScale(initial=2.0**30, growth_steps=2)
    trainer = tiny_trainer(detector, loss_scale=scale)
    before = [v.numpy() for v in trainer.train_variables]
    trainer.train_step(tiny_batch())
    assert int(scale.skipped) == 1
    assert float(scale.value) == 2.0**29
    for variable, value in zip(trainer.train_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    trainer.raise_if_failed()
    scale.value.assign(8.0)
    trainer.train_step(tiny_batch())
    trainer.train_step(tiny_batch(1))
    assert float(scale.value) == 16.0
    assert trainer.window_metrics()["skipped_steps"] == 1


def test_clipping_bounds_the_update():
    trainer = tiny_trainer(clip_norm=1e-3)
    before = [v.numpy() for v in trainer.train_variables]
    trainer.train_step(tiny_batch())
    moved = [v.numpy() - b for v, b in zip(trainer.train_variables, before, strict=True)]
    norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
    assert norm == pytest.approx(0.01 * 1e-3, rel=1e-2)


def test_a_failed_update_names_the_images_of_all_its_batches():
    trainer = tiny_trainer(accumulate_steps=3)
    batches = [tiny_batch(seed) for seed in range(3)]
    for number, batch in enumerate(batches):
        batch["source_id"] = tf.constant([10 * number + 1, 10 * number + 2], tf.int64)
    batches[1]["image"] *= np.nan
    stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *batches)
    iterator = iter(tf.data.Dataset.from_tensor_slices(stacked))
    tf.function(lambda: trainer.run_step(iterator, lambda function, args: function(*args)))()
    with pytest.raises(NonFiniteLossError, match=r"source ids\): 1, 2, 11, 12, 21, 22\."):
        trainer.raise_if_failed()
