"""A profile of a run of two processes."""

from tests.distributed.conftest import cli, train_arguments
from tests.training.test_observers import traced_steps


def test_two_processes_run_the_same_calls_around_a_profile(data_dir, tmp_path, tiny_recipe, warm):
    arguments = train_arguments(tiny_recipe, data_dir, tmp_path / "run", 2, "--num_steps=7")
    ended = cli("launch", "--num_processes=2", "--", *arguments, "--profile=3,4", python=warm)
    # Both went on together, and only the first one wrote.
    assert sorted(traced_steps(tmp_path / "run")) == [3, 4]
    assert ended.text.count("profiled from step 3 on") == 1
    assert (tmp_path / "run" / "ckpt-7.index").exists()
