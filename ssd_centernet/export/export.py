"""The root of export: from a trained detector to checked files in a folder."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.export import card, parity
from ssd_centernet.export.formats import FORMATS, LABELS_NAME, Order
from ssd_centernet.export.pictures import rendered_pictures
from ssd_centernet.files import (
    mend_folder,
    put_folder,
    remove_leftovers,
    temporary_folder,
    write_atomically,
)
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.quantized import has_ranges
from ssd_centernet.run_directory import refuse_wildcards

_PICTURES = 8
# What detects with a TFLite file without this library; it lies beside each.
_PROGRAM = Path(__file__).with_name("detect.py")


@gin.configurable
def export(
    detector: Detector,
    output_dir: str | os.PathLike,
    *,
    formats: Sequence[str] = ("saved_model",),
    label_map: LabelMap | None = None,
    images: Sequence[np.ndarray] | None = None,
    calibration: Sequence[np.ndarray] = (),
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    input_size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    pairs: int = 1024,
    measure: Callable[..., tuple[float, int]] | None = None,
    max_ap_loss: float = 0.01,
    overwrite: bool = False,
    facts: dict[str, Any] | None = None,
    report: Callable[[str, dict], None] | None = None,
) -> dict[str, Any]:
    """Write a detector in other formats, each checked against it, with a model card.

    Everything is written and checked in a folder beside the target, which is then renamed: where
    any of the formats fails, nothing is left.

    Args:
        detector: with its weights, in float32.
        output_dir: folder to make: the files of the formats (docs/export.md), `labels.txt`,
            `model_card.json` and, with TFLite, the program `detect.py`.
        formats: what to write: saved_model, tflite, tflite_int8, tflite_full_int8, tflite_16x8,
            tflite_int8_heads, onnx, onnx_nms, openvino, openvino_int8, saved_model_portable.
        label_map: names of the classes; None takes the detector's.
        images: uint8 [H, W, 3] each, to compare detections on; None renders some.
        calibration: uint8 [H, W, 3] each, pictures as of the training: the ranges of the numbers in
            tflite_full_int8, tflite_16x8, tflite_int8_heads and openvino_int8 are measured on them;
            none for a detector that has learned its ranges.
        score_threshold: default threshold of the files, [0, 1); None is the decoder's.
        iou_threshold: as above, (0, 1]; not where the decoder suppresses nothing.
        input_size: (height, width) of the images that tflite, openvino and onnx take, in pixels;
            None is the network's own size for tflite and openvino, any size for onnx. A SavedModel
            takes any size.
        batch_size: images in a batch; None is 1 for tflite and openvino, any number for the others.
        pairs: how many of the best pairs of anchor and class enter the suppression in tflite,
            openvino and onnx; more of them cost time and memory, fewer may lose detections of
            crowded images.
        measure: called with a function that detects and the size of its images; gives AP and the
            number of images. With it, formats of fewer bits are measured beside the model.
        max_ap_loss: how much less AP than the model such a file may have.
        overwrite: whether an earlier export in `output_dir` is replaced.
        facts: of the run, for the model card.
        report: called with the name and the parity of each format as soon as it is checked.

    Returns:
        The model card, as it is written.

    Raises:
        FileExistsError: the folder is there, and `overwrite` is off or it is not an export.
        ValueError: an argument out of range, or a folder whose name holds wildcards.
        ParityError: a file does not detect what the detector detects.
        ImportError: a package is missing that a format needs.
    """
    thresholds = _thresholds(detector, score_threshold, iou_threshold)
    names = _check(detector, formats, label_map, pairs)
    if detector.quantized is None:
        check_calibration(formats, len(calibration))
    else:
        check_learned(detector, formats, len(calibration))
    if input_size is not None and not set(formats) - {"saved_model"}:
        raise ValueError(
            f"--input_size={','.join(map(str, input_size))} has no effect on a SavedModel, which "
            "takes images of any size; it is for tflite, onnx and openvino. Leave it out."
        )
    if "saved_model" in formats:
        refuse_wildcards(output_dir, "--output", "a SavedModel there could not be loaded")
    target = _check_target(Path(output_dir), overwrite)
    images = rendered_pictures(_PICTURES) if images is None else list(images)
    if not images:
        raise ValueError("there are no images to check the export on; give at least one.")
    remove_leftovers(target.parent, [glob.escape(target.name)])
    # Beside the target: a rename at the end must not cross file systems.
    with temporary_folder(target) as folder:
        write_atomically(folder / LABELS_NAME, "".join(f"{name}\n" for name in names))
        order = Order(
            detector=detector,
            folder=folder,
            thresholds=thresholds,
            input_size=None if input_size is None else tuple(input_size),
            batch_size=batch_size,
            pairs=pairs,
            names=names,
            calibration=calibration,
        )
        accuracy = _Accuracy(detector, thresholds, measure, max_ap_loss)
        checked = _write_and_check(order, formats, images, accuracy, report)
        if any(one["file"].endswith(".tflite") for one in checked.values()):
            write_atomically(folder / _PROGRAM.name, _PROGRAM.read_text(encoding="utf-8"))
        content = {
            **card.describe(detector),
            "labels": [
                {"class": number, "name": name, **({} if ids is None else {"id": ids[number]})}
                for ids in [None if label_map is None else label_map.ids]
                for number, name in enumerate(names)
            ],
            "thresholds": thresholds,
            "max_detections": detector.decoder.max_detections,
            "formats": checked,
            **(facts or {}),
            "versions": card.versions(),
            "bytes": card.file_sizes(folder),
        }
        write_atomically(folder / card.CARD_NAME, json.dumps(content, indent=1) + "\n")
        put_folder(folder, target)
    return content


def _write_and_check(order: Order, formats, images, accuracy, report) -> dict[str, dict]:
    """Write and check format by format and return what the card says of each."""
    detect = parity.reference(order.detector, order.thresholds)
    checked = {}
    for name in formats:
        kind = FORMATS[name]
        path = order.folder / kind.file
        kind.write(order, path)
        run = kind.runner(path)
        fitted = images if run.frame is None else [_fitted(image, run.frame) for image in images]
        result = parity.compare(
            parity.pairs_of(run, detect, fitted),
            kind.tolerance,
            score_threshold=order.thresholds["score_threshold"],
        )
        measured = accuracy.of(name, run) if kind.reduced else None
        # Of a calibrated file AP is the judge, where it says anything.
        if not (kind.calibrated and measured and measured["model"] >= parity.SAYS_LITTLE):
            parity.check(name, result, kind.tolerance)
        checked[name] = {
            "file": kind.file,
            "image_size": "any" if run.frame is None else list(run.frame),
            "pairs": None if name == "saved_model" else order.pairs,
            "parity": result.to_dict(kind.tolerance),
            **_ranges_from(order, kind),
            **({"ap": measured} if measured else {}),
            **getattr(run, "facts", {}),
        }
        if report is not None:
            report(name, checked[name])
    return checked


def _ranges_from(order: Order, kind) -> dict[str, Any]:
    """Say where the ranges of a file's integers are from; nothing of a file without."""
    quantized = order.detector.quantized
    if not kind.calibrated:
        return {}
    if quantized is None:
        return {"calibration_images": len(order.calibration)}
    return {"learned_ranges": dataclasses.asdict(quantized.settings)}


