"""Evaluations during training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.detector import detection_step, evaluate_detector
from ssd_centernet.evaluation.diagnosis import diagnose
from ssd_centernet.evaluation.replaced import describe_replaced
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.plain_text import counted
from ssd_centernet.run_directory import EVAL_KIND, EVALUATION_DIR
from ssd_centernet.runtime.signals import Stopped, interruptible
from ssd_centernet.training.length import LOSS_PREFIX
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.trainer import Trainer


class SplitEvaluation:
    """Evaluate the current weights of a training on a split at each call."""

    def __init__(
        self,
        trainer: Trainer,
        log: TrainLog,
        evaluator: CocoEvaluator,
        batches: Iterable[dict],
        *,
        show: Callable[[int, CocoResult], None],
        split: str | None = None,
    ):
        """Join the parts; nothing is traced or read yet.

        Args:
            trainer: the trainer whose detector is evaluated.
            log: log of the run.
            evaluator: for the ground truth of the split.
            batches: batches of the split, see `Recipe.evaluation_batches`.
            show: draws pictures of a step and its result.
            split: name of the split, for the files.
        """
        self._trainer = trainer
        self._log = log
        self._evaluator = evaluator
        self._batches = batches
        self._show, self._split = show, split
        self._step = detection_step(trainer.detector, with_losses=True)

    def __call__(self) -> dict[str, float]:
        """Evaluate once and return the 12 COCO metrics and the loss parts.

        Raises:
            Stopped: a signal came on one of the processes before the result was recorded; raised on
                all of them.
        """
        step, communicator = int(self._trainer.step), self._trainer.communicator
        # All processes need the same weights, or the result would depend on which one gets an
        # image.
        self._trainer.share_statistics()
        metrics, stop = {}, None
        try:
            result, losses = evaluate_detector(
                self._trainer.detector,
                self._batches,
                self._evaluator,
                step=self._step,
                communicator=communicator,
            )
            if communicator.is_chief:
                metrics = self._record(step, result, losses)
        except Stopped as stopped:
            stop = stopped.number
        metrics, stop = communicator.gather([(metrics, stop)])[0]
        if stop is not None:
            raise Stopped(stop)
        return metrics

    def _record(self, step: int, result: CocoResult, losses: dict[str, float]) -> dict[str, float]:
        """Write what an evaluation gave; the line in the log comes last of what a resume needs."""
        began = time.perf_counter()
        parts = {LOSS_PREFIX + name: value for name, value in losses.items()}
        metrics = {**result.metrics, **parts}
        folder = self._log.folder / EVALUATION_DIR
        for line in describe_replaced(folder, split=self._split):
            self._log.say(f"note: {line}")
        with interruptible():
            result.save(folder, facts={"split": self._split} if self._split else None)
        shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("AP", "AP50", "AP75"))
        self._log.say(
            f"evaluation at step {step}: {shown}  ({counted(result.num_images, 'image')})"
        )
        if step >= self._trainer.length.total_steps:
            for line in result.coco_lines():
                self._log.say(line)
        done = min(step / self._trainer.length.total_steps, 0.999)
        hint = diagnose(result, self._evaluator.ground_truth, done=done)
        if hint:
            self._log.say(f"  {hint}")
        self._log.write(EVAL_KIND, step, metrics)
        # The evaluation counts: a signal that ends the drawing is answered after the next call.
        with contextlib.suppress(Stopped), interruptible():
            self._show(step, result)
        self._log.say(f"  {result.took(report=time.perf_counter() - began)}")
        return metrics
