"""Train one recipe in several precisions and compare losses and metrics.

Example:
  ssd_centernet compare_precision --gin_file=ssd_demo --data_dir=data/demo \\
      --output_dir=runs/precision --dtypes=fp32,bf16,fp16 --control

The runs have the same recipe, seed and data. They train one after the other, each in its own
process, and are evaluated at their last step. The others are compared with the first precision.
The output directory gets comparison.json, loss_curves.png and a run directory for each. Give the
same command again to go on after a stop; with more --dtypes only the new ones are trained.
"""

from __future__ import annotations

from absl import flags

from ssd_centernet.cli import _flags, _runs

_DTYPES = ("fp32", "bf16", "fp16")
# Flags that are those of `train`, handed on as they are.
_TRAIN_FLAGS = ("gin_file", "gin_params", "data_dir", "num_steps", "epochs", "batch_size", "device")


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    flags.DEFINE_string("output_dir", None, "Folder of the comparison and of its runs.")
    flags.DEFINE_list(
        "dtypes",
        "fp32,bf16",
        "Precisions: fp32, bf16, fp16. The others are compared with the first.",
    )
    flags.DEFINE_boolean(
        "control",
        False,
        "Train the first precision again with the next seed, to see how far chance alone goes.",
    )
    flags.DEFINE_integer(
        "num_steps", None, "Length of each run in steps; wins over --epochs.", lower_bound=1
    )
    flags.DEFINE_float("epochs", None, "Length of each run in passes over the images.")
    flags.DEFINE_string(
        "log_every",
        None,
        "Interval of the points of the curves: 100, or '1 epoch' (default: a hundredth of "
        "--num_steps, else the recipe's).",
    )
    _flags.define_batch_size()
    _flags.define_seed()
    _flags.define_device()


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir", "output_dir")
    _flags.check_folders("output_dir")
    values = flags.FLAGS
    dtypes = _checked_dtypes(values.dtypes)
    from ssd_centernet.config import imported_modules
    from ssd_centernet.drawing.chart import check_installed
    from ssd_centernet.runs.logs import RunLog
    from ssd_centernet.runs.planned import (
        StoppedError,
        check_settings,
        complete_run,
        plan_runs,
    )
    from ssd_centernet.runs.precision import Comparison

    check_installed()
    settings = {name: values[name].value for name in (*_TRAIN_FLAGS, "log_every")}
    settings["allow_import"] = ",".join(values.allow_import or ()) or None
    settings["log_every"] = values.log_every or _points(values.num_steps)
    seed = values.seed or 0
    check_settings(values.output_dir, {**settings, "seed": seed})
    planned = plan_runs(dtypes, seed=seed, control=values.control)
    evaluation = {name: settings[name] for name in ("data_dir", "batch_size", "device")}
    # What the user's own files import, the settings of the runs trained here import as well.
    allowed = [*(values.allow_import or ()), *imported_modules(values.gin_file, values.gin_params)]
    evaluation["allow_import"] = ",".join(allowed) or None
    try:
        folders = [
            complete_run(
                run,
                values.output_dir,
                train_arguments=_arguments(settings),
                evaluate_arguments=_arguments(evaluation),
                say=_say,
            )
            for run in planned
        ]
    except StoppedError as stopped:
        _say(f"{stopped}: the same command goes on with this comparison.")
        return 128 + stopped.number
    comparison = Comparison(
        [RunLog.read(run.name, folder) for run, folder in zip(planned, folders, strict=True)]
    )
    title = f"{_title(values.gin_file)}, {comparison.steps[-1]} steps"
    paths = comparison.save(values.output_dir, title=title, settings={**settings, "seed": seed})
    _say(f"\n{title}; in brackets against {comparison.baseline.label}\n\n{comparison.table()}\n")
    for path in paths:
        _say(f"written: {path}")
    return 0


def _checked_dtypes(dtypes: list[str]) -> list[str]:
    unknown = [dtype for dtype in dtypes if dtype not in _DTYPES]
    if unknown or not dtypes or len(set(dtypes)) < len(dtypes):
        raise flags.Error(
            f"--dtypes={','.join(dtypes)}; expected some of {', '.join(_DTYPES)}, each once, with "
            "commas and without spaces between them."
        )
    return dtypes


def _points(num_steps: int | None) -> str | None:
    return None if num_steps is None else str(max(1, num_steps // 100))


def _arguments(settings: dict) -> list[str]:
    """Turn settings back into flags; a list gives one flag an element."""
    arguments = []
    for name, value in settings.items():
        several = value if isinstance(value, list) else [value]
        arguments += [f"--{name}={one}" for one in several if one is not None]
    return arguments


def _title(gin_files: list[str]) -> str:
    return " + ".join(name.rpartition("/")[2].removesuffix(".gin") for name in gin_files)


def _say(text: str) -> None:
    print(text, flush=True)
