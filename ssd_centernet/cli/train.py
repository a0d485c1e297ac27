"""Train a detector.

Example:
  ssd_centernet train --gin_file=ssd300_resnet34 --data_dir=data/coco --model_dir=runs/ssd300

The same command on the same --model_dir goes on where a stopped run ended. The run directory gets
checkpoints, config.gin (the settings), metrics.jsonl, TensorBoard events, evaluation/ and best/.
"""

import sys

from absl import flags

from ssd_centernet.cli import _flags, _runs

_BINDINGS = {
    "batch_size": "train.batch_size",
    "num_steps": "train.steps",
    "epochs": "train.epochs",
    "seed": "train.seed",
    "device": "train.device",
    "dtype": "build_detector.dtype",
    "fine_tune_checkpoint": "train.fine_tune_checkpoint",
    "fine_tune_checkpoint_type": "train.fine_tune_checkpoint_type",
    "log_every": "train.log_every",
    "checkpoint_every": "train.checkpoint_every",
    "evaluate_every": "train.evaluate_every",
}


def define_flags() -> None:
    """Defines the flags of this command."""
    _flags.define_gin()
    _flags.define_model_dir()
    _flags.define_data_dir()
    flags.DEFINE_enum(
        "mode",
        "train_and_eval",
        ["train", "eval", "train_and_eval"],
        "train: without evaluations; eval: as `ssd_centernet evaluate`; train_and_eval: both.",
    )
    _flags.define_batch_size()
    flags.DEFINE_integer(
        "num_steps", None, "Length of the run in steps; wins over --epochs.", lower_bound=1
    )
    flags.DEFINE_float(
        "epochs", None, "Length of the run in passes over the training images.", lower_bound=0.0
    )
    flags.DEFINE_string(
        "fine_tune_checkpoint",
        None,
        "Weights that a fresh run begins with: a run directory, or a published checkpoint.",
    )
    flags.DEFINE_enum(
        "fine_tune_checkpoint_type",
        None,
        ["classification", "detection", "full"],
        "classification: the backbone alone; detection: also neck and head, but for classes that "
        "the checkpoint does not know; full: everything. What it holds when not given.",
    )
    flags.DEFINE_string("log_every", None, "Distance of log lines: 100, or '1 epoch'.")
    flags.DEFINE_string("checkpoint_every", None, "Distance of checkpoints: 1000, or '1 epoch'.")
    flags.DEFINE_string(
        "evaluate_every", None, "Distance of evaluations: 1000, '5 epochs', 0 for none."
    )
    _flags.define_seed()
    _flags.define_dtype()
    _flags.define_device()


def main(argv: list[str]) -> int:
    """Runs the command."""
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    if values.mode == "eval":
        return _evaluate()
    _flags.require("gin_file", "data_dir", "model_dir")
    from ssd_centernet import config
    from ssd_centernet.training.train import train

    bindings = _flags.flag_bindings(_BINDINGS)
    if values.mode == "train":
        bindings.append("train.evaluate_every = 0")
    config.parse(values.gin_file, values.gin_params, flag_params=bindings)
    ended = train(values.model_dir, values.data_dir)
    print(f"{ended}: {values.model_dir}")
    return 0


def _evaluate() -> int:
    """Does what `ssd_centernet evaluate` does, on the run of --model_dir."""
    from ssd_centernet.cli.evaluate import evaluate_model_dir

    used = ("batch_size", "dtype", "device")
    unused = [name for name in ("gin_file", *_BINDINGS) if name not in used]
    given = [f"--{name}" for name in unused if flags.FLAGS[name].value not in (None, [])]
    if given:
        print(
            f"--mode=eval takes the settings saved in {flags.FLAGS.model_dir}; without effect: "
            f"{', '.join(given)}",
            file=sys.stderr,
        )
    # The command line of a training, with the mode changed, may set what only training uses.
    return evaluate_model_dir(allow=("train",))
