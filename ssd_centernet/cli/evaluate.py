"""Score a trained detector on a split, or any file of detections.

Examples:
  ssd_centernet evaluate --model_dir=runs/ssd300
  ssd_centernet evaluate --model_dir=runs/ssd300 --data_dir=data/coco --split=coco_test
  ssd_centernet evaluate --detections=detections.json --annotations=instances_val2017.json
  ssd_centernet evaluate --model_dir=runs/ssd300 --data_dir=data/coco --report
  ssd_centernet evaluate --model_dir=runs/ssd300 --every_checkpoint
  ssd_centernet evaluate --model_dir=runs/ssd300 --wait
  ssd_centernet evaluate --model=exported/ssd300/model.tflite --data_dir=data/coco
  ssd_centernet evaluate --model_dir=runs/trees --tiles=400,100 --max_detections=1000

With --model_dir, the settings and classes are those that the run saved, and so is the data where
--data_dir is left out. Each form prints the
table of classes and the 12 COCO numbers over all images, and writes metrics.json, detections.json
and per_class.csv: to MODEL_DIR/evaluation, or, for a file of detections, to --output_dir if that
is given. Scoring a file needs neither a model nor tensorflow. --report adds report.html: one page
with curves, kinds of errors, confusions, calibration and the images with the most errors.

--every_checkpoint evaluates those of the run one after the other; --wait, beside a training, also
those that come, until it ends. The numbers of each go to checkpoints.jsonl in the same folder, and
`ssd_centernet report` draws them. An evaluation that waits and was stopped goes on where it was.

--model evaluates an exported file as it will run, image by image on the CPU, without the run. It
writes the files to --output_dir if that is given. --tiles cuts large pictures as `ssd_centernet
predict` does, and computes no losses.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags, _runs, _tiles
from ssd_centernet.plain_text import counted
from ssd_centernet.run_directory import EVALUATION_DIR

if TYPE_CHECKING:
    from ssd_centernet.evaluation.coco import CocoResult
    from ssd_centernet.runs.evaluation import SplitResult


def define_flags() -> None:
    """Define the flags of this command."""
    _runs.define_run_flags()
    _runs.define_model()
    _tiles.define_tiles()
    _flags.define_data_dir()
    _flags.define_use_horovod()
    flags.DEFINE_string(
        "split",
        None,
        "Prefix of the record files, or val, test, ... (default: the run's, else val).",
    )
    flags.DEFINE_alias("eval_split", "split")
    flags.DEFINE_string("output_dir", None, "Where to write (default: MODEL_DIR/evaluation).")
    flags.DEFINE_string(
        "detections", None, "Score this file, a list in COCO's result format, instead of a model."
    )
    flags.DEFINE_string("annotations", None, "COCO annotations of the images in --detections.")
    flags.DEFINE_integer(
        "max_detections",
        None,
        "Most detections of one class that count in one image (default: 100, COCO's), 11 or more: "
        "recall at 1 and at 10 is reported beside. With another limit the numbers are not COCO's.",
    )
    flags.DEFINE_enum(
        "backend",
        None,
        ("auto", "hotcoco", "faster_coco_eval", "pycocotools"),
        "Library that matches detections with objects; all give the same bits (default: auto, the "
        "first of these that is installed).",
    )
    flags.DEFINE_boolean("report", None, "Write the page report.html too.")
    flags.DEFINE_boolean(
        "every_checkpoint", None, "Evaluate every checkpoint of the run, in the order of steps."
    )
    flags.DEFINE_boolean(
        "wait", None, "Evaluate every checkpoint, and wait for new ones until the training ends."
    )
    flags.DEFINE_float(
        "timeout",
        None,
        "Seconds without a new checkpoint after which --wait ends (default: 3600).",
        lower_bound=0.0,
    )
    flags.DEFINE_string(
        "image_dir", None, "Folder of the images in --annotations, for the pictures of --report."
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    if values.report:
        from ssd_centernet.drawing.chart import check_installed

        check_installed()
    _check_limit(values.max_detections)
    tiles = _tiles.tiles_of_flags()
    _flags.check_folders("output_dir")
    _flags.check_output("output_dir", EVALUATION_DIR)
    if values.detections is None and values.annotations is None:
        if values.image_dir is not None:
            raise flags.Error(
                "--image_dir belongs to --detections and --annotations; with --model_dir the "
                "pictures of --report come from the records in --data_dir: leave it out."
            )
        if values.model is not None or tiles is not None:
            from ssd_centernet.cli._evaluate_images import evaluate_images

            return evaluate_images(_show_files, _tell_replaced, _scoring_options())
        if values.every_checkpoint or values.wait:
            return _evaluate_checkpoints()
        if values.timeout is not None:
            raise flags.Error("--timeout belongs to --wait, which was not given.")
        return evaluate_model_dir(
            checkpoint=values.checkpoint,
            split=values.split,
            output_dir=values.output_dir,
            report=bool(values.report),
            max_detections=values.max_detections,
            backend=values.backend,
        )
    _flags.require("detections", "annotations")
    unused = "model_dir model data_dir checkpoint split batch_size gin_params every_checkpoint "
    unused += "wait timeout weights allow_import dtype device use_horovod tiles"
    given = [f"--{name}" for name in unused.split() if values[name].value is not None]
    if given:
        raise flags.Error(
            f"{', '.join(given)} cannot be used with --detections, which are scored without a "
            "model: leave them out, or leave out --detections and --annotations."
        )
    if values.report:
        _flags.require("output_dir")
    elif values.image_dir is not None:
        raise flags.Error("--image_dir is for the pictures of --report, which was not given.")
    return _evaluate_file()


def _check_limit(max_detections: int | None) -> None:
    """Refuse a limit that is not above those that COCO reports recall at, before any work."""
    from ssd_centernet.evaluation.checks import checked_limit

    try:
        checked_limit(11 if max_detections is None else max_detections)
    except ValueError as error:
        raise flags.IllegalFlagValueError(f"--{error}") from error


def evaluate_model_dir(
    *,
    checkpoint: str | None = None,
    split: str | None = None,
    output_dir: str | None = None,
    report: bool = False,
    max_detections: int | None = None,
    backend: str | None = None,
    allow: Sequence[str] = (),
) -> int:
    """Evaluate the run of --model_dir on --data_dir and print the result.

    Args:
        checkpoint: which weights, as in `choose_checkpoint`.
        split: prefix of the record files; None is that of the run.
        output_dir: where to write; None is `evaluation` in the run's directory.
        report: whether to write the page too.
        max_detections: most detections of one class that count in one image; None is COCO's 100.
        backend: library that matches; None is `auto`, as in `CocoEvaluator`.
        allow: names whose overrides may be without effect.

    Returns:
        The exit status.
    """
    _flags.require("model_dir")
    values = flags.FLAGS
    from ssd_centernet.runs.evaluation import evaluate_run, evaluation_page, save_evaluation
    from ssd_centernet.runtime.distribution import connect

    communicator = connect(bool(values.use_horovod), device=values.device)
    data_dir = _runs.data_dir_of_flags(say=communicator.is_chief)
    run = _runs.open_run_of_flags(checkpoint=checkpoint, allow=allow, communicator=communicator)
    split = _runs.whole_split(data_dir, split, run.eval_split)
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or _runs.progress_bar(total)
        bar.update(done - bar.n)

    options = {"batch_size": values.batch_size, "max_detections": max_detections}
    options = {name: value for name, value in {**options, "backend": backend}.items() if value}
    evaluated = evaluate_run(
        run,
        data_dir,
        split=split,
        progress=progress if communicator.is_chief else None,
        communicator=communicator,
        **options,
    )
    if bar is not None:
        bar.close()
    if evaluated is None:  # The first process has the results of all.
        return 0
    directory = output_dir or Path(values.model_dir) / EVALUATION_DIR
    page, began = None, time.perf_counter()
    if report:
        page = evaluation_page(
            evaluated, run, model_dir=values.model_dir, data_dir=data_dir, split=split
        )
    facts = {"checkpoint": run.checkpoint, "split": split}
    facts |= _tiles.tell_tiles_of_data(data_dir, split)
    facts |= {"weights": "raw"} if run.trained else {}
    _tell_replaced(directory, split=split, page=bool(page))
    paths = save_evaluation(evaluated, directory, page=page, **facts)
    took = evaluated.result.took(report=time.perf_counter() - began)
    print(f"{'raw weights of ' * run.trained}{run.checkpoint} on {split} of {data_dir}\n")
    _show(evaluated)
    print(took)
    _tell(evaluated.hint, paths)
    _runs.tell_next("predict", f"--model_dir={values.model_dir}")
    return 0


def _show_files(evaluated: SplitResult, paths: dict[str, str]) -> None:
    """Print an evaluation and what was written of it."""
    _show(evaluated)
    _tell(evaluated.hint, paths)


def _tell_replaced(directory: str | Path, **facts: Any) -> None:
    from ssd_centernet.evaluation.replaced import describe_replaced

    for line in describe_replaced(directory, **facts):
        print(f"note: {line}", file=sys.stderr)


def _scoring_options() -> dict:
    """Return the flags of the metric that were given."""
    given = {name: flags.FLAGS[name].value for name in ("max_detections", "backend")}
    return {name: value for name, value in given.items() if value}


def _show(evaluated: SplitResult) -> None:
    print(evaluated.result.table())
    if evaluated.losses:
        parts = ", ".join(f"{name} {value:.4f}" for name, value in evaluated.losses.items())
        print(f"loss parts: {parts}")
    print("\n".join(["", *evaluated.result.coco_lines()]))


def _evaluate_checkpoints() -> int:
    """Evaluate the checkpoints of --model_dir one after the other."""
    _flags.require("model_dir")
    if flags.FLAGS.checkpoint is not None or flags.FLAGS.report:
        raise flags.Error(
            "--every_checkpoint and --wait evaluate all checkpoints: leave out --checkpoint and "
            "--report, or leave these out."
        )
    if flags.FLAGS.timeout is not None and not flags.FLAGS.wait:
        raise flags.Error("--timeout belongs to --wait, which was not given.")
    return _follow()


def _follow() -> int:
    from ssd_centernet.runs.evaluation import RunEvaluation
    from ssd_centernet.runs.following import Watch, evaluate_checkpoints, wait_for_run
    from ssd_centernet.runtime.distribution import connect

    values = flags.FLAGS
    communicator = connect(bool(values.use_horovod), device=values.device)
    watch = Watch(wait=bool(values.wait), say=_say if communicator.is_chief else _say_nothing)
    if values.timeout is not None:
        watch.timeout = values.timeout
    wait_for_run(values.model_dir, watch)
    data_dir = _runs.data_dir_of_flags(say=communicator.is_chief)
    run = _runs.open_run_of_flags(checkpoint="latest", communicator=communicator)
    split = _runs.whole_split(data_dir, values.split, run.eval_split)
    options = _scoring_options()
    if values.batch_size:
        options["batch_size"] = values.batch_size
    evaluation = RunEvaluation(run, data_dir, split=split, communicator=communicator, **options)
    facts = {
        "split": split,
        "data_dir": os.path.abspath(data_dir),
        "max_detections": values.max_detections or 100,
        "settings": " ".join([*(values.gin_params or ()), values.dtype or ""]).strip(),
    }
    numbers, last, written = [], None, {}
    for step, evaluated, paths in evaluate_checkpoints(
        run,
        evaluation,
        model_dir=values.model_dir,
        directory=values.output_dir or Path(values.model_dir) / EVALUATION_DIR,
        watch=watch,
        facts=facts,
        communicator=communicator,
    ):
        if evaluated is not None:
            numbers.append((step, evaluated.result.metrics))
            last, written = evaluated, paths
            shown = "  ".join(f"{n} {evaluated.result.metrics[n]:.4f}" for n in ("AP", "AP50"))
            _say(f"step {step}: {shown}  ({counted(evaluated.result.num_images, 'image')})")
    if last is not None:
        step, metrics = max(numbers, key=lambda one: one[1]["AP"])
        print(f"\nbest of {len(numbers)}: step {step}, AP {metrics['AP']:.4f}; the last:\n")
        _show(last)
        _tell(last.hint, written)
    elif communicator.is_chief:
        print(f"no checkpoint of {values.model_dir} was left to evaluate")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _say_nothing(text: str) -> None:
    """Leave the talking to the first process."""


def _evaluate_file() -> int:
    """Score a result file; tensorflow stays out of it."""
    from ssd_centernet.evaluation.coco import evaluate_detections_file
    from ssd_centernet.evaluation.diagnosis import LOW, diagnose
    from ssd_centernet.evaluation.ground_truth import CocoGroundTruth

    values = flags.FLAGS
    detections, annotations = values.detections, values.annotations
    result = evaluate_detections_file(detections, annotations, **_scoring_options())
    print(f"{detections} against {annotations}\n")
    print("\n".join([result.table(), "", *result.coco_lines()]))
    # Asked only where it will answer: it reads the annotations once more.
    hint = None
    if result.metrics["AP"] < LOW:
        hint = diagnose(result, CocoGroundTruth.load(annotations))
    page = _page_of_file(result, hint) if values.report else None
    if values.output_dir:
        _tell_replaced(values.output_dir, page=bool(page))
    paths = result.save(values.output_dir, page=page) if values.output_dir else {}
    _tell(hint, paths)
    return 0


def _page_of_file(result: CocoResult, hint: str | None) -> str:
    """Make the page of a result file."""
    from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
    from ssd_centernet.evaluation.report import html_report
    from ssd_centernet.evaluation.report_images import images_of_folder

    values = flags.FLAGS
    load_images = None
    if values.image_dir is not None:
        load_images = images_of_folder(values.image_dir, values.annotations)
    return html_report(
        result,
        CocoGroundTruth.load(values.annotations),
        title=f"{Path(values.detections).name} against {Path(values.annotations).name}",
        facts={"detections": values.detections, "annotations": values.annotations},
        hint=hint,
        load_images=load_images,
    )


def _tell(hint: str | None, paths: dict[str, str]) -> None:
    sys.stdout.flush()
    if hint:
        print(hint if hint.startswith("AP is") else f"AP is near zero: {hint}")
    for path in paths.values():
        print(f"written: {path}")
