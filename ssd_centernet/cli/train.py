"""Train a detector.

Examples:
  ssd_centernet train --gin_file=ssd300_resnet34 --data_dir=data/coco --model_dir=runs/ssd300
  ssd_centernet train --gin_file=ssd300_resnet34 --annotations=data.yaml --model_dir=runs/mine
  ssd_centernet train --gin_file=ssd300_resnet34 --annotations=train.json --image_dir=images \\
      --val_annotations=val.json --model_dir=runs/mine

--data_dir is what `ssd_centernet convert` wrote. With --annotations this is done here, once, into
MODEL_DIR/data (or --data_dir), with the same checks and the same report.

Give the same command again to go on with a run that was stopped. The run directory gets
checkpoints, config.gin (the settings), metrics.jsonl, TensorBoard events, evaluation/ and best/.
The flags of the published systems work too; docs/flags.md says what each one means here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli import _batch_size, _flags, _runs, _train_values, _vendor_flags
from ssd_centernet.cli._originals import downloaded_data, published_beginning
from ssd_centernet.cli._vendor_flags import Statement
from ssd_centernet.files import temporary_folder
from ssd_centernet.run_directory import FAKE_DATA_DIR

if TYPE_CHECKING:
    from ssd_centernet.runs.own_data import OwnData

_BINDINGS = {
    "batch_size": "train.batch_size",
    # The later of two lengths counts: --num_steps wins over --epochs.
    "epochs": "train.epochs",
    "num_steps": "train.steps",
    "seed": "train.seed",
    "train_split": "train.train_split",
    "eval_split": "train.eval_split",
    "device": "train.device",
    "dtype": "build_detector.dtype",
    "resume_from": "train.resume_from",
    "fine_tune_checkpoint": "train.fine_tune_checkpoint",
    "fine_tune_checkpoint_type": "train.fine_tune_checkpoint_type",
    "log_every": "train.log_every",
    "checkpoint_every": "train.checkpoint_every",
    "evaluate_every": "train.evaluate_every",
    "use_performance": "train.use_performance",
    "tracker": "train.tracker",
    "strategy": "train.strategy",
    "devices": "train.devices",
    "use_horovod": "train.use_horovod",
    "distributed_bn": "train.sync_batch_norm",
}
# Annotations as they are, and what belongs to them.
_ANNOTATIONS = {
    "annotations": "Annotations to train on as they are: COCO json, CSV table or data.yaml, or a "
    "folder (VOC, YOLO, TFDS). They are converted once, into --data_dir or MODEL_DIR/data.",
    "image_dir": "Folder of the images in --annotations; needed for COCO, found for the others.",
    "val_annotations": "Annotations to evaluate on; not needed where --annotations hold a split "
    "val, as a data.yaml does. Without any, the run is not evaluated.",
    "val_image_dir": "Folder of the images in --val_annotations (default: --image_dir).",
}
_EXAMPLE = (
    "For example: ssd_centernet train --gin_file=ssd300_resnet34 --data_dir=data/mine "
    "--model_dir=runs/mine, with data of `ssd_centernet convert`; or --annotations=FILE, as your "
    "tool wrote it, in place of --data_dir."
)
# Ends after which there is nothing left to train.
_ENDED = ("finished", "stopped early")
# What --profile means in the original when it is not given.
_NO_PROFILE = ["0", "0"]


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_model_dir()
    _flags.define_data_dirs()
    _flags.define_train_split()
    _flags.define_eval_split()
    flags.DEFINE_enum(
        "mode",
        "train_and_eval",
        ["train", "eval", "train_and_eval", "train_and_post_eval"],
        "train: without evaluations; train_and_eval: with the recipe's; train_and_post_eval: with "
        "one at the end; eval: as `ssd_centernet evaluate`.",
    )
    _flags.define_batch_size(auto=True)
    _define_length()
    _define_beginning()
    flags.DEFINE_string("log_every", None, "Interval of log lines: 100, or '1 epoch'.")
    flags.DEFINE_string("checkpoint_every", None, "Interval of checkpoints: 1000, or '1 epoch'.")
    flags.DEFINE_string(
        "evaluate_every", None, "Interval of evaluations: 1000, or '5 epochs'; 0 for none."
    )
    _define_data()
    _define_measurements()
    flags.DEFINE_string(
        "inference", None, "Detect objects in this image with the run of --model_dir, then exit."
    )
    _flags.define_strategy()
    _flags.define_use_horovod()
    flags.DEFINE_boolean(
        "distributed_bn", None, "Take batch statistics over all processes and devices."
    )
    flags.DEFINE_float(
        "learning_rate",
        None,
        "Learning rate of the recipe's schedule after its warm-up: for the batch that the schedule "
        "is made for, where it grows with the batch.",
        lower_bound=0.0,
    )
    _flags.define_seed()
    _flags.define_dtype()
    _flags.define_device()
    _vendor_flags.define_flags()


def _define_length() -> None:
    flags.DEFINE_integer(
        "num_steps",
        None,
        "Length of the run in steps; wins over --epochs and the recipe's.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "epochs",
        None,
        "Length of the run in passes over the images; wins over the recipe's.",
        lower_bound=0.0,
    )


def _define_beginning() -> None:
    flags.DEFINE_string(
        "resume_from",
        None,
        "A run or checkpoint of this library that a new --model_dir continues: its weights, "
        "optimizer, step and position in the data.",
    )
    flags.DEFINE_string(
        "fine_tune_checkpoint",
        None,
        "Weights that a new run begins with: a run directory, a published checkpoint, or the name "
        "of published weights such as vgg16_caffe, which are fetched (ssd_centernet weights list). "
        "Empty: those that the recipe was published with, where they can be had.",
    )
    flags.DEFINE_enum(
        "fine_tune_checkpoint_type",
        None,
        ["classification", "detection", "full"],
        "classification: the backbone alone; detection: neck and head too, except for classes that "
        "the checkpoint does not know; full: everything. By default all that the file holds.",
    )

    flags.DEFINE_boolean(
        "from_scratch",
        False,
        "Begin with random weights, and train the layers too that the recipe freezes because it "
        "was published with trained ones (train.freeze_random = False).",
    )


def _define_data() -> None:
    for name, text in _ANNOTATIONS.items():
        flags.DEFINE_string(name, None, text)
    flags.DEFINE_boolean(
        "static", None, "Read the batches that `ssd_centernet make_static` wrote to --data_dir."
    )
    flags.DEFINE_boolean(
        "use_fake_data",
        None,
        "Repeat the first training batch for ever; without --data_dir, a batch of noise.",
    )
    _flags.define_data_service()


def _define_measurements() -> None:
    flags.DEFINE_list(
        "profile",
        None,
        "FIRST,LAST: the steps to trace for TensorBoard, both included; 0 is the step where this "
        "call begins or resumes. 0,0 traces none.",
    )
    flags.DEFINE_boolean(
        "use_performance",
        None,
        "Write images/s and seconds per step to MODEL_DIR/summary/summary.json at the end.",
    )
    flags.DEFINE_enum(
        "tracker",
        None,
        ["mlflow", "wandb"],
        "Send settings and numbers to MLflow or Weights & Biases too; their own environment "
        "variables, such as MLFLOW_TRACKING_URI, say where.",
    )


def rewrite_arguments(arguments: Sequence[str]) -> list[str]:
    """Write a command line of the published systems in the form that absl reads."""
    return _vendor_flags.rewrite(arguments)


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    statements = _vendor_flags.resolve(values)
    _batch_size.check_auto()
    if values.inference:
        return _predict(statements)
    if values.mode == "eval":
        _refuse_several("an evaluation")
        return _evaluate(statements)
    anything = values.use_fake_data or any(values[name].value for name in _ANNOTATIONS)
    data = [] if anything else ["data_dir"]
    _flags.require("gin_file", "model_dir", *data, example=_EXAMPLE)
    _flags.check_folders("model_dir")
    _train_values.check_data_service()
    own = _own_data()
    if own or values.static:
        _refuse_several("--annotations" if own else "--static")
    _flags.complete_splits("train_split", "eval_split")
    evaluable = own is None or own.has_validation
    beginning = published_beginning() if values.fine_tune_checkpoint == "" else None
    auto = _batch_size.take_auto()
    bindings = parse_recipe(statements, beginning=beginning, evaluable=evaluable)
    from ssd_centernet.train import train

    data_dir = own.folder if own else values.data_dir
    data_dir = data_dir or _noise(Path(values.model_dir) / FAKE_DATA_DIR)
    sized = _batch_size.finder(bindings, data_dir) if auto else None
    options = {"sized": sized, "data_service": values.data_service or ()}
    ended = train(values.model_dir, data_dir, prepare=own and own.convert, **options)
    if _runs.is_first_process():
        print(f"{ended}: {values.model_dir}")
    if ended in _ENDED and (own or values.data_dir):
        chosen = ["evaluate"] if evaluable else ["predict", "IMAGES"]
        _runs.tell_next(chosen[0], f"--model_dir={values.model_dir}", *chosen[1:])
    return 0


def _own_data() -> OwnData | None:
    """Return the annotations to train on as they are, if they are given.

    Raises:
        flags.IllegalFlagValueError: flags that belong to them, without them.
    """
    values = flags.FLAGS
    given = {name: values[name].value for name in _ANNOTATIONS if values[name].value}
    if not given:
        plain = isinstance(values.data_dir, str) and not (values.static or values.use_fake_data)
        return downloaded_data(values.model_dir, values.data_dir) if plain else None
    if "annotations" not in given:
        raise flags.IllegalFlagValueError(
            f"--{next(iter(given))} belongs to --annotations, which is not given."
        )
    for name, value in (("static", values.static), ("use_fake_data", values.use_fake_data)):
        if value:
            raise flags.IllegalFlagValueError(
                f"--{name} and --annotations are two sources of training batches: give only one."
            )
    from ssd_centernet.runs.own_data import OwnData

    return OwnData(model_dir=values.model_dir, data_dir=values.data_dir, **given)


def parse_recipe(
    statements: Sequence[Statement],
    *,
    beginning: Sequence[str] | None = None,
    evaluable: bool = True,
) -> list[str]:
    """Parse the recipe with what the flags set, and return these bindings.

    Args:
        statements: of `_vendor_flags.resolve`.
        beginning: bindings that an empty --fine_tune_checkpoint stands for; None leaves what the
            recipe has.
        evaluable: whether there are annotations to evaluate on.

    Raises:
        flags.IllegalFlagValueError: flags that contradict each other, or have no effect on this
            recipe.
    """
    values = flags.FLAGS
    from ssd_centernet import config

    bindings = _flags.flag_bindings(_BINDINGS)
    if values.data_weights:
        bindings.append(f"train.data_weights = {_train_values.weights(values.data_weights)}")
    if values.from_scratch:
        if values.fine_tune_checkpoint:
            raise flags.IllegalFlagValueError(
                "--from_scratch and --fine_tune_checkpoint contradict each other: give only one."
            )
        bindings.append("train.freeze_random = False")
    if values.use_fake_data:
        # What is learnt from such data is thrown away: only the speed counts.
        bindings.append("train.freeze_random = True")
    if values.fine_tune_checkpoint == "":
        # Said by the original's scripts, where it leaves the recipe's as it is.
        bindings = [one for one in bindings if not one.startswith("train.fine_tune_checkpoint")]
        bindings += beginning or ()
    bindings += _train_values.evaluations(evaluable=evaluable)
    if values.profile not in (None, _NO_PROFILE):
        bindings.append(f"train.profile = {_train_values.profiled_steps(values.profile)}")
    if values.static and values.use_fake_data:
        raise flags.IllegalFlagValueError(
            "--static and --use_fake_data are two sources of training batches: give only one."
        )
    if values.learning_rate is not None:
        flag = f"--learning_rate={values.learning_rate:g}"
        rate = Statement("schedule.base_learning_rate", values.learning_rate, flag)
        statements = [*statements, rate]
    data = "static" if values.static else "fake" if values.use_fake_data else None
    allowed = values.allow_import
    config.parse(values.gin_file, values.gin_params, flag_params=bindings, allow_import=allowed)
    if statements or data:
        # What these flags set depends on the recipe that was just read.
        bindings += _vendor_flags.bindings(statements, data=data)
        config.parse(values.gin_file, values.gin_params, flag_params=bindings, allow_import=allowed)
    return bindings


def _refuse_several(use: str) -> None:
    """Refuse several data directories where only one has a meaning."""
    if isinstance(flags.FLAGS.data_dir, list):
        raise flags.IllegalFlagValueError(
            f"--data_dir is given {len(flags.FLAGS.data_dir)} times, but {use} takes one: give the "
            "one that is meant."
        )


def _noise(folder: Path) -> str:
    """Make a small data set of noise, of COCO's number of classes, whole or not at all."""
    from ssd_centernet.benchmark.records import write_records

    if not folder.exists():
        with temporary_folder(folder) as partial:
            write_records(partial)
            with contextlib.suppress(OSError):  # Another process of the run was faster.
                partial.rename(folder)
    return str(folder)


