"""What every process checks of the collectives; exits with an error on the first that is wrong."""

import os
import sys

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.normalization import BatchNorm, PopulationBatchNorm
from ssd_centernet.runtime import vendors
from ssd_centernet.runtime.distribution import Communicator, connect


def close(found, expected, **tolerance):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), **tolerance)


def check_gradients(processes, compression_error):
    rank, size = processes.rank, processes.size
    mean_rank = (size - 1) / 2

    @tf.function
    def average(scale):
        matrix = tf.fill([3, 2], scale * (rank + 1.0))
        vector = tf.constant([1e-4, 3.0]) * rank
        return processes.mean_gradients([matrix, None, vector, tf.constant(70000.0 + rank)])

    for scale in (1.0, 2.0):
        matrix, nothing, vector, scalar = average(tf.constant(scale))
        assert nothing is None
        close(matrix, np.full([3, 2], scale * (mean_rank + 1)), rtol=compression_error)
        close(vector, np.array([1e-4, 3.0]) * mean_rank, rtol=compression_error)
        # More than half precision holds: a scalar such as the loss is never compressed.
        close(scalar, 70000.0 + mean_rank, rtol=1e-6)


def check_values(processes):
    rank, size = processes.rank, processes.size
    found = processes.mean({"b": rank, "a": 2.0 * rank})
    assert found == {"a": size - 1.0, "b": (size - 1) / 2}, found
    variables = [tf.Variable([float(rank), 1.0]), tf.Variable(rank, dtype=tf.int64)]
    processes.mean_variables(variables[:1])
    close(variables[0], [(size - 1) / 2, 1.0])
    variables[0].assign([rank, -rank])
    processes.broadcast(variables)
    close(variables[0], [0.0, 0.0])
    assert int(variables[1]) == 0
    parts = processes.gather([(rank, index) for index in range(rank)])
    assert parts == [(r, index) for r in range(size) for index in range(r)], parts
    assert processes.gather([]) == []
    processes.barrier()


def check_messages(processes):
    """Messages of Python objects are even numbers of bytes on the CPU, as Gaudi's Horovod needs.

    A second device of the CPU stands for the accelerator that everything else is placed on.
    """
    sent, hvd = [], processes._hvd
    plain = {name: getattr(hvd, name) for name in ("allgather", "allreduce")}

    def watch(name):
        def watched(tensor, **options):
            result = plain[name](tensor, **options)
            sent.extend([(tensor, tensor.device), (result, result.device)])
            return result

        setattr(hvd, name, watched)

    for name in plain:
        watch(name)
    try:
        with tf.device("CPU:1"):
            assert "CPU:1" in tf.zeros([1]).device
            for length in (5, 6):
                objects = ["x" * (length + processes.rank)]
                expected = ["x" * (length + rank) for rank in range(processes.size)]
                assert processes.gather(objects) == expected
            assert processes.mean({"a": processes.rank}) == {"a": (processes.size - 1) / 2}
            processes.barrier()
    finally:
        for name, function in plain.items():
            setattr(hvd, name, function)
    assert len(sent) == 12 and all("CPU:0" in device for _, device in sent), sent
    for tensor, _ in sent:
        assert tensor.dtype != tf.uint8 or tensor.shape[0] % 2 == 0, tensor.shape


def check_batch_norm(processes, kind):
    """The statistics of a group are those of one process that has all its images."""
    group = processes.group_size
    first = processes.rank // group * group
    images = np.random.default_rng(1).normal(5.0, 2.0, (processes.size, 2, 3, 4, 5))
    images = images.astype(np.float32)
    weights = tf.constant(np.random.default_rng(2).normal(size=(2, 3, 4, 5)), tf.float32)
    ours, whole = kind(momentum=0.9, epsilon=1e-3), kind(momentum=0.9, epsilon=1e-3)
    for norm in (ours, whole):
        norm.build(images.shape[1:])
    ours.synchronize(processes.mean_of_group, group)

    @tf.function
    def step(norm, inputs, weight):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = norm(inputs, training=True)
            loss = tf.reduce_sum(outputs * weight)
        return outputs, tape.gradient(loss, [inputs, *norm.trainable_variables])

    for scale in (1.0, 1.5):
        batch = tf.constant(scale * images)
        mine = batch[processes.rank]
        outputs, gradients = step(ours, mine, weights)
        together = tf.concat(tf.unstack(batch[first : first + group]), axis=0)
        expected, wanted = step(whole, together, tf.tile(weights, [group, 1, 1, 1]))
        place = slice(2 * (processes.rank - first), 2 * (processes.rank - first) + 2)
        close(outputs, expected[place], atol=1e-3)
        # Shared statistics carry the other processes' losses into this one's gradients.
        close(gradients[0], wanted[0][place], atol=2e-4)
        for found, sum_of_all in zip(gradients[1:], wanted[1:], strict=True):
            close(processes.mean_of_group(found), sum_of_all / group, rtol=2e-3, atol=2e-3)
    close(ours.moving_mean, whole.moving_mean, rtol=1e-5)
    close(ours.moving_variance, whole.moving_variance, rtol=1e-3)


def main():
    compression, group = sys.argv[1], int(sys.argv[2])
    # Horovod's launcher says so, or a test; else TensorFlow joins the processes.
    by_horovod = bool({"HOROVOD_RANK", "BY_HOROVOD"}.intersection(os.environ))
    if by_horovod:
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    processes = connect(by_horovod, compression=compression, group_size=group or None)
    assert isinstance(processes, Communicator)
    # The number of the first process of this machine.
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    assert processes.local_rank == processes.rank - first
    assert processes.is_chief == (processes.rank == 0)
    assert processes.group_size == (group or processes.size)
    check_gradients(processes, 1e-6 if compression == "none" else 2e-3)
    check_values(processes)
    if by_horovod:
        check_messages(processes)
        # Gradients joined to one message, as on a device whose Horovod has no kernel for groups.
        assert processes._packs is False and "CPU" in vendors.kernels("HorovodAllreduce")
        processes._packs = True
        check_gradients(processes, 1e-6 if compression == "none" else 2e-3)
        check_values(processes)
        processes._packs = False
    for kind in (BatchNorm, PopulationBatchNorm):
        check_batch_norm(processes, kind)
    processes.leave()
    print(f"rank {processes.rank} of {processes.size} is content", flush=True)


if __name__ == "__main__":
    main()
