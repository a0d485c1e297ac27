import itertools

import psutil

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
