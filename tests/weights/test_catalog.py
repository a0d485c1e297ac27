"""The table of published weights: what it says fits together, and it costs nothing to read."""

import re

import pytest

from ssd_centernet import config
from ssd_centernet.weights import catalog
from tests.process import ROOT, python
from tools import weights_doc

ROWS = list(catalog.ROWS.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_whole(row):
    assert re.fullmatch(r"[a-z0-9_]+", row.name) and row.title and row.licence
    assert row.source.startswith("https://")
    assert {row.recipe, *row.begins} <= set(config.recipes())
    assert bool(row.files or row.package) == bool(row.opens), "what is fetched is opened"
    if row.package:
        assert row.package.path.endswith(f"/{row.opens}") and not row.files
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", row.package.digest)
    for file in row.files:
        assert re.fullmatch(r"https?://[\w./-]+", file.url), file.url
        # MD5 whole; of SHA-256 the first digits that stand in the file's name.
        if file.digest is None:
            continue
        kind, digits = file.digest.split(":")
        if kind == "sha256":
            assert file.name.endswith(f"-{digits}.pth")
        else:
            assert re.fullmatch(r"[0-9a-f]{32}", digits)
    if not row.archive and len(row.files) == 1:
        assert row.opens == row.files[0].name


def test_every_published_recipe_with_a_pretrained_start_has_its_weights():
    begun = {name for row in ROWS for name in row.begins}
    assert begun == {
        "ssd300_resnet34",
        "ssd320_resnet50_fpn",
        "ssd320_efficientnet_lite0",
        "ssd300_vgg16",
        "ssd512_vgg16",
        "centernet_hourglass104",
    }
    assert catalog.initial_weights("ssd512_vgg16").name == "vgg16_caffe"
    assert catalog.initial_weights("ssd_demo") is None


def test_an_unknown_name_names_near_ones():
    with pytest.raises(KeyError, match="Did you mean vgg16_caffe"):
        catalog.find("vgg16_cafe")
    assert catalog.named("vgg16_cafe") is None


def test_the_table_needs_no_tensorflow():
    code = "import sys; from ssd_centernet.weights import catalog; print('numpy' in sys.modules)"
    assert python(code).stdout.strip() == "False"


def test_the_page_is_that_of_the_table():
    written = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    assert written == weights_doc.document(), (
        "write it again: python -m tools.weights_doc docs/weights.md"
    )
