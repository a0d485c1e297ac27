"""Render a small COCO data set of textured shapes to try things on.

Writes JPEGs to train/ and val/ and COCO json to annotations/instances_{train,val}.json. The same
flags give the same pictures. A small detector learns it on a CPU in minutes.

Example:

  ssd_centernet make_synthetic --output_dir=data/shapes --num_train=1000 --num_val=200
"""

from absl import flags

from ssd_centernet.cli import _flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("output_dir", None, "Folder for the data set.")
    flags.DEFINE_integer("num_train", 1000, "Number of training images.")
    flags.DEFINE_integer("num_val", 200, "Number of held-out images.")
    flags.DEFINE_integer("min_size", 160, "Smallest image side, pixels.")
    flags.DEFINE_integer("max_size", 256, "Largest image side, pixels.")
    flags.DEFINE_list(
        "shapes",
        None,
        "Out of disc, square, triangle, star, cross, ring, pentagon, arrow, crescent, frame; the "
        "first three unless given, and all with --hard.",
    )
    flags.DEFINE_boolean(
        "hard",
        False,
        "Many small objects that hide each other, of ten classes with rare ones, in noisy pictures "
        "of which many are out of focus.",
    )
    flags.DEFINE_integer("seed", 0, "Seed of all randomness.")
    flags.DEFINE_boolean("overwrite", False, "Replace a data set made with other flags.")
    flags.mark_flags_as_required(["output_dir"])


def main(argv: list[str]) -> None:
    """Render the data set and print where its annotations are.

    Args:
        argv: what is left of the command line; nothing but the program's name.
    """
    if len(argv) > 1:
        raise flags.Error(f"Unexpected arguments {argv[1:]}; write every option as --flag=value.")
    _flags.require("output_dir")
    _flags.check_folders("output_dir")
    from ssd_centernet.data.synthetic import make_synthetic

    paths = make_synthetic(
        FLAGS.output_dir,
        num_train=FLAGS.num_train,
        num_val=FLAGS.num_val,
        image_size=(FLAGS.min_size, FLAGS.max_size),
        shapes=FLAGS.shapes,
        hard=FLAGS.hard,
        seed=FLAGS.seed,
        overwrite=FLAGS.overwrite,
    )
    for split, path in paths.items():
        print(f"{split}: {path}")
