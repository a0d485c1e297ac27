"""The batches of a step, made by workers: in order, each once, whoever of them is lost.

Worker i of n makes the batches i, i + n, i + 2 n, ... of the stream that this process would make
itself. A thread for each part takes them from its worker and puts them into a queue of TensorFlow,
and the data set of the step takes turns among the queues. A step that waits for a worker that is
gone cannot be interrupted in TensorFlow's own client; a queue can be closed.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from ssd_centernet.data_service.addresses import Address
from ssd_centernet.data_service.facts import own_facts
from ssd_centernet.data_service.links import Link
from ssd_centernet.data_service.parts import Part, make_queue
from ssd_centernet.data_service.proxies import without_proxy
from ssd_centernet.data_service.records import Prints, question
from ssd_centernet.plain_text import counted

# Seconds until workers must be there, when a run begins and after the last one was lost.
PATIENCE = 30.0
_LOOK_EVERY = 0.25
# A worker that came back gets its part again when it has lived for so long.
_PROVEN_SECONDS = 5.0
# An error of a worker that lives for so long after it is not that of its end.
_TOLD_SECONDS = 2.0
# A dispatcher may take so long to answer, and a worker to make its first batch without a note.
_ANSWER_SECONDS = 30.0
as_written = tf.autograph.experimental.do_not_convert

# (first example, (i, n)) -> batches i, i + n, ... of the stream that begins there.
MakePart = Callable[[int, tuple[int, int]], tf.data.Dataset]


class LostWorkersError(RuntimeError):
    """No worker is left that could make batches."""


class Feed:
    """Batches of workers, as if this process had made them.

    Args:
        addresses: of the workers.
        say: told when a worker is lost, or there again.
        patience: seconds to wait for workers; None takes `PATIENCE`.
        prints: of the record files (`records.fingerprints`), which a worker must have too.
        hurried: tells whether the process is asked to end, and waits for nobody to come back.

    Raises:
        LostWorkersError: some are not there.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        say: Callable[[str], None],
        *,
        patience: float | None = None,
        prints: Prints | None = None,
        hurried: Callable[[], bool] = lambda: False,
    ):
        self._say, self._patience = say, PATIENCE if patience is None else patience
        self._own, self._hurried = own_facts(), hurried
        without_proxy(*(one.host for one in addresses))
        asked = question(prints) if prints else b""
        self._links = [Link(one, asked) for one in addresses]
        self._error: Exception | None = None
        self._parts: list[Part] = []
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
            queues = [make_queue(spec) for _ in self._links]

        def later(index: int, delivered: int) -> tf.data.Dataset:
            begin = start_example + batch_size * (index + number * delivered)
            return make(begin, (0, number))

        parts = [
            Part(index, number, queues[index], first[index], functools.partial(later, index))
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
                without = "leave --data_service out"
                if len(missing) < len(self._links):
                    without = "name the others alone"
                raise LostWorkersError(
                    f"{workers} of --data_service did not answer in {self._patience:g} s "
                    f"({reasons}). Start `ssd_centernet data_worker` there; or {without}, which "
                    "gives the same batches."
                )
            time.sleep(0.05)

    def _check_fit(self) -> None:
        # Making a part has loaded the compiled operations, where they are used.
        self._own = own_facts()
        for link in self._links:
            if misfit := self._misfit(link):
                raise ValueError(f"{link.address} would make other batches: {misfit}.")

    def _misfit(self, link: Link) -> str | None:
        """Return why a worker that lives would not make the batches of this process."""
        state = link.state
        if state.facts is None:
            return None
        if misfit := self._own.misfit(state.facts):
            return misfit
        if state.difference:
            return (
                f"{state.difference}. A worker reads the records itself, under the path that the "
                "training was given: copy the same files there"
            )
        return None

    def _reason(self, link: Link) -> str:
        """Return why a worker makes no batches."""
        if misfit := self._misfit(link):
            return f"it would make other batches: {misfit}"
        return link.state.reason or "it was started again"

    def _reasons(self) -> str:
        return "; ".join(f"{one.address}: {self._reason(one)}" for one in self._links)

    def _living(self) -> list[Link]:
        return [link for link in self._links if link.state.facts and not self._misfit(link)]

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
                reasons = self._reasons()
                self._say(
                    f"note: no worker of --data_service is left ({reasons}); waiting "
                    f"{self._patience:g} s for one to come back"
                )
            elif time.monotonic() - alone_since > self._patience or self._hurried():
                self._fail(
                    LostWorkersError(
                        f"all of {counted(len(self._links), 'worker')} of --data_service are lost "
                        f"({self._reasons()}). "
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
                if part.is_served(living) and not self._is_answered(part):
                    return
                self._place(part, living)

    def _is_answered(self, part: Part) -> bool:
        """Tell whether a worker answers to TensorFlow, whose client waits without an end."""
        facts, where = part.link.state.facts, part.link.address
        seconds = part.waiting_seconds()
        if facts is None or seconds < _ANSWER_SECONDS:
            return True
        ports = f"{facts.dispatcher} (dispatcher) and {facts.worker} (worker)"
        if part.is_registered:
            if part.is_first_note():
                self._say(
                    f"note: {where} has made no batch for {seconds:.0f} s; it reads its first "
                    f"records, or its ports {ports} do not answer"
                )
            return True
        self._fail(
            LostWorkersError(
                f"{where} answers, but TensorFlow's data service there did not in {seconds:.0f} s. "
                f"Something between accepts connections to its ports {ports} and does not pass "
                "them on, such as a proxy or a firewall; or the worker hangs: start it again."
            )
        )
        return False

    def _place(self, part: Part, living: list[Link]) -> None:
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
                self._say(
                    f"note: {part.link.address} is lost ({self._reason(part.link)}); "
                    f"{other.address} makes its part of the batches"
                )
            part.begin(other)

    def _fail(self, error: Exception) -> None:
        self._error = error
        for part in self._parts:
            part.end()
