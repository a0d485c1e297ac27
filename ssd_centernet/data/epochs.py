"""The order of examples in an epoch, and the seeds of their augmentation.

Both are pure functions of the seed, the epoch and the index in the epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ssd_centernet.data import shards
from ssd_centernet.data.mixture import Mixture
from ssd_centernet.data.mixture import copies as mixture_copies

# Files read side by side. More than this does not mix better, once shuffled.
_OPEN_FILES = 16
# Numbers of records that are taken out of the pipeline together.
_NUMBERS_AT_ONCE = 4096
# From the number of a file to the records in it, or to what stands for them.
Read = Callable[[tf.Tensor], tf.data.Dataset]
# No function of ours has Python control flow on tensors: converting them all would take a third of
# the time until the first step.
as_written = tf.autograph.experimental.do_not_convert


EpochsFrom = Callable[[int, int], tf.data.Dataset]


def read_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    shuffle_buffer: int,
    deterministic: bool,
) -> EpochsFrom:
    """Make the function (first epoch, offset in it) -> dataset of all examples from there on.

    Args:
        source: the record files.
        parse: a function from a serialized record to an example.
        seed: seed of the order.
        shuffle_buffer: number of records among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        The function. The dataset has no end and holds (augmentation seed int64 [2], example).
    """
    files = shards.FileTable([source])
    kept = tf.constant(source.kept())
    open_files = min(_OPEN_FILES, len(files.paths))
    # Ranks that take turns must all see one order, or an image reaches two of them or none.
    in_order = deterministic or not source.by_file

    def epoch_of(epoch: tf.Tensor, read: Read) -> tf.data.Dataset:
        # Inside this function it fixes the function's own seed, so that the user's global seed
        # does not reach the shuffle.
        tf.random.set_seed(1)
        words = _epoch_words(seed, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files.paths)), seed=words[:2])

        def read_marked(file: tf.Tensor) -> tf.data.Dataset:
            marks = tf.data.Dataset.from_tensor_slices(kept[slice(*files.span(file))])
            return tf.data.Dataset.zip((read(file), marks))

        examples = tf.data.Dataset.from_tensor_slices(order).interleave(
            as_written(read_marked),
            cycle_length=open_files,
            num_parallel_calls=open_files,
            deterministic=in_order,
        )
        if not source.keep_empty:
            examples = examples.filter(as_written(lambda record, keep: keep))
        examples = examples.map(as_written(lambda record, keep: (record,)))
        # All ranks read all files and take turns: after the filter, as `RecordSource.mask` counts,
        # and before the shuffle, whose buffer then holds a rank's own records alone.
        if not source.by_file:
            examples = examples.shard(source.world_size, source.rank)
        return examples.shuffle(shuffle_buffer, seed=words[2])

    return _from_files(epoch_of, files, parse, (seed, source.rank, source.world_size), in_order)


def cached_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    deterministic: bool,
) -> EpochsFrom:
    """Make the function (first epoch, offset in it) -> dataset of all examples, held in memory.

    Args:
        source: the record files.
        parse: a function from a serialized record to an example.
        seed: seed of the order.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        As `read_epochs`.
    """
    shards.check_fits_memory(source.files)
    mask = source.mask()
    used = tf.data.Dataset.zip(
        (shards.read_records(source.files), tf.data.Dataset.from_tensor_slices(mask))
    ).filter(lambda _, keep: keep)
    # The records as one tensor of strings: an epoch is then a permutation of its indices, and no
    # buffer limits how well it is shuffled.
    held = used.map(lambda serialized, _: serialized).batch(sum(mask)).get_single_element()

    def order_of(words: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(tf.range(sum(mask)), seed=words[:2])

    ranks = (seed, source.rank, source.world_size)
    return _from_memory(order_of, lambda index: parse(held[index]), ranks, deterministic)


def mixed_epochs(
    mixture: Mixture, parse: Callable, seed: int, shuffle_buffer: int, deterministic: bool
) -> EpochsFrom:
    """Make the function (first epoch, offset in it) -> dataset of all examples of a mixture.

    Args:
        mixture: the record files, and how often each record comes.
        parse: a function from a serialized record and the number of its folder to an example.
        seed: seed of the order and of the copies.
        shuffle_buffer: number of records among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        As `read_epochs`.
    """
    parts = mixture.parts()
    files = shards.FileTable(mixture.sources)
    # Ranks take turns and must all see one order.
    in_order = deterministic or mixture.world_size > 1
    open_files = min(_OPEN_FILES, len(files.paths))

    def epoch_of(epoch: tf.Tensor, read: Read) -> tf.data.Dataset:
        tf.random.set_seed(1)
        words = _epoch_words(seed, epoch)
        often = mixture_copies(parts, mixture.folder_numbers(), words[1:3])

        def read_used(file: tf.Tensor) -> tf.data.Dataset:
            counts = tf.data.Dataset.from_tensor_slices(often[slice(*files.span(file))])
            used = tf.data.Dataset.zip((read(file), counts))
            used = used.filter(as_written(lambda record, count: count > 0))
            folder = files.folder(file)
            return used.map(as_written(lambda record, count: (record, folder, count)))

        order = tf.random.experimental.stateless_shuffle(tf.range(len(files.paths)), seed=words[:2])
        examples = tf.data.Dataset.from_tensor_slices(order).interleave(
            as_written(read_used),
            cycle_length=open_files,
            num_parallel_calls=open_files,
            deterministic=in_order,
        )
        examples = examples.flat_map(as_written(_copied))
        examples = examples.shard(mixture.world_size, mixture.rank)
        return examples.shuffle(shuffle_buffer, seed=words[2])

    return _from_files(epoch_of, files, parse, (seed, mixture.rank, mixture.world_size), in_order)


def cached_mixed_epochs(
    mixture: Mixture, parse: Callable, seed: int, deterministic: bool
) -> EpochsFrom:
    """Make the function (first epoch, offset in it) -> dataset of a mixture held in memory.

    Args:
        mixture: the record files, and how often each record comes; every rank holds all of them.
        parse: a function from a serialized record and the number of its folder to an example.
        seed: seed of the order and of the copies.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        As `read_epochs`.
    """
    shards.check_fits_memory(mixture.files)
    parts = mixture.parts()
    kept = []
    for source in mixture.sources:
        kept += list(shards.read_records(source.files).as_numpy_iterator())
    held = tf.constant(kept)
    folders = tf.constant(mixture.folder_numbers())

    def order_of(words: tf.Tensor) -> tf.Tensor:
        often = mixture_copies(parts, mixture.folder_numbers(), words[1:3])
        order = tf.repeat(tf.range(len(parts)), often)
        order = tf.random.experimental.stateless_shuffle(order, seed=words[:2])
        return order[mixture.rank :: mixture.world_size]

    def parse_held(index: tf.Tensor) -> dict:
        return parse(held[index], folders[index])

    ranks = (seed, mixture.rank, mixture.world_size)
    return _from_memory(order_of, parse_held, ranks, deterministic)


def _from_files(
    epoch_of: Callable[[tf.Tensor, Read], tf.data.Dataset],
    files: shards.FileTable,
    parse: Callable,
    ranks: tuple[int, int, int],
    in_order: bool,
) -> EpochsFrom:
    """Read and parse what an epoch's order names; of what is skipped, read nothing if possible.

    Args:
        epoch_of: from an epoch, and a function that reads a file, to its records in their order.
        files: the files.
        parse: a function from what `epoch_of` gives for a record to an example.
        ranks: seed of the order, number of this process, and number of processes.
        in_order: whether the order of the examples may not vary.
    """

    def examples_of(records: tf.data.Dataset, epoch: tf.Tensor, begin: int) -> tf.data.Dataset:
        seeds = _seeds(epoch, *ranks).skip(begin)
        parse_one = as_written(lambda seed, record: (seed, parse(*record)))
        return tf.data.Dataset.zip((seeds, records)).map(
            parse_one, num_parallel_calls=2, deterministic=in_order
        )

    @as_written
    def whole(epoch: tf.Tensor) -> tf.data.Dataset:
        return examples_of(epoch_of(epoch, files.read), epoch, 0)

    def rest(epoch: int, begin: int) -> tf.data.Dataset:
        if not files.has_places:
            skipping = as_written(
                lambda epoch: examples_of(epoch_of(epoch, files.read).skip(begin), epoch, begin)
            )
            return tf.data.Dataset.range(epoch, epoch + 1).flat_map(skipping)
        # The order does not depend on what is in the records: it is made of their numbers, with the
        # same operations, and those that are left are read at their places.
        numbers = tf.data.Dataset.range(epoch, epoch + 1).flat_map(
            as_written(lambda epoch: epoch_of(epoch, files.numbers))
        )
        batches = numbers.skip(begin).batch(_NUMBERS_AT_ONCE).as_numpy_iterator()
        left, *others = map(np.concatenate, zip(*batches, strict=True))
        records = files.read_at(left, open_files=_OPEN_FILES, in_order=in_order)
        columns = map(tf.data.Dataset.from_tensor_slices, others)
        records = tf.data.Dataset.zip((records, *columns))
        return examples_of(records, tf.constant(epoch, tf.int64), begin)

    return lambda first, offset: _from(whole, rest, first, offset)


def _from_memory(
    order_of: Callable[[tf.Tensor], tf.Tensor],
    parse: Callable,
    ranks: tuple[int, int, int],
    deterministic: bool,
) -> EpochsFrom:
    """Parse the records in memory whose numbers `order_of` gives for the words of an epoch."""

    @as_written
    def examples_of(epoch: tf.Tensor, begin: int = 0) -> tf.data.Dataset:
        order = order_of(_epoch_words(ranks[0], epoch))[begin:]
        examples = tf.data.Dataset.from_tensor_slices(order).map(
            as_written(parse), num_parallel_calls=2, deterministic=deterministic
        )
        return tf.data.Dataset.zip((_seeds(epoch, *ranks).skip(begin), examples))

    def rest(epoch: int, begin: int) -> tf.data.Dataset:
        return examples_of(tf.constant(epoch, tf.int64), begin)

    return lambda first, offset: _from(examples_of, rest, first, offset)


def _from(whole: Callable, rest: Callable, first: int, offset: int) -> tf.data.Dataset:
    """Join what is left of an epoch and all epochs after it."""
    if not offset:
        return tf.data.Dataset.range(first, tf.int64.max).flat_map(whole)
    after = tf.data.Dataset.range(first + 1, tf.int64.max).flat_map(whole)
    return rest(first, offset).concatenate(after)


def _copied(record: tf.Tensor, folder: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors((record, folder)).repeat(count)


def _epoch_words(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return int64 [4], the random words of an epoch: file order (2), shuffle, augmentation."""
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.stateless_uniform([4], seeds, maxval=2**31 - 1, dtype=tf.int64)


def _seeds(epoch: tf.Tensor, seed: int, rank: int, world_size: int) -> tf.data.Dataset:
    """Return the seeds of the augmentation of an epoch's examples, int64 [2] each, endless."""
    word = _epoch_words(seed, epoch)[3]
    # Ranks count in steps of world_size, so that no two examples of an epoch share a seed.
    counter = tf.data.Dataset.range(rank, tf.int64.max, world_size)
    return counter.map(as_written(lambda index: tf.stack([word, index])))
