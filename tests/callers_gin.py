"""A program that uses gin itself and the library beside it: python -m tests.callers_gin RUN DATA.

A process of its own: gin forgets no name that was registered once.
"""

import sys

import gin
import pytest

import ssd_centernet as sc
from ssd_centernet import config
from ssd_centernet.config import gin_state


@gin.configurable(module="callers_own")
def knead(dish="bread", *, minutes=10):
    """Tell its settings, one of which is bound in a scope."""
    return dish, minutes


@gin.configurable(module="callers_own")
def train(steps=1):
    """Tell its setting; recipes have a part of the same name."""
    return steps


def refuse_all(bindings):
    """Stop whoever ends the parsing of gin."""
    raise AssertionError(f"a hook of the caller saw {bindings}")


def state_of_gin():
    """Return what the caller has bound and used, and what the library has noted."""
    # Gin writes a name in full once another part has the same.
    texts = [gin.config_str(), gin.operative_config_str()]
    texts = [text.replace("callers_own.train", "train") for text in texts]
    return *texts, gin.config_is_locked(), sorted(map(str, gin_state.bindings))


def main(model_dir, data_dir):
    """Bind, lock, and use the library in a scope of the caller's own."""
    gin.parse_config("knead.minutes = 30\ncake/knead.dish = 'cake'\nPLATES = 3")
    gin.bind_parameter("callers_own.train.steps", 7)
    knead()
    gin.finalize()
    gin.config.register_finalize_hook(refuse_all)
    before = state_of_gin()
    assert "knead.minutes = 30" in before[0] and before[2]
    with gin.config_scope("cake"):
        detector = sc.build("ssd_demo", num_classes=7, image_size=64)
        with pytest.raises(ValueError, match="give num_classes="):
            sc.build("ssd_demo")
        with pytest.raises(config.ConfigError, match=r"SSD\.nek"):
            sc.build("ssd_demo", num_classes=3, settings=["SSD.nek = None"])
        sc.load(model_dir)
        with pytest.raises(FileNotFoundError):
            sc.load(model_dir, checkpoint="ckpt-6")
        with pytest.raises(ValueError, match="the detector has 7 without names"):
            sc.training_data(data_dir, detector, recipe="ssd_demo")
        assert knead() == ("cake", 30)
    assert knead() == ("bread", 30)
    assert train() == 7
    after = state_of_gin()
    assert after[0] == before[0] and after[2:] == before[2:]
    # The caller's own call, in a scope, is all that has come to the record.
    assert "knead.minutes = 30" in after[1] and "ssd_demo" not in after[1] and "SSD" not in after[1]
    with gin.unlock_config(), pytest.raises(AssertionError, match="a hook of the caller"):
        gin.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
