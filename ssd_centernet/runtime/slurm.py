"""How processes that Slurm's srun started find each other: by the names of their machines.

srun tells each process the machines of its step and how many processes each of them has. Ranks
follow the machines, which is srun's block distribution, and ports follow from the numbers of job
and step, so that nothing has to be exchanged before TensorFlow joins the processes.
"""

from __future__ import annotations

import json
import os
import re

from ssd_centernet.runtime.cluster import VARIABLE, started_by_srun

# Below those that Linux gives to clients. Steps that share a machine get other ports, if they can.
_FIRST_PORT, _PORTS, _OF_A_STEP = 15000, 16000, 64


def join_for_tensorflow() -> None:
    """Set TF_CONFIG from what srun tells; nothing where it is set, or srun started one process.

    Raises:
        ValueError: srun has spread the processes in another way, or what it tells cannot be read.
    """
    place = started_by_srun()
    if place is None or os.environ.get(VARIABLE):
        return
    rank, size = place
    hosts = hosts_of_ranks(_told("STEP_NODELIST"), _told("STEP_TASKS_PER_NODE"))
    local_rank = hosts[:rank].count(hosts[rank]) if len(hosts) == size else None
    here = (_told("LOCALID"), os.environ.get("SLURMD_NODENAME", ""))
    if local_rank is None or here not in {(str(local_rank), hosts[rank]), (str(local_rank), "")}:
        raise ValueError(
            f"srun started this process as number {rank} of {size}, and as number {here[0]} on "
            f"{here[1] or 'its machine'}, which is not how blocks of processes would lie on "
            f"{_told('STEP_NODELIST')}. Add --distribution=block to srun, or set TF_CONFIG."
        )
    if len(set(hosts)) == 1:
        hosts = ["127.0.0.1"] * size
    step = int(_told("JOB_ID")) * 4 + int(_told("STEP_ID"))
    port = _FIRST_PORT + step * _OF_A_STEP % _PORTS
    addresses = [f"{host}:{port + hosts[:n].count(host)}" for n, host in enumerate(hosts)]
    task = {"type": "worker", "index": rank}
    os.environ[VARIABLE] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def hosts_of_ranks(nodes: str, counts: str) -> list[str]:
    """Return the machine of each process, in blocks.

    Args:
        nodes: as SLURM_STEP_NODELIST has them, such as "gpu[08-10,12],login".
        counts: processes of each as SLURM_STEP_TASKS_PER_NODE has them, such as "4(x3),2".

    Raises:
        ValueError: they are written in another way, or differ in number.
    """
    names = [name for part in re.findall(r"(?:[^,\[]|\[[^]]*\])+", nodes) for name in _spread(part)]
    numbers = []
    for part in counts.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(
                f"SLURM_STEP_TASKS_PER_NODE is {counts!r}; expected such as '4(x3),2'."
            )
        numbers += [int(found[1])] * int(found[2] or 1)
    if len(names) != len(numbers):
        raise ValueError(
            f"SLURM_STEP_NODELIST is {nodes!r}, which are {len(names)} machines, and "
            f"SLURM_STEP_TASKS_PER_NODE is {counts!r}, which is of {len(numbers)}. Set TF_CONFIG."
        )
    return [name for name, number in zip(names, numbers, strict=True) for _ in range(number)]


def _spread(part: str) -> list[str]:
    """Return the names that "gpu[08-10,12]" stands for; several brackets are possible."""
    found = re.search(r"\[([^]]*)\]", part)
    if found is None:
        return [part]
    before, after = part[: found.start()], _spread(part[found.end() :])
    numbers = []
    for one in found[1].split(","):
        first, _, last = one.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise ValueError(f"SLURM_STEP_NODELIST has {part!r}; expected such as 'gpu[08-10,12]'.")
        span = range(int(first), int(last or first) + 1)
        numbers += [f"{number:0{len(first)}d}" for number in span]
    return [f"{before}{number}{rest}" for number in numbers for rest in after]


def _told(name: str) -> str:
    text = os.environ.get(f"SLURM_{name}")
    if not text:
        raise ValueError(
            f"srun started this process and SLURM_{name} is not set, by which it would find the "
            "others. Set TF_CONFIG, or take SLURM_STEP_NUM_TASKS out of the environment for a run "
            "of one process."
        )
    return text
