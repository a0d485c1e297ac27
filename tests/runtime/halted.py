"""`ssd_centernet` with a function that halts, so that a signal finds the command in a known place.

    python -m tests.runtime.halted MODULE:FUNCTION HOW MARK COMMAND...

The first call writes the process's number to the file MARK. HOW it halts: "python" in instructions
of Python, "deaf" in a long call of C; "input" not the call, but the fourth batch of the data set
that it returns. The variable PATIENCE has the seconds until a command ends that does not answer.
"""

import contextlib
import ctypes
import functools
import importlib
import os
import sys
import threading
import time
from pathlib import Path

from ssd_centernet.cli.main import run
from ssd_centernet.runtime import signals


def halt(how: str, mark: str) -> None:
    number = Path(f"{mark}.{os.getpid()}")
    number.write_text(str(os.getpid()))

    def show() -> None:
        # Of several processes the first one halts.
        with contextlib.suppress(FileExistsError):
            os.link(number, mark)

    if how == "deaf":
        # Only once it hears nothing may a signal come.
        threading.Timer(0.3, show).start()
        # Taken twice, a lock of C is waited for without end and without work; no signal helps.
        lock = ctypes.create_string_buffer(64)
        for _ in range(2):
            ctypes.CDLL(None).pthread_mutex_lock(lock)
    show()
    if Path(mark).read_text() != number.read_text():
        return
    for _ in range(6000):
        time.sleep(0.01)


def halted_input(dataset, mark: str):
    import tensorflow as tf

    def pass_three(index, batch):
        if index == 3:
            halt("python", mark)
        return batch

    def one(index, batch):
        images = tf.numpy_function(pass_three, [index, batch["image"]], batch["image"].dtype)
        return {**batch, "image": tf.ensure_shape(images, batch["image"].shape)}

    return dataset.enumerate().map(one)


def install(place: str, how: str, mark: str) -> None:
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    for one in classes:
        owner = getattr(owner, one)
    whole = getattr(owner, name)

    @functools.wraps(whole)
    def halting(*args, **kwargs):
        if how == "input":
            return halted_input(whole(*args, **kwargs), mark)
        if not os.path.exists(mark):
            halt(how, mark)
        return whole(*args, **kwargs)

    setattr(owner, name, halting)


if __name__ == "__main__":
    _, place, how, mark, *command = sys.argv
    signals.PATIENCE = float(os.environ.get("PATIENCE", signals.PATIENCE))
    install(place, how, mark)
    run(["ssd_centernet", *command])
