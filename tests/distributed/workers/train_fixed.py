"""`ssd_centernet` with batches that do not depend on the number of processes.

Every process takes its rows of the batches that one process would train on. With
`FAIL=rank:step:how` one process fails in the middle: "raise", "kill" (once: FAIL_MARK names a file
that remembers) or "nan" (an image that is not finite). FAIL_ASIDE names a checkpoint that a process
waits for before it is killed, and puts into a folder: its steps are then made again.
"""

import os
import signal
import time
from pathlib import Path

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.cli.main import run
from ssd_centernet.data.pipeline import training_batches


def put_aside(checkpoint, folder):
    prefix = Path(checkpoint)
    # Written after the checkpoint itself.
    listed = prefix.with_name("checkpoint")
    while not (listed.exists() and f'"{prefix.name}"' in listed.read_text()):
        time.sleep(0.05)
    listed.unlink()
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        path.rename(Path(folder, path.name))


@gin.register
def fixed_batches(data_dir, *, rank, world_size, batch_size, start_example, **options):
    whole = training_batches(
        data_dir,
        rank=0,
        world_size=1,
        batch_size=batch_size * world_size,
        start_example=start_example * world_size,
        **options,
    )
    batches = whole.map(
        lambda batch: tf.nest.map_structure(
            lambda value: tf.ensure_shape(
                value[rank * batch_size : (rank + 1) * batch_size],
                [batch_size, *value.shape[1:]],
            ),
            batch,
        )
    )
    where, step, how = (os.environ.get("FAIL") or "-1:0:").split(":")
    if int(where) != rank:
        return batches
    first = start_example // batch_size

    def fail(index, images):
        if index + first != int(step):
            return images
        if how == "raise":
            raise RuntimeError("the disk of this machine is on fire")
        if how == "nan":
            return images * np.nan
        mark = os.environ["FAIL_MARK"]
        if not os.path.exists(mark):
            open(mark, "w").close()
            if "FAIL_ASIDE" in os.environ:
                put_aside(*os.environ["FAIL_ASIDE"].split(":"))
            os.kill(os.getpid(), signal.SIGKILL)
        return images

    def spoil(index, batch):
        images = tf.numpy_function(fail, [index, batch["image"]], batch["image"].dtype)
        return {**batch, "image": tf.ensure_shape(images, batch["image"].shape)}

    options = tf.data.Options()
    options.deterministic = True
    return tf.data.Dataset.zip((tf.data.Dataset.range(10**6), batches)).map(spoil)


if __name__ == "__main__":
    run()
