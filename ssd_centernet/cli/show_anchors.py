"""Show which share of the ground truth a recipe can match, by the size of the objects.

Example:
  ssd_centernet show_anchors --gin_file=ssd300_resnet34 --data_dir=data/coco --output=anchors.png

The objects of the split are scaled to the network's input and matched as in training. For an SSD
the table says how many reach the matching threshold with an anchor, how many only get the best
anchor there is, how many get none, and on which level. For a CenterNet it says how many have a peak
of their own, share one, or are smaller than a cell of the heatmap. For the settings of an earlier
run give --gin_file=RUN/config.gin.
"""

from __future__ import annotations

from absl import flags

from ssd_centernet.cli import _flags, _runs


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    flags.DEFINE_string("split", None, "Split to read (default: the training split).")
    flags.DEFINE_alias("train_split", "split")
    flags.DEFINE_integer(
        "max_images", None, "Use only the first N images with objects.", lower_bound=1
    )
    flags.DEFINE_string("output", None, "PNG file for a chart of the shares by size.")


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.data.splits import list_splits
    from ssd_centernet.preview.anchor_report import describe_anchors
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runtime.device import select_device

    # Matching is quick on a processor, and an accelerator may be busy with training.
    select_device("cpu")
    config.parse(values.gin_file, values.gin_params, allow_import=values.allow_import)
    split = values.split
    if split is not None and split not in list_splits(values.data_dir):
        split = f"coco_{split.removeprefix('coco_')}"
    recipe = Recipe()
    report = describe_anchors(
        recipe.detector(load_label_map(values.data_dir)),
        values.data_dir,
        split=split or recipe.train_split,
        crowd=recipe.crowd,
        max_images=values.max_images,
        output=values.output,
    )
    config.assert_all_used(allow=("train",), overrides_only=True)
    print(report)
    if values.output:
        print(f"chart: {values.output}")
    return 0
