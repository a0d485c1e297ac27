"""Settings that every test shares."""

import os
import sys

import pytest

# Before any test imports tensorflow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_collection_modifyitems(items):
    """The longest tests begin first: one process would work on them while the others are done."""

    def minutes(item):
        mark = item.get_closest_marker("slow")
        return mark.kwargs.get("minutes", 0) if mark else 0

    items.sort(key=minutes, reverse=True)


@pytest.fixture(autouse=True)
def _forget_settings():
    """Leave no gin binding of one test to the next."""
    yield
    config = sys.modules.get("ssd_centernet.config")
    if config is not None:
        config.clear()
