"""What must hold of processes that HCCL joins; ends with an error if not.

Each makes the steps of one process with the whole batch, too, and compares.
"""

import sys

import tensorflow as tf

from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.engine import start_engine
from ssd_centernet.runtime.hccl import HcclProcesses
from ssd_centernet.training.loss_scale import LossScale
from tests.distributed.workers import collectives
from tests.engines.workers import together
from tests.tiny import tiny_batch


def saturation(processes):
    """A value was cut off in process 1: none takes the step, and the factor is halved in all."""
    from npu_device import gen_npu_ops

    batch = together.mine(processes, tiny_batch(size=together.EACH * processes.size))
    trainer, steps = together.trainer_of(processes, loss_scale=lambda: LossScale(2.0**4))
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    before = [variable.numpy() for variable in trainer.train_variables]
    gen_npu_ops.register[2] = processes.rank == 1
    steps(iterator, tf.constant(1))
    trainer.raise_if_failed()
    for variable, value in zip(trainer.train_variables, before, strict=True):
        assert (variable.numpy() == value).all(), "a process took the step"
    assert not gen_npu_ops.register.any(), "it was not cleared"
    steps(iterator, tf.constant(1))
    trainer.check_agreement()
    assert (trainer.train_variables[0].numpy() != before[0]).any()
    assert float(trainer.loss_scale.value) == 8.0 and int(trainer.loss_scale.skipped) == 1


def main():
    engine = start_engine("hccl", device="npu", compression=sys.argv[1])
    processes = engine.communicator
    assert isinstance(processes, HcclProcesses) and isinstance(processes, Communicator)
    assert processes.local_rank == processes.rank and processes.group_size == processes.size
    assert processes.is_chief == (processes.rank == 0)
    collectives.check_gradients(processes, 1e-6 if sys.argv[1] == "none" else 2e-3)
    collectives.check_values(processes)
    large = ["x" * 10_000 * (1 + processes.rank)]
    assert [len(one) for one in processes.gather(large)] == [10_000, 20_000]
    collectives.check_batch_norm(processes, BatchNorm)
    if sys.argv[1] == "none":
        for check in (together.training, saturation):
            check(processes)
            processes.barrier()
    processes.leave()
    print(f"process {processes.rank} of {processes.size} is content", flush=True)


if __name__ == "__main__":
    main()
