"""Windows, their medians and the memory of a measurement."""

import time

import numpy as np
import pytest

from ssd_centernet.benchmark import measure


def test_windows_alternate_and_count_images():
    calls = []

    def work(name, pause):
        def run(units):
            calls.append(name)
            time.sleep(pause * units)
            return 4 * units

        return run

    rates = measure.alternate(
        {"a": work("a", 0.002), "b": work("b", 0.004)}, windows=3, seconds=0.05
    )
    assert "".join(calls).endswith("ababab")
    # 4 images in 2 ms at most, and in 4 ms; sleeping only ever takes longer.
    assert 400 < max(rates["a"]) <= 2000
    assert 200 < max(rates["b"]) <= 1000


def test_settling_units_are_not_counted():
    units = []

    def work(count):
        units.append(count)
        time.sleep(0.001 * count)
        return count

    measure.alternate({"a": work}, windows=2, seconds=0.02, settle=3)
    assert units[-4] == units[-2] == 3 and units[-1] == units[-3] != 3


@pytest.mark.parametrize("settings", [{"windows": 0}, {"seconds": 0.0}])
def test_alternate_refuses_no_windows(settings):
    with pytest.raises(ValueError, match="--windows, --seconds"):
        measure.alternate({}, **settings)


def test_summary_and_ratio_are_medians():
    assert measure.summary([3.0, 1.0, 8.0]) == {
        "images_per_second": 3.0,
        "lowest": 1.0,
        "highest": 8.0,
        "windows": 3,
    }
    # Neighbours: 2, 1 and 4; the medians of both sides would give 4 / 2.
    assert measure.ratio([2.0, 4.0, 8.0], [1.0, 4.0, 2.0]) == {
        "ratio": 2.0,
        "lowest": 1.0,
        "highest": 4.0,
    }


def test_peak_memory_sees_an_allocation_and_keeps_it():
    before = measure.peak_memory()["peak_rss_mb"]
    block = np.ones(400_000_000, np.uint8)
    during = measure.peak_memory()["peak_rss_mb"]
    del block
    assert during >= 400
    # The kernel's counter is exact to a few pages of every thread only.
    after = measure.peak_memory()["peak_rss_mb"]
    assert after >= during - 5 and during >= before - 5


def test_threads_are_those_that_tensorflow_was_told(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert measure.environment()["threads"] == measure.environment()["cores"] >= 1
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    found = measure.environment("absl-py")
    assert found["threads"] == 3 and found["versions"]["absl-py"]
