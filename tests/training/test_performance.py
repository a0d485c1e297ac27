import json

import pytest

from ssd_centernet.training import performance


@pytest.mark.parametrize(
    ("count", "first"),
    [(1, 0), (2, 1), (3, 1), (39, 19), (40, 20), (41, 1), (299, 259), (300, 10), (301, 261)],
)
def test_which_steps_count(count, first):
    assert performance.counted_steps(list(range(count))) == list(range(first, count))


def test_summary_by_hand():
    got = performance.throughput_summary([9.0, 0.5, 1.5], global_batch_size=8)
    assert got == {"overall_stats": {"batch_size": 8, "throughput_mean": 8.0, "e2e": 1.0}}


@pytest.mark.parametrize(
    ("times", "batch", "message"),
    [([], 8, "no step"), ([1.0, 0.0], 8, "more than 0"), ([1.0], 0, "1 or more")],
)
def test_what_cannot_be_summarised(times, batch, message):
    with pytest.raises(ValueError, match=message):
        performance.throughput_summary(times, global_batch_size=batch)


def test_summary_file(tmp_path):
    summary = performance.throughput_summary([1.0, 2.0], global_batch_size=4)
    path = performance.write_summary(summary, tmp_path / "summary")
    assert path == str(tmp_path / "summary" / "summary.json")
    with open(path, encoding="utf-8") as file:
        assert json.load(file) == summary
    assert summary["overall_stats"]["throughput_mean"] == 2.0
