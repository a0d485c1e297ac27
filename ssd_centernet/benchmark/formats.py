"""What a model costs in each format: size, AP, time of a call and memory, measured alike."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_centernet.export.card import CARD_NAME
from ssd_centernet.export.export import export
from ssd_centernet.export.exported import ExportedDetector, FittedRun, fit_image, read_card
from ssd_centernet.export.formats import FORMATS
from ssd_centernet.export.parity import reference
from ssd_centernet.export.pictures import pictures_of_records, rendered_pictures
from ssd_centernet.export.runtimes import WEIGHTS
from ssd_centernet.files import read_object
from ssd_centernet.labels import LabelMap
from ssd_centernet.runs.exported import SplitMeasure, evaluate_exported
from ssd_centernet.runs.opened import OpenedRun

KERAS, ALL = "keras", "all"
# Pictures that the calls go through, and those that integers are calibrated on, as for `export`.
_PICTURES, _CALIBRATION, _MEASURED = 8, 100, 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Records to measure AP on, and to take pictures from.

    Attributes:
        folder: of converted data.
        split: what AP is measured on.
        count: its first images alone; None for all.
    """

    folder: str
    split: str
    count: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model in one format.

    Attributes:
        name: of the format.
        path: the file, or the folder of a SavedModel or of a run.
        size: bytes of the file or the folder; of Keras those of the weights.
        labels: the classes.
        load: makes what detects with it in this process.
        frame: (height, width) of the pictures that it is called with.
        keep_aspect: whether they are fitted in with their aspect ratio.
        checkpoint: of a run.
        gin_params: that the run was opened with.
        allow_import: modules that its settings may name.
    """

    name: str
    path: Path
    size: int
    labels: LabelMap
    load: Callable[[], FittedRun]
    frame: tuple[int, int]
    keep_aspect: bool
    checkpoint: str | None = None
    gin_params: Sequence[str] = ()
    allow_import: Sequence[str] = ()


def model_of_file(path: str | os.PathLike) -> Model:
    """Take a file that `export` wrote.

    Raises:
        FileNotFoundError: there is no such file, or no model card beside it.
        ValueError: it is no file of an export.
        ImportError: what runs it is not installed.
    """
    path = Path(path)
    detector = ExportedDetector(path)
    card = read_card(path)
    names = {entry["file"]: name for name, entry in card["formats"].items()}
    return Model(
        name=names.get(path.name, path.name),
        path=path,
        size=_size(path),
        labels=detector.label_map,
        # Not kept: each runtime has the weights once more.
        load=functools.partial(ExportedDetector, path),
        frame=detector.frame or tuple(card["input_size"]),
        keep_aspect=card["preprocessing"]["keep_aspect"],
    )


def chosen_formats(names: Sequence[str]) -> list[str]:
    """Return names of formats, `all` made to all of them with the Keras model first.

    Raises:
        ValueError: a name is none.
    """
    known = [KERAS, *FORMATS]
    if unknown := [name for name in names if name not in (*known, ALL)]:
        raise ValueError(
            f"--formats={','.join(unknown)}: expected names out of {', '.join(known)}, or all."
        )
    return known if ALL in names else list(names)


def files_of_folder(folder: str | os.PathLike) -> dict[str, Path]:
    """Return the files of an export by their formats, none where the folder is no export."""
    card = read_object(Path(folder) / CARD_NAME) or {}
    found = {name: Path(folder) / entry["file"] for name, entry in card.get("formats", {}).items()}
    return {name: path for name, path in found.items() if path.exists()}


def model_of_run(run: OpenedRun, model_dir: str | os.PathLike, **opened: Sequence[str]) -> Model:
    """Take the Keras model of a run.

    Args:
        run: of `open_run`.
        model_dir: its directory.
        **opened: `gin_params` and `allow_import` of `open_run`.
    """
    detect, keep = reference(run.detector, {}), run.detector.preprocessing.keep_aspect
    detector = FittedRun(
        lambda image: [detect(image)], frame=None, label_map=run.label_map, keep_aspect=keep
    )
    return Model(
        name=KERAS,
        path=Path(model_dir),
        size=sum(4 * int(np.prod(weight.shape)) for weight in run.detector.weights),
        labels=run.label_map,
        load=lambda: detector,
        frame=tuple(run.detector.image_size),
        keep_aspect=keep,
        checkpoint=run.checkpoint,
        **opened,
    )


def exported_models(
    run: OpenedRun,
    names: Sequence[str],
    folder: str | os.PathLike,
    *,
    data: Data | None = None,
    train_split: str | None = None,
) -> Iterator[tuple[str, Model | Exception]]:
    """Export a run to one format after the other, each checked as by `export`.

    Args:
        run: of `open_run`.
        names: of formats.
        folder: for the files.
        data: for the check's pictures and AP; None takes rendered scenes.
        train_split: what integers are calibrated on.

    Yields:
        The name, and the model or why there is none: a package is missing, the detector has no such
        form, or the file does not detect the same.
    """
    measure, images, calibration = None, None, []
    if data is not None:
        images = pictures_of_records(data.folder, data.split, run.label_map, _PICTURES)
        measure = SplitMeasure(
            data_dir=data.folder,
            split=data.split,
            label_map=run.label_map,
            keep_aspect=run.detector.preprocessing.keep_aspect,
            count=min(_MEASURED, data.count or _MEASURED),
        )
    for name in names:
        learned = run.detector.quantized is not None
        calibrated = not learned and name in FORMATS and FORMATS[name].calibrated
        if calibrated and data is not None and not calibration:
            chosen = (data.folder, train_split or "coco_train", run.label_map, _CALIBRATION)
            calibration = pictures_of_records(*chosen, of_all_files=True)
        target = Path(folder) / name
        try:
            export(
                run.detector,
                target,
                formats=[name],
                label_map=run.label_map,
                images=images,
                calibration=calibration if calibrated else (),
                measure=measure,
            )
            yield name, model_of_file(target / FORMATS[name].file)
        except (ImportError, ValueError) as error:
            yield name, error


def measure_models(
    models: Sequence[Model],
    *,
    data: Data | None = None,
    threads: int,
    windows: int = 3,
    seconds: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure models in turn, each call window in a process of its own.

    Args:
        models: what to measure.
        data: to measure AP on, with the pictures of the calls; None leaves AP out and calls with
            rendered scenes.
        threads: how many compute a call.
        windows: rounds over all models: a disturbance of the machine then meets all of them.
        seconds: of a window.
        progress: called with a line before each longer step.

    Returns:
        A line for each model: `format`, `bytes`, `AP` (None without data), `images`,
        `latency_ms_p50` and `latency_ms_p95` over all calls, `cpu_ms` (processor time of a call,
        the median of the windows), `calls`, `batch_size`, `image_size`, `threads`, `peak_rss_mb`
        and `empty_rss_mb` in 10^6 bytes, the most that a process had and what it had before it
        loaded the model.
    """
    say = progress or (lambda text: None)
    pictures = _pictures(models[0], data)
    windows_of: dict[str, list[dict]] = {model.name: [] for model in models}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(windows):
            for model in models:
                say(f"window {number + 1} of {windows}: {model.name}")
                frames = [
                    fit_image(picture, model.frame, model.keep_aspect)[0] for picture in pictures
                ]
                np.save(Path(folder) / "pictures.npy", np.stack(frames))
                found = _in_a_process(model, Path(folder) / "pictures.npy", threads, seconds)
                windows_of[model.name].append(found)
    lines = []
    for model in models:
        accuracy = {}
        if data is not None:
            say(f"AP of {model.name}")
            found = evaluate_exported(model.load(), data.folder, data.split, count=data.count)
            result = found.result
            accuracy = {"AP": float(result.metrics["AP"]), "images": result.num_images}
        lines.append({**_line(model, windows_of[model.name], threads), **accuracy})
    return lines


