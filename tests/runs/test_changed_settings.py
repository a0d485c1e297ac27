"""What a run that goes on says of settings that are other than before."""

import pytest

from ssd_centernet import config
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
