"""The compiled operations, for tests that compare them with the graphs."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled():
    from ssd_centernet.native import build

    if build.library.find() is None and build.compiler() is None:
        pytest.skip("there is no C++ compiler")
    return build.build()
