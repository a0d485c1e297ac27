import pytest

from tests.distributed.conftest import run_worker


@pytest.mark.parametrize(
    ("processes", "compression", "group"),
    [(3, "none", 0), (4, "fp16", 2)],
    ids=["three", "four-in-groups-compressed"],
)
def test_collectives_and_batch_norm(processes, compression, group, warm):
    ended = run_worker(processes, "collectives", compression, group, python=warm)
    for rank in range(processes):
        assert f"rank {rank} of {processes} is content" in ended.stdout, str(ended)


def test_groups_that_do_not_add_up_are_refused(warm):
    ended = run_worker(2, "collectives", "none", 3, python=warm, status=None)
    assert ended.status != 0
    assert "sync_batch_norm=3" in ended.stderr
    assert "divisor of 2" in ended.stderr
