"""The order of examples in an epoch, and the seeds of their augmentation.

Both are pure functions of the seed, the epoch and the index in the epoch.
"""

from __future__ import annotations

import dataclasses
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
# Entries after an example that are joined with it: enough that few pictures of a batch share one,
# few enough that their bytes are no matter (3 MB of COCO's pictures).
_PARTNER_WINDOW = 32
# Its draw is apart from those of the chain.
_PARTNER_WORD = 10
# From the number of a file to the records in it, or to what stands for them.
Read = Callable[[tf.Tensor], tf.data.Dataset]
# No function of ours has Python control flow on tensors: converting them all would take a third of
# the time until the first step.
as_written = tf.autograph.experimental.do_not_convert


# The position of an example in the stream, int64, its entry and those of others.
Joined = tuple[tf.Tensor, tuple]


@dataclasses.dataclass(frozen=True)
class Epochs:
    """The endless order of examples: epoch after epoch.

    Attributes:
        entries_from: (first epoch, offset in it) -> dataset of (augmentation seed int64 [2],
            entry) from there on; an entry is a tuple of what `parse` asks for.
        parse: from the parts of an entry to an example.
        in_order: whether the order may not vary.
        chosen: from such a dataset to the part of it that is wanted, before anything is parsed.
    """

    entries_from: Callable[[int, int], tf.data.Dataset]
    parse: Callable
    in_order: bool
    chosen: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda entries: entries

    def examples_from(self, first: int, offset: int) -> tf.data.Dataset:
        """Return the dataset of (augmentation seed int64 [2], example) from an offset on."""
        parse_one = as_written(lambda seed, entry: (seed, self.parse(*entry)))
        return self.chosen(self.entries_from(first, offset)).map(
            parse_one, num_parallel_calls=2, deterministic=self.in_order
        )

    def joined_from(
        self, first: int, offset: int, position: int, *, partners: int
    ) -> tf.data.Dataset:
        """Return each entry with some of those that come next, drawn by its seed.

        What comes next does not depend on where the reading began, so that a resumed run joins the
        same. Entries are not parsed: most may not be needed.

        Args:
            first: epoch.
            offset: in the epoch.
            position: of the first example in the stream.
            partners: number of other entries; they differ from each other in their place.

        Returns:
            Dataset of (augmentation seed int64 [2], `Joined`), the own entry first.
        """

        def join(seeds: tf.data.Dataset, parts: tuple[tf.data.Dataset, ...]) -> tf.data.Dataset:
            seed = seeds.take(1).get_single_element()
            drawn = tf.random.experimental.stateless_fold_in(seed, _PARTNER_WORD)
            places = tf.argsort(tf.random.stateless_uniform([_PARTNER_WINDOW], drawn))
            entries = tf.data.Dataset.zip(parts)
            chosen = [entries.skip(tf.cast(places[i] + 1, tf.int64)) for i in range(partners)]
            taken = tuple(one.take(1) for one in (entries, *chosen))
            return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(seed), taken))

        entries = self.entries_from(first, offset)
        windows = entries.window(_PARTNER_WINDOW + 1, shift=1, drop_remainder=True)
        numbered = windows.flat_map(as_written(join)).enumerate(position)
        return self.chosen(numbered.map(as_written(lambda number, one: (one[0], (number, one[1])))))


