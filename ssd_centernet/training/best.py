"""The best evaluation of a run: keep its weights, and count the evaluations since."""

from __future__ import annotations

from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.log_files import (
    beats,
    evaluations_without_best,
    recorded_evaluations,
)


class BestKeeper:
    """Keep the checkpoint of the best evaluation, and count the evaluations without a better one.

    Attributes:
        evaluations_since: evaluations since the best one, the same on every process.
    """

    def __init__(
        self,
        checkpoints: RunCheckpoints,
        *,
        metric: str | None,
        higher_is_better: bool,
        patience: int | None,
    ):
        """Set up the comparison.

        Args:
            checkpoints: checkpoints of the run directory.
            metric: name of the metric that decides; None keeps and counts nothing.
            higher_is_better: direction of that metric.
            patience: number of evaluations without a better one after which training stops; None
                for no limit.
        """
        self._checkpoints = checkpoints
        self._communicator = checkpoints.trainer.communicator
        self._metric = metric
        self._higher_is_better = higher_is_better
        self._patience = patience
        self.evaluations_since = 0

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the run has gone on for too long without a better evaluation."""
        return self._patience is not None and self.evaluations_since >= self._patience

    def resume_at(self, step: int, *, evaluates: bool) -> bool:
        """Count from the evaluations that the run has recorded.

        Args:
            step: step where the run goes on.
            evaluates: whether this step has an evaluation.

        Returns:
            Whether that evaluation must be made up: it was not recorded, or it is the best one and
            the run was killed before its weights were copied.
        """
        # The chief reads the files; every process must do the same.
        found = self._read(step, evaluates) if self._communicator.is_chief else (False, 0)
        owed, self.evaluations_since = self._communicator.gather([found])[0]
        return owed

    def keep(self, metrics: dict[str, float]) -> bool:
        """Keep the current weights if their metrics are the best so far; return whether they are.

        Args:
            metrics: metrics of the evaluation at the current step.
        """
        if self._metric is None:
            return False
        best = self._checkpoints.keep_best(
            metrics, self._metric, higher_is_better=self._higher_is_better
        )
        self.evaluations_since = 0 if best else self.evaluations_since + 1
        return best

    def _read(self, step: int, evaluates: bool) -> tuple[bool, int]:
        records = recorded_evaluations(self._checkpoints.model_dir, until_step=step)
        at_step = bool(records) and records[-1]["step"] == step
        owed = evaluates and not (at_step and self._is_safe(records[-1]))
        # An evaluation that is made up counts once.
        records = records[:-1] if at_step and owed else records
        direction = {"higher_is_better": self._higher_is_better}
        return owed, evaluations_without_best(records, str(self._metric), **direction)

    def _is_safe(self, record: dict[str, float]) -> bool:
        """Whether `best/` holds what is at least as good as a recorded evaluation."""
        if self._metric not in record:
            return True
        best = (self._checkpoints.best_metrics() or {}).get(self._metric)
        return not beats(record[self._metric], best, higher_is_better=self._higher_is_better)
