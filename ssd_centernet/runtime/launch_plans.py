"""How the processes of a run are started: by Horovod's launcher, by mpirun, or by our own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ssd_centernet.runtime.starter import free_addresses

ENGINES = ("horovod", "tf", "mpi")
# On several machines each has a `launch` of its own, and one may begin again while processes of
# before are left on another: these end within some ten seconds, when they have noticed.
_SETTLING_SECONDS = 20.0
_STARTER = (sys.executable, "-m", "ssd_centernet.runtime.starter")
# A process that was told to end has this status: 128 + the number of the signal.
_TOLD = tuple(128 + number for number in (signal.SIGTERM, signal.SIGINT))
# Seconds from mpirun's SIGTERM to its SIGKILL, when a process has failed; one is too short to tell.
_MPI_PATIENCE = "5"
_MPI_BINDS = ("--bind-to", "-bind-to", "--map-by", "-map-by", "--rankfile", "-rf", "--cpu-set")
# What mpirun tells the processes of other machines of the environment.
_MPI_SENT = ("CUDA_", "HOROVOD_", "LD_LIBRARY_PATH", "NCCL_", "OMP_", "PATH", "PYTHON")
_MPI_SENT += ("SSD_CENTERNET_", "TF_", "XLA_")
# Of Gaudi's software, whose kernels the first names, and of MLUs.
_MPI_SENT += ("GC_KERNEL_PATH", "HABANA_", "HCL_", "MLU_")
# Of what `launch` sets for its processes.
_MPI_SET = ("OMP_NUM_THREADS", "SSD_CENTERNET_FAILURES", "TF_NUM_INTRAOP_THREADS")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How the processes of a run are started.

    Attributes:
        program: that starts them, for messages.
        line: returns its command line, anew for each start.
        local: processes of this machine, the most that one has.
        pause: seconds to wait before they start again.
        told: statuses by which a process ends that was told to end.
    """

    program: str
    line: Callable[[], list[str]]
    local: int
    pause: float = 0.0
    told: tuple[int, ...] = ()


def horovod_plan(
    command: Sequence[str], num_processes: int, hosts: str | None, launcher_args: Sequence[str]
) -> Plan:
    """Let horovodrun start the processes, those of other machines too.

    Args:
        command: that every process runs.
        num_processes: over all machines.
        hosts: machines and their numbers of processes, such as "a:8,b:8"; None is this machine.
        launcher_args: more arguments of horovodrun.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: horovodrun is not installed.
        ValueError: `hosts` is written in another way.
    """
    beside = Path(sys.executable).with_name("horovodrun")
    found = str(beside) if beside.exists() else shutil.which("horovodrun")
    if found is None:
        raise FileNotFoundError(
            "horovodrun, which starts several processes, is not installed. Build Horovod with "
            "`bash scripts/install_horovod.sh`, let TensorFlow join the processes "
            "(`ssd_centernet launch --engine=tf`), or train in one process with "
            "`ssd_centernet train`."
        )
    line = [found, "-np", str(num_processes), *(["-H", hosts] if hosts else [])]
    line += [*launcher_args, *command]
    local = num_processes if hosts is None else max(processes_by_host(hosts).values())
    return Plan(program="horovodrun", line=lambda: line, local=local)


def tensorflow_plan(
    command: Sequence[str], num_processes: int, hosts: str | None, port: int
) -> Plan:
    """Start the processes of this machine, which TensorFlow joins with those of the others.

    Args:
        command: that every process runs.
        num_processes: over all machines.
        hosts: machines and their numbers of processes, such as "a:8,b:8"; None is this machine.
        port: that the first process of each machine listens on where `hosts` are given, the next
            ones on those above it.

    Returns:
        The plan.

    Raises:
        ValueError: `hosts` is written in another way, does not add up, or does not name this
            machine.
    """
    shared = {"program": "the program that starts the processes", "told": _TOLD}
    if hosts is None:

        def line() -> list[str]:
            addresses = ",".join(free_addresses(num_processes))
            return [*_STARTER, addresses, "0", str(num_processes), *command]

        return Plan(line=line, local=num_processes, **shared)
    counts = processes_by_host(hosts)
    if sum(counts.values()) != num_processes:
        raise ValueError(
            f"--num_processes is {num_processes}, but --hosts={hosts} has {sum(counts.values())}."
        )
    here = _this_machine(counts)
    addresses = [f"{host}:{port + n}" for host, count in counts.items() for n in range(count)]
    first = sum(count for host, count in list(counts.items())[: list(counts).index(here)])
    line = [*_STARTER, ",".join(addresses), str(first), str(counts[here]), *command]
    return Plan(line=lambda: line, local=counts[here], pause=_SETTLING_SECONDS, **shared)


