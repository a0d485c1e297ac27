"""Which of several processes this one is, as what started it says; without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os

VARIABLE = "TF_CONFIG"
_EXPECTED = (
    'expected such as {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with another index in each process'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that TF_CONFIG lists.

    Attributes:
        rank: number of this process; a chief is number 0, before the workers.
        addresses: of all processes by rank, such as "a:2222".
        job: "chief" or "worker", which this process is.
        index: of this process among those of its job.
    """

    rank: int
    addresses: tuple[str, ...]
    job: str
    index: int

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.addresses)

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine, by the names in the addresses."""
        hosts = [address.rpartition(":")[0] for address in self.addresses]
        return hosts[: self.rank].count(hosts[self.rank])


def read_cluster() -> Cluster | None:
    """Read TF_CONFIG.

    Returns:
        The cluster; None where it lists no processes.

    Raises:
        ValueError: it cannot be read, or lists processes that take no equal part in a training.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        told = json.loads(text)
        listed = told.get("cluster") or {}
        jobs = {str(job): tuple(map(str, listed[job])) for job in listed if listed[job]}
        if not jobs:
            return None
        task = told["task"]
        job, index = str(task["type"]), int(task["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{VARIABLE} cannot be read ({error!r}): {_EXPECTED}.") from None
    others = sorted(set(jobs) - {"chief", "worker"})
    if others:
        raise ValueError(
            f"{VARIABLE} lists {' and '.join(others)}, which take no equal part in a training: "
            f"{_EXPECTED}."
        )
    if not 0 <= index < len(jobs.get(job, ())):
        raise ValueError(f"{VARIABLE} has no address for its own task, {job} {index}: {_EXPECTED}.")
    addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
    rank = index + (len(jobs.get("chief", ())) if job == "worker" else 0)
    return Cluster(rank=rank, addresses=addresses, job=job, index=index)


def launched_rank() -> int | None:
    """Return the number of this process among those that a launcher started, or None."""
    if "HOROVOD_RANK" in os.environ:
        return int(os.environ["HOROVOD_RANK"])
    try:
        cluster = read_cluster()
    except ValueError:  # Who joins the processes says so.
        return None
    if cluster is not None:
        return cluster.rank
    place = started_by_mpirun() or started_by_srun()
    return _rank_by_hccl() if place is None else place[0]


def _rank_by_hccl() -> int | None:
    """Return the number of this process among several on NPUs, as their rank table counts them.

    Where HCCL finds the processes by itself (CM_WORKER_SIZE), no number is known before.
    """
    told = [os.environ.get(name, "") for name in ("RANK_ID", "RANK_SIZE")]
    several = all(text.isdecimal() for text in told) and int(told[1]) > 1
    return int(told[0]) if several else None


def started_by_mpirun() -> tuple[int, int] | None:
    """Return number of this process and how many OpenMPI's mpirun started, or None."""
    told = [os.environ.get(f"OMPI_COMM_WORLD_{name}") for name in ("RANK", "SIZE")]
    return tuple(map(int, told)) if all(told) else None


def started_by_srun() -> tuple[int, int] | None:
    """Return number of this process and how many Slurm's srun started, or None where it is alone.

    A batch script, which may start one process by itself, has no SLURM_STEP_NUM_TASKS.
    """
    told = [os.environ.get(f"SLURM_{name}", "") for name in ("PROCID", "STEP_NUM_TASKS")]
    several = all(text.isdecimal() for text in told) and int(told[1]) > 1
    # mpirun may start its own helpers by srun.
    return tuple(map(int, told)) if several and started_by_mpirun() is None else None
