"""What makes one training of several devices: which engine, and with it the communicator."""

from __future__ import annotations

import contextlib
import dataclasses
import os

import tensorflow as tf
from absl import logging

from ssd_centernet.runtime.cluster import read_cluster, started_by_mpirun, started_by_srun
from ssd_centernet.runtime.device import (
    claim_device,
    find_tpu,
    refuse_shared_devices,
    select_device,
    select_devices,
)
from ssd_centernet.runtime.distribution import Communicator, SingleProcess, connect
from ssd_centernet.runtime.replicas import Replicas, replica_scope
from ssd_centernet.runtime.tpu import open_cores

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "horovod", "hccl", "tpu")


@dataclasses.dataclass(frozen=True)
class Engine:
    """The devices of a run, ready to be used.

    Attributes:
        communicator: connects the processes and the devices that train together.
        strategy: places the step on the devices of this process.
    """

    communicator: Communicator
    strategy: tf.distribute.Strategy

    def scope(self) -> contextlib.AbstractContextManager:
        """Return the context in which the variables of the run are made."""
        return replica_scope(self.strategy)


def start_engine(
    name: str = "auto",
    *,
    device: str | None = "auto",
    devices: int | None = None,
    use_horovod: bool = False,
    compression: str = "none",
    group_size: int | None = None,
    deterministic: bool = False,
) -> Engine:
    """Choose the devices of this process, and join the others; before TensorFlow touches a device.

    Args:
        name: one of `STRATEGIES`; 'auto' is 'horovod' in a process that Horovod's launcher began,
            'multi_worker' where TF_CONFIG lists several processes or mpirun or srun started
            several, 'mirrored' where several devices are asked for, and else 'one'. 'hccl' joins
            processes on NPUs, 'tpu' the cores of a TPU slice.
        device: kind of the devices, see `select_device`.
        devices: number of devices of this process; None is all for 'mirrored' and 'tpu', else one.
        use_horovod: the same as the name 'horovod'.
        compression: "fp16" sends gradients in half precision, "none" as they are.
        group_size: processes or devices that share batch statistics; None means all.
        deterministic: whether TensorFlow takes kernels alone that give the same bits each time,
            until the process ends; an operation that has none raises an error.

    Returns:
        The engine.

    Raises:
        ValueError: settings that contradict each other.
        RuntimeError: no such device, or not as many.
        ImportError: Horovod is wanted and cannot be imported.
    """
    name = _settled(name, devices, use_horovod)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if name in ("mirrored", "tpu"):
        select = _cores_of_slice if name == "tpu" else select_devices
        strategy = select(device, devices)
        number = strategy.num_replicas_in_sync
        if number > 1:
            logging.info("Each batch is shared by %d devices (%s).", number, name)
            options = {"compression": compression, "group_size": group_size}
            return Engine(Replicas(strategy, **options), strategy)
        logging.info("Only one device is there: --strategy=%s is the same as one.", name)
        return Engine(SingleProcess(), strategy)
    options = {"compression": compression, "group_size": group_size}
    if name == "hccl":
        communicator, device = _joined_by_hccl(device, options), "npu"
    else:
        communicator = connect(name == "horovod", device=device, **options)
    if communicator.size > 1 and name == "multi_worker":
        logging.info("TensorFlow has joined %d processes (multi_worker).", communicator.size)
    strategy = select_device(device, index=communicator.local_rank)
    claim = claim_device(strategy, communicator.local_rank)
    refuse_shared_devices(communicator.gather([claim]))
    return Engine(communicator, strategy)


def _cores_of_slice(device: str | None, count: int | None) -> tf.distribute.Strategy:
    """Return the strategy of so many cores of a TPU slice; None is all."""
    if device not in (None, "auto", "tpu"):
        raise ValueError(
            f"--strategy=tpu trains on the cores of a TPU slice, and --device is {device!r}. Set "
            "it to tpu, or choose another --strategy."
        )
    find_tpu()
    return open_cores(count)


def _joined_by_hccl(device: str | None, options: dict) -> Communicator:
    from ssd_centernet.runtime.hccl import HcclProcesses

    if device not in (None, "auto", "npu"):
        raise ValueError(
            f"--strategy=hccl joins processes on NPUs, and --device is {device!r}. Set it to npu, "
            "or choose another --strategy."
        )
    return HcclProcesses(**options)


def _settled(name: str, devices: int | None, use_horovod: bool) -> str:
    """Return the engine that 'auto' stands for, or the name given."""
    if name not in STRATEGIES:
        raise ValueError(f"train.strategy is {name!r}; expected one of {', '.join(STRATEGIES)}.")
    if use_horovod and name not in ("auto", "horovod"):
        raise ValueError(
            f"--use_horovod is given, and --strategy={name} too: they are two ways to train on "
            "several devices. Leave out one of them."
        )
    several = devices is not None and devices > 1
    if several and (use_horovod or name in ("one", "multi_worker", "horovod", "hccl")):
        engine = "horovod" if use_horovod else name
        raise ValueError(
            f"--devices is {devices}, but with --strategy={engine} a process has one device. Leave "
            "out --devices, or choose --strategy=mirrored, or tpu for a TPU slice."
        )
    # Horovod's own launcher tells both; a size alone is that of something else.
    horovod = "HOROVOD_RANK" in os.environ and int(os.environ.get("HOROVOD_SIZE") or 1) > 1
    if use_horovod or (name == "auto" and horovod):
        return "horovod"
    if name in ("horovod", "hccl"):
        return name
    return _settled_by_cluster(name, several)


def _settled_by_cluster(name: str, several: bool) -> str:
    """Return the engine of a process that Horovod does not join."""
    cluster, place = read_cluster(), started_by_mpirun() or started_by_srun()
    if cluster is not None:
        size, told = cluster.size, "TF_CONFIG lists"
    else:
        size = 1 if place is None else place[1]
        told = "mpirun started" if started_by_mpirun() else "srun started"
    if name == "multi_worker" and cluster is None and place is None:
        raise ValueError(
            "--strategy=multi_worker, but nothing tells of other processes: set TF_CONFIG in each "
            "of them, or start them by `ssd_centernet launch --engine=tf --num_processes=N -- "
            "train ...`, which sets it, or by mpirun or srun."
        )
    if size > 1 and (several or name not in ("auto", "multi_worker")):
        what = "--devices" if several else f"--strategy={name}"
        instead = "Or start one process."
        if cluster is not None:
            instead = "Or take TF_CONFIG out of the environment."
        raise ValueError(
            f"{told} {size} processes, which would each train a model of its own in the same "
            f"--model_dir. Leave out {what}: each process has one device, and TensorFlow joins "
            f"them (--strategy=multi_worker). {instead}"
        )
    if size > 1:
        return "multi_worker"
    if name == "multi_worker":
        return "one"
    return name if name != "auto" else "mirrored" if several else "one"
