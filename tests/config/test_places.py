"""Errors of recipes name the file and the line."""

import pytest

from ssd_centernet import config
from ssd_centernet.recipe import Recipe


def test_an_include_that_is_not_there_names_the_line(tmp_path):
    (tmp_path / "mine.gin").write_text("# mine\ninclude 'nothing.gin'\n")
    with pytest.raises(FileNotFoundError, match=r"no gin file 'nothing.gin' .*mine\.gin, line 2"):
        config.parse([tmp_path / "mine.gin"])


def test_line_ends_of_old_macs_do_not_make_one_comment_of_a_recipe(tmp_path):
    (tmp_path / "mine.gin").write_bytes(b"# mine\rtrain.steps = 7\r")
    config.parse([tmp_path / "mine.gin"])
    assert Recipe().steps == 7


def test_a_setting_that_cannot_be_is_named_with_its_line(tmp_path):
    (tmp_path / "mine.gin").write_text("train.steps = 5\ntrain.batch_size = -4\n")
    config.parse([tmp_path / "mine.gin"])
    with pytest.raises(ValueError, match=r"batch_size is -4, expected .*mine\.gin, line 2\)"):
        Recipe()
    # What Python sets has no line.
    with pytest.raises(ValueError, match="batch_size is 0, expected") as error:
        Recipe(batch_size=0)
    assert "line" not in str(error.value)
