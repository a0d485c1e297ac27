"""The evaluation of a run on a split: metrics, the files and the page that hold them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssd_centernet.data.directory import LABEL_MAP_NAME, load_label_map
from ssd_centernet.data.pipeline import evaluation_batches
from ssd_centernet.data.shards import failures_named
from ssd_centernet.data.splits import same_role
from ssd_centernet.evaluation.coco import CocoEvaluator, CocoResult
from ssd_centernet.evaluation.detector import (
    detection_step,
    evaluate_detector,
    fitting_batch_size,
    split_ground_truth,
)
from ssd_centernet.evaluation.diagnosis import diagnose
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.limits import COCO_LIMIT
from ssd_centernet.evaluation.report import html_report
from ssd_centernet.evaluation.report_images import images_of_records
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.run_directory import CONFIG_NAME
from ssd_centernet.runs.opened import OpenedRun
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.training.statistics import describe_late_averages


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitResult:
    """Hold what the evaluation of a run on a split gave.

    Attributes:
        result: the COCO numbers and the detections.
        losses: means of the loss parts over whole batches; empty where no process had one.
        hint: one line that says why AP is near zero or low, or None.
    """

    result: CocoResult
    losses: dict[str, float]
    hint: str | None


class RunEvaluation:
    """Evaluate the weights that a run's detector has on every image of a split, at each call."""

    def __init__(
        self,
        run: OpenedRun,
        data_dir: str | Path,
        *,
        split: str | None = None,
        batch_size: int = 16,
        max_detections: int = COCO_LIMIT,
        backend: str = "auto",
        communicator: Communicator | None = None,
    ):
        """Read the ground truth, once for all calls; for arguments and errors see `evaluate_run`.

        Args:
            run: of `open_run`.
            data_dir: folder of converted data.
            split: prefix of the record files.
            batch_size: images per step.
            max_detections: most detections of one class that count in one image.
            backend: library that matches, as in `CocoEvaluator`.
            communicator: connects the processes.
        """
        self._detector, self._data_dir = run.detector, data_dir
        self._communicator = communicator or SingleProcess()
        self.split = split or same_role(data_dir, run.eval_split)
        data = load_label_map(data_dir)
        check_same_classes(run.label_map, data, data_dir)
        own = run.label_map
        label_map = LabelMap(own.names, own.ids, other_names=own.other_names | data.other_names)
        truth = split_ground_truth(data_dir, self.split, label_map)
        self._evaluator = CocoEvaluator(
            truth, category_ids=own.ids, max_detections=max_detections, backend=backend
        )
        self._batches = evaluation_batches(
            str(data_dir),
            split=self.split,
            label_map=label_map,
            batch_size=fitting_batch_size(batch_size, truth.num_images, self._communicator.size),
            preprocess=run.detector.preprocessing,
            views_of=run.detector.views_of,
            make_targets=run.detector.pipeline_targets(),
            rank=self._communicator.rank,
            world_size=self._communicator.size,
        )
        self._step = detection_step(run.detector, with_losses=True)

    def __call__(self, progress: Callable[[int, int], None] | None = None) -> SplitResult | None:
        """Evaluate once.

        Args:
            progress: called with (images done, images in all) after every batch.

        Returns:
            Metrics, losses and a hint; None on all processes but the first.
        """
        truth = self._evaluator.ground_truth
        with failures_named(self._data_dir, [self.split]):
            result, losses = evaluate_detector(
                self._detector,
                self._batches,
                self._evaluator,
                step=self._step,
                progress=_counted(progress, truth, self._communicator.size),
                communicator=self._communicator,
            )
        if result is None:
            return None
        return SplitResult(result=result, losses=losses, hint=diagnose(result, truth))


def evaluate_run(
    run: OpenedRun,
    data_dir: str | Path,
    *,
    split: str | None = None,
    batch_size: int = 16,
    max_detections: int = COCO_LIMIT,
    backend: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    communicator: Communicator | None = None,
) -> SplitResult | None:
    """Evaluate a trained detector on every image of a split, each once.

    Args:
        run: of `open_run`.
        data_dir: folder of converted data with the classes of the run.
        split: prefix of the record files; None is that of the training.
        batch_size: images per step; it changes the speed and not the result.
        max_detections: most detections of one class that count in one image.
        backend: library that matches, as in `CocoEvaluator`.
        progress: called with (images done, images in all) after every batch.
        communicator: connects the processes, each of which evaluates its share of the images.

    Returns:
        Metrics, losses and a hint; None on all processes but the first.

    Raises:
        FileNotFoundError: no such data.
        ValueError: the data has other classes than the run.
    """
    evaluation = RunEvaluation(
        run,
        data_dir,
        split=split,
        batch_size=batch_size,
        max_detections=max_detections,
        backend=backend,
        communicator=communicator,
    )
    evaluated = evaluation(progress)
    late = describe_late_averages(run.detector, run.checkpoint)
    if evaluated is None or late is None:
        return evaluated
    return dataclasses.replace(evaluated, hint=late)


