"""The order of examples in an epoch, and the seeds of their augmentation.

Both are pure functions of the seed, the epoch and the index in the epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ssd_centernet.data import shards
from ssd_centernet.data.mixture import Mixture
from ssd_centernet.data.mixture import copies as mixture_copies

# Files read side by side. More than this does not mix better, once shuffled.
_OPEN_FILES = 16
# No function of ours has Python control flow on tensors: converting them all would take a third of
# the time until the first step.
as_written = tf.autograph.experimental.do_not_convert


def read_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    shuffle_buffer: int,
    deterministic: bool,
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Make the function epoch -> dataset of (augmentation seed, parsed example), read from files.

    Args:
        source: the record files.
        parse: a function from a serialized record to an example.
        seed: seed of the order.
        shuffle_buffer: number of parsed examples among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        The function; the seeds are int64 [2].
    """
    files = tf.constant(source.files)
    packed = shards.compression(source.files)
    open_files = min(_OPEN_FILES, len(source.files))
    # Ranks that take turns must all see one order, or an image reaches two of them or none.
    in_order = deterministic or not source.by_file

    @as_written
    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        # Inside this function it fixes the function's own seed, so that the user's global seed
        # does not reach the shuffle.
        tf.random.set_seed(1)
        words = _epoch_words(seed, epoch)
        order = tf.random.experimental.stateless_shuffle(files, seed=words[:2])
        examples = tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda file: tf.data.TFRecordDataset(file, compression_type=packed),
            cycle_length=open_files,
            num_parallel_calls=open_files,
            deterministic=in_order,
        )
        examples = examples.map(parse, num_parallel_calls=2, deterministic=in_order)
        if not source.keep_empty:
            examples = examples.filter(source.uses)
        # All ranks read all files and take turns: after the filter, as `RecordSource.mask` counts,
        # and before the shuffle, whose buffer then holds a rank's own records alone.
        if not source.by_file:
            examples = examples.shard(source.world_size, source.rank)
        examples = examples.shuffle(shuffle_buffer, seed=words[2])
        return _with_seeds(examples, source, words[3])

    return epoch_of


def cached_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    deterministic: bool,
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Make the function epoch -> dataset of (augmentation seed, example) of records in memory.

    Args:
        source: the record files.
        parse: a function from a serialized record to an example.
        seed: seed of the order.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        The function; the seeds are int64 [2].
    """
    shards.check_fits_memory(source.files)
    mask = source.mask()
    used = tf.data.Dataset.zip(
        (shards.read_records(source.files), tf.data.Dataset.from_tensor_slices(mask))
    ).filter(lambda _, keep: keep)
    # The records as one tensor of strings: an epoch is then a permutation of its indices, and no
    # buffer limits how well it is shuffled.
    held = used.map(lambda serialized, _: serialized).batch(sum(mask)).get_single_element()

    @as_written
    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        words = _epoch_words(seed, epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(sum(mask)), seed=words[:2])
        examples = tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: parse(held[index]), num_parallel_calls=2, deterministic=deterministic
        )
        return _with_seeds(examples, source, words[3])

    return epoch_of


def mixed_epochs(
    mixture: Mixture, parse: Callable, seed: int, shuffle_buffer: int, deterministic: bool
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Make the function epoch -> dataset of (augmentation seed, parsed example) of a mixture.

    Args:
        mixture: the record files, and how often each record comes.
        parse: a function from a serialized record and the number of its folder to an example.
        seed: seed of the order and of the copies.
        shuffle_buffer: number of parsed examples among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        The function; the seeds are int64 [2].
    """
    parts = mixture.parts()
    paths, packed = tf.constant(mixture.files), tf.constant(mixture.compressions())
    folders, ends = (tf.constant(column) for column in mixture.places())
    # Ranks take turns and must all see one order.
    in_order = deterministic or mixture.world_size > 1
    open_files = min(_OPEN_FILES, len(mixture.files))

    @as_written
    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(1)
        words = _epoch_words(seed, epoch)
        often = mixture_copies(parts, mixture.folder_numbers(), words[1:3])

        def read(file: tf.Tensor) -> tf.data.Dataset:
            begin = tf.where(file > 0, ends[tf.maximum(file, 1) - 1], 0)
            counts = tf.data.Dataset.from_tensor_slices(often[begin : ends[file]])
            records = tf.data.TFRecordDataset(paths[file], compression_type=packed[file])
            used = tf.data.Dataset.zip((records, counts)).filter(lambda _, count: count > 0)
            return used.map(lambda one, count: (one, folders[file], count))

        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(mixture.files)), seed=words[:2]
        )
        examples = tf.data.Dataset.from_tensor_slices(order).interleave(
            read, cycle_length=open_files, num_parallel_calls=open_files, deterministic=in_order
        )
        examples = examples.flat_map(
            lambda one, folder, count: tf.data.Dataset.from_tensors((one, folder)).repeat(count)
        )
        examples = examples.shard(mixture.world_size, mixture.rank)
        examples = examples.map(parse, num_parallel_calls=2, deterministic=in_order)
        examples = examples.shuffle(shuffle_buffer, seed=words[2])
        return _with_seeds(examples, mixture, words[3])

    return epoch_of


def cached_mixed_epochs(
    mixture: Mixture, parse: Callable, seed: int, deterministic: bool
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Make the function epoch -> dataset of (augmentation seed, example) of a mixture in memory.

    Args:
        mixture: the record files, and how often each record comes; every rank holds all of them.
        parse: a function from a serialized record and the number of its folder to an example.
        seed: seed of the order and of the copies.
        deterministic: False is faster where reading stalls, but the order may vary.

    Returns:
        The function; the seeds are int64 [2].
    """
    shards.check_fits_memory(mixture.files)
    parts = mixture.parts()
    kept = []
    for source in mixture.sources:
        kept += list(shards.read_records(source.files).as_numpy_iterator())
    held = tf.constant(kept)
    folders = tf.constant(mixture.folder_numbers())

    @as_written
    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        words = _epoch_words(seed, epoch)
        often = mixture_copies(parts, mixture.folder_numbers(), words[1:3])
        order = tf.repeat(tf.range(len(parts)), often)
        order = tf.random.experimental.stateless_shuffle(order, seed=words[:2])
        order = order[mixture.rank :: mixture.world_size]
        examples = tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: parse(held[index], folders[index]),
            num_parallel_calls=2,
            deterministic=deterministic,
        )
        return _with_seeds(examples, mixture, words[3])

    return epoch_of


def _epoch_words(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return int64 [4], the random words of an epoch: file order (2), shuffle, augmentation."""
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.stateless_uniform([4], seeds, maxval=2**31 - 1, dtype=tf.int64)


def _with_seeds(
    examples: tf.data.Dataset, source: shards.RecordSource | Mixture, word: tf.Tensor
) -> tf.data.Dataset:
    # Ranks count in steps of world_size, so that no two examples of an epoch share a seed.
    counter = tf.data.Dataset.range(source.rank, tf.int64.max, source.world_size)
    seeds = counter.map(lambda index: tf.stack([word, index]))
    return tf.data.Dataset.zip((seeds, examples))
