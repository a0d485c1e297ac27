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


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def part(:\n", r"SyntaxError: invalid syntax \(broken_part\.py, line 1\)"),
        ("import gin\n1 / 0\n", r"ZeroDivisionError: .* \(.*broken_part\.py, line 2\)"),
        ("import not_there\n", "No module named 'not_there'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_both_lines(
    tmp_path, monkeypatch, code, told
):
    (tmp_path / "broken_part.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.gin").write_text("# mine\nimport broken_part\n")
    place = r"Cannot import 'broken_part' \(.*mine\.gin, line 2\): "
    with pytest.raises(config.ConfigError, match=place + told) as caught:
        config.parse([tmp_path / "mine.gin"])
    assert "\n" not in str(caught.value)