def save_evaluation(
    evaluated: SplitResult,
    directory: str | os.PathLike,
    *,
    page: str | None = None,
    **facts: str,
) -> dict[str, str]:
    """Write the files of an evaluation, see `CocoResult.save`.

    Args:
        evaluated: of `evaluate_run`.
        directory: where to write; created if missing.
        page: of `evaluation_page`, to be `report.html` beside them.
        **facts: what `metrics.json` says beside the numbers: the checkpoint, the split.

    Returns:
        File name -> path written.
    """
    facts = {**facts, "losses": evaluated.losses}
    return evaluated.result.save(directory, facts=facts, page=page)


def evaluation_page(
    evaluated: SplitResult,
    run: OpenedRun,
    *,
    model_dir: str | Path | None,
    data_dir: str | Path,
    split: str,
    tiles: Tiles | None = None,
) -> str:
    """Make the page that shows an evaluation, with pictures from the records.

    Args:
        evaluated: of `evaluate_run`.
        run: what was evaluated.
        model_dir: directory of the run, of which the page shows the settings; None where there is
            none, as of a detector that a notebook trained.
        data_dir: folder of the data that it was evaluated on.
        split: prefix of the record files.
        tiles: how pictures were cut, if they were.

    Returns:
        The page, HTML.
    """
    weights = sum(int(np.prod(variable.shape)) for variable in run.detector.weights)
    facts = {
        "checkpoint": run.checkpoint,
        "data": f"{split} of {data_dir}",
        **({"tiles": f"{tiles.size} pixels, {tiles.overlap} in common"} if tiles else {}),
        "model": type(run.detector).__name__,
        "numbers in its weights": f"{weights:,}",
        **{f"loss: {name}": f"{value:.4f}" for name, value in evaluated.losses.items()},
    }
    title, settings = f"{Path(run.checkpoint).name} on {split}", None
    if model_dir is not None:
        title = f"{Path(model_dir).name}, {title}"
        settings = (Path(model_dir) / CONFIG_NAME).read_text(encoding="utf-8")
    return html_report(
        evaluated.result,
        split_ground_truth(data_dir, split, run.label_map),
        title=title,
        facts=facts,
        hint=evaluated.hint,
        settings=settings,
        load_images=images_of_records(data_dir, split, run.label_map),
    )


def check_same_classes(trained: LabelMap, data: LabelMap, data_dir: str | Path) -> None:
    """Refuse data whose classes are not among those that the detector was trained on.

    The data may have fewer, as one of several data sets that were mixed: the others have no
    objects there, and metrics are those of the data's own.

    Args:
        trained: label map of the run.
        data: label map of the data.
        data_dir: where the data lies, for the message.

    Raises:
        ValueError: names or ids differ; tells the first difference.
    """
    known = dict(zip(trained.ids, trained.names, strict=True))
    if all(known.get(i) == name for i, name in zip(data.ids, data.names, strict=True)):
        return
    first = "the data has more of them"
    pairs = [list(zip(labels.names, labels.ids, strict=True)) for labels in (trained, data)]
    for number, (ours, theirs) in enumerate(zip(*pairs, strict=False)):
        if ours != theirs:
            first = f"class {number} is {ours[0]!r} (id {ours[1]}) in the run and {theirs[0]!r} "
            first += f"(id {theirs[1]}) in the data"
            break
    raise ValueError(
        f"the label map of {data_dir} is not the one that the detector was trained with: the run "
        f"has {trained.describe()}; the data has {data.describe()}. First difference: {first}. "
        "Metrics would be meaningless: set --data_dir to data converted with the same categories "
        f"(`ssd_centernet convert --label_map` takes the run's {LABEL_MAP_NAME})."
    )


def _counted(
    progress: Callable[[int, int], None] | None, ground_truth: CocoGroundTruth, processes: int
) -> Callable[[int], None] | None:
    """Turn images of a batch into images so far, of how many."""
    if progress is None:
        return None
    done = 0

    def count(images: int) -> None:
        nonlocal done
        # Of the others nothing is known before the end; they have about as many.
        done = min(done + images * processes, ground_truth.num_images)
        progress(done, ground_truth.num_images)

    return count
