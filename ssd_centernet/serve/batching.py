"""Pictures of concurrent requests: decoded by threads, detected on in batches by one."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ssd_centernet.predict.image_files import Picture
from ssd_centernet.serve import pictures
from ssd_centernet.serve.engine import Detections, Engine, Prepared

_log = logging.getLogger(__name__)
_MOST_THREADS = 4


class Observer(Protocol):
    """What is told of the work, for the metrics."""

    def decoded(self, seconds: float) -> None:
        """Note that a picture was decoded and prepared."""

    def detected(self, pictures: int, seconds: float) -> None:
        """Note that a batch was detected on."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was found on a picture.

    Attributes:
        size: (height, width) of the upright picture in pixels.
        notes: what is odd about the picture, one phrase each.
        detections: `boxes` [n, 4] yxyx fractions, `scores` [n], `classes` [n].
    """

    size: tuple[int, int]
    notes: list[str]
    detections: Detections


@dataclasses.dataclass
class _Job:
    """A prepared picture that waits for its batch."""

    prepared: Prepared
    found: asyncio.Future


class Batcher:
    """Detect on pictures of any number of callers, with bounded memory.

    At most as many pictures are decoded at once as there are threads, and only so many prepared
    ones wait as two batches hold. What waits before that are the bytes that were sent.
    """

    def __init__(
        self, engine: Engine, *, max_pixels: int, max_wait: float, observer: Observer
    ) -> None:
        """Take an engine that is warm; `start` it inside of the event loop.

        Args:
            engine: detects on prepared pictures.
            max_pixels: most pixels of a picture.
            max_wait: seconds that a picture waits for others, where others are on their way.
            observer: is told of the work.
        """
        self._engine = engine
        self._max_pixels = max_pixels
        self._max_wait = max_wait
        self._observer = observer
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._decoders = concurrent.futures.ThreadPoolExecutor(threads, "decode")
        self._detecting = concurrent.futures.ThreadPoolExecutor(1, "detect")
        self._decoding = asyncio.Semaphore(threads)
        self._room = asyncio.Semaphore(2 * engine.batch_size)
        self._jobs: collections.deque[_Job] = collections.deque()
        self._news = asyncio.Event()
        self._coming = 0
        self._began: float | None = None
        self._worker: asyncio.Task | None = None

    def start(self) -> None:
        """Begin to take batches; call it inside of the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End; pictures that still wait are given up."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        # Not waited for: a thread inside of a decoder cannot be stopped.
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._detecting.shutdown(wait=False, cancel_futures=True)

    @property
    def busy_seconds(self) -> float:
        """How long the batch that is being detected on has taken so far; 0 without one."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    async def detect(self, data: bytes) -> Answer:
        """Detect on a picture; a caller that is cancelled leaves the queue.

        Args:
            data: the bytes of the file.

        Raises:
            Refused: it cannot be read.
        """
        loop = asyncio.get_running_loop()
        self._coming += 1
        try:
            async with self._decoding:
                size, notes, prepared = await loop.run_in_executor(
                    self._decoders, self._prepare, data
                )
                await self._room.acquire()
                job = _Job(prepared, loop.create_future())
                self._jobs.append(job)
        finally:
            self._coming -= 1
            self._news.set()
        return Answer(size, notes, await job.found)

    async def with_pixels(self, data: bytes, function: Callable[[Picture], bytes]) -> bytes:
        """Decode a picture and give it to a function, in a thread that decodes.

        Args:
            data: the bytes of the file, which can be decoded.
            function: from the picture to what is returned.
        """
        loop = asyncio.get_running_loop()

        def work() -> bytes:
            return function(pictures.read(data, self._max_pixels))

        async with self._decoding:
            return await loop.run_in_executor(self._decoders, work)

    def _prepare(self, data: bytes) -> tuple[tuple[int, int], list[str], Prepared]:
        began = time.monotonic()
        picture = pictures.read(data, self._max_pixels)
        prepared = self._engine.prepare(picture.pixels)
        self._observer.decoded(time.monotonic() - began)
        return picture.pixels.shape[:2], picture.notes, prepared

    async def _work(self) -> None:
        """Take one batch after the other, until cancelled."""
        while True:
            await self._fill()
            batch = []
            while self._jobs and len(batch) < self._engine.batch_size:
                job = self._jobs.popleft()
                self._room.release()
                if not job.found.done():  # Its caller has gone.
                    batch.append(job)
            if batch:
                await self._detect(batch)

    async def _fill(self) -> None:
        """Wait for a picture, and then a little for others that are on their way."""
        while not self._jobs:
            self._news.clear()
            await self._news.wait()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._max_wait
        while len(self._jobs) < self._engine.batch_size and self._coming:
            left = until - loop.time()
            if left <= 0:
                return
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _detect(self, batch: Sequence[_Job]) -> None:
        """Detect on a batch; where that fails, on each of its pictures alone."""
        loop = asyncio.get_running_loop()
        self._began = began = time.monotonic()
        try:
            found = await loop.run_in_executor(
                self._detecting, self._engine.detect, [job.prepared for job in batch]
            )
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    await self._detect([job])
                return
            _log.exception("a detection failed")
            if not batch[0].found.done():
                batch[0].found.set_exception(error)
            return
        finally:
            self._began = None
        self._observer.detected(len(batch), time.monotonic() - began)
        for job, detections in zip(batch, found, strict=True):
            if not job.found.done():
                job.found.set_result(detections)
