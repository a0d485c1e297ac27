"""Profiles of chosen steps and the record of speed, of whole runs."""

import json

import numpy as np
import pytest

from ssd_centernet.training.performance import StepTimes
from ssd_centernet.training.profiling import TRACE_NAME, StepProfiler
from tests.training.test_train import run, tensors

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")


def traced_steps(model_dir):
    """The numbers of the steps in the one profile of a run."""
    (path,) = model_dir.glob("plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    steps = []
    for plane in space.planes:
        stats = {key: value.name for key, value in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if plane.event_metadata[event.metadata_id].name == TRACE_NAME:
                    values = {stats[s.metadata_id]: s.int64_value for s in event.stats}
                    steps.append(values["step_num"])
    return steps


def test_exactly_the_chosen_steps_are_traced_counted_from_where_the_run_resumes(
    tiny_recipe, data_dir, tmp_path, capsys
):
    run(tiny_recipe, data_dir, tmp_path, "train.steps = 5")
    assert not (tmp_path / "plugins").exists()
    assert run(tiny_recipe, data_dir, tmp_path, "train.steps = 12", "train.profile = (2, 4)")
    assert sorted(traced_steps(tmp_path)) == [7, 8, 9]
    assert "profiled from step 7 on" in capsys.readouterr().out


def test_a_profile_that_the_run_does_not_reach_or_finish(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path / "never", "train.steps = 2", "train.profile = (50, 53)")
    assert "no step was profiled: the run ended before step 50" in capsys.readouterr().out
    run(tiny_recipe, data_dir, tmp_path / "cut", "train.steps = 2", "train.profile = (1, 53)")
    assert traced_steps(tmp_path / "cut") == [1]


@pytest.mark.parametrize("steps", [(3,), (5, 4), (-1, 2)])
def test_what_cannot_be_profiled(steps, tmp_path):
    with pytest.raises(ValueError, match="first and the last step"):
        StepProfiler(tmp_path, steps)


def test_profile_and_speed_at_once_are_refused(tiny_recipe, data_dir, tmp_path):
    both = ("train.steps = 1", "train.profile = (0, 0)", "train.use_performance = True")
    with pytest.raises(ValueError, match="--use_performance"):
        run(tiny_recipe, data_dir, tmp_path, *both)


def test_a_run_writes_its_speed(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path, "train.steps = 9", "train.use_performance = True")
    stats = json.loads((tmp_path / "summary" / "summary.json").read_text())["overall_stats"]
    assert stats["batch_size"] == 4
    assert stats["throughput_mean"] == pytest.approx(4 / stats["e2e"])
    # The first step, which traces the graph, takes seconds; the second half counts.
    assert 0 < stats["e2e"] < 1.0
    assert "over 5 of 9 steps" in capsys.readouterr().out


def test_each_step_of_a_call_counts_with_the_mean_of_its_call(tmp_path):
    said = []
    times = StepTimes(tmp_path, 8, say=said.append)
    times.call_ended(0, 1, 30.0)
    times.call_ended(1, 3, 3.0)  # 1.5 s each
    times.call_ended(3, 8, 4.0)  # 0.8 s each
    times.close()
    stats = json.loads((tmp_path / "summary.json").read_text())["overall_stats"]
    assert stats["e2e"] == pytest.approx(0.8)  # Steps 4 to 7 of 8.
    assert stats["throughput_mean"] == pytest.approx(10.0)
    StepTimes(tmp_path / "none", 8, say=said.append).close()
    assert said[-1].startswith("no steps ran") and not (tmp_path / "none").exists()


def test_a_run_goes_on_from_another_runs_checkpoint(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path / "whole", "train.steps = 6")
    run(tiny_recipe, data_dir, tmp_path / "half", "train.steps = 3")
    source = f"train.resume_from = {str(tmp_path / 'half')!r}"
    run(tiny_recipe, data_dir, tmp_path / "rest", "train.steps = 5", source)
    assert "half/ckpt-3 at step 3" in capsys.readouterr().out
    # A run of its own now: what it has wins.
    run(tiny_recipe, data_dir, tmp_path / "rest", "train.steps = 6", source)
    assert "rest/ckpt-5 at step 5" in capsys.readouterr().out
    whole, rest = tensors(tmp_path / "whole"), tensors(tmp_path / "rest")
    assert whole.keys() == rest.keys()
    different = [name for name in whole if not np.array_equal(whole[name], rest[name])]
    assert different == ["save_counter/.ATTRIBUTES/VARIABLE_VALUE"]
    missing = f"train.resume_from = {str(tmp_path / 'nothing')!r}"
    with pytest.raises(FileNotFoundError, match="nothing"):
        run(tiny_recipe, data_dir, tmp_path / "fresh", "train.steps = 1", missing)
