"""Settings that every test shares."""

import os
import sys

import pytest

# Before any test imports tensorflow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def _forget_settings():
    """Leave no gin binding of one test to the next."""
    yield
    config = sys.modules.get("ssd_centernet.config")
    if config is not None:
        config.clear()
