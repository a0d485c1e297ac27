"""What must hold of steps of several processes; ends with an error if not.

Each process makes the steps of one process with the whole batch, too, and compares.
`together.py CHECK ...` makes the checks that it names, or all. TensorFlow joins the processes, or
Horovod where BY_HOROVOD is set.
"""

import os
import sys

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import synchronize
from ssd_centernet.runtime.distribution import Communicator, connect
from ssd_centernet.runtime.workers import Workers
from ssd_centernet.training.loop import compile_steps
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

EACH = 2
close = np.testing.assert_allclose


def mine(processes, batch):
    begin = processes.rank * EACH
    return {name: rows[begin : begin + EACH] for name, rows in batch.items()}


def trainer_of(communicator, size=EACH, joined=True, **options):
    keras.utils.set_random_seed(3)
    detector = tiny_detector()
    if joined and communicator is not None:
        synchronize(detector, communicator.mean_of_group, communicator.group_size)
    made = {name: option() for name, option in options.items()}
    trainer = tiny_trainer(detector, communicator=communicator, batch_size=size, **made)
    return trainer, compile_steps(trainer, tf.distribute.get_strategy())


def training(processes):
    """Accumulated, clipped, scaled and averaged: the steps of one process with all images."""
    options = {
        "optimizer": Momentum,
        "accumulate_steps": lambda: 2,
        "clip_norm": lambda: 0.5,
        "weight_decay": lambda: 5e-4,
        "ema_decay": lambda: 0.9,
        "loss_scale": lambda: LossScale(2.0**4, growth_steps=2),
    }
    whole = [tiny_batch(seed, size=EACH * processes.size) for seed in range(4)]
    told, made = [], []
    for communicator in (processes, None):
        size = EACH if communicator else EACH * processes.size
        trainer, steps = trainer_of(communicator, size, **options)
        given = [mine(processes, one) for one in whole] if communicator else whole
        stacked = {name: tf.stack([one[name] for one in given]) for name in given[0]}
        feed = tf.data.Dataset.from_tensor_slices(stacked).repeat()
        steps(iter(feed), tf.constant(5))
        trainer.raise_if_failed()
        trainer.share_statistics()
        trainer.check_agreement()
        told.append(trainer.window_metrics())
        made.append(trainer)
    ours, alone = made
    assert int(ours.step) == int(alone.step) == 5
    assert float(ours.loss_scale.value) == float(alone.loss_scale.value) == 2.0**6
    for name in ("class", "box", "total", "gradient_norm", "loss_scale", "learning_rate"):
        close(told[0][name], told[1][name], rtol=1e-4, err_msg=name)
    for one, other in zip(ours.state, alone.state, strict=True):
        if "examples_seen" in other.name:
            continue
        scale = np.abs(other.numpy()).max() + 1e-6
        close(one.numpy() / scale, other.numpy() / scale, atol=2e-5, err_msg=other.name)
    # A process that differs by one bit is found.
    if not processes.is_chief:
        place = ours.train_variables[0]
        place.assign(np.nextafter(place.numpy(), 9.0))
    try:
        ours.check_agreement()
    except RuntimeError as error:
        assert "differ in 1 of" in str(error), error
    else:
        raise AssertionError("the difference was not found")


def faults(processes):
    """A loss that is not finite in process 1: none goes on, and its images are named there."""
    batch = tiny_batch(size=EACH * processes.size)
    spoiled = np.array(batch["image"])
    spoiled[EACH + 1] = np.nan
    batch = mine(processes, {**batch, "image": tf.constant(spoiled)})
    for scale in (lambda: None, lambda: LossScale(2.0**4)):
        # Joined statistics would spread it over all processes before any loss is computed.
        trainer, steps = trainer_of(processes, joined=False, loss_scale=scale)
        before = [variable.numpy() for variable in trainer.train_variables]
        steps(iter(tf.data.Dataset.from_tensors(batch).repeat()), tf.constant(1))
        for variable, value in zip(trainer.train_variables, before, strict=True):
            assert (variable.numpy() == value).all(), "a process went on"
        if trainer.loss_scale.dynamic:
            # The loss itself is finite: a lower factor may help.
            assert float(trainer.loss_scale.value) == 8.0
            trainer.raise_if_failed()
            continue
        try:
            trainer.raise_if_failed()
        except NonFiniteLossError as error:
            own = "step 0 is not finite on process 1" in str(error)
            assert own == (processes.rank == 1), error
            assert ("Images (source ids): 73, 74." in str(error)) == own, error
        else:
            raise AssertionError("nothing was reported")


def main():
    by_horovod = "BY_HOROVOD" in os.environ
    processes = connect(by_horovod, device="cpu")
    assert isinstance(processes, Communicator) and processes.size > 1
    assert isinstance(processes, Workers) != by_horovod
    checks = {check.__name__: check for check in (training, faults)}
    for name in sys.argv[1:] or checks:
        checks[name](processes)
        processes.barrier()
    processes.leave()
    print(f"process {processes.rank} of {processes.size} is content", flush=True)


if __name__ == "__main__":
    main()
