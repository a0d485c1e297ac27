"""Tell what share of the ground truth a recipe can match, by the size of the objects.

Example:
  ssd_centernet show_anchors --gin_file=ssd300_resnet34 --data_dir=data/coco --output=anchors.png

The objects of the split are scaled to the network's input and handed to the detector's own
make_targets. Of an SSD the table says how many reach the matching threshold with an anchor, how
many are only given the best anchor there is, how many get none, and on which level. Of a CenterNet
it says how many have a peak of their own, share one, or are smaller than a cell of the heatmap. The
settings of a finished run are read with --gin_file=RUN/config.gin.
"""

from __future__ import annotations

from absl import flags

from ssd_centernet.cli import _flags, _runs


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    flags.DEFINE_string("split", None, "Split to read; by default that of training.")
    flags.DEFINE_integer(
        "max_images", None, "Only the first so many images with objects.", lower_bound=1
    )
    flags.DEFINE_string("output", None, "PNG file to draw the shares by size to.")


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.preview.anchor_report import describe_anchors
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runtime.device import select_device

    # Matching is quick on a processor, and an accelerator may be busy with training.
    select_device("cpu")
    config.parse(values.gin_file, values.gin_params)
    split = values.split
    if split is not None and not split.startswith("coco_"):
        split = f"coco_{split}"
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
