"""What an empty --fine_tune_checkpoint begins with."""

import gin
import pytest

from ssd_centernet.cli import train
from ssd_centernet.cli._initial_weights import published_weights
from ssd_centernet.weights import fetching
from tests.cli.command_line import parsed

LINE = ["--gin_file=ssd320_resnet50_fpn", "--model_dir=m", "--data_dir=d"]


def bound(arguments, initial=None):
    with parsed("train", [*LINE, *arguments]):
        train.parse_recipe([], initial=initial)
        found = []
        for name in ("fine_tune_checkpoint", "fine_tune_checkpoint_type"):
            try:
                found.append(gin.query_parameter(f"train.{name}"))
            except ValueError:
                found.append("not bound")
        return found


def test_what_is_given_wins():
    kind = "--fine_tune_checkpoint_type=classification"
    assert bound(["--fine_tune_checkpoint=a", kind]) == ["a", "classification"]
    assert bound(["--fine_tune_checkpoint=", kind], initial="b") == ["b", "classification"]
    assert bound(["--fine_tune_checkpoint="], initial="b") == ["b", "not bound"]
    # Published scripts give the type with no checkpoint.
    assert bound(["--fine_tune_checkpoint=", kind]) == ["not bound", "not bound"]
    assert bound(["--fine_tune_checkpoint=random", kind]) == [None, "not bound"]


def test_published_weights_are_fetched_and_their_lack_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(fetching.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(fetching.MIRROR_VARIABLE, (tmp_path / "no_mirror").as_uri())
    recipe = ["ssd320_resnet50_fpn"]
    assert published_weights(recipe, str(tmp_path)) is None
    said = capsys.readouterr().out
    assert (
        "initial weights resnet50_v1_slim, which are not here: the run begins with random" in said
    )
    # One that is published with random weights needs none, and neither does a run that goes on.
    assert published_weights(["centernet_resnet101_fpn"], str(tmp_path)) is None
    (tmp_path / "ckpt-5.index").touch()
    assert published_weights(recipe, str(tmp_path)) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["vgg16_caffe"])
def test_a_copy_on_this_machine_is_taken(name, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / name
    folder.mkdir(parents=True)
    monkeypatch.setenv(fetching.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "check", lambda row: {})
    (folder / fetching.catalog.find(name).opens).touch()
    found = published_weights(["gin_configs/ssd300_vgg16.gin"], str(tmp_path))
    assert found == str(folder / fetching.catalog.find(name).opens)
