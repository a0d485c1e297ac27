import pytest


@pytest.fixture(params=[False, True], ids=["graph", "compiled"])
def form(request):
    """Both forms of the chains; see ssd_centernet/native."""
    from ssd_centernet.native import build, library

    if request.param and library.find() is None:
        if build.compiler() is None:
            pytest.skip("there is no C++ compiler")
        build.build()
    with library.use(request.param):
        yield request.param
