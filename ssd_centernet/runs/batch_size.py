"""The largest batch that fits into memory, from what two short trials take.

A trial is a process of its own that builds what a training has, runs a few steps on the data with a
small batch and tells the most memory that it had. Two of them give the memory of a process and that
of an image, and these the batch; nothing is tried until it fails.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ssd_centernet.config.text import read_bindings
from ssd_centernet.memory import available_memory, used_memory
from ssd_centernet.run_directory import has_checkpoint
from ssd_centernet.runs.changed_settings import settings_path
from ssd_centernet.runs.teaching import open_teacher
from ssd_centernet.runtime.distribution import Communicator

# The rest is for evaluations, for what others begin to use, and for what the trials do not show.
SHARE = 0.8
# Batches of the trials; where an image takes little, a third one tells it from noise.
_TRIALS, _LARGER = (2, 8), 64
_CLEAR = 256 << 20
_STEPS = 2
# A model of a minute's tracing twice, on a busy machine.
_LONGEST = 1800.0
_SETTING = "train.batch_size"
_INSTEAD = "Give the number of images as --batch_size."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What a trial took.

    Attributes:
        batch_size: images of a step.
        peak: most bytes that it had.
        least: bytes of an image that it took in any case.
        limit: bytes that the device has for one process; None on the CPU.
        images: of the data set.
        device: where it ran, such as 'CPU:0'.
    """

    batch_size: int
    peak: int
    least: int
    limit: int | None
    images: int
    device: str


def size_of_run(model_dir: str | os.PathLike, resume_from: str | None = None) -> int | None:
    """Return the last batch size of a run that goes on; None where none has begun.

    Args:
        model_dir: directory of the run.
        resume_from: run or checkpoint that a new one continues.

    Raises:
        ValueError: a run has begun, and its settings do not say its batch size.
    """
    begun = model_dir if has_checkpoint(model_dir) else resume_from
    if not begun:
        return None
    path = settings_path(begun)
    try:
        return int(read_bindings(path)[_SETTING])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"--batch_size=auto: {path} does not say the batch size of the run. {_INSTEAD}"
        ) from error


def find_batch_size(request: dict[str, Any], communicator: Communicator) -> tuple[int, str]:
    """Find the largest batch that fits, the same for all processes.

    Args:
        request: what a trial parses and reads: `gin_file`, `gin_params`, `flag_params` and
            `allow_import` of `config.parse`, and `data_dir`.
        communicator: connects the processes; each measures on its own device, and the smallest
            size is taken.

    Returns:
        The size, and a sentence that says why.

    Raises:
        ValueError: the memory is not known, or not even the smallest trial fits; on every process.
    """
    if communicator.replicas > 1:
        raise ValueError(
            f"--batch_size=auto measures one device, and {communicator.replicas} share a batch "
            f"here: give a number, a multiple of {communicator.replicas}."
        )
    hosts = communicator.gather([socket.gethostname()])
    neighbours = hosts.count(socket.gethostname())
    free = available_memory()
    communicator.barrier()  # All have looked before any takes some.
    try:
        found: tuple[int, str] | str = _measured(request, communicator, free, neighbours)
    except ValueError as error:
        found = str(error)
    all_found = communicator.gather([found])
    failed = next((one for one in all_found if isinstance(one, str)), None)
    if failed is not None:
        raise ValueError(failed)
    size, why = min(all_found, key=lambda one: one[0])
    if communicator.size > 1:
        why += f"; the smallest of {communicator.size} processes"
    return size, why


def _measured(
    request: dict[str, Any], communicator: Communicator, free: int | None, neighbours: int
) -> tuple[int, str]:
    trials = [_run(request, size, communicator.local_rank) for size in _TRIALS]
    if trials[1].peak - trials[0].peak < _CLEAR:
        trials = [trials[0], _run(request, _LARGER, communicator.local_rank)]
    limit = trials[0].limit
    if limit is None:
        if free is None:
            raise ValueError(
                "--batch_size=auto: this system does not say how much memory is available "
                f"(/proc/meminfo). {_INSTEAD}"
            )
        # This process is what will train, and has a part of it already.
        limit = free // neighbours + (used_memory() or 0)
    return choose(trials, limit, images=math.ceil(trials[0].images / communicator.size))


