"""How processes that OpenMPI's mpirun started find each other.

mpirun tells each process its number, and not where the others listen. OpenMPI's library passes this
on, once; then TensorFlow or Horovod's Gloo joins the processes, and MPI is not used any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping

from ssd_centernet.runtime.cluster import VARIABLE, started_by_mpirun

# The number in the name is that of OpenMPI's interface since 2016.
_NAMES = ("libmpi.so.40", "libmpi.so", "libmpi.40.dylib", "libmpi.dylib")
_LONGEST = 1024


def join_for_tensorflow() -> None:
    """Set TF_CONFIG from what mpirun tells; nothing where it is set, or mpirun started one process.

    Raises:
        RuntimeError: OpenMPI's library does not load.
    """
    place = started_by_mpirun()
    if place is None or place[1] == 1 or os.environ.get(VARIABLE):
        return
    rank = place[0]
    with _exchange() as exchange, socket.socket() as taken:
        taken.bind(("", 0))
        addresses = exchange(f"{_host()}:{taken.getsockname()[1]}")
    task = {"type": "worker", "index": rank}
    os.environ[VARIABLE] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def join_for_gloo(serve: Callable[[list[dict[str, int | str]]], int]) -> None:
    """Set the variables by which Horovod's launcher tells processes where they meet.

    Args:
        serve: starts in process 0 the server by which Gloo's processes meet, and returns its port;
            takes of each process its place: hostname, rank, local_rank, cross_rank and the sizes of
            these.

    Raises:
        RuntimeError: OpenMPI's library does not load.
    """
    rank = started_by_mpirun()[0]
    with _exchange() as exchange:
        hosts = exchange(_host())
        places = _places(hosts)
        port = exchange(str(serve(places)) if rank == 0 else "")[0]
    told = {
        **{name.upper(): value for name, value in places[rank].items()},
        "GLOO_RENDEZVOUS_ADDR": hosts[0],
        "GLOO_RENDEZVOUS_PORT": port,
        "CONTROLLER": "gloo",
        "CPU_OPERATIONS": "gloo",
    }
    if set(hosts) == {"127.0.0.1"}:
        told["GLOO_IFACE"] = "lo"
    # A variable that a user has set stays.
    for name, value in told.items():
        os.environ.setdefault(f"HOROVOD_{name}", str(value))


def _host() -> str:
    """Return the name by which the other processes reach this machine."""
    local, size = (os.environ.get(f"OMPI_COMM_WORLD_{name}SIZE") for name in ("LOCAL_", ""))
    return "127.0.0.1" if local == size else socket.gethostname()


def _places(hosts: list[str]) -> list[dict[str, int | str]]:
    """Return the place of each process, from the names of their machines."""
    local_ranks = [hosts[:rank].count(host) for rank, host in enumerate(hosts)]
    places = []
    for rank, (host, local_rank) in enumerate(zip(hosts, local_ranks, strict=True)):
        # Those with the same number on their machine.
        alike = [other for other, number in enumerate(local_ranks) if number == local_rank]
        places.append(
            {
                "hostname": host,
                "rank": rank,
                "size": len(hosts),
                "local_rank": local_rank,
                "local_size": hosts.count(host),
                "cross_rank": alike.index(rank),
                "cross_size": len(alike),
            }
        )
    return places


@contextlib.contextmanager
def _exchange() -> Iterator[Callable[[str], list[str]]]:
    """Yield a function that gives a text to all processes, and returns theirs by rank."""
    rank, size = started_by_mpirun()
    library, handles = _load(size)
    _checked(library, "MPI_Init", None, None)

    def exchange(text: str) -> list[str]:
        mine = ctypes.create_string_buffer(text.encode(), _LONGEST)
        whole = ctypes.create_string_buffer(_LONGEST * size)
        kind = handles["ompi_mpi_byte"]
        arguments = (mine, _LONGEST, kind, whole, _LONGEST, kind, handles["ompi_mpi_comm_world"])
        _checked(library, "MPI_Allgather", *arguments)
        begins = range(0, _LONGEST * size, _LONGEST)
        return [whole.raw[n : n + _LONGEST].rstrip(b"\0").decode() for n in begins]

    yield exchange
    _checked(library, "MPI_Finalize")


def _load(size: int) -> tuple[ctypes.CDLL, Mapping[str, object]]:
    reason = ""
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
            names = ("ompi_mpi_comm_world", "ompi_mpi_byte")
            return library, {n: ctypes.byref(ctypes.c_char.in_dll(library, n)) for n in names}
        except (OSError, ValueError) as error:  # The second: of another MPI.
            reason = reason or str(error)
    raise RuntimeError(
        f"mpirun started {size} processes, which find each other by OpenMPI's library, and it does "
        f"not load ({reason}). Install the library that belongs to this mpirun (Debian: "
        "openmpi-bin), let LD_LIBRARY_PATH name its folder, or start the processes by "
        "`ssd_centernet launch --engine=tf`."
    )


def _checked(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(library, name)(*arguments)
    if status != 0:
        raise RuntimeError(f"{name} of OpenMPI failed with code {status}: what it says is above.")
