"""A part of the stream of batches, which one worker at a time makes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet.data_service.links import Link

# Batches that lie ready, of each worker.
_READY = 2
# How threads are called that take a part.
_TAKES = "data service, part "


def is_stuck(patience: float = 2.0) -> bool:
    """Tell whether a thread waits in TensorFlow for a worker that is gone.

    To register a data set is tried for ever, and cannot be cancelled. Such a thread must not be
    woken while Python ends, which would end the process as a crash.

    Args:
        patience: seconds in which threads may end.
    """
    deadline = time.monotonic() + patience
    while any(one.name.startswith(_TAKES) for one in threading.enumerate()):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


class Part:
    """A part of the stream, which one thread at a time takes from a worker.

    Args:
        index: of the part.
        number: of parts.
        queue: where its batches go, each with its number in the stream.
        dataset: the part from its beginning.
        later: makes the part without its first batches, of the number given.
    """

    def __init__(
        self,
        index: int,
        number: int,
        queue: tf.queue.FIFOQueue,
        dataset: tf.data.Dataset,
        later: Callable[[int], tf.data.Dataset],
    ):
        self.index, self._number, self._queue = index, number, queue
        self._first, self._later = dataset, later
        self._delivered = 0
        self._attempt, self._ended = 0, False
        # Held while a batch is put into the queue: who begins again comes after it.
        self._putting = threading.Lock()
        self.link: Link | None = None
        self._instance = ""
        self._waiting = _cancellation()
        self.error: Exception | None = None
        self.failed_at = 0.0
        self.is_registered = False
        self._asked_at: float | None = None
        self._noted = False

    def begin(self, link: Link) -> None:
        """Take the batches that are left from a worker."""
        if self._ended:
            return
        facts = link.state.facts
        self.link, self._instance = link, facts.instance if facts else ""
        self.error = None
        self.is_registered, self._asked_at, self._noted = False, None, False
        self._attempt += 1
        self._waiting.start_cancel()
        if facts:
            target = f"grpc://{link.address.host}:{facts.dispatcher}"
            self._waiting = _cancellation()
            arguments = (self._attempt, target, self._waiting)
            name = f"{_TAKES}{self.index}"
            threading.Thread(target=self._take, args=arguments, name=name, daemon=True).start()

    def is_served(self, living: Sequence[Link]) -> bool:
        """Tell whether the worker is the one that the part was given to."""
        facts = self.link.state.facts
        return self.link in living and facts is not None and facts.instance == self._instance

    def waiting_seconds(self) -> float:
        """Return for how long TensorFlow has waited for the worker without a batch."""
        asked = self._asked_at
        return 0.0 if asked is None else time.monotonic() - asked

    def is_first_note(self) -> bool:
        """Tell once for each worker that nobody was told yet."""
        before, self._noted = self._noted, True
        return not before

    def end(self) -> None:
        """Take no more batches; who waits for one gets an error."""
        self._ended, self._attempt = True, -1
        self._waiting.start_cancel()
        self._queue.close(cancel_pending_enqueues=True)

    def _take(self, attempt: int, target: str, waiting: Any) -> None:
        try:
            with self._putting:
                delivered = self._delivered
            dataset = self._later(delivered) if delivered else self._first
            with tf.device("CPU:0"):
                self._waits(attempt, registered=False)
                taken = iter(_distributed(dataset.enumerate(), target))
                self._waits(attempt, registered=True)
                # An argument, not a capture: with the graph it would be kept, and its client would
                # ask a worker that is gone again and again.
                following = tf.function(_next, autograph=False).get_concrete_function(taken)
                following = waiting.get_cancelable_function(following)
                for number in itertools.count():
                    came, batch = following(taken)
                    if int(came) != number:
                        raise RuntimeError(
                            f"{self.link.address} sent batch {int(came)} of its part, expected "
                            f"{number}. Start it again."
                        )
                    if number == 0 and attempt == self._attempt:
                        self._asked_at = None
                    self._put(attempt, batch)
        except _StaleError:
            pass
        except tf.errors.NotFoundError as error:
            self._fail(
                attempt,
                FileNotFoundError(
                    f"{self.link.address}: {error.message.splitlines()[0]}. A worker reads the "
                    "records itself, under the path that the training was given: make them "
                    "readable there, or start the worker where they are."
                ),
            )
        except Exception as error:  # noqa: BLE001  # told to whoever reads
            self._fail(attempt, error)

    def _waits(self, attempt: int, *, registered: bool) -> None:
        if attempt == self._attempt:
            self.is_registered, self._asked_at = registered, time.monotonic()

    def _fail(self, attempt: int, error: Exception) -> None:
        if attempt == self._attempt:
            self.error, self.failed_at = error, time.monotonic()

    def _put(self, attempt: int, batch: dict) -> None:
        with self._putting:
            if attempt != self._attempt:
                raise _StaleError
            number = self.index + self._number * self._delivered
            self._delivered += 1
            self._queue.enqueue([tf.constant(number, tf.int64), *tf.nest.flatten(batch)])


class _StaleError(Exception):
    """Another thread takes the part."""


def _next(iterator: Iterator) -> tuple:
    return next(iterator)


def _cancellation() -> Any:
    """Return what ends a call of TensorFlow from another thread; it has no public name."""
    from tensorflow.python.eager import cancellation

    return cancellation.CancellationManager()


def make_queue(spec: dict) -> tf.queue.FIFOQueue:
    """Make the queue of a part: batches with their numbers in the stream.

    Args:
        spec: of a batch.

    Raises:
        ValueError: its shapes are not static.
    """
    parts = tf.nest.flatten(spec)
    if not all(one.shape.is_fully_defined() for one in parts):
        raise ValueError(
            "--data_service hands batches of one shape on, but train.image_sizes makes several: "
            "leave out one of the two."
        )
    types = [tf.int64, *(one.dtype for one in parts)]
    return tf.queue.FIFOQueue(_READY, types, [[], *(one.shape for one in parts)])


def _distributed(dataset: tf.data.Dataset, target: str) -> tf.data.Dataset:
    service = tf.data.experimental.service
    # Without compression: pixels as floats hardly shrink, and it would take as long as decoding.
    return dataset.apply(
        service.distribute(
            service.ShardingPolicy.OFF, target, compression=None, max_outstanding_requests=_READY
        )
    )
