"""Convert a data set to TFRecord shards: COCO json, Pascal VOC, YOLO, CSV, TFDS or an export.

Writes NAME_SPLIT.record-*, NAME_SPLIT.info.json, NAME_SPLIT.annotations.json and
mscoco_label_map.pbtxt, and reports every image and box that was repaired or dropped, with the
reason. The shards appear when all are complete. The same call on the same input does nothing, and
says so. NAME is that of --output_dir, coco for the classes of COCO, or --name; the next splits of
the folder take it too, and no command needs to be told.

Examples; run it once for each split:

  ssd_centernet convert --annotations=annotations/instances_train2017.json \\
      --image_dir=train2017 --output_dir=data/coco --split=train
  ssd_centernet convert --annotations=VOCdevkit/VOC2007 --output_dir=data/voc --split=train
  ssd_centernet convert --annotations=my_data/data.yaml --output_dir=data/yolo --split=val
  ssd_centernet convert --annotations=boxes.csv --image_dir=images --output_dir=data/table
  ssd_centernet convert --annotations=tensorflow_datasets/voc/2007/5.0.0 --output_dir=data/voc
  ssd_centernet convert --annotations=test2017 --label_map=coco.pbtxt --output_dir=data/test
  ssd_centernet convert --annotations=trees.csv --output_dir=data/trees --tiles=400,100

Columns of a CSV table: image, xmin, ymin, xmax, ymax, class; corners in pixels. The exports of
CVAT (annotations.xml), Label Studio (JSON), VoTT (JSON) and Open Images are recognised too.
"""

import os

from absl import flags

from ssd_centernet.cli import _flags, _runs

FLAGS = flags.FLAGS

