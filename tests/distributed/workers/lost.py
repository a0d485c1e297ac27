"""The second of two processes is lost before an operation; the first tells how that one ends.

Where LOST_ONCE names a file it is lost once: the file remembers its number.
"""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import tensorflow as tf

from ssd_centernet.runtime.distribution import LostProcessError, connect


def graph(processes, variable):
    function = tf.function(lambda: processes.mean_gradients([variable * 2.0]))
    with processes.together("a graph"):
        function()


OPERATIONS = {
    "a graph": graph,
    "mean variables": lambda processes, variable: processes.mean_variables([variable]),
    "broadcast": lambda processes, variable: processes.broadcast([variable]),
    "gather": lambda processes, _: processes.gather([1]),
    "barrier": lambda processes, _: processes.leave(),
}


def halt():
    os.kill(os.getpid(), signal.SIGSTOP)


def disconnect():
    """End all connections, as a network that is cut does once this is noticed."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                one.shutdown(socket.SHUT_RDWR)


def main():
    name, lose = sys.argv[1], {"halt": halt, "disconnect": disconnect}[sys.argv[2]]
    processes = connect(bool({"HOROVOD_RANK", "BY_HOROVOD"}.intersection(os.environ)))
    variable = tf.Variable([1.0, 2.0])  # Made when the processes are joined.
    processes.mean({"a": 1.0})
    mark = Path(os.environ.get("LOST_ONCE", os.devnull))
    if processes.rank == 1 and not mark.is_file():
        mark.write_text(str(os.getpid()))
        lose()
    try:
        OPERATIONS[name](processes, variable)
    except LostProcessError as error:
        print(error, flush=True)
        os._exit(75)


if __name__ == "__main__":
    main()