class _Accuracy:
    """Measure files beside the model, which is measured once for each size of images."""

    def __init__(self, detector, thresholds, measure, max_loss: float):
        self._detect = parity.reference(detector, thresholds)
        self._measure = measure
        self._max_loss = max_loss
        self._of_model: dict[tuple, tuple[float, int]] = {}

    def of(self, name: str, run) -> dict[str, float] | None:
        """Return the AP of a file and of the model; None where it is not measured.

        Raises:
            ParityError: the file loses too much.
        """
        if self._measure is None:
            return None
        if run.frame not in self._of_model:
            self._of_model[run.frame] = self._measure(
                lambda image: [self._detect(image)], run.frame
            )
        of_model, images = self._of_model[run.frame]
        of_file, _ = self._measure(run, run.frame)
        limits = {"images": images, "max_loss": self._max_loss}
        parity.check_ap(name, of_file=of_file, of_model=of_model, **limits)
        return {"file": of_file, "model": of_model, **limits}


def check_calibration(formats: Sequence[str], pictures: int) -> None:
    """Refuse formats of integers without pictures to calibrate them on, and pictures without these.

    Raises:
        ValueError: see above.
    """
    needing = [name for name in formats if name in FORMATS and FORMATS[name].calibrated]
    if needing and not pictures:
        raise ValueError(
            f"{', '.join(needing)}: the ranges of integers are measured on training pictures, and "
            "there are none. Give --data_dir, the data of the run, or --calibration_images."
        )
    if pictures and not needing:
        names = ", ".join(name for name, kind in FORMATS.items() if kind.calibrated)
        raise ValueError(
            f"{pictures} calibration pictures have no effect on {', '.join(formats)}; they are for "
            f"{names} (--formats). Leave them out."
        )


