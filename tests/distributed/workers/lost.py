"""The second of two processes is halted before an operation; the first tells how that one ends."""

import os
import signal
import sys

import tensorflow as tf

from ssd_centernet.runtime.distribution import LostProcessError, connect

variable = tf.Variable([1.0, 2.0])


def graph(processes):
    function = tf.function(lambda: processes.mean_gradients([variable * 2.0]))
    with processes.together("a graph"):
        function()


OPERATIONS = {
    "a graph": graph,
    "mean variables": lambda processes: processes.mean_variables([variable]),
    "broadcast": lambda processes: processes.broadcast([variable]),
    "gather": lambda processes: processes.gather([1]),
    "barrier": lambda processes: processes.leave(),
}


def main():
    name = sys.argv[1]
    processes = connect(True)
    processes.mean({"a": 1.0})
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        OPERATIONS[name](processes)
    except LostProcessError as error:
        print(error, flush=True)
        os._exit(75)


if __name__ == "__main__":
    main()
