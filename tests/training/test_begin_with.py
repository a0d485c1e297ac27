"""A run whose first part another assigner does: by the trainer's steps, and by those of `fit`."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.assigners import ATSS, TaskAligned
from ssd_centernet.layers.criteria import MultiBoxLoss
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer


@pytest.fixture
def seen():
    """How much of the run is over, as the assigner was told at each step."""
    return []


@pytest.fixture
def detector(seen):
    class Noting(TaskAligned):
        def call(self, *args, levels=None, progress=None):
            if progress is not None:
                tf.numpy_function(lambda value: seen.append(float(value)), [progress], [])
            return super().call(*args, levels, progress)

    keras.utils.set_random_seed(0)
    detector = tiny_detector()
    detector.criterion = MultiBoxLoss(assigner=Noting(4, begin_with=ATSS(), begin_share=0.5))
    return detector


def test_the_trainer_tells_how_much_of_the_run_is_over(detector, seen):
    trainer = tiny_trainer(detector)  # Of 20 steps.
    step = tf.function(trainer.train_step)
    for _ in range(3):
        step(tiny_batch())
    trainer.step.assign(19)  # As a resumed run does.
    step(tiny_batch())
    np.testing.assert_allclose(seen, [0.0, 0.05, 0.1, 0.95], rtol=1e-6)


def test_batches_of_one_update_are_at_the_same_place_of_the_run(detector, seen):
    trainer = tiny_trainer(detector, accumulate_steps=2)
    batches = iter(tf.data.Dataset.from_tensors(tiny_batch()).repeat())
    step = tf.function(lambda: trainer.run_step(batches, lambda function, args: function(*args)))
    step(), step()
    np.testing.assert_allclose(seen, [0.0, 0.0, 0.05, 0.05], rtol=1e-6)


def fitted_batches(count):
    batch = {name: value for name, value in tiny_batch().items() if name != "source_id"}
    return tf.data.Dataset.from_tensors(batch).repeat(count)


def test_fit_tells_it_by_its_epochs(detector, seen):
    detector.compile(keras.optimizers.SGD(0.01))
    batches = fitted_batches(2)
    detector.fit(batches, epochs=2, verbose=0)
    assert sorted(set(seen)) == [0.0, 0.25, 0.5, 0.75]
    del seen[:]
    # A second training begins anew; one that goes on is where it was.
    detector.fit(batches, epochs=2, initial_epoch=1, verbose=0)
    assert sorted(set(seen)) == [0.5, 0.75]


def test_fit_asks_for_a_length_that_it_cannot_know(detector, seen):
    detector.compile(keras.optimizers.SGD(0.01))
    with pytest.raises(ValueError, match="begin_with .* give fit.steps_per_epoch"):
        detector.fit(fitted_batches(None), verbose=0)
    assert seen == []
    detector.fit(fitted_batches(None), steps_per_epoch=4, verbose=0)
    assert max(seen) == 0.75


def test_a_validation_is_not_of_the_first_part(detector, seen):
    detector.compile(keras.optimizers.SGD(0.01))
    detector.evaluate(fitted_batches(1), verbose=0)
    assert seen == []
