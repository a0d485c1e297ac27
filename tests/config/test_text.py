"""Settings read of a file without gin."""

from ssd_centernet import config
from ssd_centernet.config.text import read_bindings


def test_bindings_are_read_as_the_library_writes_them(tmp_path, tiny_recipe):
    config.parse([tiny_recipe], ["train.steps = 3"])
    try:
        text = config.operative_config()
    finally:
        config.clear()
    (tmp_path / "config.gin").write_text(f"# head\n\nSIZE = (1, 2)\nX.y = %SIZE\n{text}")
    found = read_bindings(tmp_path / "config.gin")
    assert found["SIZE"] == "(1, 2)" and found["X.y"] == "%SIZE" and found["train.steps"] == "3"
    assert found["train.augment"] == "@SSDAugment()" and found["train.optimizer"] == "@Momentum"
    assert found["SSDExtraLevels.widths"] == "((8, 8),)"
