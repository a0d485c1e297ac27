"""From record files to batches of static shape.

The stream of training examples is a pure function of seed, epoch and index in the epoch: file
order, shuffling and augmentation take their randomness from these alone. One number, the count of
examples consumed, is therefore the position, and a checkpoint needs no iterator state.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.augment.compose import Composition, PictureStep, decoded
from ssd_centernet.data.batch_shapes import OBJECT_FIELDS, fill_up, finish
from ssd_centernet.data.decoded import decoded_records
from ssd_centernet.data.epochs import (
    as_written,
    cached_epochs,
    cached_mixed_epochs,
    every_nth,
    mixed_epochs,
    read_epochs,
)
from ssd_centernet.data.loading import (
    AtSize,
    Augment,
    Example,
    MakeTargets,
    SizeDraw,
    load_sized,
    loader,
    made_targets,
    preprocess_example,
)
from ssd_centernet.data.mixture import DataDir, Mixture, training_source
from ssd_centernet.labels import LabelMap

# Records parsed ahead of decoding, so that the turn of an epoch (new files, an empty shuffle
# buffer) need not be felt.
_RECORDS_AHEAD = 64


@gin.register
def training_batches(
    data_dir: DataDir,
    *,
    label_map: LabelMap,
    batch_size: int,
    augment: Augment,
    split: str = "coco_train",
    image_size: tuple[int, int] | None = None,
    make_targets: MakeTargets | None = None,
    max_boxes: int = 100,
    keep_empty: bool = False,
    crowd: str = "object",
    data_weights: Sequence[float] | None = None,
    repeat_threshold: float | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    start_example: int = 0,
    shuffle_buffer: int = 1024,
    cache: bool | str = False,
    cache_scale: float | None = None,
    cache_dir: str | None = None,
    dtype: tf.DType | str = tf.float32,
    num_parallel_calls: int | None = None,
    deterministic: bool = True,
    threadpool_size: int = 0,
    native: bool | None = None,
    compose: PictureStep | Sequence[PictureStep] = (),
    total_examples: int | None = None,
    part: tuple[int, int] | None = None,
    at_sizes: Sequence[AtSize] = (),
    batches_per_size: int = 1,
) -> tf.data.Dataset:
    """Make the endless stream of augmented training batches.

    With `deterministic`, `start_example=k` gives, bit for bit, what an uninterrupted run reads from
    its example k on, if all other arguments are the same.

    Args:
        data_dir: folder with the record files, or several folders that are mixed; classes are
            joined by their names.
        label_map: from the data set's category ids to classes; of several folders, that of
            `mixture.merged_label_map`.
        batch_size: images per batch of this process.
        augment: `(example with 'encoded', seed [2]) -> example with 'image'`, e.g. `SSDAugment`;
            your own chain may use Python's `if` and `while` on tensors.
        split: prefix of the record files.
        image_size: (height, width) that the network expects, checked against what `augment` makes;
            None checks nothing.
        make_targets: `(boxes [N, 4], classes [N], is_crowd [N], extent=[2]) -> dict of tensors`,
            called for each image with all of its boxes after augmentation.
        max_boxes: size of the padded object fields; more boxes are left out of these fields, but
            not out of the targets.
        keep_empty: whether to use images without objects.
        crowd: what to do with crowd regions: use them as ordinary objects ('object': their
            `is_crowd` is cleared), leave them out ('drop'), or mark them for the criterion to
            ignore ('ignore'). With the last two, an image with crowd regions alone counts as empty.
        data_weights: share of each folder in an epoch, in any unit; None takes every image once.
        repeat_threshold: share of the images below which a class is rare: an image with it comes
            max(1, sqrt(repeat_threshold / share)) times in an epoch on average (the repeat factor
            sampling of LVIS); None repeats none.
        seed: seed of order and augmentation.
        rank: number of this process, 0 <= rank < world_size.
        world_size: number of processes; each record goes to one of them.
        start_example: examples of this process already consumed, >= 0.
        shuffle_buffer: number of encoded images among which the next one is drawn.
        cache: True holds the (encoded) records in memory; an error if they do not fit. The order is
            then a shuffle of all records, not that of False. 'decoded' unpacks all pictures once,
            into a file that processes map together; the batches are those of False.
        cache_scale: with 'decoded', the longer side of a picture has at most this many times the
            pixels of the longer side of `image_size`: larger ones are reduced, which changes
            pixels. None leaves all as they are.
        cache_dir: folder of the file of 'decoded'; None takes $SSD_CENTERNET_DECODED, or
            ~/.cache/ssd_centernet/decoded.
        dtype: float type of the images.
        num_parallel_calls: images decoded at the same time; None takes four per core, as
            TensorFlow's own tuning is too low to keep two cores busy.
        deterministic: False gives speed where reading stalls, for an order that may vary.
        threadpool_size: threads of the pipeline, 0 for one per core.
        native: whether chains and targets use compiled operations (docs/data.md): None where they
            are there, True always, False never. Crops and matches are the same; pixels differ by
            rounding, as from one processor to another.
        compose: steps on whole pictures before `augment`, such as `Mosaic`. Partners of an example
            are drawn, by its seed, from the 32 that come next in the stream of this process.
        total_examples: examples of this process in the whole run, for steps that end before it.
        part: (i, n) leaves the batches i, i + n, i + 2 n, ... of the stream, for `data_service/`,
            and unpacks no others; None leaves all.
        at_sizes: what is done for each size of images, of which one is drawn for each batch; it
            replaces `image_size`, `augment` and `make_targets`. () makes all of one size.
        batches_per_size: consecutive batches that have one size: those of an update.

    Returns:
        Dataset of batches: `image` [B, h, w, 3]; `extent` float32 [B, 2], the share (height, width)
        of the input that the picture covers; `boxes` float32 [B, M, 4] yxyx fractions of the input,
        `classes` int32 [B, M], `is_crowd` bool [B, M], `area` float32 [B, M], `valid` bool [B, M]
        with M = max_boxes; `source_id` int64 [B]; `height`, `width` int32 [B] of the original
        images; and, with `make_targets`, the dict `targets`. All shapes are static, but with
        `at_sizes` those of `image` and `targets`, which have those of the size that `image_size`
        int32 [B, 2], (height, width) in pixels, names.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: an argument is out of range, a file is damaged, a record is not what can be
            trained on (see `data/scan.py`), no image is usable, or the cache does not fit.

    Source: docs/reference/ssd_resnet34.md, sections 7.1 to 7.3
    """
    shards.check_range("batch_size", batch_size, 1)
    shards.check_range("max_boxes", max_boxes, 1)
    shards.check_range("shuffle_buffer", shuffle_buffer, 1)
    shards.check_range("start_example", start_example, 0)
    mixed = {"data_weights": data_weights, "repeat_threshold": repeat_threshold}
    source = training_source(
        data_dir, split, rank, world_size, keep_empty, crowd, label_map=label_map, **mixed
    )
    source.check(label_map)
    source.check_not_empty()

    parse_record = source.parser(label_map)

    @as_written
    def parse(*record: tf.Tensor) -> Example:
        return _treat_crowd(parse_record(*record), crowd)

    if part is not None and cache:
        raise ValueError(
            f"training_batches.cache is {cache!r}, but --data_service lets other processes read "
            "the records, and what is kept here is no use to them: leave out one of the two."
        )
    sizes = [one.image_size for one in at_sizes]
    unpacked = decoded_records(
        source, cache, cache_scale, cache_dir, max(sizes, key=max) if sizes else image_size
    )
    first_epoch, offset = 0, 0
    if start_example:
        first_epoch, offset = divmod(start_example, source.count())
    mixed = isinstance(source, Mixture)
    if cache and unpacked is None:
        make = cached_mixed_epochs if mixed else cached_epochs
        epochs = make(source, parse, seed, deterministic)
    else:
        make = mixed_epochs if mixed else read_epochs
        held = unpacked is not None
        if held:
            parse = as_written(unpacked.parser(parse))
        epochs = make(source, parse, seed, shuffle_buffer, deterministic, held)
    if part is not None:
        epochs = dataclasses.replace(epochs, chosen=every_nth(batch_size, *part))

    def loading(at: AtSize) -> Callable:
        composition = Composition(compose, image_size=at.image_size, total_examples=total_examples)
        by = "train.compose" if composition.steps else unpacked and "training_batches.cache"
        options = {"max_boxes": max_boxes, "dtype": dtype, "native": native}
        return loader(at, composition, epochs.parse, pixels_by=by, **options)

    composition = Composition(compose)
    if composition.steps:
        place = first_epoch, offset, start_example
        examples = epochs.joined_from(*place, partners=composition.partners)
    else:
        examples = epochs.examples_from(first_epoch, offset)
    load = loading(AtSize(image_size, augment, make_targets))
    if at_sizes:
        examples = examples.enumerate()
        load = load_sized(
            [loading(one) for one in at_sizes],
            sizes,
            SizeDraw(seed, batch_size, batches_per_size, start_example, part or (0, 1)),
        )
        # Images of two sizes make no batch.
        deterministic = True

    examples = examples.prefetch(_RECORDS_AHEAD)
    loaded = examples.map(load, num_parallel_calls or _calls(), deterministic=deterministic)
    batches = loaded.batch(batch_size, drop_remainder=True)
    return _with_options(batches.prefetch(2), deterministic, threadpool_size)


def evaluation_batches(
    data_dir: str,
    *,
    label_map: LabelMap,
    preprocess: Callable[[tf.Tensor], tf.Tensor],
    views_of: Callable[[tf.Tensor], Sequence[tuple]] | None = None,
    make_targets: MakeTargets | None = None,
    batch_size: int = 8,
    split: str = "coco_val",
    max_boxes: int = 200,
    rank: int = 0,
    world_size: int = 1,
    dtype: tf.DType | str = tf.float32,
    num_parallel_calls: int | None = None,
    threadpool_size: int = 0,
) -> tf.data.Dataset:
    """Make the batches of one pass over a split: every image once, in the order of the files.

    The number of batches may differ between ranks.

    Args:
        data_dir: folder with the record files.
        label_map: from the data set's category ids to classes.
        batch_size: images per batch of this process; the last batch is filled up with black images
            whose `source_id` is -1.
        preprocess: uint8 [H, W, 3] -> float [h, w, 3], as `Detector.preprocessing`; if it has
            `extent(height, width)`, boxes are fractions of the padded frame.
        views_of: uint8 [H, W, 3] -> further images with their extents, as `Detector.views_of`.
        make_targets: as in `training_batches`, for the losses of the evaluation.
        split: prefix of the record files.
        max_boxes: size of the padded object fields; more boxes are left out of these fields, but
            not out of the targets.
        rank: number of this process, 0 <= rank < world_size.
        world_size: number of processes; each image goes to one of them.
        dtype: float type of the images.
        num_parallel_calls: images decoded at the same time; None takes four per core.
        threadpool_size: threads of the pipeline, 0 for one per core.

    Returns:
        Dataset of batches with the keys and static shapes of `training_batches`, and `views`,
        a tuple of what `views_of` gives, if that is anything.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: an argument out of range, a record file that is cut short, or a record that is
            not what it should be (see `data/scan.py`).
    """
    shards.check_range("batch_size", batch_size, 1)
    shards.check_range("max_boxes", max_boxes, 1)
    source = shards.RecordSource(data_dir, split, rank, world_size, keep_empty=True, crowd="ignore")
    source.check(label_map)

    @as_written
    def load(serialized: tf.Tensor) -> Example:
        example = records.parse_example(serialized, label_map)
        views = []
        if views_of is not None:
            example = decoded(example)
            views = views_of(example["image"])
        example = preprocess_example(example, preprocess)
        ready = finish(example, max_boxes, dtype, made_targets(example, make_targets))
        return {**ready, "views": tuple(map(tuple, views))} if views else ready

    serialized = shards.read_records(source.files)
    if not source.by_file:
        serialized = serialized.shard(world_size, rank)
    batches = serialized.map(load, num_parallel_calls or _calls(), deterministic=True).batch(
        batch_size
    )
    batches = batches.map(as_written(lambda batch: fill_up(batch, batch_size))).prefetch(2)
    return _with_options(batches, True, threadpool_size)


def count_examples(
    data_dir: DataDir,
    *,
    split: str = "coco_train",
    keep_empty: bool = False,
    crowd: str = "object",
    data_weights: Sequence[float] | None = None,
    repeat_threshold: float | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """Count the images that one epoch of `training_batches` has, without reading the images.

    Args:
        data_dir: folder with the record files.
        split: prefix of the record files.
        keep_empty: as in `training_batches`.
        crowd: as in `training_batches`.
        data_weights: as in `training_batches`.
        repeat_threshold: as in `training_batches`.
        rank: number of the process whose images are counted.
        world_size: number of processes; 1 counts all images.

    Returns:
        The number of examples of this rank in an epoch.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: a damaged file; names the file and the record.
    """
    mixed = {"data_weights": data_weights, "repeat_threshold": repeat_threshold}
    return training_source(data_dir, split, rank, world_size, keep_empty, crowd, **mixed).count()


def _treat_crowd(example: Example, crowd: str) -> Example:
    if crowd == "object":
        return {**example, "is_crowd": tf.zeros_like(example["is_crowd"])}
    if crowd == "drop":
        keep = tf.where(tf.logical_not(example["is_crowd"]))[:, 0]
        return {**example, **{k: tf.gather(example[k], keep) for k in OBJECT_FIELDS}}
    return example


def _calls() -> int:
    """Return how many images to decode at once, so that a slow one does not delay the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 4 * (cores or 1)


def _with_options(
    batches: tf.data.Dataset, deterministic: bool, threadpool_size: int
) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = deterministic
    # The data are shared out among ranks here; a distribution strategy must not do it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if threadpool_size:
        options.threading.private_threadpool_size = threadpool_size
    return batches.with_options(options)