def every_nth(size: int, first: int, step: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Make the function that leaves the groups `first`, `first + step`, ... of a dataset.

    Args:
        size: elements of a group, which follow each other.
        first: number of the first group that is left, 0 <= first < step.
        step: of `step` groups one is left.
    """

    def chosen(elements: tf.data.Dataset) -> tf.data.Dataset:
        wanted = as_written(lambda number, _: (number // size) % step == first)
        return elements.enumerate().filter(wanted).map(as_written(lambda _, element: element))

    return chosen


def read_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    shuffle_buffer: int,
    deterministic: bool,
    held: bool = False,
) -> Epochs:
    """Order the examples that are read from files.

    Args:
        source: the record files.
        parse: a function from a serialized record to an example.
        seed: seed of the order.
        shuffle_buffer: number of records among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.
        held: whether `parse` takes the number of a record instead of its bytes, which it holds.

    Returns:
        The order; its dataset has no end.
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

    ranks = (seed, source.rank, source.world_size)
    return _from_files(epoch_of, files, parse, ranks, in_order, held)


def cached_epochs(
    source: shards.RecordSource,
    parse: Callable,
    seed: int,
    deterministic: bool,
) -> Epochs:
    """Order the examples of records that are held in memory.

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
    mixture: Mixture,
    parse: Callable,
    seed: int,
    shuffle_buffer: int,
    deterministic: bool,
    held: bool = False,
) -> Epochs:
    """Order the examples of a mixture that is read from files.

    Args:
        mixture: the record files, and how often each record comes.
        parse: a function from a serialized record and the number of its folder to an example.
        seed: seed of the order and of the copies.
        shuffle_buffer: number of records among which the next one is drawn.
        deterministic: False is faster where reading stalls, but the order may vary.
        held: as in `read_epochs`.

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

    ranks = (seed, mixture.rank, mixture.world_size)
    return _from_files(epoch_of, files, parse, ranks, in_order, held)


def cached_mixed_epochs(
    mixture: Mixture, parse: Callable, seed: int, deterministic: bool
) -> Epochs:
    """Order the examples of a mixture that is held in memory.

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
    held: bool,
) -> Epochs:
    """Read what an epoch's order names; of what is skipped, read nothing if possible.

    Args:
        epoch_of: from an epoch, and a function that reads a file, to its records in their order.
        files: the files.
        parse: a function from what `epoch_of` gives for a record to an example.
        ranks: seed of the order, number of this process, and number of processes.
        in_order: whether the order of the examples may not vary.
        held: whether nothing is read: the order does not depend on what is in the records, and is
            made of their numbers with the same operations.
    """
    read = files.numbers if held else files.read

    def entries_of(records: tf.data.Dataset, epoch: tf.Tensor, begin: int) -> tf.data.Dataset:
        return tf.data.Dataset.zip((_seeds(epoch, *ranks).skip(begin), records))

    @as_written
    def whole(epoch: tf.Tensor) -> tf.data.Dataset:
        return entries_of(epoch_of(epoch, read), epoch, 0)

    def rest(epoch: int, begin: int) -> tf.data.Dataset:
        if held or not files.has_places:
            skipping = as_written(
                lambda epoch: entries_of(epoch_of(epoch, read).skip(begin), epoch, begin)
            )
            return tf.data.Dataset.range(epoch, epoch + 1).flat_map(skipping)
        # Of their numbers too, and those that are left are read at their places.
        numbers = tf.data.Dataset.range(epoch, epoch + 1).flat_map(
            as_written(lambda epoch: epoch_of(epoch, files.numbers))
        )
        batches = numbers.skip(begin).batch(_NUMBERS_AT_ONCE).as_numpy_iterator()
        left, *others = map(np.concatenate, zip(*batches, strict=True))
        records = files.read_at(left, open_files=_OPEN_FILES, in_order=in_order)
        columns = map(tf.data.Dataset.from_tensor_slices, others)
        records = tf.data.Dataset.zip((records, *columns))
        return entries_of(records, tf.constant(epoch, tf.int64), begin)

    return Epochs(lambda first, offset: _from(whole, rest, first, offset), parse, in_order)


def _from_memory(
    order_of: Callable[[tf.Tensor], tf.Tensor],
    parse: Callable,
    ranks: tuple[int, int, int],
    deterministic: bool,
) -> Epochs:
    """Take the records in memory whose numbers `order_of` gives for the words of an epoch."""

    @as_written
    def entries_of(epoch: tf.Tensor, begin: int = 0) -> tf.data.Dataset:
        order = order_of(_epoch_words(ranks[0], epoch))[begin:]
        entries = tf.data.Dataset.from_tensor_slices((order,))
        return tf.data.Dataset.zip((_seeds(epoch, *ranks).skip(begin), entries))

    def rest(epoch: int, begin: int) -> tf.data.Dataset:
        return entries_of(tf.constant(epoch, tf.int64), begin)

    return Epochs(
        lambda first, offset: _from(entries_of, rest, first, offset), parse, deterministic
    )


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