# What comes next is made for few images below this number, and for those of COCO's size above it.
_FEW_IMAGES = 5000
_RECIPE_FOR_FEW = (
    "--gin_file=ssd320_efficientnet_lite0",
    "--gin_file=optim/finetune",
    "--fine_tune_checkpoint=efficientnet_lite0",
)


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string(
        "annotations",
        None,
        "COCO json, CSV table, data.yaml, a tool's export, or a folder (VOC, YOLO, TFDS).",
    )
    flags.DEFINE_enum(
        "format",
        "auto",
        "auto coco voc yolo csv tfds cvat labelstudio vott openimages".split(),
        "Format of the annotations; auto finds it from what the path holds.",
    )
    flags.DEFINE_string(
        "image_dir",
        None,
        "Folder of the images of this split; needed for COCO, found by itself for the others.",
    )
    flags.DEFINE_string(
        "image_list",
        None,
        "Text file with one image per line: only these are converted (VOC, YOLO, CSV).",
    )
    flags.DEFINE_integer(
        "first_pixel",
        None,
        "Number of the first pixel (default: 1 for VOC, 0 for CSV).",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_string("output_dir", None, "Folder for the shards; the splits share it.")
    flags.DEFINE_string("split", "train", "Name of the split: train, val, ...")
    flags.DEFINE_string(
        "name",
        None,
        "Name of the data set, with which its files begin: birds gives birds_train.record-* "
        "(default: that of the other splits in --output_dir; else coco for COCO's own classes; "
        "else the name of the folder). Commands find them without a word.",
    )
    flags.DEFINE_integer(
        "num_shards", None, "Number of shards (default: one for about 400 images, 8 to 256)."
    )
    flags.DEFINE_integer("workers", None, "Threads (default: one per processor).")
    flags.DEFINE_integer(
        "max_pixels", None, "Images with more pixels are dropped (default: 89478485)."
    )
    flags.DEFINE_integer(
        "max_images", None, "Use only the first N images with objects.", lower_bound=1
    )
    flags.DEFINE_float("max_missing", 0.05, "Share of the listed images that may be missing, 0..1.")
    flags.DEFINE_float(
        "max_dropped",
        0.1,
        "Share of the boxes or images that may be dropped as unusable, 0..1.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_enum(
        "box_units",
        "auto",
        ["auto", "pixels", "fractions", "percent"],
        "What boxes of COCO, VOC and CSV are given in: auto refuses what does not look like pixels "
        "or like x, y, width, height; pixels clips it; fractions and percent of the picture are "
        "scaled.",
    )
    flags.DEFINE_string(
        "label_map",
        None,
        "Categories to keep: a pbtxt file, or a .txt file with one name per line (default: all).",
    )
    flags.DEFINE_boolean(
        "drop_unknown_categories", False, "Leave out boxes of categories outside the label map."
    )
    flags.DEFINE_boolean("keep_empty", True, "Keep images without objects.")
    flags.DEFINE_boolean("keep_crowd", True, "Keep crowd regions.")
    _define_tiles()
    flags.DEFINE_boolean("overwrite", False, "Replace a conversion that had other input.")
    flags.mark_flags_as_required(["annotations", "output_dir"])


def _define_tiles() -> None:
    flags.DEFINE_string(
        "tiles",
        None,
        "SIZE or SIZE,OVERLAP in pixels: cut larger pictures into square tiles, each a picture of "
        "its own (default overlap: a fifth of the size).",
    )
    flags.DEFINE_float(
        "tiles_min_visible",
        None,
        "Share of an object's box that a tile must show to have the object, above 0 and at most 1; "
        "of less it has a crowd region (default: 0.5).",
    )


def main(argv: list[str]) -> None:
    """Run the conversion and print its report.

    Args:
        argv: what is left of the command line; nothing but the program's name.
    """
    if len(argv) > 1:
        raise flags.Error(f"Unexpected arguments {argv[1:]}; write every option as --flag=value.")
    _flags.require("output_dir")
    _flags.check_folders("output_dir")
    from ssd_centernet.data.convert import DEFAULT_MAX_PIXELS
    from ssd_centernet.data.convert_formats import convert_annotations, read_label_map, told

    tiles, more = _tiles(), {}
    if FLAGS.tiles_min_visible is not None:
        more["tiles_min_visible"] = FLAGS.tiles_min_visible
    read = []  # Stays empty where the same was converted before.
    info = convert_annotations(
        FLAGS.annotations,
        FLAGS.output_dir,
        image_dir=FLAGS.image_dir,
        annotation_format=FLAGS.format,
        image_list=FLAGS.image_list,
        first_pixel=FLAGS.first_pixel,
        split=FLAGS.split,
        name=FLAGS.name,
        num_shards=FLAGS.num_shards,
        workers=FLAGS.workers,
        max_images=FLAGS.max_images,
        max_pixels=DEFAULT_MAX_PIXELS if FLAGS.max_pixels is None else FLAGS.max_pixels,
        keep_empty=FLAGS.keep_empty,
        keep_crowd=FLAGS.keep_crowd,
        label_map=read_label_map(FLAGS.label_map) if FLAGS.label_map else None,
        drop_unknown_categories=FLAGS.drop_unknown_categories,
        max_missing=FLAGS.max_missing,
        max_dropped=FLAGS.max_dropped,
        box_units=FLAGS.box_units,
        tiles=tiles,
        overwrite=FLAGS.overwrite,
        when_read=read.append,
        **more,
    )
    if not read:
        print(
            f"{info['name']}_{info['split']} was converted from the same input before: nothing is "
            "written anew. What was said then:"
        )
    print(told(info, FLAGS.output_dir))
    _tell_name(info["name"])
    _tell_next(FLAGS.output_dir, info["name"])


def _tiles():
    """Return what --tiles says, None where it is not given."""
    if FLAGS.tiles is None:
        if FLAGS.tiles_min_visible is not None:
            raise flags.Error("--tiles_min_visible belongs to --tiles, which was not given.")
        return None
    from ssd_centernet.ops.tiles import Tiles

    try:
        return Tiles.parse(FLAGS.tiles)
    except ValueError as error:
        raise flags.IllegalFlagValueError(f"--tiles={FLAGS.tiles}: {error}") from error


def _tell_name(name: str) -> None:
    """Say how the first split of a folder got its name, where nobody gave one."""
    from ssd_centernet.data.names import COCO
    from ssd_centernet.data.splits import list_splits

    if FLAGS.name is None and name != COCO and len(list_splits(FLAGS.output_dir)) == 1:
        print(f"The data set is called {name}, as its folder; --name=NAME gives another name.")


def _tell_next(data_dir: str, name: str) -> None:
    """Print the command that comes next: the other split first, then the training."""
    from ssd_centernet.data.names import names_in
    from ssd_centernet.data.splits import list_splits, read_info

    known, alone = list_splits(data_dir), len(names_in(data_dir)) == 1
    missing = [one for one in ("train", "val") if not {one, f"{name}_{one}"} & set(known)]
    if missing:
        # A folder, a data.yaml and a builder hold all splits; a file of annotations only one.
        one_file = FLAGS.image_dir is not None or FLAGS.annotations.endswith((".json", ".csv"))
        given = f"{missing[0].upper()}_ANNOTATIONS" if one_file else FLAGS.annotations
        words = [f"--annotations={given}", f"--output_dir={data_dir}", f"--split={missing[0]}"]
        if FLAGS.name is not None or not alone:
            words.append(f"--name={name}")
        if FLAGS.image_dir is not None:
            words.insert(1, f"--image_dir={missing[0].upper()}_IMAGES")
        if FLAGS.tiles is not None:
            words.append(f"--tiles={FLAGS.tiles}")
        _runs.tell_next("convert", *words)
        return
    info = read_info(data_dir, f"{name}_train")
    few = info is not None and info["num_images"] < _FEW_IMAGES
    recipe = _RECIPE_FOR_FEW if few else ("--gin_file=ssd300_resnet34",)
    run = f"--model_dir=runs/{os.path.basename(os.path.abspath(data_dir))}"
    chosen = () if alone else (f"--train_split={name}_train",)
    _runs.tell_next("train", *recipe, f"--data_dir={data_dir}", *chosen, run)
