"""Convert a COCO data set to TFRecord shards.

Writes coco_<split>.record-*, coco_<split>.info.json, coco_<split>.annotations.json and
mscoco_label_map.pbtxt, and reports each image and box that was repaired or dropped, with the
reason. The shards appear when all are complete; calling it again with the same input does nothing.

Example, once for each split:

  ssd_centernet convert --annotations=annotations/instances_train2017.json \\
      --image_dir=train2017 --output_dir=data/coco --split=train
"""

from absl import flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("annotations", None, "COCO json file with boxes (instances_*.json).")
    flags.DEFINE_string("image_dir", None, "Folder of the images of this split.")
    flags.DEFINE_string("output_dir", None, "Folder for the shards; the splits share it.")
    flags.DEFINE_string("split", "train", "Name of the split: train, val, ...")
    flags.DEFINE_integer(
        "num_shards", None, "Number of shards; by default one for about 400 images, 8 to 256."
    )
    flags.DEFINE_integer("workers", None, "Threads; by default one for each processor.")
    flags.DEFINE_integer(
        "max_pixels", None, "Images with more pixels are dropped (default: 89478485)."
    )
    flags.DEFINE_integer(
        "max_images", None, "Only the first so many images with objects.", lower_bound=1
    )
    flags.DEFINE_float("max_missing", 0.05, "Share 0..1 of listed images that may be missing.")
    flags.DEFINE_string("label_map", None, "pbtxt of the categories to keep; default: all.")
    flags.DEFINE_boolean(
        "drop_unknown_categories", False, "Leave out boxes of categories outside the label map."
    )
    flags.DEFINE_boolean("keep_empty", True, "Keep images without objects.")
    flags.DEFINE_boolean("keep_crowd", True, "Keep crowd regions.")
    flags.DEFINE_boolean("overwrite", False, "Replace a conversion that had other input.")
    flags.mark_flags_as_required(["annotations", "image_dir", "output_dir"])


def main(argv: list[str]) -> None:
    """Run the conversion and print its report.

    Args:
        argv: what is left of the command line; nothing but the program's name.
    """
    if len(argv) > 1:
        raise flags.Error(f"Unexpected arguments {argv[1:]}; every option is a --flag=value.")
    from ssd_centernet.data.convert import DEFAULT_MAX_PIXELS, convert_coco
    from ssd_centernet.data.validate import format_report
    from ssd_centernet.labels import LabelMap

    info = convert_coco(
        FLAGS.annotations,
        FLAGS.image_dir,
        FLAGS.output_dir,
        split=FLAGS.split,
        num_shards=FLAGS.num_shards,
        workers=FLAGS.workers,
        max_images=FLAGS.max_images,
        max_pixels=DEFAULT_MAX_PIXELS if FLAGS.max_pixels is None else FLAGS.max_pixels,
        keep_empty=FLAGS.keep_empty,
        keep_crowd=FLAGS.keep_crowd,
        label_map=LabelMap.from_pbtxt(FLAGS.label_map) if FLAGS.label_map else None,
        drop_unknown_categories=FLAGS.drop_unknown_categories,
        max_missing=FLAGS.max_missing,
        overwrite=FLAGS.overwrite,
    )
    print(format_report(info["report"]))
    print(
        f"{FLAGS.output_dir}: {info['num_images']} images ({info['num_empty']} without objects), "
        f"{info['num_objects']} objects ({info['num_crowd']} crowd regions), "
        f"{info['num_shards']} shards."
    )
