"""The recipes with `_plus` are the networks that they are named after, trained in another way."""

import numpy as np
import pytest

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.export.export import export
from ssd_centernet.recipe import Recipe
from tests.export.lively import lively_detector
from tests.models import contracts
from tests.narrow import NARROW, PLUS, SIZE

PARTS = ("backbone", "neck", "decoder", "preprocessing")


def build(recipe, *params):
    config.parse([recipe], [f"IMAGE_SIZE = {SIZE}", *NARROW.get(recipe, ()), *params])
    try:
        return build_detector(num_classes=contracts.NUM_CLASSES), Recipe()
    finally:
        config.clear()


def shapes(detector, *, head):
    """Return the shapes of the variables of the head, or of all others."""
    mine = {id(v) for v in detector.head.variables}
    return {v.name: tuple(v.shape) for v in detector.variables if (id(v) in mine) == head}


@pytest.mark.parametrize("plus", PLUS)
def test_it_is_the_published_network_up_to_its_head(plus):
    (ours, recipe), (published, other) = build(plus), build(PLUS[plus])
    assert shapes(ours, head=False) == shapes(published, head=False)
    for part in PARTS:
        mine, theirs = (getattr(one, part).get_config() for one in (ours, published))
        assert mine == theirs, part
    # Whatever else a training has is as published.
    for name in ("batch_size", "optimizer", "schedule", "weight_decay", "published_weights"):
        assert getattr(recipe, name) == getattr(other, name), name
    assert type(recipe.augment) is type(other.augment)
    if "centernet" in plus:
        count = [sum(map(np.prod, shapes(one, head=True).values())) for one in (ours, published)]
        # One branch of four sides instead of one of an offset and one of a size.
        assert 0.6 * count[1] < count[0] < count[1]
        return
    assert shapes(ours, head=True) == shapes(published, head=True)
    check_same_detections(ours, published)


def check_same_detections(ours, published):
    ours.set_weights(published.get_weights())
    pixels = np.random.default_rng(0).integers(0, 255, (2, 90, 120, 3)).astype(np.uint8)
    for key, value in published.detect(pixels).items():
        np.testing.assert_array_equal(ours.detect(pixels)[key], value, err_msg=key)


@pytest.mark.parametrize("demo", ["ssd_demo", "ssd_fpn_demo"])
def test_the_plus_of_a_demo_detects_as_the_demo_does(demo):
    (ours, _), (other, _) = build(f"{demo}_plus"), build(demo)
    for part in (*PARTS, "head", "anchors"):
        mine, theirs = (getattr(one, part).get_config() for one in (ours, other))
        assert mine == theirs, part
    check_same_detections(ours, other)


def test_a_head_of_sides_is_exported(tmp_path):
    """The others export what their published recipes do: the same network and decoder."""
    detector = lively_detector("centernet_resnet101_fpn_plus")
    pixels = np.random.default_rng(1).integers(0, 255, (1, 90, 120, 3)).astype(np.uint8)
    card = export(detector, tmp_path / "out", formats=["tflite"], images=pixels)
    for name, checked in card["formats"].items():
        numbers = checked["parity"]
        assert numbers["compared"] > 25 and numbers["share"] >= 0.99, (name, numbers)
