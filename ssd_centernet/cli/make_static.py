"""Compute training batches once and write them to files, to train without an input pipeline.

Writes OUTPUT_DIR/worker_0, worker_1, ...: one folder for each process of the run, one file for
each batch, augmented and with its targets. They are the batches that a run with the same settings
begins with. `ssd_centernet train --static` reads them again and again, without decoding anything.

Example:

  ssd_centernet make_static --gin_file=ssd300_resnet34 --data_dir=data/coco --batch_size=128 \\
      --num_steps=100
"""

from absl import flags

from ssd_centernet.cli import _flags, _runs


def define_flags() -> None:
    """Define the flags of this command."""
    _flags.define_gin()
    _flags.define_data_dir()
    flags.DEFINE_string(
        "output_dir", None, "Where to write (default: DATA_DIR, where --static looks)."
    )
    _flags.define_batch_size()
    flags.DEFINE_integer(
        "num_steps",
        None,
        "Batches of each worker (default: a pass over the images).",
        lower_bound=1,
    )
    flags.DEFINE_integer("workers", 1, "Number of processes of the run.", lower_bound=1)
    _flags.define_seed()
    flags.DEFINE_boolean("overwrite", False, "Replace batches that are already there.")


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name.

    Returns:
        0.
    """
    _runs.refuse_arguments(argv)
    _flags.require("gin_file", "data_dir")
    values = flags.FLAGS
    from ssd_centernet import config
    from ssd_centernet.runtime.device import select_device
    from ssd_centernet.training.static_inputs import make_static

    select_device("cpu")  # Where the pipeline runs anyway.
    bindings = _flags.flag_bindings({"batch_size": "train.batch_size", "seed": "train.seed"})
    config.parse(values.gin_file, values.gin_params, flag_params=bindings)
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or _runs.progress_bar(total, "batch")
        bar.update(done - bar.n)

    folders = make_static(
        values.data_dir,
        values.output_dir or values.data_dir,
        steps=values.num_steps,
        workers=values.workers,
        overwrite=values.overwrite,
        progress=progress,
    )
    if bar is not None:
        bar.close()
    for folder in folders:
        print(f"written: {folder}")
    return 0
