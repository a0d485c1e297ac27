"""Measure the speed of a part of the library.

Examples:
  ssd_centernet benchmark --part=training --gin_file=ssd300_resnet34 --data_dir=data/coco
  ssd_centernet benchmark --part=step --dtype=bf16 --batch_size=8
  ssd_centernet benchmark --formats=all --model_dir=runs/ssd300 --data_dir=data/coco
  ssd_centernet benchmark --model=exported/ssd300/model.tflite

Figures are medians over windows. What is compared takes turns within one run, so trust the ratio
rows: they also hold on a busy machine. Without --data_dir the data is random. --json prints a JSON
object a figure, with the versions of all packages.

--formats exports a run to each format and compares them in one table: size, AP, milliseconds of one
image and memory, each in a process of its own. --model measures a file of `ssd_centernet export`,
or all that a folder of it holds.
"""

import json
import sys

from absl import flags

from ssd_centernet.benchmark.table import format_lines
from ssd_centernet.cli import _benchmark_formats, _flags, _runs

_RECIPE = "ssd300_resnet34"
_HAS_DATA = ("training", "input", "step")
_HAS_WINDOWS = (*_HAS_DATA, "postprocess", "scaling")
_HAS_BATCHES = (*_HAS_WINDOWS, "inference")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_enum(
        "part",
        None,
        ["training", "input", "step", "inference", "postprocess", "eval", "scaling"],
        "training: images/s of a training, and whether input or step bounds it; input: records to "
        "batches; step: a train step on one batch; inference: batches to detections, one at a "
        "time; postprocess: raw outputs to detections; eval: COCO metrics; scaling: train steps of "
        "one process and of all that `ssd_centernet launch` started.",
    )
    flags.DEFINE_integer(
        "windows",
        None,
        "Windows per figure (default: 5; for eval 3 runs, for formats 3).",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "seconds",
        None,
        "Seconds of a window (default: 3; for postprocess and formats 1).",
        lower_bound=0.01,
    )
    flags.DEFINE_integer(
        "warmup_iters",
        None,
        "inference: batches before the measured ones (default: 100).",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "benchmark_iters",
        None,
        "inference: batches that are measured (default: 300).",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "images",
        None,
        "eval: number of images (default: 2000); formats: AP of the first ones alone "
        "(default: of all).",
        lower_bound=1,
    )
    _flags.define_data_service()
    _benchmark_formats.define_flags()
    flags.DEFINE_boolean("json", False, "Print JSON lines for programs instead of a table.")
    _flags.define_gin()
    _flags.define_data_dir()
    _flags.define_train_split()
    flags.DEFINE_alias("split", "train_split")
    _flags.define_batch_size()
    _flags.define_dtype()
    _flags.define_device()
    _flags.define_use_horovod()


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        0.

    Raises:
        flags.IllegalFlagValueError: no --part, or a flag that the part makes no use of.
    """
    _runs.refuse_arguments(argv)
    values = flags.FLAGS
    if _benchmark_formats.wanted():
        return _benchmark_formats.main()
    _flags.require("part")
    _benchmark_formats.refuse_flags()
    _refuse_unused(values)
    if values.seconds is not None:
        _flags.check_finite(f"--seconds={values.seconds:g}", values.seconds)
    _flags.complete_splits("train_split")
    lines = _eval_lines(values) if values.part == "eval" else _recipe_lines(values)
    if values.json:
        for line in lines:
            print(json.dumps(line))
    elif lines:
        print(format_lines(lines))
    return 0


def _refuse_unused(values: flags.FlagValues) -> None:
    uses = {
        "gin_file": _HAS_BATCHES,
        "gin_params": _HAS_BATCHES,
        "allow_import": _HAS_BATCHES,
        "data_dir": _HAS_DATA,
        "train_split": _HAS_DATA,
        "batch_size": _HAS_BATCHES,
        "dtype": ("training", "step", "inference", "scaling"),
        "device": ("training", "step", "inference", "postprocess", "scaling"),
        "use_horovod": ("scaling",),
        "windows": (*_HAS_WINDOWS, "eval"),
        "seconds": _HAS_WINDOWS,
        "warmup_iters": ("inference",),
        "benchmark_iters": ("inference",),
        "images": ("eval",),
        "data_service": ("input",),
    }
    _flags.refuse_no_worker()
    for name, parts in uses.items():
        if values[name].value is not None and values.part not in parts:
            raise flags.IllegalFlagValueError(
                f"--{name} has no effect on --part={values.part}; it is for "
                f"{', '.join(parts[:-1])}{' and ' * (len(parts) > 1)}{parts[-1]}. Leave it out."
            )


def _recipe_lines(values: flags.FlagValues) -> list[dict]:
    from ssd_centernet import config
    from ssd_centernet.benchmark import inference, measure, postprocess, scaling, step, training
    from ssd_centernet.benchmark import input as input_part
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import settle_splits
    from ssd_centernet.runtime.device import select_device
    from ssd_centernet.runtime.distribution import connect

    config.parse(
        values.gin_file or [_RECIPE],
        values.gin_params,
        flag_params=_flags.flag_bindings(
            {"dtype": "build_detector.dtype", "train_split": "train.train_split"}
        ),
        allow_import=values.allow_import,
    )
    recipe = Recipe()
    if values.data_dir:
        recipe = settle_splits(recipe, values.data_dir)
    if recipe.teacher is not None and values.part in ("step", "training", "scaling"):
        text = "note: train.teacher is left out: its forward pass is no part of this step"
        print(text, file=sys.stderr)
    shared = {
        "windows": values.windows or 5,
        "seconds": values.seconds or (1.0 if values.part == "postprocess" else 3.0),
        "batch_size": values.batch_size,
    }
    if values.part == "input":
        select_device("cpu")  # Where the pipeline runs anyway.
        lines = input_part.run(
            recipe, values.data_dir, data_service=values.data_service or (), **shared
        )
    elif values.part == "scaling":
        communicator = connect(bool(values.use_horovod), device=values.device)
        lines = scaling.run(recipe, communicator, device=values.device, **shared)
    elif values.part in ("step", "training"):
        part = step if values.part == "step" else training
        lines = part.run(recipe, values.data_dir, device=values.device, **shared)
    elif values.part == "inference":
        with select_device(values.device).scope():
            lines = inference.run(
                recipe,
                batch_size=values.batch_size,
                iterations=values.benchmark_iters or 300,
                warm_up=100 if values.warmup_iters is None else values.warmup_iters,
            )
    else:
        select_device(values.device)
        lines = postprocess.run(recipe, **shared)
    # What a training alone uses may stand in a recipe and in its overrides.
    config.assert_all_used(allow=("train", "evaluate"), overrides_only=True)
    name = (values.gin_file or [_RECIPE])[-1]
    return [{**line, "recipe": name, **measure.environment()} for line in lines]


def _eval_lines(values: flags.FlagValues) -> list[dict]:
    from ssd_centernet.benchmark import evaluation

    return evaluation.run(num_images=values.images or 2000, repeats=values.windows or 3)
