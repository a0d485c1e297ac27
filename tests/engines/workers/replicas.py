"""What must hold of several devices of one process; exits with an error on the first that does not.

`replicas.py CHECK ...` makes the checks that it names. The devices share the CPU.
"""

import sys

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import BatchNorm, PopulationBatchNorm, synchronize
from ssd_centernet.runtime.device import select_devices
from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.replicas import Replicas, copies, replica_scope, run_on_replicas
from ssd_centernet.training.layer_rates import LayerRates
from ssd_centernet.training.loop import compile_steps
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import LAMB, Adam, AdamW, Momentum
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

NUMBER = 4
close = np.testing.assert_allclose


def on_each(strategy, function, *arguments):
    """Call a traced function on all replicas and return the result of each."""

    @tf.function(autograph=False)
    def run(*arguments):
        return strategy.run(function, args=arguments)

    return strategy.experimental_local_results(run(*arguments))


def me():
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)


def gradients(strategy):
    for compression, error in (("none", 1e-6), ("fp16", 2e-3)):
        replicas = Replicas(strategy, compression=compression)
        assert isinstance(replicas, Communicator)
        assert (replicas.size, replicas.replicas, replicas.is_chief) == (1, NUMBER, True)

        def average(replicas=replicas):
            given = [tf.fill([3, 2], me() + 1), None, tf.constant([1e-4, 3.0]) * me(), 70000 + me()]
            return [one for one in replicas.mean_gradients(given) if one is not None]

        found = on_each(strategy, average)
        assert len(found) == NUMBER
        for matrix, vector, scalar in found:
            close(matrix, np.full([3, 2], 2.5), rtol=error)
            close(vector, np.array([1e-4, 3.0]) * 1.5, rtol=error)
            # More than half precision holds: a scalar such as the loss is never compressed.
            close(scalar, 70001.5, rtol=1e-6)


def batches(strategy):
    """Each row goes to one device, in their order."""
    rows = {"a": tf.range(8), "b": tf.reshape(tf.range(24.0), [8, 3])}
    run = run_on_replicas(strategy)
    found = tf.function(lambda: run(lambda batch, one: (batch, one), args=(rows, tf.constant(7))))()
    parts = strategy.experimental_local_results(found)
    assert [part["a"].numpy().tolist() for part, _ in parts] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    close(tf.concat([part["b"] for part, _ in parts], 0), rows["b"])
    assert [int(one) for _, one in parts] == [7] * NUMBER


def variables(strategy):
    replicas = Replicas(strategy)
    with replica_scope(strategy):
        variable, count = tf.Variable([1.0, 2.0]), tf.Variable(5, dtype=tf.int64)
    assert int(count) == 5 and float(count) == 5.0
    on_each(strategy, lambda: tf.identity(variable.assign([me(), 1.0])))
    assert [copy.numpy()[0] for copy in copies(variable)] == [0.0, 1.0, 2.0, 3.0]
    replicas.mean_variables([variable])
    assert [copy.numpy().tolist() for copy in copies(variable)] == [[1.5, 1.0]] * NUMBER
    copies(variable)[2].assign([9.0, 9.0])
    replicas.broadcast([variable])
    assert [copy.numpy().tolist() for copy in copies(variable)] == [[1.5, 1.0]] * NUMBER


def norms(strategy):
    """The statistics of a group are those of one device that has all its images."""
    images = np.random.default_rng(1).normal(5.0, 2.0, (NUMBER, 2, 3, 4, 5)).astype(np.float32)
    weights = np.random.default_rng(2).normal(size=images.shape).astype(np.float32)
    for kind, group in ((BatchNorm, NUMBER), (PopulationBatchNorm, 2)):
        replicas = Replicas(strategy, group_size=group)
        with replica_scope(strategy):
            ours = kind(momentum=0.9, epsilon=1e-3)
            ours.build(images.shape[1:])
        ours.synchronize(replicas.mean_of_group, replicas.group_size)

        def step(batch, norm=ours):
            inputs, weight = batch["images"], batch["weights"]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = norm(inputs, training=True)
                loss = tf.reduce_sum(outputs * weight)
            return outputs, tape.gradient(loss, inputs)

        def rows(array):
            return tf.constant(array.reshape(-1, *array.shape[2:]))

        batch = {"images": rows(images), "weights": rows(weights)}
        run = run_on_replicas(strategy)
        step_all = tf.function(lambda b, step=step, run=run: run(step, args=(b,)), autograph=False)
        found = strategy.experimental_local_results(step_all(batch))
        for first in range(0, NUMBER, group):
            whole = kind(momentum=0.9, epsilon=1e-3)
            whole.build(images.shape[1:])
            part = {k: v[2 * first : 2 * (first + group)] for k, v in batch.items()}
            outputs, wanted = step(part, whole)
            members = found[first : first + group]
            close(tf.concat([one for one, _ in members], 0), outputs, atol=1e-3)
            close(tf.concat([one for _, one in members], 0), wanted, atol=2e-4)
            for member in range(first, first + group):
                close(copies(ours.moving_mean)[member], whole.moving_mean, rtol=1e-5)
                close(copies(ours.moving_variance)[member], whole.moving_variance, rtol=1e-3)


