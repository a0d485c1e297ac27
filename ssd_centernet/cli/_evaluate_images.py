"""Evaluation one picture after the other: of exported files, and in tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags, _runs, _tiles
from ssd_centernet.run_directory import EVALUATION_DIR

if TYPE_CHECKING:
    from ssd_centernet.ops.tiles import Tiles
    from ssd_centernet.runs.evaluation import SplitResult

_BATCH_SIZE = 8


def evaluate_images(
    show: Callable[[SplitResult, dict[str, str]], None], tell_replaced: Callable, options: dict
) -> int:
    """Evaluate --model, or --model_dir in tiles, and print the result.

    Args:
        show: prints an evaluation and the files that were written.
        tell_replaced: says what is lost in a folder.
        options: of the metric, as of `evaluate_exported`.

    Returns:
        The exit status.
    """
    values, tiles = flags.FLAGS, _tiles.tiles_of_flags()
    _refuse(tiles)
    data_dir = values.data_dir if values.model else _runs.data_dir_of_flags()
    detector, run, name, remembered = _open()
    split = _runs.whole_split(data_dir, values.split, *remembered)
    label_map = detector.label_map if run is None else run.label_map
    facts: dict[str, Any] = {"split": split} | _tiles.tell_tiles_of_data(data_dir, split)
    if tiles is not None:
        detector = _tiles.tiled(detector, label_map, tiles, values.batch_size or _BATCH_SIZE)
        facts["tiles"] = {"size": tiles.size, "overlap": tiles.overlap} | detector.merging
    evaluated = _evaluate(detector, data_dir, split, options)
    directory = values.output_dir
    if run is not None:
        directory = directory or Path(values.model_dir) / EVALUATION_DIR
    page, paths = None, {}
    if values.report:
        from ssd_centernet.runs.evaluation import evaluation_page

        places = {"model_dir": values.model_dir, "data_dir": data_dir, "split": split}
        page = evaluation_page(evaluated, run, tiles=tiles, **places)
    if directory:
        from ssd_centernet.runs.evaluation import save_evaluation

        facts |= {"model": values.model} if run is None else {"checkpoint": run.checkpoint}
        facts |= {"weights": "raw"} if run is not None and run.trained else {}
        tell_replaced(directory, split=split, page=bool(page))
        paths = save_evaluation(evaluated, directory, page=page, **facts)
    in_tiles = f" in tiles of {tiles.size} pixels, {tiles.overlap} in common" if tiles else ""
    print(f"{name} on {split} of {data_dir}{in_tiles}\n")
    show(evaluated, paths)
    if run is not None:
        _runs.tell_next("predict", f"--model_dir={values.model_dir}", f"--tiles={values.tiles}")
    return 0


def _refuse(tiles: Tiles | None) -> None:
    """Refuse flags that mean nothing here."""
    values = flags.FLAGS
    if values.model is not None:
        more = ("every_checkpoint", "wait", "timeout", "batch_size", "use_horovod")
        _runs.refuse_with_model(*more)
        _flags.require("data_dir")
        if values.report:
            raise flags.Error("--report shows the evaluation of a run; leave it out with --model.")
        return
    _flags.require("model_dir")
    names = ("every_checkpoint", "wait", "timeout", "use_horovod")
    given = [f"--{name}" for name in names if values[name].value]
    if tiles is not None and given:
        raise flags.Error(
            f"{', '.join(given)} cannot be used with --tiles, which is for one checkpoint in one "
            "process: leave out one of them."
        )


def _open() -> tuple[Any, Any, str, tuple[str, ...]]:
    """Open what is evaluated: the detector, its run or None, its name, and the run's split."""
    values = flags.FLAGS
    if values.model is not None:
        from ssd_centernet.export.exported import ExportedDetector

        return ExportedDetector(values.model), None, values.model, ()
    run = _runs.open_run_of_flags(checkpoint=values.checkpoint)
    name = f"{'raw weights of ' * run.trained}{run.checkpoint}"
    return run.detector, run, name, (run.eval_split,)


def _evaluate(detector: Any, data_dir: str, split: str, options: dict) -> SplitResult:
    """Evaluate on every image, with a progress bar."""
    from ssd_centernet.runs.exported import evaluate_exported

    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or _runs.progress_bar(total)
        bar.update(done - bar.n)

    evaluated = evaluate_exported(detector, data_dir, split, progress=progress, **options)
    if bar is not None:
        bar.close()
    return evaluated