def choose(trials: Sequence[Trial], limit: int, *, images: int) -> tuple[int, str]:
    """Choose a batch size from two trials of different sizes.

    Args:
        trials: the smaller one first.
        limit: bytes that the process may take, of which `SHARE` is used.
        images: of an epoch of one process; a batch holds no more.

    Returns:
        The size, from 16 on a multiple of 8, and why.

    Raises:
        ValueError: not even one image fits.
    """
    small, large = trials
    of_image = (large.peak - small.peak) / (large.batch_size - small.batch_size)
    of_image = max(of_image, small.least, 1.0)
    of_process = max(0.0, small.peak - of_image * small.batch_size)
    fits = int((SHARE * limit - of_process) / of_image)
    told = (
        f"{_told(of_process)} and {_told(of_image)} for each image, measured with batches of "
        f"{small.batch_size} and {large.batch_size}; {SHARE:.0%} of {_told(limit)} on "
        f"{small.device} hold {max(0, fits)}"
    )
    if fits < 1:
        raise ValueError(
            f"--batch_size=auto: not even one image fits: a training takes {told}. Close other "
            "programs, or set a smaller IMAGE_SIZE, a smaller network or another --device."
        )
    size = min(fits, images)
    if size < fits:
        told += f", more than the {images} images of an epoch"
    size = size // 8 * 8 if size >= 16 else size
    return size, f"--batch_size=auto takes {size}: a training needs {told}"


def _told(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _run(request: dict[str, Any], size: int, local_rank: int) -> Trial:
    """Run a trial in a process of its own, so that the memory of none is that of another."""
    told = {**request, "batch_size": size, "local_rank": local_rank, "path": sys.path}
    code = "from ssd_centernet.runs.batch_size import trial; trial()"
    # It is no process of the run, whatever launched that.
    launched = ("HOROVOD_", "OMPI_", "PMI_", "PMIX_", "TF_CONFIG")
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith(launched)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            env=surroundings,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"--batch_size=auto: steps of {size} images took longer than {_LONGEST:.0f} s. "
            f"{_INSTEAD}"
        ) from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Trial(**answer)
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        killed = done.returncode < 0 or "ResourceExhausted" in done.stderr
        cause = "there is not enough memory for it" if killed else last
        raise ValueError(
            f"--batch_size=auto: a trial with {size} images a step failed: {cause}. {_INSTEAD}"
        ) from None


def trial() -> None:
    """Run a trial that standard input describes, and print what it took: a process of its own."""
    told = json.loads(sys.stdin.read())
    sys.path[:] = told["path"]
    # What a recipe or TensorFlow prints must not be taken for the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(dataclasses.asdict(_tried(told))), file=answer)


def _tried(told: dict[str, Any]) -> Trial:
    import tensorflow as tf

    from ssd_centernet import config
    from ssd_centernet.data.mixture import merged_label_map
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runtime.device import prefetch_to_device, select_device
    from ssd_centernet.training.loop import compile_steps

    size = told["batch_size"]
    config.parse(
        told["gin_file"],
        told["gin_params"],
        flag_params=[*told["flag_params"], f"{_SETTING} = {size}"],
        allow_import=told["allow_import"],
    )
    recipe = Recipe().replace(batch_size=size, use_horovod=False, strategy="one", devices=None)
    if recipe.image_sizes:
        # The largest alone: another one may be drawn in the few steps here.
        recipe = recipe.replace(image_sizes=(max(recipe.image_sizes, key=math.prod),))
    strategy = select_device(recipe.device, index=told["local_rank"])
    label_map = merged_label_map(told["data_dir"])[0]
    images = recipe.count_images(told["data_dir"])
    teacher = open_teacher(recipe, strategy)
    with strategy.scope():
        detector = recipe.detector(label_map)
        length = recipe.length(images)
        trainer = recipe.trainer(detector, length, teacher=teacher and teacher.detector)
    batches = recipe.training_batches(detector, told["data_dir"], label_map=label_map)
    iterator = iter(prefetch_to_device(batches, strategy))
    steps = compile_steps(trainer, strategy, in_graph=recipe.loop_in_graph)
    for _ in range(_STEPS):
        steps(iterator, tf.constant(_STEPS, tf.int32))
        int(trainer.step)  # Waits for the device.
    device = trainer.train_variables[0].device.rpartition("device:")[2]
    peak, limit = _of_device(device)
    height, width = detector.image_size
    # The picture itself, in the batch at work and in those that wait.
    least = 4 * 3 * height * width * 4
    return Trial(batch_size=size, peak=peak, least=least, limit=limit, images=images, device=device)


def _of_device(device: str) -> tuple[int, int | None]:
    """Return the most memory that this process had on a device, and what there is for it."""
    if device.startswith("CPU"):
        peak = used_memory(peak=True)
        if peak is None:
            raise ValueError("this system does not say how much memory a process takes")
        return peak, None
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    try:
        peak = tf.config.experimental.get_memory_info(device)["peak"]
        limits = {one.name: one.memory_limit for one in device_lib.list_local_devices()}
        limit = next(size for name, size in limits.items() if name.endswith(device) and size)
    except (ValueError, StopIteration, tf.errors.OpError) as error:
        raise ValueError(f"{device} does not say how much memory it has") from error
    return peak, limit
