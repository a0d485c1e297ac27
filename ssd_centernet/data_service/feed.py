"""The batches of a step, made by workers: in order, each once, whoever of them is lost.

Worker i of n makes the batches i, i + n, i + 2 n, ... of the stream that this process would make
itself. A thread for each part takes them from its worker and puts them into a queue of TensorFlow,
and the data set of the step takes turns among the queues. A step that waits for a worker that is
gone cannot be interrupted in TensorFlow's own client; a queue can be closed.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet.data_service.addresses import Address
from ssd_centernet.data_service.facts import own_facts
from ssd_centernet.data_service.links import Link
from ssd_centernet.plain_text import counted

# Seconds until workers must be there, when a run begins and after the last one was lost.
PATIENCE = 30.0
_LOOK_EVERY = 0.25
# A worker that came back gets its part again when it has lived for so long.
_PROVEN_SECONDS = 5.0
# An error of a worker that lives for so long after it is not that of its end.
_TOLD_SECONDS = 2.0
# Batches that lie ready, of each worker.
_READY = 2
# How threads are called that take a part.
_TAKES = "data service, part "
as_written = tf.autograph.experimental.do_not_convert

# (first example, (i, n)) -> batches i, i + n, ... of the stream that begins there.
MakePart = Callable[[int, tuple[int, int]], tf.data.Dataset]


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


class LostWorkersError(RuntimeError):
    """No worker is left that could make batches."""


class Feed:
    """Batches of workers, as if this process had made them.

    Args:
        addresses: of the workers.
        say: told when a worker is lost, or there again.
        patience: seconds to wait for workers; None takes `PATIENCE`.

    Raises:
        LostWorkersError: some are not there.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        say: Callable[[str], None],
        *,
        patience: float | None = None,
    ):
        self._say, self._patience = say, PATIENCE if patience is None else patience
        self._own = own_facts()
        self._links = [Link(one) for one in addresses]
        self._error: Exception | None = None
        self._parts: list[_Part] = []
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None
        try:
            self._wait_for_all()
        except BaseException:
            self.close()
            raise

    def batches(self, make: MakePart, *, start_example: int = 0) -> tf.data.Dataset:
        """Begin to read; what was read before ends.

        Args:
            make: makes a part of the stream, for a worker.
            start_example: number of the first example.

        Returns:
            The batches from there on, to be read once.

        Raises:
            ValueError: a worker would make other batches than this process.
        """
        self._end_parts()
        number = len(self._links)
        first = [make(start_example, (index, number)) for index in range(number)]
        spec = first[0].element_spec
        batch_size = tf.nest.flatten(spec)[0].shape[0]
        self._check_fit()
        with tf.device("CPU:0"):
            queues = [_queue(spec) for _ in self._links]

        def later(index: int, delivered: int) -> tf.data.Dataset:
            begin = start_example + batch_size * (index + number * delivered)
            return make(begin, (0, number))

        parts = [
            _Part(index, number, queues[index], first[index], functools.partial(later, index))
            for index in range(number)
        ]
        for part, link in zip(parts, self._links, strict=True):
            part.begin(link)
        self._parts = parts  # Looked after from here on.
        if self._watch is None:
            self._watch = threading.Thread(target=self._look_after, daemon=True)
            self._watch.start()

        @as_written
        def take(batch: tf.Tensor) -> dict:
            turn = tf.cast(batch % number, tf.int32)
            came, *values = tf.switch_case(turn, [queue.dequeue for queue in queues])
            # A queue is emptied by whoever reads: a second reader would get other batches.
            right = tf.debugging.assert_equal(came, batch, "batches of the data service, in turn")
            with tf.control_dependencies([right]):
                values = [tf.identity(one) for one in values]
            return tf.nest.pack_sequence_as(spec, values)

        options = tf.data.Options()
        options.deterministic = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        taken = tf.data.Dataset.range(tf.int64.max).map(take)
        return taken.prefetch(2).with_options(options)

    @property
    def error(self) -> Exception | None:
        """Why the batches ended, if they did."""
        return self._error

    def close(self) -> None:
        """End the threads, without waiting."""
        self._closed.set()
        for link in self._links:
            link.close()
        self._end_parts()

    def _end_parts(self) -> None:
        parts, self._parts = self._parts, []
        for part in parts:
            part.end()

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + self._patience
        while missing := [link for link in self._links if link.state.facts is None]:
            if time.monotonic() > deadline:
                reasons = "; ".join(f"{one.address}: {one.state.reason}" for one in missing)
                workers = counted(len(missing), "worker")
                raise LostWorkersError(
                    f"{workers} of --data_service did not answer in {self._patience:g} s "
                    f"({reasons}). Start `ssd_centernet data_worker` there; or name the others "
                    "alone, which gives the same batches."
                )
            time.sleep(0.05)

    def _check_fit(self) -> None:
        # Making a part has loaded the compiled operations, where they are used.
        self._own = own_facts()
        for link in self._links:
            facts = link.state.facts
            if facts and (misfit := self._own.misfit(facts)):
                raise ValueError(f"{link.address} would make other batches: {misfit}.")

    def _living(self) -> list[Link]:
        facts = [(link, link.state.facts) for link in self._links]
        return [link for link, its in facts if its and not self._own.misfit(its)]

    def _look_after(self) -> None:
        try:
            self._replace_workers()
        except Exception as error:  # noqa: BLE001  # told to whoever reads: nobody looks any more
            self._fail(error)

    def _replace_workers(self) -> None:
        """Give parts of workers that are gone to others, and give them back."""
        alone_since: float | None = None
        while not self._closed.wait(_LOOK_EVERY):
            living = self._living()
            if living:
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
                reasons = "; ".join(f"{one.address}: {one.state.reason}" for one in self._links)
                self._say(
                    f"note: no worker of --data_service is left ({reasons}); waiting "
                    f"{self._patience:g} s for one to come back"
                )
            elif time.monotonic() - alone_since > self._patience:
                self._fail(
                    LostWorkersError(
                        f"all of {counted(len(self._links), 'worker')} of --data_service are lost. "
                        "Start them again and give the same command, which goes on exactly; or "
                        "leave --data_service out, which gives the same batches."
                    )
                )
                return
            for part in list(self._parts):
                told = part.error is not None and time.monotonic() - part.failed_at > _TOLD_SECONDS
                if told and part.is_served(living):
                    self._fail(part.error)
                    return
                self._place(part, living)

    def _place(self, part: _Part, living: list[Link]) -> None:
        """Let a part begin again where its worker is gone, or its own is there again."""
        home = self._links[part.index]
        if part.is_served(living):
            proven = time.monotonic() - home.state.since > _PROVEN_SECONDS
            if part.link is not home and home in living and proven:
                self._say(f"note: {home.address} is there again and makes its part of the batches")
                part.begin(home)
        elif living:
            other = home if home in living else living[part.index % len(living)]
            if other is part.link:
                self._say(f"note: {other.address} was started again and goes on with its part")
            else:
                reason = part.link.state.reason or "it was started again"
                self._say(
                    f"note: {part.link.address} is lost ({reason}); {other.address} makes its part "
                    "of the batches"
                )
            part.begin(other)

    def _fail(self, error: Exception) -> None:
        self._error = error
        for part in self._parts:
            part.end()


class _Part:
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

    def begin(self, link: Link) -> None:
        """Take the batches that are left from a worker."""
        if self._ended:
            return
        facts = link.state.facts
        self.link, self._instance = link, facts.instance if facts else ""
        self.error = None
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
                taken = iter(_distributed(dataset.enumerate(), target))
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


def _queue(spec: dict) -> tf.queue.FIFOQueue:
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
