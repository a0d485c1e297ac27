"""The average of weights in `fit`: that of the trainer, in validation, callbacks and afterwards."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import warm_up_averages
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate
from tests.tiny import tiny_trainer
from tests.training.test_fit import batches, fresh, values

DECAY = 0.9


def compiled(**settings):
    detector = fresh()
    detector.compile(Momentum(0.9, learning_rate=0.01), **settings)
    return detector


def assert_equal(found, wanted, **tolerance):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **tolerance)


def test_weights_after_fit_are_the_trainers_average():
    detector = compiled(ema_decay=DECAY)
    detector.fit(batches(), epochs=2, verbose=0)
    trainer = tiny_trainer(fresh(), schedule=ConstantRate(0.01), ema_decay=DECAY)
    warm_up_averages(trainer.detector, lambda: trainer.step)
    step = tf.function(trainer.train_step)
    for batch in [*batches(), *batches()]:
        step(batch)
    raw = values(trainer.detector)
    with trainer.average.in_use():
        assert_equal(values(detector), values(trainer.detector), rtol=1e-4, atol=1e-6)
    name = next(name for name in raw if "kernel" in name)
    assert not np.allclose(values(detector)[name], raw[name], atol=1e-5)


def test_training_is_the_same_with_an_average():
    losses = [
        compiled(**settings).fit(batches(), epochs=2, verbose=0).history["loss"]
        for settings in ({}, {"ema_decay": DECAY})
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_validation_and_callbacks_look_at_the_average(tmp_path):
    detector, seen = compiled(ema_decay=DECAY), []
    path = str(tmp_path / "epoch{epoch}.weights.h5")
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((values(detector), logs["val_loss"]))
    )
    keep = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    detector.fit(batches(), epochs=2, verbose=0, validation_data=batches(1), callbacks=[keep, look])
    for epoch, (weights, loss) in enumerate(seen, start=1):
        again = compiled()
        again.load_weights(path.format(epoch=epoch))
        assert_equal(values(again), weights)
        assert again.evaluate(batches(1), verbose=0)[0] == pytest.approx(loss, rel=1e-5)
    assert_equal(values(detector), seen[-1][0])


def test_an_interrupted_fit_leaves_the_average_and_a_further_one_goes_on_with_it():
    detector = compiled(ema_decay=DECAY)

    def stop(batch, logs):
        if batch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detector.fit(
            batches(), verbose=0, callbacks=keras.callbacks.LambdaCallback(on_batch_end=stop)
        )
    kept = values(detector)
    average = detector._fitting.average
    assert not average.is_in_use
    first = detector.fit(batches(1), verbose=0, epochs=1).history["loss"][0]
    again = compiled()
    again.set_weights([kept[v.name] for v in again.weights])
    assert again.fit(batches(1), verbose=0).history["loss"][0] == pytest.approx(first, rel=1e-5)


def test_the_setting_survives_a_file_and_is_checked(tmp_path):
    detector = compiled(ema_decay=DECAY)
    detector.fit(batches(1), verbose=0)
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded._fitting.average.decay == DECAY
    assert_equal(values(loaded), values(detector))
    with pytest.raises(ValueError, match="ema_decay is 1.5; expected a number from 0"):
        compiled(ema_decay=1.5)
    callbacks = keras.callbacks.CallbackList([], model=detector)
    with pytest.raises(TypeError, match="give fit a list of callbacks"):
        detector.fit(batches(1), verbose=0, callbacks=callbacks)


def test_a_step_that_the_loss_scale_skips_does_not_count():
    detector = fresh()
    detector.compile(
        keras.mixed_precision.LossScaleOptimizer(Momentum(0.9, learning_rate=0.01)),
        ema_decay=DECAY,
    )
    before = values(detector)
    (batch,) = batches(1)
    # Gradients that are not finite: the scale falls, and nothing else happens.
    detector.optimizer._loss_scale._current_loss_scale.assign(3e38)
    detector.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    # The statistics of norms have moved, and their average has not.
    assert_equal(values(detector), before, rtol=0)
