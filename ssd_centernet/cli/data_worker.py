"""Make training batches for trainings in other processes or on other machines.

Examples:
  ssd_centernet data_worker --port=5050
  ssd_centernet train --data_service=grpc://localhost:5050 --gin_file=ssd300_resnet34 \\
      --data_dir=data/coco --model_dir=runs/ssd300

Start one on each machine that is to read, unpack and augment pictures; it needs the records under
the path that the training is given, and the same versions. Name all of them, with commas between,
in --data_service. Recipe, seed and position come from the training; the batches are those that it
would make itself. Ctrl-C or SIGTERM ends a worker; the training goes on with those that are left.

TensorFlow's data service asks nobody for a password, and runs what it is sent: whoever reaches the
ports of a worker can do what you can. docs/distributed.md says how workers are kept apart.
"""

from __future__ import annotations

import sys
import threading

from absl import flags

from ssd_centernet.cli import _runs
from ssd_centernet.data_service.addresses import PORT, is_loopback


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address under which trainings reach this machine. Any other than the machine's own asks "
        "for --closed_network.",
    )
    flags.DEFINE_integer(
        "port",
        PORT,
        "Port that trainings are given; the next two are used too. 0 takes free ones.",
        lower_bound=0,
        upper_bound=2**16 - 3,
    )
    flags.DEFINE_boolean(
        "closed_network",
        False,
        "Say that nobody whom you do not trust reaches the ports of this machine: a worker runs "
        "what anyone sends it.",
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        0, after a signal.
    """
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    from ssd_centernet.data_service.worker import data_worker
    from ssd_centernet.runtime.device import select_device
    from ssd_centernet.runtime.signals import noted

    select_device("cpu")
    ended = threading.Event()
    options = {"closed_network": values.closed_network}
    with noted(lambda _number: ended.set()):
        with data_worker(values.host, values.port, **options) as address:
            if not is_loopback(values.host):
                print(f"warning: {_WARNING}", file=sys.stderr)
            print(
                f"ready: ssd_centernet train --data_service={address} (Ctrl-C ends it)", flush=True
            )
            while not ended.wait(0.5):
                pass
    return 0


_WARNING = (
    "this worker asks nobody for a password, encrypts nothing and runs any graph that it is sent: "
    "whoever reaches its ports can read and write files as you. You have said that their network "
    "is closed to all whom you do not trust."
)