def optimizers(strategy):
    """Every optimizer updates the copies of all devices as it does those of one."""
    kinds = {
        "Momentum": Momentum,
        "Adam": Adam,
        "AdamW": lambda: AdamW(weight_decay=0.1),
        "LAMB": LAMB,
        "SGD": lambda: keras.optimizers.SGD(momentum=0.9, weight_decay=0.01),
        "RMSprop": lambda: keras.optimizers.RMSprop(use_ema=True),
    }
    pull = [tf.constant([[0.5, -1.0]]), tf.constant([2.0])]
    for name, kind in kinds.items():

        def made(kind=kind):
            weights = [tf.Variable([[1.0, 2.0]], name="kernel"), tf.Variable([3.0], name="bias")]
            optimizer = kind()
            optimizer.build(weights)
            return weights, optimizer, LayerRates(weights, {"bias": 0.5})

        alone, one, rates = made()
        with replica_scope(strategy):
            together, several, shared_rates = made()

        def update(several=several, shared_rates=shared_rates):
            several.learning_rate.assign(0.1)
            true = me() < 100.0
            apply = lambda: shared_rates.apply(several, pull)  # noqa: E731
            tf.cond(true, apply, lambda: None)

        one.learning_rate.assign(0.1)
        for _ in range(3):
            rates.apply(one, pull)
            on_each(strategy, update)
        assert int(several.iterations) == 3
        states = zip([*together, *several.variables], [*alone, *one.variables], strict=True)
        for ours, expected in states:
            for copy in copies(ours):
                close(copy, expected, rtol=1e-5, err_msg=f"{name} {expected.name}")


def trainers(*strategies, joined=True, **options):
    """Return the same trainer on all devices and on one, and the function that runs its steps."""
    found = []
    for where in strategies:
        keras.utils.set_random_seed(1)
        several = where.num_replicas_in_sync > 1
        communicator = Replicas(where) if several else None
        with replica_scope(where):
            detector = tiny_detector()
            mean = communicator.mean_of_group if several else tf.identity
            if joined:
                synchronize(detector, mean, where.num_replicas_in_sync)
            made = {name: value() for name, value in options.items()}
            trainer = tiny_trainer(detector, batch_size=8, communicator=communicator, **made)
        found.append((trainer, compile_steps(trainer, where)))
    return found


def training(strategy):
    """Accumulated, clipped, scaled, averaged: the devices train as one with the joined batch."""
    options = {
        "optimizer": Momentum,
        "accumulate_steps": lambda: 2,
        "clip_norm": lambda: 0.5,
        "weight_decay": lambda: 5e-4,
        "ema_decay": lambda: 0.9,
        "loss_scale": lambda: LossScale(2.0**4, growth_steps=2),
    }
    told = []
    for trainer, steps in (pair := trainers(strategy, tf.distribute.get_strategy(), **options)):
        feed = tf.data.Dataset.from_tensor_slices([0, 1, 2, 3]).repeat()
        made = [tiny_batch(seed, size=8) for seed in range(4)]
        stacked = {name: tf.stack([one[name] for one in made]) for name in made[0]}
        feed = feed.map(lambda i, s=stacked: {name: v[i] for name, v in s.items()})
        steps(iter(feed), tf.constant(5))
        trainer.raise_if_failed()
        trainer.share_statistics()
        trainer.check_agreement()
        told.append(trainer.window_metrics())
    (ours, _), (expected, _) = pair
    assert int(ours.step) == 5 and int(ours.examples_seen) == 80 == int(expected.examples_seen)
    assert ours.position == expected.position == 80
    assert float(ours.loss_scale.value) == float(expected.loss_scale.value) == 2.0**6
    for name in ("class", "box", "total", "gradient_norm", "loss_scale", "learning_rate"):
        close(told[0][name], told[1][name], rtol=1e-4, err_msg=name)
    for one, other in zip(ours.state, expected.state, strict=True):
        scale = np.abs(other.numpy()).max() + 1e-6
        close(one.numpy() / scale, other.numpy() / scale, atol=2e-5, err_msg=other.name)
    # A copy that differs by one bit is found.
    place = copies(ours.train_variables[0])[2]
    place.assign(np.nextafter(place.numpy(), 9.0))
    try:
        ours.check_agreement()
    except RuntimeError as error:
        assert "devices 0 and 2 differ in 1 of" in str(error), error
    else:
        raise AssertionError("the difference was not found")


def faults(strategy):
    """A loss that is not finite on one device: no device goes on, and its images are named."""
    batch = tiny_batch(size=8)
    spoiled = np.array(batch["image"])
    spoiled[5] = np.nan  # The second of the third device.
    feed = tf.data.Dataset.from_tensors({**batch, "image": tf.constant(spoiled)}).repeat()
    for scale in (lambda: None, lambda: LossScale(2.0**4)):
        # Joined statistics would spread it over all devices before any loss is computed.
        ((trainer, steps),) = trainers(strategy, joined=False, loss_scale=scale)
        before = [v.numpy() for v in trainer.train_variables]
        steps(iter(feed), tf.constant(1))
        for variable, value in zip(trainer.train_variables, before, strict=True):
            for copy in copies(variable):
                assert (copy.numpy() == value).all(), "a device went on"
        if trainer.loss_scale.dynamic:
            # The loss itself is finite: a lower factor may help.
            assert [float(copy) for copy in copies(trainer.loss_scale.value)] == [8.0] * NUMBER
            trainer.raise_if_failed()
            continue
        try:
            trainer.raise_if_failed()
        except NonFiniteLossError as error:
            assert "step 0 is not finite on device 2" in str(error), error
            assert "Images (source ids): 75, 76." in str(error), error
        else:
            raise AssertionError("nothing was reported")
        trainer.forget_failure()
        trainer.raise_if_failed()


CHECKS = (gradients, batches, variables, norms, optimizers, training, faults)

if __name__ == "__main__":
    checks = {check.__name__: check for check in CHECKS}
    devices = select_devices("cpu", NUMBER)
    for name in sys.argv[1:]:
        checks[name](devices)
        print(f"{name}: content", flush=True)
