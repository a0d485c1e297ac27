"""What a run that goes on says of settings that are other than before."""

import json
import shutil

import pytest

from ssd_centernet import config
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.runs.changed_settings import describe_changes, saved_settings
from tests.training.test_train import run

BEFORE = {
    "train.batch_size": "4",
    "train.steps": "10",
    "train.schedule": "@ConstantRate",
    "ConstantRate.learning_rate": "0.1",
    "MultiBoxLoss.box_loss": "'huber'",
}


@pytest.fixture(autouse=True)
def nothing_written():
    config.clear()
    yield
    config.clear()


def test_what_matters_is_told_and_nothing_else():
    assert describe_changes(BEFORE, BEFORE) is None
    assert describe_changes(BEFORE, {**BEFORE, "train.steps": "20"}) is None
    changed = {"MultiBoxLoss.box_loss": "'giou'", "train.batch_size": "8"}
    assert describe_changes(BEFORE, {**BEFORE, **changed}) == (
        "the run goes on with 2 changed settings:\n"
        "  train.batch_size: 4 -> 8\n"
        "  MultiBoxLoss.box_loss: 'huber' -> 'giou'"
    )


def test_a_part_that_was_replaced_is_one_setting():
    after = {name: BEFORE[name] for name in BEFORE if "Rate" not in name}
    after |= {"train.schedule": "@WarmupCosine", "WarmupCosine.floor": "0.01"}
    assert describe_changes(BEFORE, after) == (
        "the run goes on with a changed setting:\n  train.schedule: @ConstantRate -> @WarmupCosine"
    )


def test_a_setting_of_a_newer_version_is_told_where_somebody_wrote_it():
    after = {**BEFORE, "train.clip_norm": "1.0"}
    assert describe_changes(BEFORE, after) is None
    config.parse([], ["train.clip_norm = 1.0"])
    assert describe_changes(BEFORE, after).endswith("train.clip_norm: its default -> 1.0")


def test_many_and_long_ones_are_shortened():
    before = {f"SSD.part{n}": "1" for n in range(20)}
    after = dict.fromkeys(before, "(" + "1, " * 100 + ")")
    lines = describe_changes(before, after).splitlines()
    assert len(lines) == 10 and lines[-1] == "  and 12 more"
    assert all(len(line) <= 80 and line.endswith("...") for line in lines[1:-1])


def test_a_resumed_run_tells_them(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 1")
    again = ("train.steps = 2", "train.log_every = 1", "train.device = 'cpu'")
    run(tiny_recipe, data_dir, tmp_path / "r", *again)
    assert "changed setting" not in capsys.readouterr().out
    other = ("train.steps = 3", "ConstantRate.learning_rate = 0.5", "train.augment = None")
    told = (
        "note: the run goes on with 2 changed settings:\n"
        "  train.augment: @SSDAugment() -> None\n"
        "  ConstantRate.learning_rate: 0.01 -> 0.5\n"
    )
    run(tiny_recipe, data_dir, tmp_path / "r", *other)
    assert told in capsys.readouterr().out
    # What counts is how it was trained last; of a run that goes on elsewhere, that one.
    run(tiny_recipe, data_dir, tmp_path / "r", *other[1:], "train.steps = 4")
    assert "changed setting" not in capsys.readouterr().out
    begin = (f"train.resume_from = {str(tmp_path / 'r')!r}", "train.steps = 5")
    run(tiny_recipe, data_dir, tmp_path / "new", *begin)
    assert "  ConstantRate.learning_rate: 0.5 -> 0.01\n" in capsys.readouterr().out


def test_where_settings_are(tmp_path):
    folder = tmp_path / "run"
    (folder / "best").mkdir(parents=True)
    (folder / "config.gin").write_text("train.steps = 3\n")
    for place in (folder, folder / "ckpt-5", folder / "best", folder / "best" / "ckpt-5"):
        assert saved_settings(place) == {"train.steps": "3"}
    (folder / "config.gin").write_text("train.steps = (\n")
    assert saved_settings(folder) == saved_settings(tmp_path / "none") == {}


def kept(folder):
    """The settings and data that later commands take, and the classes."""
    begun = [json.loads(line) for line in (folder / "sessions.jsonl").open()]
    last = [one for one in begun if one["event"] == "begin"][-1]
    facts = {name: last[name] for name in ("data_dir", "total_steps", "global_batch_size")}
    return [(folder / name).read_text() for name in ("config.gin", LABEL_MAP_NAME)], facts


def test_a_run_with_nothing_left_to_do_keeps_its_settings(tiny_recipe, data_dir, tmp_path, capsys):
    folder = tmp_path / "r"
    run(tiny_recipe, data_dir, folder, "train.steps = 2")
    before = kept(folder)
    other = shutil.copytree(data_dir, tmp_path / "other")
    capsys.readouterr()
    assert run(tiny_recipe, other, folder, "train.steps = 1", "train.batch_size = 2") == "finished"
    said = capsys.readouterr().out
    assert "nothing is left to do: the run is at step 2 of 1" in said
    assert "the run goes on with" not in said and kept(folder) == before
    # One that has lost them gets those that are given.
    (folder / "config.gin").unlink()
    run(tiny_recipe, data_dir, folder, "train.steps = 2")
    assert "train.batch_size = 4\n" in (folder / "config.gin").read_text()
    # They are written where steps are done.
    run(tiny_recipe, data_dir, folder, "train.steps = 3", "train.batch_size = 2")
    assert "train.batch_size: 4 -> 2" in capsys.readouterr().out
    assert "train.batch_size = 2\n" in (folder / "config.gin").read_text()


def test_no_evaluation_is_made_up_with_other_settings(tiny_recipe, data_dir, tmp_path, capsys):
    folder = tmp_path / "r"
    run(tiny_recipe, data_dir, folder, "train.steps = 2")
    evaluates = ("train.steps = 2", "train.evaluate_every = 2")
    other = shutil.copytree(data_dir, tmp_path / "other")
    for place, setting in (
        (data_dir, "SSDDecoder.score_threshold = 0.25"),
        (data_dir, "train.eval_split = 'coco_train'"),
        (other, "train.seed = 0"),
    ):
        decoder = "SSD.decoder = @SSDDecoder()" if "Decoder" in setting else "train.seed = 0"
        run(tiny_recipe, place, folder, *evaluates, decoder, setting)
        said = capsys.readouterr().out
        assert "It is not made up now" in said and "ssd_centernet evaluate" in said, setting
        assert setting.partition(" ")[0].split(".")[0] in said or "data_dir: " in said
        assert not (folder / "evaluation").exists()
    run(tiny_recipe, data_dir, folder, *evaluates)
    assert "is not recorded; it is made up now" in capsys.readouterr().out
    assert json.loads((folder / "evaluation" / "metrics.json").read_text())["split"] == "coco_val"
    # The page of `evaluate --report` goes with the numbers that it shows, and so it is told.
    (folder / "evaluation" / "report.html").write_text("")
    run(tiny_recipe, data_dir, folder, "train.steps = 3", "train.evaluate_every = 3")
    assert "report.html was of an earlier evaluation and is removed" in capsys.readouterr().out
    assert not (folder / "evaluation" / "report.html").exists()
