"""Batches of concurrent pictures: filled, bounded, and left by who has gone."""

import asyncio
import threading
import time

import numpy as np
import pytest

from benchmarks.traffic import encoded, scene
from ssd_centernet.serve.batching import Batcher
from ssd_centernet.serve.engine import RunEngine
from ssd_centernet.serve.settings import Refused

JPEG = encoded(scene(0, 64, 48), "JPEG")


class _Engine:
    """Detect nothing, slowly; keep the sizes of the batches."""

    batch_size = 4
    frame = None

    def __init__(self, seconds=0.0, fails=lambda prepared: False):
        self.seconds, self.fails = seconds, fails
        self.batches, self.prepared = [], 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def prepare(self, pixels):
        with self._lock:
            self.prepared += 1
        return pixels, np.ones(2, np.float32)

    def detect(self, prepared):
        if self.fails(prepared):
            raise RuntimeError("broken")
        self.begun.set()
        assert self.may_end.wait(20)
        time.sleep(self.seconds)
        self.batches.append(len(prepared))
        empty = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "classes": np.zeros(0, int)}
        return [empty] * len(prepared)


class _Watch:
    def __init__(self):
        self.pictures = []

    def decoded(self, seconds):
        pass

    def detected(self, pictures, seconds):
        self.pictures.append(pictures)


def _with_batcher(engine, work, max_wait=0.2):
    async def main():
        batcher = Batcher(engine, max_pixels=10_000, max_wait=max_wait, observer=_Watch())
        batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 30)
        finally:
            await batcher.stop()

    return asyncio.run(main())


def test_concurrent_pictures_share_batches():
    engine = _Engine(seconds=0.02)
    found = _with_batcher(
        engine, lambda batcher: asyncio.gather(*(batcher.detect(JPEG) for _ in range(12)))
    )
    assert [one.size for one in found] == [(48, 64)] * 12
    assert sum(engine.batches) == 12 and max(engine.batches) == 4 and len(engine.batches) <= 5


def test_a_picture_alone_does_not_wait_for_others():
    began = time.monotonic()
    _with_batcher(_Engine(), lambda batcher: batcher.detect(JPEG), max_wait=20.0)
    assert time.monotonic() - began < 10


def test_prepared_pictures_are_bounded_however_many_wait():
    engine = _Engine(seconds=0.05)

    async def work(batcher):
        tasks = [asyncio.ensure_future(batcher.detect(JPEG)) for _ in range(60)]
        most = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.005)
            most = max(most, engine.prepared - sum(engine.batches))
        await asyncio.gather(*tasks)
        return most

    # Two batches that wait, one that is detected on, and those that threads hold.
    assert _with_batcher(engine, work) <= 3 * engine.batch_size + 4
    assert sum(engine.batches) == 60


def test_who_has_gone_is_not_detected_for():
    engine = _Engine()
    engine.may_end.clear()

    async def work(batcher):
        tasks = [asyncio.ensure_future(batcher.detect(JPEG)) for _ in range(20)]
        while not (engine.begun.is_set() and engine.prepared > 2 * engine.batch_size):
            await asyncio.sleep(0.01)
        for task in tasks[1:]:
            task.cancel()
        engine.may_end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.detect(JPEG)

    _with_batcher(engine, work)
    # The batch that was under way, and the last one: none of those that waited for the next.
    assert sum(engine.batches) <= engine.batch_size + 2


def test_a_picture_that_breaks_the_detector_takes_no_other_with_it():
    bad = encoded(scene(0, 65, 48), "JPEG")
    engine = _Engine(fails=lambda prepared: any(one[0].shape[1] == 65 for one in prepared))

    def work(batcher):
        tasks = [batcher.detect(data) for data in (JPEG, bad, JPEG, JPEG)]
        return asyncio.gather(*tasks, return_exceptions=True)

    found = _with_batcher(engine, work)
    assert [isinstance(one, RuntimeError) for one in found] == [False, True, False, False]


def test_a_picture_that_is_refused_holds_no_place():
    async def work(batcher):
        for _ in range(50):
            with pytest.raises(Refused):
                await batcher.detect(JPEG[:100])
        await batcher.detect(JPEG)
        assert batcher.busy_seconds == 0.0

    _with_batcher(_Engine(), work)


def test_an_engine_of_a_run_traces_each_size_once(model_dir):
    from ssd_centernet.runs.opened import open_run

    run = open_run(model_dir)
    engine = RunEngine(run.detector, 6)
    assert engine.sizes == [1, 2, 4, 6]
    engine.warm()
    pictures = [scene(n, 50 + 7 * n, 40 + n) for n in range(6)]
    for number in (1, 2, 3, 5, 6, 4):
        found = engine.detect([engine.prepare(one) for one in pictures[:number]])
        for one, picture in zip(found, pictures, strict=False):
            expected = {
                k: v.numpy()[0] for k, v in run.detector.detect(picture[np.newaxis]).items()
            }
            count = int(expected.pop("count"))
            assert count and len(one["scores"]) == count
            for name, values in expected.items():
                np.testing.assert_allclose(one[name], values[:count], rtol=1e-4, atol=1e-5)
    traced = [step.experimental_get_tracing_count() for step in engine._detect.values()]
    assert traced == [1, 1, 1, 1]