def check_learned(detector: Detector, formats: Sequence[str], pictures: int) -> None:
    """Refuse what a detector that has learned its ranges cannot be, or does not need.

    Raises:
        ValueError: a format for which its numbers would have to be others, pictures to calibrate
            on, or ranges that were never learned.
    """
    held = [name for name, kind in FORMATS.items() if kind.rounds]
    if others := [name for name in formats if name in FORMATS and name not in held]:
        raise ValueError(
            f"{', '.join(others)}: this detector was trained for 8-bit integers "
            f"(build_detector.quantize), which only {', '.join(held)} hold. Choose of these, or "
            'export its weights without: --gin_params="build_detector.quantize = None".'
        )
    if pictures:
        raise ValueError(
            f"{pictures} calibration pictures have no effect: this detector has learned its "
            "ranges in training. Leave them out."
        )
    if not has_ranges(detector):
        raise ValueError(
            "this detector has build_detector.quantize, but was never trained with it, so that "
            "there are no ranges. Train it (docs/export.md), or leave the setting out."
        )


def _fitted(image: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Resize an image to what a file takes; model and file then see the same pixels."""
    pixels = tf.image.resize(image, frame, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8).numpy()


def _thresholds(detector, score_threshold, iou_threshold) -> dict[str, float]:
    """Return the thresholds by name, the decoder's own where none is given."""
    decoder = detector.decoder
    own = getattr(decoder, "iou_threshold", None)
    if iou_threshold is not None and own is None:
        raise ValueError(
            f"iou_threshold={iou_threshold:g} has no effect: {type(decoder).__name__} suppresses "
            "no boxes. Leave out --iou_threshold."
        )
    score = decoder.score_threshold if score_threshold is None else score_threshold
    if not 0.0 <= score < 1.0:
        raise ValueError(f"score_threshold must be in [0, 1), got {score}.")
    if own is None:
        return {"score_threshold": float(score)}
    iou = own if iou_threshold is None else iou_threshold
    if not 0.0 < iou <= 1.0:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou}.")
    return {"score_threshold": float(score), "iou_threshold": float(iou)}


def _check(detector, formats, label_map, pairs) -> tuple[str, ...]:
    """Refuse what cannot be exported and return the names of the classes."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats or len(set(formats)) != len(formats):
        raise ValueError(
            f"formats must be distinct names out of {', '.join(FORMATS)}, got {list(formats)}."
        )
    half = {layer.compute_dtype for layer in detector._flatten_layers()} - {"float32"}
    if half & {"bfloat16", "float16"}:
        raise ValueError(
            f"the detector computes in {', '.join(sorted(half))}; exported files are float32. "
            "Build it with dtype='fp32' (--dtype=fp32); the weights are float32 already."
        )
    if pairs < 1:
        raise ValueError(f"export.pairs must be at least 1, got {pairs}.")
    scales = [one for one in getattr(detector.decoder, "test_time", ()) if one != "flip"]
    if scales:
        raise ValueError(
            f"{type(detector.decoder).__name__}.test_time = {detector.decoder.test_time} looks at "
            "each image at other sizes too, which exported files do not do: they hold the network "
            "at one size. Set it to () or ('flip',); evaluate and predict by --model_dir have it."
        )
    if label_map is not None:
        label_map.check_num_classes(detector.num_classes, source="the detector's num_classes")
        return tuple(label_map.names)
    return detector.class_names or tuple(f"class_{n}" for n in range(detector.num_classes))


def _check_target(target: Path, overwrite: bool) -> Path:
    mend_folder(target)
    if not target.exists():
        return target
    if not overwrite:
        raise FileExistsError(
            f"{target} is there already; choose another --output, or give --overwrite to replace "
            "an earlier export."
        )
    if not (target / card.CARD_NAME).is_file():
        raise FileExistsError(
            f"{target} has no {card.CARD_NAME}, so it is not an earlier export; it is not "
            "replaced: choose another --output."
        )
    return target
