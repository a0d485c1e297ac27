"""Detect objects in images: drawings, and COCO-style json.

Examples:
  ssd_centernet predict --model_dir=runs/ssd300 street.jpg holidays/
  ssd_centernet predict --model_dir=runs/ssd300 --contact_sheet val2017 --max_images=64 \\
      --annotations=instances_val2017.json

Arguments are image files and folders. Every image is drawn to OUTPUT_DIR/NAME.png with the
detections above --min_score. OUTPUT_DIR/detections.json holds all detections, low scores too, as
`ssd_centernet evaluate --detections` reads them; their image_id is the number that the file name
is, or a running number: images.json tells which. With --annotations the truth is drawn beside.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ssd_centernet.cli import _flags, _runs


def define_flags() -> None:
    """Define the flags of this command."""
    _runs.define_run_flags()
    flags.DEFINE_string("output_dir", None, "Where to write (default: MODEL_DIR/predictions).")
    flags.DEFINE_float(
        "min_score",
        0.3,
        "Detections below it are not drawn, 0..1.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer("max_images", None, "Stop after this many images.", lower_bound=1)
    flags.DEFINE_string("annotations", None, "COCO json of the images, to draw the truth beside.")
    flags.DEFINE_boolean("contact_sheet", False, "Also put up to 64 drawings on one sheet.")


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name, image files and folders.

    Returns:
        The exit status: 1 when no image could be read.
    """
    values = flags.FLAGS
    _flags.require("model_dir")
    if len(argv) < 2:
        raise flags.Error("Give image files or folders behind the flags.")
    output_dir = Path(values.output_dir or Path(values.model_dir) / "predictions")
    from ssd_centernet.evaluation.files import find_images
    from ssd_centernet.evaluation.predict import predict

    files = find_images(argv[1:], without=output_dir)[: values.max_images]
    if not files:
        print(f"There are no images in {', '.join(argv[1:])}.", file=sys.stderr)
        return 1
    run = _runs.open_run_of_flags(checkpoint=values.checkpoint)
    options = {"batch_size": values.batch_size} if values.batch_size else {}
    with _runs.progress_bar(len(files)) as bar:
        found = predict(
            run.detector,
            files,
            output_dir=output_dir,
            label_map=run.label_map,
            min_score=values.min_score,
            annotations=values.annotations,
            contact_sheet=values.contact_sheet,
            heading=f"{run.checkpoint}\nscore {values.min_score:g} or more",
            progress=bar.update,
            **options,
        )
    for path, reason in found.unreadable.items():
        print(f"skipped {path}: {reason}", file=sys.stderr)
    drawn = sum(image["detections"] for image in found.images)
    print(
        f"{run.checkpoint}: {len(found.images)} images, {drawn} detections of score "
        f"{values.min_score:g} or more ({len(found.rows)} in all), {len(found.unreadable)} files "
        f"skipped: {output_dir}"
    )
    if found.contact_sheet:
        print(f"contact sheet: {found.contact_sheet}")
    return 0 if found.images else 1