def _line(model: Model, windows: list[dict], threads: int) -> dict[str, Any]:
    times = np.concatenate([window["milliseconds"] for window in windows])
    p50, p95 = np.percentile(times, [50, 95])
    worked = np.median([window["cpu_milliseconds"] for window in windows])
    peak, empty = (max(window[key] for window in windows) for key in ("peak_rss", "empty_rss"))
    return {
        "part": "formats",
        "format": model.name,
        "model": os.fspath(model.path),
        "bytes": model.size,
        "latency_ms_p50": round(float(p50), 3),
        "latency_ms_p95": round(float(p95), 3),
        "cpu_ms": round(float(worked), 3),
        "calls": len(times),
        "batch_size": windows[0]["batch_size"],
        "image_size": list(model.frame),
        "threads": threads,
        "peak_rss_mb": round(peak / 1e6, 1),
        "empty_rss_mb": round(empty / 1e6, 1),
        "AP": None,
        "images": None,
    }


def _in_a_process(model: Model, pictures: Path, threads: int, seconds: float) -> dict:
    command = [sys.executable, "-m", "ssd_centernet.benchmark.alone"]
    command += [os.fspath(model.path), os.fspath(pictures)]
    command += [f"--threads={threads}", f"--seconds={seconds}"]
    command += [f"--checkpoint={model.checkpoint}"] if model.checkpoint else []
    command += [f"--gin_params={text}" for text in model.gin_params]
    command += [f"--allow_import={name}" for name in model.allow_import]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(
            f"{model.path} could not be measured: its process ended with status "
            f"{ended.returncode}: {last}"
        )
    return json.loads(ended.stdout.splitlines()[-1])


def _pictures(model: Model, data: Data | None) -> list[np.ndarray]:
    if data is None:
        return rendered_pictures(_PICTURES)
    return pictures_of_records(data.folder, data.split, model.labels, _PICTURES)


def _size(path: Path) -> int:
    files = [path, path.with_suffix(WEIGHTS)] if path.suffix == ".xml" else [path]
    if path.is_dir():
        files = [one for one in path.rglob("*") if one.is_file()]
    return sum(file.stat().st_size for file in files)
