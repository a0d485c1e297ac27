"""The batches that the step takes: of this process, or of workers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import tensorflow as tf

from ssd_centernet.data.mixture import DataDir
from ssd_centernet.data_service.addresses import parse_addresses
from ssd_centernet.data_service.feed import Feed
from ssd_centernet.data_service.records import fingerprints
from ssd_centernet.plain_text import counted
from ssd_centernet.runtime.device import prefetch_to_device
from ssd_centernet.runtime.signals import is_asked_to_end
from ssd_centernet.training.trainer import Trainer


def open_feed(
    make_batches: Callable,
    addresses: Sequence[str],
    say: Callable[[str], None],
    data_dir: DataDir,
    split: str,
) -> Feed | None:
    """Connect to the workers that make the batches of a training.

    Args:
        make_batches: what makes the batches, `training_batches` or a function like it.
        addresses: of the workers; none leaves the batches to this process.
        say: told when one is lost, or there again.
        data_dir: folder of the records, or several; workers must have the same files there.
        split: that is trained on.

    Raises:
        ValueError: an address is none, or the batches cannot be made in parts.
        LostWorkersError: a worker does not answer.
    """
    if not addresses:
        return None
    if "part" not in inspect.signature(make_batches).parameters:
        name = getattr(make_batches, "__name__", make_batches)
        raise ValueError(
            f"--data_service is given, but train.batches is {name}, which cannot be made in parts "
            "for workers: leave --data_service out, or train with @training_batches."
        )
    prints = fingerprints(data_dir, split)
    feed = Feed(parse_addresses(addresses), say, prints=prints, hurried=is_asked_to_end)
    say(f"batches are made by {counted(len(addresses), 'worker')}: {', '.join(addresses)}")
    return feed


class StepInput:
    """Make the batches that follow the position of a trainer's state.

    Args:
        begin_at: makes the batches of this process, as `Recipe.training_batches` does.
        trainer: the step and its state.
        strategy: places the step on devices.
        feed: of workers that make the batches in the place of this process, or None.
        first: the batches of this process that follow the state as it is, if they are made already.
    """

    def __init__(
        self,
        begin_at: Callable[..., tf.data.Dataset],
        trainer: Trainer,
        strategy: tf.distribute.Strategy,
        feed: Feed | None = None,
        first: tf.data.Dataset | None = None,
    ):
        self._begin_at, self._trainer = begin_at, trainer
        self._strategy, self._feed, self._first = strategy, feed, first

    def begin(self) -> tf.data.Dataset:
        """Return the batches from the position on, on their way to the device."""
        position, first = self._trainer.position, self._first
        self._first = None
        if self._feed is None and first is not None:
            batches = first
        elif self._feed is None:
            batches = self._begin_at(start_example=position, for_step=True)
        else:
            batches = self._feed.batches(
                lambda first, part: self._begin_at(start_example=first, for_step=True, part=part),
                start_example=position,
            )
        return prefetch_to_device(batches, self._strategy)

    def lost(self) -> Exception | None:
        """Return why there are no more batches, if workers are the reason."""
        return None if self._feed is None else self._feed.error

    def close(self) -> None:
        """Leave the workers."""
        if self._feed is not None:
            self._feed.close()
