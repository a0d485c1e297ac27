import pytest

from tests.distributed.conftest import run_worker


@pytest.mark.parametrize(
    ("processes", "compression", "group"),
    [(3, "none", 0), (4, "fp16", 2)],
    ids=["three", "four-in-groups-compressed"],
)
def test_collectives_and_batch_norm(processes, compression, group):
    ended = run_worker(processes, "collectives", compression, group)
    assert ended.status == 0, ended.text
    for rank in range(processes):
        assert f"rank {rank} of {processes} is content" in ended.out, ended.text


def test_groups_that_do_not_add_up_are_refused():
    ended = run_worker(2, "collectives", "none", 3)
    assert ended.status != 0
    assert "sync_batch_norm=3" in ended.err
    assert "divisor of 2" in ended.err
