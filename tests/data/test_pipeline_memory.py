import itertools

import psutil
import pytest

from ssd_centernet.data import shards
from tests.data.test_pipeline import CHAIN, data_dir, training

__all__ = ["data_dir"]  # A fixture.


def test_memory_stays_flat(data_dir):
    batches = iter(training(data_dir, batch_size=1, augment=CHAIN, shuffle_buffer=8))
    process = psutil.Process()
    for _ in itertools.islice(batches, 500):
        pass
    before = process.memory_info().rss
    for _ in itertools.islice(batches, 2000):
        pass
    # 2000 decoded images are 13 MB as uint8 and 18 MB as the network's input.
    assert process.memory_info().rss - before < 9e6


def test_a_cache_that_does_not_fit_is_refused(data_dir, monkeypatch):
    monkeypatch.setattr(shards, "available_memory", lambda: 10_000)
    with pytest.raises(ValueError, match="cache=False"):
        training(data_dir, cache=True)
    shards.check_fits_memory(shards.find_shards(data_dir, "coco_train"), 100.0)
