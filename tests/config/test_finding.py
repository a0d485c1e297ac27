"""Which of several files of one name is read, and that this is said."""

import os

import pytest

from ssd_centernet import config
from ssd_centernet.config.finding import describe_shadow, find_recipe, recipe_directory


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working directory with a file that has the name of an installed recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ssd_demo.gin").write_text("train.batch_size = 3\n")
    (tmp_path / "mine.gin").write_text("train.batch_size = 4\n")
    return tmp_path / "ssd_demo.gin"


def test_a_file_in_the_place_of_an_installed_recipe_is_said_once(own, caplog):
    for name in ("ssd_demo", "ssd_demo.gin"):
        for _ in range(2):
            config.parse([name])
        installed = recipe_directory() / "ssd_demo.gin"
        said = (
            f"--gin_file={name} is {own}, not the installed recipe of this name: give {installed}"
        )
        assert [said in line for line in caplog.messages] == [True]
        caplog.clear()


def test_where_only_one_file_may_be_meant_nothing_is_said(own, caplog):
    for name in ("mine", "./ssd_demo.gin", str(own), "ssd300_resnet34", "optim/finetune"):
        assert describe_shadow(name, find_recipe(name)) is None
        config.parse([name])
    assert not caplog.messages


def test_in_a_folder_of_recipes_they_are_the_installed_ones(monkeypatch):
    monkeypatch.chdir(recipe_directory())
    assert describe_shadow("ssd_demo", find_recipe("ssd_demo")) is None
    assert os.path.samefile(find_recipe("ssd_demo"), recipe_directory() / "ssd_demo.gin")
