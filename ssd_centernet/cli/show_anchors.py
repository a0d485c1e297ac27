"""Show which share of the ground truth a recipe can match, by the size of the objects.

Example:
  ssd_centernet show_anchors --gin_file=ssd300_resnet34 --data_dir=data/coco --output=anchors.png

The objects of the split are scaled to the network's input and matched as in training. For an SSD
the table says how many reach the matching threshold with an anchor, how many only get the best
anchor there is, how many get none, and on which level. For a CenterNet it says how many have a peak
of their own, share one, or are smaller than a cell of the heatmap. For the settings of an earlier
run give --gin_file=RUN/config.gin.

--fit computes the scales and ratios of an SSD's anchors for the data: clusters of the objects'
shapes (k-means on the IoU), then a search for what reaches most of them. It writes them to
--fit_output, a gin file to give to train after the recipe, and shows the table before and after.
The number of anchors stays, so published weights still fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags, _runs

if TYPE_CHECKING:
    from ssd_centernet.models.detector import Detector


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    flags.DEFINE_string("split", None, "Split to read (default: the training split).")
    flags.DEFINE_alias("train_split", "split")
    flags.DEFINE_integer(
        "max_images", None, "Use only the first N images with objects.", lower_bound=1
    )
    flags.DEFINE_boolean("fit", None, "Compute anchors for the data, and write their gin lines.")
    flags.DEFINE_string("fit_output", "anchors.gin", "The gin file that --fit writes.")
    flags.DEFINE_string("output", None, "PNG file for a chart of the shares by size.")


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir")
    _flags.check_png("output")
    _flags.complete_splits("split")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.data.splits import split_prefix
    from ssd_centernet.preview.anchor_report import describe_anchors
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import settle_splits
    from ssd_centernet.runtime.device import select_device

    # Matching is quick on a processor, and an accelerator may be busy with training.
    select_device("cpu")
    config.parse(values.gin_file, values.gin_params, allow_import=values.allow_import)
    recipe = settle_splits(Recipe(), values.data_dir)
    label_map = load_label_map(values.data_dir)
    chosen = {
        "split": split_prefix(values.data_dir, values.split or recipe.train_split),
        "crowd": recipe.crowd,
        "max_images": values.max_images,
    }
    detector = recipe.detector(label_map)
    report = describe_anchors(
        detector, values.data_dir, **chosen, output=None if values.fit else values.output
    )
    _runs.use_settings_of_training(recipe)
    config.assert_all_used(allow=("train", "training_batches"), overrides_only=True)
    print(report)
    if values.fit:
        lines = _fit(detector, chosen)
        config.parse(values.gin_file, [*(values.gin_params or ()), *lines])
        detector = recipe.detector(label_map)
        print(describe_anchors(detector, values.data_dir, **chosen, output=values.output))
        recipes = [f"--gin_file={one}" for one in (*values.gin_file, values.fit_output)]
        places = (f"--data_dir={values.data_dir}", "--model_dir=runs/fitted")
        _runs.tell_next("train", *recipes, *places)
    if values.output:
        print(f"chart: {values.output}")
    return 0


def _fit(detector: Detector, chosen: dict[str, Any]) -> list[str]:
    """Compute the settings for the data, write and print them, and return their gin lines."""
    from ssd_centernet.files import write_atomically
    from ssd_centernet.preview.anchor_report import fit_settings

    values = flags.FLAGS
    settings = fit_settings(detector, values.data_dir, **chosen)
    if settings is None:
        raise flags.Error(
            "--fit is for the anchors of an SSD, and the recipe has none to fit: a CenterNet finds "
            "objects of any size. Leave it out."
        )
    lines = [f"{name} = {value}" for name, value in settings.items()]
    heading = (
        f"# Anchors for {chosen['split']} of {values.data_dir}: ssd_centernet show_anchors --fit\n"
        f"# To give after the recipe: {', '.join(values.gin_file)}\n"
    )
    write_atomically(values.fit_output, heading + "\n".join(lines) + "\n")
    print("\n" + "\n".join([*lines, f"written: {values.fit_output}"]) + "\n")
    return lines
