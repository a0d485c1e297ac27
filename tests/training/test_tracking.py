"""The numbers of a run in a tracker of experiments; MLflow's own store is read back."""

import json
import sys
import threading
import time

import pytest

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from ssd_centernet.training.tracking import TRACKERS, Tracking, start_tracking

SETTINGS = {"train.steps": "4", "train.batch_size": "8"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """MLflow's store of files, as a client of it sees it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    # Its newest versions ask for a database unless told.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shapes")
    import mlflow

    mlflow.set_tracking_uri(None)
    return mlflow.MlflowClient()


def the_run(store):
    experiment = store.get_experiment_by_name("shapes")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def history(store, name):
    return [(m.step, m.value) for m in store.get_metric_history(the_run(store).info.run_id, name)]


def test_a_training_and_its_resume_are_one_run_with_the_numbers_of_the_log(
    store, tiny_recipe, data_dir, tmp_path
):
    for steps in (4, 6):
        config.parse([tiny_recipe], [f"train.steps = {steps}", "train.tracker = 'mlflow'"])
        try:
            assert train(tmp_path / "run", data_dir) == "finished"
        finally:
            config.clear()
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    logged = [(row["step"], row["total"]) for row in rows if row["kind"] == "train"]
    assert [step for step, _ in logged] == [1, 2, 4, 5, 6]
    assert history(store, "train/total") == logged
    run = the_run(store)
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["train.batch_size"] == "4"
    assert run.data.tags["model_dir"] == str(tmp_path / "run")
    known = json.loads((tmp_path / "run" / "tracker.json").read_text())
    assert known == {"mlflow": run.info.run_id}


def test_what_is_no_number_is_left_out_and_a_stopped_run_is_no_finished_one(store, tmp_path):
    tracking = start_tracking("mlflow", tmp_path, SETTINGS)
    tracking.log("eval", 3, {"AP": 0.25, "loss": float("nan"), "kind": "eval"})
    tracking.close(finished=False)
    run = the_run(store)
    assert run.data.metrics == {"eval/AP": 0.25} and run.data.params == SETTINGS
    assert run.info.status == "KILLED"


def test_many_settings_fit(store, tmp_path):
    settings = {f"part.{number}": "x" * 7000 for number in range(250)}
    start_tracking("mlflow", tmp_path, settings).close(finished=True)
    assert len(the_run(store).data.params) == 250


class Broken:
    run_id = "1"

    def log(self, metrics, step):
        raise OSError("the network\nis gone")

    def end(self, finished):
        raise OSError("still gone")


def test_a_tracker_that_fails_costs_one_warning(recwarn):
    tracking = Tracking(Broken())
    for step in range(3):
        tracking.log("train", step, {"total": 1.0})
    tracking.close(finished=True)
    (warning,) = recwarn.list
    assert "misses numbers of this run: OSError: the network is gone." in str(warning.message)


def test_a_tracker_that_hangs_does_not_keep_a_run_from_ending():
    release = threading.Event()

    class Slow(Broken):
        def log(self, metrics, step):
            release.wait(60.0)

    tracking = Tracking(Slow(), patience=0.1)
    begin = time.monotonic()
    tracking.log("train", 1, {"total": 1.0})
    with pytest.warns(UserWarning, match=r"did not take all numbers within 0\.1 s"):
        tracking.close(finished=True)
    assert time.monotonic() - begin < 30.0
    release.set()


def test_a_damaged_note_of_the_run_begins_another_one(store, tmp_path):
    (tmp_path / "tracker.json").write_text("{")
    with pytest.warns(UserWarning, match=r"tracker\.json cannot be read"):
        start_tracking("mlflow", tmp_path, SETTINGS).close(finished=True)
    assert the_run(store).info.status == "FINISHED"


def test_what_keeps_a_tracker_from_beginning_is_told(store, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'tensorbord'; expected 'mlflow' or 'wandb'"):
        start_tracking("tensorbord", tmp_path, SETTINGS)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        start_tracking("wandb", tmp_path, SETTINGS)
    (tmp_path / "tracker.json").write_text('{"mlflow": "0123456789abcdef0123456789abcdef"}')
    with pytest.raises(ConnectionError, match=r"--tracker=mlflow cannot begin: .*0123456789"):
        start_tracking("mlflow", tmp_path, SETTINGS)


def test_the_setting_takes_what_there_is():
    for name in TRACKERS:
        assert Recipe(tracker=name).tracker == name
    with pytest.raises(ValueError, match=r"train\.tracker is 'tensorbord', expected .*mlflow"):
        Recipe(tracker="tensorbord")