def _predict(statements: Sequence[Statement]) -> int:
    """Do what `ssd_centernet predict` does, with the run of --model_dir."""
    from ssd_centernet.cli.predict import predict_run

    _flags.require("model_dir")
    _warn_of_unused(("batch_size", "dtype", "device"), statements)
    return predict_run([flags.FLAGS.inference], allow=("train",))


def _evaluate(statements: Sequence[Statement]) -> int:
    """Do what `ssd_centernet evaluate` does, on the run of --model_dir."""
    from ssd_centernet.cli.evaluate import evaluate_model_dir

    _warn_of_unused(("batch_size", "dtype", "device", "use_horovod"), statements)
    # The command line of a training, with the mode changed, may set what only training uses.
    return evaluate_model_dir(checkpoint=flags.FLAGS.checkpoint_dir, allow=("train",))


def _warn_of_unused(used: Sequence[str], statements: Sequence[Statement]) -> None:
    """Say which flags of a training have no effect on what a trained run is asked."""
    unused = [name for name in ("gin_file", *_ANNOTATIONS, *_BINDINGS) if name not in used]
    given = [f"--{name}" for name in unused if flags.FLAGS[name].value not in (None, [], "")]
    given += [statement.flag for statement in statements]
    if given:
        print(
            f"the settings saved in {flags.FLAGS.model_dir} are used; these flags have no effect: "
            f"{', '.join(given)}",
            file=sys.stderr,
        )
