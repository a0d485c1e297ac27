"""The part of `benchmark` that compares the formats of a model."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli import _flags, _runs
from ssd_centernet.text_table import text_table

if TYPE_CHECKING:
    from ssd_centernet.benchmark.formats import Data, Model

_ALL = "all"
# Help lists flags by module; these belong to the command.
_MODULE = "ssd_centernet.cli.benchmark"
_OWN = ("formats", "model", "model_dir", "checkpoint", "eval_split", "threads")
_OTHERS = ("part", "gin_file", "batch_size", "dtype", "device", "use_horovod", "train_split")
_OTHERS += ("warmup_iters", "benchmark_iters")
# What a run is opened with.
_OF_RUN = ("checkpoint", "gin_params", "allow_import")


def define_flags() -> None:
    """Define the flags of this part."""
    flags.DEFINE_list(
        "formats",
        None,
        "Compare these formats of the run --model_dir, or of the export --model: names of formats "
        "as of `export`, keras for the model itself, or all (default: all).",
        module_name=_MODULE,
    )
    _runs.define_model()
    _flags.define_model_dir("formats: folder of the run to export and measure.")
    flags.DEFINE_string(
        "checkpoint",
        None,
        "formats: which weights of the run, as for `export` (default: best).",
        module_name=_MODULE,
    )
    flags.DEFINE_string(
        "eval_split",
        None,
        "formats: what AP is measured on (default: the run's, else val).",
        module_name=_MODULE,
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "formats: threads of a call (default: the cores that are there).",
        lower_bound=1,
        module_name=_MODULE,
    )


def wanted() -> bool:
    """Tell whether the command line asks for this part."""
    values = flags.FLAGS
    given = [values[name].value is not None for name in ("formats", "model", "model_dir")]
    return any(given[:2]) or (given[2] and values.part is None)


def refuse_flags() -> None:
    """Refuse the flags of this part beside --part.

    Raises:
        flags.IllegalFlagValueError: names one that was given.
    """
    for name in _OWN:
        if flags.FLAGS[name].value is not None:
            settings = "; the settings of a run are --gin_file=RUN/config.gin"
            raise flags.IllegalFlagValueError(
                f"--{name} has no effect on --part={flags.FLAGS.part}; it is for --formats"
                f"{settings * (name == 'model_dir')}. Leave it out."
            )


def main() -> int:
    """Export, measure and print.

    Returns:
        0.

    Raises:
        flags.Error: flags that do not go together.
    """
    values = flags.FLAGS
    given = [f"--{name}" for name in _OTHERS if values[name].present]
    if given:
        raise flags.Error(f"{', '.join(given)} cannot be used with --formats and --model.")
    if (values.model is None) == (values.model_dir is None):
        raise flags.Error(
            "Give one of --model_dir, a run to export, and --model, a file or a folder that "
            "`ssd_centernet export` has written."
        )
    given = [f"--{name}" for name in _OF_RUN if values[name].present]
    if values.model is not None and given:
        raise flags.Error(f"{', '.join(given)} is for --model_dir; leave it out with --model.")
    if values.seconds is not None:
        _flags.check_finite(f"--seconds={values.seconds:g}", values.seconds)
    with tempfile.TemporaryDirectory() as folder:
        models, data, lost = _of_run(folder) if values.model_dir else _of_model()
        _measure(models, data, lost)
    return 0


def _measure(models: Sequence[Model], data: Data | None, lost: dict[str, str]) -> None:
    from ssd_centernet.benchmark.formats import measure_models
    from ssd_centernet.runtime.versions import installed_versions

    values = flags.FLAGS
    lines = measure_models(
        models,
        data=data,
        threads=values.threads or _cores(),
        windows=values.windows or 3,
        seconds=values.seconds or 1.0,
        progress=_say,
    )
    if values.json:
        packages = ("onnxruntime", "ai-edge-litert", "openvino")
        versions = installed_versions(*packages)
        for line in lines:
            print(json.dumps({**line, "cores": _cores(), "versions": versions}))
        for name, reason in lost.items():
            print(json.dumps({"part": "formats", "format": name, "not_measured": reason}))
        return
    print(format_table(lines, data))
    for name, reason in lost.items():
        print(f"not measured: {name}: {reason}")


def format_table(lines: Sequence[dict], data: Data | None) -> str:
    """Lay what `measure_models` gave below each other, with what the columns are."""
    first = lines[0]
    size = " x ".join(map(str, first["image_size"]))
    title = f"formats: batch {first['batch_size']}, {size} pixels, {first['threads']} threads of "
    title += f"{_cores()} cores"
    if data is not None:
        title += f", AP on {first['images']} images: {data.split} of {data.folder}"
    rows = [["format", "MB", "AP", "ms", "95 %", "ms of cores", "MB of memory"]]
    for line in lines:
        accuracy = "" if line["AP"] is None else f"{line['AP']:.4f}"
        times = [_digits(line[key]) for key in ("latency_ms_p50", "latency_ms_p95", "cpu_ms")]
        peak = f"{line['peak_rss_mb']:.0f}"
        rows.append([line["format"], f"{line['bytes'] / 1e6:.2f}", accuracy, *times, peak])
    notes = ["ms: median of a call, and what 95 % of the calls stay below; of cores: its processor"]
    notes += ["time in all threads; memory: the most that a process has that runs the model alone"]
    names = {line["format"] for line in lines}
    if "keras" in names:
        notes.append("keras: MB of the weights, memory of TensorFlow and this library")
    if "tflite_int8_heads" in names:
        notes.append("tflite_int8_heads: time and memory without the decoder, which is not in it")
    return "\n".join([title, "", text_table(rows), "", *notes])


def _of_model() -> tuple[list[Model], Data | None, dict[str, str]]:
    """Take the file --model, or the files in that folder."""
    values = flags.FLAGS
    from ssd_centernet.benchmark.formats import files_of_folder, model_of_file

    data = _data(values.eval_split) if values.data_dir else None
    files = files_of_folder(values.model) if os.path.isdir(values.model) else {}
    if not files:
        if values.formats:
            raise flags.Error(
                f"--formats={','.join(values.formats)} chooses of a folder that `export` has "
                f"written, and {values.model} is none: leave --formats out."
            )
        return [model_of_file(values.model)], data, {}
    names = list(files) if values.formats in (None, [_ALL]) else values.formats
    if absent := [name for name in names if name not in files]:
        raise flags.Error(
            f"--formats: {values.model} has no {', '.join(absent)}, but {', '.join(files)}."
        )
    models, lost = [], {}
    for name in names:
        try:
            models.append(model_of_file(files[name]))
        except ImportError as error:
            _raise_unless_all(error)
            lost[name] = str(error)
    if not models:
        raise flags.Error(f"nothing of {values.model} can be measured: {'; '.join(lost.values())}")
    return models, data, lost


def _of_run(folder: str) -> tuple[list[Model], Data | None, dict[str, str]]:
    """Export the run --model_dir to each format."""
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.benchmark.formats import (
        KERAS,
        chosen_formats,
        exported_models,
        model_of_run,
    )
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.opened import open_run

    names = chosen_formats(values.formats or [_ALL])
    data_dir = _runs.data_dir_of_flags(say=not values.json)
    opened = {name: values[name].value or [] for name in ("gin_params", "allow_import")}
    run = open_run(
        values.model_dir,
        checkpoint=values.checkpoint,
        flag_params=["build_detector.dtype = 'fp32'"],
        device="cpu",
        allow=("export",),
        **opened,
    )
    data = _data(values.eval_split, data_dir, run.eval_split)
    train_split = _runs.whole_split(data_dir, None, Recipe().train_split)
    models, lost = [], {}
    if KERAS in names:
        models.append(model_of_run(run, values.model_dir, **opened))
    wanted_names = [name for name in names if name != KERAS]
    options = {"data": data, "train_split": train_split}
    for name, found in exported_models(run, wanted_names, folder, **options):
        if isinstance(found, Exception):
            _raise_unless_all(found)
            _say(f"not exported: {name}: {found}")
            lost[name] = str(found)
            continue
        _say(f"exported and checked: {name}")
        models.append(found)
    config.assert_all_used(allow=("train.eval_split",), overrides_only=True)
    return models, data, lost


def _raise_unless_all(error: Exception) -> None:
    """Raise what a format failed with that was named; of all formats some may not be there."""
    if _ALL not in (flags.FLAGS.formats or [_ALL]):
        raise error


def _data(split: str | None, folder: str | None = None, remembered: str = "coco_val") -> Data:
    from ssd_centernet.benchmark.formats import Data

    folder = folder or flags.FLAGS.data_dir
    whole = _runs.whole_split(folder, split, remembered)
    return Data(folder=folder, split=whole, count=flags.FLAGS.images)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
