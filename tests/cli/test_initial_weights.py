"""What an empty --fine_tune_checkpoint begins with."""

import gin

from ssd_centernet.cli import train
from ssd_centernet.cli._originals import published_beginning
from ssd_centernet.weights import fetching
from tests.cli.command_line import parsed

KIND = "--fine_tune_checkpoint_type=classification"


def bound(*arguments):
    line = ["--gin_file=ssd320_resnet50_fpn", "--model_dir=m", "--data_dir=d", *arguments]
    with parsed("train", line) as values:
        beginning = published_beginning() if values.fine_tune_checkpoint == "" else None
        train.parse_recipe([], beginning=beginning)
        found = []
        for name in ("fine_tune_checkpoint", "fine_tune_checkpoint_type", "freeze_random"):
            try:
                found.append(gin.query_parameter(f"train.{name}"))
            except ValueError:
                found.append(None)
        return found


def test_weights_that_are_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bound("--fine_tune_checkpoint=a", KIND) == ["a", "classification", None]


def test_published_weights_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetching, "locate", lambda name, say: tmp_path / name)
    path = str(tmp_path / "resnet50_v1_slim")
    assert bound("--fine_tune_checkpoint=") == [path, None, None]
    assert bound("--fine_tune_checkpoint=", KIND) == [path, "classification", None]
    # A run that goes on needs none.
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "ckpt-5.index").touch()
    assert bound("--fine_tune_checkpoint=", KIND) == [None, None, None]


def test_from_scratch_asks_for_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetching, "locate", lambda name, say: tmp_path / name)
    assert bound("--fine_tune_checkpoint=", KIND, "--from_scratch") == [None, None, False]


def test_where_they_cannot_be_had_no_layer_is_frozen_at_random_values(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS_MIRROR", (tmp_path / "no_mirror").as_uri())
    # The published scripts give the type with no checkpoint.
    assert bound("--fine_tune_checkpoint=", KIND) == [None, None, False]
    said = capsys.readouterr().out
    assert (
        "initial weights resnet50_v1_slim, which are not here: the run begins with random" in said
    )


def test_a_run_that_began_without_them_goes_on_training_all_layers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "ckpt-5.index").touch()
    (tmp_path / "m" / "config.gin").write_text("train.freeze_random = False\n")
    assert bound("--fine_tune_checkpoint=") == [None, None, False]
    (tmp_path / "m" / "config.gin").write_text("train.freeze_random = None\n")
    assert bound("--fine_tune_checkpoint=") == [None, None, None]
