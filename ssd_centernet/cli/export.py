"""Export a trained detector to SavedModel, TFLite, ONNX or OpenVINO files, checked, with a card.

Examples:
  ssd_centernet export --model_dir=runs/ssd300 --output=exported/ssd300
  ssd_centernet export --model_dir=runs/ssd300 --output=exported/ssd300 --overwrite \\
      --formats=saved_model,tflite,tflite_int8,onnx --data_dir=data/coco

The files hold preprocessing and decoding: images go in, boxes on these images come out;
tflite_int8_heads, for accelerators of integers, leaves the decoding to you. Every file
is run on images and compared with the model; if one detects something else, nothing is written.
The images come from --check_images, else from the run's validation split in --data_dir, else they
are rendered. The formats of integers (tflite_full_int8, tflite_16x8, tflite_int8_heads,
openvino_int8) are calibrated on --calibration_images, else on pictures of the run's training split
in --data_dir.
With --data_dir, AP of each file of 8 bits is measured beside the model's: one that loses more than
--max_ap_loss is refused.
--output gets the files, labels.txt and model_card.json, and with TFLite detect.py, a program that
detects with such a file and needs neither this library nor TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from ssd_centernet.cli import _flags, _runs
from ssd_centernet.plain_text import counted

_FORMATS = (
    "saved_model, saved_model_portable, tflite, tflite_int8, tflite_full_int8, tflite_16x8, "
    "tflite_int8_heads, onnx, onnx_nms, openvino, openvino_int8"
)
_CALIBRATION = 100
# Images of the check.
_COMPARED, _MEASURED = 8, 500
_MAX_AP_LOSS = 0.01


def define_flags() -> None:
    """Define the flags of this command."""
    _runs.define_run_flags()
    _flags.define_data_dir()
    flags.DEFINE_string("output", None, "Folder for the files; made if it is missing.")
    flags.DEFINE_list("formats", None, f"What to write: {_FORMATS} (default: saved_model).")
    flags.DEFINE_float(
        "score_threshold",
        None,
        "Lowest score of a detection in the files (default: the recipe's).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_float(
        "iou_threshold",
        None,
        "Overlap (IoU) at which two boxes are one object (default: the recipe's).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_list(
        "input_size",
        None,
        "HEIGHT,WIDTH of the images that tflite, openvino and onnx take (default: the network's "
        "size for tflite and openvino, any size for onnx).",
    )
    flags.DEFINE_list("check_images", None, "Image files and folders to compare detections on.")
    flags.DEFINE_integer(
        "num_check_images",
        None,
        f"Number of images of the check (default: {_COMPARED} to compare detections on, "
        f"{_MEASURED} to measure AP on).",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "max_ap_loss",
        None,
        "Largest loss of AP of a format of 8 bits, on the validation split of --data_dir "
        f"(default: {_MAX_AP_LOSS:g}, one point).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_list(
        "calibration_images",
        None,
        "Image files and folders to calibrate the formats of integers on (default: the training "
        "split of --data_dir).",
    )
    flags.DEFINE_integer(
        "num_calibration_images",
        None,
        f"Number of pictures to calibrate on (default: {_CALIBRATION}).",
        lower_bound=1,
    )
    flags.DEFINE_boolean("overwrite", False, "Replace an earlier export.")


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("model_dir", "output")
    _flags.check_folders("output")
    values = flags.FLAGS
    input_size = _input_size(values.input_size)
    from ssd_centernet import config
    from ssd_centernet.checkpoint_files import holds_averages
    from ssd_centernet.export import card
    from ssd_centernet.export.export import export

    # Files for other programs are float32 whatever the training computed in.
    values.dtype = values.dtype or "fp32"
    run = _runs.open_run_of_flags(checkpoint=values.checkpoint, allow=("export",))
    images, source = _check_images(run)
    calibration, calibrated_on = _calibration(run)
    options: dict[str, Any] = {
        "formats": values.formats,
        "score_threshold": values.score_threshold,
        "iou_threshold": values.iou_threshold,
        "input_size": input_size,
        "batch_size": values.batch_size,
        "measure": _measure(run),
        "max_ap_loss": values.max_ap_loss,
    }
    facts = {
        **card.run_facts(
            values.model_dir,
            run.checkpoint,
            averaged=holds_averages(run.checkpoint),
            trained=run.trained,
        ),
        "settings": config.operative_config().splitlines(),
        "check_images": source,
        **({"calibration": calibrated_on} if calibrated_on else {}),
    }
    heading = (
        f"{'raw weights of ' * run.trained}{run.checkpoint}, "
        f"checked on {counted(len(images), 'image')}: {source}\n\n"
        f"{'format':<17} {'found again':>16} {'score':>9} {'box':>9} {'IoU':>7}"
    )

    def report(name: str, checked: dict) -> None:
        nonlocal heading
        # Once there is something below it: what is refused is refused before.
        if heading:
            print(heading)
            heading = ""
        _print_parity(name, checked)

    content = export(
        run.detector,
        values.output,
        label_map=run.label_map,
        images=images,
        calibration=calibration,
        overwrite=values.overwrite,
        facts=facts,
        report=report,
        **{name: value for name, value in options.items() if value is not None},
    )
    config.assert_all_used(allow=("train.eval_split",), overrides_only=True)
    print("\nfound again: detections that the model and the file share, of those compared")
    print("score, box: largest difference of a score, and of a coordinate (fraction of the image)")
    print("IoU: smallest overlap of two that are the same")
    if any("ap" in one for one in content["formats"].values()):
        print("AP: of the file, and of the model on the same pixels")
    print()
    for name, size in content["bytes"].items():
        small = f"{size / 1e3:.1f} kB" if size >= 1e3 else f"{size} bytes"
        shown = f"{size / 1e6:.1f} MB" if size >= 1e5 else small
        print(f"written: {Path(values.output) / name} ({shown})")
    print(f"written: {Path(values.output) / card.CARD_NAME}")
    return 0


def _print_parity(name: str, checked: dict) -> None:
    numbers = checked["parity"]
    shared = f"{numbers['matched']} of {numbers['compared']}"
    ap = "  AP {file:.4f}, model {model:.4f}".format(**checked["ap"]) if "ap" in checked else ""
    print(
        f"{name:<17} {shared:>16} {numbers['score_difference']:>9.2g} "
        f"{numbers['coordinate_difference']:>9.2g} {numbers['iou']:>7.4f}{ap}",
        flush=True,
    )


def _input_size(words: list[str] | None) -> tuple[int, int] | None:
    if words is None:
        return None
    if len(words) != 2 or not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise flags.Error(
            f"--input_size={','.join(words)}: expected HEIGHT,WIDTH in pixels, such as 480,640."
        )
    return int(words[0]), int(words[1])


def _check_images(run) -> tuple[list, str]:
    """Read the images to check on and return them and where they are from."""
    values = flags.FLAGS
    count = values.num_check_images or _COMPARED
    from ssd_centernet.export.pictures import pictures_of_records, rendered_pictures
    from ssd_centernet.predict.image_files import find_images, read_image

    if values.check_images:
        files = find_images(values.check_images)[:count]
        if not files:
            raise FileNotFoundError(
                f"there are no images in --check_images={','.join(values.check_images)}."
            )
        return [read_image(file) for file in files], ", ".join(values.check_images)
    if values.data_dir:
        split = _runs.whole_split(values.data_dir, None, run.eval_split)
        pictures = pictures_of_records(values.data_dir, split, run.label_map, count)
        return pictures, f"{split} of {values.data_dir}"
    return rendered_pictures(count), "rendered scenes"


def _calibration(run) -> tuple[list, str | None]:
    """Read the pictures to calibrate on and return them and what they are."""
    values = flags.FLAGS
    from ssd_centernet.export.formats import FORMATS
    from ssd_centernet.export.pictures import pictures_of_records, spread
    from ssd_centernet.predict.image_files import find_images, read_image
    from ssd_centernet.recipe import Recipe

    count = values.num_calibration_images or _CALIBRATION
    wanted = [name for name in values.formats or () if name in FORMATS]
    learned = run.detector.quantized is not None
    if learned or not any(FORMATS[name].calibrated for name in wanted):
        _refuse_calibration_flags(FORMATS)
        return [], None
    if values.calibration_images:
        files = find_images(values.calibration_images)
        if not files:
            raise FileNotFoundError(
                f"there are no images in --calibration_images="
                f"{','.join(values.calibration_images)}."
            )
        pictures = [read_image(file) for file in spread(files, count)]
        return pictures, f"{len(pictures)} of {', '.join(values.calibration_images)}"
    if values.data_dir:
        split = _runs.whole_split(values.data_dir, None, Recipe().train_split)
        chosen = (values.data_dir, split, run.label_map, count)
        pictures = pictures_of_records(*chosen, of_all_files=True)
        return pictures, f"{len(pictures)} of {split} of {values.data_dir}"
    # Told by the export, which knows the formats.
    return [], None


def _refuse_calibration_flags(formats: dict) -> None:
    values = flags.FLAGS
    names = [name for name, kind in formats.items() if kind.calibrated]
    for flag in ("calibration_images", "num_calibration_images"):
        if values[flag].value is not None:
            raise flags.IllegalFlagValueError(
                f"--{flag} has no effect on --formats={','.join(values.formats or ['saved_model'])}"
                f"; it is for {', '.join(names)}. Leave it out."
            )


def _measure(run):
    """Return what measures AP on the validation split, None where nothing is to be measured."""
    values = flags.FLAGS
    from ssd_centernet.export.formats import FORMATS
    from ssd_centernet.runs.exported import SplitMeasure

    wanted = [name for name in values.formats or () if name in FORMATS]
    if not values.data_dir or not any(FORMATS[name].reduced for name in wanted):
        if values.max_ap_loss is not None:
            names = ", ".join(name for name, kind in FORMATS.items() if kind.reduced)
            raise flags.IllegalFlagValueError(
                f"--max_ap_loss={values.max_ap_loss:g} has no effect: AP is measured of {names} "
                "(--formats), on the validation split of --data_dir. Give both, or leave it out."
            )
        return None
    return SplitMeasure(
        data_dir=values.data_dir,
        split=_runs.whole_split(values.data_dir, None, run.eval_split),
        label_map=run.label_map,
        keep_aspect=run.detector.preprocessing.keep_aspect,
        count=values.num_check_images or _MEASURED,
    )
