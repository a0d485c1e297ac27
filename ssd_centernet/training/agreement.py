"""Whether everything that takes part in a run still trains the same model."""

from __future__ import annotations

import hashlib

import tensorflow as tf

from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.replicas import copies


def check_agreement(state: list[tf.Variable], step: int, communicator: Communicator) -> None:
    """Make sure that all processes and devices have the same state, bit for bit.

    Args:
        state: all variables that must be equal.
        step: number of updates done, for the message.
        communicator: connects the processes.

    Raises:
        RuntimeError: their states differ; further steps would train different models.
    """
    if communicator.size * communicator.replicas == 1:
        return
    # Eight bytes of each: enough to tell them apart, and little to send.
    ours = [
        [hashlib.sha256(copies(v)[replica].numpy().tobytes()).digest()[:8] for v in state]
        for replica in range(communicator.replicas)
    ]
    mine = communicator.rank * communicator.replicas
    what = "devices" if communicator.size == 1 else "processes"
    for number, theirs in enumerate(communicator.gather(ours)):
        differing = [v.name for v, a, b in zip(state, ours[0], theirs, strict=True) if a != b]
        if differing:
            raise RuntimeError(
                f"at step {step} {what} {mine} and {number} differ in {len(differing)} of "
                f"{len(state)} variables, such as {differing[0]!r}. All began with the same "
                "weights and get the same gradients, so one has another program, version or "
                "precision, or a faulty device. Nothing was saved; give the same command again to "
                "go on from the last checkpoint."
            )
