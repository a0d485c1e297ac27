"""Tell what it costs to go on in the middle of an epoch of a data set of COCO's size.

    python benchmarks/resume.py --images=117266

Writes that many records of tiny pictures (200 MB) into a temporary folder, checks and counts them
once, as every training does, and then makes the batches from several places of an epoch on, until
the first one is there. Prints seconds of processor time and what was read. Linux only.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from ssd_centernet.benchmark.records import write_records
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.loading import resize_only
from ssd_centernet.data.pipeline import count_examples, training_batches
from ssd_centernet.layers.preprocessing import Preprocessing


def spent() -> tuple[float, int]:
    """Return the processor time of this process in seconds, and the bytes that it has read."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return used.ru_utime + used.ru_stime, int(lines["rchar"])


def report(what: str, before: tuple[float, int]) -> None:
    """Print what was spent since."""
    seconds, read = (now - then for now, then in zip(spent(), before, strict=True))
    print(f"{what:28} {seconds:8.2f} s {read / 1e6:8.1f} MB read", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=117266)
    parser.add_argument("--shards", type=int, default=256)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 0.99])
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"num_images": given.images, "num_shards": given.shards, "size": (16, 16)}
        write_records(folder, **sizes)
        began = spent()
        images = count_examples(folder)
        report(f"scan of {images} records", began)
        options = {"label_map": load_label_map(folder), "batch_size": 8}
        options["augment"] = resize_only(Preprocessing((16, 16)))
        next(iter(training_batches(folder, **options)))  # TensorFlow's own first time.
        for share in given.shares:
            began = spent()
            batches = training_batches(folder, start_example=int(share * images), **options)
            tf.nest.map_structure(tf.identity, next(iter(batches)))
            report(f"first batch at {share:.0%}", began)


if __name__ == "__main__":
    main()
