"""The tiny data set, for tests of training."""

import pytest

from tests.tiny import write_data_set


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A converted data set: 12 training and 5 validation images of two classes."""
    return write_data_set(tmp_path_factory.mktemp("data"))