def mpi_plan(
    command: Sequence[str], num_processes: int, hosts: str | None, launcher_args: Sequence[str]
) -> Plan:
    """Let OpenMPI's mpirun start the processes, those of other machines too.

    Args:
        command: that every process runs. TensorFlow joins them, or Horovod by --use_horovod.
        num_processes: over all machines.
        hosts: machines and their numbers of processes, such as "a:8,b:8"; None is this machine.
        launcher_args: more arguments of mpirun. Without any on binding, processes are not bound:
            mpirun would give each of two a single core.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: mpirun is not installed.
        ValueError: mpirun is that of another MPI; `hosts` is written in another way.
    """
    found = shutil.which("mpirun")
    if found is None:
        raise FileNotFoundError(
            "mpirun, which --engine=mpi starts the processes by, is not installed. Install OpenMPI "
            "(Debian: apt-get install openmpi-bin), or leave it out: --engine=tf."
        )
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" not in told and "OpenRTE" not in told:
        name = (told.splitlines() or ["nothing"])[0]
        raise ValueError(
            f"{found} is not OpenMPI's (it says {name!r}), and --engine=mpi knows that one alone. "
            "Let PATH begin with OpenMPI's folder, or take --engine=tf."
        )
    counts = processes_by_host(hosts) if hosts else {"localhost": num_processes}
    line = [found, "--tag-output", "--mca", "odls_base_sigkill_timeout", _MPI_PATIENCE]
    line += ["-np", str(num_processes), "-H", hosts or f"localhost:{num_processes}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-run-as-root")
    if not set(launcher_args).intersection(_MPI_BINDS):
        line += ["--bind-to", "none"]
    line += launcher_args

    if hosts:  # Other machines have none of the environment.
        sent = {name for name in os.environ if name.startswith(_MPI_SENT)}.union(_MPI_SET)
        line += [word for name in sorted(sent) for word in ("-x", name)]
    line += [*_STARTER, "mpi", *command]
    return Plan(program="mpirun", line=lambda: line, local=max(counts.values()), told=_TOLD)


def make_plan(
    engine: str,
    command: Sequence[str],
    num_processes: int,
    hosts: str | None,
    port: int,
    launcher_args: Sequence[str],
) -> Plan:
    """Choose how the processes are started; the arguments are those of the plans.

    Args:
        engine: one of `ENGINES`.
        command: that every process runs.
        num_processes: over all machines.
        hosts: machines and their numbers of processes.
        port: of `tensorflow_plan`.
        launcher_args: of the other two.
    """
    if engine == "tf":
        return tensorflow_plan(command, num_processes, hosts, port)
    plan = mpi_plan if engine == "mpi" else horovod_plan
    return plan(command, num_processes, hosts, launcher_args)


def processes_by_host(hosts: str) -> dict[str, int]:
    """Read "a:8,b:8".

    Args:
        hosts: machines and their numbers of processes.

    Raises:
        ValueError: it is written in another way.
    """
    counts = {}
    for part in hosts.split(","):
        name, _, count = part.strip().partition(":")
        if not name or not count.isdigit() or int(count) < 1 or name in counts:
            raise ValueError(
                f"--hosts has {part.strip()!r}; expected machine:processes pairs such as "
                "'a:8,b:8', where processes are those of that machine."
            )
        counts[name] = int(count)
    return counts


def _this_machine(names: Sequence[str]) -> str:
    """Return the name that is of this machine: a server can listen on its address here alone."""
    found = [name for name in names if _is_here(name)]
    if len(found) != 1:
        what = "none is" if not found else f"{' and '.join(found)} are"
        raise ValueError(
            f"of the machines in --hosts ({', '.join(names)}) {what} this one. With --engine=tf "
            "the same command is given on every machine, and each finds itself by the addresses "
            "of the names: name each machine once, by a name or an address that all of them reach "
            "it by."
        )
    return found[0]


def _is_here(name: str) -> bool:
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            name, 0, type=socket.SOCK_STREAM
        ):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as one:
                one.bind(address)
                return True
    return False
