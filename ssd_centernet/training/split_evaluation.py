"""Evaluations of the weights of a running training."""

from __future__ import annotations

from pathlib import Path

from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.detector import (
    detection_step,
    evaluate_detector,
    fitting_batch_size,
    split_ground_truth,
)
from ssd_centernet.evaluation.diagnosis import diagnose
from ssd_centernet.labels import LabelMap
from ssd_centernet.run_directory import EVALUATION_DIR
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.pictures import PictureBoard
from ssd_centernet.training.trainer import Trainer


class SplitEvaluation:
    """Evaluate the weights of a running training on a split."""

    def __init__(
        self,
        trainer: Trainer,
        log: TrainLog,
        board: PictureBoard,
        label_map: LabelMap,
        data_dir: str | Path,
        *,
        split: str | None,
    ):
        """Note what to evaluate and where numbers and pictures go."""
        self._trainer = trainer
        self._detector = trainer.detector
        self._communicator = trainer.communicator
        self._log = log
        self._board = board
        self._label_map = label_map
        self._data_dir = data_dir
        self._split = split

    def prepare(self, batch_size: int, every: int = 1) -> SplitEvaluation | None:
        """Load the split's ground truth and build its batches once for all evaluations.

        Args:
            batch_size: images a step of this process.
            every: distance of the evaluations in steps; 0 for none.

        Returns:
            This, to be called; None where there are no evaluations, whose data may be missing.

        Raises:
            FileNotFoundError: the data folder lacks the split.
        """
        if not every:
            return None
        try:
            ground_truth = split_ground_truth(self._data_dir, self._split, self._label_map)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no data to evaluate on: {error} Convert that split too, set train.eval_split to "
                "one that is there, or train without evaluations: --mode=train."
            ) from error
        self._evaluator = CocoEvaluator(ground_truth, category_ids=self._label_map.ids)
        self._batches = evaluation_batches(
            str(self._data_dir),
            split=self._split,
            label_map=self._label_map,
            batch_size=fitting_batch_size(batch_size, ground_truth, self._communicator),
            preprocess=self._detector.preprocessing,
            rank=self._communicator.rank,
            world_size=self._communicator.size,
        )
        self._step = detection_step(self._detector, with_losses=True)
        return self

    def __call__(self) -> dict[str, float]:
        """Evaluate once and return the twelve COCO metrics and the loss parts."""
        step = int(self._trainer.step)
        # Processes detect with the same weights, or it would matter which one sees an image.
        self._trainer.share_statistics()
        result, losses = evaluate_detector(
            self._detector,
            self._batches,
            self._evaluator,
            step=self._step,
            communicator=self._communicator,
        )
        metrics = {}
        if self._communicator.is_chief:
            metrics = {**result.metrics, **{f"loss_{n}": value for n, value in losses.items()}}
            shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("AP", "AP50", "AP75"))
            self._log.say(f"evaluation at step {step}: {shown}  ({result.num_images} images)")
            hint = diagnose(result, self._evaluator.ground_truth)
            if hint:
                self._log.say(f"  {hint}")
            self._log.write("eval", step, metrics)
            result.save(self._log.folder / EVALUATION_DIR)
            self._board.show_predictions(step, result, self._data_dir, self._split)
        return self._communicator.gather([metrics])[0]
