"""What a run does after a loss that is not finite: end, or go back once and try a lower rate."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ssd_centernet.plain_text import counted
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.trainer import NonFiniteLossError

# Of the schedule's rate, from the checkpoint on to the end of the run.
RATE_FACTOR = 0.5


class Recovery:
    """Bring a run that failed back to its last checkpoint, once, with half of the learning rate.

    The images after the checkpoint are the same ones again. So a run recovers where its rate was
    too high, and fails a second time where an image or an annotation is broken. Checkpoints hold
    the factor of the rate: a run that is killed and resumed goes on with it, and is not brought
    back again.
    """

    def __init__(
        self,
        checkpoints: RunCheckpoints,
        log: TrainLog,
        begin_data: Callable[[], tf.data.Dataset],
    ):
        """Join the parts.

        Args:
            checkpoints: of the run directory.
            log: log of the run.
            begin_data: makes the batches that follow the position of the trainer's state.
        """
        self._checkpoints = checkpoints
        self._trainer = checkpoints.trainer
        self._log = log
        self._begin_data = begin_data

    def recover(self, error: NonFiniteLossError) -> tf.data.Dataset:
        """Restore the last checkpoint on all processes, which have all failed at the same step.

        Args:
            error: how the run failed.

        Returns:
            The batches from there on.

        Raises:
            NonFiniteLossError: the run was brought back before, or has no checkpoint yet; `error`
                with the reason why it is not tried (again).
        """
        trainer = self._trainer
        factor = float(trainer.rate_factor)
        if factor != 1.0:
            raise NonFiniteLossError(
                f"{error} train.recovery has brought the run back before, and its rate is "
                f"{factor:g} of the schedule's already: it is not tried again."
            ) from error
        # All processes look at what the first one has: only it writes.
        path = trainer.communicator.gather([self._checkpoints.latest])[0]
        if path is None:
            raise NonFiniteLossError(
                f"{error} train.recovery had no checkpoint to go back to: set "
                "train.checkpoint_every lower, or begin with a lower --learning_rate."
            ) from error
        failed = int(trainer.step)
        if trainer.communicator.is_chief:
            self._checkpoints.resume()
        trainer.communicator.broadcast(trainer.state)
        trainer.forget_failure()
        trainer.rate_factor.assign(RATE_FACTOR)
        step = int(trainer.step)
        self._log.resume_at(step)
        self._log.session("recovery", failed, to_step=step, rate_factor=RATE_FACTOR)
        self._log.say(
            f"{error}\n"
            f"recovery: {counted(failed - step, 'step')} back to {path}, and on from there with "
            f"{RATE_FACTOR:g} of the schedule's rate. This is done once (train.recovery)."
        )
        return self._begin_data()
