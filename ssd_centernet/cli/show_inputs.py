"""Draw what the network is fed: augmented images with their boxes and what the targets match.

Example:
  ssd_centernet show_inputs --gin_file=ssd300_resnet34 --data_dir=data/coco --output=inputs.png

These are the first images of a training with these settings and this seed, after augmentation, with
their normalisation undone. A box is green if an anchor reaches the matching threshold, orange if it
only has the one anchor that every object is given, and red if it has none. For a CenterNet the
heatmap is drawn, and a box is orange if another object of its class has the same peak. For the
settings of an earlier run give --gin_file=RUN/config.gin.
"""

from __future__ import annotations

from absl import flags

from ssd_centernet.cli import _flags, _runs


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    _flags.define_train_split()
    flags.DEFINE_alias("split", "train_split")
    _flags.define_seed()
    flags.DEFINE_string("output", None, "PNG file to write.")
    flags.DEFINE_integer("num_images", 16, "Number of images on the sheet.", lower_bound=1)
    flags.DEFINE_integer(
        "cell_size", 448, "Side of an image on the sheet in pixels.", lower_bound=32
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir", "output")
    _flags.check_png("output")
    _flags.complete_splits("train_split")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.data.directory import load_label_map
    from ssd_centernet.plain_text import counted
    from ssd_centernet.preview.fed_images import count_matches, show_inputs
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import settle_splits
    from ssd_centernet.runtime.device import select_device
    from ssd_centernet.training.image_sizes import in_words

    # Nothing here is worth an accelerator's memory.
    select_device("cpu")
    names = {"seed": "train.seed", "train_split": "train.train_split"}
    bindings = _flags.flag_bindings(names)
    config.parse(
        values.gin_file,
        values.gin_params,
        flag_params=bindings,
        allow_import=values.allow_import,
    )
    recipe = settle_splits(Recipe(), values.data_dir)
    count = recipe.count_images(values.data_dir)
    number = min(values.num_images, count)
    sizes = recipe.image_sizes or ()
    if not sizes:
        # More images a batch than are shown would only take time and memory.
        recipe = recipe.replace(batch_size=min(recipe.batch_size, number))
    detector = recipe.detector(load_label_map(values.data_dir))
    size = in_words(sizes or [detector.image_size])
    fed = show_inputs(
        detector,
        recipe.training_batches(detector, values.data_dir),
        values.output,
        heading=f"{recipe.train_split} of {values.data_dir}, as the network is fed: {size} pixels",
        num_images=number,
        cell_size=values.cell_size,
        sizes=sizes,
    )
    _runs.use_settings_of_training(recipe)
    config.assert_all_used(allow=("train",), overrides_only=True)
    print(f"{values.output}: {counted(len(fed), 'image')}, {count_matches(fed)}")
    all_of_them = "all" if number == count else f"the first of {count:,}"
    each = " (the first of each size)" if len(sizes) > 1 else ""
    print(f"they are {all_of_them} that {recipe.train_split} has to train on{each}")
    return 0
